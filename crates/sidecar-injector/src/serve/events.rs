//! Kubernetes Events on the owners of pods: who looks at a Deployment that has no sidecar finds out there.
//!
//! A review leaves a note in a queue and does not wait; one that finds the queue full is dropped and counted. A task of its own
//! writes them: what happens again and again is one Event, whose count is written now and then, and nothing is written faster than
//! an API server likes.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use kube::core::ApiResource;
use kube::{Api, Client};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use serde_json::json;
use sidecar_engine::{Reason, Reviewed};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tracing::{info, warn};

use super::logs;

/// Who writes them. Kubernetes wants a domain in it.
const CONTROLLER: &str = "sidecar.me/injector";

/// Notes that wait to be written; the ones beyond are dropped.
const WAITING: usize = 1024;

/// How long what happens again is only counted.
const QUIET: Duration = Duration::from_mins(10);

/// How often is looked for counts that are due.
const SWEEP: Duration = Duration::from_secs(30);

/// Different Events that are remembered, so that they are not written again.
const REMEMBERED: usize = 4096;

/// Writes a second in the long run, and how many at once after a pause.
const RATE: f64 = 5.0;
const BURST: f64 = 25.0;

/// An API server that takes longer is in trouble, and has better things to do.
const WRITE_TIME: Duration = Duration::from_secs(10);

/// What fails on is said again after this.
const SAY_AGAIN: Duration = Duration::from_hours(1);

/// Namespaces in which that is remembered; of those beyond it is not said.
const TROUBLED: usize = 256;

/// Kubernetes takes 1,024 bytes.
const NOTE_LENGTH: usize = 1000;

/// What is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Injected,
    Skipped,
    /// Of a pod that runs already.
    Missing,
}

impl Kind {
    fn reason(self) -> &'static str {
        match self {
            Kind::Injected => "SidecarInjected",
            Kind::Skipped => "SidecarInjectionSkipped",
            Kind::Missing => "SidecarMissing",
        }
    }

    fn severity(self) -> &'static str {
        match self {
            Kind::Injected => "Normal",
            Kind::Skipped | Kind::Missing => "Warning",
        }
    }
}

/// What happened, to what.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Note {
    namespace: String,
    api_version: String,
    object_kind: String,
    name: String,
    /// Not known of a pod that is being created.
    uid: Option<String>,
    kind: Kind,
    text: String,
}

/// Where notes are left, by reviews above all.
#[derive(Debug, Clone)]
pub(crate) struct Events {
    queue: mpsc::Sender<Note>,
    dropped: Counter,
}

/// Who writes them.
#[derive(Debug)]
pub(crate) struct Writer {
    queue: mpsc::Receiver<Note>,
    metrics: Metrics,
}

#[derive(Debug, Clone)]
struct Metrics {
    written: Counter,
    repeated: Counter,
    dropped: Counter,
    failed: Counter,
}

/// The two ends of the queue.
pub(crate) fn queue(registry: &mut Registry) -> (Events, Writer) {
    let by_result = Family::<[(&'static str, &'static str); 1], Counter>::default();
    let [written, repeated, dropped, failed] = ["written", "repeated", "dropped", "failed"]
        .map(|result| by_result.get_or_create_owned(&[("result", result)]));
    registry.register("events", "Events by what became of them", by_result);
    let metrics = Metrics { written, repeated, dropped, failed };
    let (sender, receiver) = mpsc::channel(WAITING);
    (Events { queue: sender, dropped: metrics.dropped.clone() }, Writer { queue: receiver, metrics })
}

impl Events {
    /// Notes what was decided for a pod, if anybody wants to know and there is something to tell it about.
    pub(crate) fn review(&self, reviewed: &Reviewed<'_>) {
        // Of a dry run nothing remains, not even this.
        if reviewed.dry_run {
            return;
        }
        let injected = reviewed.decisions.iter().filter(|decision| decision.reason == Reason::Injected);
        let injected = injected.map(|decision| &*decision.definition).collect::<Vec<_>>().join(", ");
        let injected = (!injected.is_empty() && !reviewed.denied).then(|| format!("added {injected}"));
        let notes = [(Kind::Injected, injected), (Kind::Skipped, logs::messages(&reviewed.decisions))];
        for (kind, text) in notes {
            let Some(note) = text.and_then(|text| Note::about(reviewed, kind, text)) else { continue };
            self.leave(note);
        }
    }

    /// Notes what a pod that runs goes without.
    pub(crate) fn missing(&self, namespace: &str, pod: &str, uid: Option<String>, mut text: String) {
        text.truncate(text.floor_char_boundary(NOTE_LENGTH));
        self.leave(Note {
            namespace: namespace.to_owned(),
            api_version: "v1".to_owned(),
            object_kind: "Pod".to_owned(),
            name: pod.to_owned(),
            uid,
            kind: Kind::Missing,
            text,
        });
    }

    fn leave(&self, note: Note) {
        if self.queue.try_send(note).is_err() {
            self.dropped.inc();
        }
    }
}

