//! Which Events were written, and how often each has happened since.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Note;

/// How long what happens again is only counted.
pub(super) const QUIET: Duration = Duration::from_mins(10);

/// Different Events that are remembered, so that they are not written again: those of reviews, and those of pods that run.
const REMEMBERED: usize = 4096;
const REMEMBERED_MISSING: usize = 1024;

/// The Events that were written, each with how often it happened.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    series: HashMap<Arc<Note>, Series>,
    /// Those whose count is to be written now.
    due: VecDeque<Arc<Note>>,
}

#[derive(Debug)]
struct Series {
    name: String,
    written: Instant,
    /// All in all, and how many of them the API server knows of.
    count: i32,
    told: i32,
}

/// A count that is to be written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) note: Arc<Note>,
    /// The Event's.
    pub(super) name: String,
    pub(super) count: i32,
}

impl Ledger {
    /// Whether it has happened before; then it is counted.
    pub(super) fn count(&mut self, note: &Note) -> bool {
        self.series.get_mut(note).map(|series| series.count = series.count.saturating_add(1)).is_some()
    }

    /// Remembers an Event that was written. Where there are too many, the one of its sort that was written first is forgotten: should
    /// it happen again, it is an Event of its own.
    pub(super) fn remember(&mut self, note: Note, name: String, now: Instant) {
        let is_of_running = note.kind.is_of_running();
        let limit = if is_of_running { REMEMBERED_MISSING } else { REMEMBERED };
        let of_its_sort = self.series.iter().filter(|(note, _)| note.kind.is_of_running() == is_of_running);
        if of_its_sort.clone().count() >= limit
            && let Some((first, _)) = of_its_sort.min_by_key(|(_, series)| series.written)
        {
            self.forget(&Arc::clone(first));
        }
        self.series.insert(Arc::new(note), Series { name, written: now, count: 1, told: 1 });
    }

    /// Looks which counts are to be written, and forgets what has not happened again.
    pub(super) fn sweep(&mut self, now: Instant) {
        let is_due = |series: &Series| now.duration_since(series.written) >= QUIET;
        self.series.retain(|_, series| !is_due(series) || series.count > series.told);
        if self.due.is_empty() {
            let due = self.series.iter().filter(|(_, series)| is_due(series));
            self.due = due.map(|(note, _)| note.clone()).collect();
        }
    }

    pub(super) fn has_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// The next count that is to be written.
    pub(super) fn next_due(&mut self) -> Option<Due> {
        let note = self.due.pop_front()?;
        let series = self.series.get(&note)?;
        Some(Due { name: series.name.clone(), count: series.count, note })
    }

    /// Notes that a count was written, or that it was tried in vain: then its turn comes again.
    pub(super) fn told(&mut self, due: &Due, is_written: bool, now: Instant) {
        if let Some(series) = self.series.get_mut(&due.note) {
            series.written = now;
            if is_written {
                series.told = due.count;
            }
        }
    }

    /// When it happens again it is an Event of its own.
    pub(super) fn forget(&mut self, note: &Note) {
        self.series.remove(note);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::events::Kind;
    use crate::serve::events::tests::note;

    /// All counts that are due, written or not.
    fn tell(ledger: &mut Ledger, is_written: bool, now: Instant) -> Vec<(String, i32)> {
        ledger.sweep(now);
        let mut told = Vec::new();
        while ledger.has_due() {
            let due = ledger.next_due().unwrap();
            ledger.told(&due, is_written, now);
            told.push((due.name, due.count));
        }
        told
    }

    #[test]
    fn what_happens_again_is_counted_and_told_after_a_while() {
        let (mut ledger, start) = (Ledger::default(), Instant::now());
        assert!(!ledger.count(&note(Kind::Skipped, "a")));
        ledger.remember(note(Kind::Skipped, "a"), "web.1".to_owned(), start);
        ledger.remember(note(Kind::Skipped, "b"), "web.2".to_owned(), start);
        assert!(ledger.count(&note(Kind::Skipped, "a")) && ledger.count(&note(Kind::Skipped, "a")));
        assert_eq!(tell(&mut ledger, true, start + QUIET / 2), []);
        assert_eq!(tell(&mut ledger, true, start + QUIET), [("web.1".to_owned(), 3)]);
        // What has not happened again is forgotten, and is an Event of its own when it does.
        assert!(!ledger.count(&note(Kind::Skipped, "b")));
        assert!(ledger.count(&note(Kind::Skipped, "a")));
        assert_eq!(tell(&mut ledger, true, start + QUIET * 2).len(), 1);
        assert_eq!(tell(&mut ledger, true, start + QUIET * 3), []);
        assert!(!ledger.count(&note(Kind::Skipped, "a")));
    }

    /// Regression: a count was taken for written before it was.
    #[test]
    fn a_count_that_could_not_be_written_is_tried_again_in_its_time() {
        let (mut ledger, start) = (Ledger::default(), Instant::now());
        ledger.remember(note(Kind::Skipped, "a"), "web.1".to_owned(), start);
        assert!(ledger.count(&note(Kind::Skipped, "a")));
        assert_eq!(tell(&mut ledger, false, start + QUIET).len(), 1);
        assert_eq!(tell(&mut ledger, false, start + QUIET + QUIET / 2), []);
        assert_eq!(tell(&mut ledger, true, start + QUIET * 2), [("web.1".to_owned(), 2)]);
    }

    /// Regression: pods that run filled the memory for Events, and those of reviews were dropped from then on.
    #[test]
    fn pods_that_run_have_a_share_and_the_first_ones_are_forgotten() {
        let (mut ledger, start) = (Ledger::default(), Instant::now());
        ledger.remember(note(Kind::Skipped, "a"), String::new(), start);
        ledger.remember(note(Kind::Repaired, "a"), String::new(), start);
        for number in 0..2 * REMEMBERED_MISSING {
            let now = start + Duration::from_millis(number.try_into().unwrap());
            ledger.remember(note(Kind::Missing, &number.to_string()), String::new(), now);
        }
        assert_eq!(ledger.series.len(), REMEMBERED_MISSING + 1);
        assert!(ledger.count(&note(Kind::Skipped, "a")));
        let remembers =
            |number: usize| (number, ledger.series.contains_key(&note(Kind::Missing, &number.to_string())));
        let edges = [REMEMBERED_MISSING - 1, REMEMBERED_MISSING].map(remembers);
        assert_eq!(edges, [(REMEMBERED_MISSING - 1, false), (REMEMBERED_MISSING, true)]);
    }
}
