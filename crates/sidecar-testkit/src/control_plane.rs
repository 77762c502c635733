//! etcd, the API server and, where wanted, the controllers.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use rustix::process::Signal;

use crate::{
    keys::Keys,
    ports::free_port,
    process::{Launch, Process},
    programs::{Program, Programs},
    state::StateFolder,
};

/// The first address of the service range: the Service `kubernetes`.
const SERVICE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
const SERVICE_RANGE: &str = "10.96.0.0/24";
/// A port that was free may be taken when the program starts.
const ATTEMPTS: u32 = 5;
const START_LIMIT: Duration = Duration::from_secs(90);

/// How a control plane is to be.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    pub(crate) controllers: bool,
    /// The API server dials pods instead of cluster IPs.
    pub(crate) routes_to_pods: bool,
    pub(crate) egress_socket: Option<PathBuf>,
    /// Name and address of the real node; the API server then listens on that address for the node's pods.
    pub(crate) node: Option<(String, Ipv4Addr)>,
    pub(crate) api_server_flags: Vec<String>,
}

/// A running control plane.
#[derive(Debug)]
pub(crate) struct ControlPlane {
    state: Arc<StateFolder>,
    settings: Settings,
    keys: Keys,
    api_port: u16,
    api_server: Mutex<Option<Process>>,
    api_launch: Launch,
    etcd: Process,
    etcd_port: u16,
    controllers: Option<Process>,
}

