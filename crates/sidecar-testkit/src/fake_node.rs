//! A node that is not there: plays the kubelet, and runs the injector's containers as processes.
//!
//! Pods whose image is not the injector's are Running and Ready at once, with nothing behind them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail};
use futures_util::StreamExt;
use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{Node, Pod},
    },
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
    runtime::watcher::{self, Event, watcher},
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::{sync::watch, task::JoinHandle};

use crate::{
    ports::{LoopbackBlock, pod_address},
    scheduler,
};

mod container;
mod environment;
mod pod;
mod probe;
mod status;
mod volumes;

/// The name of the Node object.
pub const FAKE_NODE: &str = "fake-node";
/// What pods see as their node's address. Nothing listens there.
const NODE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
/// The last part of the image names that stand for the injector's binary.
const INJECTOR_IMAGE: &str = "kubernetes-sidecar-injector";

/// A container that runs as a process of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningContainer {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The container's name.
    pub container: String,
    /// The process, a group of its own.
    pub pid: u32,
    /// Standard output and standard error of this run.
    pub log: PathBuf,
    /// Where the process listens: the pod's address as this machine has it.
    pub address: Ipv4Addr,
    /// How often the container was started again.
    pub restarts: u32,
    /// Whether the readiness probe succeeds.
    pub ready: bool,
}

/// The node that is not there.
#[derive(Debug)]
pub struct FakeNode {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

/// What all pods of the node need.
struct Shared {
    client: Client,
    /// Where processes of this machine reach the API server.
    api_server: SocketAddr,
    authority: PathBuf,
    state_folder: PathBuf,
    block: Arc<LoopbackBlock>,
    injector: Option<PathBuf>,
    disk_full: AtomicBool,
    addresses: Mutex<BTreeSet<u16>>,
    /// Pods by UID, so that Services can be turned into processes.
    running: Mutex<BTreeMap<(String, String, String), RunningContainer>>,
}

/// What a fake node is made of.
pub(crate) struct FakeNodeSettings {
    pub(crate) client: Client,
    pub(crate) api_server: SocketAddr,
    pub(crate) authority: PathBuf,
    pub(crate) state_folder: PathBuf,
    pub(crate) block: Arc<LoopbackBlock>,
    pub(crate) injector: Option<PathBuf>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Shared").field("state_folder", &self.state_folder).finish_non_exhaustive()
    }
}

impl FakeNode {
    /// Registers the node and plays its part in the background.
    pub(crate) async fn start(settings: FakeNodeSettings) -> Result<Self> {
        let FakeNodeSettings { client, api_server, authority, state_folder, block, injector } = settings;
        let injector = injector
            .map(|binary| {
                // Processes start in the pod's folder.
                binary.canonicalize().with_context(|| format!("the injector's binary {}", binary.display()))
            })
            .transpose()?;
        let shared = Arc::new(Shared {
            client,
            api_server,
            authority,
            state_folder,
            block,
            injector,
            disk_full: AtomicBool::new(false),
            addresses: Mutex::default(),
            running: Mutex::default(),
        });
        register(&shared.client).await.context("cannot register the fake node")?;
        let heartbeat = tokio::spawn(heartbeat(shared.client.clone()));
        let pods = tokio::spawn(watch_pods(Arc::clone(&shared)));
        let scheduler = tokio::spawn(scheduler::run(shared.client.clone(), FAKE_NODE));
        Ok(Self { shared, tasks: vec![heartbeat, pods, scheduler] })
    }

    /// The containers that run as processes now.
    pub fn running(&self) -> Vec<RunningContainer> {
        self.shared.running().values().cloned().collect()
    }

    /// The processes of a pod.
    pub fn running_in(&self, namespace: &str, pod: &str) -> Vec<RunningContainer> {
        let mut running = self.running();
        running.retain(|container| container.namespace == namespace && container.pod == pod);
        running
    }

    /// Kills the processes of a pod with SIGKILL, as a crash or the machine's memory limit would.
    pub fn kill(&self, namespace: &str, pod: &str) -> Result<()> {
        self.signal(namespace, pod, Signal::KILL)
    }

    /// Stops the processes of a pod from doing anything, as a hung machine would, until [`FakeNode::resume`].
    pub fn suspend(&self, namespace: &str, pod: &str) -> Result<()> {
        self.signal(namespace, pod, Signal::STOP)
    }

    /// Ends a suspension.
    pub fn resume(&self, namespace: &str, pod: &str) -> Result<()> {
        self.signal(namespace, pod, Signal::CONT)
    }

    /// Says whether there is room on the disk for processes that start from now on. On a full one each write to their output
    /// fails, and the first byte that they write to any file ends them.
    pub fn set_disk_full(&self, full: bool) {
        self.shared.disk_full.store(full, Ordering::Relaxed);
    }

    fn signal(&self, namespace: &str, pod: &str, signal: Signal) -> Result<()> {
        let running = self.shared.running();
        let mut signalled = 0;
        for container in running.values().filter(|it| it.namespace == namespace && it.pod == pod) {
            if let Some(pid) = i32::try_from(container.pid).ok().and_then(Pid::from_raw) {
                kill_process(pid, signal)?;
                signalled += 1;
            }
        }
        if signalled == 0 {
            bail!("no process runs for pod {namespace}/{pod}");
        }
        Ok(())
    }
}

