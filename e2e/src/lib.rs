//! What the tests against a real Kubernetes share: the injector installed on a cluster, and pods to try it with.

pub mod load;
pub mod rights;
pub mod trials;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use sidecar_testkit::{Cluster, CommandOutput, HelmVersion, Options, Tier, repository_root};

/// The article's command to install the injector, word for word.
pub const INSTALL_INJECTOR: &str = "helm install kubernetes-sidecar-injector charts/kubernetes-sidecar-injector/ \
    --values charts/kubernetes-sidecar-injector/values.yaml --namespace default";

/// The article's command to install httpbin, word for word.
pub const INSTALL_HTTPBIN: &str =
    "helm install httpbin charts/httpbin/ --values charts/httpbin/values.yaml --namespace default";

/// The chart's default.
const METRICS_PORT: u16 = 9090;

/// What is waited for at most; nothing that works takes this long.
const LIMIT: Duration = Duration::from_secs(90);

/// The binary under test: `SIDECAR_INJECTOR_BINARY`, or what `cargo xtask image` built, or a debug build.
///
/// # Errors
/// None of these is there.
pub fn injector_binary() -> Result<PathBuf> {
    let target = target_folder();
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let candidates = [
        std::env::var_os("SIDECAR_INJECTOR_BINARY").map(PathBuf::from),
        Some(target.join(triple).join("release/sidecar-injector")),
        Some(target.join("debug/sidecar-injector")),
    ];
    let found = candidates.into_iter().flatten().find(|path| path.exists());
    found.context("there is no injector to test: run `cargo xtask test`, or `cargo build` first")
}

/// Where cargo puts what it builds.
#[must_use]
pub fn target_folder() -> PathBuf {
    let set = std::env::var_os("CARGO_TARGET_DIR");
    set.map_or_else(|| repository_root().join("target"), PathBuf::from)
}

/// Says that a part of a test is left out, and why this machine cannot do it. `cargo xtask test`, which gives the file, repeats it
/// at its end: what a test prints that passes, nobody sees.
pub fn leave_out(reason: &str) {
    eprintln!("LEFT OUT: {reason}");
    let Some(path) = std::env::var_os("SIDECAR_LEFT_OUT") else { return };
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
    if let Err(error) = file.and_then(|mut file| writeln!(file, "{reason}")) {
        eprintln!("this cannot be repeated at the end: {error}");
    }
}

/// A cluster with the injector installed as the article installs it.
pub struct Installation {
    /// Where it is installed.
    pub cluster: Cluster,
}

impl Installation {
    /// Starts a cluster (or takes the one of `KUBECONFIG`) and installs the injector's chart as it is. The API server gets the flags
    /// of `SIDECAR_API_SERVER_FLAGS` as well.
    ///
    /// # Errors
    /// The cluster does not start, or the injector does not become available.
    pub async fn start() -> Result<Self> {
        let flags = std::env::var("SIDECAR_API_SERVER_FLAGS").unwrap_or_default();
        let options = Options {
            injector: Some(injector_binary()?),
            api_server_flags: flags.split_whitespace().map(str::to_owned).collect(),
            ..Options::default()
        };
        let cluster = Cluster::from_environment(Tier::Charts, options).await?;
        let installation = Installation { cluster };
        let started = Instant::now();
        installation.shell(INSTALL_INJECTOR).await?;
        installation.wait_until_injecting().await?;
        eprintln!("from `helm install` to an injected pod: {:.1} s", started.elapsed().as_secs_f64());
        Ok(installation)
    }

    /// Runs a line of bash; anything but success is an error.
    ///
    /// # Errors
    /// With all that the line printed.
    pub async fn shell(&self, line: &str) -> Result<String> {
        self.cluster.shell(HelmVersion::Four, line).await?.checked()
    }

