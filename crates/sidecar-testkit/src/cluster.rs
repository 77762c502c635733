//! "A cluster", ours or somebody else's: what tests are written against.

use std::{
    env,
    ffi::OsString,
    fs, io,
    net::Ipv4Addr,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use kube::{Client, Config};
use tokio::runtime::{Builder, Handle, Runtime};

use crate::{
    command::{self, CommandOutput, HelmVersion, Invocation},
    control_plane::{self, ControlPlane, Settings},
    egress::{self, Egress},
    fake_node::{FakeNode, FakeNodeSettings},
    interrupt,
    namespace::{Deletions, TemporaryNamespace},
    node::{Network, RealNode},
    ports::LoopbackBlock,
    programs::{Program, Programs},
    state::StateFolder,
    uplink::Uplink,
};

/// How much of Kubernetes there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// The API server alone: pods are created directly, and stay as they are.
    Api,
    /// With the controllers: a Deployment becomes pods, which stay pending.
    Controllers,
    /// With a fake node that runs the injector as a process: charts run exactly as rendered.
    Charts,
    /// With a real node: containers run. Needs root.
    Node,
}

/// What a cluster of ours is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// The binary that stands for the injector's image on the fake node.
    pub injector: Option<PathBuf>,
    /// Image archives that the real node gets.
    pub images: Vec<PathBuf>,
    /// More flags for the API server.
    pub api_server_flags: Vec<String>,
    /// On SIGINT and SIGTERM stop the cluster and end the process. A caller with a handler of its own says false.
    pub stop_on_signal: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { injector: None, images: Vec::new(), api_server_flags: Vec::new(), stop_on_signal: true }
    }
}

/// A Kubernetes cluster. Dropped or stopped, one of ours leaves nothing behind.
#[derive(Debug)]
pub struct Cluster {
    tier: Tier,
    config: Config,
    kubeconfig: PathBuf,
    state: Arc<StateFolder>,
    programs: Mutex<Programs>,
    deletions: Deletions,
    handle: Handle,
    /// None for an external cluster.
    parts: Option<Arc<Parts>>,
    background: Arc<Background>,
}

/// What runs for a cluster of ours.
#[derive(Debug)]
pub(crate) struct Parts {
    control_plane: ControlPlane,
    egress: Option<Egress>,
    uplink: Option<Uplink>,
    fake_node: Option<FakeNode>,
    node: Option<RealNode>,
    background: Arc<Background>,
}

/// The threads that everything of the cluster runs on, so that no test's runtime has to live as long as the cluster.
#[derive(Debug)]
pub(crate) struct Background(Mutex<Option<Runtime>>);

impl Background {
    fn start() -> Result<(Arc<Self>, Handle)> {
        let runtime =
            Builder::new_multi_thread().worker_threads(2).thread_name("testbed").enable_all().build()?;
        let handle = runtime.handle().clone();
        Ok((Arc::new(Self(Mutex::new(Some(runtime)))), handle))
    }

