//! The table of faults: what is done to the injector and to the cluster while pods are being created all the time.
//!
//! Each trial says what must hold and adds a row to the table that is printed at the end; docs/operations.md shows one.
//! `SIDECAR_FAULTS=long` does everything for longer, or more often.

mod certificates;
mod control_plane;
mod definitions;
mod pressure;
mod releases;
mod replicas;

use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use e2e::load::{Load, Report};
use e2e::trials::{self, Trial};
use e2e::{Installation, wait_for};

const DEPLOYMENT: &str = "deployment/kubernetes-sidecar-injector";
/// Without the last part Helm would take the values of the last upgrade where there are none.
const UPGRADE: &str = "helm upgrade kubernetes-sidecar-injector charts/kubernetes-sidecar-injector/ --namespace default --reset-values";

/// In this order, one after the other; each leaves the injector as it found it.
const TRIALS: &[Trial] = &e2e::trials![
    #[processes]
    replicas::a_rolling_restart,
    #[processes]
    replicas::one_of_two_replicas_is_killed,
    #[processes]
    replicas::one_of_two_replicas_hangs,
    #[processes]
    replicas::both_replicas_are_killed,
    #[processes]
    replicas::from_one_replica_to_three_and_back,
    #[processes]
    definitions::definitions_come_and_go,
    #[processes]
    pressure::a_thousand_pods_at_once,
    #[processes]
    pressure::hundreds_of_slow_clients,
    #[processes]
    pressure::a_disk_that_is_full,
    #[processes]
    control_plane::the_way_to_the_api_server_is_cut,
    #[processes]
    control_plane::etcd_does_not_answer,
    #[processes]
    control_plane::the_api_server_is_restarted,
    #[processes]
    releases::an_upgrade_and_a_rollback,
    #[processes]
    certificates::twenty_rotations,
    #[processes]
    certificates::certificates_that_live_for_seconds,
    #[processes]
    certificates::the_secret_is_damaged,
    #[processes]
    certificates::the_secret_is_deleted,
    #[processes]
    certificates::the_bundle_is_cleared,
    #[processes]
    certificates::certificate_modes_are_switched,
    #[processes]
    certificates::cert_manager_takes_over,
    #[processes]
    certificates::a_clock_jumps,
    #[processes]
    releases::uninstalled_and_installed_again,
];

static TABLE: Mutex<Vec<Report>> = Mutex::new(Vec::new());

fn main() -> ExitCode {
    let code = trials::run(TRIALS);
    let rows = TABLE.lock().unwrap_or_else(PoisonError::into_inner);
    if !rows.is_empty() {
        println!("{}", Report::HEAD);
        rows.iter().for_each(|row| println!("{row}"));
    }
    code
}

/// Adds a row to the table.
fn record(report: Report) -> Report {
    eprintln!("{report}");
    for (message, count) in &report.messages {
        eprintln!("    {count} times: {message}");
    }
    TABLE.lock().unwrap_or_else(PoisonError::into_inner).push(report.clone());
    report
}

/// The first, or the second where somebody has more time than CI.
fn short_or_long<T>(short: T, long: T) -> T {
    if std::env::var_os("SIDECAR_FAULTS").is_some_and(|value| value == "long") { long } else { short }
}

/// Waits until there are so many replicas, all ready, and nothing of others is left.
async fn settled(at: &Installation, replicas: usize) -> Result<()> {
    at.wait_for_rollout().await?;
    wait_for(&format!("{replicas} replicas and no others"), async || {
        let running = at.cluster.fake_node()?.running();
        Ok(running.len() == replicas && running.iter().all(|it| it.ready))
    })
    .await
}

/// Nothing is lost when the fault is over.
async fn recovered(at: &Installation) -> Result<()> {
    settled(at, 2).await?;
    let load = Load::start(at).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    load.finish("afterwards").await?.expect_nothing_lost()
}
