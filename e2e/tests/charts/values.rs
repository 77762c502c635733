//! Values: what they reach, and what is refused.

use serde_json::{Value, json};
use sidecar_testkit::{Program, repository_root};

use crate::render::*;

#[test]
fn lint_is_clean() {
    for program in [Program::Helm4, Program::Helm3] {
        for chart in [INJECTOR, HTTPBIN] {
            helm(program, &["lint", "--strict", &format!("charts/{chart}")].map(ToOwned::to_owned)).unwrap();
        }
    }
}

const HELM: &str = "certificates.mode=helm";
const NO_RIGHTS: &str = "certificates.mode=helm,definitionResources.watch=false,events.enabled=false";

#[test]
fn what_cannot_work_is_refused_with_a_sentence() {
    let rows: [(&str, &[&str], &str); 54] = [
        (INJECTOR, &["replica=3"], "additional properties 'replica' not allowed"),
        (INJECTOR, &["image.tga=1"], "additional properties 'tga' not allowed"),
        (INJECTOR, &["replicas=two"], "at '/replicas': got string, want integer"),
        (INJECTOR, &["webhook.failurePolicy=Maybe"], "value must be one of 'Ignore', 'Fail'"),
        (INJECTOR, &["webhook.timeoutSeconds=31"], "at '/webhook/timeoutSeconds'"),
        (
            INJECTOR,
            &["certificates.mode=selfmade"],
            "value must be one of 'selfManaged', 'certManager', 'provided', 'helm'",
        ),
        (INJECTOR, &["image.digest=sha256:1"], "at '/image/digest'"),
        (INJECTOR, &["definitionResources=null"], "missing property 'definitionResources'"),
        (INJECTOR, &["webhook.failurePolicy=null"], "at '/webhook': missing property 'failurePolicy'"),
        (INJECTOR, &["certificates.helm=null"], "at '/certificates': missing property 'helm'"),
        (HTTPBIN, &["test.image=null"], "at '/test': missing property 'image'"),
        (HTTPBIN, &["podLables.a=b"], "additional properties 'podLables' not allowed"),
        (INJECTOR, &["certificates.mode=provided"], "set certificates.provided.secretName"),
        (
            INJECTOR,
            &["certificates.mode=provided", "certificates.provided.secretName=a"],
            "set certificates.provided.caBundle",
        ),
        (
            INJECTOR,
            &[
                "certificates.mode=provided",
                "certificates.provided.secretName=a",
                "certificates.provided.caBundle=x",
            ],
            "neither a PEM certificate nor base64 of one",
        ),
        (
            INJECTOR,
            &["certificates.mode=provided", "certificates.provided.secretName=kubernetes-sidecar-injector"],
            "changing the mode deletes it",
        ),
        (INJECTOR, &["certificates.provided.secretName=a"], "set certificates.mode to \"provided\""),
        (INJECTOR, &["certificates.helm.ca.certificate=x"], "set certificates.mode to \"helm\""),
        (INJECTOR, &["certificates.mode=helm", "certificates.helm.ca.certificate=x"], "set both or neither"),
        (
            INJECTOR,
            &["certificates.certManager.issuerRef.name=x"],
            "set certificates.mode to \"certManager\"",
        ),
        (INJECTOR, &["certificates.selfManaged.caOverlap=0h"], "at '/certificates/selfManaged/caOverlap'"),
        (INJECTOR, &["certificates.selfManaged.caLifetime=00h"], "at '/certificates/selfManaged/caLifetime'"),
        (INJECTOR, &["certificates.certManager.duration=0h"], "at '/certificates/certManager/duration'"),
        (INJECTOR, &["selfProbe.interval=0s"], "at '/selfProbe/interval'"),
        (
            INJECTOR,
            &["certificates.selfManaged.certificateLifetime=14601h"],
            "certificateLifetime (14601h) must be at most a third of caLifetime (43800h)",
        ),
        (
            INJECTOR,
            &[
                "certificates.selfManaged.certificateLifetime=1201s",
                "certificates.selfManaged.caLifetime=60m",
            ],
            "certificateLifetime (1201s) must be at most a third of caLifetime (60m)",
        ),
        (INJECTOR, &["serviceAccount.create=false"], "Name an account"),
        (INJECTOR, &["serviceAccount.create=false", "certificates.mode=certManager"], "Name an account"),
        (INJECTOR, &["serviceAccount.create=false", "missedPods.mode=repair", HELM], "Name an account"),
        (
            INJECTOR,
            &["serviceAccount.create=false", "definitionResources.watch=false", HELM],
            "Name an account",
        ),
        (INJECTOR, &["serviceAccount.create=false", NO_RIGHTS, "selfProbe.enabled=true"], "Name an account"),
        (INJECTOR, &["podLabels.sidecar\\.me/inject=yes"], "podLabels must not have sidecar.me/inject"),
        (INJECTOR, &["commonLabels.sidecar\\.me/inject=yes"], "commonLabels must not have sidecar.me/inject"),
        (
            INJECTOR,
            &["shutdownDelaySeconds=40"],
            "terminationGracePeriodSeconds (40) must exceed shutdownDelaySeconds (40) by 10",
        ),
        (INJECTOR, &["extraEnv[0].name=HTTPS_PORT"], "extraEnv must not have HTTPS_PORT"),
        (INJECTOR, &["podDisruptionBudget.minAvailable=2"], "must be smaller than replicas (2)"),
        (INJECTOR, &["podDisruptionBudget.minAvailable=100%"], "must be smaller than replicas (2)"),
        (
            INJECTOR,
            &["podDisruptionBudget.minAvailable=51%"],
            "(51%: 2 pods) must be smaller than replicas (2)",
        ),
        (INJECTOR, &["replicas=3", "podDisruptionBudget.minAvailable=67%"], "(67%: 3 pods) must be smaller"),
        (
            INJECTOR,
            &["autoscaling.enabled=true", "podDisruptionBudget.minAvailable=2"],
            "must be smaller than autoscaling.minReplicas (2)",
        ),
        (INJECTOR, &["podDisruptionBudget.maxUnavailable=0"], "at '/podDisruptionBudget/maxUnavailable'"),
        (
            INJECTOR,
            &["autoscaling.enabled=true", "autoscaling.minReplicas=9"],
            "must not be more than autoscaling.maxReplicas (6)",
        ),
        (INJECTOR, &["updateStrategy.type=Recreate"], "set updateStrategy.rollingUpdate to null"),
        (INJECTOR, &["hostNetwork=true", "containerPort=10250"], "take another, 10260 for example"),
        (INJECTOR, &["hostNetwork=true", "networkPolicy.enabled=true"], "do not hold for pods in the node's"),
        (INJECTOR, &["hostNetwork=true", "hostUsers=false"], "a user namespace of their own"),
        (INJECTOR, &["webhook.url=https://10.0.0.1:8443"], "the chart's own certificate is for names only"),
        (INJECTOR, &["webhook.url=http://a.example.com"], "at '/webhook/url'"),
        (INJECTOR, &["extraVolumes[0].name=certs"], "the chart has a volume of this name"),
        (INJECTOR, &["extraVolumes[0].name=clients"], "the chart has a volume of this name"),
        (INJECTOR, &["webhook.clientVerification.names[0]=a"], "but no configMap with the CA"),
        (
            INJECTOR,
            &["missedPods.mode=repair", "definitionResources.watch=false"],
            "set definitionResources.watch to true, or missedPods.mode to \"off\"",
        ),
        (INJECTOR, &["demo.enabled=true", "definitions.curl=null"], "no sidecar for the demo's pod"),
        (INJECTOR, &["demo.enabled=true", "demo.namespace=default"], "the namespace of the injector"),
    ];
    for (chart, values, message) in rows {
        let arguments: Vec<String> = values.iter().map(|value| format!("--set={value}")).collect();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let error = helm(Program::Helm4, &template(chart, chart, &arguments)).expect_err(message);
        assert!(error.contains(message), "{values:?} gave\n{error}");
        assert!(!error.contains("error calling include"), "{values:?}: not the sentence alone:\n{error}");
    }
}

