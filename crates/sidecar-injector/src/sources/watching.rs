//! A copy of some of the cluster's objects, kept by a watch: what is missing from a new list has been deleted.
//!
//! Nothing ends a watch. While it fails, the copy stays as it was.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{info, warn};

use super::metrics::Watch;
use crate::cluster;

/// How long it must have been quiet before changes are published: `kubectl apply` of a folder comes in a burst.
const SETTLE: Duration = Duration::from_millis(20);

/// How long a burst may hold up what came first.
const HOLD: Duration = Duration::from_millis(200);

/// How long to wait after the first failure, and after many in a row.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_AT_MOST: Duration = Duration::from_secs(10);

/// How often to ask for a kind that is not installed.
const ASK_AGAIN: Duration = Duration::from_secs(3);

/// A kind that is not there so many times in a row has been removed; an API server that starts may say so once.
const GONE: u32 = 3;

/// What becomes of the objects that are watched.
pub(crate) trait Watched {
    /// An object as the API server sends it.
    type Object: Resource + Clone + DeserializeOwned + Debug + Send + 'static;
    /// What is kept of it.
    type Kept;
    /// What is watched, for the log.
    fn name(&self) -> &'static str;
    /// What to keep of an object, of which this was kept before.
    fn keep(&self, object: Self::Object, before: Option<&Self::Kept>) -> Self::Kept;
    /// Takes over all that there is.
    fn publish(&self, kept: &BTreeMap<String, Self::Kept>);
}

/// Watches, as long as it is polled.
pub(super) async fn follow<W: Watched>(api: Api<W::Object>, watched: W, metrics: Watch) {
    let mut events = pin!(watcher(api, watcher::Config::default()));
    let mut state = State { watched, listed: BTreeMap::new(), kept: BTreeMap::new() };
    let mut trouble = Trouble::default();
    // When there is something to publish: when to do it at the latest.
    let mut unpublished: Option<Instant> = None;
    loop {
        let event = match unpublished {
            None => events.next().await,
            Some(latest) => {
                let quiet = latest.min(Instant::now() + SETTLE);
                let Ok(event) = timeout_at(quiet, events.next()).await else {
                    state.watched.publish(&state.kept);
                    unpublished = None;
                    continue;
                };
                event
            }
        };
        match event {
            Some(Ok(event)) => {
                trouble.is_over(&event, state.watched.name());
                // A list that is still coming in says nothing yet.
                if !matches!(event, Event::Init | Event::InitApply(_)) {
                    metrics.is_up_to_date();
                }
                if state.take_in(event) {
                    unpublished = unpublished.or_else(|| Some(Instant::now() + HOLD));
                }
            }
            Some(Err(error)) => {
                metrics.failed();
                let (wait, is_gone) = trouble.add(&error, state.watched.name());
                if is_gone {
                    state.kept.clear();
                }
                // Also says that the first answer is there: the kind is not installed.
                if is_gone || trouble.is_first_absence() || unpublished.take().is_some() {
                    state.watched.publish(&state.kept);
                }
                sleep(wait).await;
            }
            // A watcher's stream does not end.
            None => return,
        }
    }
}

struct State<W: Watched> {
    watched: W,
    /// The list that is being received, until it is complete.
    listed: BTreeMap<String, W::Kept>,
    kept: BTreeMap<String, W::Kept>,
}

impl<W: Watched> State<W> {
    /// Whether there is something to publish now.
    fn take_in(&mut self, event: Event<W::Object>) -> bool {
        match event {
            Event::Init => {
                self.listed.clear();
                false
            }
            Event::InitApply(object) => {
                let key = key(&object);
                let kept = self.watched.keep(object, self.kept.get(&key));
                self.listed.insert(key, kept);
                false
            }
            Event::InitDone => {
                self.kept = std::mem::take(&mut self.listed);
                true
            }
            Event::Apply(object) => {
                let key = key(&object);
                let kept = self.watched.keep(object, self.kept.get(&key));
                self.kept.insert(key, kept);
                true
            }
            Event::Delete(object) => {
                self.kept.remove(&key(&object));
                true
            }
        }
    }
}

fn key(object: &impl Resource) -> String {
    let metadata = object.meta();
    let part = |part: &Option<String>| part.as_deref().unwrap_or_default().to_owned();
    format!("{}/{}", part(&metadata.namespace), part(&metadata.name))
}

/// What goes wrong with a watch, said once for each kind of trouble.
#[derive(Debug, Default)]
pub(crate) struct Trouble {
    said: Option<String>,
    failures: u32,
    absences: u32,
}

impl Trouble {
    /// How long to wait before the next try, and whether the kind is gone for good.
    pub(crate) fn add(&mut self, error: &watcher::Error, name: &'static str) -> (Duration, bool) {
        if is_absent(error) {
            self.absences += 1;
            if self.absences == 1 {
                let seconds = ASK_AGAIN.as_secs();
                info!(event = "kind_absent", kind = name, "not installed; asking again every {seconds} s");
            }
            self.failures = 0;
            return (ASK_AGAIN, self.absences == GONE);
        }
        self.absences = 0;
        // A watch that has become too old is the API server's way to ask for a new list.
        if matches!(error, watcher::Error::WatchError(status) if status.code == 410) {
            return (Duration::ZERO, false);
        }
        self.failures += 1;
        let problem = cluster::problem(error);
        if self.said.as_ref() != Some(&problem) {
            warn!(event = "watch_failed", kind = name, problem, "keeping what is known");
            self.said = Some(problem);
        }
        (RETRY_AT_MOST.min(RETRY * 2_u32.saturating_pow(self.failures - 1)), false)
    }

    fn is_first_absence(&self) -> bool {
        self.absences == 1
    }

    /// Something arrived. The beginning of a list is no proof yet.
    pub(crate) fn is_over<K>(&mut self, event: &Event<K>, name: &'static str) {
        if matches!(event, Event::Init) {
            return;
        }
        if self.said.take().is_some() {
            info!(event = "watch_recovered", kind = name, "watching again");
        }
        self.failures = 0;
        self.absences = 0;
    }
}

fn is_absent(error: &watcher::Error) -> bool {
    matches!(
        error,
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) if status.code == 404
    )
}
