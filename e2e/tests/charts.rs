//! What the charts render: the article's objects and names, and the combinations that must not be possible. Needs helm and openssl, no
//! cluster; what only a cluster can show (upgrades keep the certificate, rotation) is in the tests that have one.

// A test may panic; clippy.toml says so for the test functions, this for their helpers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
    sync::OnceLock,
};

use serde_json::{Value, json};
use sidecar_testkit::{Program, Programs, repository_root};

const INJECTOR: &str = "kubernetes-sidecar-injector";
const HTTPBIN: &str = "httpbin";
const DNS_NAME: &str = "kubernetes-sidecar-injector.default.svc";
const PROVIDED: [&str; 4] = [
    "--set=certificates.mode=provided",
    "--set=certificates.provided.secretName=certs",
    "--set=certificates.provided.caBundle=-----BEGIN CERTIFICATE-----\nYQ==\n-----END CERTIFICATE-----",
    "--set=podAnnotations.a=b",
];

// ---- what the article promises -------------------------------------------------------------------------------------------------

#[test]
fn objects_and_names_are_the_article_s() {
    let objects = render(INJECTOR, INJECTOR, &[]);
    let found: BTreeMap<&str, &str> =
        objects.iter().map(|o| (text(o, "/kind"), text(o, "/metadata/name"))).collect();
    let kinds = [
        "Deployment",
        "MutatingWebhookConfiguration",
        "Pod",
        "PodDisruptionBudget",
        "Secret",
        "Service",
        "ServiceAccount",
    ];
    assert_eq!(found.keys().copied().collect::<Vec<_>>(), kinds, "nothing else: no RBAC, no jobs");
    for kind in kinds.into_iter().filter(|kind| *kind != "Pod") {
        assert_eq!(found[kind], INJECTOR, "{kind}");
    }
    let secret = of_kind(&objects, "Secret");
    assert_eq!(keys(&secret["data"]), ["ca.crt", "tls-cert-file", "tls-private-key-file"]);
    let service = of_kind(&objects, "Service");
    assert_eq!(
        service["spec"]["ports"],
        json!([{"name": "https", "port": 443, "protocol": "TCP", "targetPort": "https"}])
    );
    for webhook in webhooks(&objects) {
        assert_eq!(
            without(&webhook["clientConfig"], "caBundle"),
            json!({"service": {"name": INJECTOR, "namespace": "default", "path": "/mutation/pod", "port": 443}})
        );
        let pods = json!([{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"], "scope": "Namespaced"}]);
        assert_eq!(webhook["rules"], pods);
        assert_eq!(webhook["admissionReviewVersions"], json!(["v1"]));
        assert_eq!(webhook["sideEffects"], "None");
    }
}

#[test]
fn the_process_listens_where_the_service_and_the_probes_call() {
    for (arguments, port) in [(vec![], 8443), (vec!["--set=containerPort=10250"], 10250)] {
        let objects = render(INJECTOR, INJECTOR, &arguments);
        let container = container(of_kind(&objects, "Deployment"));
        assert_eq!(container["ports"], json!([{"name": "https", "containerPort": port, "protocol": "TCP"}]));
        let env = env(container);
        assert_eq!(env["HTTPS_PORT"], port.to_string());
        assert_eq!(env["HTTPS_ENABLED"], "true");
        assert_eq!(text(of_kind(&objects, "Service"), "/spec/ports/0/targetPort"), "https");
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            assert_eq!(container[probe]["httpGet"]["port"], "https", "{probe}");
            assert_eq!(container[probe]["httpGet"]["scheme"], "HTTPS", "{probe}");
        }
    }
}

#[test]
fn httpbin_asks_for_the_sidecar() {
    let objects = render(HTTPBIN, HTTPBIN, &[]);
    let deployment = of_kind(&objects, "Deployment");
    let selector = json!({"app.kubernetes.io/name": HTTPBIN, "app.kubernetes.io/instance": HTTPBIN});
    assert_eq!(deployment["spec"]["selector"]["matchLabels"], selector);
    assert_eq!(deployment["spec"]["template"]["metadata"]["labels"]["sidecar.me/inject"], "true");
    let container = container(deployment);
    assert_eq!(container["name"], HTTPBIN);
    assert_eq!(container["image"], "kennethreitz/httpbin:latest");
    assert_eq!(container["imagePullPolicy"], "IfNotPresent");
    assert_eq!(container["ports"][0]["containerPort"], 80);
}

// ---- selectors -----------------------------------------------------------------------------------------------------------------

#[test]
fn selectors_find_the_pods_and_never_use_the_inject_label() {
    let labels = ["--set=commonLabels.team=a", "--set=podLabels.tier=b"];
    for (chart, arguments) in [(INJECTOR, &labels[..]), (HTTPBIN, &[])] {
        let objects = render(chart, chart, arguments);
        let pod = &of_kind(&objects, "Deployment")["spec"]["template"]["metadata"]["labels"];
        let selecting: Vec<&Value> = objects
            .iter()
            .filter_map(|object| {
                object
                    .pointer("/spec/selector/matchLabels")
                    .or_else(|| object.pointer("/spec/selector").filter(|_| object["kind"] == "Service"))
            })
            .collect();
        assert!(selecting.len() >= 2, "{chart}: {selecting:?}");
        for selector in selecting {
            assert_eq!(keys(selector), ["app.kubernetes.io/instance", "app.kubernetes.io/name"], "{chart}");
            assert!(contains(pod, selector), "{chart}: {selector} does not select {pod}");
        }
    }
}

#[test]
fn test_pods_are_neither_selected_nor_injected() {
    for chart in [INJECTOR, HTTPBIN] {
        let objects = render(chart, chart, &[]);
        let pod = of_kind(&objects, "Pod");
        assert_eq!(
            pod["metadata"]["annotations"],
            json!({"helm.sh/hook": "test", "helm.sh/hook-delete-policy": "before-hook-creation,hook-succeeded"})
        );
        let labels = &pod["metadata"]["labels"];
        assert_eq!(labels["sidecar.me/inject"], "false", "{chart}");
        assert!(!contains(labels, &of_kind(&objects, "Service")["spec"]["selector"]), "{chart}");
        for object in objects.iter().filter(|object| object["kind"] != "Pod") {
            assert!(
                object.pointer("/metadata/annotations/helm.sh~1hook").is_none(),
                "{chart}: a hook that is no test"
            );
        }
    }
}

#[test]
fn the_test_pod_asks_what_the_api_server_asks() {
    for (release, service, variable) in [
        (INJECTOR, INJECTOR, "KUBERNETES_SIDECAR_INJECTOR"),
        ("a", "a-kubernetes-sidecar-injector", "A_KUBERNETES_SIDECAR_INJECTOR"),
    ] {
        let objects = render(INJECTOR, release, &[]);
        let pod = of_kind(&objects, "Pod");
        assert_eq!(pod["spec"]["enableServiceLinks"], true);
        let container = &pod["spec"]["containers"][0];
        assert_eq!(
            container["args"],
            json!([
                "check",
                "--url",
                format!("https://{service}.default.svc:443"),
                "--connect-to",
                format!("$({variable}_SERVICE_HOST):$({variable}_SERVICE_PORT)")
            ])
        );
        assert_eq!(env(container)["CA_BUNDLE"], text(webhooks(&objects)[0], "/clientConfig/caBundle"));
    }
}

#[test]
fn a_pod_meets_exactly_one_webhook() {
    let both = json!({"kubernetes.io/metadata.name": "any", "team": "a"});
    let rows = [
        (json!({"kubernetes.io/metadata.name": "default"}), Some("injector.sidecar.me")),
        (with(&both, "sidecar.me/required", "true"), Some("required.injector.sidecar.me")),
        (with(&both, "sidecar.me/required", "false"), Some("injector.sidecar.me")),
        (with(&both, "sidecar.me/required", ""), Some("injector.sidecar.me")),
        (json!({"kubernetes.io/metadata.name": "kube-system"}), None),
        (json!({"kubernetes.io/metadata.name": "kube-system", "sidecar.me/required": "true"}), None),
        (json!({"kubernetes.io/metadata.name": "kube-node-lease"}), None),
    ];
    let objects = render(INJECTOR, INJECTOR, &[]);
    for (namespace, wanted) in rows {
        let met: Vec<_> = webhooks(&objects)
            .into_iter()
            .filter(|webhook| selects(&webhook["namespaceSelector"], &namespace))
            .map(|webhook| text(webhook, "/name"))
            .collect();
        assert_eq!(met, wanted.into_iter().collect::<Vec<_>>(), "{namespace}");
    }
    let own = &of_kind(&objects, "Deployment")["spec"]["template"]["metadata"]["labels"];
    for webhook in webhooks(&objects) {
        let selector = &webhook["objectSelector"];
        for (value, wanted) in
            [("true", true), ("True", true), ("false", false), ("yes", false), ("TRUE", false)]
        {
            assert_eq!(selects(selector, &json!({"sidecar.me/inject": value})), wanted, "{value}");
        }
        assert!(!selects(selector, &json!({})));
        assert!(!selects(selector, own), "the injector would need itself to start");
        assert!(text(webhook, "/matchConditions/0/expression").contains("kubernetes.io/config.mirror"));
    }
}

#[test]
fn webhook_values_reach_both_webhooks() {
    let policies = |arguments: &[&str]| {
        let objects = render(INJECTOR, INJECTOR, arguments);
        webhooks(&objects)
            .iter()
            .map(|webhook| text(webhook, "/failurePolicy").to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(policies(&[]), ["Ignore", "Fail"]);
    assert_eq!(policies(&["--set=webhook.failurePolicy=Fail"]), ["Fail", "Fail"]);
    assert_eq!(policies(&["--set=webhook.requiredFailurePolicy=Ignore"]), ["Ignore", "Ignore"]);

    let objects = render(
        INJECTOR,
        INJECTOR,
        &[
            "--set=webhook.timeoutSeconds=3",
            "--set=webhook.excludedNamespaces={a,b}",
            "--set=webhook.namespaceSelector.matchLabels.team=x",
            "--set=webhook.namespaceSelector.matchExpressions[0].key=stage",
            "--set=webhook.namespaceSelector.matchExpressions[0].operator=Exists",
            "--set=webhook.matchConditions[0].name=x",
            "--set-string=webhook.matchConditions[0].expression=true",
        ],
    );
    for webhook in webhooks(&objects) {
        assert_eq!(webhook["timeoutSeconds"], 3);
        assert_eq!(webhook["reinvocationPolicy"], "IfNeeded");
        assert_eq!(webhook["matchPolicy"], "Equivalent");
        assert_eq!(webhook["matchConditions"].as_array().unwrap().len(), 2);
        let selector = &webhook["namespaceSelector"];
        assert_eq!(selector["matchLabels"], json!({"team": "x"}));
        assert_eq!(selector["matchExpressions"][1]["values"], json!(["a", "b"]));
        assert_eq!(selector["matchExpressions"][2], json!({"key": "stage", "operator": "Exists"}));
    }
}

// ---- certificates --------------------------------------------------------------------------------------------------------------

#[test]
fn helm_s_certificate_is_for_the_service() {
    for (arguments, name) in [
        (vec![], DNS_NAME),
        (vec!["--set=fullnameOverride=other"], "other.default.svc"),
        (vec!["--namespace=shop"], "kubernetes-sidecar-injector.shop.svc"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let objects = render(INJECTOR, INJECTOR, &arguments);
        write_certificates(folder.path(), &objects);
        verify(folder.path(), name);
        let subject =
            openssl(folder.path(), &["x509", "-noout", "-subject", "-nameopt", "RFC2253", "-in", "tls.crt"]);
        assert_eq!(subject.trim(), format!("subject=CN={name}"));
        let key = openssl(folder.path(), &["pkey", "-in", "tls.key", "-text", "-noout"]);
        assert!(key.contains("P-256"), "{key}");
        let of_key = openssl(folder.path(), &["pkey", "-in", "tls.key", "-pubout"]);
        assert_eq!(of_key, openssl(folder.path(), &["x509", "-noout", "-pubkey", "-in", "tls.crt"]));
        // Mounted as a directory under the names that the process is told.
        let deployment = of_kind(&objects, "Deployment");
        let env = env(container(deployment));
        assert_eq!(env["TLS_CERT_FILE"], "/var/run/secrets/certs/tls-cert-file");
        assert_eq!(env["TLS_PRIVATE_KEY_FILE"], "/var/run/secrets/certs/tls-private-key-file");
        let mount = json!([{"name": "certs", "mountPath": "/var/run/secrets/certs", "readOnly": true}]);
        assert_eq!(container(deployment)["volumeMounts"], mount);
        assert_eq!(
            deployment["spec"]["template"]["spec"]["volumes"][0]["secret"]["secretName"],
            of_kind(&objects, "Secret")["metadata"]["name"]
        );
    }
}

#[test]
fn a_supplied_ca_signs_the_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| openssl(folder.path(), arguments);
    run(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "my.key"]);
    run(&["req", "-x509", "-new", "-key", "my.key", "-subj", "/CN=mine", "-out", "my.crt"]);
    let file = |name: &str| folder.path().join(name).display().to_string();
    let arguments = [
        format!("--set-file=certificates.helm.ca.certificate={}", file("my.crt")),
        format!("--set-file=certificates.helm.ca.privateKey={}", file("my.key")),
    ];
    let objects = render(INJECTOR, INJECTOR, &[&arguments[0], &arguments[1]]);
    write_certificates(folder.path(), &objects);
    let mine = std::fs::read_to_string(file("my.crt")).unwrap();
    assert_eq!(std::fs::read_to_string(file("ca.crt")).unwrap().trim(), mine.trim());
    verify(folder.path(), DNS_NAME);
}

#[test]
fn the_documented_openssl_steps_make_a_certificate_that_the_chart_takes() {
    let page = std::fs::read_to_string(repository_root().join("docs/certificates.md")).unwrap();
    let steps: Vec<&str> = page
        .split("```bash\n")
        .skip(1)
        .filter_map(|rest| rest.split_once("```").map(|(block, _)| block))
        .filter(|block| block.starts_with("openssl "))
        .collect();
    assert_eq!(steps.len(), 2, "making the certificate, and checking it");
    let folder = tempfile::tempdir().unwrap();
    let script = steps.concat();
    let output = Command::new("bash").args(["-ec", &script]).current_dir(folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    verify(folder.path(), DNS_NAME);

    let pem = std::fs::read_to_string(folder.path().join("ca.crt")).unwrap();
    let file =
        format!("--set-file=certificates.provided.caBundle={}", folder.path().join("ca.crt").display());
    let expected = base64(&pem);
    let as_base64 = format!("--set=certificates.provided.caBundle={expected}");
    for bundle in [&file, &as_base64] {
        let objects = render(
            INJECTOR,
            INJECTOR,
            &[
                "--set=certificates.mode=provided",
                "--set=certificates.provided.secretName=kubernetes-sidecar-injector-certs",
                bundle,
            ],
        );
        assert!(objects.iter().all(|object| object["kind"] != "Secret"));
        for webhook in webhooks(&objects) {
            assert_eq!(text(webhook, "/clientConfig/caBundle"), expected);
        }
        let deployment = of_kind(&objects, "Deployment");
        assert_eq!(
            text(deployment, "/spec/template/spec/volumes/0/secret/secretName"),
            "kubernetes-sidecar-injector-certs"
        );
    }
}

#[test]
fn a_secret_with_other_keys_and_a_ca_bundle_of_somebody_else() {
    let objects = render(
        INJECTOR,
        INJECTOR,
        &[
            "--set=certificates.mode=provided",
            "--set=certificates.provided.secretName=tls",
            "--set=certificates.provided.certificateKey=tls.crt",
            "--set=certificates.provided.privateKeyKey=tls.key",
            "--set=certificates.provided.externalCaBundle=true",
        ],
    );
    let volume = &of_kind(&objects, "Deployment")["spec"]["template"]["spec"]["volumes"][0]["secret"];
    assert_eq!(
        volume["items"],
        json!([{"key": "tls.crt", "path": "tls-cert-file"}, {"key": "tls.key", "path": "tls-private-key-file"}])
    );
    assert!(objects.iter().all(|object| object["kind"] != "Pod"), "a test pod would not know what to trust");
    for webhook in webhooks(&objects) {
        assert_eq!(
            keys(&webhook["clientConfig"]),
            ["service"],
            "one owner for caBundle, and it is not the chart"
        );
    }
}

#[test]
fn provided_mode_renders_the_same_bytes_each_time_and_with_each_helm() {
    let helm4 = |arguments: &[&str]| helm(Program::Helm4, &template(INJECTOR, INJECTOR, arguments)).unwrap();
    assert_eq!(helm4(&PROVIDED), helm4(&PROVIDED));
    let helm3 = helm(Program::Helm3, &template(INJECTOR, INJECTOR, &PROVIDED)).unwrap();
    assert_eq!(by_kind(&parse(&helm4(&PROVIDED))), by_kind(&parse(&helm3)));
}

// ---- values --------------------------------------------------------------------------------------------------------------------

#[test]
fn lint_is_clean() {
    for program in [Program::Helm4, Program::Helm3] {
        for chart in [INJECTOR, HTTPBIN] {
            helm(program, &["lint", "--strict", &format!("charts/{chart}")].map(ToOwned::to_owned)).unwrap();
        }
    }
}

#[test]
fn what_cannot_work_is_refused_with_a_sentence() {
    let rows: [(&str, &[&str], &str); 19] = [
        (INJECTOR, &["replica=3"], "additional properties 'replica' not allowed"),
        (INJECTOR, &["image.tga=1"], "additional properties 'tga' not allowed"),
        (INJECTOR, &["replicas=two"], "at '/replicas': got string, want integer"),
        (INJECTOR, &["webhook.failurePolicy=Maybe"], "value must be one of 'Ignore', 'Fail'"),
        (INJECTOR, &["webhook.timeoutSeconds=31"], "at '/webhook/timeoutSeconds'"),
        (INJECTOR, &["certificates.mode=selfmade"], "value must be one of 'helm', 'provided'"),
        (INJECTOR, &["image.digest=sha256:1"], "at '/image/digest'"),
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
        (INJECTOR, &["certificates.helm.ca.certificate=x"], "set both or neither"),
        (INJECTOR, &["podLabels.sidecar\\.me/inject=yes"], "podLabels must not have sidecar.me/inject"),
        (INJECTOR, &["commonLabels.sidecar\\.me/inject=yes"], "commonLabels must not have sidecar.me/inject"),
        (
            INJECTOR,
            &["shutdownDelaySeconds=40"],
            "terminationGracePeriodSeconds (40) must exceed shutdownDelaySeconds (40) by 10",
        ),
        (INJECTOR, &["extraEnv[0].name=HTTPS_PORT"], "extraEnv must not have HTTPS_PORT"),
        (INJECTOR, &["podDisruptionBudget.minAvailable=2"], "must be smaller than replicas (2)"),
    ];
    for (chart, values, message) in rows {
        let arguments: Vec<String> = values.iter().map(|value| format!("--set={value}")).collect();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let error = helm(Program::Helm4, &template(chart, chart, &arguments)).expect_err(message);
        assert!(error.contains(message), "{values:?} gave\n{error}");
        assert!(!error.contains("error calling include"), "{values:?}: not the sentence alone:\n{error}");
    }
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
        assert_eq!(pod["automountServiceAccountToken"], false);
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
        let objects = render(INJECTOR, release, &[]);
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

// ---- helpers -------------------------------------------------------------------------------------------------------------------

fn template(chart: &str, release: &str, arguments: &[&str]) -> Vec<String> {
    let chart = format!("charts/{chart}");
    // Without a cluster Helm assumes some version of Kubernetes; say which.
    let mut all = ["template", release, &chart, "--kube-version=1.37.0", "--namespace=default"]
        .map(ToOwned::to_owned)
        .to_vec();
    all.extend(arguments.iter().map(|&argument| argument.to_owned()));
    all
}

/// Standard output, or standard error when it failed.
fn helm(program: Program, arguments: &[String]) -> Result<String, String> {
    static PROGRAMS: OnceLock<Programs> = OnceLock::new();
    let programs = PROGRAMS.get_or_init(|| Programs::ensure(&[Program::Helm4, Program::Helm3]).unwrap());
    let output = Command::new(programs.path(program).unwrap())
        .args(arguments)
        .current_dir(repository_root())
        .env_remove("KUBECONFIG")
        .output()
        .unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    if output.status.success() {
        Ok(out)
    } else {
        Err(format!("{out}{}", String::from_utf8_lossy(&output.stderr)))
    }
}

fn render(chart: &str, release: &str, arguments: &[&str]) -> Vec<Value> {
    parse(&helm(Program::Helm4, &template(chart, release, arguments)).unwrap())
}

fn parse(documents: &str) -> Vec<Value> {
    let objects: Vec<Value> = serde_saphyr::from_multiple(documents).unwrap();
    objects.into_iter().filter(|object| !object.is_null()).collect()
}

fn by_kind(objects: &[Value]) -> BTreeMap<&str, &Value> {
    objects.iter().map(|object| (text(object, "/kind"), object)).collect()
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    objects.iter().find(|object| object["kind"] == kind).unwrap_or_else(|| panic!("no {kind}"))
}

fn webhooks(objects: &[Value]) -> Vec<&Value> {
    let all: Vec<_> =
        of_kind(objects, "MutatingWebhookConfiguration")["webhooks"].as_array().unwrap().iter().collect();
    assert_eq!(all.len(), 2);
    all
}

fn container(deployment: &Value) -> &Value {
    &deployment["spec"]["template"]["spec"]["containers"][0]
}

fn env(container: &Value) -> BTreeMap<&str, &str> {
    container["env"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (text(entry, "/name"), text(entry, "/value")))
        .collect()
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_else(|| panic!("no text at {pointer} in {object:#}"))
}

fn keys(object: &Value) -> Vec<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect::<BTreeSet<_>>().into_iter().collect()
}

fn with(object: &Value, key: &str, value: &str) -> Value {
    let mut object = object.clone();
    object[key] = json!(value);
    object
}

fn without(object: &Value, key: &str) -> Value {
    let mut object = object.clone();
    object.as_object_mut().unwrap().remove(key);
    object
}

/// Whether all labels of `selector` are among `labels`.
fn contains(labels: &Value, selector: &Value) -> bool {
    selector.as_object().unwrap().iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// A label selector, as Kubernetes evaluates it.
fn selects(selector: &Value, labels: &Value) -> bool {
    selector.get("matchLabels").is_none_or(|wanted| contains(labels, wanted))
        && selector["matchExpressions"].as_array().into_iter().flatten().all(|expression| {
            let label = labels.get(text(expression, "/key"));
            let listed = label.is_some_and(|label| expression["values"].as_array().unwrap().contains(label));
            match text(expression, "/operator") {
                "In" => listed,
                "NotIn" => !listed,
                other => panic!("{other}"),
            }
        })
}

fn openssl(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("openssl").args(arguments).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn base64(text: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("in"), text).unwrap();
    openssl(folder.path(), &["base64", "-A", "-in", "in"]).trim().to_owned()
}

/// The Secret's files, and as ca.crt what the API server is told to trust.
fn write_certificates(folder: &Path, objects: &[Value]) {
    let data = &of_kind(objects, "Secret")["data"];
    let bundles: BTreeSet<_> =
        webhooks(objects).into_iter().map(|webhook| text(webhook, "/clientConfig/caBundle")).collect();
    assert_eq!(bundles.len(), 1);
    for (file, encoded) in [
        ("tls.crt", text(data, "/tls-cert-file")),
        ("tls.key", text(data, "/tls-private-key-file")),
        ("ca.crt", bundles.first().unwrap()),
    ] {
        std::fs::write(folder.join("encoded"), encoded).unwrap();
        openssl(folder, &["base64", "-d", "-A", "-in", "encoded", "-out", file]);
    }
}

fn verify(folder: &Path, name: &str) {
    openssl(
        folder,
        &["verify", "-CAfile", "ca.crt", "-purpose", "sslserver", "-verify_hostname", name, "tls.crt"],
    );
    let names = openssl(folder, &["x509", "-noout", "-ext", "subjectAltName", "-in", "tls.crt"]);
    assert!(names.contains(&format!("DNS:{name}\n")), "{names}");
}
