//! When all pods are listed anew: now and then, and after definitions or namespaces have changed; one list after the other, with a pause.

use std::time::Duration;

use tokio::time::Instant;

/// Definitions come in bursts, labels of namespaces as well, and each change means to see every pod again.
const SETTLE: Duration = Duration::from_secs(2);

/// The pause between two lists: one of many pods is work for the API server, however often something changes.
const APART: Duration = Duration::from_secs(30);

/// So often everything is listed anew without a reason: that a pod has come to its end, its metadata do not say.
const LIST_AGAIN: Duration = Duration::from_mins(10);

/// When the next list begins; while one is under way, after it.
#[derive(Debug)]
pub(super) struct Listing {
    due: Instant,
    /// No list begins before this.
    rest: Instant,
    /// What changes right after the first list has waited for nothing yet.
    is_first: bool,
}

impl Listing {
    pub(super) fn new(now: Instant) -> Self {
        Listing { due: now + LIST_AGAIN, rest: now, is_first: true }
    }

    /// When the next one begins.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// One begins.
    pub(super) fn begin(&mut self, now: Instant) {
        self.due = now + LIST_AGAIN;
    }

    /// One is complete.
    pub(super) fn end(&mut self, now: Instant) {
        if !std::mem::take(&mut self.is_first) {
            self.rest = now + APART;
        }
        self.due = self.due.max(self.rest);
    }

    /// Definitions have changed, or a namespace. A list that is under way began with the old ones, and another one follows it.
    pub(super) fn change(&mut self, now: Instant) {
        self.due = self.due.min(self.rest.max(now + SETTLE));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A list that begins when it is due, and takes so many seconds. When it ends.
    fn list(listing: &mut Listing, seconds: u64) -> Instant {
        let (begin, end) = (listing.due(), listing.due() + Duration::from_secs(seconds));
        listing.begin(begin);
        listing.end(end);
        end
    }

    #[test]
    fn a_change_after_quiet_acts_soon_and_a_burst_once() {
        let start = Instant::now();
        let mut listing = Listing::new(start);
        listing.end(start);
        for milliseconds in [0, 500, 1000] {
            listing.change(start + Duration::from_millis(milliseconds));
        }
        assert_eq!(listing.due(), start + SETTLE);
        let end = list(&mut listing, 1);
        let quiet = end + APART;
        listing.change(quiet);
        assert_eq!(listing.due(), quiet + SETTLE);
    }

    #[test]
    fn changes_without_end_do_not_bring_lists_without_end() {
        let start = Instant::now();
        let mut listing = Listing::new(start);
        listing.end(start);
        listing.change(start);
        let end = list(&mut listing, 1);
        for seconds in 0..29 {
            listing.change(end + Duration::from_secs(seconds));
        }
        assert_eq!(listing.due(), end + APART);
    }

    #[test]
    fn what_changes_during_a_list_brings_another_one() {
        let start = Instant::now();
        let mut listing = Listing::new(start);
        listing.end(start);
        listing.change(start);
        let begin = listing.due();
        listing.begin(begin);
        listing.change(begin + Duration::from_secs(10));
        let end = begin + Duration::from_secs(100);
        listing.end(end);
        assert_eq!(listing.due(), end + APART);
        // And without a change it is a long time.
        let begin = listing.due();
        list(&mut listing, 1);
        assert_eq!(listing.due(), begin + LIST_AGAIN);
    }
}
