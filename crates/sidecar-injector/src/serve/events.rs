//! Kubernetes Events on the owners of pods: who looks at a Deployment that has no sidecar finds out there.
//!
//! A review leaves a note in a queue and does not wait; one that finds the queue full is dropped and counted. What is found out about
//! pods that run has a queue of its own, which waits for the other. A task of its own writes them ([`writer`]): what happens again and
//! again is one Event, whose count is written now and then ([`ledger`]), and nothing is written faster than an API server likes.

mod ledger;
mod writer;

pub(crate) use writer::Writer;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, OwnerReference};
use k8s_openapi::jiff::Timestamp;
use kube::api::DynamicObject;
use kube::core::ApiResource;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use serde_json::json;
use sidecar_engine::{Reason, Reviewed};
use tokio::sync::mpsc;

use super::logs;

/// Who writes them. Kubernetes wants a domain in it.
const CONTROLLER: &str = "sidecar.me/injector";

/// Notes of reviews that wait to be written; the ones beyond are dropped.
const WAITING: usize = 1024;

/// The same of pods that run: whoever looks for them does so faster than is written, and can come back.
const WAITING_MISSING: usize = 256;

/// Kubernetes takes 1,024 bytes.
const NOTE_LENGTH: usize = 1000;

/// What is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Injected,
    Skipped,
    /// Of a pod that runs already.
    Missing,
    /// Such a pod is made anew.
    Repaired,
}

impl Kind {
    fn reason(self) -> &'static str {
        match self {
            Kind::Injected => "SidecarInjected",
            Kind::Skipped => "SidecarInjectionSkipped",
            Kind::Missing => "SidecarMissing",
            Kind::Repaired => "SidecarRepaired",
        }
    }

    fn severity(self) -> &'static str {
        match self {
            Kind::Injected | Kind::Repaired => "Normal",
            Kind::Skipped | Kind::Missing => "Warning",
        }
    }

    fn action(self) -> &'static str {
        match self {
            Kind::Injected | Kind::Skipped | Kind::Missing => "Inject",
            Kind::Repaired => "Repair",
        }
    }

    /// Whether it is about pods that run, and not about a review.
    fn is_of_running(self) -> bool {
        matches!(self, Kind::Missing | Kind::Repaired)
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
    reviews: mpsc::Sender<Note>,
    missing: mpsc::Sender<Note>,
    dropped: Counter,
}

#[derive(Debug, Clone)]
struct Metrics {
    written: Counter,
    repeated: Counter,
    dropped: Counter,
    failed: Counter,
}

/// The two ends of the queues.
pub(crate) fn queue(registry: &mut Registry) -> (Events, Writer) {
    let by_result = Family::<[(&'static str, &'static str); 1], Counter>::default();
    let [written, repeated, dropped, failed] = ["written", "repeated", "dropped", "failed"]
        .map(|result| by_result.get_or_create_owned(&[("result", result)]));
    registry.register("events", "Events by what became of them", by_result);
    let metrics = Metrics { written, repeated, dropped, failed };
    let (reviews, of_reviews) = mpsc::channel(WAITING);
    let (missing, of_missing) = mpsc::channel(WAITING_MISSING);
    let events = Events { reviews, missing, dropped: metrics.dropped.clone() };
    (events, Writer::new(of_reviews, of_missing, metrics))
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
            self.leave(&self.reviews, note);
        }
    }

    /// Notes what a pod that runs goes without: on its owner, since what one pod of it goes without the others mostly do too. Whether
    /// there was room for it; otherwise it is to be tried again later.
    pub(crate) fn missing(
        &self,
        namespace: &str,
        (pod, uid): (&str, Option<String>),
        owner: Option<&OwnerReference>,
        text: &str,
    ) -> bool {
        let note = match owner {
            Some(owner) => Note::about_owner(namespace, owner, Kind::Missing, format!("a pod of it {text}")),
            None => Note::about_pod(namespace, pod, uid, Kind::Missing, text.to_owned()),
        };
        self.leave(&self.missing, note)
    }

    /// Notes on whoever makes pods that it makes some anew. Where there is no room for it, the log alone has it: it does not happen again.
    pub(crate) fn repaired(&self, namespace: &str, owner: &OwnerReference, text: String) {
        self.leave(&self.missing, Note::about_owner(namespace, owner, Kind::Repaired, text));
    }

    fn leave(&self, queue: &mpsc::Sender<Note>, note: Note) -> bool {
        let is_taken = queue.try_send(note.shortened()).is_ok();
        if !is_taken {
            self.dropped.inc();
        }
        is_taken
    }
}

