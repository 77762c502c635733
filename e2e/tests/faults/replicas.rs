//! Replicas that come, go, die and hang.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::load::Load;
use e2e::{Installation, wait_for};
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
/// no API server asks a second replica. From Kubernetes 1.37 on an API server that routes to pods chooses a replica anew for
/// each call, so that half of the pods meet it; others keep to their connections, and lose one or none.
pub(crate) async fn one_of_two_replicas_is_killed(at: &Installation) -> Result<()> {
    let load = Load::start(at).await?;
    let kills = short_or_long(3, 20);
    for kill_number in 0..kills {
        let replicas = replicas(at)?;
        kill(at, replicas.get(kill_number % 2).into_iter())?;
        restarted(at).await?;
    }
    let report = record(load.finish("`kill -9` of one of two replicas, again and again").await?);
    // All pods of a second, and some for the news to spread; half of them are not lost.
    let lost = report.missed + report.refused;
    ensure!(lost <= kills * 60, "{lost} pods were lost in {kills} kills");
    recovered(at).await
}

/// Pods that may start without their sidecar do, the others are refused and told why, and all is well again by itself.
pub(crate) async fn both_replicas_are_killed(at: &Installation) -> Result<()> {
    let load = Load::start(at).await?;
    for _ in 0..short_or_long(1, 5) {
        kill(at, replicas(at)?.iter())?;
        restarted(at).await?;
    }
    let report = record(load.finish("`kill -9` of both replicas").await?);
    ensure!(report.missed > 0 && report.refused > 0 && report.unavailable == 0, "{report}");
    for message in report.messages.keys() {
        ensure!(message.contains("failed calling webhook \"required.injector.sidecar.me\""), "{message}");
    }
    recovered(at).await
}

/// Calls wait for their time limit until the readiness probe has taken the replica out of the Service; then nothing is lost.
pub(crate) async fn one_of_two_replicas_hangs(at: &Installation) -> Result<()> {
    let load = Load::start(at).await?;
    let replicas = replicas(at)?;
    let replica = replicas.first().context("no replica runs")?;
    let node = at.cluster.fake_node()?;
    node.suspend(&replica.namespace, &replica.pod)?;
    wait_for("a replica that is not ready", async || Ok(node.running().iter().any(|it| !it.ready))).await?;
    record(load.finish("One of two replicas hangs, until it is out of the Service").await?);
    let load = Load::start(at).await?;
    tokio::time::sleep(Duration::from_secs(short_or_long(3, 10))).await;
    let report = load.finish("One of two replicas hangs, from then on").await?;
    node.resume(&replica.namespace, &replica.pod)?;
    record(report).expect_nothing_lost()?;
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
    let scaled = async {
        for _ in 0..short_or_long(1, 5) {
            scale(3).await?;
            scale(1).await?;
        }
        anyhow::Ok(())
    }
    .await;
    let report = record(load.finish("Scaled from 1 to 3 and back to 1").await?);
    scale(2).await?;
    scaled?;
    report.expect_nothing_lost()
}

fn replicas(at: &Installation) -> Result<Vec<RunningContainer>> {
    Ok(at.cluster.fake_node()?.running())
}

fn kill<'a>(at: &Installation, replicas: impl Iterator<Item = &'a RunningContainer>) -> Result<()> {
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
