//! What befalls Kubernetes itself. A review needs nothing of it, so the injector answers all the while.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::load::Load;
use e2e::{Installation, wait_for};
use serde_json::json;

use crate::{record, recovered, short_or_long};

/// Whoever creates pods waits for the API server; nobody waits for the injector.
pub(crate) async fn the_api_server_is_restarted(at: &Installation) -> Result<()> {
    let load = Load::start(at).await?;
    for _ in 0..short_or_long(1, 5) {
        at.cluster.stop_api_server().await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        at.cluster.start_api_server().await?;
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    let report = record(load.finish("API server restarted").await?);
    ensure!(report.unavailable > 0, "the API server was never away: {report}");
    report.expect_nothing_lost()?;
    recovered(at).await
}

pub(crate) async fn etcd_does_not_answer(at: &Installation) -> Result<()> {
    let load = Load::start(at).await?;
    at.cluster.suspend_etcd()?;
    tokio::time::sleep(Duration::from_secs(30)).await;
    at.cluster.resume_etcd()?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let report = record(load.finish("etcd stopped for 30 s").await?);
    ensure!(report.gap > Duration::from_secs(25), "etcd was never away: {report}");
    report.expect_nothing_lost()?;
    recovered(at).await
}

/// Watches are cut again and again, then for longer; what has changed meanwhile is served when they are back.
pub(crate) async fn the_way_to_the_api_server_is_cut(at: &Installation) -> Result<()> {
    let uplink = at.cluster.uplink()?;
    let load = Load::start(at).await?;
    for _ in 0..short_or_long(20, 200) {
        uplink.drop_connections();
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    uplink.cut();
    let definition = json!({
        "apiVersion": "sidecar.me/v1alpha1", "kind": "ClusterSidecarDefinition", "metadata": {"name": "meanwhile"},
        "spec": {"selector": {"podSelector": {"matchLabels": {"meanwhile": "yes"}}},
                 "inject": {"metadata": {"annotations": {"meanwhile": "seen"}}}}});
    at.create(&definition, &[]).await?;
    tokio::time::sleep(Duration::from_secs(short_or_long(10, 60))).await;
    uplink.mend();
    let mut pod = e2e::labelled_pod("meanwhile");
    pod["metadata"]["labels"]["meanwhile"] = json!("yes");
    let seen = wait_for("a pod with what was defined meanwhile", async || {
        let pod = at.create(&pod, &["-n", "default", "--dry-run=server"]).await?;
        Ok(pod["metadata"]["annotations"]["meanwhile"] == "seen")
    })
    .await;
    at.kubectl(&["delete", "clustersidecardefinition", "meanwhile"]).await?;
    seen?;
    record(load.finish("Watches cut, the API server out of the injector's reach").await?)
        .expect_nothing_lost()
}
