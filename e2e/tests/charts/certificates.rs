//! Certificates: for whom, by whom, and the steps that the documentation gives.

use std::process::Command;

use serde_json::json;
use sidecar_testkit::{Program, repository_root};

use crate::render::*;

#[test]
fn helm_s_certificate_is_for_the_service() {
    for (arguments, name) in [
        (vec![], DNS_NAME),
        (vec!["--set=fullnameOverride=other"], "other.default.svc"),
        (vec!["--namespace=shop"], "kubernetes-sidecar-injector.shop.svc"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let objects = render(INJECTOR, INJECTOR, &[&[HELM_MODE], &arguments[..]].concat());
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
        let mount = json!({"name": "certs", "mountPath": "/var/run/secrets/certs", "readOnly": true});
        assert_eq!(container(deployment)["volumeMounts"][0], mount);
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
    let objects = render(INJECTOR, INJECTOR, &[HELM_MODE, &arguments[0], &arguments[1]]);
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
        for webhook in all_webhooks(&objects) {
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
    for webhook in all_webhooks(&objects) {
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

#[test]
fn self_managed_certificates_need_nothing_and_leave_the_injector_its_fields() {
    let objects = render(INJECTOR, INJECTOR, &[]);
    for webhook in all_webhooks(&objects) {
        assert!(webhook["clientConfig"].get("caBundle").is_none());
    }
    let deployment = of_kind(&objects, "Deployment");
    let pod = &deployment["spec"]["template"]["spec"];
    assert!(pod["volumes"].as_array().unwrap().iter().all(|volume| volume.get("secret").is_none()));
    let env = env(container(deployment));
    assert_eq!(env["CERTIFICATE_NAMES"], DNS_NAME);
    assert_eq!(env["CERTIFICATE_SECRET"], "default/kubernetes-sidecar-injector-certificates");
    assert_eq!(env["MUTATING_WEBHOOK_CONFIGURATION"], INJECTOR);
    assert_eq!(env["VALIDATING_WEBHOOK_CONFIGURATION"], INJECTOR);

    // Each right names its object, and there is none without a use.
    let role = of_kind(&objects, "Role");
    let secret = json!([{"apiGroups": [""], "resources": ["secrets"], "resourceNames": [env["CERTIFICATE_SECRET"].trim_start_matches("default/")], "verbs": ["get", "watch", "update"]}]);
    assert_eq!(role["rules"], secret);
    let of_webhooks = |kind: &str| json!({"apiGroups": ["admissionregistration.k8s.io"], "resources": [kind], "resourceNames": [INJECTOR], "verbs": ["get", "watch", "patch"]});
    let seen = |kind: &str| json!({"apiGroups": ["admissionregistration.k8s.io"], "resources": [kind], "resourceNames": [INJECTOR], "verbs": ["get", "watch"]});
    let role = |objects: &[serde_json::Value]| {
        let is_wanted = |object: &&serde_json::Value| {
            object["kind"] == "ClusterRole" && text(object, "/metadata/name").ends_with("-ca-bundle")
        };
        objects.iter().find(is_wanted).map(|role| role["rules"].clone())
    };
    let both =
        json!([of_webhooks("mutatingwebhookconfigurations"), of_webhooks("validatingwebhookconfigurations")]);
    assert_eq!(role(&objects), Some(both));
    let objects = render(INJECTOR, INJECTOR, &["--set=definitionResources.validation.enabled=false"]);
    assert_eq!(role(&objects), Some(json!([of_webhooks("mutatingwebhookconfigurations")])));
    for mode in [HELM_MODE, "--set=certificates.mode=certManager"] {
        let objects = render(INJECTOR, INJECTOR, &[mode]);
        let only_seen =
            json!([seen("mutatingwebhookconfigurations"), seen("validatingwebhookconfigurations")]);
        assert_eq!(role(&objects), Some(only_seen));
        let deployment = of_kind(&objects, "Deployment");
        assert_eq!(super::render::env(container(deployment))["MUTATING_WEBHOOK_CONFIGURATION"], INJECTOR);
        let is_theirs =
            |object: &serde_json::Value| text(object, "/metadata/name").ends_with("-certificates");
        assert!(!objects.iter().any(|object| object["kind"] == "Role" && is_theirs(object)));
    }
}

#[test]
fn cert_manager_makes_the_certificate_and_injects_its_ca() {
    let objects = render(INJECTOR, INJECTOR, &["--set=certificates.mode=certManager"]);
    let of_name = |kind: &str, name: &str| {
        let is_wanted =
            |object: &&serde_json::Value| object["kind"] == kind && text(object, "/metadata/name") == name;
        objects.iter().find(is_wanted).unwrap_or_else(|| panic!("no {kind} {name}"))
    };
    let leaf = &of_name("Certificate", INJECTOR)["spec"];
    assert_eq!(leaf["dnsNames"], json!([DNS_NAME]));
    assert_eq!(leaf["issuerRef"], json!({"group": "cert-manager.io", "kind": "Issuer", "name": INJECTOR}));
    let authority = &of_name("Certificate", "kubernetes-sidecar-injector-ca")["spec"];
    assert_eq!(authority["isCA"], true);
    assert_eq!(of_name("Issuer", INJECTOR)["spec"]["ca"]["secretName"], authority["secretName"]);
    let signer = text(authority, "/issuerRef/name");
    assert_eq!(of_name("Issuer", signer)["spec"], json!({"selfSigned": {}}));

    let volume = &of_kind(&objects, "Deployment")["spec"]["template"]["spec"]["volumes"][0]["secret"];
    assert_eq!(volume["secretName"], leaf["secretName"]);
    assert_eq!(
        volume["items"],
        json!([{"key": "tls.crt", "path": "tls-cert-file"}, {"key": "tls.key", "path": "tls-private-key-file"}])
    );
    for kind in ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"] {
        let annotations = &of_kind(&objects, kind)["metadata"]["annotations"];
        assert_eq!(annotations["cert-manager.io/inject-ca-from"], "default/kubernetes-sidecar-injector");
    }
    for webhook in all_webhooks(&objects) {
        assert!(webhook["clientConfig"].get("caBundle").is_none());
    }

    let issuer = [
        "--set=certificates.mode=certManager",
        "--set=certificates.certManager.issuerRef.name=corporate",
        "--set=certificates.certManager.issuerRef.kind=ClusterIssuer",
    ];
    let objects = render(INJECTOR, INJECTOR, &issuer);
    assert!(objects.iter().all(|object| object["kind"] != "Issuer"));
    let leaf = &of_kind(&objects, "Certificate")["spec"];
    assert_eq!(
        leaf["issuerRef"],
        json!({"group": "cert-manager.io", "kind": "ClusterIssuer", "name": "corporate"})
    );
}
