//! Metrics of definitions, of what each of them injected, and of the watches that they come from.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// How many definitions there are in each state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct States {
    /// Served as they are written.
    pub(super) ready: usize,
    /// Served as they were when they were good.
    pub(super) kept: usize,
    /// Not served, because they are wrong.
    pub(super) invalid: usize,
    /// Not served, because another place has the name.
    pub(super) conflicted: usize,
}

/// The metrics of all definitions.
#[derive(Debug, Clone)]
pub(super) struct Metrics {
    states: [Gauge; 4],
    by_state: Family<[(&'static str, &'static str); 1], Gauge>,
    loaded: Gauge,
    errors: Counter,
    injections: Family<[(&'static str, String); 1], Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        let by_state = Family::<_, Gauge>::default();
        let states = ["ready", "kept", "invalid", "conflicted"]
            .map(|state| by_state.get_or_create_owned(&[("state", state)]));
        Metrics {
            states,
            by_state,
            loaded: Gauge::default(),
            errors: Counter::default(),
            injections: Family::default(),
        }
    }
}

impl Metrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("definitions", "Definitions by their state", self.by_state.clone());
        let help = "When definitions were last read and what is served settled, since 1970";
        registry.register("definition_reload_timestamp_seconds", help, self.loaded.clone());
        let help = "Mistakes in definitions, each counted when it begins";
        registry.register("definition_reload_errors", help, self.errors.clone());
        let help = "Pods that a definition was injected into; no dry runs";
        registry.register("injections", help, self.injections.clone());
    }

    /// Definitions have been read.
    pub(super) fn loaded(&self, states: States, new_errors: usize) {
        let numbers = [states.ready, states.kept, states.invalid, states.conflicted];
        for (gauge, number) in self.states.iter().zip(numbers) {
            gauge.set(i64::try_from(number).unwrap_or(i64::MAX));
        }
        self.errors.inc_by(u64::try_from(new_errors).unwrap_or(u64::MAX));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.loaded.set(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
    }

    /// The counter of a definition that is served.
    pub(super) fn injections_of(&self, definition: &str) -> Counter {
        self.injections.get_or_create_owned(&[("definition", definition.to_owned())])
    }

    /// A definition is not served any more.
    pub(super) fn forget(&self, definition: &str) {
        self.injections.remove(&[("definition", definition.to_owned())]);
    }
}

/// The metrics of all watches.
#[derive(Debug, Clone, Default)]
pub(super) struct Watches {
    restarts: Family<[(&'static str, &'static str); 1], Counter>,
    synced: Family<[(&'static str, &'static str); 1], Gauge>,
}

/// Those of one watch.
#[derive(Debug)]
pub(super) struct Watch {
    restarts: Counter,
    synced: Gauge,
}

impl Watches {
    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Watches of the cluster that ended and were begun anew";
        registry.register("kube_watch_restarts", help, self.restarts.clone());
        let help = "1 while what is known of the cluster is up to date";
        registry.register("cache_synced", help, self.synced.clone());
    }

    /// A watch of this kind begins.
    pub(super) fn of(&self, kind: &'static str) -> Watch {
        let label = [("kind", kind)];
        Watch {
            restarts: self.restarts.get_or_create_owned(&label),
            synced: self.synced.get_or_create_owned(&label),
        }
    }
}

impl Watch {
    pub(super) fn failed(&self) {
        self.restarts.inc();
        self.synced.set(0);
    }

    pub(super) fn is_up_to_date(&self) {
        self.synced.set(1);
    }
}