/// The neighbours of what is refused.
#[test]
fn what_just_works_is_taken() {
    for values in [
        "certificates.selfManaged.certificateLifetime=14600h",
        "certificates.selfManaged.certificateLifetime=20m,certificates.selfManaged.caLifetime=3600s",
        "podDisruptionBudget.minAvailable=50%",
        "podDisruptionBudget.minAvailable=100%,podDisruptionBudget.maxUnavailable=1%",
        "replicas=3,podDisruptionBudget.minAvailable=66%",
        "serviceAccount.create=false,serviceAccount.name=mine",
    ] {
        render(INJECTOR, INJECTOR, &["--set", values]);
    }
    let objects = render(INJECTOR, INJECTOR, &["--set=serviceAccount.create=false", "--set", NO_RIGHTS]);
    let pod = &of_kind(&objects, "Deployment")["spec"]["template"]["spec"];
    assert_eq!(pod["serviceAccountName"], "default");
    assert_eq!(pod["automountServiceAccountToken"], false);
    assert!(objects.iter().all(|object| !text(object, "/kind").ends_with("Binding")));
}

#[test]
fn the_schema_lets_parent_charts_in() {
    for chart in [INJECTOR, HTTPBIN] {
        render(chart, chart, &["--set=enabled=true", "--set=global.anything.of=theirs"]);
    }
}

