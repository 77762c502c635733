//! Who may ask: with a CA for client certificates, reviews are answered to those who have one, health checks to everybody.
//!
//! An API server presents one where its admission configuration says so (`kubeConfigFile` of the plugin
//! `MutatingAdmissionWebhook`). Kubelets, which ask whether we are alive, have none. Tokens are neither asked for nor read.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use notify::RecursiveMode;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};
use tracing::{info, warn};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::arguments::CallerArguments;
use crate::changes::{Changes, folder_of};
use crate::failure::Failure;

const SETTLE: Duration = Duration::from_millis(200);
const LOOK: Duration = Duration::from_secs(10);

/// Whether whoever sends a request has shown that they may ask for reviews.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caller {
    Known,
    Unknown,
}

/// Checks client certificates.
#[derive(Debug)]
pub(crate) struct Callers {
    file: PathBuf,
    /// Common names or DNS names; empty: whoever the CA has signed.
    names: BTreeSet<String>,
    verifier: ArcSwap<Verifier>,
}

/// An `Arc` of its own, since a trait object has no size that could be swapped.
#[derive(Debug)]
struct Verifier(Arc<dyn ClientCertVerifier>);

impl Callers {
    /// Reads the CA and goes on watching its file, as long as the runtime lives; nothing where there is no file.
    pub(crate) fn watch(arguments: &CallerArguments) -> Result<Option<Arc<Self>>, Failure> {
        let names = arguments.names();
        let Some(file) = arguments.ca_file().map(Path::to_owned) else {
            if names.is_empty() {
                return Ok(None);
            }
            return Err(Failure::Usage("--client-names needs --client-ca-file".to_owned()));
        };
        let failed = |problem: String| Failure::input(file.display(), problem);
        let text = read(&file).map_err(failed)?;
        let verifier = ArcSwap::from_pointee(verifier(&text).map_err(failed)?);
        let callers = Arc::new(Callers { file, names, verifier });
        tokio::spawn(callers.clone().follow(text));
        Ok(Some(callers))
    }

    async fn follow(self: Arc<Self>, mut used: String) {
        let mut changes =
            Changes::watch(&[(folder_of(&self.file), RecursiveMode::NonRecursive)], SETTLE, LOOK);
        let mut refused: Option<String> = None;
        loop {
            changes.next().await;
            match read(&self.file) {
                Ok(text) if text == used => {}
                result => match result.and_then(|text| Ok((verifier(&text)?, text))) {
                    Ok((verifier, text)) => {
                        self.verifier.store(Arc::new(verifier));
                        (used, refused) = (text, None);
                        info!(event = "client_ca_reloaded", file = %self.file.display(), "checking callers by it");
                    }
                    Err(problem) => {
                        // Once for each fault, not once for each look.
                        if refused.as_ref() != Some(&problem) {
                            warn!(event = "client_ca_refused", problem, "keeping the old one");
                            refused = Some(problem);
                        }
                    }
                },
            }
        }
    }

    /// Who is at the other end, after a handshake.
    pub(crate) fn caller(&self, certificates: Option<&[CertificateDer<'_>]>) -> Caller {
        // What is there has been verified in the handshake.
        let certificate = certificates.and_then(<[_]>::first);
        let is_known = certificate.is_some_and(|certificate| {
            self.names.is_empty() || names_of(certificate).iter().any(|name| self.names.contains(name))
        });
        if is_known { Caller::Known } else { Caller::Unknown }
    }
}

fn read(file: &Path) -> Result<String, String> {
    std::fs::read_to_string(file).map_err(|error| format!("cannot be read: {error}"))
}

fn verifier(text: &str) -> Result<Verifier, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
        let certificate = certificate.map_err(|error| format!("is no PEM: {error}"))?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    let provider: Arc<CryptoProvider> = aws_lc_rs::default_provider().into();
    let builder = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
    // Who has none may still ask whether we are alive.
    let verifier = builder.allow_unauthenticated().build();
    verifier.map(Verifier).map_err(|error| format!("has no CA certificate: {error}"))
}

fn names_of(certificate: &CertificateDer<'_>) -> BTreeSet<String> {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return BTreeSet::new() };
    let common = parsed.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    let mut names: BTreeSet<_> = common.map(ToOwned::to_owned).collect();
    let alternatives = parsed.subject_alternative_name().ok().flatten();
    let alternatives = alternatives.iter().flat_map(|names| &names.value.general_names);
    names.extend(alternatives.filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    }));
    names
}

/// Whatever the verifier of the moment says.
impl ClientCertVerifier for Callers {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// No hints: the list would have to live as long as this does, and API servers send what they were given.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verifier.load().0.verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.load().0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.load().0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.load().0.supported_verify_schemes()
    }
}
