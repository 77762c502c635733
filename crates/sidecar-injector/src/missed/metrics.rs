//! How many pods run without a sidecar, by definition, and what was done about them.

use std::collections::HashMap;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use sidecar_engine::{Engine, State};

use super::repair::Outcome;

type Labels = [(&'static str, String); 1];

/// Labels are names of definitions that are served, and nothing that a pod says.
#[derive(Debug)]
pub(crate) struct Metrics {
    missing: Family<Labels, Gauge>,
    outdated: Family<Labels, Gauge>,
    repairs: Family<Labels, Counter>,
}

impl Metrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let metrics =
            Metrics { missing: Family::default(), outdated: Family::default(), repairs: Family::default() };
        registry.register(
            "missing_injections",
            "Pods that run without a sidecar that is meant for them; 0 from replicas that do not look",
            metrics.missing.clone(),
        );
        registry.register(
            "outdated_injections",
            "Pods that run with something else than the definition says now; 0 from replicas that do not look",
            metrics.outdated.clone(),
        );
        registry.register(
            "repairs",
            "What was done, or not, about pods whose definition says missedPods: Repair",
            metrics.repairs.clone(),
        );
        for outcome in Outcome::ALL {
            drop(metrics.repairs.get_or_create_owned(&outcome.labels()));
        }
        metrics
    }

    /// Shows how many there are, for each definition that is served.
    pub(super) fn show<'p>(&self, engine: &Engine, found: impl Iterator<Item = (&'p str, State)>) {
        let mut counts: HashMap<&str, (i64, i64)> = HashMap::new();
        for (definition, state) in found {
            let (missing, outdated) = counts.entry(definition).or_default();
            match state {
                State::Missing => *missing += 1,
                State::Outdated => *outdated += 1,
                State::Present => {}
            }
        }
        // Those that are not served any more go.
        self.missing.clear();
        self.outdated.clear();
        for definition in engine.definitions() {
            let (missing, outdated) = counts.get(&*definition).copied().unwrap_or_default();
            let labels = [("definition", definition.into_owned())];
            self.missing.get_or_create_owned(&labels).set(missing);
            self.outdated.get_or_create_owned(&labels).set(outdated);
        }
    }

    pub(super) fn count(&self, outcome: Outcome) {
        self.repairs.get_or_create_owned(&outcome.labels()).inc();
    }
}

impl Outcome {
    fn labels(self) -> Labels {
        [("result", self.as_str().to_owned())]
    }
}
