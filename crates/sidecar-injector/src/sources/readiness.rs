//! What has not been loaded completely yet, and keeps the server from being ready.

use tokio::sync::watch;
use tracing::info;

/// The sources whose first complete load is awaited.
#[derive(Debug)]
pub(crate) struct Readiness(watch::Sender<Vec<&'static str>>);

impl Readiness {
    /// Awaits these.
    pub(crate) fn awaiting(sources: Vec<&'static str>) -> Self {
        Readiness(watch::Sender::new(sources))
    }

    /// Notes that a source has been loaded; again and again does not matter.
    pub(crate) fn loaded(&self, source: &'static str) {
        let was_last = self.0.send_if_modified(|awaited| {
            let before = awaited.len();
            awaited.retain(|other| *other != source);
            before > 0 && awaited.is_empty()
        });
        if was_last {
            info!(event = "ready", "everything is loaded");
        }
    }

    /// Why the server is not ready, if it is not.
    pub(crate) fn reason(&self) -> Option<String> {
        let awaited = self.0.borrow();
        (!awaited.is_empty()).then(|| format!("not loaded yet: {}", awaited.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::Readiness;

    #[test]
    fn it_is_ready_when_nothing_is_awaited_any_more() {
        let readiness = Readiness::awaiting(vec!["a", "b"]);
        assert_eq!(readiness.reason().unwrap(), "not loaded yet: a, b");
        readiness.loaded("a");
        readiness.loaded("a");
        assert_eq!(readiness.reason().unwrap(), "not loaded yet: b");
        readiness.loaded("b");
        assert_eq!(readiness.reason(), None);
    }
}