impl Note {
    fn about(reviewed: &Reviewed<'_>, kind: Kind, text: String) -> Option<Self> {
        let Reviewed { namespace, name, owner, .. } = reviewed;
        let Some(owner) = owner else {
            // The name of a pod that nobody owns; where the API server is still to make it, there is nothing to point at.
            return reviewed.is_named.then(|| Note::about_pod(namespace, name, None, kind, text));
        };
        Some(Note {
            namespace: namespace.clone(),
            api_version: owner.api_version.clone(),
            object_kind: owner.kind.clone(),
            name: owner.name.clone(),
            uid: (!owner.uid.is_empty()).then(|| owner.uid.clone()),
            kind,
            text,
        })
    }

    fn about_owner(namespace: &str, owner: &OwnerReference, kind: Kind, text: String) -> Self {
        Note {
            namespace: namespace.to_owned(),
            api_version: owner.api_version.clone(),
            object_kind: owner.kind.clone(),
            name: owner.name.clone(),
            uid: Some(owner.uid.clone()),
            kind,
            text,
        }
    }

    fn about_pod(namespace: &str, name: &str, uid: Option<String>, kind: Kind, text: String) -> Self {
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        Note { namespace, api_version: "v1".to_owned(), object_kind: "Pod".to_owned(), name, uid, kind, text }
    }

    /// Thousands may wait, and be remembered. A review that is made up may have names of any length, of which the API server wants
    /// no Event anyway.
    fn shortened(mut self) -> Self {
        let names = [&mut self.namespace, &mut self.api_version, &mut self.object_kind, &mut self.name];
        names.into_iter().chain(&mut self.uid).for_each(|name| shorten(name, logs::NAME_LENGTH));
        shorten(&mut self.text, NOTE_LENGTH);
        self
    }

    fn event(&self, instance: &str) -> DynamicObject {
        let now = Timestamp::now();
        // What is behind it makes the name one of its own; names have 253 characters at most.
        let stem = self.name.get(..self.name.floor_char_boundary(220)).unwrap_or_default();
        let name = format!("{stem}.{:x}", now.as_nanosecond());
        DynamicObject::new(&name, &resource()).within(&self.namespace).data(json!({
            "action": self.kind.action(),
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

/// To so many bytes.
fn shorten(text: &mut String, length: usize) {
    text.truncate(text.floor_char_boundary(length));
    text.shrink_to_fit();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// About a ReplicaSet.
    pub(super) fn note(kind: Kind, text: &str) -> Note {
        Note {
            namespace: "default".to_owned(),
            api_version: "apps/v1".to_owned(),
            object_kind: "ReplicaSet".to_owned(),
            name: "web".to_owned(),
            uid: Some("1".to_owned()),
            kind,
            text: text.to_owned(),
        }
    }

    #[test]
    fn what_the_pods_of_one_owner_go_without_is_one_event() {
        let (events, mut writer) = queue(&mut Registry::default());
        let owner = OwnerReference {
            api_version: "apps/v1".to_owned(),
            kind: "ReplicaSet".to_owned(),
            name: "web".to_owned(),
            uid: "1".to_owned(),
            ..OwnerReference::default()
        };
        let text = "runs without sidecar log: NotInjected: why";
        for pod in ["web-1", "web-2"] {
            assert!(events.missing("default", (pod, Some(pod.to_owned())), Some(&owner), text));
        }
        assert!(events.missing("default", ("alone", Some("2".to_owned())), None, text));
        let notes: Vec<_> = std::iter::from_fn(|| writer.next_missing()).collect();
        let about_owner = note(Kind::Missing, &format!("a pod of it {text}"));
        assert_eq!(notes[..2], [about_owner.clone(), about_owner]);
        assert_eq!((&*notes[2].object_kind, &*notes[2].name, &*notes[2].text), ("Pod", "alone", text));
    }

    /// Regression: a review that is made up has an owner with a name of megabytes, and a thousand of them waited.
    #[test]
    fn what_waits_is_short() {
        let long = "ü".repeat(1_000_000);
        let note = Note::about_pod(&long, &long, Some(long.clone()), Kind::Skipped, long.clone()).shortened();
        let lengths =
            [&note.namespace, &note.name, note.uid.as_ref().unwrap(), &note.text].map(String::capacity);
        assert_eq!(lengths, [252, 252, 252, 1000]);
    }
}
