//! What must not cost a pod: upgrades, exchanged certificates, absent injectors.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::load::Load;
use e2e::{Installation, expect_containers, injector_binary, labelled_pod, wait_for};
use serde_json::{Value, json};
use sidecar_testkit::WebhookByUrl;

async fn required_namespace(at: &Installation, prefix: &str) -> Result<sidecar_testkit::TemporaryNamespace> {
    let namespace = at.cluster.temporary_namespace(prefix).await?;
    at.kubectl(&["label", "namespace", namespace.name(), "sidecar.me/required=true"]).await?;
    wait_for("an injected pod", async || {
        let output =
            at.try_create(&labelled_pod("probe"), &["-n", namespace.name(), "--dry-run=server"]).await?;
        Ok(output.stdout.contains("busybox-curl"))
    })
    .await?;
    Ok(namespace)
}

/// Only a `url` to loopback is spoken to over HTTP/2; everything else gets HTTP/1.1 (see the other trials).
pub(crate) async fn a_webhook_by_url_is_spoken_to_over_http2(at: &Installation) -> Result<()> {
    // The chart's webhooks do not look at this one, so what is injected is injected by the one of this trial.
    let namespace = "kube-node-lease";
    // Without the arguments it would leave this namespace alone as well, and say nothing of connections.
    let arguments = ["--excluded-namespaces", "kube-system", "--log-level", "debug"];
    let server = WebhookByUrl::start(&injector_binary()?, &arguments).await?;
    let configuration = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration", "metadata": {"name": "by-url"},
        "webhooks": [{
            "name": "by-url.sidecar.me", "admissionReviewVersions": ["v1"], "sideEffects": "None", "failurePolicy": "Fail",
            "clientConfig": server.client_config("/mutation/pod"),
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        }],
    });
    at.create(&configuration, &[]).await?;
    let called = wait_for("a pod that was injected over HTTP/2", async || {
        let output = at.try_create(&labelled_pod("by-url"), &["-n", namespace, "--dry-run=server"]).await?;
        let pod: Value = serde_json::from_str(&output.stdout).unwrap_or_default();
        let is_http2 =
            server.logged().iter().any(|line| line["event"] == "connected" && line["protocol"] == "h2");
        Ok(is_http2 && e2e::container_names(&pod) == "app curl")
    })
    .await;
    at.kubectl(&["delete", "mutatingwebhookconfiguration", "by-url"]).await?;
    called
}

/// Two plain upgrades keep everything; a third one rolls all pods, and so does a restart.
pub(crate) async fn pods_are_created_all_the_time_while_the_chart_is_upgraded(
    at: &Installation,
) -> Result<()> {
    let bundle = async || {
        at.kubectl(&[
            "get",
            "mutatingwebhookconfiguration",
            "kubernetes-sidecar-injector",
            "-o",
            "jsonpath={.webhooks[0].clientConfig.caBundle}",
        ])
        .await
    };
    let upgrade =
        "helm upgrade kubernetes-sidecar-injector charts/kubernetes-sidecar-injector/ --namespace default";
    let before = bundle().await?;
    let load = Load::start(at).await?;
    for _ in 0..2 {
        at.shell(upgrade).await?;
        ensure!(bundle().await? == before, "an upgrade changed the CA");
    }
    at.shell(&format!("{upgrade} --set shutdownDelaySeconds=3")).await?;
    ensure!(bundle().await? == before, "new pods share the certificates of the old ones");
    at.wait_for_rollout().await?;
    at.kubectl(&["rollout", "restart", "deployment/kubernetes-sidecar-injector", "-n", "default"]).await?;
    at.wait_for_rollout().await?;
    // The old pods are still leaving.
    at.pods("default", "app.kubernetes.io/name=kubernetes-sidecar-injector", 2).await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let report = load.finish("Upgrades and a restart").await?;
    eprintln!("{report}");
    report.expect_nothing_lost()
}

pub(crate) async fn without_injectors_pods_start_or_are_refused_as_their_namespace_says(
    at: &Installation,
) -> Result<()> {
    let open = at.cluster.temporary_namespace("open").await?;
    let required = required_namespace(at, "closed").await?;
    at.kubectl(&["scale", "deployment/kubernetes-sidecar-injector", "-n", "default", "--replicas=0"]).await?;
    wait_for("pods that start without their sidecar", async || {
        let pod = at.create(&labelled_pod("probe"), &["-n", open.name(), "--dry-run=server"]).await?;
        Ok(e2e::container_names(&pod) == "app")
    })
    .await?;
    expect_containers(&at.create(&labelled_pod("open"), &["-n", open.name()]).await?, "app")?;
    let output = at.try_create(&labelled_pod("closed"), &["-n", required.name()]).await?;
    ensure!(
        !output.success()
            && output.stderr.contains("failed calling webhook \"required.injector.sidecar.me\""),
        "{output}"
    );
    // Pods that ask for nothing start everywhere.
    expect_containers(
        &at.create(&e2e::pod("unlabelled", &json!({})), &["-n", required.name()]).await?,
        "app",
    )?;

    at.kubectl(&["scale", "deployment/kubernetes-sidecar-injector", "-n", "default", "--replicas=2"]).await?;
    at.wait_until_injecting().await?;
    wait_for("recovery", async || {
        Ok(at
            .try_create(&labelled_pod("recovered"), &["-n", required.name()])
            .await?
            .stdout
            .contains("busybox-curl"))
    })
    .await
}
