//! Definitions in values and as objects: what is mounted, who may do what, and who is asked.

use serde_json::{Value, json};
use sidecar_engine::definition::{BUILTIN_CURL, Compiled};
use sidecar_testkit::Program;

use crate::render::*;

fn config_map(arguments: &[&str]) -> Value {
    of_kind(&render(INJECTOR, INJECTOR, arguments), "ConfigMap")["data"].clone()
}

fn of_name<'a>(objects: &'a [Value], kind: &str, name: &str) -> Option<&'a Value> {
    objects.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name)
}

#[test]
fn the_default_is_the_article_s_definition_and_the_one_in_the_binary() {
    let data = config_map(&[]);
    assert_eq!(keys(&data), ["curl.yaml"]);
    let [mounted, embedded] = [text(&data, "/curl.yaml"), BUILTIN_CURL].map(|text| parse(text).remove(0));
    assert_eq!(mounted, embedded);
    Compiled::from_yaml(text(&data, "/curl.yaml")).expect("a good definition");
}

#[test]
fn definitions_are_added_to_and_taken_away_from() {
    let spec = "--set-json=definitions.other={\"selector\":{\"podSelector\":{}},\"inject\":{\"spec\":{\"hostname\":\"h\"}}}";
    assert_eq!(keys(&config_map(&[spec])), ["curl.yaml", "other.yaml"]);
    assert_eq!(keys(&config_map(&[spec, "--set=definitions.curl=null"])), ["other.yaml"]);
    assert_eq!(config_map(&["--set=definitions.curl=null"]), json!({}));
    // No part of the Deployment: changing one rolls no pod, the running ones read it again.
    let deployments = [&[][..], &[spec]].map(|more| {
        let objects = render(INJECTOR, INJECTOR, &[&PROVIDED[..], more].concat());
        of_kind(&objects, "Deployment").clone()
    });
    assert_eq!(deployments[0], deployments[1]);
    let malformed = "is no name for a definition";
    let taken = "is a value of sidecar.me/inject";
    for (name, reason) in [("Other", malformed), ("a_b", malformed), ("true", taken), ("false", taken)] {
        let argument = format!("--set-json=definitions.{name}={{}}");
        let refused = helm(Program::Helm4, &template(INJECTOR, INJECTOR, &[&argument])).unwrap_err();
        assert!(refused.contains(&format!("\"{name}\" {reason}")), "{refused}");
    }
}

#[test]
fn what_looks_like_a_template_survives() {
    let odd = "${params.a} {{ .Values.x }} $(VAR) 'q' \\ # no comment";
    let lines = "first  \n---\n  {{- fail }}\n\tlast\n\n";
    let spec = json!({
        "parameters": [{"name": "a", "default": "1"}],
        "inject": {
            "metadata": {"annotations": {"a": odd, "b": lines, "c": "0123", "d": "on", "e": ""}},
            "spec": {"securityContext": {"runAsUser": 1_000_650_000}, "terminationGracePeriodSeconds": 0},
        },
    });
    let folder = tempfile::tempdir().unwrap();
    let values = folder.path().join("values.json");
    std::fs::write(&values, json!({"definitions": {"odd": spec}}).to_string()).unwrap();
    let values = format!("--values={}", values.display());
    for program in [Program::Helm4, Program::Helm3] {
        let objects = parse(&helm(program, &template(INJECTOR, INJECTOR, &[&values])).unwrap());
        let definition = &parse(text(of_kind(&objects, "ConfigMap"), "/data/odd.yaml"))[0];
        assert_eq!(definition["spec"], spec);
        assert_eq!(definition["metadata"], json!({"name": "odd"}));
    }
}