/// Why an attempt to start failed.
enum Failure {
    /// Somebody took a port; the next attempt has other ones.
    PortTaken,
    Other(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

impl ControlPlane {
    pub(crate) fn programs(controllers: bool) -> Vec<Program> {
        let mut programs = vec![Program::Etcd, Program::KubeApiserver];
        if controllers {
            programs.push(Program::KubeControllerManager);
        }
        programs
    }

    pub(crate) async fn start(
        state: Arc<StateFolder>,
        programs: &Programs,
        settings: Settings,
    ) -> Result<Self> {
        let node = settings.node.as_ref().map(|(name, address)| (name.as_str(), *address));
        let mut addresses = vec![SERVICE_ADDRESS];
        addresses.extend(node.map(|(_, address)| address));
        let keys = Keys::create(&state.path().join("keys"), &addresses, node)?;
        for _ in 0..ATTEMPTS {
            match Self::attempt(Arc::clone(&state), programs, settings.clone(), keys.clone()).await {
                Ok(control_plane) => return Ok(control_plane),
                Err(Failure::PortTaken) => {}
                Err(Failure::Other(error)) => return Err(error),
            }
        }
        bail!("{ATTEMPTS} times in a row a port was taken by somebody else between choosing and using it")
    }

    async fn attempt(
        state: Arc<StateFolder>,
        programs: &Programs,
        settings: Settings,
        keys: Keys,
    ) -> Result<Self, Failure> {
        let (etcd_port, peer_port) = (free_port()?, free_port()?);
        // On a real node the API server is its own Service: see `service_range`.
        let api_port = if settings.node.is_some() { 443 } else { free_port()? };
        let etcd = start_etcd(&state, programs.path(Program::Etcd)?, etcd_port, peer_port)?;
        let api_launch = api_server_launch(
            &state,
            programs.path(Program::KubeApiserver)?,
            &settings,
            &keys,
            etcd_port,
            api_port,
        )?;
        let api_server = Process::start(state.path(), &api_launch)?;
        let mut control_plane = Self {
            state,
            settings,
            keys,
            api_port,
            api_server: Mutex::new(Some(api_server)),
            api_launch,
            etcd,
            etcd_port,
            controllers: None,
        };
        let (url, admin) = (control_plane.url(), control_plane.kubeconfig());
        control_plane.keys.kubeconfig("admin", &url, &admin)?;
        control_plane.wait_until_ready().await?;
        if control_plane.settings.controllers {
            let program = programs.path(Program::KubeControllerManager)?;
            control_plane.controllers = Some(control_plane.start_controllers(program).await?);
        }
        Ok(control_plane)
    }

    /// `https://address:port` of the API server.
    pub(crate) fn url(&self) -> String {
        format!("https://{}:{}", self.api_address(), self.api_port)
    }

    pub(crate) fn api_address(&self) -> Ipv4Addr {
        self.settings.node.as_ref().map_or(Ipv4Addr::LOCALHOST, |(_, address)| *address)
    }

    pub(crate) fn api_port(&self) -> u16 {
        self.api_port
    }

    pub(crate) fn etcd_port(&self) -> u16 {
        self.etcd_port
    }

    pub(crate) fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The administrator's.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.state.path().join("kubeconfig")
    }

    pub(crate) fn api_server_id(&self) -> Option<u32> {
        self.api_server().as_ref().map(Process::id)
    }

    pub(crate) async fn stop_api_server(&self) {
        let running = self.api_server().take();
        if let Some(process) = running {
            // It would wait for open watches to end; what it wrote is safe with etcd.
            process.terminate(Duration::from_secs(1)).await;
        }
    }

    /// Starts the API server again, with the same address and data.
    pub(crate) async fn start_api_server(&self) -> Result<()> {
        if self.api_server().is_none() {
            let process = Process::start(self.state.path(), &self.api_launch)?;
            *self.api_server() = Some(process);
        }
        match self.wait_until_ready().await {
            Ok(()) => Ok(()),
            Err(Failure::PortTaken) => bail!("somebody else took the port of the stopped API server"),
            Err(Failure::Other(error)) => Err(error),
        }
    }

    pub(crate) fn suspend_etcd(&self) {
        self.etcd.signal(Signal::STOP);
    }

    pub(crate) fn resume_etcd(&self) {
        self.etcd.signal(Signal::CONT);
    }

    /// Nothing of it is needed again, so nothing is waited for.
    pub(crate) fn kill(&self) {
        if let Some(controllers) = &self.controllers {
            controllers.kill();
        }
        if let Some(api_server) = self.api_server().take() {
            api_server.kill();
        }
        self.etcd.kill();
    }

    pub(crate) fn kill_controllers(&self) {
        if let Some(controllers) = &self.controllers {
            controllers.kill();
        }
    }

    fn api_server(&self) -> MutexGuard<'_, Option<Process>> {
        self.api_server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn wait_until_ready(&self) -> Result<(), Failure> {
        let client = client(&self.kubeconfig()).await?;
        let deadline = Instant::now() + START_LIMIT;
        loop {
            ended_early(&self.etcd)?;
            if let Some(process) = self.api_server().as_ref() {
                ended_early(process)?;
            }
            let request = http_get("/readyz")?;
            if let Ok(Ok(_)) =
                tokio::time::timeout(Duration::from_secs(2), client.request_text(request)).await
            {
                return Ok(());
            }
            if Instant::now() > deadline {
                let tail = self.api_server().as_ref().map(Process::log_tail).unwrap_or_default();
                let seconds = START_LIMIT.as_secs();
                return Err(anyhow::anyhow!("the API server was not ready after {seconds} s:\n{tail}").into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn start_controllers(&self, program: &Path) -> Result<Process> {
        for _ in 0..ATTEMPTS {
            let process = self.launch_controllers(program)?;
            match wait_for_default_service_account(&self.kubeconfig(), &process).await {
                Ok(()) => return Ok(process),
                Err(Failure::PortTaken) => {}
                Err(Failure::Other(error)) => return Err(error),
            }
        }
        bail!("{ATTEMPTS} times in a row the controller manager's port was taken by somebody else")
    }

    fn launch_controllers(&self, program: &Path) -> Result<Process> {
        let kubeconfig = self.state.path().join("controller-manager.kubeconfig");
        self.keys.kubeconfig("controller-manager", &self.url(), &kubeconfig)?;
        let mut launch =
            Launch::new("kube-controller-manager", program, self.state.log("kube-controller-manager"));
        for flag in ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"] {
            launch.argument(format!("--{flag}={}", kubeconfig.display()));
        }
        for (flag, file) in [
            ("service-account-private-key-file", "sa.key"),
            ("root-ca-file", "ca.crt"),
            ("cluster-signing-cert-file", "ca.crt"),
            ("cluster-signing-key-file", "ca.key"),
        ] {
            launch.argument(format!("--{flag}={}", self.keys.path(file).display()));
        }
        launch
            .argument("--bind-address=127.0.0.1")
            .argument(format!("--secure-port={}", free_port()?))
            .argument("--use-service-account-credentials=true")
            .argument("--leader-elect=false")
            // Each of some 40 controllers asks for a token first; at the default of 20 a second that takes 5 s.
            .argument("--kube-api-qps=300")
            .argument("--kube-api-burst=600")
            // How long a node may be silent stays as it is: a test in which etcd hangs must not last longer.
            .argument("--node-monitor-period=2s");
        Process::start(self.state.path(), &launch)
    }
}

fn start_etcd(state: &StateFolder, program: &Path, port: u16, peer_port: u16) -> Result<Process> {
    let mut launch = Launch::new("etcd", program, state.log("etcd"));
    let (client, peer) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer_port}"));
    let data = state.path().join("etcd");
    if data.exists() {
        // Of an attempt whose port was taken.
        std::fs::remove_dir_all(&data)?;
    }
    launch.argument("--name=testbed").argument(format!("--data-dir={}", data.display()));
    launch
        .argument(format!("--listen-client-urls={client}"))
        .argument(format!("--advertise-client-urls={client}"))
        .argument(format!("--listen-peer-urls={peer}"))
        .argument(format!("--initial-advertise-peer-urls={peer}"))
        .argument(format!("--initial-cluster=testbed={peer}"))
        // Nobody needs the data after the machine's death.
        .argument("--unsafe-no-fsync")
        .argument("--log-level=warn");
    Process::start(state.path(), &launch)
}

/// On a real node nothing translates the addresses of Services, and pods reach the node and nothing else. So the first
/// address of the range, that of the Service `kubernetes`, is the node's own, where the API server listens.
fn service_range(settings: &Settings) -> String {
    settings.node.as_ref().map_or(SERVICE_RANGE.to_owned(), |(_, address)| {
        let [a, b, c, _] = address.octets();
        format!("{a}.{b}.{c}.0/28")
    })
}

fn api_server_launch(
    state: &StateFolder,
    program: &Path,
    settings: &Settings,
    keys: &Keys,
    etcd_port: u16,
    api_port: u16,
) -> Result<Launch> {
    let mut launch = Launch::new("kube-apiserver", program, state.log("kube-apiserver"));
    let address = settings.node.as_ref().map_or(Ipv4Addr::LOCALHOST, |(_, address)| *address);
    launch
        .argument(format!("--etcd-servers=http://127.0.0.1:{etcd_port}"))
        .argument(format!("--bind-address={address}"))
        .argument(format!("--advertise-address={address}"))
        .argument(format!("--secure-port={api_port}"))
        .argument(format!("--service-cluster-ip-range={}", service_range(settings)))
        .argument("--service-account-issuer=https://kubernetes.default.svc")
        .argument("--authorization-mode=Node,RBAC")
        .argument("--enable-admission-plugins=NodeRestriction")
        .argument("--allow-privileged=true")
        .argument("--requestheader-allowed-names=front-proxy-client")
        .argument("--requestheader-username-headers=X-Remote-User")
        .argument("--requestheader-group-headers=X-Remote-Group")
        .argument("--requestheader-extra-headers-prefix=X-Remote-Extra-");
    for (flag, file) in [
        ("tls-cert-file", "apiserver.crt"),
        ("tls-private-key-file", "apiserver.key"),
        ("client-ca-file", "ca.crt"),
        ("service-account-key-file", "sa.pub"),
        ("service-account-signing-key-file", "sa.key"),
        ("requestheader-client-ca-file", "front-proxy-ca.crt"),
        ("proxy-client-cert-file", "front-proxy.crt"),
        ("proxy-client-key-file", "front-proxy.key"),
    ] {
        launch.argument(format!("--{flag}={}", keys.path(file).display()));
    }
    if settings.node.is_some() {
        for (flag, file) in [
            ("kubelet-client-certificate", "apiserver-kubelet.crt"),
            ("kubelet-client-key", "apiserver-kubelet.key"),
            ("kubelet-certificate-authority", "ca.crt"),
        ] {
            launch.argument(format!("--{flag}={}", keys.path(file).display()));
        }
        launch.argument("--kubelet-preferred-address-types=InternalIP");
    } else {
        // A loopback address is refused in the endpoints of the Service `kubernetes`; nobody needs them here.
        launch.argument("--endpoint-reconciler-type=none");
    }
    if settings.routes_to_pods {
        launch.argument("--enable-aggregator-routing=true");
    }
    if !settings.controllers {
        // Pods would wait for the service account `default`, which the controller manager makes.
        launch.argument("--disable-admission-plugins=ServiceAccount");
    }
    if let Some(socket) = &settings.egress_socket {
        let path = state.path().join("egress.yaml");
        let configuration = serde_json::json!({
            "apiVersion": "apiserver.k8s.io/v1beta1",
            "kind": "EgressSelectorConfiguration",
            "egressSelections": [{"name": "cluster", "connection": {
                "proxyProtocol": "HTTPConnect", "transport": {"uds": {"udsName": socket}}}}],
        });
        std::fs::write(&path, configuration.to_string())?;
        launch.argument(format!("--egress-selector-config-file={}", path.display()));
    }
    for flag in &settings.api_server_flags {
        launch.argument(flag);
    }
    Ok(launch)
}

fn ended_early(process: &Process) -> Result<(), Failure> {
    match process.ended() {
        None => Ok(()),
        Some(_) if process.log_tail().contains("address already in use") => Err(Failure::PortTaken),
        Some(status) => Err(Failure::Other(process.early_end(status))),
    }
}

async fn wait_for_default_service_account(kubeconfig: &Path, controllers: &Process) -> Result<(), Failure> {
    let client = client(kubeconfig).await?;
    let deadline = Instant::now() + START_LIMIT;
    loop {
        ended_early(controllers)?;
        let request = http_get("/api/v1/namespaces/default/serviceaccounts/default")?;
        if client.request_text(request).await.is_ok() {
            return Ok(());
        }
        if Instant::now() > deadline {
            let tail = controllers.log_tail();
            return Err(anyhow::anyhow!("no service account `default` appeared:\n{tail}").into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn http_get(path: &str) -> Result<http::Request<Vec<u8>>> {
    http::Request::get(path).body(Vec::new()).context("not a path")
}

/// What a kubeconfig says. For a cluster of ours no proxy of the environment is in the way.
pub(crate) async fn config(kubeconfig: &Path, ours: bool) -> Result<Config> {
    let document = Kubeconfig::read_from(kubeconfig)
        .with_context(|| format!("cannot read kubeconfig {}", kubeconfig.display()))?;
    let mut config = Config::from_custom_kubeconfig(document, &KubeConfigOptions::default()).await?;
    if ours {
        config.proxy_url = None;
    }
    Ok(config)
}

/// A client for a cluster of ours.
pub(crate) async fn client(kubeconfig: &Path) -> Result<Client> {
    Ok(Client::try_from(config(kubeconfig, true).await?)?)
}
