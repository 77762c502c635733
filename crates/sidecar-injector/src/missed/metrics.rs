//! How many pods run without a sidecar, by definition, and what was done about them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use sidecar_engine::{Engine, Reason, State};

use super::attempt::Outcome;
use super::judge::NOT_INJECTED;
use super::pods::Found;

type Labels<const COUNT: usize> = [(&'static str, String); COUNT];

/// Labels are names of definitions that are served, and reasons of ours: nothing that a pod says.
#[derive(Debug)]
pub(crate) struct Metrics {
    missing: Family<Labels<2>, Gauge>,
    outdated: Family<Labels<1>, Gauge>,
    repairs: Family<Labels<1>, Counter>,
    synced: Gauge,
    /// The definitions among them, with the reasons that there have been.
    shown: Mutex<BTreeMap<String, BTreeSet<&'static str>>>,
}

/// In the place of a name that is nobody's, which pods may make up without end. No definition can be called so.
const UNKNOWN: &str = "(unknown)";

/// How many pods go without a definition.
#[derive(Debug, Default)]
struct Counts {
    missing: BTreeMap<&'static str, i64>,
    outdated: i64,
}

impl Metrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let metrics = Metrics {
            missing: Family::default(),
            outdated: Family::default(),
            repairs: Family::default(),
            synced: Gauge::default(),
            shown: Mutex::default(),
        };
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
        registry.register(
            "missed_pods_synced",
            "1 from the replica that looks for such pods and knows of all pods",
            metrics.synced.clone(),
        );
        for outcome in Outcome::ALL {
            drop(metrics.repairs.get_or_create_owned(&outcome.labels()));
        }
        metrics
    }

    /// Shows how many there are, for each definition that is served. A reason that there was once stays, at 0.
    pub(super) fn show<'p>(&self, engine: &Engine, found: impl Iterator<Item = &'p Found>) {
        let mut counts: HashMap<&str, Counts> = HashMap::new();
        for found in found {
            let counts = counts.entry(&found.definition).or_default();
            match found.state {
                State::Missing => *counts.missing.entry(found.reason).or_default() += 1,
                State::Outdated => counts.outdated += 1,
                State::Present => {}
            }
        }
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let mut served = BTreeMap::new();
        for definition in engine.definitions() {
            let counts = counts.remove(&*definition).unwrap_or_default();
            let mut reasons = shown.remove(&*definition).unwrap_or_default();
            reasons.insert(NOT_INJECTED);
            reasons.extend(counts.missing.keys());
            for reason in &reasons {
                let number = counts.missing.get(reason).copied().unwrap_or_default();
                self.missing.get_or_create_owned(&missing(&definition, reason)).set(number);
            }
            self.outdated.get_or_create_owned(&outdated(&definition)).set(counts.outdated);
            served.insert(definition.into_owned(), reasons);
        }
        let unknown = Reason::UnknownDefinition.code();
        let nobody_s = counts.values().filter_map(|counts| counts.missing.get(unknown)).sum();
        self.missing.get_or_create_owned(&missing(UNKNOWN, unknown)).set(nobody_s);
        // One by one: who scrapes meanwhile must not miss the others.
        for (gone, reasons) in std::mem::replace(&mut *shown, served) {
            for reason in reasons {
                self.missing.remove(&missing(&gone, reason));
            }
            self.outdated.remove(&outdated(&gone));
        }
    }

    /// Whether this replica looks, and knows of all pods.
    pub(super) fn is_synced(&self, is_synced: bool) {
        self.synced.set(i64::from(is_synced));
    }

    pub(super) fn count(&self, outcome: Outcome) {
        self.repairs.get_or_create_owned(&outcome.labels()).inc();
    }
}

fn missing(definition: &str, reason: &str) -> Labels<2> {
    [("definition", definition.to_owned()), ("reason", reason.to_owned())]
}

fn outdated(definition: &str) -> Labels<1> {
    [("definition", definition.to_owned())]
}

impl Outcome {
    fn labels(self) -> Labels<1> {
        [("result", self.as_str().to_owned())]
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use prometheus_client::encoding::text::encode;
    use sidecar_engine::definition::Compiled;

    use super::*;

    fn engine(names: &[&str]) -> Engine {
        let compile = |name: &&str| {
            let text = format!(
                "apiVersion: sidecar.me/v1alpha1\nkind: ClusterSidecarDefinition\nmetadata: {{name: {name}}}\n\
                 spec: {{inject: {{spec: {{nodeName: a}}}}}}\n"
            );
            Arc::new(Compiled::from_yaml(&text).unwrap())
        };
        Engine::new(names.iter().map(compile).collect())
    }

    fn scrape(registry: &Registry) -> String {
        let mut text = String::new();
        encode(&mut text, registry).unwrap();
        text
    }

    fn found(definition: &str, state: State, reason: &'static str) -> Found {
        Found { definition: definition.into(), state, reason, is_repairable: false, fingerprint: 0 }
    }

    #[test]
    fn who_is_served_is_always_shown_and_who_is_gone_is_not() {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        let (both, one) = (engine(&["stays", "goes"]), engine(&["stays"]));
        let all = [
            found("stays", State::Missing, "NotAsked"),
            found("goes", State::Outdated, "Outdated"),
            found("nobody", State::Missing, "UnknownDefinition"),
            found("nobody-either", State::Missing, "UnknownDefinition"),
        ];
        metrics.show(&both, all.iter());
        let text = scrape(&registry);
        assert!(text.contains(r#"missing_injections{definition="stays",reason="NotAsked"} 1"#), "{text}");
        assert!(text.contains(r#"missing_injections{definition="stays",reason="NotInjected"} 0"#), "{text}");
        assert!(!text.contains("nobody"), "{text}");
        assert!(
            text.contains(r#"missing_injections{definition="(unknown)",reason="UnknownDefinition"} 2"#),
            "{text}"
        );
        assert!(text.contains(r#"outdated_injections{definition="goes"} 1"#), "{text}");
        metrics.show(&one, std::iter::empty());
        let text = scrape(&registry);
        assert!(text.contains(r#"missing_injections{definition="stays",reason="NotAsked"} 0"#), "{text}");
        assert!(!text.contains("goes"), "{text}");
        assert!(
            text.contains(r#"missing_injections{definition="(unknown)",reason="UnknownDefinition"} 0"#),
            "{text}"
        );
        // However often it is scraped in between.
        thread::scope(|scope| {
            let showing = scope.spawn(|| {
                for _ in 0..2000 {
                    metrics.show(&one, std::iter::empty());
                }
            });
            while !showing.is_finished() {
                assert!(
                    scrape(&registry)
                        .contains(r#"missing_injections{definition="stays",reason="NotInjected"}"#)
                );
            }
        });
    }
}
