//! How many pods run without a sidecar, by definition, and what was done about them.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

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
    /// The definitions among them.
    shown: Mutex<BTreeSet<String>>,
}

impl Metrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let metrics = Metrics {
            missing: Family::default(),
            outdated: Family::default(),
            repairs: Family::default(),
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
        let mut served = BTreeSet::new();
        for definition in engine.definitions() {
            let (missing, outdated) = counts.get(&*definition).copied().unwrap_or_default();
            let labels = labels(&definition);
            self.missing.get_or_create_owned(&labels).set(missing);
            self.outdated.get_or_create_owned(&labels).set(outdated);
            served.insert(definition.into_owned());
        }
        // One by one: who scrapes meanwhile must not miss the others.
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        for gone in shown.difference(&served) {
            self.missing.remove(&labels(gone));
            self.outdated.remove(&labels(gone));
        }
        *shown = served;
    }

    pub(super) fn count(&self, outcome: Outcome) {
        self.repairs.get_or_create_owned(&outcome.labels()).inc();
    }
}

fn labels(definition: &str) -> Labels {
    [("definition", definition.to_owned())]
}

impl Outcome {
    fn labels(self) -> Labels {
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

    #[test]
    fn who_is_served_is_always_shown_and_who_is_gone_is_not() {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        let (both, one) = (engine(&["stays", "goes"]), engine(&["stays"]));
        metrics.show(&both, [("stays", State::Missing), ("goes", State::Outdated)].into_iter());
        let text = scrape(&registry);
        assert!(text.contains(r#"missing_injections{definition="stays"} 1"#), "{text}");
        assert!(text.contains(r#"outdated_injections{definition="goes"} 1"#), "{text}");
        metrics.show(&one, std::iter::empty());
        let text = scrape(&registry);
        assert!(text.contains(r#"missing_injections{definition="stays"} 0"#), "{text}");
        assert!(!text.contains("goes"), "{text}");
        // However often it is scraped in between.
        thread::scope(|scope| {
            let showing = scope.spawn(|| {
                for _ in 0..2000 {
                    metrics.show(&one, std::iter::empty());
                }
            });
            while !showing.is_finished() {
                assert!(scrape(&registry).contains(r#"missing_injections{definition="stays"}"#));
            }
        });
    }
}
