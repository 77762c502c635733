//! Pods are made anew through their owners, slowly, one namespace after the other; nothing is deleted here.
//!
//! A pod is worth a try, unless it was made by one that was for exactly what it goes without. Of restarts the pod templates
//! remember that, of evictions this replica.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime};

use tokio::sync::watch as channel;
use tokio::time::{Instant, timeout};

use super::Watchdog;
use super::attempt::{Attempt, Candidate, Outcome};
use super::mark::{Lacking, Mark, ONCE};
use super::pods::{Key, Pods, Without};
use super::watch::{NO_ANSWER, PATIENCE};
use crate::clock::Clock;

/// A pod that may not be evicted now is asked about again after this.
const ASK_AGAIN: Duration = Duration::from_mins(1);

/// So is a workload that somebody has to do something about.
const LATER: Duration = Duration::from_mins(10);

/// The next namespace has its turn when this one is done, or nothing more has happened in it for so long.
const TURN: Duration = Duration::from_mins(10);

/// So many pauses pass before the first repair, and at least this time, after the API server has come to trust what is served: until then
/// it may not ask about what is made anew.
const BEGIN: u32 = 3;
const BEGIN_AT_LEAST: Duration = Duration::from_secs(10);

/// What was done lately.
#[derive(Debug, Default)]
pub(super) struct Repairs {
    /// Pods and owners that are left alone for now.
    resting: HashMap<Key, Rest>,
    /// By owner, and what its pods went without.
    evictions: HashMap<(Key, Lacking), Evictions>,
    /// Whose turn it is, and since when.
    namespace: Option<(Box<str>, Instant)>,
    /// By owner, what making its pods anew does not bring them, as far as it was said.
    useless: HashSet<(Key, Lacking)>,
    /// Since when the API server has had somebody to ask.
    reached_since: Option<Instant>,
}

#[derive(Debug)]
struct Rest {
    until: Instant,
    /// Whether pods are being made meanwhile.
    is_at_work: bool,
}

/// The evictions of one owner's pods. All times are the API server's: those of objects are, and are compared with no other.
#[derive(Debug)]
struct Evictions {
    /// When the newest pod was made that was there before the first.
    before: SystemTime,
    last: SystemTime,
}

/// The time between two repairs.
pub(super) fn pause(per_minute: Option<u32>) -> Duration {
    Duration::from_mins(1) / per_minute.unwrap_or(1).max(1)
}

impl Repairs {
    /// One repair, if one is due.
    pub(super) async fn step(
        &mut self,
        watchdog: &Watchdog,
        pods: &Pods,
        changes: &channel::Receiver<u64>,
        clock: &mut Clock,
    ) {
        let now = Instant::now();
        if !self.may_begin(watchdog.is_reached(), watchdog.settings.repairs_per_minute, now) {
            return;
        }
        clock.refresh().await;
        if !clock.is_set() {
            return;
        }
        let time = clock.now();
        // Who has changed a definition or a namespace wants nothing to be done by what was there before.
        let is_current = |pod: &Without| {
            let basis = pods.basis(watchdog.namespaces.version(&pod.namespace));
            pod.basis == basis && !changes.has_changed().unwrap_or(true)
        };
        let (candidates, useless) = self.candidates(pods, is_current, now, time);
        for candidate in useless {
            candidate.say_useless();
            watchdog.metrics.count(Outcome::Useless);
        }
        let Some(namespace) = self.turn(&candidates, now) else { return };
        for candidate in candidates.into_iter().filter(|candidate| candidate.pod.namespace == namespace) {
            // Those before it may have taken their time.
            if self.is_resting(&candidate) || !is_current(candidate.pod) {
                continue;
            }
            let attempt = timeout(PATIENCE, candidate.make_anew(watchdog, time)).await;
            let attempt = attempt.unwrap_or_else(|_| candidate.failed(NO_ANSWER));
            if let Some(outcome) = attempt.outcome() {
                watchdog.metrics.count(outcome);
            }
            if self.take_down(&candidate, &attempt, pods, now, time) {
                return;
            }
        }
    }

    /// Whether there has been somebody for a while whom the API server asks about what is made anew. Before that it would be made in vain.
    fn may_begin(&mut self, is_reached: bool, per_minute: Option<u32>, now: Instant) -> bool {
        if !is_reached {
            self.reached_since = None;
            return false;
        }
        let since = *self.reached_since.get_or_insert(now);
        now >= since + BEGIN_AT_LEAST.max(BEGIN * pause(per_minute))
    }

