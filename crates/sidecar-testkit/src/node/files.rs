//! The files that containerd, its network plugins and the kubelet are configured with.

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde_json::json;

use super::{Network, PAUSE_IMAGE, RealNode, folder};
use crate::{
    control_plane::ControlPlane,
    programs::{Program, Programs},
};

/// What the programs are started with.
pub(super) struct Layout {
    pub(super) containerd_configuration: PathBuf,
    pub(super) kubelet_arguments: Vec<OsString>,
}

/// containerd's socket.
pub(super) fn socket(state_folder: &Path) -> PathBuf {
    folder(state_folder).join("run").join("containerd.sock")
}

impl Layout {
    pub(super) fn write(
        state_folder: &Path,
        programs: &Programs,
        control_plane: &ControlPlane,
        network: &Network,
    ) -> Result<Self> {
        let node = folder(state_folder);
        for name in ["run", "certs.d", "cni/bin", "cni/conf", "kubelet"] {
            fs::create_dir_all(node.join(name))?;
        }
        for plugin in [Program::CniBridge, Program::CniHostLocal, Program::CniLoopback] {
            symlink(programs.path(plugin)?, node.join("cni/bin").join(plugin.file_name()))?;
        }
        let configuration = network_configuration(&node, network).to_string();
        write(&node.join("cni/conf/10-testbed.conflist"), &configuration)?;
        let containerd_configuration = node.join("containerd.toml");
        write(&containerd_configuration, &containerd(&node, state_folder, programs.path(Program::Runc)?))?;
        let kubelet_configuration = node.join("kubelet.yaml");
        let text = kubelet(&node, state_folder, control_plane, network).to_string();
        write(&kubelet_configuration, &text)?;
        let kubeconfig = node.join("kubeconfig");
        control_plane.keys().kubeconfig("node", &control_plane.url(), &kubeconfig)?;
        let kubelet_arguments = [
            format!("--config={}", kubelet_configuration.display()),
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("--root-dir={}", node.join("kubelet").display()),
            format!("--cert-dir={}", node.join("kubelet/pki").display()),
            format!("--hostname-override={}", RealNode::NAME),
            format!("--node-ip={}", network.gateway()),
        ];
        Ok(Self {
            containerd_configuration,
            kubelet_arguments: kubelet_arguments.into_iter().map(OsString::from).collect(),
        })
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// No gateway and no routes, on purpose: pods reach each other and the node, and nothing of theirs leaves the machine. A
/// gateway would also switch IP forwarding on for the whole machine, and leave it so.
fn network_configuration(node: &Path, network: &Network) -> serde_json::Value {
    let [a, b, c, _] = network.gateway().octets();
    json!({
        "cniVersion": "1.0.0",
        "name": network.bridge(),
        "plugins": [{
            "type": "bridge", "bridge": network.bridge(), "isGateway": false, "hairpinMode": true, "ipMasq": false,
            "ipam": {
                "type": "host-local",
                "dataDir": node.join("cni/state"),
                "ranges": [[{
                    "subnet": format!("{a}.{b}.{c}.0/24"),
                    "rangeStart": format!("{a}.{b}.{c}.20"),
                    "gateway": network.gateway(),
                }]],
            },
        }],
    })
}

fn containerd(node: &Path, state_folder: &Path, runc: &Path) -> String {
    let (node, runc, socket) = (node.display(), runc.display(), socket(state_folder));
    let socket = socket.display();
    // `restrict_oom_score_adj`: sandboxes fail where root lacks CAP_SYS_RESOURCE. Network namespaces lie under the state folder
    // so that nobody else's are touched at the end.
    format!(
        r#"version = 3
root = "{node}/containerd/root"
state = "{node}/containerd/state"
disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp"]
[grpc]
address = "{socket}"
[ttrpc]
address = "{socket}.ttrpc"
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{PAUSE_IMAGE}"
[plugins."io.containerd.cri.v1.images".registry]
config_path = "{node}/certs.d"
[plugins."io.containerd.cri.v1.runtime"]
disable_apparmor = true
disable_hugetlb_controller = true
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["{node}/cni/bin"]
conf_dir = "{node}/cni/conf"
[plugins."io.containerd.cri.v1.runtime".containerd]
default_runtime_name = "runc"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
BinaryName = "{runc}"
SystemdCgroup = false
Root = "{node}/run/runc"
"#
    )
}

fn kubelet(
    node: &Path,
    state_folder: &Path,
    control_plane: &ControlPlane,
    network: &Network,
) -> serde_json::Value {
    let keys = control_plane.keys();
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": network.gateway(),
        "readOnlyPort": 0,
        "healthzPort": 0,
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": keys.path("ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": keys.path("kubelet.crt"),
        "tlsPrivateKeyFile": keys.path("kubelet.key"),
        "containerRuntimeEndpoint": format!("unix://{}", socket(state_folder).display()),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", network.cgroup()),
        "failCgroupV1": false,
        "enforceNodeAllocatable": [],
        "makeIPTablesUtilChains": false,
        "failSwapOn": false,
        "resolvConf": "",
        "podLogsDir": node.join("pods"),
        "volumePluginDir": node.join("volume-plugins"),
        "nodeStatusUpdateFrequency": "2s",
        "evictionHard": {
            "memory.available": "10Mi", "nodefs.available": "1%", "imagefs.available": "1%", "nodefs.inodesFree": "1%",
        },
        "imageGCHighThresholdPercent": 100,
    })
}
