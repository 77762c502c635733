//! What Helm does to the injector under load.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::load::Load;
use e2e::{INSTALL_INJECTOR, Installation};

use crate::{record, settled, short_or_long};

/// All pods are replaced each time.
pub(crate) async fn an_upgrade_and_a_rollback(at: &Installation) -> Result<()> {
    let load = Load::start(at).await?;
    for _ in 0..short_or_long(1, 5) {
        let upgrade = "helm upgrade kubernetes-sidecar-injector charts/kubernetes-sidecar-injector/ --namespace default";
        for line in [
            &format!("{upgrade} --set logging.level=debug"),
            "helm rollback kubernetes-sidecar-injector --namespace default",
        ] {
            at.shell(line).await?;
            settled(at, 2).await?;
        }
    }
    record(load.finish("`helm upgrade` and `helm rollback`").await?).expect_nothing_lost()
}

/// Nobody is refused for want of an injector that is gone: the webhooks go first, and the pods serve on for a while.
pub(crate) async fn uninstalled_and_installed_again(at: &Installation) -> Result<()> {
    let load = Load::start(at).await?;
    at.shell("helm uninstall kubernetes-sidecar-injector --namespace default").await?;
    e2e::wait_for("an end of all replicas", async || Ok(at.cluster.fake_node()?.running().is_empty()))
        .await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let report =
        record(load.finish("`helm uninstall` (pods without a sidecar: those created afterwards)").await?);
    at.shell(INSTALL_INJECTOR).await?;
    at.wait_until_injecting().await?;
    ensure!(
        report.injected > 0 && report.missed > 0 && report.refused == 0,
        "{report}\n{:#?}",
        report.messages
    );
    crate::recovered(at).await
}
