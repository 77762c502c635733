//! The test bed itself: it is what it says it is, and leaves nothing behind.

use anyhow::{Result, ensure};
use e2e::{labelled_pod, wait_for};
use serde_json::{Value, json};
use sidecar_testkit::{Cluster, HelmVersion, Options, Tier};

#[tokio::test(flavor = "multi_thread")]
async fn a_throwaway_kubernetes_is_whole_and_leaves_nothing_behind() -> Result<()> {
    let cluster = Cluster::start(Tier::Controllers, Options::default()).await?;
    let other = Cluster::start(Tier::Api, Options::default()).await?;

    let versions: Value =
        serde_json::from_str(&cluster.kubectl(&["version", "-o", "json"]).await?.checked()?)?;
    ensure!(versions["serverVersion"]["gitVersion"] == versions["clientVersion"]["gitVersion"], "{versions}");
    for path in ["/openapi/v2", "/openapi/v3", "/readyz"] {
        ensure!(!cluster.kubectl(&["get", "--raw", path]).await?.checked()?.is_empty(), "{path}");
    }
    for (helm, version) in [(HelmVersion::Four, "v4."), (HelmVersion::Three, "v3.")] {
        let output = cluster.shell(helm, "helm version --short").await?.checked()?;
        ensure!(output.starts_with(version), "{output}");
    }

    let namespace = cluster.temporary_namespace("testbed").await?;
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {
        "selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {"labels": {"app": "web"}}, "spec": labelled_pod("x")["spec"]}}});
    let arguments = ["apply", "-n", namespace.name(), "-f", "-"];
    cluster.kubectl_with_input(&arguments, &deployment.to_string()).await?.checked()?;
    wait_for("a pod of the Deployment", async || {
        Ok(cluster
            .kubectl(&["get", "pods", "-n", namespace.name(), "-o", "name"])
            .await?
            .checked()?
            .starts_with("pod/web-"))
    })
    .await?;
    // The other cluster is another one.
    ensure!(!other.kubectl(&["get", "namespace", namespace.name()]).await?.success());
    drop(namespace);

    let folders = [cluster.folder().to_owned(), other.folder().to_owned()];
    cluster.stop().await?;
    other.stop().await?;
    for folder in folders {
        ensure!(!folder.exists(), "{} is still there", folder.display());
        let left = processes_that_mention(&folder.display().to_string());
        ensure!(left.is_empty(), "still running: {left:?}");
    }
    Ok(())
}

fn processes_that_mention(text: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let commands = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    commands
        .map(|command| String::from_utf8_lossy(&command).replace('\0', " "))
        .filter(|command| command.contains(text))
        .collect()
}