#[test]
fn the_whole_config_map_is_mounted_where_the_server_looks() {
    for (argument, name) in [
        ("--set=existingDefinitionsConfigMap=", "kubernetes-sidecar-injector-definitions"),
        ("--set=existingDefinitionsConfigMap=mine", "mine"),
    ] {
        let objects = render(INJECTOR, INJECTOR, &[argument]);
        assert_eq!(objects.iter().any(|object| object["kind"] == "ConfigMap"), name != "mine");
        let pod = &of_kind(&objects, "Deployment")["spec"]["template"]["spec"];
        let volume =
            pod["volumes"].as_array().unwrap().iter().find(|volume| volume["name"] == "definitions").unwrap();
        assert_eq!(volume["configMap"], json!({"name": name}));
        let container = container(of_kind(&objects, "Deployment"));
        let mount = container["volumeMounts"]
            .as_array()
            .unwrap()
            .iter()
            .find(|mount| mount["name"] == "definitions")
            .unwrap();
        // With a subPath a change would never arrive.
        assert_eq!(keys(mount), ["mountPath", "name", "readOnly"]);
        assert_eq!(env(container)["DEFINITIONS"], text(mount, "/mountPath"));
    }
}

#[test]
fn the_injector_may_read_what_it_watches_and_nothing_else() {
    let objects = render(INJECTOR, INJECTOR, &[]);
    let role = of_name(&objects, "ClusterRole", INJECTOR).unwrap();
    assert_eq!(
        role["rules"],
        json!([
            {"apiGroups": ["sidecar.me"], "resources": ["clustersidecardefinitions", "sidecardefinitions"], "verbs": ["get", "list", "watch"]},
            {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["list", "watch"]},
            {"apiGroups": ["sidecar.me"], "resources": ["clustersidecardefinitions/status", "sidecardefinitions/status"], "verbs": ["patch"]},
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]},
        ])
    );
    let role = of_name(&objects, "Role", INJECTOR).unwrap();
    assert_eq!(
        role["rules"],
        json!([{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "resourceNames": [INJECTOR], "verbs": ["get", "update"]}])
    );
    let objects_without = render(INJECTOR, INJECTOR, &["--set=definitionStatus.enabled=false"]);
    let role_without = of_name(&objects_without, "ClusterRole", INJECTOR).unwrap();
    assert!(!role_without["rules"].to_string().contains("/status"));
    assert_eq!(env(container(of_kind(&objects_without, "Deployment")))["DEFINITION_STATUS"], "false");
    let binding = of_name(&objects, "ClusterRoleBinding", INJECTOR).unwrap();
    assert_eq!(
        binding["subjects"],
        json!([{"kind": "ServiceAccount", "name": INJECTOR, "namespace": "default"}])
    );
    assert_eq!(binding["roleRef"]["name"], INJECTOR);

    let objects = render(
        INJECTOR,
        INJECTOR,
        &["--set=definitionResources.watch=false,events.enabled=false", HELM_MODE],
    );
    for kind in [
        "ClusterRole",
        "ClusterRoleBinding",
        "Role",
        "RoleBinding",
        "Lease",
        "ValidatingWebhookConfiguration",
    ] {
        assert!(!objects.iter().any(|object| object["kind"] == kind), "{kind}");
    }
    let deployment = of_kind(&objects, "Deployment");
    assert_eq!(deployment["spec"]["template"]["spec"]["automountServiceAccountToken"], false);
    assert_eq!(env(container(deployment))["DEFINITION_RESOURCES"], "false");
}

#[test]
fn pods_are_looked_at_and_their_owners_restarted_only_where_that_is_wanted() {
    let rules = |mode: &str| {
        let objects = render(INJECTOR, INJECTOR, &[&format!("--set=missedPods.mode={mode}")]);
        let deployment = of_kind(&objects, "Deployment");
        // Rendered empty: an upgrade must not take it away from who holds it.
        assert_eq!(mode != "off", objects.iter().any(|object| object["kind"] == "Lease"));
        if let Some(lease) = objects.iter().find(|object| object["kind"] == "Lease") {
            assert_eq!(lease.get("spec"), None);
            assert_eq!(env(container(deployment))["LEASE"], format!("default/{INJECTOR}"));
        }
        assert_eq!(env(container(deployment))["MISSED_PODS"], mode);
        of_name(&objects, "ClusterRole", INJECTOR).unwrap()["rules"].to_string()
    };
    let off = rules("off");
    assert!(!off.contains("\"pods"), "{off}");
    let report = rules("report");
    assert!(
        report.contains("\"pods\"") && !report.contains("eviction") && !report.contains("deployments"),
        "{report}"
    );
    let repair = rules("repair");
    assert!(repair.contains("pods/eviction") && repair.contains("deployments"), "{repair}");
    assert!(!repair.contains("delete") && !repair.contains("secrets"), "{repair}");
}