    /// Those for whom a try is worth it, by namespace and name; and one pod of each owner for which one is not, if that is new.
    pub(super) fn candidates<'p>(
        &mut self,
        pods: &'p Pods,
        is_current: impl Fn(&Without) -> bool,
        now: Instant,
        time: SystemTime,
    ) -> (Vec<Candidate<'p>>, Vec<Candidate<'p>>) {
        self.resting.retain(|_, rest| rest.until > now);
        let mut all: Vec<_> =
            pods.without().iter().filter_map(|(key, pod)| Candidate::new(*key, pod)).collect();
        all.sort_by_key(|candidate| (&candidate.pod.namespace, &candidate.pod.name));
        let owners: HashSet<_> = all.iter().map(|candidate| candidate.owner_key).collect();
        let wanted: HashSet<_> =
            all.iter().map(|candidate| (candidate.owner_key, candidate.lacking)).collect();
        self.useless.retain(|said| wanted.contains(said));
        // What replaces the last one takes its time.
        let is_recent = |evictions: &Evictions| time < evictions.last + ONCE;
        self.evictions.retain(|(owner, _), evictions| owners.contains(owner) || is_recent(evictions));
        // After that: what is being judged anew is not forgotten meanwhile.
        all.retain(|candidate| is_current(candidate.pod));
        let (useless, candidates): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|candidate| self.is_useless(candidate));
        let is_new =
            |candidate: &Candidate<'_>| self.useless.insert((candidate.owner_key, candidate.lacking));
        (candidates, useless.into_iter().filter(is_new).collect())
    }

    /// Whether it was tried for exactly what this pod goes without, and the pod is what came of it.
    fn is_useless(&self, candidate: &Candidate<'_>) -> bool {
        let Candidate { owner_key, lacking, pod, .. } = *candidate;
        let Some(created) = pod.created else { return false };
        let is_of = |mark: &Mark| mark.is_for(lacking) && mark.is_around(created);
        let evictions = self.evictions.get(&(owner_key, lacking));
        pod.mark.as_ref().is_some_and(is_of) || evictions.is_some_and(|evictions| evictions.made(created))
    }

    fn is_resting(&self, candidate: &Candidate<'_>) -> bool {
        self.rests(candidate).next().is_some()
    }

    fn rests<'s>(&'s self, candidate: &Candidate<'_>) -> impl Iterator<Item = &'s Rest> {
        [candidate.key, candidate.owner_key].into_iter().filter_map(|key| self.resting.get(&key))
    }

    /// The namespace in which something is done now.
    fn turn(&mut self, candidates: &[Candidate<'_>], now: Instant) -> Option<Box<str>> {
        if let Some((namespace, since)) = &self.namespace
            && now < *since + TURN
        {
            let is_busy = |candidate: &Candidate<'_>| self.rests(candidate).all(|rest| rest.is_at_work);
            let mut here = candidates.iter().filter(|candidate| candidate.pod.namespace == *namespace);
            if here.any(is_busy) {
                return Some(namespace.clone());
            }
        }
        let open = candidates.iter().filter(|candidate| !self.is_resting(candidate));
        let open: Vec<_> = open.map(|candidate| &candidate.pod.namespace).collect();
        let last = self.namespace.as_ref().map(|(last, _)| last);
        let after = open.iter().find(|next| last.is_none_or(|last| **next > last));
        let next = (*after.or(open.first())?).clone();
        self.namespace = Some((next.clone(), now));
        Some(next)
    }

    /// Remembers how it went. Whether that is enough for this time.
    fn take_down(
        &mut self,
        candidate: &Candidate<'_>,
        attempt: &Attempt,
        pods: &Pods,
        now: Instant,
        time: SystemTime,
    ) -> bool {
        let (key, rest, is_at_work) = match attempt {
            Attempt::Nothing | Attempt::Done(Outcome::Refused | Outcome::Failed | Outcome::Useless) => {
                (candidate.key, ASK_AGAIN, false)
            }
            Attempt::UnderWay(rest) => (candidate.owner_key, *rest, true),
            Attempt::Later => (candidate.owner_key, LATER, false),
            Attempt::Done(Outcome::Restarted) => (candidate.owner_key, ONCE, true),
            Attempt::Done(Outcome::Evicted) => {
                self.remember_eviction(candidate, pods, time);
                (candidate.key, ONCE, true)
            }
        };
        self.resting.insert(key, Rest { until: now + rest, is_at_work });
        if matches!(attempt, Attempt::Done(Outcome::Restarted | Outcome::Evicted)) {
            self.namespace = Some((candidate.pod.namespace.clone(), now));
        }
        attempt.outcome().is_some()
    }

    fn remember_eviction(&mut self, candidate: &Candidate<'_>, pods: &Pods, time: SystemTime) {
        let owner_of = |pod: &Without| pod.owner.as_ref().map(|owner| owner.key);
        let siblings = pods.without().values().filter(|pod| owner_of(pod) == Some(candidate.owner_key));
        let Some(newest) = siblings.filter_map(|pod| pod.created).max() else { return };
        self.evictions
            .entry((candidate.owner_key, candidate.lacking))
            .and_modify(|evictions| evictions.last = time)
            .or_insert(Evictions { before: newest, last: time });
    }
}

