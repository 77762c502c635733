//! The cgroup that all containers of a node live in.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

const ROOT: &str = "/sys/fs/cgroup";

/// Why the kubelet could not make cgroups here.
pub(super) fn why_not_usable() -> Option<String> {
    let hierarchies = hierarchies_with_controllers();
    if hierarchies.is_empty() {
        return Some("no cgroups are mounted".to_owned());
    }
    let probe = format!("sidecar-tb-probe-{}", std::process::id());
    for hierarchy in hierarchies {
        let folder = hierarchy.join(&probe);
        if let Err(error) = fs::create_dir(&folder) {
            return Some(format!("cgroups cannot be made in {} ({error})", hierarchy.display()));
        }
        let _ = fs::remove_dir(&folder);
    }
    None
}

/// Makes the node's cgroup, in every hierarchy of version 1 or the one of version 2.
pub(super) fn create(name: &str) -> Result<()> {
    for hierarchy in hierarchies_with_controllers() {
        if hierarchy.join("cgroup.controllers").exists() {
            // Version 2: children have the controllers that their parent hands on.
            for controller in ["cpu", "cpuset", "memory", "pids", "io"] {
                let _ = fs::write(hierarchy.join("cgroup.subtree_control"), format!("+{controller}"));
            }
        }
        let folder = hierarchy.join(name);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        for setting in ["cpuset.cpus", "cpuset.mems"] {
            // Version 1: empty in a new cgroup, and then no process may enter it.
            if let (true, Ok(value)) =
                (folder.join(setting).exists(), fs::read_to_string(hierarchy.join(setting)))
            {
                let _ = fs::write(folder.join(setting), value.trim());
            }
        }
    }
    Ok(())
}

/// Kills every process in a cgroup and below it, and waits until they are gone.
pub(super) fn kill_all(name: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let processes: BTreeSet<i32> = hierarchies()
            .iter()
            .flat_map(|hierarchy| below(&hierarchy.join(name)))
            .filter_map(|folder| fs::read_to_string(folder.join("cgroup.procs")).ok())
            .flat_map(|text| text.lines().filter_map(|line| line.parse().ok()).collect::<Vec<i32>>())
            .collect();
        if processes.is_empty() || Instant::now() > deadline {
            return;
        }
        for pid in processes.into_iter().filter_map(Pid::from_raw) {
            // It may have ended since.
            let _ = kill_process(pid, Signal::KILL);
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Removes a cgroup and what is below it.
pub(super) fn remove(name: &str) {
    for hierarchy in hierarchies() {
        // A killed process leaves its cgroup a moment after its end.
        for _ in 0..50 {
            let mut folders = below(&hierarchy.join(name));
            folders.sort_by_key(|folder| std::cmp::Reverse(folder.components().count()));
            let left = folders.iter().filter(|folder| fs::remove_dir(folder).is_err()).count();
            if left == 0 {
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Of the mounted hierarchies those that limit something: the one of version 2, or all of version 1.
fn hierarchies_with_controllers() -> Vec<PathBuf> {
    let mut folders = hierarchies();
    let version_1 = folders.iter().any(|folder| folder != Path::new(ROOT));
    // A hybrid machine has a version 2 hierarchy besides, without controllers.
    folders.retain(|folder| !version_1 || !folder.join("cgroup.controllers").exists());
    folders
}

/// All mounted hierarchies. The kubelet makes cgroups in each of them.
fn hierarchies() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ');
            let (folder, kind) = (fields.nth(1)?, fields.next()?);
            let ours = (kind == "cgroup" || kind == "cgroup2") && folder.starts_with(ROOT);
            ours.then(|| PathBuf::from(folder))
        })
        .collect()
}

/// A folder and all folders below it.
fn below(folder: &Path) -> Vec<PathBuf> {
    if !folder.is_dir() {
        return Vec::new();
    }
    let mut found = vec![folder.to_path_buf()];
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(below(&entry.path()));
        }
    }
    found
}
