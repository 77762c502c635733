//! The servers under measurement: children of this process, ended with it, and what the operating system says of them.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// The name on the certificate.
pub(crate) const HOST: &str = "kubernetes-sidecar-injector.default.svc";

/// A certificate that signs itself, on disk.
pub(crate) struct Pair {
    pub(crate) pem: String,
    certificate: PathBuf,
    key: PathBuf,
}

impl Pair {
    /// In a folder of its own: the injector watches it and would hear of every line in a log beside them.
    pub(crate) fn write(folder: &Path) -> Result<Self> {
        fs::create_dir(folder)?;
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed([HOST.to_owned()])?;
        let pair = Pair {
            pem: cert.pem(),
            certificate: folder.join("tls-cert-file"),
            key: folder.join("tls-key-file"),
        };
        fs::write(&pair.certificate, &pair.pem)?;
        fs::write(&pair.key, signing_key.serialize_pem())?;
        Ok(pair)
    }
}

/// Which program.
#[derive(Debug, Clone)]
pub(crate) enum Program {
    /// The null webhook, at this path.
    Null(PathBuf),
    /// A build of the injector.
    Injector { name: String, path: PathBuf },
}

impl Program {
    pub(crate) fn name(&self) -> &str {
        match self {
            Program::Null(_) => "null webhook",
            Program::Injector { name, .. } => name,
        }
    }
}

/// A running server.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    log: PathBuf,
}

impl Server {
    /// Starts a server on a free port of loopback and waits until it serves.
    pub(crate) fn start(program: &Program, pair: &Pair, folder: &Path) -> Result<Self> {
        let log = folder.join(format!("{}.log", program.name().replace('/', "-")));
        let stderr = File::create(&log)?;
        let (path, mut command) = match program {
            Program::Null(path) => {
                let mut command = Command::new(path);
                command.arg(&pair.certificate).arg(&pair.key).stdout(Stdio::piped());
                (path, command)
            }
            Program::Injector { path, .. } => {
                let mut command = Command::new(path);
                command.args([
                    "serve",
                    "--https-enabled",
                    "--https-port",
                    "0",
                    "--bind-address",
                    "127.0.0.1",
                ]);
                command
                    .arg("--tls-cert-file")
                    .arg(&pair.certificate)
                    .arg("--tls-private-key-file")
                    .arg(&pair.key);
                command.args(["--log-format", "json"]).stdout(Stdio::null());
                (path, command)
            }
        };
        let child = command.stdin(Stdio::null()).stderr(stderr).spawn();
        let child = child.with_context(|| format!("cannot start {}", path.display()))?;
        // From here on the child ends with the value.
        let mut server = Server { child, address: ([127, 0, 0, 1], 0).into(), log };
        let address = match server.child.stdout.take() {
            Some(stdout) => {
                let mut line = String::new();
                BufReader::new(stdout).read_line(&mut line)?;
                line
            }
            None => server.logged_address()?,
        };
        server.address =
            address.trim().parse().with_context(|| format!("{} gave no address", path.display()))?;
        Ok(server)
    }

    fn logged_address(&mut self) -> Result<String> {
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline && self.child.try_wait()?.is_none() {
            for line in fs::read_to_string(&self.log)?.lines() {
                let line: Value = serde_json::from_str(line).unwrap_or_default();
                if let (Some("serving"), Some(address)) = (line["event"].as_str(), line["address"].as_str()) {
                    return Ok(address.to_owned());
                }
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!("it does not serve: {}", fs::read_to_string(&self.log)?)
    }

    /// Processor time of all its threads so far, ended ones too, in the kernel and outside of it.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The program's name, in parentheses, may hold anything; `utime` and `stime` are fields 14 and 15.
        let (_, fields) = stat.rsplit_once(") ").context("no program name in /proc/PID/stat")?;
        let ticks = fields.split(' ').skip(11).take(2).map(str::parse::<u32>).sum::<Result<u32, _>>()?;
        let second = u32::try_from(rustix::param::clock_ticks_per_second())?;
        Ok(Duration::from_secs(1) * ticks / second)
    }

    /// Resident memory in bytes.
    pub(crate) fn resident(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
    }

    /// Bytes that it has logged so far.
    pub(crate) fn logged(&self) -> Result<u64> {
        Ok(fs::metadata(&self.log)?.len())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
