//! The serving certificate: where it comes from, and exchanging it without a connection noticing.
//!
//! ```text
//! files ───(look, every change)───> trust ─────┐
//!                                              ├──> Serving ──> each TLS handshake, readiness, metrics
//! Secret ──(watch)──> rotation ──> managed ────┘
//! webhook configurations ──(watch)──┘  └──> caBundle
//! ```

mod authority;
mod bundle;
mod files;
mod managed;
mod object;
mod rotation;
mod secret;
mod trust;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use kube::Client;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::callers::Callers;
use crate::arguments::CertificateArguments;
use crate::failure::Failure;
use authority::{CertificateError, Details, Pair};
use bundle::ConfigurationKind;
use files::CertificateFiles;
use managed::{Managed, ManagedSettings};
use rotation::Lifetimes;

/// Where the certificate comes from.
#[derive(Debug)]
pub(crate) enum CertificateSource {
    Files(CertificateFiles),
    Managed(ManagedSettings),
}

impl CertificateSource {
    pub(crate) fn new(arguments: &CertificateArguments) -> Result<Self, Failure> {
        let names: Vec<_> =
            arguments.certificate_names.iter().filter(|name| !name.is_empty()).cloned().collect();
        let mutating =
            arguments.mutating_webhook_configuration.clone().map(|name| (ConfigurationKind::Mutating, name));
        let validating = arguments.validating_webhook_configuration.clone();
        let validating = validating.map(|name| (ConfigurationKind::Validating, name));
        let configurations: Vec<_> =
            [mutating, validating].into_iter().flatten().filter(|(_, name)| !name.is_empty()).collect();
        let Some(secret) = arguments.certificate_secret.as_deref().filter(|secret| !secret.is_empty()) else {
            return Ok(CertificateSource::Files(CertificateFiles {
                certificate: arguments.tls_cert_file.clone(),
                private_key: arguments.tls_private_key_file.clone(),
                name: names.into_iter().next(),
                configurations,
            }));
        };
        let Some((namespace, secret)) = secret.split_once('/') else {
            return Err(Failure::Usage(format!(
                "--certificate-secret {secret:?}: write it as NAMESPACE/NAME"
            )));
        };
        let lifetimes = Lifetimes {
            authority: arguments.ca_lifetime,
            leaf: arguments.certificate_lifetime,
            propagation: arguments.ca_propagation,
            overlap: arguments.ca_overlap,
        };
        if lifetimes.leaf > lifetimes.authority / 3 {
            let problem = "must be at most a third of --ca-lifetime, or certificates would end with their CA";
            return Err(Failure::Usage(format!("--certificate-lifetime {problem}")));
        }
        if configurations.is_empty() || names.is_empty() {
            let problem = "--certificate-secret needs --certificate-names and --mutating-webhook-configuration, \
                           or --validating-webhook-configuration";
            return Err(Failure::Usage(problem.to_owned()));
        }
        let (namespace, secret) = (namespace.to_owned(), secret.to_owned());
        Ok(CertificateSource::Managed(ManagedSettings {
            namespace,
            secret,
            configurations,
            names,
            lifetimes,
        }))
    }

    /// Whether a client of the cluster is needed.
    pub(crate) fn needs_cluster(&self) -> bool {
        match self {
            CertificateSource::Files(files) => !files.configurations.is_empty(),
            CertificateSource::Managed(_) => true,
        }
    }

    /// Begins to serve, and goes on looking after the certificate, as long as the runtime lives.
    pub(crate) async fn start(self, client: Option<Client>) -> Result<Arc<Serving>, Failure> {
        match (self, client) {
            (CertificateSource::Files(files), client) => {
                files.watch(client.as_ref()).map_err(|error| Failure::input("certificate", error))
            }
            (CertificateSource::Managed(settings), Some(client)) => {
                let managed = Managed::start(settings, client).await.map_err(Failure::internal)?;
                let serving = managed.serving();
                tokio::spawn(managed.run());
                Ok(serving)
            }
            (CertificateSource::Managed(_), None) => {
                Err(Failure::Cluster("no cluster to keep certificates in".into()))
            }
        }
    }
}

