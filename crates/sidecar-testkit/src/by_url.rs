//! An injector beside the one under test, called as any other webhook that has an address and no Service.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::{Launch, Process};

/// What starting is given; a debug build takes a fraction of a second.
const LIMIT: Duration = Duration::from_secs(30);

/// A server on a free port of loopback, with a certificate that signs itself. Dropped, it is killed.
#[derive(Debug)]
pub struct WebhookByUrl {
    process: Process,
    log: PathBuf,
    address: String,
    certificate: String,
    _folder: TempDir,
}

impl WebhookByUrl {
    /// Starts an injector's binary with more arguments of `serve`, and waits until it serves.
    ///
    /// # Errors
    /// It cannot be started, ends, or does not serve in time.
    pub async fn start(injector: &Path, arguments: &[&str]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        // The certificates are alone: their folder is watched, and a log in it would be news all the time.
        let certificates = folder.path().join("certificates");
        for path in [certificates.clone(), folder.path().join("pids")] {
            fs::create_dir(path)?;
        }
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()])?.self_signed(&key)?.pem();
        let files = [("certificate.pem", certificate.clone()), ("key.pem", key.serialize_pem())];
        for (file, text) in files {
            fs::write(certificates.join(file), text)?;
        }
        let log = folder.path().join("log");
        let mut launch = Launch::new("the webhook by URL", injector, log.clone());
        for argument in ["serve", "--https-enabled", "--https-port", "0", "--bind-address", "127.0.0.1"] {
            launch.argument(argument);
        }
        launch.argument("--tls-cert-file").argument(certificates.join("certificate.pem"));
        launch.argument("--tls-private-key-file").argument(certificates.join("key.pem"));
        for argument in arguments {
            launch.argument(argument);
        }
        let process = Process::start(folder.path(), &launch)?;
        let mut server = Self { process, log, address: String::new(), certificate, _folder: folder };
        server.address = server.served_address().await?;
        Ok(server)
    }

    /// What a webhook configuration says of it, with a path such as `/mutation/pod`.
    #[must_use]
    pub fn client_config(&self, path: &str) -> Value {
        json!({"url": format!("https://{}{path}", self.address), "caBundle": STANDARD.encode(&self.certificate)})
    }

    /// The lines that it has logged so far.
    #[must_use]
    pub fn logged(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    async fn served_address(&self) -> Result<String> {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(line) = self.logged().iter().find(|line| line["event"] == "serving") {
                return line["address"]
                    .as_str()
                    .map(ToOwned::to_owned)
                    .context("it serves without an address");
            }
            if let Some(status) = self.process.ended() {
                return Err(self.process.early_end(status));
            }
            if Instant::now() > deadline {
                bail!(
                    "no server after {} s. The end of its log:\n{}",
                    LIMIT.as_secs(),
                    self.process.log_tail()
                );
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
