//! Writes what waits in the queues, one thing after the other.

use std::collections::HashMap;
use std::future::ready;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tracing::{info, warn};

use super::ledger::Ledger;
use super::{Metrics, Note, resource};
use crate::cluster;

/// How often is looked for counts that are due.
const SWEEP: Duration = Duration::from_secs(30);

/// Writes a second in the long run, and how many at once after a pause.
const RATE: f64 = 5.0;
const BURST: f64 = 25.0;

/// An API server that takes longer is in trouble, and has better things to do.
const WRITE_TIME: Duration = Duration::from_secs(10);

/// What fails on is said again after this.
const SAY_AGAIN: Duration = Duration::from_hours(1);

/// Namespaces in which that is remembered; of those beyond it is not said.
const TROUBLED: usize = 256;

/// What came of a write.
type Outcome = Result<kube::Result<DynamicObject>, Elapsed>;

/// Who writes them.
#[derive(Debug)]
pub(crate) struct Writer {
    reviews: mpsc::Receiver<Note>,
    missing: mpsc::Receiver<Note>,
    metrics: Metrics,
    ledger: Ledger,
    pace: Pace,
    trouble: Trouble,
    /// In a pod, its name.
    instance: String,
}

impl Writer {
    pub(super) fn new(
        reviews: mpsc::Receiver<Note>,
        missing: mpsc::Receiver<Note>,
        metrics: Metrics,
    ) -> Self {
        Writer {
            reviews,
            missing,
            metrics,
            ledger: Ledger::default(),
            pace: Pace::new(Instant::now()),
            trouble: Trouble::default(),
            instance: std::env::var("HOSTNAME").unwrap_or_else(|_| "sidecar-injector".to_owned()),
        }
    }

    /// What waits about pods that run.
    #[cfg(test)]
    pub(super) fn next_missing(&mut self) -> Option<Note> {
        self.missing.try_recv().ok()
    }

    /// The same, for who only leaves notes.
    #[cfg(test)]
    pub(crate) fn next_missing_shown(&mut self) -> Option<String> {
        let Note { namespace, api_version, object_kind, name, uid, kind, text } = self.next_missing()?;
        let (uid, severity, reason) = (uid.unwrap_or_default(), kind.severity(), kind.reason());
        Some(format!("{namespace} {api_version} {object_kind}/{name} {uid} {severity} {reason}: {text}"))
    }

    /// Writes, as long as it is polled.
    pub(crate) async fn write(mut self, client: Client) {
        let mut sweep = interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                // Each goes before those below it: of a review nothing is said a second time, and counts have time.
                biased;
                _ = sweep.tick() => self.ledger.sweep(Instant::now()),
                note = self.reviews.recv() => match note {
                    Some(note) => self.tell(&client, note).await,
                    None => return,
                },
                Some(note) = self.missing.recv() => self.tell(&client, note).await,
                () = ready(()), if self.ledger.has_due() => self.count(&client).await,
            }
        }
    }

    /// Writes an Event, or counts it if there is one already.
    async fn tell(&mut self, client: &Client, note: Note) {
        if self.ledger.count(&note) {
            self.metrics.repeated.inc();
            return;
        }
        sleep(self.pace.take(Instant::now())).await;
        let event = note.event(&self.instance);
        let parameters = PostParams::default();
        let outcome = timeout(WRITE_TIME, api(client, &note).create(&parameters, &event)).await;
        if self.is_written(&outcome, &note.namespace) {
            self.ledger.remember(note, event.metadata.name.unwrap_or_default(), Instant::now());
        }
    }

    /// Writes the next count that is due.
    async fn count(&mut self, client: &Client) {
        let Some(due) = self.ledger.next_due() else { return };
        sleep(self.pace.take(Instant::now())).await;
        let series = json!({"series": {
            "count": due.count,
            "lastObservedTime": MicroTime(Timestamp::now()),
        }});
        let (parameters, patch) = (PatchParams::default(), Patch::Merge(series));
        let outcome = timeout(WRITE_TIME, api(client, &due.note).patch(&due.name, &parameters, &patch)).await;
        if matches!(&outcome, Ok(Err(kube::Error::Api(status))) if status.code == 404) {
            // Somebody has deleted it, or its time was up.
            return self.ledger.forget(&due.note);
        }
        let is_written = self.is_written(&outcome, &due.note.namespace);
        self.ledger.told(&due, is_written, Instant::now());
    }

    /// Counts what came of a write, and says so where it is news.
    fn is_written(&mut self, outcome: &Outcome, namespace: &str) -> bool {
        let problem = match outcome {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(cluster::problem(error)),
            Err(_) => Some(format!("no answer in {} s", WRITE_TIME.as_secs())),
        };
        let counter = if problem.is_none() { &self.metrics.written } else { &self.metrics.failed };
        counter.inc();
        match (problem.as_deref(), self.trouble.is_news(namespace, problem.is_some(), Instant::now())) {
            (Some(problem), true) => warn!(event = "events_failed", namespace, problem, "Events are lost"),
            (None, true) => info!(event = "events_recovered", namespace, "Events are written again"),
            (_, false) => {}
        }
        problem.is_none()
    }
}

