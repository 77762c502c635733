//! The serving certificate: loaded from files, loaded again when they change, never exchanged for a worse one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use notify::RecursiveMode;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tracing::{info, warn};

use crate::changes::{Changes, folder_of};

/// How long it must have been quiet before the files are read: two files are not replaced in one instant.
const SETTLE: Duration = Duration::from_millis(200);

/// How often the files are read without an event.
const LOOK: Duration = Duration::from_secs(10);

/// A certificate that cannot be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificateError {
    #[error("cannot read {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{} has no certificate in PEM form", path.display())]
    NoCertificate { path: PathBuf },
    #[error("{} has no private key in PEM form", path.display())]
    NoKey { path: PathBuf },
    #[error("the private key does not belong to the certificate")]
    Mismatch,
    #[error("the certificate cannot be used: {0}")]
    Unusable(rustls::Error),
}

/// Where certificate and key are.
#[derive(Debug, Clone)]
pub(crate) struct CertificateFiles {
    pub(crate) certificate: PathBuf,
    pub(crate) private_key: PathBuf,
}

/// What the files held when they were last read.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Contents {
    certificate: Vec<u8>,
    private_key: Vec<u8>,
}

impl CertificateFiles {
    fn read(&self) -> Result<Contents, CertificateError> {
        let read = |path: &Path| {
            std::fs::read(path)
                .map_err(|source| CertificateError::Unreadable { path: path.to_owned(), source })
        };
        Ok(Contents { certificate: read(&self.certificate)?, private_key: read(&self.private_key)? })
    }

    fn parse(&self, contents: &Contents) -> Result<CertifiedKey, CertificateError> {
        let chain: Vec<_> =
            CertificateDer::pem_slice_iter(&contents.certificate)
                .collect::<Result<_, _>>()
                .map_err(|_| CertificateError::NoCertificate { path: self.certificate.clone() })?;
        if chain.is_empty() {
            return Err(CertificateError::NoCertificate { path: self.certificate.clone() });
        }
        let key = PrivateKeyDer::from_pem_slice(&contents.private_key)
            .map_err(|_| CertificateError::NoKey { path: self.private_key.clone() })?;
        // Refuses a key that does not belong to the certificate.
        CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => CertificateError::Mismatch,
            error => CertificateError::Unusable(error),
        })
    }
}

/// The certificate that is served now.
#[derive(Debug)]
pub(crate) struct Certificates {
    files: CertificateFiles,
    current: ArcSwap<CertifiedKey>,
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

impl Certificates {
    /// Loads the files and goes on watching them, as long as the runtime lives.
    pub(crate) fn watch(files: CertificateFiles) -> Result<Arc<Self>, CertificateError> {
        let contents = files.read()?;
        let current = files.parse(&contents)?;
        let certificates = Arc::new(Certificates { files, current: ArcSwap::from_pointee(current) });
        tokio::spawn(certificates.clone().follow(contents));
        Ok(certificates)
    }

    /// TLS 1.2 and 1.3 with the certificate that is current at each handshake.
    pub(crate) fn tls_config(self: Arc<Self>) -> Result<ServerConfig, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(self);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // API servers keep no sessions: tickets would be work and memory for nothing.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    async fn follow(self: Arc<Self>, mut served: Contents) {
        let files = [&self.files.certificate, &self.files.private_key];
        let mut changes =
            Changes::watch(&files.map(|file| (folder_of(file), RecursiveMode::NonRecursive)), SETTLE, LOOK);
        let mut refused: Option<String> = None;
        loop {
            changes.next().await;
            match self.reload(&served) {
                Ok(None) => refused = None,
                Ok(Some(contents)) => {
                    served = contents;
                    refused = None;
                    info!(event = "certificate_reloaded", file = %self.files.certificate.display(), "serving the new certificate");
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
        }
    }

    /// Reads the files; the new contents if they were others and good.
    fn reload(&self, served: &Contents) -> Result<Option<Contents>, CertificateError> {
        let contents = self.files.read()?;
        if contents == *served {
            return Ok(None);
        }
        self.current.store(Arc::new(self.files.parse(&contents)?));
        Ok(Some(contents))
    }
}
