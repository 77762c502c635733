//! The files beside values.yaml: what each is for holds, and all are clean. What an API server says to them is in `chart_objects.rs`.

use serde_json::{Value, json};
use sidecar_testkit::{Program, repository_root};

use crate::render::*;

const PROFILES: [&str; 7] = ["aks", "dev", "eks-custom-cni", "gitops", "gke-private", "ha", "openshift"];

fn file(profile: &str) -> String {
    format!("--values=charts/{INJECTOR}/values-{profile}.yaml")
}

fn profile(profile: &str) -> Vec<Value> {
    render(INJECTOR, INJECTOR, &[&file(profile)])
}

#[test]
fn every_profile_is_listed_linted_and_renders_the_same_twice_with_both_helms() {
    let mut found: Vec<String> = std::fs::read_dir(repository_root().join("charts").join(INJECTOR))
        .unwrap()
        .filter_map(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            Some(name.strip_prefix("values-")?.strip_suffix(".yaml")?.to_owned())
        })
        .collect();
    found.sort();
    assert_eq!(found, PROFILES);
    for profile in PROFILES {
        let file = file(profile);
        let render = |program| helm(program, &template(INJECTOR, INJECTOR, &[&file])).unwrap();
        let once = render(Program::Helm4);
        assert_eq!(once, render(Program::Helm4), "{profile}: two renders");
        // Helm 3 puts webhooks, kinds that it does not know, elsewhere.
        let sorted = |text: &str| {
            let mut objects: Vec<String> = parse(text).iter().map(Value::to_string).collect();
            objects.sort();
            objects
        };
        assert!(sorted(&once) == sorted(&render(Program::Helm3)), "{profile}: both Helms");
        for program in [Program::Helm4, Program::Helm3] {
            let chart = format!("charts/{INJECTOR}");
            helm(program, &["lint", "--strict", &chart, &file].map(ToOwned::to_owned)).unwrap();
        }
    }
}

#[test]
fn no_profile_lets_its_pods_do_more() {
    for name in PROFILES {
        let objects = profile(name);
        // Not the demo's, which is anybody's.
        let ours = objects.iter().filter(|object| text(object, "/metadata/name").starts_with(INJECTOR));
        let pods: Vec<_> = ours
            .filter_map(|object| match text(object, "/kind") {
                "Deployment" => Some(&object["spec"]["template"]["spec"]),
                "Pod" => Some(&object["spec"]),
                _ => None,
            })
            .collect();
        assert_eq!(pods.len(), 2, "{name}: what serves, and its test");
        for pod in pods {
            assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{name}");
            for container in pod["containers"].as_array().unwrap() {
                let security = &container["securityContext"];
                assert_eq!(security["readOnlyRootFilesystem"], true, "{name}");
                assert_eq!(security["allowPrivilegeEscalation"], false, "{name}");
                assert_eq!(security["capabilities"], json!({"drop": ["ALL"]}), "{name}");
            }
            // What could be written to.
            for volume in pod["volumes"].as_array().into_iter().flatten() {
                assert!(
                    volume.get("emptyDir").is_none() && volume.get("hostPath").is_none(),
                    "{name}: {volume}"
                );
            }
        }
    }
}

#[test]
fn nothing_is_rendered_that_somebody_rewrites() {
    let objects = profile("gitops");
    assert!(of_kind(&objects, "Secret").get("data").is_none());
    for webhook in all_webhooks(&objects) {
        assert!(webhook["clientConfig"].get("caBundle").is_none());
    }
    for object in &objects {
        let hook = &object["metadata"]["annotations"]["helm.sh/hook"];
        assert!(hook.is_null() || hook == "test", "{object:#}");
        let is_named_by_release = text(object, "/metadata/name").starts_with(INJECTOR);
        assert!(is_named_by_release || object["kind"] == "CustomResourceDefinition");
    }
    let other = render(INJECTOR, "whatever", &[&file("gitops")]);
    let names = |objects: &[Value]| {
        objects.iter().map(|object| text(object, "/metadata/name").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&objects), names(&other));
}

#[test]
fn the_control_plane_gets_a_port_that_it_can_reach() {
    for (name, port, in_node) in [("gke-private", 10250, Value::Null), ("eks-custom-cni", 10260, json!(true))]
    {
        let objects = profile(name);
        let deployment = of_kind(&objects, "Deployment");
        assert_eq!(container(deployment)["ports"][0]["containerPort"], port);
        assert_eq!(env(container(deployment))["HTTPS_PORT"], port.to_string());
        assert_eq!(deployment["spec"]["template"]["spec"]["hostNetwork"], in_node);
    }
    let objects = profile("eks-custom-cni");
    // Whoever opens and closes the node's ports is told of all.
    let head = std::fs::read_to_string(
        repository_root().join("charts").join(INJECTOR).join("values-eks-custom-cni.yaml"),
    );
    let metrics = &env(container(of_kind(&objects, "Deployment")))["METRICS_PORT"];
    assert!(head.unwrap().contains(&format!("# - The metrics' port, {metrics}, ")));
    let strategy = &of_kind(&objects, "Deployment")["spec"]["strategy"]["rollingUpdate"];
    assert_eq!(*strategy, json!({"maxUnavailable": 1, "maxSurge": 0}));
}

#[test]
fn system_namespaces_of_the_providers_are_left_out() {
    for (name, labels) in
        [("aks", json!({"control-plane": "true"})), ("openshift", json!({"openshift.io/run-level": "0"}))]
    {
        let objects = profile(name);
        for webhook in webhooks(&objects) {
            let required = &json!({"sidecar.me/required": "true"});
            let mut labels = labels.clone();
            let selector = &webhook["namespaceSelector"];
            if text(webhook, "/name").contains("required") {
                labels["sidecar.me/required"] = json!("true");
                assert!(selects(selector, required), "{name}");
            }
            assert!(!selects(selector, &labels), "{name}");
        }
    }
}

#[test]
fn high_availability_takes_one_pod_at_a_time() {
    let objects = profile("ha");
    assert_eq!(of_kind(&objects, "Deployment")["spec"]["replicas"], 3);
    assert_eq!(of_kind(&objects, "PodDisruptionBudget")["spec"]["maxUnavailable"], 1);
    let quota = of_kind(&objects, "ResourceQuota");
    assert_eq!((text(quota, "/metadata/name"), text(quota, "/metadata/namespace")), (INJECTOR, "default"));
}
