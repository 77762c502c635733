//! Renders the charts and finds what is in them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;
use sidecar_testkit::{Program, Programs, repository_root};

pub(crate) const INJECTOR: &str = "kubernetes-sidecar-injector";
pub(crate) const HTTPBIN: &str = "httpbin";
pub(crate) const DNS_NAME: &str = "kubernetes-sidecar-injector.default.svc";
pub(crate) const HELM_MODE: &str = "--set=certificates.mode=helm";
pub(crate) const PROVIDED: [&str; 4] = [
    "--set=certificates.mode=provided",
    "--set=certificates.provided.secretName=certs",
    "--set=certificates.provided.caBundle=-----BEGIN CERTIFICATE-----\nYQ==\n-----END CERTIFICATE-----",
    "--set=podAnnotations.a=b",
];

pub(crate) fn template(chart: &str, release: &str, arguments: &[&str]) -> Vec<String> {
    let chart = format!("charts/{chart}");
    // Without a cluster Helm assumes some version of Kubernetes; say which.
    let mut all = ["template", release, &chart, "--kube-version=1.37.0", "--namespace=default"]
        .map(ToOwned::to_owned)
        .to_vec();
    all.extend(arguments.iter().map(|&argument| argument.to_owned()));
    all
}

/// Standard output, or standard error when it failed.
pub(crate) fn helm(program: Program, arguments: &[String]) -> Result<String, String> {
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

pub(crate) fn render(chart: &str, release: &str, arguments: &[&str]) -> Vec<Value> {
    parse(&helm(Program::Helm4, &template(chart, release, arguments)).unwrap())
}

pub(crate) fn parse(documents: &str) -> Vec<Value> {
    let objects: Vec<Value> = serde_saphyr::from_multiple(documents).unwrap();
    objects.into_iter().filter(|object| !object.is_null()).collect()
}

pub(crate) fn by_kind(objects: &[Value]) -> BTreeMap<&str, &Value> {
    objects.iter().map(|object| (text(object, "/kind"), object)).collect()
}

pub(crate) fn of_kind<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    objects.iter().find(|object| object["kind"] == kind).unwrap_or_else(|| panic!("no {kind}"))
}

/// Those that pods meet.
pub(crate) fn webhooks(objects: &[Value]) -> Vec<&Value> {
    of_kind(objects, "MutatingWebhookConfiguration")["webhooks"].as_array().unwrap().iter().collect()
}

/// Those, and the one that definitions meet.
pub(crate) fn all_webhooks(objects: &[Value]) -> Vec<&Value> {
    let mut all = webhooks(objects);
    all.extend(of_kind(objects, "ValidatingWebhookConfiguration")["webhooks"].as_array().unwrap());
    all
}

pub(crate) fn container(deployment: &Value) -> &Value {
    &deployment["spec"]["template"]["spec"]["containers"][0]
}

pub(crate) fn env(container: &Value) -> BTreeMap<&str, &str> {
    container["env"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (text(entry, "/name"), text(entry, "/value")))
        .collect()
}

pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_else(|| panic!("no text at {pointer} in {object:#}"))
}

pub(crate) fn keys(object: &Value) -> Vec<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Whether all labels of `selector` are among `labels`.
pub(crate) fn contains(labels: &Value, selector: &Value) -> bool {
    selector.as_object().unwrap().iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// A label selector, as Kubernetes evaluates it.
pub(crate) fn selects(selector: &Value, labels: &Value) -> bool {
    selector.get("matchLabels").is_none_or(|wanted| contains(labels, wanted))
        && selector["matchExpressions"].as_array().into_iter().flatten().all(|expression| {
            let label = labels.get(text(expression, "/key"));
            let values = expression["values"].as_array();
            let listed = label.is_some_and(|label| values.is_some_and(|values| values.contains(label)));
            match text(expression, "/operator") {
                "In" => listed,
                "NotIn" => !listed,
                "DoesNotExist" => label.is_none(),
                other => panic!("{other}"),
            }
        })
}

pub(crate) fn openssl(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("openssl").args(arguments).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn base64(text: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("in"), text).unwrap();
    openssl(folder.path(), &["base64", "-A", "-in", "in"]).trim().to_owned()
}

/// The Secret's files, and as ca.crt what the API server is told to trust.
pub(crate) fn write_certificates(folder: &Path, objects: &[Value]) {
    let data = &of_kind(objects, "Secret")["data"];
    let bundles: BTreeSet<_> =
        all_webhooks(objects).into_iter().map(|webhook| text(webhook, "/clientConfig/caBundle")).collect();
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

pub(crate) fn verify(folder: &Path, name: &str) {
    openssl(
        folder,
        &["verify", "-CAfile", "ca.crt", "-purpose", "sslserver", "-verify_hostname", name, "tls.crt"],
    );
    let names = openssl(folder, &["x509", "-noout", "-ext", "subjectAltName", "-in", "tls.crt"]);
    assert!(names.contains(&format!("DNS:{name}\n")), "{names}");
}
