//! A real node: containerd, runc, a bridge and the kubelet. Needs root.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use rustix::process::geteuid;
use serde_json::json;

use crate::{
    control_plane::{self, ControlPlane},
    go_build,
    process::{FOREIGN_VARIABLES, Launch, Process},
    programs::{Program, Programs, cache_folder},
    scheduler,
};

mod cgroups;
mod files;
pub(crate) mod teardown;

/// The image of the container that holds a pod's namespaces.
pub(crate) const PAUSE_IMAGE: &str = "localhost/pause:1";
/// The one path that a kubelet does not let itself be told: where device plugins register.
pub(crate) const DEVICE_PLUGINS: &str = "/var/lib/kubelet/device-plugins/kubelet.sock";
const START_LIMIT: Duration = Duration::from_mins(1);

/// Why there can be no real node on this machine, in one sentence; nothing where there can be one.
pub fn why_not_possible() -> Option<String> {
    if !cfg!(target_os = "linux") {
        return Some("containers need Linux".to_owned());
    }
    if !geteuid().is_root() {
        return Some("containers, cgroups and network devices need root".to_owned());
    }
    if let Some(reason) = cgroups::why_not_usable() {
        return Some(reason);
    }
    if let Some(command) = foreign_kubelet() {
        return Some(format!(
            "a kubelet runs here already ({command}), and ours would take its place at {DEVICE_PLUGINS}"
        ));
    }
    if !ip(&["-V"]).is_ok_and(|output| output.status.success()) {
        return Some("the program `ip` (package iproute2) is not on PATH".to_owned());
    }
    cache_folder().ok().and_then(|cache| go_build::why_no_runc(&cache))
}

/// The program of a kubelet that is none of ours: ours have their cluster's folder on the command line.
fn foreign_kubelet() -> Option<String> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let commands = processes.filter_map(|process| fs::read_to_string(process.path().join("cmdline")).ok());
    commands
        .filter(|command| !command.contains(crate::state::FOLDER_PREFIX))
        .filter_map(|command| command.split('\0').next().map(str::to_owned))
        .find(|program| program.ends_with("/kubelet"))
}

/// A bridge with a range of addresses of its own.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    index: u8,
}

impl Network {
    /// Makes the bridge. Its existence is what keeps others from the same range.
    pub(crate) fn create(state_folder: &Path) -> Result<Self> {
        let addresses = ip(&["-o", "-4", "address"])?;
        let addresses = String::from_utf8_lossy(&addresses.stdout).into_owned();
        for index in 0..100 {
            let network = Self { index };
            if addresses.contains(&format!(" 10.99.{index}.")) {
                continue;
            }
            let bridge = network.bridge();
            if !ip(&["link", "add", &bridge, "type", "bridge"])?.status.success() {
                // Mostly "File exists". If it is something else, no index works and the end of the loop says so.
                continue;
            }
            fs::create_dir_all(folder(state_folder))?;
            fs::write(folder(state_folder).join("network"), index.to_string())?;
            let gateway = format!("{}/24", network.gateway());
            for arguments in
                [&["address", "add", &gateway, "dev", &bridge][..], &["link", "set", &bridge, "up"]]
            {
                let output = ip(arguments)?;
                if !output.status.success() {
                    let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                    bail!("`ip {}`: {reason}", arguments.join(" "));
                }
            }
            return Ok(network);
        }
        bail!("cannot make a network bridge (`ip link add sidecar-tb0 type bridge`)")
    }

    /// The network that a cluster's folder tells of.
    fn of(state_folder: &Path) -> Option<Self> {
        let index = fs::read_to_string(folder(state_folder).join("network")).ok()?.trim().parse().ok()?;
        Some(Self { index })
    }

    /// The node's own address, on the bridge.
    pub(crate) fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 99, self.index, 1)
    }

    pub(crate) fn bridge(&self) -> String {
        format!("sidecar-tb{}", self.index)
    }

    /// All cgroups of the node lie in this one: a Kubernetes that the machine has besides is left alone.
    fn cgroup(&self) -> String {
        format!("sidecar-tb{}", self.index)
    }
}

/// Where all files of the node are.
fn folder(state_folder: &Path) -> PathBuf {
    state_folder.join("node")
}

fn ip(arguments: &[&str]) -> Result<std::process::Output> {
    Command::new("ip").args(arguments).stdin(Stdio::null()).output().context("cannot run `ip`")
}

/// A running node.
#[derive(Debug)]
pub(crate) struct RealNode {
    state_folder: PathBuf,
    ctr: PathBuf,
    containerd: Process,
    kubelet: Process,
}

impl RealNode {
    pub(crate) const NAME: &str = "testbed-node";