    /// Runs kubectl; anything but success is an error.
    ///
    /// # Errors
    /// With all that kubectl printed.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.cluster.kubectl(arguments).await?.checked()
    }

    /// Runs kubectl for an object in JSON.
    ///
    /// # Errors
    /// With all that kubectl printed.
    pub async fn get(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.kubectl(&[&["get", "-o", "json"], arguments].concat()).await?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Creates an object (`kubectl create -f -` and more arguments) and gives what the API server made of it.
    ///
    /// # Errors
    /// The API server refused it.
    pub async fn create(&self, object: &Value, arguments: &[&str]) -> Result<Value> {
        let output = self.try_create(object, arguments).await?;
        Ok(serde_json::from_str(&output.checked()?)?)
    }

    /// The same for what may be refused, and for warnings.
    ///
    /// # Errors
    /// kubectl could not be run.
    pub async fn try_create(&self, object: &Value, arguments: &[&str]) -> Result<CommandOutput> {
        let command = [&["create", "-f", "-", "-o", "json"], arguments].concat();
        self.cluster.kubectl_with_input(&command, &object.to_string()).await
    }

    /// Waits until all replicas are those that the Deployment describes now.
    ///
    /// # Errors
    /// They are not in time.
    pub async fn wait_for_rollout(&self) -> Result<()> {
        let deployment = "deployment/kubernetes-sidecar-injector";
        self.kubectl(&["rollout", "status", deployment, "-n", "default", "--timeout=90s"]).await.map(drop)
    }

    /// Waits for the Deployment, and until the API server uses the webhook.
    ///
    /// # Errors
    /// Neither happens in time.
    pub async fn wait_until_injecting(&self) -> Result<()> {
        self.wait_for_rollout().await?;
        wait_for("an injected pod", async || {
            let pod = self.create(&labelled_pod("probe"), &["-n", "default", "--dry-run=server"]).await?;
            Ok(container_names(&pod) == "app curl")
        })
        .await
    }

    /// The pods that a selector selects, once there are as many as wanted.
    ///
    /// # Errors
    /// There are not in time.
    pub async fn pods(&self, namespace: &str, selector: &str, wanted: usize) -> Result<Vec<Value>> {
        let mut pods = Vec::new();
        wait_for(&format!("{wanted} pods with {selector}"), async || {
            let list = self.get(&["pods", "-n", namespace, "-l", selector]).await?;
            pods = list["items"].as_array().cloned().unwrap_or_default();
            pods.retain(|pod| pod["metadata"]["deletionTimestamp"].is_null());
            Ok(pods.len() == wanted)
        })
        .await?;
        Ok(pods)
    }

    /// What the injectors' processes that run now have logged of this event. Ours only.
    ///
    /// # Errors
    /// The cluster is somebody else's.
    pub fn logged(&self, event: &str) -> Result<Vec<Value>> {
        let mut lines = Vec::new();
        for container in self.cluster.fake_node()?.running() {
            let log = std::fs::read_to_string(&container.log).unwrap_or_default();
            let parsed = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            lines.extend(parsed.filter(|line| line["event"] == event));
        }
        Ok(lines)
    }

    /// The review lines about pods whose name begins so. Ours only.
    ///
    /// # Errors
    /// The cluster is somebody else's.
    pub fn logged_reviews(&self, namespace: &str, name: &str) -> Result<Vec<Value>> {
        let mut reviews = self.logged("review")?;
        reviews.retain(|line| {
            line["namespace"] == namespace && line["pod"].as_str().is_some_and(|pod| pod.starts_with(name))
        });
        Ok(reviews)
    }

    /// The metrics of all injectors' processes that run now, added up by series. Ours only.
    ///
    /// # Errors
    /// The cluster is somebody else's, or one of them does not answer.
    pub fn scrape(&self) -> Result<BTreeMap<String, f64>> {
        let mut all = BTreeMap::new();
        for container in self.cluster.fake_node()?.running() {
            // The pod's own address leads nowhere on this machine.
            let address = container.address;
            let mut stream = TcpStream::connect((address, METRICS_PORT))?;
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            ensure!(text.starts_with("HTTP/1.1 200 "), "{address}: {text}");
            for line in
                text.lines().filter(|line| line.starts_with("sidecar_") || line.starts_with("process_"))
            {
                let (series, value) = line.rsplit_once(' ').context("a sample")?;
                *all.entry(series.to_owned()).or_insert(0.0) += value.parse::<f64>()?;
            }
        }
        Ok(all)
    }
}

/// Tries until it is true.
///
/// # Errors
/// It is not in time, or trying failed.
pub async fn wait_for(what: &str, mut is_true: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    while !is_true().await? {
        ensure!(Instant::now() < deadline, "no {what} after {} s", LIMIT.as_secs());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// A pod that asks for the sidecar.
pub fn labelled_pod(name: &str) -> Value {
    pod(name, &json!({"sidecar.me/inject": "true"}))
}

/// A pod with these labels.
pub fn pod(name: &str, labels: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": labels},
        "spec": {"containers": [{"name": "app", "image": "app:1"}]},
    })
}

/// The names of a pod's containers, with blanks between them.
pub fn container_names(pod: &Value) -> String {
    let containers = pod["spec"]["containers"].as_array().map(Vec::as_slice).unwrap_or_default();
    containers.iter().filter_map(|container| container["name"].as_str()).collect::<Vec<_>>().join(" ")
}

/// Fails unless a pod has exactly these containers.
///
/// # Errors
/// It has others.
pub fn expect_containers(pod: &Value, expected: &str) -> Result<()> {
    let found = container_names(pod);
    if found != expected {
        bail!("expected containers {expected:?}, found {found:?} in {}", pod["metadata"]);
    }
    Ok(())
}