/// The certificate that is served now.
#[derive(Debug)]
pub(crate) struct Serving {
    current: ArcSwap<Served>,
    standing: Mutex<Standing>,
    metrics: Metrics,
}

/// What the API server can be expected to make of it, as far as it is known.
#[derive(Debug, Default)]
struct Standing {
    /// What is wrong with the certificate itself.
    problem: Option<String>,
    distrust: Option<Distrust>,
    was_taken: bool,
}

/// Why webhooks do not trust a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Distrust {
    /// Whom they trust has not been seen yet.
    Unseen(String),
    /// They trust nobody at all. Whoever writes the first `caBundle` may wait for this replica to be ready.
    Nobody(String),
    /// They trust others.
    Refused(String),
}

impl Distrust {
    fn text(&self) -> &str {
        match self {
            Distrust::Unseen(text) | Distrust::Nobody(text) | Distrust::Refused(text) => text,
        }
    }

    /// Whether a replica that was never trusted waits for the end of it.
    fn is_waited_for(&self) -> bool {
        !matches!(self, Distrust::Nobody(_))
    }
}

#[derive(Debug)]
struct Served {
    key: Arc<CertifiedKey>,
    details: Details,
}

impl ResolvesServerCert for Serving {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load().key.clone())
    }
}

impl Serving {
    /// Begins with this certificate. `distrust` says why the API server does not take it yet.
    fn new(pair: &Pair, distrust: Option<Distrust>) -> Result<Arc<Self>, CertificateError> {
        let served = Served::new(pair)?;
        let serving = Serving {
            metrics: Metrics::default(),
            current: ArcSwap::from_pointee(served),
            standing: Mutex::new(Standing { distrust, ..Standing::default() }),
        };
        serving.metrics.expires("leaf", serving.details().not_after);
        Ok(Arc::new(serving))
    }

    /// Serves another one from the next handshake on.
    fn exchange(&self, pair: &Pair) -> Result<(), CertificateError> {
        let served = Served::new(pair)?;
        self.metrics.expires("leaf", served.details.not_after);
        self.current.store(Arc::new(served));
        Ok(())
    }

