//! The watch of the pods' metadata, and the look into those that a definition may be meant for.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::GetParams;
use kube::core::{PartialObjectMeta, Request};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource as _};
use sidecar_engine::{Namespace, Namespaces as _};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};
use tracing::debug;

use super::Watchdog;
use super::listing::Listing;
use super::pods::Pods;
use super::repair::{self, Repairs};
use crate::clock::Clock;
use crate::cluster;
use crate::sources::watching::Trouble;

/// The pause between two looks: the API server has more important things to do.
const LOOK: Duration = Duration::from_millis(20);

/// What one request may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

pub(super) const NO_ANSWER: &str = "the API server does not answer";

/// How long the pods of a namespace that nobody knows wait for it.
const NAMESPACE: Duration = Duration::from_secs(5);

/// How often what has changed is shown.
const SHOW: Duration = Duration::from_millis(500);

/// Looks at all pods, as long as it is polled.
pub(super) async fn follow(watchdog: &Watchdog) {
    let mut pods = Pods::default();
    let mut changes = watchdog.definitions.changes();
    let mut namespace_changes = watchdog.namespaces.changes();
    let ticks = |period| {
        let mut ticks = interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    };
    let (mut looks, mut shows) = (ticks(LOOK), ticks(SHOW));
    let per_minute = watchdog.settings.repairs_per_minute;
    let mut repairs = Repairs::default();
    let mut clock = Clock::new(watchdog.client.clone());
    let mut repair_ticks = ticks(repair::pause(per_minute));
    let mut listing = Listing::new(Instant::now());
    loop {
        listing.begin(Instant::now());
        // The API server sends nothing but metadata, in pages.
        let api: Api<PartialObjectMeta<Pod>> = Api::all(watchdog.client.clone());
        let mut events = pin!(watcher(api, watcher::Config::default()));
        let mut trouble = Trouble::default();
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(Ok(event)) => {
                        trouble.is_over(&event, "Pod");
                        // A list that is still coming in says nothing yet.
                        if !matches!(event, Event::Init | Event::InitApply(_)) {
                            watchdog.metrics.is_synced(true);
                        }
                        let is_complete = matches!(event, Event::InitDone);
                        watchdog.take_in(&mut pods, event);
                        if is_complete {
                            listing.end(Instant::now());
                            debug!(event = "pods_listed", concerned = pods.count());
                        }
                    }
                    Some(Err(error)) => {
                        watchdog.metrics.is_synced(false);
                        let (wait, _) = trouble.add(&error, "Pod");
                        sleep(wait).await;
                    }
                    None => break,
                },
                _ = looks.tick(), if pods.is_waiting() => watchdog.look(&mut pods).await,
                _ = shows.tick(), if pods.is_dirty => watchdog.show(&mut pods),
                _ = repair_ticks.tick(), if per_minute.is_some() => repairs.step(watchdog, &pods, &changes, &mut clock).await,
                changed = changes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    pods.begin_again();
                    listing.change(Instant::now());
                }
                // The sender is in the map, which is held here.
                Ok(()) = namespace_changes.changed() => listing.change(Instant::now()),
                () = sleep_until(listing.due()), if !pods.is_listing() => break,
            }
        }
    }
}

impl Watchdog {
    pub(super) fn take_in(&self, pods: &mut Pods, event: Event<PartialObjectMeta<Pod>>) {
        match event {
            Event::Init => pods.begin_list(),
            Event::InitDone => pods.end_list(),
            Event::Delete(pod) => pods.forget(&pod.metadata),
            Event::InitApply(pod) | Event::Apply(pod) => {
                if self.may_concern(&pod.metadata) {
                    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
                    pods.take_in(&pod.metadata, self.namespaces.version(namespace));
                } else {
                    pods.forget(&pod.metadata);
                }
            }
        }
    }

    fn may_concern(&self, metadata: &ObjectMeta) -> bool {
        let name = metadata.namespace.as_deref().unwrap_or_default();
        if self.settings.asked.leaves_out(name) || metadata.deletion_timestamp.is_some() {
            return false;
        }
        let owned =
            |map: &Option<std::collections::BTreeMap<String, String>>| map.clone().unwrap_or_default();
        let engine = &self.definitions.current().engine;
        engine.may_concern(owned(&metadata.labels), owned(&metadata.annotations), &self.namespace(name))
    }

    pub(super) fn namespace(&self, name: &str) -> Arc<Namespace> {
        self.namespaces.get(name).unwrap_or_else(|| Arc::new(Namespace::unknown(name)))
    }

    /// Looks at the next pod that waits for it.
    async fn look(&self, pods: &mut Pods) {
        let Some(mut waiting) = pods.next() else { return };
        // A pod may come with its namespace, and the watch of namespaces be the slower one.
        if self.settings.knows_namespaces
            && self.namespaces.get(&waiting.namespace).is_none()
            && waiting.awaited.get_or_insert_with(Instant::now).elapsed() < NAMESPACE
        {
            return pods.postpone(waiting);
        }
        let request = Request::new(Pod::url_path(&(), Some(&waiting.namespace)))
            .get(&waiting.name, &GetParams::default());
        let Ok(request) = request else { return };
        // As text: the engine reads what it needs, and a typed pod would have all the fields that it does not.
        match timeout(PATIENCE, self.client.request_text(request)).await {
            Ok(Ok(text)) => {
                self.judge(pods, &waiting, &text);
                pods.settle();
            }
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => {
                pods.is_fine(waiting.key);
                pods.settle();
            }
            result => {
                let problem = match result {
                    Ok(Err(kube::Error::Api(status))) => format!("{} ({})", status.reason, status.code),
                    Ok(Err(error)) => cluster::problem(&error),
                    _ => NO_ANSWER.to_owned(),
                };
                pods.say_unreadable(&waiting, &problem);
                pods.postpone(waiting);
                // Whatever it is, it will not be over in a moment.
                sleep(Duration::from_secs(1)).await;
            }
        }
    }

    fn show(&self, pods: &mut Pods) {
        pods.is_dirty = false;
        self.metrics.show(&self.definitions.current().engine, pods.found());
        pods.say();
    }
}

#[cfg(test)]
mod tests {
    use super::super::judge::tests::watchdog;
    use super::*;
    use crate::sources::namespaces::NamespaceMap;

    /// Its client reaches nobody, which takes a second each time.
    #[tokio::test(start_paused = true)]
    async fn a_pod_waits_for_what_is_known_of_its_namespace() {
        let mut watchdog = watchdog("");
        watchdog.settings.knows_namespaces = true;
        let mut pods = Pods::default();
        let text = |text: &str| Some(text.to_owned());
        let metadata = ObjectMeta {
            name: text("web"),
            namespace: text("shop"),
            uid: text("web"),
            ..ObjectMeta::default()
        };
        pods.take_in(&metadata, None);
        let start = Instant::now();
        watchdog.look(&mut pods).await;
        assert!(start.elapsed().is_zero() && pods.is_waiting());
        // Not for ever.
        tokio::time::advance(NAMESPACE).await;
        let start = Instant::now();
        watchdog.look(&mut pods).await;
        assert!(!start.elapsed().is_zero() && pods.is_waiting());
        let start = Instant::now();
        watchdog.namespaces = Arc::new(NamespaceMap::of([Namespace::unknown("shop")]));
        watchdog.look(&mut pods).await;
        assert!(!start.elapsed().is_zero() && pods.is_waiting());
    }
}
