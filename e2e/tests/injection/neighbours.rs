//! Another webhook before ours and after it, which appends a container and changes the others: each does its part once.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use e2e::{Installation, container_names, injector_binary, labelled_pod, wait_for};
use serde_json::{Value, json};

/// What the other one does: a container of its own, and a variable for every other.
const OTHER: &str = "\
apiVersion: sidecar.me/v1alpha1
kind: ClusterSidecarDefinition
metadata: {name: other}
spec:
  selector: {podSelector: {matchLabels: {sidecar.me/inject: 'true'}}}
  inject:
    metadata: {annotations: {other.example.com/was: here}}
    spec: {containers: [{name: other, image: 'other:1'}]}
  patchContainers: [{onConflict: Replace, env: [{name: OTHER, value: '1'}]}]
";

pub(crate) async fn another_webhook_before_or_after_ours_changes_nothing(at: &Installation) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (mut server, address, bundle) = start(folder.path()).await?;
    let mut outcome = Ok(());
    for (name, expected) in [("aaa-other", "app other curl"), ("zzz-other", "app curl other")] {
        if outcome.is_ok() {
            outcome = beside(at, name, &address, &bundle, expected).await;
        }
        at.kubectl(&["delete", "mutatingwebhookconfiguration", name, "--ignore-not-found"]).await?;
    }
    server.kill().await?;
    outcome
}

async fn beside(at: &Installation, name: &str, address: &str, bundle: &str, expected: &str) -> Result<()> {
    let namespace = at.cluster.temporary_namespace(name).await?;
    let configuration = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration", "metadata": {"name": name},
        "webhooks": [{
            "name": "other.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None", "failurePolicy": "Fail",
            "reinvocationPolicy": "IfNeeded",
            "clientConfig": {"url": format!("https://{address}/mutation/pod"), "caBundle": bundle},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace.name()}},
        }],
    });
    at.create(&configuration, &[]).await?;
    let mut pod = Value::Null;
    wait_for("a pod that both have changed", async || {
        let output =
            at.try_create(&labelled_pod("pod"), &["-n", namespace.name(), "--dry-run=server"]).await?;
        pod = serde_json::from_str(&output.checked()?)?;
        Ok(pod["metadata"]["annotations"]["other.example.com/was"] == "here")
    })
    .await?;
    ensure!(container_names(&pod) == expected, "{name}: {}", container_names(&pod));
    for container in pod["spec"]["containers"].as_array().context("containers")? {
        let variables = container["env"].as_array().map_or(0, Vec::len);
        let wanted = usize::from(container["name"] != "other");
        ensure!(variables == wanted, "{name}: {container}");
    }
    Ok(())
}

/// A second injector on a loopback address of its own, as any other webhook by URL would be.
async fn start(folder: &Path) -> Result<(tokio::process::Child, String, String)> {
    let key = rcgen::KeyPair::generate()?;
    let certificate = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()])?.self_signed(&key)?;
    let file = |name: &str| folder.join(name);
    std::fs::write(file("certificate.pem"), certificate.pem())?;
    std::fs::write(file("key.pem"), key.serialize_pem())?;
    std::fs::write(file("other.yaml"), OTHER)?;
    let server = tokio::process::Command::new(injector_binary()?)
        .args([
            "serve",
            "--https-enabled",
            "--https-port",
            "0",
            "--bind-address",
            "127.0.0.1",
            "--definitions",
        ])
        .arg(file("other.yaml"))
        .arg("--tls-cert-file")
        .arg(file("certificate.pem"))
        .arg("--tls-private-key-file")
        .arg(file("key.pem"))
        .stderr(std::fs::File::create(file("log"))?)
        .kill_on_drop(true)
        .spawn()?;
    let mut address = None;
    wait_for("a serving neighbour", async || {
        let log = std::fs::read_to_string(file("log")).unwrap_or_default();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        address = lines
            .filter(|line| line["event"] == "serving")
            .find_map(|line| Some(line["address"].as_str()?.to_owned()));
        Ok(address.is_some())
    })
    .await?;
    let bundle = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, certificate.pem());
    Ok((server, address.context("an address")?, bundle))
}
