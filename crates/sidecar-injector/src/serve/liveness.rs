//! Whether the process is stuck, so that Kubernetes restarts it.
//!
//! Liveness is answered by the threads that answer reviews. Where all of them hang, so does the probe, and that is answer enough.
//! Where one hangs, in a review that does not come to an end, the others go on answering, and nothing would be seen from outside but
//! a processor that is busy for nothing; so each review says when it began. A panic needs no watching: it ends the process. What
//! waits for others (a watch, an Event) is not here on purpose: a new process would wait for them as well.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The API server waits for 30 s at most, and reviews have a budget that lasts for milliseconds.
const STUCK: Duration = Duration::from_secs(30);

/// At least as many as there are threads: a review does not leave its thread before it is done.
const THREADS: usize = 16;

/// When each review that is being worked on began.
#[derive(Debug)]
pub(crate) struct Liveness {
    started: Instant,
    /// Milliseconds after the start; 0: nothing.
    running: [AtomicU64; THREADS],
}

/// Work that is being done, until it is dropped.
#[derive(Debug)]
pub(crate) struct Work<'l>(Option<&'l AtomicU64>);

impl Drop for Work<'_> {
    fn drop(&mut self) {
        if let Some(slot) = self.0 {
            slot.store(0, Ordering::Relaxed);
        }
    }
}

impl Default for Liveness {
    fn default() -> Self {
        Liveness { started: Instant::now(), running: Default::default() }
    }
}

impl Liveness {
    /// Work begins.
    pub(crate) fn begin(&self) -> Work<'_> {
        self.begin_at(Instant::now())
    }

    /// Why the process should be started anew, if it should.
    pub(crate) fn problem(&self) -> Option<String> {
        self.problem_at(Instant::now())
    }

    fn begin_at(&self, now: Instant) -> Work<'_> {
        let now = self.milliseconds(now).max(1);
        let take =
            |slot: &&AtomicU64| slot.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        Work(self.running.iter().find(take))
    }

    fn problem_at(&self, now: Instant) -> Option<String> {
        let now = self.milliseconds(now);
        let began = self.running.iter().map(|slot| slot.load(Ordering::Relaxed)).filter(|began| *began > 0);
        let longest = Duration::from_millis(now.saturating_sub(began.min()?));
        (longest >= STUCK).then(|| format!("a review has been worked on for {} s", longest.as_secs()))
    }

    fn milliseconds(&self, now: Instant) -> u64 {
        let passed = now.saturating_duration_since(self.started);
        u64::try_from(passed.as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_review_that_does_not_end_is_noticed_among_others_that_do() {
        let liveness = Liveness::default();
        let start = liveness.started;
        let stuck = liveness.begin_at(start);
        for second in 0..40 {
            let now = start + Duration::from_secs(second);
            drop(liveness.begin_at(now));
            assert_eq!(liveness.problem_at(now).is_some(), second > 30, "{second}");
        }
        drop(stuck);
        assert_eq!(liveness.problem_at(start + Duration::from_secs(100)), None);
    }

    #[test]
    fn more_work_than_there_is_room_for_is_not_watched_and_frees_nothing() {
        let liveness = Liveness::default();
        let mut all: Vec<_> = (0..THREADS).map(|_| liveness.begin()).collect();
        drop(liveness.begin());
        assert!(liveness.running.iter().all(|slot| slot.load(Ordering::Relaxed) > 0));
        all.pop();
        assert_eq!(liveness.running.iter().filter(|slot| slot.load(Ordering::Relaxed) == 0).count(), 1);
    }
}