    pub(crate) const PROGRAMS: [Program; 8] = [
        Program::Kubelet,
        Program::Containerd,
        Program::ContainerdShim,
        Program::Ctr,
        Program::Runc,
        Program::CniBridge,
        Program::CniHostLocal,
        Program::CniLoopback,
    ];

    /// Starts containerd and the kubelet, imports the images, and waits until the node is ready.
    pub(crate) async fn start(
        state_folder: &Path,
        programs: &Programs,
        control_plane: &ControlPlane,
        network: Network,
        images: &[PathBuf],
    ) -> Result<Self> {
        let layout = files::Layout::write(state_folder, programs, control_plane, &network)?;
        cgroups::create(&network.cgroup())?;
        let mut launch =
            Launch::new("containerd", programs.path(Program::Containerd)?, log(state_folder, "containerd"));
        launch.argument("-c").argument(&layout.containerd_configuration);
        // containerd looks for its shim on PATH.
        let shims = programs.path(Program::ContainerdShim)?.parent().unwrap_or(Path::new("/"));
        let inherited = std::env::var_os("PATH").unwrap_or_default();
        let path =
            std::env::join_paths([shims.to_path_buf()].into_iter().chain(std::env::split_paths(&inherited)))?;
        launch.environment.insert("PATH".to_owned(), path);
        let containerd = Process::start(state_folder, &launch)?;
        let socket = files::socket(state_folder);
        wait_for(&containerd, || socket.exists()).await?;
        let ctr = programs.path(Program::Ctr)?.to_path_buf();
        for image in images {
            import(&ctr, &socket, image).await?;
        }
        let mut launch =
            Launch::new("kubelet", programs.path(Program::Kubelet)?, log(state_folder, "kubelet"));
        launch.arguments = layout.kubelet_arguments;
        let kubelet = Process::start(state_folder, &launch)?;
        let node = Self { state_folder: state_folder.to_path_buf(), ctr, containerd, kubelet };
        node.wait_until_ready(control_plane).await?;
        // Ends with the cluster's runtime.
        tokio::spawn(scheduler::run(control_plane::client(&control_plane.kubeconfig()).await?, Self::NAME));
        Ok(node)
    }

    /// Gives containerd an image.
    pub(crate) async fn import_image(&self, archive: &Path) -> Result<()> {
        import(&self.ctr, &files::socket(&self.state_folder), archive).await
    }

    /// Ends everything on the node and gives the machine back what it had.
    pub(crate) fn stop(&self) {
        // Its own orderly end takes 5 s and does nothing that is needed.
        self.kubelet.kill();
        teardown::end_containers(&self.state_folder);
        self.containerd.kill();
        if let Err(error) = teardown::take_down(&self.state_folder) {
            eprintln!("test bed: {error:#}");
        }
    }

    async fn wait_until_ready(&self, control_plane: &ControlPlane) -> Result<()> {
        let nodes: Api<Node> = Api::all(control_plane::client(&control_plane.kubeconfig()).await?);
        let deadline = Instant::now() + START_LIMIT;
        loop {
            if let Some(status) = self.kubelet.ended() {
                return Err(self.kubelet.early_end(status));
            }
            let node = nodes.get_opt(Self::NAME).await?;
            let conditions = node.and_then(|node| node.status?.conditions).unwrap_or_default();
            if conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True") {
                return Ok(());
            }
            if Instant::now() > deadline {
                let conditions: Vec<_> = conditions.iter().filter_map(|it| it.message.as_deref()).collect();
                bail!(
                    "the node was not ready after {} s: {}\n{}",
                    START_LIMIT.as_secs(),
                    json!(conditions),
                    self.kubelet.log_tail()
                );
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn log(state_folder: &Path, name: &str) -> PathBuf {
    state_folder.join("logs").join(format!("{name}.log"))
}

async fn wait_for(process: &Process, mut condition: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + START_LIMIT;
    while !condition() {
        if let Some(status) = process.ended() {
            return Err(process.early_end(status));
        }
        if Instant::now() > deadline {
            bail!("containerd was not up after {} s:\n{}", START_LIMIT.as_secs(), process.log_tail());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

async fn import(ctr: &Path, socket: &Path, archive: &Path) -> Result<()> {
    let mut command = tokio::process::Command::new(ctr);
    for variable in FOREIGN_VARIABLES {
        command.env_remove(variable);
    }
    let archive_path =
        fs::canonicalize(archive).with_context(|| format!("no image {}", archive.display()))?;
    let output = command
        .arg("-a")
        .arg(socket)
        .args(["-n", "k8s.io", "images", "import"])
        .arg(archive_path)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("cannot run ctr")?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr).into_owned();
        bail!("cannot import {}: {reason}", archive.display());
    }
    Ok(())
}
