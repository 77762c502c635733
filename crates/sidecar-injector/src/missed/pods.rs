//! What is remembered of pods: of those that are fine hardly anything, of the others what is to be said.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::time::SystemTime;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use sidecar_engine::{State, fingerprint};
use tokio::time::Instant;
use tracing::{info, warn};

use super::mark::{Lacking, Mark};
use crate::serve::logs::short;

/// An object by the hash of its uid: of 50,000 pods that are fine nothing else is kept but the hash of what they said.
pub(super) type Key = u64;

/// A hash of what pods are judged by.
pub(super) type Basis = u64;

/// At most so many problems are told from each other.
const PROBLEMS: usize = 32;

/// All pods that a definition may be meant for.
#[derive(Debug, Default)]
pub(super) struct Pods {
    /// With the version of them that was looked at, or will be.
    known: HashMap<Key, u64>,
    /// In boxes: a map has room for more than there are, and all of it twice while it grows.
    without: HashMap<Key, Box<Without>>,
    waiting: VecDeque<Waiting>,
    queued: HashSet<Key>,
    /// What a new list has had so far.
    listed: Option<HashSet<Key>>,
    /// Counted up when definitions change: everything is looked at again.
    epoch: u64,
    /// Whether there is something new to tell.
    pub(super) is_dirty: bool,
    said: Option<(usize, usize)>,
    /// What was said to keep pods from being looked at.
    problems: HashSet<String>,
}

/// One that has to be looked at.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) key: Key,
    pub(super) namespace: Box<str>,
    pub(super) name: Box<str>,
    /// Since when its namespace has been waited for.
    pub(super) awaited: Option<Instant>,
}

/// One that goes without something. There may be as many of them as there are pods.
#[derive(Debug)]
pub(super) struct Without {
    pub(super) namespace: Box<str>,
    pub(super) name: Box<str>,
    pub(super) owner: Option<Owner>,
    pub(super) created: Option<SystemTime>,
    /// What the owner's template said when it was made.
    pub(super) mark: Option<Mark>,
    pub(super) found: Box<[Found]>,
    /// What it is to be made anew for.
    pub(super) lacking: Option<Lacking>,
    /// What it was judged by.
    pub(super) basis: Basis,
    /// Whether there was no room for the Event about it.
    pub(super) is_untold: bool,
}

/// Who made it: what is needed of a reference, in which anything may stand.
#[derive(Debug)]
pub(super) struct Owner {
    pub(super) key: Key,
    /// Whether it is of the group of Deployments.
    pub(super) is_of_apps: bool,
    pub(super) kind: Box<str>,
    pub(super) name: Box<str>,
}

/// What it goes without.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) definition: Box<str>,
    pub(super) state: State,
    pub(super) reason: &'static str,
    /// Whether it is to be made anew, and would have it then.
    pub(super) is_repairable: bool,
    /// Of the definition.
    pub(super) fingerprint: u32,
}

impl Without {
    /// What it is to be made anew for.
    pub(super) fn wanted(&self) -> impl Iterator<Item = &Found> {
        self.found.iter().filter(|found| found.is_repairable)
    }
}

impl Owner {
    pub(super) fn new(reference: &OwnerReference) -> Self {
        Owner {
            key: hash(&reference.uid),
            is_of_apps: reference.api_version == "apps/v1",
            kind: short(&reference.kind).into(),
            name: short(&reference.name).into(),
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.kind, self.name)
    }
}

/// A hash of what is to be had by being made anew: names and contents of definitions, the same in every replica.
pub(super) fn lacking(found: &[Found]) -> Option<Lacking> {
    let wanted = found.iter().filter(|found| found.is_repairable);
    let all: Vec<_> = wanted.map(|found| format!("{} {:08x}", found.definition, found.fingerprint)).collect();
    (!all.is_empty()).then(|| fingerprint(&all.join("\n")))
}

impl Pods {
    /// A new list begins.
    pub(super) fn begin_list(&mut self) {
        self.listed = Some(HashSet::new());
    }

    /// Whether a list is coming in.
    pub(super) fn is_listing(&self) -> bool {
        self.listed.is_some()
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.known.len()
    }

    /// What was not in the list is gone.
    pub(super) fn end_list(&mut self) {
        if let Some(listed) = self.listed.take() {
            self.known.retain(|key, _| listed.contains(key));
            self.known.shrink_to_fit();
            self.without.retain(|key, _| listed.contains(key));
            self.is_dirty = true;
        }
    }

    /// What a pod is judged by beside itself: the definitions as they are now, and what is known of its namespace.
    pub(super) fn basis(&self, namespace_version: Option<u64>) -> Basis {
        hash(&(self.epoch, namespace_version))
    }

    /// Definitions have changed.
    pub(super) fn begin_again(&mut self) {
        self.epoch += 1;
        self.is_dirty = true;
    }

