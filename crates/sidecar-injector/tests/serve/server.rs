//! Starts the binary with a certificate of its own, and stops it when the test ends.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

pub(crate) const HOST: &str = "kubernetes-sidecar-injector.default.svc";

/// A certificate authority of one test.
pub(crate) struct Authority {
    pub(crate) pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Authority { pem: certificate.pem(), issuer: Issuer::new(params, key) }
    }

    /// Certificate and key, PEM.
    pub(crate) fn issue(&self) -> (String, String) {
        self.issue_for(HOST)
    }

    pub(crate) fn issue_for(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

/// A running server.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) authority: Authority,
    pub(crate) log: Arc<Mutex<Vec<String>>>,
    folder: tempfile::TempDir,
}

impl Server {
    pub(crate) fn https() -> Self {
        Self::start(&[])
    }

    /// Starts on a free port and waits until it serves; the settings are environment variables, as in the cluster.
    pub(crate) fn start(settings: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let (certificate, key) = authority.issue();
        swap_pair(folder.path(), "first", &certificate, &key);
        // Plain HTTP chooses the address itself.
        let is_https = settings.iter().all(|(name, _)| *name != "HTTPS_ENABLED");
        let address = is_https.then_some(("BIND_ADDRESS", "127.0.0.1"));
        let mut child = Command::new(env!("CARGO_BIN_EXE_sidecar-injector"))
            .arg("serve")
            .env("HTTPS_ENABLED", "true")
            .env("HTTPS_PORT", "0")
            .env("HTTP_PORT", "0")
            .env("TLS_CERT_FILE", folder.path().join("tls-cert-file"))
            .env("TLS_PRIVATE_KEY_FILE", folder.path().join("tls-private-key-file"))
            .envs(address)
            .envs(settings.iter().copied())
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (lines, stderr) = (log.clone(), child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lines.lock().unwrap().push(line);
            }
        });
        let mut server = Server { child, address: ([127, 0, 0, 1], 0).into(), authority, log, folder };
        let serving = server.wait_for_log("serving");
        server.address = serving["address"].as_str().unwrap().parse().unwrap();
        server
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for the end and gives the exit code.
    pub(crate) fn exit_code(&mut self, limit: Duration) -> Option<i32> {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }

    /// Replaces certificate and key as the kubelet does: a new folder, and a symlink that is renamed to point to it.
    pub(crate) fn swap_certificate(&self, generation: &str, certificate: &str, key: &str) {
        swap_pair(self.folder.path(), generation, certificate, key);
    }

    /// Writes certificate and key in place: the folder that is watched shows nothing of it.
    pub(crate) fn overwrite_certificate(&self, certificate: &str, key: &str) {
        std::fs::write(self.folder.path().join("tls-private-key-file"), key).unwrap();
        std::fs::write(self.folder.path().join("tls-cert-file"), certificate).unwrap();
    }

    /// The first log line of this event, waited for.
    pub(crate) fn wait_for_log(&self, event: &str) -> serde_json::Value {
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline {
            if let Some(line) = self.logged(event).into_iter().next() {
                return line;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("no {event} in the log: {:?}", self.log.lock().unwrap());
    }

    /// All log lines of this event so far.
    pub(crate) fn logged(&self, event: &str) -> Vec<serde_json::Value> {
        let lines = self.log.lock().unwrap();
        let parsed = lines.iter().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        parsed.filter(|line| line["event"] == event).collect()
    }

    /// Resident memory, in MiB.
    pub(crate) fn resident_mebibytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// For what the log says of something that is in effect: it is written by a thread of its own.
pub(crate) async fn wait_until(mut is_true: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_true() {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn swap_pair(folder: &Path, generation: &str, certificate: &str, key: &str) {
    let data: PathBuf = folder.join(format!("..{generation}"));
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("tls-cert-file"), certificate).unwrap();
    std::fs::write(data.join("tls-private-key-file"), key).unwrap();
    std::os::unix::fs::symlink(format!("..{generation}"), folder.join("..data_tmp")).unwrap();
    std::fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    for file in ["tls-cert-file", "tls-private-key-file"] {
        if !folder.join(file).exists() {
            std::os::unix::fs::symlink(format!("..data/{file}"), folder.join(file)).unwrap();
        }
    }
}
