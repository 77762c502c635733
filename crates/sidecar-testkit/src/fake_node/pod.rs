//! The life of one pod on the node, from its address to its deletion.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::Result;
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use serde_json::Value;
use tokio::sync::{Notify, watch};

use super::{
    Shared,
    container::{ContainerHandle, ContainerState, RestartPolicy, Surroundings},
    environment::Mounts,
    is_injector_image,
    status::{self, Containers, Phase, is_sidecar},
    timestamp,
    volumes::Volumes,
};

/// The kubelet takes up to a minute to notice a changed Secret; tests have less patience.
const VOLUME_PERIOD: Duration = Duration::from_secs(1);

/// Plays the kubelet for one pod until it is gone.
pub(super) async fn run(shared: Arc<Shared>, updates: watch::Receiver<Arc<Pod>>) {
    let (index, address) = match shared.take_address() {
        Ok(address) => address,
        Err(error) => {
            eprintln!("fake node: {error:#}");
            return;
        }
    };
    let pod = Arc::clone(&updates.borrow());
    let name = format!("{}_{}_{index}", pod.namespace().unwrap_or_default(), pod.name_any());
    let mut worker = Worker {
        folder: shared.state_folder.join("pods").join(name),
        shared: Arc::clone(&shared),
        updates,
        address,
        started: timestamp(),
        changed: Arc::new(Notify::new()),
        init: BTreeMap::new(),
        main: BTreeMap::new(),
        problem: None,
        transitions: BTreeMap::new(),
        published: None,
    };
    worker.live().await;
    drop(worker);
    shared.release_address(index);
}

struct Worker {
    shared: Arc<Shared>,
    updates: watch::Receiver<Arc<Pod>>,
    address: Ipv4Addr,
    folder: PathBuf,
    started: String,
    changed: Arc<Notify>,
    init: BTreeMap<String, ContainerHandle>,
    main: BTreeMap<String, ContainerHandle>,
    /// Why nothing is started yet.
    problem: Option<String>,
    transitions: BTreeMap<String, (bool, String)>,
    published: Option<Value>,
}

/// How a pod's life ends.
enum Deletion {
    /// Somebody asked for it, and the pod has this long.
    Requested(Duration),
    /// The object is gone already.
    Gone,
}

async fn until_deleted(updates: &mut watch::Receiver<Arc<Pod>>) -> Deletion {
    loop {
        {
            let pod = updates.borrow_and_update();
            if pod.metadata.deletion_timestamp.is_some() {
                let seconds = pod.metadata.deletion_grace_period_seconds.unwrap_or(30);
                return Deletion::Requested(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)));
            }
        }
        if updates.changed().await.is_err() {
            return Deletion::Gone;
        }
    }
}

async fn until_gone(updates: &mut watch::Receiver<Arc<Pod>>) {
    while updates.changed().await.is_ok() {}
}

impl Worker {
    fn pod(&self) -> Arc<Pod> {
        Arc::clone(&self.updates.borrow())
    }

    async fn live(&mut self) {
        let mut updates = self.updates.clone();
        let deletion = tokio::select! {
            biased;
            deletion = until_deleted(&mut updates) => deletion,
            () = self.serve() => Deletion::Gone,
        };
        let Deletion::Requested(grace) = deletion else { return };
        tokio::select! {
            // Deleted by force meanwhile: dropping the containers kills them.
            () = until_gone(&mut updates) => {}
            () = self.end(grace) => {}
        }
    }