    /// Drops all tasks, and with them the processes that they own.
    fn stop(&self) {
        let runtime = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(runtime) = runtime {
            // Another thread, because a runtime must not be dropped from within one.
            let _ = thread::spawn(move || runtime.shutdown_timeout(Duration::from_secs(5))).join();
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Parts {
    /// Everything at once: nothing of it is needed again.
    pub(crate) fn stop(&self) {
        self.background.stop();
        self.control_plane.kill_controllers();
        if let Some(node) = &self.node {
            // While the API server is there, and before the folder goes.
            node.stop();
        }
        self.control_plane.kill();
    }
}

impl Cluster {
    /// Starts a throwaway cluster. The first time on a machine this builds programs for some minutes, and says so.
    pub async fn start(tier: Tier, options: Options) -> Result<Self> {
        if let (Tier::Node, Some(reason)) = (tier, crate::node::why_not_possible()) {
            bail!("a real node is not possible here: {reason}");
        }
        let programs = ensure(programs_of(tier)).await?;
        let state = Arc::new(tokio::task::spawn_blocking(StateFolder::create).await??);
        if options.stop_on_signal {
            interrupt::watch_for(state.path());
        }
        let (background, handle) = Background::start()?;
        let building =
            handle.spawn(build(tier, options, programs.clone(), Arc::clone(&state), Arc::clone(&background)));
        let parts = match building.await? {
            Ok(parts) => Arc::new(parts),
            Err(error) => {
                background.stop();
                interrupt::forget(state.path());
                state.take_down();
                return Err(error);
            }
        };
        let kubeconfig = parts.control_plane.kubeconfig();
        let config = control_plane::config(&kubeconfig, true).await?;
        link_program(&link_folder(state.path(), HelmVersion::Four), &programs, Program::Kubectl)?;
        interrupt::register(state.path(), Arc::downgrade(&parts));
        Ok(Self {
            tier,
            config,
            kubeconfig,
            state,
            programs: Mutex::new(programs),
            deletions: Deletions::default(),
            handle,
            parts: Some(parts),
            background,
        })
    }

    /// Uses a cluster that exists. `tier` is what its user expects of it.
    pub async fn external(tier: Tier, kubeconfig: &Path) -> Result<Self> {
        let programs = ensure(vec![Program::Kubectl]).await?;
        let state = Arc::new(tokio::task::spawn_blocking(StateFolder::create).await??);
        let (background, handle) = Background::start()?;
        link_program(&link_folder(state.path(), HelmVersion::Four), &programs, Program::Kubectl)?;
        // A copy without relative paths, so that commands may run in any folder.
        let copy = state.path().join("kubeconfig");
        let flattened = command::run(Invocation {
            program: programs.path(Program::Kubectl)?.to_path_buf(),
            arguments: ["config", "view", "--raw", "--flatten"].map(str::to_owned).into(),
            environment: vec![("KUBECONFIG".to_owned(), kubeconfig.as_os_str().to_owned())],
            input: None,
        });
        fs::write(&copy, flattened.await?.checked()?)?;
        let config = control_plane::config(&copy, false).await?;
        Ok(Self {
            tier,
            config,
            kubeconfig: copy,
            state,
            programs: Mutex::new(programs),
            deletions: Deletions::default(),
            handle,
            parts: None,
            background,
        })
    }

    /// The cluster of `SIDECAR_E2E_KUBECONFIG` or `KUBECONFIG` if one of them is set, else one of ours.
    pub async fn from_environment(tier: Tier, options: Options) -> Result<Self> {
        let given = ["SIDECAR_E2E_KUBECONFIG", "KUBECONFIG"]
            .into_iter()
            .find_map(|name| env::var_os(name).filter(|value| !value.is_empty()));
        match given {
            Some(kubeconfig) => Self::external(tier, Path::new(&kubeconfig)).await,
            None => Self::start(tier, options).await,
        }
    }

    /// What there is of Kubernetes here.
    pub fn tier(&self) -> Tier {
        self.tier
    }

    /// Whether this is somebody else's cluster.
    pub fn is_external(&self) -> bool {
        self.parts.is_none()
    }

    /// A new client with an administrator's rights, for use in the caller's runtime.
    pub fn client(&self) -> Result<Client> {
        Ok(Client::try_from(self.config.clone())?)
    }

    /// A client in the name of somebody else, with their rights and their share of the API server's time.
    pub fn client_as(&self, user: &str) -> Result<Client> {
        let mut config = self.config.clone();
        config.auth_info.impersonate = Some(user.to_owned());
        Ok(Client::try_from(config)?)
    }

    /// An administrator's kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The folder with the cluster's logs and data.
    pub fn folder(&self) -> &Path {
        self.state.path()
    }

    /// The API server's address and port, as programs of this machine reach it. Not for external clusters.
    pub fn api_server(&self) -> Result<(Ipv4Addr, u16)> {
        let control_plane = &self.parts()?.control_plane;
        Ok((control_plane.api_address(), control_plane.api_port()))
    }

    /// Where etcd takes requests, over plain HTTP. Not for external clusters.
    pub fn etcd(&self) -> Result<(Ipv4Addr, u16)> {
        Ok((Ipv4Addr::LOCALHOST, self.parts()?.control_plane.etcd_port()))
    }

    /// Runs kubectl in the root of the repository.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<CommandOutput> {
        self.run("kubectl", HelmVersion::Four, arguments, None).await
    }

    /// Runs kubectl with a text on its standard input, as `kubectl apply -f -` wants it.
    pub async fn kubectl_with_input(&self, arguments: &[&str], input: &str) -> Result<CommandOutput> {
        self.run("kubectl", HelmVersion::Four, arguments, Some(input)).await
    }

    /// Runs Helm in the root of the repository.
    pub async fn helm(&self, version: HelmVersion, arguments: &[&str]) -> Result<CommandOutput> {
        self.run("helm", version, arguments, None).await
    }

    /// Runs a line of bash word for word in the root of the repository, where `kubectl` and `helm` are ours.
    pub async fn shell(&self, version: HelmVersion, line: &str) -> Result<CommandOutput> {
        let folder = if line.contains("helm") {
            self.programs_folder(version).await?
        } else {
            // Always there, with kubectl; no Helm is built for a line that does not use it.
            link_folder(self.state.path(), HelmVersion::Four)
        };
        let environment = self.environment_in(&folder)?;
        let arguments = vec!["-c".to_owned(), line.to_owned()];
        let invocation = Invocation { program: "bash".into(), arguments, environment, input: None };
        let mut output = self.handle.spawn(command::run(invocation)).await??;
        line.clone_into(&mut output.command);
        Ok(output)
    }

    /// The environment that these commands have: `KUBECONFIG`, `PATH`, and folders for what Helm keeps.
    pub async fn environment(&self, version: HelmVersion) -> Result<Vec<(String, OsString)>> {
        self.environment_in(&self.programs_folder(version).await?)
    }

    fn environment_in(&self, programs: &Path) -> Result<Vec<(String, OsString)>> {
        let inherited = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths([programs.to_path_buf()].into_iter().chain(env::split_paths(&inherited)))?;
        let mut environment = vec![
            ("KUBECONFIG".to_owned(), self.kubeconfig.clone().into_os_string()),
            ("PATH".to_owned(), path),
        ];
        for name in ["CACHE", "CONFIG", "DATA"] {
            let folder = self.state.path().join("helm").join(name.to_lowercase());
            environment.push((format!("HELM_{name}_HOME"), folder.into_os_string()));
        }
        Ok(environment)
    }

    /// The folder with `kubectl` and `helm`, to be put first on `PATH`.
    pub async fn programs_folder(&self, version: HelmVersion) -> Result<PathBuf> {
        let folder = link_folder(self.state.path(), version);
        for program in [Program::Kubectl, version.program()] {
            if folder.join(program.file_name()).exists() {
                continue;
            }
            // Built only where it is used.
            let mut programs = self.programs().clone();
            let programs =
                tokio::task::spawn_blocking(move || programs.add(&[program]).map(|()| programs)).await??;
            link_program(&folder, &programs, program)?;
            *self.programs() = programs;
        }
        Ok(folder)
    }

    /// A namespace for one test.
    pub async fn temporary_namespace(&self, prefix: &str) -> Result<TemporaryNamespace> {
        TemporaryNamespace::create(
            self.config.clone(),
            self.handle.clone(),
            Arc::clone(&self.deletions),
            prefix,
            self.tier >= Tier::Controllers,
        )
        .await
    }

    /// The fake node. Tier `Charts` only.
    pub fn fake_node(&self) -> Result<&FakeNode> {
        self.parts()?.fake_node.as_ref().context("this tier has no fake node")
    }

    /// The proxy between the API server and webhooks. Not for tier `Node` or external clusters.
    pub fn egress(&self) -> Result<&Egress> {
        self.parts()?.egress.as_ref().context("this tier has no egress proxy")
    }

    /// The way from processes on the fake node to the API server. Tier `Charts` only.
    pub fn uplink(&self) -> Result<&Uplink> {
        self.parts()?.uplink.as_ref().context("this tier has no processes on a fake node")
    }

    /// Gives the real node more images.
    pub async fn import_image(&self, archive: &Path) -> Result<()> {
        self.parts()?.node.as_ref().context("this tier has no real node")?.import_image(archive).await
    }

    /// Process number of the API server. None while it is stopped.
    pub fn api_server_id(&self) -> Option<u32> {
        self.parts.as_ref()?.control_plane.api_server_id()
    }

    /// Stops the API server; what it stored stays.
    pub async fn stop_api_server(&self) -> Result<()> {
        self.parts()?.control_plane.stop_api_server().await;
        Ok(())
    }

    /// Starts it again and waits until it is ready.
    pub async fn start_api_server(&self) -> Result<()> {
        self.parts()?.control_plane.start_api_server().await
    }

    /// Stops etcd from answering, as a hung disk would, until [`Cluster::resume_etcd`].
    pub fn suspend_etcd(&self) -> Result<()> {
        self.parts()?.control_plane.suspend_etcd();
        Ok(())
    }

    /// Ends a suspension.
    pub fn resume_etcd(&self) -> Result<()> {
        self.parts()?.control_plane.resume_etcd();
        Ok(())
    }

    /// Stops a cluster of ours and removes everything of it. An external cluster loses the temporary namespaces.
    pub async fn stop(self) -> Result<()> {
        if self.is_external() {
            let deletions =
                std::mem::take(&mut *self.deletions.lock().unwrap_or_else(PoisonError::into_inner));
            for deletion in deletions {
                let _ = deletion.await;
            }
        }
        // What follows waits for processes.
        Ok(tokio::task::spawn_blocking(move || drop(self)).await?)
    }

    fn parts(&self) -> Result<&Arc<Parts>> {
        self.parts.as_ref().context("not with an external cluster")
    }

    fn programs(&self) -> MutexGuard<'_, Programs> {
        self.programs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(
        &self,
        program: &str,
        version: HelmVersion,
        arguments: &[&str],
        input: Option<&str>,
    ) -> Result<CommandOutput> {
        let folder = link_folder(self.state.path(), version);
        if program == "helm" {
            self.programs_folder(version).await?;
        }
        let environment = self.environment_in(&folder)?;
        let invocation = Invocation {
            program: folder.join(program),
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            environment,
            input: input.map(str::to_owned),
        };
        self.handle.spawn(command::run(invocation)).await?
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        interrupt::forget(self.state.path());
        self.background.stop();
        if let Some(parts) = &self.parts {
            parts.stop();
        }
        self.state.remove();
    }
}

fn programs_of(tier: Tier) -> Vec<Program> {
    let mut programs = ControlPlane::programs(tier >= Tier::Controllers);
    programs.push(Program::Kubectl);
    if tier >= Tier::Charts {
        programs.push(Program::Helm4);
    }
    if tier == Tier::Node {
        programs.extend(RealNode::PROGRAMS);
    }
    programs
}

async fn ensure(wanted: Vec<Program>) -> Result<Programs> {
    tokio::task::spawn_blocking(move || Programs::ensure(&wanted)).await?
}

async fn build(
    tier: Tier,
    options: Options,
    programs: Programs,
    state: Arc<StateFolder>,
    background: Arc<Background>,
) -> Result<Parts> {
    let network = match tier {
        Tier::Node => Some(Network::create(state.path())?),
        _ => None,
    };
    let (mut egress, mut block) = (None, None);
    if network.is_none() {
        let taken = Arc::new(LoopbackBlock::take()?);
        egress = Some(Egress::start(&egress::socket(state.path()), Arc::clone(&taken))?);
        block = Some(taken);
    }
    let settings = Settings {
        controllers: tier >= Tier::Controllers,
        routes_to_pods: tier >= Tier::Charts,
        egress_socket: egress.as_ref().map(|_| egress::socket(state.path())),
        node: network.as_ref().map(|network| (RealNode::NAME.to_owned(), network.gateway())),
        api_server_flags: options.api_server_flags,
    };
    let control_plane = ControlPlane::start(Arc::clone(&state), &programs, settings).await?;
    let mut uplink = None;
    let fake_node = match (tier, block) {
        (Tier::Charts, Some(block)) => {
            let api_server = (control_plane.api_address(), control_plane.api_port());
            let uplink = uplink.insert(Uplink::start(api_server.into()).await?);
            let settings = FakeNodeSettings {
                client: control_plane::client(&control_plane.kubeconfig()).await?,
                api_server: uplink.address(),
                authority: control_plane.keys().path("ca.crt"),
                state_folder: state.path().to_path_buf(),
                block,
                injector: options.injector,
            };
            Some(FakeNode::start(settings).await?)
        }
        _ => None,
    };
    let node = match network {
        Some(network) => {
            Some(RealNode::start(state.path(), &programs, &control_plane, network, &options.images).await?)
        }
        None => None,
    };
    Ok(Parts { control_plane, egress, uplink, fake_node, node, background })
}

fn link_folder(state: &Path, version: HelmVersion) -> PathBuf {
    state.join(match version {
        HelmVersion::Four => "programs",
        HelmVersion::Three => "programs-helm3",
    })
}

/// Puts a program of ours under its plain name, whatever version the machine has.
fn link_program(folder: &Path, programs: &Programs, program: Program) -> Result<()> {
    fs::create_dir_all(folder)?;
    match symlink(programs.path(program)?, folder.join(program.file_name())) {
        // Two commands at once asked for the same program.
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error.into()),
        _ => Ok(()),
    }
}

/// What the handler of signals holds of a cluster.
pub(crate) type WeakParts = Weak<Parts>;