#[test]
fn editors_manage_the_definitions_of_their_namespaces_and_of_no_other() {
    let objects = render(INJECTOR, INJECTOR, &[]);
    let edit = of_name(&objects, "ClusterRole", "kubernetes-sidecar-injector-edit").unwrap();
    for role in ["admin", "edit"] {
        assert_eq!(
            edit["metadata"]["labels"][format!("rbac.authorization.k8s.io/aggregate-to-{role}")],
            "true"
        );
    }
    assert_eq!(
        edit["rules"],
        json!([{
            "apiGroups": ["sidecar.me"], "resources": ["sidecardefinitions"],
            "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
        }])
    );
    let view = of_name(&objects, "ClusterRole", "kubernetes-sidecar-injector-view").unwrap();
    assert_eq!(view["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-view"], "true");
    assert_eq!(
        view["rules"],
        json!([{
            "apiGroups": ["sidecar.me"], "resources": ["clustersidecardefinitions", "sidecardefinitions"],
            "verbs": ["get", "list", "watch"],
        }])
    );
    for role in objects.iter().filter(|object| object["kind"] == "ClusterRole") {
        for rule in role["rules"].as_array().unwrap() {
            let writes = rule["verbs"]
                .as_array()
                .unwrap()
                .iter()
                .any(|verb| !["get", "list", "watch"].contains(&verb.as_str().unwrap()));
            // What they say of themselves is another matter.
            let resources = rule["resources"].to_string();
            assert!(!(writes && resources.contains("\"clustersidecardefinitions\"")), "{rule}");
        }
    }
    let objects = render(INJECTOR, INJECTOR, &["--set=rbac.aggregate=false"]);
    assert!(of_name(&objects, "ClusterRole", "kubernetes-sidecar-injector-edit").is_none());
    assert!(of_name(&objects, "ClusterRole", INJECTOR).is_some(), "its own rights are another matter");
    // Where another release, or somebody else, brings the kinds.
    let objects = render(INJECTOR, INJECTOR, &["--set=crds.install=false"]);
    assert!(of_name(&objects, "ClusterRole", "kubernetes-sidecar-injector-edit").is_some());
}

#[test]
fn definitions_are_validated_and_pods_never_meet_that_webhook() {
    let objects = render(INJECTOR, INJECTOR, &[]);
    let webhooks = of_kind(&objects, "ValidatingWebhookConfiguration")["webhooks"].as_array().unwrap();
    assert_eq!(
        webhooks[..],
        [json!({
            "name": "definitions.sidecar.me",
            "admissionReviewVersions": ["v1"],
            "clientConfig": {
                "service": {"name": INJECTOR, "namespace": "default", "path": "/validation/definition", "port": 443},
            },
            // Not the subresource `status`, and no pod.
            "rules": [{
                "apiGroups": ["sidecar.me"], "apiVersions": ["v1alpha1"], "operations": ["CREATE", "UPDATE"],
                "resources": ["clustersidecardefinitions", "sidecardefinitions"], "scope": "*",
            }],
            "failurePolicy": "Fail", "matchPolicy": "Equivalent", "sideEffects": "None", "timeoutSeconds": 5,
        })]
    );
    let objects = render(INJECTOR, INJECTOR, &["--set=definitionResources.validation.failurePolicy=Ignore"]);
    let webhook = &of_kind(&objects, "ValidatingWebhookConfiguration")["webhooks"][0];
    assert_eq!(webhook["failurePolicy"], "Ignore");
    let objects = render(INJECTOR, INJECTOR, &["--set=definitionResources.validation.enabled=false"]);
    assert!(!objects.iter().any(|object| object["kind"] == "ValidatingWebhookConfiguration"));
}

