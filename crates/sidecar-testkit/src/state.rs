//! The folder of one running cluster, and how a later run takes down what a crashed one left behind.

use std::{
    env,
    fs::{self, DirBuilder, File, TryLockError},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, getuid, kill_process_group};

use crate::node::teardown;

/// How the folders of all clusters of this kit begin; the rest is the user.
pub(crate) const FOLDER_PREFIX: &str = "sidecar-testbed-";

/// Unix socket paths end at 108 bytes; ours are at most this much longer than the folder of all clusters.
const LONGEST_SOCKET: usize = 60;

/// A folder that this process holds locked for as long as its cluster runs.
#[derive(Debug)]
pub(crate) struct StateFolder {
    path: PathBuf,
    /// Released by the kernel however we end; who can lock it knows that the owner is gone.
    _lock: File,
}

impl StateFolder {
    /// Takes down what earlier runs left, then makes a folder for a new cluster.
    pub(crate) fn create() -> Result<Self> {
        static SEQUENCE: AtomicU32 = AtomicU32::new(0);
        let base = base_folder()?;
        let common = File::create(base.join("lock"))?;
        common.lock()?;
        take_down_leftovers(&base);
        let number = SEQUENCE.fetch_add(1, Ordering::Relaxed);
        let path = base.join(format!("{}-{number}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
        let lock = File::create(path.join("lock"))?;
        lock.lock()?;
        for folder in ["pids", "logs"] {
            fs::create_dir(path.join(folder))?;
        }
        Ok(Self { path, _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.path.join("logs").join(format!("{name}.log"))
    }

    /// Kills whatever is noted here and removes the folder: the end of a start that failed.
    pub(crate) fn take_down(&self) {
        take_down(&self.path);
    }

    /// Removes the folder, unless `SIDECAR_TESTBED_KEEP` asks to keep the logs (until the next run).
    pub(crate) fn remove(&self) {
        if env::var_os("SIDECAR_TESTBED_KEEP").is_some() {
            eprintln!("test bed: logs are in {}", self.path.join("logs").display());
        } else if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("test bed: cannot remove {}: {error}", self.path.display());
        }
    }
}

/// Notes that a process belongs to the cluster of this folder.
pub(crate) fn record_process(folder: &Path, pid: u32) -> Result<()> {
    let started = start_time(pid).unwrap_or_default();
    fs::write(folder.join("pids").join(pid.to_string()), started.to_string())?;
    Ok(())
}

/// Notes that a process has ended.
pub(crate) fn forget_process(folder: &Path, pid: u32) {
    // A file that stays behind does no harm: its start time fits no other process.
    let _ = fs::remove_file(folder.join("pids").join(pid.to_string()));
}

fn base_folder() -> Result<PathBuf> {
    let user = getuid().as_raw();
    let name = format!("{FOLDER_PREFIX}{user}");
    let chosen = env::temp_dir().join(&name);
    let base =
        if chosen.as_os_str().len() + LONGEST_SOCKET > 108 { Path::new("/tmp").join(&name) } else { chosen };
    match DirBuilder::new().mode(0o700).create(&base) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(error).with_context(|| format!("cannot create {}", base.display()));
        }
        _ => {}
    }
    let metadata = fs::symlink_metadata(&base)?;
    if !metadata.is_dir() || metadata.uid() != user {
        bail!("{} is not a folder of this user", base.display());
    }
    Ok(base)
}

/// Called under the lock of the folder of all clusters. Complains, but does not keep the new cluster from starting.
fn take_down_leftovers(base: &Path) {
    let entries = fs::read_dir(base).into_iter().flatten().flatten();
    for folder in entries.map(|entry| entry.path()).filter(|path| path.is_dir()) {
        let abandoned = match File::open(folder.join("lock")) {
            Ok(lock) => match lock.try_lock() {
                Ok(()) => true,
                Err(TryLockError::WouldBlock | TryLockError::Error(_)) => false,
            },
            // Its owner ended between making the folder and the lock.
            Err(_) => true,
        };
        if !abandoned {
            continue;
        }
        eprintln!("test bed: taking down what an earlier run left in {}", folder.display());
        take_down(&folder);
    }
}

/// Ends everything that a cluster's folder tells of, and removes the folder.
pub(crate) fn take_down(folder: &Path) {
    kill_recorded(folder);
    if let Err(error) = teardown::take_down(folder).and_then(|()| Ok(fs::remove_dir_all(folder)?)) {
        eprintln!("test bed: {}: {error:#}", folder.display());
    }
}

fn kill_recorded(folder: &Path) {
    let recorded: Vec<(u32, u64)> = fs::read_dir(folder.join("pids"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            Some((pid, fs::read_to_string(entry.path()).ok()?.trim().parse().ok()?))
        })
        .collect();
    let ours = |&(pid, started): &(u32, u64)| start_time(pid) == Some(started);
    for (pid, _) in recorded.iter().copied().filter(|process| ours(process)) {
        if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
            // It may have ended by itself since.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
    let deadline = Instant::now() + Duration::from_secs(5);
    while recorded.iter().any(ours) && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(20));
    }
}

/// When a process started, in clock ticks since boot: together with the number it names one process for good.
/// None for a process that is gone, or dead and not yet collected.
fn start_time(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold spaces and parentheses itself.
    let mut fields = text.get(text.rfind(')')? + 1..)?.split_whitespace();
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::CommandExt, process::Command};

    use super::*;

    #[test]
    fn a_leftover_process_is_killed_and_a_stranger_with_its_number_is_not() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("pids")).unwrap();
        let sleeper = || Command::new("sleep").arg("60").process_group(0).spawn().unwrap();
        let (mut ours, mut stranger) = (sleeper(), sleeper());
        record_process(folder.path(), ours.id()).unwrap();
        fs::write(folder.path().join("pids").join(stranger.id().to_string()), "1").unwrap();
        kill_recorded(folder.path());
        assert!(!ours.wait().unwrap().success());
        assert!(stranger.try_wait().unwrap().is_none());
        stranger.kill().unwrap();
        stranger.wait().unwrap();
    }
}
