//! Replicas that come, go, die and hang.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::load::{Load, Places, Report};
use e2e::{Installation, wait_for};
use serde_json::json;
use sidecar_testkit::RunningContainer;

use crate::{DEPLOYMENT, record, recovered, settled, short_or_long};

/// Until a kubelet has noticed that a process is gone (it looks once a second), and the API server has heard of it: two seconds, with
/// room for a machine that is busy.
const NOTICED: Duration = Duration::from_secs(8);

/// Until two probes, 2 s apart, have waited for 2 s each, and the calls of that time have reached their limit of 5 s; with room as well.
const OUT_OF_SERVICE: Duration = Duration::from_secs(18);

/// What the API server says where pods are refused because nobody answers.
const REFUSED: &str = "failed calling webhook \"required.injector.sidecar.me\"";

const MISSING: &str = "sidecar_injector_missing_injections{definition=\"curl\",reason=\"NotInjected\"}";

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
    let load = Load::start_keeping(at).await?;
    let kills = short_or_long(3, 20);
    for kill_number in 0..kills {
        let replicas = replicas(at)?;
        kill(at, replicas.get(kill_number % 2).into_iter())?;
        restarted(at).await?;
    }
    let (report, places) = load.finish_keeping("`kill -9` of one of two replicas, again and again").await?;
    let report = record(report);
    ensure!(report.trouble <= NOTICED && report.lost() < report.attempts / 2, "{report}");
    is_explained(&report)?;
    every_missed_pod_is_named(at, &report, &places).await?;
    recovered(at).await
}

/// Pods that may start without their sidecar do, the others are refused and told why, and all is well again by itself.
pub(crate) async fn both_replicas_are_killed(at: &Installation) -> Result<()> {
    let load = Load::start_keeping(at).await?;
    let required = load.places.required.name().to_owned();
    for _ in 0..short_or_long(1, 5) {
        let deployment =
            ["create", "deployment", "patient", "-n", &required, "--image=app:1", "--replicas=0"];
        at.kubectl(&deployment).await?;
        let wish = json!({"spec": {"template": {"metadata": {"labels": {"sidecar.me/inject": "true"}}}}});
        at.kubectl(&["patch", "deployment", "patient", "-n", &required, "-p", &wish.to_string()]).await?;
        kill(at, replicas(at)?.iter())?;
        at.kubectl(&["scale", "deployment", "patient", "-n", &required, "--replicas=3"]).await?;
        restarted(at).await?;
        // It has tried again until there was somebody to ask.
        for pod in at.pods(&required, "app=patient", 3).await? {
            e2e::expect_containers(&pod, "app curl")?;
        }
        let refused = ["events", "-n", &required, "--field-selector", "reason=FailedCreate"];
        let events = at.get(&refused).await?;
        let mut messages =
            events["items"].as_array().into_iter().flatten().filter_map(|it| it["message"].as_str());
        ensure!(messages.any(|message| message.contains(REFUSED)), "nothing of it was refused: {events}");
        at.kubectl(&["delete", "deployment", "patient", "-n", &required]).await?;
    }
    let (report, places) = load.finish_keeping("`kill -9` of both replicas").await?;
    let report = record(report);
    ensure!(report.missed > 0 && report.refused > 0 && report.unavailable == 0, "{report}");
    ensure!(report.trouble <= NOTICED, "{report}");
    is_explained(&report)?;
    every_missed_pod_is_named(at, &report, &places).await?;
    recovered(at).await
}

/// Calls wait for their time limit until the readiness probe has taken the replica out of the Service; then nothing is lost.
pub(crate) async fn one_of_two_replicas_hangs(at: &Installation) -> Result<()> {
    let load = Load::start_keeping(at).await?;
    let replicas = replicas(at)?;
    let replica = replicas.first().context("no replica runs")?;
    let node = at.cluster.fake_node()?;
    node.suspend(&replica.namespace, &replica.pod)?;
    wait_for("a replica that is not ready", async || Ok(node.running().iter().any(|it| !it.ready))).await?;
    let name = "One of two replicas hangs, until it is out of the Service";
    let (first, places) = load.finish_keeping(name).await?;
    let load = Load::start(at).await?;
    tokio::time::sleep(Duration::from_secs(short_or_long(3, 10))).await;
    let second = load.finish("One of two replicas hangs, from then on").await?;
    node.resume(&replica.namespace, &replica.pod)?;
    let first = record(first);
    ensure!(first.trouble <= OUT_OF_SERVICE, "{first}");
    is_explained(&first)?;
    record(second).expect_nothing_lost()?;
    every_missed_pod_is_named(at, &first, &places).await?;
    recovered(at).await
}

/// Whoever is refused hears that it is because of us.
fn is_explained(report: &Report) -> Result<()> {
    for message in report.messages.keys() {
        ensure!(message.contains(REFUSED), "{message}");
    }
    Ok(())
}

/// The log names every pod that went without its sidecar, and no other; the metric counts them.
async fn every_missed_pod_is_named(at: &Installation, report: &Report, places: &Places) -> Result<()> {
    let open = places.open.name();
    let mut named = BTreeSet::new();
    let mut counted = f64::NAN;
    let outcome = wait_for("word of every missed pod", async || {
        let lines = at.logged("pod_missed")?;
        let of_load = lines.iter().filter(|line| line["namespace"] == open);
        named = of_load.filter_map(|line| line["pod"].as_str().map(ToOwned::to_owned)).collect();
        // Nobody can be asked while a replica is being started.
        let scraped = at.scrape().unwrap_or_default();
        counted = scraped.get(MISSING).copied().unwrap_or(f64::NAN);
        #[expect(clippy::cast_precision_loss, reason = "hundreds")]
        let is_counted = (counted - report.missed as f64).abs() < 0.5;
        Ok(named == report.missed_names && is_counted)
    })
    .await;
    let wrong: Vec<_> = named.symmetric_difference(&report.missed_names).collect();
    outcome.with_context(|| format!("{report}; {MISSING} {counted}; said or missed alone: {wrong:?}"))
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