/// A value without a schema is a typo that nobody is told about; a schema without a value is a setting that nobody finds.
#[test]
fn values_and_their_schema_have_the_same_keys() {
    for chart in ["kubernetes-sidecar-injector", "httpbin"] {
        let folder = repository_root().join("charts").join(chart);
        let values: Value =
            serde_saphyr::from_str(&std::fs::read_to_string(folder.join("values.yaml")).unwrap()).unwrap();
        let schema: Value =
            serde_json::from_str(&std::fs::read_to_string(folder.join("values.schema.json")).unwrap())
                .unwrap();
        compare_keys(chart, &values, &schema);
    }
}

fn compare_keys(place: &str, values: &Value, schema: &Value) {
    let (Some(values), Some(properties)) = (values.as_object(), schema["properties"].as_object()) else {
        return;
    };
    // `{}` is for the user to fill.
    if values.is_empty() {
        return;
    }
    for (key, value) in values {
        let property = properties.get(key).unwrap_or_else(|| panic!("{place}.{key} is not in the schema"));
        compare_keys(&format!("{place}.{key}"), value, property);
    }
    // What every chart's root has for its parents.
    let is_known = |key: &String| values.contains_key(key) || ["global", "enabled"].contains(&key.as_str());
    let unknown: Vec<_> = properties.keys().filter(|key| !is_known(key)).collect();
    assert!(unknown.is_empty(), "{place}: only in the schema: {unknown:?}");
}

/// To Helm null takes a value away. Without one that has a meaning of its own, templates fail with what nobody understands, or render
/// something else than what was chosen here.
#[test]
fn values_with_a_meaning_cannot_be_null_and_others_can() {
    for (chart, provided) in [(INJECTOR, &PROVIDED[..3]), (HTTPBIN, &[])] {
        let folder = repository_root().join("charts").join(chart);
        let read = |file: &str| std::fs::read_to_string(folder.join(file)).unwrap();
        let values: Value = serde_saphyr::from_str(&read("values.yaml")).unwrap();
        let schema: Value = serde_json::from_str(&read("values.schema.json")).unwrap();
        let (mut empty, mut maps) = (Vec::new(), Vec::new());
        sort_by_meaning("", &values, &schema, &mut empty, &mut maps);
        assert!(empty.len() > 5 && maps.len() > 3, "{empty:?} {maps:?}");
        let nulls = |names: &[String]| {
            let values: Vec<_> = names.iter().map(|name| format!("{name}=null")).collect();
            format!("--set={}", values.join(","))
        };
        let no_empty = nulls(&empty.iter().filter(|name| !is_provided(name)).cloned().collect::<Vec<_>>());
        assert_eq!(
            render(chart, chart, &[provided, &[&no_empty]].concat()),
            render(chart, chart, provided),
            "{chart}"
        );
        // Another way through the templates: with certificates of Helm's.
        render(chart, chart, &[&nulls(&empty), &nulls(&maps)]);
    }
}

/// What the certificates of mode `provided` need.
fn is_provided(name: &str) -> bool {
    name.starts_with("certificates.provided.")
}

