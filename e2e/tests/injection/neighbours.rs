//! Another webhook before ours and after it, which appends a container and changes the others: each does its part once.

use anyhow::{Context as _, Result, ensure};
use e2e::{Installation, container_names, injector_binary, labelled_pod, wait_for};
use serde_json::{Value, json};
use sidecar_testkit::WebhookByUrl;

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
    let definition = tempfile::Builder::new().suffix(".yaml").tempfile()?;
    std::fs::write(definition.path(), OTHER)?;
    let path = definition.path().to_str().context("a path that is no text")?;
    let other = WebhookByUrl::start(&injector_binary()?, &["--definitions", path]).await?;
    let mut outcome = Ok(());
    for (name, expected) in [("aaa-other", "app other curl"), ("zzz-other", "app curl other")] {
        if outcome.is_ok() {
            outcome = beside(at, name, &other, expected).await;
        }
        at.kubectl(&["delete", "mutatingwebhookconfiguration", name, "--ignore-not-found"]).await?;
    }
    outcome
}

async fn beside(at: &Installation, name: &str, other: &WebhookByUrl, expected: &str) -> Result<()> {
    let namespace = at.cluster.temporary_namespace(name).await?;
    let configuration = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration", "metadata": {"name": name},
        "webhooks": [{
            "name": "other.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None", "failurePolicy": "Fail",
            "reinvocationPolicy": "IfNeeded",
            "clientConfig": other.client_config("/mutation/pod"),
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