fn api(client: &Client, note: &Note) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), &note.namespace, &resource())
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

    use std::sync::{Arc, Mutex};

    use axum::Router;
    use axum::body::to_bytes;
    use axum::extract::Request;
    use axum::http::{Method, StatusCode};
    use axum::response::IntoResponse as _;
    use prometheus_client::registry::Registry;
    use serde_json::Value;

    use crate::serve::events::ledger::QUIET;
    use crate::serve::events::tests::note;
    use crate::serve::events::{Events, Kind, WAITING_MISSING, queue};

    /// What the API server was asked to do: the method, and the note or the count.
    type Asked = Arc<Mutex<Vec<(Method, Value)>>>;

    /// A writer at work, for an API server that answers with `patched` where a count is written.
    fn writing(patched: StatusCode, prepare: impl FnOnce(&Events)) -> (Events, Asked) {
        let asked = Asked::default();
        let answer = {
            let asked = asked.clone();
            async move |request: Request| {
                let method = request.method().clone();
                let body = to_bytes(request.into_body(), usize::MAX).await.unwrap();
                let body: Value = serde_json::from_slice(&body).unwrap();
                let is_new = method == Method::POST;
                let said = if is_new { &body["note"] } else { &body["series"]["count"] };
                asked.lock().unwrap().push((method, said.clone()));
                match (is_new, patched.as_u16()) {
                    (true, _) => body.to_string().into_response(),
                    (false, 200) => json!({"metadata": {}}).to_string().into_response(),
                    (false, code) => {
                        let status = json!({"kind": "Status", "status": "Failure", "message": "", "reason": "", "code": code});
                        (patched, status.to_string()).into_response()
                    }
                }
            }
        };
        let client = Client::new(Router::new().fallback(answer), "default");
        let (events, writer) = queue(&mut Registry::default());
        prepare(&events);
        tokio::spawn(writer.write(client));
        (events, asked)
    }

    fn review(events: &Events, text: &str) {
        assert!(events.leave(&events.reviews, note(Kind::Skipped, text)));
    }

    /// Waits until so many of a method were asked for. The clock of these tests moves by itself.
    async fn wait_for(asked: &Asked, method: &Method, count: usize) {
        let is_there = || asked.lock().unwrap().iter().filter(|(asked, _)| asked == method).count() >= count;
        let there = async {
            while !is_there() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(QUIET * 3, there).await.unwrap_or_else(|_| panic!("{method}: {:?}", asked.lock().unwrap()));
    }

    /// Regression: they had one queue, and whoever looks for pods that run looks at fifty in a second.
    #[tokio::test(start_paused = true)]
    async fn reviews_do_not_wait_for_what_is_found_out_about_pods_that_run() {
        let (_events, asked) = writing(StatusCode::OK, |events| {
            let mut missing = (0..2 * WAITING_MISSING)
                .map(|number| events.missing("default", (&number.to_string(), None), None, "lacks"));
            assert_eq!(missing.by_ref().take_while(|is_taken| *is_taken).count(), WAITING_MISSING);
            assert!(!missing.next().unwrap(), "whoever looks is told");
            assert_eq!(events.dropped.get(), 2);
            review(events, "a");
            review(events, "b");
        });
        wait_for(&asked, &Method::POST, WAITING_MISSING + 2).await;
        let notes: Vec<_> = asked.lock().unwrap().iter().take(3).map(|(_, note)| note.clone()).collect();
        assert_eq!(notes, ["a", "b", "lacks"]);
    }

    /// Regression: all counts that were due were written before the next Event, for minutes.
    #[tokio::test(start_paused = true)]
    async fn new_events_do_not_wait_for_counts() {
        let (events, asked) = writing(StatusCode::OK, |events| {
            for _ in 0..2 {
                (0..100).for_each(|number| review(events, &number.to_string()));
            }
        });
        // Two sweeps find them, and each begins with a burst.
        wait_for(&asked, &Method::PATCH, 60).await;
        review(&events, "new");
        wait_for(&asked, &Method::PATCH, 100).await;
        let asked = asked.lock().unwrap();
        let counts_before = asked.iter().skip(100).take_while(|(method, _)| method == Method::PATCH);
        assert!(counts_before.count() < 65, "{asked:?}");
        assert!(asked.iter().skip(100).all(|(_, said)| said == "new" || said == 2), "{asked:?}");
    }

    /// Regression: an Event that somebody had deleted was counted for ever, and never written again.
    #[tokio::test(start_paused = true)]
    async fn an_event_that_was_deleted_is_written_anew() {
        for (patched, expected) in [(StatusCode::NOT_FOUND, 2), (StatusCode::OK, 1)] {
            let (events, asked) = writing(patched, |events| {
                review(events, "a");
                review(events, "a");
            });
            wait_for(&asked, &Method::PATCH, 1).await;
            sleep(Duration::from_secs(1)).await;
            review(&events, "a");
            sleep(Duration::from_secs(1)).await;
            let written = asked.lock().unwrap().iter().filter(|(method, _)| method == Method::POST).count();
            assert_eq!(written, expected, "{patched}");
        }
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