impl Note {
    fn about(reviewed: &Reviewed<'_>, kind: Kind, mut text: String) -> Option<Self> {
        text.truncate(text.floor_char_boundary(NOTE_LENGTH));
        let namespace = reviewed.namespace.clone();
        if let Some(owner) = &reviewed.owner {
            return Some(Note {
                namespace,
                api_version: owner.api_version.clone(),
                object_kind: owner.kind.clone(),
                name: owner.name.clone(),
                uid: (!owner.uid.is_empty()).then(|| owner.uid.clone()),
                kind,
                text,
            });
        }
        // The name of a pod that nobody owns; where the API server is still to make it, there is nothing to point at.
        reviewed.is_named.then(|| Note {
            namespace,
            api_version: "v1".to_owned(),
            object_kind: "Pod".to_owned(),
            name: reviewed.name.clone(),
            uid: None,
            kind,
            text,
        })
    }

    fn event(&self, instance: &str) -> DynamicObject {
        let now = Timestamp::now();
        // What is behind it makes the name one of its own; names have 253 characters at most.
        let stem = self.name.get(..self.name.floor_char_boundary(220)).unwrap_or_default();
        let name = format!("{stem}.{:x}", now.as_nanosecond());
        DynamicObject::new(&name, &resource()).within(&self.namespace).data(json!({
            "action": "Inject",
            "eventTime": MicroTime(now),
            "note": self.text,
            "reason": self.kind.reason(),
            "regarding": {
                "apiVersion": self.api_version,
                "kind": self.object_kind,
                "name": self.name,
                "namespace": self.namespace,
                "uid": self.uid,
            },
            "reportingController": CONTROLLER,
            "reportingInstance": instance,
            "type": self.kind.severity(),
        }))
    }
}

fn resource() -> ApiResource {
    ApiResource {
        group: "events.k8s.io".to_owned(),
        version: "v1".to_owned(),
        api_version: "events.k8s.io/v1".to_owned(),
        kind: "Event".to_owned(),
        plural: "events".to_owned(),
    }
}

/// The Events that were written, each with how often it happened.
#[derive(Debug, Default)]
struct Ledger(HashMap<Note, Series>);

#[derive(Debug)]
struct Series {
    name: String,
    written: Instant,
    /// All in all, and how many of them the API server knows of.
    count: i32,
    told: i32,
}

impl Ledger {
    /// Whether it has happened before; then it is counted.
    fn count(&mut self, note: &Note) -> bool {
        self.0.get_mut(note).map(|series| series.count = series.count.saturating_add(1)).is_some()
    }

    /// Remembers an Event that was written.
    fn remember(&mut self, note: Note, name: String, now: Instant) {
        self.0.insert(note, Series { name, written: now, count: 1, told: 1 });
    }

    fn is_full(&self) -> bool {
        self.0.len() >= REMEMBERED
    }

    /// The counts that are due, as namespace, name and count; what has not happened again is forgotten.
    fn take_due(&mut self, now: Instant) -> Vec<(String, String, i32)> {
        let is_due = |series: &Series| now.duration_since(series.written) >= QUIET;
        self.0.retain(|_, series| !is_due(series) || series.count > series.told);
        let due = self.0.iter_mut().filter(|(_, series)| is_due(series)).map(|(note, series)| {
            series.written = now;
            series.told = series.count;
            (note.namespace.clone(), series.name.clone(), series.count)
        });
        due.collect()
    }
}

/// A bucket of tokens, one for each write.
#[derive(Debug)]
struct Pace {
    tokens: f64,
    at: Instant,
}

impl Pace {
    fn new(now: Instant) -> Self {
        Pace { tokens: BURST, at: now }
    }

    /// Takes a token. How long to wait until it is there.
    fn take(&mut self, now: Instant) -> Duration {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * RATE).min(BURST) - 1.0;
        self.at = now;
        Duration::from_secs_f64((-self.tokens / RATE).max(0.0))
    }
}

