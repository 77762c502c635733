//! What a restart leaves in a pod template, and so in the pods that it makes: when it was, and what for.
//!
//! All that has to be remembered of a restart is where every replica finds it, and where it is seen what came of it.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

/// As `kubectl rollout restart` has one.
const RESTARTED_AT: &str = "sidecar.me/restarted-at";

/// What the pods went without.
const RESTARTED_FOR: &str = "sidecar.me/restarted-for";

/// What happens within this of a restart belongs to it. Nothing is restarted again before it is over.
pub(super) const ONCE: Duration = Duration::from_hours(1);

/// A hash of what pods go without.
pub(super) type Lacking = u32;

/// A restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    at: SystemTime,
    /// Absent: an older version or a person wrote the time alone.
    lacking: Option<Lacking>,
}

impl Mark {
    /// Of a restart that begins at this time, by the API server's clock: by that one pods have their age.
    pub(super) fn new(lacking: Lacking, at: SystemTime) -> Self {
        Mark { at, lacking: Some(lacking) }
    }

    /// The one among the annotations of a pod or a template.
    pub(super) fn of(annotations: &BTreeMap<String, String>) -> Option<Self> {
        let at = humantime::parse_rfc3339(annotations.get(RESTARTED_AT)?).ok()?;
        let lacking = annotations.get(RESTARTED_FOR).and_then(|hash| Lacking::from_str_radix(hash, 16).ok());
        Some(Mark { at, lacking })
    }

    /// As annotations.
    pub(super) fn annotations(&self) -> Value {
        let at = humantime::format_rfc3339_seconds(self.at).to_string();
        let lacking = self.lacking.map(|lacking| format!("{lacking:08x}"));
        json!({RESTARTED_AT: at, RESTARTED_FOR: lacking})
    }

    /// Whether it was for this.
    pub(super) fn is_for(&self, lacking: Lacking) -> bool {
        self.lacking == Some(lacking)
    }

    /// Whether what happened then belongs to it. The clocks of two API servers differ, and a person may have written it, so before it
    /// counts as well.
    pub(super) fn is_around(&self, time: SystemTime) -> bool {
        let difference = time.duration_since(self.at).unwrap_or_else(|before| before.duration());
        difference < ONCE
    }

    /// For how long what happens still belongs to it.
    pub(super) fn rest(&self, now: SystemTime) -> Duration {
        (self.at + ONCE).duration_since(now).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(at: &str, lacking: &str) -> Mark {
        let annotations = json!({RESTARTED_AT: at, RESTARTED_FOR: lacking});
        Mark::of(&serde_json::from_value(annotations).unwrap()).unwrap()
    }

    #[test]
    fn it_is_read_as_it_is_written() {
        let written = mark("2026-11-24T10:00:00Z", "0011aaff");
        let read: BTreeMap<_, _> = serde_json::from_value(written.annotations()).unwrap();
        assert_eq!(Mark::of(&read).as_ref(), Some(&written));
        assert_eq!(Mark::of(&BTreeMap::new()), None);
        let old = BTreeMap::from([(RESTARTED_AT.to_owned(), "2026-11-24T10:00:00Z".to_owned())]);
        assert!(!Mark::of(&old).unwrap().is_for(0x0011_aaff));
        assert!(written.is_for(0x0011_aaff));
    }

    #[test]
    fn an_hour_around_it_belongs_to_it() {
        let mark = mark("2026-11-24T10:00:00Z", "0011aaff");
        let is_around = |time: &str| mark.is_around(humantime::parse_rfc3339(time).unwrap());
        assert!(is_around("2026-11-24T10:00:00Z") && is_around("2026-11-24T10:59:59Z"));
        assert!(is_around("2026-11-24T09:59:00Z"));
        assert!(!is_around("2026-11-24T11:00:00Z") && !is_around("2026-11-24T08:00:00Z"));
    }
}
