//! Replicas that come, go, die and hang.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::Installation;
use e2e::load::Load;
use sidecar_testkit::RunningContainer;

use crate::{DEPLOYMENT, record, recovered, settled, short_or_long};

/// Nothing is lost: a new pod serves before an old one leaves, and an old one serves until nobody calls it any more.
pub(crate) async fn a_rolling_restart(at: &Installation) -> Result<()> {
    let load = Load::start(at).await?;
    for _ in 0..short_or_long(1, 5) {
        at.kubectl(&["rollout", "restart", DEPLOYMENT, "-n", "default"]).await?;
        settled(at, 2).await?;
    }
    record(load.finish("Rolling restart").await?).expect_nothing_lost()
}

/// What is lost is under way to the process that dies, or meets its closed port in the second until its kubelet has noticed:
/// no API server asks a second replica.
pub(crate) async fn one_of_two_replicas_is_killed(at: &Installation) -> Result<()> {
    let load = Load::start(at).await?;
    let kills = short_or_long(3, 20);
    for _ in 0..kills {
        kill(at, &replicas(at)?[..1])?;
        restarted(at).await?;
    }
    let report = record(load.finish("`kill -9` of one of two replicas, again and again").await?);
    // The port is closed for a second or so, and at most half of the pods meet it.
    let lost = report.missed + report.refused;
    ensure!(lost <= kills * 40, "{lost} pods were lost in {kills} kills");
    recovered(at).await
}

/// Pods that may start without their sidecar do, the others are refused and told why, and all is well again by itself.
pub(crate) async fn both_replicas_are_killed(at: &Installation) -> Result<()> {
    let load = Load::start(at).await?;
    for _ in 0..short_or_long(1, 5) {
        kill(at, &replicas(at)?)?;
        restarted(at).await?;
    }
    let report = record(load.finish("`kill -9` of both replicas").await?);
    ensure!(report.missed > 0 && report.refused > 0 && report.unavailable == 0, "{report}");
    for message in report.messages.keys() {
        ensure!(message.contains("failed calling webhook \"required.injector.sidecar.me\""), "{message}");
    }
    recovered(at).await
}

/// The API server's calls wait for their time limit while the replica is still in the Service, which its readiness probe ends.
pub(crate) async fn one_of_two_replicas_hangs(at: &Installation) -> Result<()> {
    let load = Load::start(at).await?;
    let replicas = replicas(at)?;
    let replica = replicas.first().context("no replica runs")?;
    let node = at.cluster.fake_node()?;
    node.suspend(&replica.namespace, &replica.pod)?;
    tokio::time::sleep(Duration::from_secs(short_or_long(15, 20))).await;
    node.resume(&replica.namespace, &replica.pod)?;
    record(load.finish("One of two replicas hangs").await?);
    recovered(at).await
}

/// Nothing is lost while there is one replica and it is well.
pub(crate) async fn from_one_replica_to_three_and_back(at: &Installation) -> Result<()> {
    let scale = async |replicas: usize| {
        let replicas_argument = format!("--replicas={replicas}");
        at.kubectl(&["scale", DEPLOYMENT, "-n", "default", &replicas_argument]).await?;
        settled(at, replicas).await
    };
    scale(1).await?;
    let load = Load::start(at).await?;
    for _ in 0..short_or_long(1, 5) {
        scale(3).await?;
        scale(1).await?;
    }
    let report = record(load.finish("Scaled from 1 to 3 and back to 1").await?);
    scale(2).await?;
    report.expect_nothing_lost()
}

fn replicas(at: &Installation) -> Result<Vec<RunningContainer>> {
    Ok(at.cluster.fake_node()?.running())
}

fn kill(at: &Installation, replicas: &[RunningContainer]) -> Result<()> {
    for replica in replicas {
        at.cluster.fake_node()?.kill(&replica.namespace, &replica.pod)?;
    }
    Ok(())
}

/// Waits until the dead have been noticed and replaced.
async fn restarted(at: &Installation) -> Result<()> {
    tokio::time::sleep(Duration::from_secs(2)).await;
    settled(at, 2).await
}