/// Which values are empty, and which are maps with names of the user's own. All others must be required by the schema.
fn sort_by_meaning(
    place: &str,
    values: &Value,
    schema: &Value,
    empty: &mut Vec<String>,
    maps: &mut Vec<String>,
) {
    let required = schema["required"].as_array().map(Vec::as_slice).unwrap_or_default();
    for (key, value) in values.as_object().unwrap() {
        let property = &schema["properties"][key];
        let name = format!("{place}{key}");
        let is_required = required.contains(&json!(key));
        let is_empty = [json!(""), json!(false), json!([]), json!({})].contains(value);
        let is_own_map = value.is_object() && property.get("properties").is_none();
        assert_eq!(is_required, !is_empty && !is_own_map, "whether the schema requires {name}");
        if is_empty {
            empty.push(name);
        } else if is_own_map {
            maps.push(name);
        } else if value.is_object() {
            sort_by_meaning(&format!("{name}."), value, property, empty, maps);
        }
    }
}

#[test]
fn images_can_come_from_a_mirror_and_be_pinned() {
    let digest = format!("sha256:{}", "0".repeat(64));
    let pinned = format!("--set=image.digest={digest}");
    let rows = [
        (vec![], "kubernetes-sidecar-injector:0.1.0".to_owned()),
        (vec!["--set=image.tag=dev"], "kubernetes-sidecar-injector:dev".to_owned()),
        (
            vec!["--set=global.imageRegistry=r.example.com/m/"],
            "r.example.com/m/kubernetes-sidecar-injector:0.1.0".to_owned(),
        ),
        (vec![pinned.as_str()], format!("kubernetes-sidecar-injector@{digest}")),
    ];
    for (arguments, image) in rows {
        let objects = render(INJECTOR, INJECTOR, &arguments);
        assert_eq!(text(container(of_kind(&objects, "Deployment")), "/image"), image);
        assert_eq!(
            text(of_kind(&objects, "Pod"), "/spec/containers/0/image"),
            image,
            "the test pod runs the same"
        );
    }
    // A whole name, as values.yaml says.
    let arguments = ["--set=global.imageRegistry=r.example.com,demo.enabled=true"];
    let objects = render(INJECTOR, INJECTOR, &arguments);
    let demo =
        objects.iter().find(|object| object["metadata"]["name"] == "demo" && object["kind"] == "Deployment");
    assert_eq!(container(demo.unwrap())["image"], "registry.k8s.io/pause:3.10");
}

#[test]
fn one_replica_has_no_disruption_budget() {
    let objects = render(INJECTOR, INJECTOR, &["--set=replicas=1"]);
    assert!(
        objects.iter().all(|object| object["kind"] != "PodDisruptionBudget"),
        "it would block every drain"
    );
    let objects = render(INJECTOR, INJECTOR, &["--set=replicas=3"]);
    assert_eq!(of_kind(&objects, "PodDisruptionBudget")["spec"]["minAvailable"], 1);
}

#[test]
fn a_rollout_never_takes_a_pod_away_first() {
    let objects = render(INJECTOR, INJECTOR, &[]);
    let spec = &of_kind(&objects, "Deployment")["spec"];
    assert_eq!(spec["replicas"], 2);
    assert_eq!(spec["strategy"]["rollingUpdate"], json!({"maxUnavailable": 0, "maxSurge": 1}));
    let pod = &spec["template"]["spec"];
    let env = env(container(of_kind(&objects, "Deployment")));
    assert_eq!((env["SHUTDOWN_DELAY"], env["DRAIN_TIMEOUT"]), ("10s", "25s"));
    assert_eq!(pod["terminationGracePeriodSeconds"], 40);
    assert_eq!(pod["topologySpreadConstraints"].as_array().unwrap().len(), 2);
    assert!(
        container(of_kind(&objects, "Deployment")).get("lifecycle").is_none(),
        "the image has nothing to run in a hook"
    );
}

