//! What became of reviews, why pods went without sidecars, how long it took, and who was turned away.
//!
//! All series are there from the start, and a review finds its own without looking anything up by text.

use std::time::Instant;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use sidecar_engine::{Decision, Reason, Reviewed};

/// Seconds. A review takes 6 µs to 100 µs, a body that comes in pieces some milliseconds, and after 30 s, which is as much as a
/// webhook may be given, nobody waits any more.
const DURATIONS: [f64; 17] = [
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.01, 0.05, 0.1, 0.5, 1.0,
    2.5, 5.0, 10.0, 30.0,
];

/// Bytes: a pod has some KiB, at most 3 MiB.
const SIZES: [f64; 7] = [1_024.0, 4_096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0, 4_194_304.0];

type Labels<const N: usize> = [(&'static str, &'static str); N];

/// What became of a review.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// The pod got something.
    Injected,
    /// It needed nothing, or wanted nothing.
    Unchanged,
    /// It got nothing of what it was meant to have.
    Skipped,
    Denied,
    /// It was no review.
    Error,
}

impl Outcome {
    const ALL: [(Outcome, &'static str); 5] = [
        (Outcome::Injected, "injected"),
        (Outcome::Unchanged, "unchanged"),
        (Outcome::Skipped, "skipped"),
        (Outcome::Denied, "denied"),
        (Outcome::Error, "error"),
    ];

    fn of(reviewed: &Reviewed<'_>) -> Self {
        let is_missed = || reviewed.decisions.iter().any(Decision::is_missed);
        let is_there = |decision: &Decision<'_>| decision.reason == Reason::AlreadyPresent;
        if reviewed.denied {
            Outcome::Denied
        } else if reviewed.skipped.is_some() {
            Outcome::Unchanged
        } else if reviewed.operations > 0 {
            Outcome::Injected
        } else if is_missed() && !reviewed.decisions.iter().any(is_there) {
            Outcome::Skipped
        } else {
            Outcome::Unchanged
        }
    }
}

/// The metrics of reviews.
#[derive(Debug)]
pub(crate) struct Reviews {
    /// By [`Outcome`]: real ones, and dry runs.
    outcomes: Vec<[Counter; 2]>,
    /// By [`Reason`].
    skips: Vec<Counter>,
    /// By code.
    refusals: Vec<(&'static str, Counter)>,
    in_flight: Gauge,
    /// By [`Outcome`].
    durations: Vec<Histogram>,
    request_bytes: Histogram,
    patch_bytes: Histogram,
}

/// A request that is being answered, until it is dropped.
#[derive(Debug)]
pub(crate) struct InFlight<'m>(&'m Gauge);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Reviews {
    /// Registers all series, at zero. `refusals` are all codes with which a request can be turned away.
    pub(crate) fn register(registry: &mut Registry, refusals: &[&'static str]) -> Self {
        let requests = Family::<Labels<2>, Counter>::default();
        let outcomes = Outcome::ALL.map(|(_, outcome)| {
            ["false", "true"]
                .map(|dry_run| requests.get_or_create_owned(&[("outcome", outcome), ("dry_run", dry_run)]))
        });
        registry.register("admission_requests", "Reviews of pods by what became of them", requests);
        let by_outcome = Family::<Labels<1>, Histogram, fn() -> Histogram>::new_with_constructor(|| {
            Histogram::new(DURATIONS)
        });
        let durations =
            Outcome::ALL.map(|(_, outcome)| by_outcome.get_or_create_owned(&[("outcome", outcome)]));
        let by_reason = Family::<Labels<1>, Counter>::default();
        let skips = Reason::ALL.map(|reason| match reason {
            // Nothing was skipped; a counter that nobody sees.
            Reason::Injected => Counter::default(),
            reason => by_reason.get_or_create_owned(&[("reason", reason.code())]),
        });
        registry.register("skips", "Decisions not to add a sidecar, by their reason; no dry runs", by_reason);
        let by_code = Family::<Labels<1>, Counter>::default();
        let refusals =
            refusals.iter().map(|code| (*code, by_code.get_or_create_owned(&[("code", *code)]))).collect();
        registry.register("requests_refused", "Requests answered with an error, by its code", by_code);
        let reviews = Reviews {
            outcomes: outcomes.into(),
            skips: skips.into(),
            refusals,
            in_flight: Gauge::default(),
            durations: durations.into(),
            request_bytes: Histogram::new(SIZES),
            patch_bytes: Histogram::new(SIZES),
        };
        let in_flight = reviews.in_flight.clone();
        registry.register(
            "admission_in_flight",
            "Requests that have begun and are not answered yet",
            in_flight,
        );
        registry.register(
            "admission_duration_seconds",
            "From the head of a review's request to its answer",
            by_outcome,
        );
        registry.register("request_bytes", "Size of reviews", reviews.request_bytes.clone());
        registry.register("patch_bytes", "Size of the patches of injected pods", reviews.patch_bytes.clone());
        reviews
    }

    /// Begins a request, unless there are more than `limit` already.
    pub(crate) fn begin(&self, limit: i64) -> Option<InFlight<'_>> {
        let before = self.in_flight.inc();
        let in_flight = InFlight(&self.in_flight);
        (before < limit).then_some(in_flight)
    }

