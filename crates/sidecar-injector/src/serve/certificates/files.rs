//! The serving certificate: loaded from files, loaded again when they change, never exchanged for a worse one.

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use kube::Client;
use notify::RecursiveMode;
use tracing::{info, warn};

use super::Serving;
use super::authority::{CertificateError, Pair};
use super::bundle::ConfigurationKind;
use super::trust::Trust;
use crate::changes::{Changes, folder_of};

/// How long it must have been quiet before the files are read: two files are not replaced in one instant.
const SETTLE: Duration = Duration::from_millis(200);

/// How often the files are read without an event.
const LOOK: Duration = Duration::from_secs(10);

/// Files that cannot be served from.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FilesError {
    #[error("cannot read {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{}: {source}", path.display())]
    Wrong { path: PathBuf, source: CertificateError },
}

/// Where certificate and key are.
#[derive(Debug, Clone)]
pub(crate) struct CertificateFiles {
    pub(crate) certificate: PathBuf,
    pub(crate) private_key: PathBuf,
    /// The name that the API server verifies, where it is known.
    pub(crate) name: Option<String>,
    /// Those whose `caBundle` has to verify it, where they are known.
    pub(crate) configurations: Vec<(ConfigurationKind, String)>,
}

impl CertificateFiles {
    /// Loads the files and goes on watching them, as long as the runtime lives.
    pub(crate) fn watch(self, client: Option<&Client>) -> Result<Arc<Serving>, FilesError> {
        let pair = self.read()?;
        let serving = Serving::new(&pair, None).map_err(|error| self.wrong(error))?;
        let configurations = Some(&*self.configurations).filter(|configurations| !configurations.is_empty());
        let mut trust = client.zip(configurations).map(|(client, names)| Trust::watch(client, names));
        serving.metrics.sees_bundle.store(trust.is_some(), Ordering::Relaxed);
        self.judge(&serving, trust.as_mut());
        tokio::spawn(self.follow(serving.clone(), pair, trust));
        Ok(serving)
    }

    fn read(&self) -> Result<Pair, FilesError> {
        let read = |path: &Path| {
            let bytes = std::fs::read(path)
                .map_err(|source| FilesError::Unreadable { path: path.to_owned(), source })?;
            // What is not UTF-8 is no PEM either, and is reported as that.
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        Ok(Pair { certificate: read(&self.certificate)?, private_key: read(&self.private_key)? })
    }

    fn wrong(&self, source: CertificateError) -> FilesError {
        let path =
            if matches!(source, CertificateError::NoKey) { &self.private_key } else { &self.certificate };
        FilesError::Wrong { path: path.clone(), source }
    }

    async fn follow(self, serving: Arc<Serving>, mut served: Pair, mut trust: Option<Trust>) {
        let files = [&self.certificate, &self.private_key];
        let mut changes =
            Changes::watch(&files.map(|file| (folder_of(file), RecursiveMode::NonRecursive)), SETTLE, LOOK);
        let mut refused: Option<String> = None;
        loop {
            // Not begun anew in between: an event that has been taken out, and waits for quiet, would be lost.
            let mut change = pin!(changes.next());
            loop {
                tokio::select! {
                    () = &mut change => break,
                    () = sight(trust.as_mut()) => self.judge(&serving, trust.as_mut()),
                }
            }
            match self.reload(&serving, &served) {
                Ok(None) => refused = None,
                Ok(Some(pair)) => {
                    served = pair;
                    refused = None;
                    info!(event = "certificate_reloaded", file = %self.certificate.display(), "serving the new certificate");
                }
                Err(error) => {
                    // Once for each fault, not once for each look.
                    let problem = error.to_string();
                    if refused.as_ref() != Some(&problem) {
                        warn!(event = "certificate_refused", problem, "keeping the old certificate");
                        refused = Some(problem);
                    }
                }
            }
            self.judge(&serving, trust.as_mut());
        }
    }

    /// Reads the files; the new contents if they were others and good.
    fn reload(&self, serving: &Serving, served: &Pair) -> Result<Option<Pair>, FilesError> {
        let pair = self.read()?;
        if pair == *served {
            return Ok(None);
        }
        serving.exchange(&pair).map_err(|error| self.wrong(error))?;
        Ok(Some(pair))
    }

    /// Whether the API server would take it, as far as that can be known.
    fn judge(&self, serving: &Serving, trust: Option<&mut Trust>) {
        let details = serving.details();
        // Its own clock is all that there is to judge by.
        let now = SystemTime::now();
        let problem = if now >= details.not_after {
            Some("the certificate has expired".to_owned())
        } else if now < details.not_before {
            Some("the certificate is not valid yet".to_owned())
        } else {
            let is_for = |name: &&String| !details.is_for(name);
            self.name.as_ref().filter(is_for).map(|name| format!("the certificate is not for {name}"))
        };
        if let Some(problem) = &problem
            && serving.problem().as_ref() != Some(problem)
        {
            warn!(event = "certificate_unusable", problem, "the API server will not take it");
        }
        let distrust = trust.and_then(|trust| trust.look(&serving.current.load().key.cert, now));
        serving.judge(problem, distrust);
    }
}

/// Waits until the webhooks may trust something else; for ever where nobody looks at them.
async fn sight(trust: Option<&mut Trust>) {
    match trust {
        Some(trust) => trust.changed().await,
        None => std::future::pending().await,
    }
}