    /// What is in the certificate.
    fn details(&self) -> Details {
        self.current.load().details.clone()
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says what is wrong with the certificate itself, and why webhooks do not trust it.
    fn judge(&self, problem: Option<String>, distrust: Option<Distrust>) {
        // What has not been seen is told by other means.
        let is_in_sync = distrust.as_ref().is_none_or(|distrust| matches!(distrust, Distrust::Unseen(_)));
        self.metrics.in_sync.set(i64::from(is_in_sync));
        let mut standing = self.standing();
        let is_ready = problem.is_none() && !distrust.as_ref().is_some_and(Distrust::is_waited_for);
        let was_taken = standing.was_taken || is_ready;
        *standing = Standing { problem, distrust, was_taken };
    }

    /// Why not to be ready. Webhooks that trust it no more are no reason: who takes all replicas out of service because a bundle was
    /// cleared makes it worse.
    pub(crate) fn problem(&self) -> Option<String> {
        let standing = self.standing();
        let distrust = standing.distrust.as_ref();
        let distrust = distrust.filter(|distrust| !standing.was_taken && distrust.is_waited_for());
        standing.problem.clone().or_else(|| Some(distrust?.text().to_owned()))
    }

    /// Whether the API server takes it now, as far as it is known.
    pub(crate) fn is_taken(&self) -> bool {
        let standing = self.standing();
        standing.problem.is_none() && standing.distrust.is_none()
    }

    /// TLS 1.2 and 1.3 with the certificate that is current at each handshake.
    pub(crate) fn tls_config(
        self: Arc<Self>,
        callers: Option<Arc<Callers>>,
    ) -> Result<ServerConfig, rustls::Error> {
        let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?;
        let builder = match callers {
            Some(callers) => builder.with_client_cert_verifier(callers),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(self);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // API servers keep no sessions: tickets would be work and memory for nothing.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    /// Makes the metrics known.
    pub(crate) fn register(&self, registry: &mut Registry) {
        self.metrics.register(registry);
    }
}

impl Served {
    fn new(pair: &Pair) -> Result<Self, CertificateError> {
        Ok(Served { key: Arc::new(pair.certified_key()?), details: Details::of_pem(&pair.certificate)? })
    }
}

/// What Prometheus hears about certificates.
#[derive(Debug, Default)]
struct Metrics {
    not_after: Family<[(&'static str, &'static str); 1], Gauge>,
    rotations: Family<[(&'static str, &'static str); 1], Counter>,
    bundle_writes: Counter,
    in_sync: Gauge,
    /// Only who sees the webhook configurations can say whether they are in sync.
    sees_bundle: AtomicBool,
    /// Only who makes certificates can count them.
    makes_certificates: AtomicBool,
}

impl Metrics {
    fn register(&self, registry: &mut Registry) {
        registry.register(
            "certificate_not_after_timestamp_seconds",
            "When the certificate that is served expires, and its CA",
            self.not_after.clone(),
        );
        if self.sees_bundle.load(Ordering::Relaxed) {
            registry.register(
                "ca_bundle_in_sync",
                "Whether the caBundle of every webhook verifies the certificate that is served",
                self.in_sync.clone(),
            );
        }
        if !self.makes_certificates.load(Ordering::Relaxed) {
            return;
        }
        for role in ["leaf", "ca"] {
            drop(self.rotations.get_or_create(&[("role", role)]));
        }
        registry.register(
            "certificate_rotations",
            "Certificates that this replica made and stored",
            self.rotations.clone(),
        );
        registry.register(
            "ca_bundle_writes",
            "How often this replica wrote the caBundle of a webhook configuration",
            self.bundle_writes.clone(),
        );
    }

    fn expires(&self, role: &'static str, not_after: SystemTime) {
        let seconds = not_after.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
        self.not_after.get_or_create(&[("role", role)]).set(i64::try_from(seconds).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
impl Serving {
    /// One that is ready, and whom no webhook trusts any more.
    pub(crate) fn fallen_out() -> Arc<Self> {
        let now = SystemTime::now();
        let authority = authority::Authority::make(Duration::from_hours(1), now).unwrap();
        let leaf = authority.issue(&["a".to_owned()], Duration::from_mins(1), now).unwrap();
        let serving = Serving::new(&leaf.pair, None).unwrap();
        serving.judge(None, None);
        serving.judge(None, Some(Distrust::Refused("refused".to_owned())));
        serving
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_ready_stays_so_when_webhooks_change_and_others_know_better() {
        let now = SystemTime::now();
        let authority = authority::Authority::make(Duration::from_hours(1), now).unwrap();
        let leaf = authority.issue(&["a".to_owned()], Duration::from_mins(1), now).unwrap();
        let some = |text: &str| Some(text.to_owned());
        let unseen = || Some(Distrust::Unseen("unseen".to_owned()));
        let nobody = || Some(Distrust::Nobody("nobody".to_owned()));
        let refused = || Some(Distrust::Refused("refused".to_owned()));
        for first in [None, nobody()] {
            let serving = Serving::new(&leaf.pair, unseen()).unwrap();
            assert_eq!(serving.problem(), some("unseen"));
            // What is wrong with itself hides that nobody trusts it, and does not make it trusted.
            for (problem, distrust, not_ready, is_taken, is_in_sync) in [
                (some("expired"), None, some("expired"), false, 1),
                (some("expired"), nobody(), some("expired"), false, 0),
                (None, unseen(), some("unseen"), false, 1),
                (None, refused(), some("refused"), false, 0),
                (None, first.clone(), None, first.is_none(), i64::from(first.is_none())),
                (None, refused(), None, false, 0),
                (some("expired"), refused(), some("expired"), false, 0),
                (None, unseen(), None, false, 1),
                (None, nobody(), None, false, 0),
            ] {
                serving.judge(problem, distrust);
                let expected = (not_ready, is_taken, is_in_sync);
                assert_eq!((serving.problem(), serving.is_taken(), serving.metrics.in_sync.get()), expected);
            }
        }
    }
}
