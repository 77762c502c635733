//! Ctrl-C: clusters are stopped before the process ends.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, Once, PoisonError},
    thread,
};

use tokio::signal::unix::{SignalKind, signal};

use crate::{cluster::WeakParts, state};

/// Clusters by folder. One that is still being started has no parts yet.
static CLUSTERS: Mutex<BTreeMap<PathBuf, Option<WeakParts>>> = Mutex::new(BTreeMap::new());

fn clusters() -> MutexGuard<'static, BTreeMap<PathBuf, Option<WeakParts>>> {
    CLUSTERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on a signal takes this cluster down.
pub(crate) fn watch_for(folder: &Path) {
    static HANDLER: Once = Once::new();
    clusters().insert(folder.to_path_buf(), None);
    HANDLER.call_once(|| {
        thread::spawn(handle_signals);
    });
}

/// The cluster is up; does nothing for one that is not watched for.
pub(crate) fn register(folder: &Path, parts: WeakParts) {
    if let Some(entry) = clusters().get_mut(folder) {
        *entry = Some(parts);
    }
}

/// The cluster has been stopped.
pub(crate) fn forget(folder: &Path) {
    clusters().remove(folder);
}

fn handle_signals() {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    let code = runtime.block_on(async {
        let (Ok(mut interrupt), Ok(mut terminate)) =
            (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
        else {
            return None;
        };
        tokio::select! {
            _ = interrupt.recv() => Some(130),
            _ = terminate.recv() => Some(143),
        }
    });
    let Some(code) = code else { return };
    eprintln!("test bed: stopping");
    let all = std::mem::take(&mut *clusters());
    for (folder, parts) in all {
        if let Some(parts) = parts.and_then(|parts| parts.upgrade()) {
            parts.stop();
        }
        state::take_down(&folder);
    }
    std::process::exit(code);
}