    /// Takes in a pod that a definition may be meant for, in a namespace that is known in this version.
    pub(super) fn take_in(&mut self, metadata: &ObjectMeta, namespace_version: Option<u64>) {
        let (Some(key), Some(namespace), Some(name)) =
            (key(metadata), metadata.namespace.as_deref(), metadata.name.as_deref())
        else {
            return;
        };
        if let Some(listed) = &mut self.listed {
            listed.insert(key);
        }
        let version = hash(&(&metadata.labels, &metadata.annotations, self.basis(namespace_version)));
        let is_same = self.known.insert(key, version) == Some(version);
        // Whether one that goes without has come to its end is in its status, which is not watched.
        if (!is_same || self.without.contains_key(&key)) && self.queued.insert(key) {
            let (namespace, name) = (namespace.into(), name.into());
            self.waiting.push_back(Waiting { key, namespace, name, awaited: None });
        }
    }

    /// A pod is gone, going, or nothing that a definition is meant for.
    pub(super) fn forget(&mut self, metadata: &ObjectMeta) {
        if let Some(key) = key(metadata) {
            self.known.remove(&key);
            self.is_fine(key);
        }
    }

    /// Whether there is one that has to be looked at.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The next one that has to be looked at.
    pub(super) fn next(&mut self) -> Option<Waiting> {
        while let Some(waiting) = self.waiting.pop_front() {
            self.queued.remove(&waiting.key);
            self.is_dirty |= self.waiting.is_empty();
            if self.known.contains_key(&waiting.key) {
                return Some(waiting);
            }
        }
        None
    }

    /// It could not be looked at: another time.
    pub(super) fn postpone(&mut self, waiting: Waiting) {
        if self.queued.insert(waiting.key) {
            self.waiting.push_back(waiting);
        }
    }

    /// Says what keeps it from being looked at, if that is new since everything had been looked at.
    pub(super) fn say_unreadable(&mut self, waiting: &Waiting, problem: &str) {
        if self.is_new(problem) {
            let (namespace, pod) = (&*waiting.namespace, &*waiting.name);
            warn!(event = "pod_unreadable", namespace, pod, problem, "and others perhaps");
        }
    }

    fn is_new(&mut self, problem: &str) -> bool {
        self.problems.len() < PROBLEMS && self.problems.insert(problem.to_owned())
    }

    /// One was looked at. Whoever was the last leaves nothing behind.
    pub(super) fn settle(&mut self) {
        if self.waiting.is_empty() {
            self.problems.clear();
            self.waiting.shrink_to_fit();
            self.queued.shrink_to_fit();
        }
    }

    pub(super) fn is_fine(&mut self, key: Key) {
        self.is_dirty |= self.without.remove(&key).is_some();
    }

    /// Remembers one that goes without something, and says so once in the log. What is to be told now, if anything is.
    /// `messages` has the words for each thing that it goes without; they are not kept.
    pub(super) fn goes_without(&mut self, key: Key, pod: Without, messages: &[String]) -> Option<String> {
        let before = self.without.remove(&key);
        let is_untold = before.as_ref().is_some_and(|before| before.is_untold);
        let mut news = Vec::new();
        for (found, message) in pod.found.iter().zip(messages) {
            let is_known = before.as_ref().is_some_and(|before| {
                let mut before = before.found.iter();
                before.any(|old| old.definition == found.definition && old.reason == found.reason)
            });
            if !is_known {
                warn!(
                    event = "pod_missed",
                    namespace = pod.namespace,
                    pod = pod.name,
                    owner = pod.owner.as_ref().map(ToString::to_string),
                    definition = found.definition,
                    reason = found.reason,
                    "{message}"
                );
            }
            if !is_known || is_untold {
                news.push(format!("{}: {}: {message}", found.definition, found.reason));
            }
        }
        self.without.insert(key, Box::new(pod));
        self.is_dirty = true;
        (!news.is_empty()).then(|| format!("runs without sidecar {}", news.join("; ")))
    }

    /// The Event about it was not taken: it is tried again when the pod is looked at again, at the latest with the next list.
    pub(super) fn is_untold(&mut self, key: Key) {
        if let Some(pod) = self.without.get_mut(&key) {
            pod.is_untold = true;
        }
    }

    /// All that go without something.
    pub(super) fn without(&self) -> &HashMap<Key, Box<Without>> {
        &self.without
    }

    /// What each goes without.
    pub(super) fn found(&self) -> impl Iterator<Item = &Found> {
        self.without.values().flat_map(|pod| &pod.found)
    }

    /// One line when the numbers have changed, and everything has been looked at.
    pub(super) fn say(&mut self) {
        let count = |wanted| {
            let pods = self.without.values();
            pods.filter(|pod| pod.found.iter().any(|found| found.state == wanted)).count()
        };
        let counts = (count(State::Missing), count(State::Outdated));
        if self.waiting.is_empty() && self.listed.is_none() && self.said != Some(counts) {
            self.said = Some(counts);
            let (missing, outdated) = counts;
            let looked_at = self.known.len();
            info!(event = "missed_pods", missing, outdated, looked_at);
        }
    }
}

