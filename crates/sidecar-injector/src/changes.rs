//! When to look at files again: soon after something happened in their folders, and every few seconds all the same.
//!
//! The kubelet swaps the files of a ConfigMap or a Secret by renaming the symlink `..data` in their folder, which no
//! event on the files themselves shows; so folders are watched. Events can be lost; so they are not relied upon.

use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, timeout};
use tracing::warn;

/// Tells when to look again, as long as it lives.
pub(crate) struct Changes {
    /// Dropped with this, which ends the watch.
    _watcher: Option<notify::RecommendedWatcher>,
    events: mpsc::Receiver<()>,
    look: Interval,
    settle: Duration,
}

impl Changes {
    /// Watches folders. Files are not written in one instant: after an event it is `settle` of quiet that is waited for.
    /// Without any event, `look` is how often to look.
    pub(crate) fn watch(folders: &[(PathBuf, RecursiveMode)], settle: Duration, look: Duration) -> Self {
        let (changed, events) = mpsc::channel(1);
        let first = Instant::now() + look;
        Changes {
            _watcher: watcher(folders, changed, look),
            events,
            look: tokio::time::interval_at(first, look),
            settle,
        }
    }

    /// Waits until it is time to look again.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            Some(()) = self.events.recv() => {
                // A folder in which something happens all the time must be looked at too.
                let latest = Instant::now() + 4 * self.settle;
                while Instant::now() < latest
                    && let Ok(Some(())) = timeout(self.settle, self.events.recv()).await
                {}
            }
            _ = self.look.tick() => {}
        }
    }
}

/// The folder that a file is in, as something that can be watched.
pub(crate) fn folder_of(file: &Path) -> PathBuf {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}

fn watcher(
    folders: &[(PathBuf, RecursiveMode)],
    changed: mpsc::Sender<()>,
    look: Duration,
) -> Option<notify::RecommendedWatcher> {
    let instead = || format!("looking every {} s instead", look.as_secs());
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading the files is an event as well, and would go on for ever. A full channel has the news already.
        if !event.is_ok_and(|event| event.kind.is_access()) {
            let _ = changed.try_send(());
        }
    });
    let mut watcher = match watcher {
        Ok(watcher) => watcher,
        Err(error) => {
            warn!(event = "watch_failed", %error, "{}", instead());
            return None;
        }
    };
    for (folder, mode) in folders {
        if let Err(error) = watcher.watch(folder, *mode) {
            warn!(event = "watch_failed", folder = %folder.display(), %error, "{}", instead());
        }
    }
    Some(watcher)
}