#[test]
fn the_kinds_are_kept_unless_told_otherwise_and_can_be_left_out() {
    let kinds = |arguments: &[&str]| -> Vec<Value> {
        let objects = render(INJECTOR, INJECTOR, arguments);
        objects.into_iter().filter(|object| object["kind"] == "CustomResourceDefinition").collect()
    };
    let kept = kinds(&[]);
    assert_eq!(kept.len(), 2);
    for kind in &kept {
        assert_eq!(kind["metadata"]["annotations"], json!({"helm.sh/resource-policy": "keep"}));
        assert!(kind.to_string().len() < 200 * 1024);
    }
    for kind in kinds(&["--set=crds.keep=false"]) {
        assert!(kind["metadata"].get("annotations").is_none());
    }
    assert_eq!(kinds(&["--set=crds.install=false"]).len(), 0);
    let plain = std::fs::read_to_string(sidecar_testkit::repository_root().join("deploy/crds.yaml")).unwrap();
    let plain: Vec<_> = parse(&plain).into_iter().map(|object| object["spec"].clone()).collect();
    assert_eq!(plain, kept.iter().map(|object| object["spec"].clone()).collect::<Vec<_>>());
}

#[test]
fn the_notes_say_how_to_add_a_definition_and_what_is_missing() {
    let notes = |values: &[&str]| {
        let mut arguments =
            vec!["install", INJECTOR, "charts/kubernetes-sidecar-injector", "--dry-run=client"];
        arguments.extend(values);
        let arguments: Vec<_> = arguments.into_iter().map(ToOwned::to_owned).collect();
        helm(Program::Helm4, &arguments).unwrap().split_once("\nNOTES:\n").unwrap().1.to_owned()
    };
    let by_default = notes(&[]);
    for expected in ["\n  definitions:\n    hello:\n", "kubectl explain clustersidecardefinitions.spec"] {
        assert!(by_default.contains(expected), "{by_default}");
    }
    let own = notes(&["--set=existingDefinitionsConfigMap=mine", "--set=definitionResources.watch=false"]);
    assert!(own.contains("the ConfigMap mine") && !own.contains("kubectl explain"), "{own}");
    let scoped = notes(&["--set=webhook.scope=Namespaces"]);
    assert!(scoped.contains("kubectl label namespace NAMESPACE sidecar.me/injection=enabled"), "{scoped}");
    let elsewhere = notes(&["--set=certificates.mode=certManager,namespaceOverride=other"]);
    assert!(
        elsewhere.contains("kubectl --namespace other wait --for=condition=Ready certificate/"),
        "{elsewhere}"
    );
    let on_the_node = notes(&["--set=hostNetwork=true,containerPort=10260,metrics.port=10261"]);
    assert!(on_the_node.contains("port 10260") && on_the_node.contains("port 10261"), "{on_the_node}");
    let unmeasured = notes(&["--set=hostNetwork=true,containerPort=10260,metrics.enabled=false"]);
    assert!(!unmeasured.contains("of the metrics") && !by_default.contains("on the nodes"), "{unmeasured}");
    let unseen = notes(&["--set=prometheusRule.enabled=true"]);
    assert!(unseen.contains("job=\"kubernetes-sidecar-injector-metrics\""), "{unseen}");
    let seen = notes(&["--set=prometheusRule.enabled=true,serviceMonitor.enabled=true"]);
    assert!(!by_default.contains("SidecarInjectorDown") && !seen.contains("SidecarInjectorDown"), "{seen}");
}

#[test]
fn two_renders_are_the_same_and_both_helms_render_the_same() {
    let all = [Program::Helm4, Program::Helm3].map(|program| {
        let arguments = template(INJECTOR, INJECTOR, &PROVIDED);
        let [one, other] = [(); 2].map(|()| helm(program, &arguments).unwrap());
        assert_eq!(one, other);
        let mut objects: Vec<_> = parse(&one).iter().map(ToString::to_string).collect();
        objects.sort_unstable();
        objects
    });
    assert_eq!(all[0], all[1]);
}