    /// Counts an answered review.
    pub(crate) fn answered(&self, reviewed: &Reviewed<'_>, request_bytes: usize, began: Instant) {
        let outcome = Outcome::of(reviewed);
        self.count(outcome, reviewed.dry_run, began);
        self.request_bytes.observe(float(request_bytes));
        if outcome == Outcome::Injected {
            self.patch_bytes.observe(float(reviewed.patch_bytes));
        }
        if !reviewed.dry_run {
            let decisions = reviewed.decisions.iter().map(|decision| decision.reason);
            for reason in decisions.chain(reviewed.skipped) {
                if let Some(counter) = self.skips.get(reason as usize) {
                    counter.inc();
                }
            }
        }
    }

    /// Counts a body that was no review.
    pub(crate) fn unreadable(&self, began: Instant) {
        self.count(Outcome::Error, false, began);
    }

    /// Counts a request that was turned away.
    pub(crate) fn refused(&self, code: &str) {
        if let Some((_, counter)) = self.refusals.iter().find(|(known, _)| *known == code) {
            counter.inc();
        }
    }

    fn count(&self, outcome: Outcome, dry_run: bool, began: Instant) {
        let counter = self.outcomes.get(outcome as usize).and_then(|pair| pair.get(usize::from(dry_run)));
        if let Some(counter) = counter {
            counter.inc();
        }
        if let Some(duration) = self.durations.get(outcome as usize) {
            duration.observe(began.elapsed().as_secs_f64());
        }
    }
}

/// Nothing here has more bytes than a float counts exactly.
fn float(bytes: usize) -> f64 {
    u32::try_from(bytes).map_or(f64::MAX, f64::from)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sidecar_engine::definition::Compiled;
    use sidecar_engine::{Engine, NoNamespaces};

    use super::*;

    /// Series are found by number.
    #[test]
    fn lists_are_in_the_order_of_their_types() {
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index, "{reason}");
        }
        for (index, (outcome, name)) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, index, "{name}");
        }
    }

    #[test]
    fn who_has_one_sidecar_already_was_not_skipped() {
        let definitions = ["a", "app"].map(|container| {
            let text = format!(
                "apiVersion: sidecar.me/v1alpha1\nkind: ClusterSidecarDefinition\nmetadata: {{name: adds-{container}}}\n\
                 spec: {{selector: {{podSelector: {{}}}}, inject: {{spec: {{containers: [{{name: {container}, image: 'a:1'}}]}}}}}}\n"
            );
            Arc::new(Compiled::from_yaml(&text).unwrap())
        });
        let engine = Engine::new(definitions.into());
        let outcome = |containers: &str| {
            let review = format!(
                r#"{{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {{"uid": "1", "operation": "CREATE",
                "kind": {{"version": "v1", "kind": "Pod"}}, "namespace": "shop", "object": {{"metadata": {{}}, "spec": {{"containers": [{containers}]}}}}}}}}"#
            );
            Outcome::of(&engine.review(review.as_bytes(), &NoNamespaces).unwrap())
        };
        let (app, a) = (r#"{"name": "app", "image": "app:1"}"#, r#"{"name": "a", "image": "a:1"}"#);
        assert_eq!(outcome(app), Outcome::Injected);
        assert_eq!(outcome(&format!("{app}, {a}")), Outcome::Unchanged);
        assert_eq!(
            outcome(r#"{"name": "app", "image": "app:1"}, {"name": "a", "image": "a:2"}"#),
            Outcome::Skipped
        );
    }

    #[test]
    fn beginning_is_refused_above_the_limit_and_counts_down_again() {
        let reviews = Reviews::register(&mut Registry::default(), &[]);
        let first = reviews.begin(1);
        assert!(first.is_some());
        assert!(reviews.begin(1).is_none());
        assert_eq!(reviews.in_flight.get(), 1);
        drop(first);
        assert!(reviews.begin(1).is_some());
    }
}