impl Drop for FakeNode {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Shared {
    fn running(&self) -> MutexGuard<'_, BTreeMap<(String, String, String), RunningContainer>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_address(&self) -> Result<(u16, Ipv4Addr)> {
        let mut taken = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        // 255.254 marks the block as taken.
        let index = (1..0xfffe).find(|index| !taken.contains(index)).context("no free pod address")?;
        taken.insert(index);
        Ok((index, pod_address(index)))
    }

    fn release_address(&self, index: u16) {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner).remove(&index);
    }
}

/// Whether an image is the injector's: `registry/anything/kubernetes-sidecar-injector:tag@digest`.
fn is_injector_image(image: &str) -> bool {
    let name = image.split('@').next().unwrap_or(image);
    let last = name.rsplit('/').next().unwrap_or(name);
    last.split(':').next() == Some(INJECTOR_IMAGE)
}

async fn register(client: &Client) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let labels = json!({
        "kubernetes.io/hostname": FAKE_NODE,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": architecture(),
    });
    let node = serde_json::from_value(json!({"metadata": {"name": FAKE_NODE, "labels": labels}}))?;
    nodes.create(&PostParams::default(), &node).await?;
    report(client).await
}

/// Says how the node is, as the kubelet does now and then: the controllers write another status when they have not heard of it.
async fn report(client: &Client) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let now = timestamp();
    let condition = |kind: &str, status: &str, reason: &str| {
        json!({"type": kind, "status": status, "reason": reason, "message": "", "lastHeartbeatTime": now,
               "lastTransitionTime": now})
    };
    let resources = json!({"cpu": "64", "memory": "256Gi", "pods": "10000", "ephemeral-storage": "1Ti"});
    let status = json!({"status": {
        "capacity": resources,
        "allocatable": resources,
        "addresses": [{"type": "InternalIP", "address": NODE_ADDRESS}, {"type": "Hostname", "address": FAKE_NODE}],
        "conditions": [
            condition("Ready", "True", "KubeletReady"),
            condition("MemoryPressure", "False", "KubeletHasSufficientMemory"),
            condition("DiskPressure", "False", "KubeletHasNoDiskPressure"),
            condition("PIDPressure", "False", "KubeletHasSufficientPID"),
        ],
    }});
    nodes.patch_status(FAKE_NODE, &PatchParams::default(), &Patch::Strategic(status)).await?;
    Ok(())
}

fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

/// Renews the node's lease; without it the controllers would take the node, and its pods, for lost.
async fn heartbeat(client: Client) {
    let leases: Api<Lease> = Api::namespaced(client.clone(), "kube-node-lease");
    loop {
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": FAKE_NODE},
            "spec": {"holderIdentity": FAKE_NODE, "leaseDurationSeconds": 40,
                     "renewTime": format!("{:.6}", Timestamp::now())},
        });
        let parameters = PatchParams::apply("fake-node").force();
        // The API server may be down on purpose, and its namespace a moment late; the next beat comes soon.
        let renewed = leases.patch(FAKE_NODE, &parameters, &Patch::Apply(lease)).await.is_ok()
            && report(&client).await.is_ok();
        tokio::time::sleep(if renewed { Duration::from_secs(5) } else { Duration::from_millis(500) }).await;
    }
}

/// Starts, feeds and ends one task for each pod.
async fn watch_pods(shared: Arc<Shared>) {
    let pods: Api<Pod> = Api::all(shared.client.clone());
    let mut workers: HashMap<String, watch::Sender<Arc<Pod>>> = HashMap::new();
    let mut listed: HashSet<String> = HashSet::new();
    let ours = watcher::Config::default().fields(&format!("spec.nodeName={FAKE_NODE}"));
    let mut events = pin!(watcher(pods, ours));
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(pod)) => {
                listed.extend(pod.metadata.uid.clone());
                arrived(&shared, &mut workers, pod);
            }
            Ok(Event::InitDone) => workers.retain(|uid, _| listed.contains(uid)),
            Ok(Event::Apply(pod)) => arrived(&shared, &mut workers, pod),
            // The worker sees the channel close.
            Ok(Event::Delete(pod)) => {
                if let Some(uid) = &pod.metadata.uid {
                    workers.remove(uid);
                }
            }
            // The API server may be down on purpose.
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

fn arrived(shared: &Arc<Shared>, workers: &mut HashMap<String, watch::Sender<Arc<Pod>>>, pod: Pod) {
    let Some(uid) = pod.metadata.uid.clone() else { return };
    let pod = Arc::new(pod);
    if let Some(worker) = workers.get(&uid) {
        worker.send_replace(pod);
    } else {
        let (sender, receiver) = watch::channel(pod);
        workers.insert(uid, sender);
        tokio::spawn(pod::run(Arc::clone(shared), receiver));
    }
}

/// Now, as Kubernetes writes times.
fn timestamp() -> String {
    format!("{:.0}", Timestamp::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_injectors_image_is_known_by_the_last_part_of_its_name() {
        for image in [
            "kubernetes-sidecar-injector",
            "kubernetes-sidecar-injector:0.1.0",
            "registry.example:5000/team/kubernetes-sidecar-injector:0.1.0@sha256:00",
        ] {
            assert!(is_injector_image(image), "{image}");
        }
        assert!(!is_injector_image("kubernetes-sidecar-injector/other:1"));
        assert!(!is_injector_image("my-kubernetes-sidecar-injector:1"));
    }

    #[test]
    fn times_have_whole_seconds() {
        assert_eq!(timestamp().len(), "2026-01-01T00:00:00Z".len());
    }
}
