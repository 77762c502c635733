//! Takes a node down, from what its folder tells: also one whose owner crashed.

use std::{
    fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use rustix::{
    mount::{UnmountFlags, unmount},
    process::{Pid, Signal, kill_process},
};

use super::{DEVICE_PLUGINS, Network, cgroups, files, folder, ip};

/// Where the shims' sockets are, whatever containerd is told.
const SHIM_SOCKETS: &str = "/run/containerd/s";
/// Where the network plugins note results, whatever containerd is told.
const NETWORK_RESULTS: &str = "/var/lib/cni/results";
/// Where the kubelet links containers' logs, whatever it is told.
const CONTAINER_LOGS: &str = "/var/log/containers";

/// Kills all containers of the node. The kubelet has to be gone: it would start them again.
pub(super) fn end_containers(state_folder: &Path) {
    if let Some(network) = Network::of(state_folder) {
        cgroups::kill_all(&network.cgroup());
    }
}

/// Ends what runs for a node and removes what lies outside of its folder. Nothing to do for a cluster without a node.
pub(crate) fn take_down(state_folder: &Path) -> Result<()> {
    let Some(network) = Network::of(state_folder) else { return Ok(()) };
    end_containers(state_folder);
    end_shims(state_folder);
    remove_shim_sockets(state_folder);
    // The network namespaces are among the mounts, and take the pods' devices along.
    unmount_below(state_folder);
    let _ = ip(&["link", "delete", &network.bridge()]);
    cgroups::remove(&network.cgroup());
    remove_network_results(&network);
    for entry in fs::read_dir(CONTAINER_LOGS).into_iter().flatten().flatten() {
        if fs::read_link(entry.path()).is_ok_and(|target| target.starts_with(state_folder)) {
            let _ = fs::remove_file(entry.path());
        }
    }
    if UnixStream::connect(DEVICE_PLUGINS).is_err() {
        let _ = fs::remove_file(DEVICE_PLUGINS);
    }
    for empty in [SHIM_SOCKETS, "/run/containerd", NETWORK_RESULTS, "/var/lib/cni", CONTAINER_LOGS] {
        // Fails where somebody else has something in it.
        let _ = fs::remove_dir(empty);
    }
    let bridge = Path::new("/sys/class/net").join(network.bridge());
    if bridge.exists() {
        bail!("the bridge {} could not be removed", network.bridge());
    }
    Ok(())
}

/// The shims, which belong to nobody once containerd is gone, are known by our socket on their command line.
fn end_shims(state_folder: &Path) {
    let socket = files::socket(state_folder);
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let shims = shims(&socket);
        if shims.is_empty() || Instant::now() > deadline {
            return;
        }
        for pid in shims {
            let _ = kill_process(pid, Signal::KILL);
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn shims(socket: &Path) -> Vec<Pid> {
    let Some(socket) = socket.to_str() else { return Vec::new() };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let command_line = fs::read(entry.path().join("cmdline")).ok()?;
            let mut words = command_line.split(|&byte| byte == 0);
            let is_shim = words.next()?.ends_with(b"containerd-shim-runc-v2");
            let ours = words.any(|word| word == socket.as_bytes());
            (is_shim && ours).then(|| Pid::from_raw(pid))?
        })
        .collect()
}

/// A killed shim leaves its socket in a folder that all containerds share.
fn remove_shim_sockets(state_folder: &Path) {
    let tasks = folder(state_folder).join("containerd/state/io.containerd.runtime.v2.task/k8s.io");
    for task in fs::read_dir(tasks).into_iter().flatten().flatten() {
        let bootstrap = fs::read(task.path().join("bootstrap.json")).unwrap_or_default();
        let bootstrap: serde_json::Value = serde_json::from_slice(&bootstrap).unwrap_or_default();
        let socket = bootstrap["address"].as_str().and_then(|address| address.strip_prefix("unix://"));
        if let Some(socket) = socket.filter(|socket| socket.starts_with(SHIM_SOCKETS)) {
            let _ = fs::remove_file(socket);
        }
    }
}

/// One file for each device of a pod, named by network, sandbox and device. The loopback device's network has the same name
/// everywhere, so the sandboxes are taken from the names of ours.
fn remove_network_results(network: &Network) {
    let results: Vec<PathBuf> =
        fs::read_dir(NETWORK_RESULTS).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    let name = |path: &PathBuf| path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    let prefix = format!("{}-", network.bridge());
    let sandboxes: Vec<String> = results
        .iter()
        .filter_map(name)
        .filter_map(|name| name.strip_prefix(&prefix)?.split('-').next().map(str::to_owned))
        .collect();
    for path in results {
        let ours =
            name(&path).is_some_and(|name| sandboxes.iter().any(|sandbox| name.contains(sandbox.as_str())));
        if ours {
            let _ = fs::remove_file(path);
        }
    }
}

/// Everything that is mounted below a folder, the latest first.
fn unmount_below(state_folder: &Path) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points: Vec<PathBuf> = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        // The kernel writes a space as \040; our paths have none unless the temporary folder has.
        .map(|point| PathBuf::from(point.replace("\\040", " ")))
        .filter(|point| point.starts_with(state_folder))
        .collect();
    for point in points.iter().rev() {
        if let Err(error) = unmount(point, UnmountFlags::DETACH) {
            eprintln!("test bed: cannot unmount {}: {error}", point.display());
        }
    }
}