#[test]
fn pods_meet_pod_security_restricted() {
    let injector = render(INJECTOR, INJECTOR, &[]);
    let httpbin = render(HTTPBIN, HTTPBIN, &[]);
    for pod in [
        &of_kind(&injector, "Deployment")["spec"]["template"]["spec"],
        &of_kind(&injector, "Pod")["spec"],
        &of_kind(&httpbin, "Pod")["spec"],
    ] {
        // Only the injector asks the API server anything, and the test that reads its caBundle.
        let is_injector = pod["serviceAccountName"] == INJECTOR;
        assert_eq!(pod["automountServiceAccountToken"], is_injector);
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        for field in ["hostNetwork", "hostPID", "hostIPC"] {
            assert!(pod.get(field).is_none());
        }
        for container in pod["containers"].as_array().unwrap() {
            let security = &container["securityContext"];
            assert_eq!(security["allowPrivilegeEscalation"], false);
            assert_eq!(security["capabilities"], json!({"drop": ["ALL"]}));
            assert_eq!(security["readOnlyRootFilesystem"], true);
            assert_ne!(security["privileged"], true);
        }
    }
    assert!(container(of_kind(&injector, "Deployment"))["resources"]["limits"].get("cpu").is_none());
}

#[test]
fn names_fit_whatever_the_release_is_called() {
    let longest = "r".repeat(53);
    for release in ["a", INJECTOR, &longest, "my-kubernetes-sidecar-injector"] {
        let objects = render(INJECTOR, release, &[HELM_MODE]);
        let service = text(of_kind(&objects, "Service"), "/metadata/name");
        assert!(service.len() <= 63 && !service.ends_with('-'), "{service}");
        for webhook in webhooks(&objects) {
            assert_eq!(text(webhook, "/clientConfig/service/name"), service);
        }
        let folder = tempfile::tempdir().unwrap();
        write_certificates(folder.path(), &objects);
        verify(folder.path(), &format!("{service}.default.svc"));
        for object in &objects {
            for label in object["metadata"]["labels"].as_object().unwrap().values() {
                assert!(label.as_str().unwrap().len() <= 63, "{label}");
            }
        }
    }
}

/// Helm forgets the other values as soon as a command has one.
#[test]
fn documented_upgrades_keep_the_values_of_before() {
    let mut found = 0;
    for file in ["README.md", "docs/operations.md", "docs/certificates.md", "docs/troubleshooting.md"]
        .map(ToOwned::to_owned)
        .into_iter()
        .chain([format!("charts/{INJECTOR}/templates/NOTES.txt")])
    {
        let page = std::fs::read_to_string(repository_root().join(&file)).unwrap().replace("\\\n", "");
        for command in page.lines().filter(|line| line.trim_start().starts_with("helm upgrade ")) {
            let has_value = ["--set", "--values"].iter().any(|flag| command.contains(flag));
            assert!(!has_value || command.contains(" --reset-then-reuse-values "), "{file}: {command}");
            found += usize::from(has_value);
        }
    }
    assert!(found > 5, "{found}");
}

/// Text in the chart's annotations that nothing else reads.
#[test]
fn what_artifact_hub_shows_is_so() {
    let read = |file: &str| {
        let path = repository_root().join("charts").join(INJECTOR).join(file);
        serde_saphyr::from_str::<Value>(&std::fs::read_to_string(path).unwrap()).unwrap()
    };
    let chart = read("Chart.yaml");
    let annotation = |name: &str| -> Value {
        serde_saphyr::from_str(text(&chart["annotations"], &format!("/artifacthub.io~1{name}"))).unwrap()
    };
    let objects = render(INJECTOR, INJECTOR, &[]);
    let image = &annotation("images")[0]["image"];
    assert_eq!(*image, container(of_kind(&objects, "Deployment"))["image"]);
    let kinds = |objects: &[Value], kind: &str, name: &str| {
        let all = objects.iter().map(|object| (text(object, kind).to_owned(), text(object, name).to_owned()));
        all.collect::<std::collections::BTreeSet<_>>()
    };
    let definitions: Vec<Value> =
        objects.iter().filter(|object| object["kind"] == "CustomResourceDefinition").cloned().collect();
    let shown = annotation("crds");
    let shown = kinds(shown.as_array().unwrap(), "/kind", "/name");
    assert_eq!(shown, kinds(&definitions, "/spec/names/kind", "/metadata/name"));
    for change in annotation("changes").as_array().unwrap() {
        assert!(
            ["added", "changed", "deprecated", "removed", "fixed", "security"]
                .contains(&text(change, "/kind"))
        );
        assert!(!text(change, "/description").is_empty());
    }
}