impl Writer {
    /// Writes, as long as it is polled.
    pub(crate) async fn write(mut self, client: Client) {
        // In a pod, its name.
        let instance = std::env::var("HOSTNAME").unwrap_or_else(|_| "sidecar-injector".to_owned());
        let resource = resource();
        let api =
            |namespace: &str| Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &resource);
        let mut ledger = Ledger::default();
        let mut pace = Pace::new(Instant::now());
        let mut trouble = Trouble::default();
        let mut sweep = interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                note = self.queue.recv() => {
                    let Some(note) = note else { return };
                    if ledger.count(&note) {
                        self.metrics.repeated.inc();
                        continue;
                    }
                    if ledger.is_full() {
                        self.metrics.dropped.inc();
                        continue;
                    }
                    sleep(pace.take(Instant::now())).await;
                    let event = note.event(&instance);
                    let api = api(&note.namespace);
                    let parameters = PostParams::default();
                    let written = api.create(&parameters, &event);
                    if self.is_written(written, &note.namespace, &mut trouble).await {
                        ledger.remember(note, event.metadata.name.unwrap_or_default(), Instant::now());
                    }
                }
                _ = sweep.tick() => {
                    for (namespace, name, count) in ledger.take_due(Instant::now()) {
                        sleep(pace.take(Instant::now())).await;
                        let api = api(&namespace);
                        let series = json!({"series": {
                            "count": count,
                            "lastObservedTime": MicroTime(Timestamp::now()),
                        }});
                        let (parameters, patch) = (PatchParams::default(), Patch::Merge(series));
                        let written = api.patch(&name, &parameters, &patch);
                        self.is_written(written, &namespace, &mut trouble).await;
                    }
                }
            }
        }
    }

    async fn is_written(
        &self,
        write: impl Future<Output = Result<DynamicObject, kube::Error>>,
        namespace: &str,
        trouble: &mut Trouble,
    ) -> bool {
        let problem = match timeout(WRITE_TIME, write).await {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("no answer in {} s", WRITE_TIME.as_secs())),
        };
        let counter = if problem.is_none() { &self.metrics.written } else { &self.metrics.failed };
        counter.inc();
        match (problem.as_deref(), trouble.is_news(namespace, problem.is_some(), Instant::now())) {
            (Some(problem), true) => warn!(event = "events_failed", namespace, problem, "Events are lost"),
            (None, true) => info!(event = "events_recovered", namespace, "Events are written again"),
            (_, false) => {}
        }
        problem.is_none()
    }
}

/// Where writing fails, and since when that was said. One namespace may have a quota, or be on its way out, and the others are fine.
#[derive(Debug, Default)]
struct Trouble(HashMap<String, Instant>);

impl Trouble {
    /// Whether that is to be said: when it begins, when it is over, and now and then between; not for each Event.
    fn is_news(&mut self, namespace: &str, fails: bool, now: Instant) -> bool {
        // A namespace that is gone would be remembered for ever.
        self.0.retain(|_, said| now.duration_since(*said) < SAY_AGAIN);
        if !fails {
            return self.0.remove(namespace).is_some();
        }
        if self.0.contains_key(namespace) || self.0.len() >= TROUBLED {
            return false;
        }
        self.0.insert(namespace.to_owned(), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(text: &str) -> Note {
        Note {
            namespace: "default".to_owned(),
            api_version: "apps/v1".to_owned(),
            object_kind: "ReplicaSet".to_owned(),
            name: "web".to_owned(),
            uid: Some("1".to_owned()),
            kind: Kind::Skipped,
            text: text.to_owned(),
        }
    }

    #[test]
    fn what_happens_again_is_counted_and_told_after_a_while() {
        let (mut ledger, start) = (Ledger::default(), Instant::now());
        assert!(!ledger.count(&note("a")));
        ledger.remember(note("a"), "web.1".to_owned(), start);
        ledger.remember(note("b"), "web.2".to_owned(), start);
        assert!(ledger.count(&note("a")) && ledger.count(&note("a")));
        assert_eq!(ledger.take_due(start + QUIET / 2), []);
        let due = ledger.take_due(start + QUIET);
        assert_eq!(due, [("default".to_owned(), "web.1".to_owned(), 3)]);
        // What has not happened again is forgotten, and is an Event of its own when it does.
        assert!(!ledger.count(&note("b")));
        assert!(ledger.count(&note("a")));
        assert_eq!(ledger.take_due(start + QUIET * 2).len(), 1);
        assert_eq!(ledger.take_due(start + QUIET * 3), []);
        assert!(!ledger.count(&note("a")));
    }

    #[test]
    fn trouble_in_one_namespace_hides_none_in_another() {
        let (mut trouble, start) = (Trouble::default(), Instant::now());
        assert!(!trouble.is_news("a", false, start));
        assert!(trouble.is_news("a", true, start) && trouble.is_news("b", true, start));
        assert!(!trouble.is_news("a", true, start) && !trouble.is_news("c", false, start));
        assert!(trouble.is_news("a", false, start) && !trouble.is_news("a", false, start));
        assert!(!trouble.is_news("b", true, start), "it is still so");
        assert!(trouble.is_news("b", true, start + SAY_AGAIN));
    }

    #[test]
    fn trouble_everywhere_is_remembered_within_limits() {
        let (mut trouble, start) = (Trouble::default(), Instant::now());
        let said = (0..2 * TROUBLED).filter(|number| trouble.is_news(&number.to_string(), true, start));
        assert_eq!(said.count(), TROUBLED);
        assert_eq!(trouble.0.len(), TROUBLED);
    }

    #[test]
    fn writes_are_spread_after_a_burst() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let waits: Vec<_> = (0..27).map(|_| pace.take(start)).collect();
        assert!(waits.iter().take(25).all(Duration::is_zero));
        assert_eq!(waits[25..], [Duration::from_millis(200), Duration::from_millis(400)]);
        // A pause fills the bucket again, and not beyond.
        let later = start + Duration::from_hours(1);
        assert_eq!((0..26).map(|_| pace.take(later)).filter(Duration::is_zero).count(), 25);
    }
}