impl Evictions {
    /// Whether one of them made a pod of this age.
    fn made(&self, created: SystemTime) -> bool {
        created > self.before && created < self.last + ONCE
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
    use sidecar_engine::State;

    use super::super::pods::{Found, Owner, hash, lacking};
    use super::*;

    /// Whatever the clock of this machine says.
    const NOW: &str = "12:00:00";

    fn time(text: &str) -> SystemTime {
        humantime::parse_rfc3339(&format!("2020-01-01T{text}Z")).unwrap()
    }

    fn found(definition: &str, fingerprint: u32) -> Found {
        Found {
            definition: definition.into(),
            state: State::Missing,
            reason: "NotInjected",
            is_repairable: true,
            fingerprint,
        }
    }

    /// A pod `NAMESPACE/OWNER-NUMBER` that goes without one definition.
    fn pod(name: &str, created: &str, fingerprint: u32) -> Without {
        let (namespace, name) = name.split_once('/').unwrap();
        let owner = name.split('-').next().unwrap();
        let found = [found("logs", fingerprint)];
        Without {
            namespace: namespace.into(),
            name: name.into(),
            owner: Some(Owner::new(&OwnerReference { uid: owner.to_owned(), ..OwnerReference::default() })),
            created: Some(time(created)),
            mark: None,
            lacking: lacking(&found),
            found: found.into(),
            basis: 1,
            is_untold: false,
        }
    }

    fn marked(mut pod: Without, at: &str, lacking: Option<Lacking>) -> Without {
        let lacking = format!("{:08x}", lacking.unwrap());
        let annotations = BTreeMap::from([
            ("sidecar.me/restarted-at".to_owned(), format!("2020-01-01T{at}Z")),
            ("sidecar.me/restarted-for".to_owned(), lacking),
        ]);
        pod.mark = Mark::of(&annotations);
        pod
    }

    fn pods(all: impl IntoIterator<Item = Without>) -> Pods {
        let mut pods = Pods::default();
        for pod in all {
            pods.goes_without(hash(&pod.name), pod, &[]);
        }
        pods
    }

    /// The names of those for whom a try is worth it, and of those about whom it is said that none is.
    fn candidates(repairs: &mut Repairs, pods: &Pods) -> [Vec<String>; 2] {
        let (worth, useless) = repairs.candidates(pods, |_| true, Instant::now(), time(NOW));
        [worth, useless].map(|some| some.iter().map(|candidate| candidate.pod.name.to_string()).collect())
    }

    #[test]
    fn an_owner_of_pods_that_lack_different_things_is_complained_about_once_for_each() {
        let of_a_restart = |name, fingerprint| {
            let pod = pod(name, "10:00:05", fingerprint);
            let lacking = pod.lacking;
            marked(pod, "10:00:00", lacking)
        };
        let pods = pods([of_a_restart("a/web-1", 1), of_a_restart("a/web-2", 2)]);
        let mut repairs = Repairs::default();
        let both = vec!["web-1".to_owned(), "web-2".to_owned()];
        assert_eq!(candidates(&mut repairs, &pods), [vec![], both]);
        assert_eq!(candidates(&mut repairs, &pods), [vec![""; 0], vec![]]);
    }

    #[test]
    fn a_restart_for_the_same_is_not_repeated_and_said_once_for_each_owner() {
        let lacking = pod("a/web-1", "10:00:05", 1).lacking;
        let of_the_restart = |name| marked(pod(name, "10:00:05", 1), "10:00:00", lacking);
        let mut repairs = Repairs::default();
        let all = [
            of_the_restart("a/web-1"),
            of_the_restart("a/web-2"),
            pod("a/web-3", "10:00:05", 1),
            marked(pod("a/db-1", "10:00:05", 2), "10:00:00", lacking),
            marked(pod("a/db-2", "11:00:05", 1), "10:00:00", lacking),
        ];
        let pods = pods(all);
        let worth: Vec<_> = ["db-1", "db-2", "web-3"].map(str::to_owned).into();
        assert_eq!(candidates(&mut repairs, &pods), [worth.clone(), vec!["web-1".to_owned()]]);
        assert_eq!(candidates(&mut repairs, &pods), [worth, vec![]]);
    }

    #[test]
    fn what_is_not_wanted_or_not_made_again_is_no_candidate() {
        let mut reported = pod("a/web-1", "10:00:00", 1);
        reported.found[0].is_repairable = false;
        reported.lacking = lacking(&reported.found);
        let bare = Without { owner: None, ..pod("a/bare-1", "10:00:00", 1) };
        let pods = pods([reported, bare]);
        assert_eq!(candidates(&mut Repairs::default(), &pods), [vec![""; 0], vec![]]);
    }

    #[test]
    fn nothing_is_done_by_a_verdict_that_is_old_and_what_was_said_is_not_said_again() {
        let lacking = pod("a/web-1", "10:00:05", 1).lacking;
        let useless = marked(pod("a/web-1", "10:00:05", 1), "10:00:00", lacking);
        let pods = pods([useless, pod("a/db-1", "10:00:00", 1)]);
        let mut repairs = Repairs::default();
        let mut count = |basis| {
            let (worth, useless) =
                repairs.candidates(&pods, |pod| pod.basis == basis, Instant::now(), time(NOW));
            (worth.len(), useless.len())
        };
        assert_eq!(count(1), (1, 1));
        assert_eq!(count(2), (0, 0));
        assert_eq!(count(1), (1, 0));
    }

    #[test]
    fn what_an_eviction_made_is_not_evicted_for_the_same() {
        let (first, second) = (pod("a/set-1", "10:00:00", 1), pod("a/set-2", "10:00:00", 1));
        let metadata = |name: &str| ObjectMeta { uid: Some(name.to_owned()), ..ObjectMeta::default() };
        let mut pods = pods([first, second]);
        let (mut repairs, mut said) = (Repairs::default(), Vec::new());
        let now = Instant::now();
        for (evicted, made) in [("set-1", "a/set-3"), ("set-2", "a/set-4")] {
            let (worth, useless) = repairs.candidates(&pods, |_| true, now, time(NOW));
            said.extend(useless.iter().map(|candidate| candidate.pod.name.to_string()));
            let candidate = worth.iter().find(|candidate| *candidate.pod.name == *evicted).unwrap();
            assert!(repairs.take_down(candidate, &Attempt::Done(Outcome::Evicted), &pods, now, time(NOW)));
            pods.forget(&metadata(evicted));
            let made = pod(made, "12:00:01", 1);
            pods.goes_without(hash(&made.name), made, &[]);
        }
        assert_eq!(candidates(&mut repairs, &pods), [vec![""; 0], vec![]]);
        // It stands for all of the owner's.
        assert_eq!(said, ["set-3"]);
        let changed = pod("a/set-4", "12:00:01", 2);
        pods.goes_without(hash("set-4"), changed, &[]);
        assert_eq!(candidates(&mut repairs, &pods), [vec!["set-4".to_owned()], vec![]]);
    }

    #[test]
    fn nothing_is_made_anew_before_somebody_has_been_reached_for_a_while() {
        let start = Instant::now();
        for (per_minute, wait) in [(5, 36), (60, 10)] {
            let mut repairs = Repairs::default();
            let mut may_begin = |is_reached, seconds| {
                repairs.may_begin(is_reached, Some(per_minute), start + Duration::from_secs(seconds))
            };
            assert!(!may_begin(true, 0) && !may_begin(true, wait - 1) && may_begin(true, wait));
            assert!(!may_begin(false, 100) && !may_begin(true, 101));
            assert!(!may_begin(true, 100 + wait) && may_begin(true, 101 + wait));
        }
    }

    #[test]
    fn one_namespace_comes_after_the_other() {
        let pods = pods(["a/web-1", "b/shop-1", "b/db-1"].map(|name| pod(name, "10:00:00", 1)));
        let mut repairs = Repairs::default();
        let start = Instant::now();
        let mut turn = |attempt: Option<Attempt>, seconds: u64| {
            let now = start + Duration::from_secs(seconds);
            let (candidates, _) = repairs.candidates(&pods, |_| true, now, time(NOW));
            let namespace = repairs.turn(&candidates, now)?;
            let mut open = candidates.iter().filter(|candidate| !repairs.is_resting(candidate));
            if let Some(attempt) = attempt
                && let Some(candidate) = open.find(|candidate| candidate.pod.namespace == namespace)
            {
                repairs.take_down(candidate, &attempt, &pods, now, time(NOW));
            }
            Some(namespace)
        };
        // Restarted, and not yet done; who is refused holds nobody up.
        let restarted = || Some(Attempt::Done(Outcome::Restarted));
        assert_eq!(turn(restarted(), 0).as_deref(), Some("a"));
        assert_eq!(turn(None, 599).as_deref(), Some("a"));
        assert_eq!(turn(Some(Attempt::Later), 601).as_deref(), Some("b"));
        assert_eq!(turn(Some(Attempt::Done(Outcome::Refused)), 602).as_deref(), Some("b"));
        assert_eq!(turn(None, 603), None);
        assert_eq!(turn(restarted(), 663).as_deref(), Some("b"));
    }
}