/// What it is remembered by.
pub(super) fn key(metadata: &ObjectMeta) -> Option<Key> {
    metadata.uid.as_deref().map(hash)
}

pub(super) fn hash(value: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(name: &str, label: &str) -> ObjectMeta {
        ObjectMeta {
            uid: Some(format!("uid-of-{name}")),
            namespace: Some("default".to_owned()),
            name: Some(name.to_owned()),
            labels: Some([("a".to_owned(), label.to_owned())].into()),
            ..ObjectMeta::default()
        }
    }

    fn without(reason: &'static str) -> Without {
        let found = Found {
            definition: "logs".into(),
            state: State::Missing,
            reason,
            is_repairable: false,
            fingerprint: 0,
        };
        Without {
            namespace: "default".into(),
            name: "a".into(),
            owner: None,
            created: None,
            mark: None,
            found: [found].into(),
            lacking: None,
            basis: 0,
            is_untold: false,
        }
    }

    fn waiting(pods: &mut Pods) -> Vec<String> {
        std::iter::from_fn(|| pods.next()).map(|waiting| waiting.name.to_string()).collect()
    }

    #[test]
    fn a_pod_is_looked_at_once_unless_it_or_the_definitions_change() {
        let mut pods = Pods::default();
        for _ in 0..2 {
            pods.take_in(&metadata("a", "1"), None);
            pods.take_in(&metadata("b", "1"), None);
        }
        assert_eq!(waiting(&mut pods), ["a", "b"]);
        pods.take_in(&metadata("a", "1"), None);
        assert_eq!(waiting(&mut pods), [""; 0]);
        pods.take_in(&metadata("a", "2"), None);
        assert_eq!(waiting(&mut pods), ["a"]);
        pods.begin_again();
        pods.take_in(&metadata("b", "1"), None);
        assert_eq!(waiting(&mut pods), ["b"]);
        pods.take_in(&metadata("c", "1"), None);
        pods.forget(&metadata("c", "1"));
        assert_eq!(waiting(&mut pods), [""; 0]);
    }

    #[test]
    fn a_pod_that_was_fine_is_looked_at_again_when_its_namespace_has_changed() {
        let mut pods = Pods::default();
        for (version, expected) in [(None, &["a"][..]), (Some(1), &["a"]), (Some(1), &[]), (Some(2), &["a"])]
        {
            pods.take_in(&metadata("a", "1"), version);
            assert_eq!(waiting(&mut pods), expected, "{version:?}");
            pods.is_fine(key(&metadata("a", "1")).unwrap());
        }
    }

    #[test]
    fn what_cannot_be_looked_at_is_asked_for_again_and_its_problem_is_new_once() {
        let mut pods = Pods::default();
        for name in ["a", "b"] {
            pods.take_in(&metadata(name, "1"), None);
        }
        let (a, b) = (pods.next().unwrap(), pods.next().unwrap());
        assert!(pods.is_new("Forbidden") && !pods.is_new("Forbidden"));
        pods.postpone(a);
        pods.postpone(b);
        // One that can be read says nothing about the other.
        assert_eq!(&*pods.next().unwrap().name, "a");
        pods.settle();
        assert!(!pods.is_new("Forbidden"));
        assert_eq!(&*pods.next().unwrap().name, "b");
        pods.settle();
        assert!(pods.is_new("Forbidden"));
    }

    #[test]
    fn what_could_not_be_told_is_told_another_time() {
        let (mut pods, key) = (Pods::default(), 1);
        let goes_without = |pods: &mut Pods| {
            pods.goes_without(key, without("NotInjected"), &["a message".to_owned()]).is_some()
        };
        assert!(goes_without(&mut pods));
        assert!(!goes_without(&mut pods));
        pods.is_untold(key);
        assert!(goes_without(&mut pods));
        assert!(!goes_without(&mut pods));
    }

    #[test]
    fn one_that_goes_without_is_looked_at_with_every_change() {
        let mut pods = Pods::default();
        let pod = metadata("a", "1");
        pods.take_in(&pod, None);
        assert_eq!(waiting(&mut pods), ["a"]);
        pods.goes_without(key(&pod).unwrap(), without("NotInjected"), &[]);
        pods.take_in(&pod, None);
        assert_eq!(waiting(&mut pods), ["a"]);
        pods.is_fine(key(&pod).unwrap());
        pods.take_in(&pod, None);
        assert_eq!(waiting(&mut pods), [""; 0]);
    }

    #[test]
    fn what_a_new_list_does_not_have_is_gone() {
        let mut pods = Pods::default();
        for name in ["a", "b"] {
            pods.take_in(&metadata(name, "1"), None);
            pods.goes_without(key(&metadata(name, "1")).unwrap(), without("NotInjected"), &[]);
        }
        assert_eq!(pods.found().count(), 2);
        pods.begin_list();
        pods.take_in(&metadata("b", "1"), None);
        assert_eq!(pods.found().count(), 2, "until the list is complete");
        pods.end_list();
        assert_eq!(pods.found().count(), 1);
    }
}