    /// Never ends.
    async fn serve(&mut self) {
        let mut volumes = self.prepare_volumes().await;
        let mounts = volumes.as_ref().map(|volumes| self.mounts(volumes));
        let initialized = self.start_init_containers(mounts.as_ref()).await;
        if initialized {
            let pod = self.pod();
            let policy =
                RestartPolicy::parse(pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()));
            for spec in pod.spec.iter().flat_map(|spec| &spec.containers) {
                let handle = match mounts.as_ref().and_then(|mounts| mounts.get(&spec.name)) {
                    Some(mounts) => ContainerHandle::process(spec, policy, self.surroundings(mounts)),
                    None => ContainerHandle::pretended(),
                };
                self.main.insert(spec.name.clone(), handle);
            }
        }
        let mut tick = tokio::time::interval(VOLUME_PERIOD);
        let mut updates = self.updates.clone();
        loop {
            if self.publish().await.is_final() {
                for sidecar in self.init.values() {
                    sidecar.stop(Duration::from_secs(2));
                }
            }
            tokio::select! {
                () = self.changed.notified() => {}
                // Something else may have changed: a readiness gate's condition, for example.
                _ = updates.changed() => {}
                _ = tick.tick() => {
                    if let Some(volumes) = &mut volumes {
                        // A Secret that is gone leaves its files as they were.
                        let _ = volumes.refresh(&self.shared.client, &self.pod()).await;
                    }
                }
            }
        }
    }

    /// The volumes of the containers that run as processes, if there are any. Waits, as a kubelet does, for what they need.
    async fn prepare_volumes(&mut self) -> Option<Volumes> {
        let pod = self.pod();
        let processes: Vec<&Container> = pod
            .spec
            .iter()
            .flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers))
            .filter(|container| is_process(container))
            .collect();
        if processes.is_empty() {
            return None;
        }
        let names: BTreeSet<String> = processes
            .iter()
            .flat_map(|container| container.volume_mounts.iter().flatten())
            .map(|mount| mount.name.clone())
            .collect();
        let mut volumes = Volumes::new(self.folder.join("volumes"), &pod, &names);
        loop {
            let prepared: Result<()> = async {
                std::fs::create_dir_all(&self.folder)?;
                volumes.refresh(&self.shared.client, &pod).await
            }
            .await;
            match prepared {
                Ok(()) => {
                    self.problem = None;
                    return Some(volumes);
                }
                Err(error) => {
                    self.problem = Some(format!("{error:#}"));
                    self.publish().await;
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            }
        }
    }

    /// For each container that runs as a process, where its paths are.
    fn mounts(&self, volumes: &Volumes) -> BTreeMap<String, Mounts> {
        let pod = self.pod();
        let mut all = BTreeMap::new();
        let containers =
            pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers));
        for container in containers.filter(|container| is_process(container)) {
            let mounts = container.volume_mounts.iter().flatten().map(|mount| {
                let path = volumes.host_path(&mount.name);
                let path =
                    mount.sub_path.as_ref().map_or_else(|| path.clone(), |sub_path| path.join(sub_path));
                (mount.mount_path.clone(), path)
            });
            all.insert(container.name.clone(), Mounts::new(mounts.collect()));
        }
        all
    }

    /// False when one of them failed for good.
    async fn start_init_containers(&mut self, mounts: Option<&BTreeMap<String, Mounts>>) -> bool {
        let pod = self.pod();
        let Some(spec) = &pod.spec else { return true };
        let policy = match RestartPolicy::parse(spec.restart_policy.as_deref()) {
            // An init container that succeeded is never run again.
            RestartPolicy::Always => RestartPolicy::OnFailure,
            other => other,
        };
        for container in spec.init_containers.iter().flatten() {
            let sidecar = is_sidecar(container);
            let handle = match mounts.and_then(|mounts| mounts.get(&container.name)) {
                Some(mounts) => {
                    let policy = if sidecar { RestartPolicy::Always } else { policy };
                    ContainerHandle::process(container, policy, self.surroundings(mounts))
                }
                None if sidecar => ContainerHandle::pretended(),
                None => ContainerHandle::completed(),
            };
            let name = container.name.clone();
            self.init.insert(name.clone(), handle);
            while let Some(state) = self.init.get(&name).map(ContainerHandle::state) {
                match state.exit_code() {
                    Some(0) => break,
                    Some(_) => return false,
                    None if sidecar && state.started => break,
                    None => {}
                }
                self.publish().await;
                self.changed.notified().await;
            }
        }
        true
    }

    fn surroundings(&self, mounts: &Mounts) -> Surroundings {
        Surroundings {
            shared: Arc::clone(&self.shared),
            pod: self.pod(),
            address: self.address,
            mounts: mounts.clone(),
            folder: self.folder.clone(),
            changed: Arc::clone(&self.changed),
        }
    }

    /// Writes the status, if it is not what was written last.
    async fn publish(&mut self) -> Phase {
        let pod = self.pod();
        let states = |handles: &BTreeMap<String, ContainerHandle>| {
            handles.iter().map(|(name, handle)| (name.clone(), handle.state())).collect::<BTreeMap<_, _>>()
        };
        let mut containers = Containers { init: states(&self.init), main: states(&self.main) };
        if let Some(problem) = &self.problem {
            let waiting = ContainerState::waiting("ContainerCreating", problem.as_str());
            let names =
                pod.spec.iter().flat_map(|spec| &spec.containers).map(|container| container.name.clone());
            containers.main = names.map(|name| (name, waiting.clone())).collect();
        }
        let phase = if self.problem.is_some() { Phase::Pending } else { status::phase(&pod, &containers) };
        let mut patch = status::patch(&pod, &containers, self.address, &self.started, &mut self.transitions);
        if self.problem.is_some() {
            patch["status"]["phase"] = "Pending".into();
        }
        // The controllers take a node's pods for not ready when they have not heard of it; the kubelet puts that right.
        let is_contradicted = is_ready(&pod).is_some_and(|ready| ready != says_ready(&patch));
        if self.published.as_ref() != Some(&patch) || is_contradicted {
            let api: Api<Pod> =
                Api::namespaced(self.shared.client.clone(), &pod.namespace().unwrap_or_default());
            let written =
                api.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(&patch)).await;
            // The API server may be down on purpose; the next tick tries again.
            self.published = written.is_ok().then_some(patch);
        }
        phase
    }

    /// Ends the processes, the main ones first, then removes the object.
    async fn end(&mut self, grace: Duration) {
        for handles in [&mut self.main, &mut self.init] {
            for handle in handles.values() {
                handle.stop(grace);
            }
            for handle in handles.values_mut() {
                handle.ended().await;
            }
        }
        let pod = self.pod();
        let api: Api<Pod> = Api::namespaced(self.shared.client.clone(), &pod.namespace().unwrap_or_default());
        let parameters = DeleteParams::default()
            .grace_period(0)
            .preconditions(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None });
        loop {
            match api.delete(&pod.name_any(), &parameters).await {
                Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => return,
                // A finalizer may hold the object back for longer than this.
                Ok(_) => return,
                Err(_) => tokio::time::sleep(Duration::from_millis(300)).await,
            }
        }
    }
}

/// The condition that endpoints go by, where there is one.
fn is_ready(pod: &Pod) -> Option<bool> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == "Ready").map(|condition| condition.status == "True")
}

fn says_ready(patch: &Value) -> bool {
    let conditions = patch["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

fn is_process(container: &Container) -> bool {
    container.image.as_deref().is_some_and(is_injector_image)
}
