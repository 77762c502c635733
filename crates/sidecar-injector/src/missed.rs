//! Pods that run without a sidecar that is meant for them, or with an older version of it: found, named, and repaired
//! where their definition wants that.
//!
//! ```text
//! pods ─(watch, metadata)─> may a definition be meant for it? ─(get, slowly)─> engine ─> pods without ─> log, metrics, Events
//!                                                                                             └──> owner, restarted
//! ```
//!
//! One replica does this. Nothing that answers a review waits for it.

mod asked;
mod attempt;
mod judge;
mod listing;
mod mark;
#[cfg(test)]
mod memory;
mod metrics;
mod pods;
mod repair;
mod watch;
mod workload;

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use prometheus_client::registry::Registry;
use tokio::sync::watch as channel;
use tokio::time::sleep;

use crate::arguments::{MissedPodsArguments, MissedPodsMode};
use crate::failure::Failure;
use crate::serve::certificates::Serving;
use crate::serve::events::Events;
use crate::sources::Store;
use crate::sources::namespaces::NamespaceMap;
use crate::sources::readiness::Readiness;
use asked::Asked;
use metrics::Metrics;

/// How often it is looked whether everything is loaded.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// What is to be done about such pods.
#[derive(Debug)]
pub(crate) struct Settings {
    /// How many owners are restarted in a minute; none: they are only reported.
    repairs_per_minute: Option<u32>,
    asked: Asked,
    /// Whether namespaces are watched.
    knows_namespaces: bool,
}

/// Looks for them.
pub(crate) struct Watchdog {
    pub(crate) client: Client,
    pub(crate) definitions: Arc<Store>,
    pub(crate) namespaces: Arc<NamespaceMap>,
    pub(crate) readiness: Arc<Readiness>,
    /// Absent: plain HTTP.
    pub(crate) certificate: Option<Arc<Serving>>,
    /// Whether this replica is the one.
    pub(crate) leading: channel::Receiver<bool>,
    pub(crate) settings: Settings,
    pub(crate) metrics: Metrics,
    /// Absent: none are written.
    pub(crate) events: Option<Events>,
}

impl Settings {
    /// None, where nobody looks for such pods.
    pub(crate) fn new(
        arguments: &MissedPodsArguments,
        knows_namespaces: bool,
    ) -> Result<Option<Self>, Failure> {
        let repairs_per_minute = match arguments.missed_pods {
            MissedPodsMode::Off => return Ok(None),
            MissedPodsMode::Report => None,
            MissedPodsMode::Repair => Some(arguments.max_repairs_per_minute),
        };
        let asked = Asked {
            scope: arguments.webhook_scope,
            namespaces: arguments.webhook_namespace_selector.clone(),
            own_namespace: arguments.lease.as_ref().map(|lease| lease.namespace.clone()),
        };
        if asked.needs_namespaces() && !knows_namespaces {
            let problem = "--webhook-scope Namespaces and --webhook-namespace-selector need --watch-namespaces: which pods \
                           the API server asks about is up to the labels of their namespaces then";
            return Err(Failure::Usage(problem.to_owned()));
        }
        Ok(Some(Settings { repairs_per_minute, asked, knows_namespaces }))
    }

    /// The metrics of what is found, before anything is.
    pub(crate) fn metrics(registry: &mut Registry) -> Metrics {
        Metrics::new(registry)
    }
}

impl Watchdog {
    /// Looks whenever this replica leads, as long as it is polled.
    pub(crate) async fn run(mut self) {
        let mut changes = self.definitions.changes();
        loop {
            self.metrics.show(&self.definitions.current().engine, std::iter::empty());
            self.metrics.is_synced(false);
            tokio::select! {
                result = self.leading.wait_for(|leads| *leads) => if result.is_err() { return },
                _ = changes.changed() => continue,
            }
            // Before everything is loaded, every pod would look fine.
            while self.readiness.reason().is_some() {
                sleep(LOOK_AGAIN).await;
            }
            tokio::select! {
                () = watch::follow(&self) => {}
                () = end(self.leading.clone()) => {}
            }
        }
    }

    /// Whether this replica, as far as it knows, answers what the API server asks.
    fn is_reached(&self) -> bool {
        let is_taken = self.certificate.as_ref().is_none_or(|certificate| certificate.is_taken());
        is_taken && self.readiness.reason().is_none()
    }
}

/// Until this replica leads no more. Where nobody else can, that is never.
async fn end(mut leading: channel::Receiver<bool>) {
    if leading.wait_for(|leads| !*leads).await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::Arguments;
    use crate::arguments::Command;

    #[tokio::test]
    async fn who_is_ready_and_not_trusted_any_more_is_not_reached() {
        let mut watchdog = judge::tests::watchdog("");
        assert!(watchdog.is_reached());
        let certificate = Serving::fallen_out();
        assert_eq!(certificate.problem(), None);
        watchdog.certificate = Some(certificate);
        assert!(!watchdog.is_reached());
    }

    #[test]
    fn what_the_labels_of_namespaces_decide_is_not_looked_for_without_them() {
        for (setting, expected) in [
            (["--webhook-scope", "Namespaces"], false),
            (["--webhook-scope", "Requested"], true),
            (["--webhook-namespace-selector", r#"{"matchLabels": {"team": "a"}}"#], false),
            (["--webhook-namespace-selector", "{}"], true),
        ] {
            let line = [&["sidecar-injector", "serve", "--missed-pods", "report"], &setting[..]].concat();
            let Command::Serve(arguments) = Arguments::parse_from(line).command else {
                panic!("{setting:?}")
            };
            assert!(Settings::new(&arguments.missed, true).is_ok());
            assert_eq!(Settings::new(&arguments.missed, false).is_ok(), expected, "{setting:?}");
        }
    }
}
