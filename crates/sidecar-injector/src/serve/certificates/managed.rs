//! Certificates that the replicas make themselves: what they share is in a Secret, and every webhook trusts it before it is served.
//!
//! No replica leads. Each watches the Secret and the webhook configurations, decides the next step ([`rotation`]) and takes
//! it if nobody else was faster. Without the Secret a replica serves what it has; one that starts then is a CA of its
//! own, which the webhooks come to trust like any other.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::authority::CertificateError;
use super::bundle::{Bundles, ConfigurationKind};
use super::object::{self, Seen};
use super::rotation::{Certificates, Lifetimes, Situation, Step, Stored};
use super::secret;
use super::{Distrust, Serving};
use crate::clock::Clock;
use crate::cluster;

/// How often to look without anything having happened, at least.
const LOOK: Duration = Duration::from_secs(10);

/// How long to wait for the API server to take something.
const WRITE: Duration = Duration::from_secs(10);

/// What the certificates are for, and where they are kept.
#[derive(Debug, Clone)]
pub(crate) struct ManagedSettings {
    pub(crate) namespace: String,
    pub(crate) secret: String,
    pub(crate) configurations: Vec<(ConfigurationKind, String)>,
    /// The DNS names that the API server verifies; the first is the Service's.
    pub(crate) names: Vec<String>,
    pub(crate) lifetimes: Lifetimes,
}

/// What this replica and the Secret have to do with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Agreement {
    /// Not known, or not any more: the watch will tell.
    Unknown,
    /// There is no Secret, or it cannot be used.
    Alone,
    /// Both have the same.
    Shared,
}

/// Looks after the certificates.
pub(crate) struct Managed {
    settings: ManagedSettings,
    serving: Arc<Serving>,
    /// The last good state, or what this replica made for itself.
    held: Certificates,
    /// Who signed what is served.
    served_by: CertificateDer<'static>,
    api: Api<Secret>,
    secret: watch::Receiver<Seen<Secret>>,
    bundles: Bundles,
    clock: Clock,
    said: Option<String>,
}

impl Managed {
    /// Begins with certificates of its own making, which are enough for the kubelet's probes; ready it is when the API
    /// server trusts what is served.
    pub(crate) async fn start(settings: ManagedSettings, client: Client) -> Result<Self, CertificateError> {
        let mut clock = Clock::new(client.clone());
        clock.refresh().await;
        let held = Certificates::make(&settings.lifetimes, &settings.names, clock.now())?;
        let unseen = Distrust::Unseen("the webhook configuration was not seen so far".to_owned());
        let serving = Serving::new(&held.leaf.pair, Some(unseen))?;
        serving.metrics.sees_bundle.store(true, Ordering::Relaxed);
        serving.metrics.makes_certificates.store(true, Ordering::Relaxed);
        serving.metrics.expires("ca", held.authority.details.not_after);
        let api: Api<Secret> = Api::namespaced(client.clone(), &settings.namespace);
        let secret = object::watch(api.clone(), settings.secret.clone(), "Secret");
        let bundles = Bundles::watch(&client, &settings.configurations);
        let served_by = held.authority.details.der.clone();
        Ok(Managed { settings, serving, held, served_by, api, secret, bundles, clock, said: None })
    }

    /// What is served.
    pub(crate) fn serving(&self) -> Arc<Serving> {
        self.serving.clone()
    }

    /// Keeps everything in order, as long as it is polled.
    pub(crate) async fn run(mut self) {
        loop {
            self.clock.refresh().await;
            self.look().await;
            let pause =
                LOOK.min(self.settings.lifetimes.leaf / 12).min(self.settings.lifetimes.propagation / 4);
            tokio::select! {
                _ = self.secret.changed() => {}
                () = self.bundles.changed() => {}
                () = sleep(pause.max(Duration::from_millis(100))) => {}
            }
        }
    }

    async fn look(&mut self) {
        let seen = self.secret.borrow_and_update().clone();
        let agreement = match seen {
            // Nothing is done by a clock that nobody has compared: what it makes would be shared by those whose clocks are right.
            _ if !self.clock.is_set() => Agreement::Unknown,
            // Nor without knowing what the others serve, or every start would be a rotation.
            Seen::Unknown | Seen::Forbidden => Agreement::Unknown,
            Seen::Missing => {
                let ManagedSettings { namespace, secret, .. } = &self.settings;
                self.say(&format!(
                    "the Secret {namespace}/{secret} is missing: each replica goes on with what it has; for them to share it \
                     again, upgrade the release, or: kubectl create secret generic {secret} --namespace {namespace}"
                ));
                self.go_on_alone();
                Agreement::Alone
            }
            Seen::Present(secret) => self.follow(&secret).await,
        };
        if agreement != Agreement::Unknown {
            self.publish(agreement).await;
        }
    }

    /// Takes the next step for what this replica has, without storing it anywhere.
    fn go_on_alone(&mut self) {
        match self.next_step(self.held.clone().into()) {
            Ok(Some(step)) => {
                info!(event = "certificates_made", why = ?step.why, "for this replica alone");
                self.held = step.certificates;
            }
            Ok(None) => {}
            Err(error) => self.say(&error.to_string()),
        }
    }

    fn next_step(&self, stored: Stored) -> Result<Option<Step>, CertificateError> {
        let (lifetimes, now) = (&self.settings.lifetimes, self.clock.now());
        let patience = stored.patience(lifetimes, now);
        let next = stored.next.as_ref();
        let is_next_trusted = next.is_some_and(|next| self.bundles.have_had(&next.details.der, patience));
        let (held, names) = (&self.held, &self.settings.names);
        Situation { stored, held, is_next_trusted, names, lifetimes, now }.step()
    }

    /// Takes the next step, and takes over what is stored.
    async fn follow(&mut self, secret: &Secret) -> Agreement {
        let (stored, problems) = secret::read(secret);
        if problems.is_empty() {
            self.said = None;
        } else {
            self.say(&format!("the Secret {}: {}", self.settings.secret, problems.join("; ")));
        }
        let whole = stored.whole();
        let step = match (self.next_step(stored), whole) {
            (Ok(Some(step)), _) => step,
            (Ok(None), Some(certificates)) => {
                self.held = certificates;
                return Agreement::Shared;
            }
            (Ok(None), None) => return Agreement::Alone,
            (Err(error), _) => {
                self.say(&error.to_string());
                return Agreement::Alone;
            }
        };
        let written = timeout(WRITE, secret::write(&self.api, secret, &step)).await;
        let written = written.unwrap_or_else(|_| Err(kube::Error::Service("no answer in time".into())));
        match written {
            Ok(_) => {
                for role in step.why.roles() {
                    self.serving.metrics.rotations.get_or_create(&[("role", role)]).inc();
                }
                let not_after = humantime::format_rfc3339_seconds(step.certificates.leaf.details.not_after);
                info!(event = "certificates_stored", why = ?step.why, %not_after, "{}", step.why.explanation());
                self.held = step.certificates;
                Agreement::Shared
            }
            // Somebody else was faster: the watch brings what they stored.
            Err(kube::Error::Api(status)) if status.code == 409 => Agreement::Unknown,
            Err(error) => {
                let problem = cluster::problem(&error);
                self.say(&format!("the Secret {} cannot be written: {problem}", self.settings.secret));
                Agreement::Alone
            }
        }
    }

    /// Has every webhook trust what is served and what will be, then serves what is trusted.
    async fn publish(&mut self, agreement: Agreement) {
        let now = self.clock.now();
        let names = &self.settings.names;
        let held = &self.held;
        let mut needed: Vec<CertificateDer<'static>> =
            held.authorities().map(|authority| authority.details.der.clone()).collect();
        // What has been made for the start alone, nobody needs to trust.
        if self.serving.problem().is_none() && !needed.contains(&self.served_by) {
            needed.push(self.served_by.clone());
        }
        self.bundles.look(&needed);
        // Others may depend on what is there as long as the replicas do not share one state.
        let serves_shared = self.serving.details().der == held.leaf.details.der;
        let is_shared = agreement == Agreement::Shared && serves_shared;
        let overlap = is_shared.then_some(self.settings.lifetimes.overlap);
        let written = self.bundles.ensure(&needed, overlap, now).await;
        self.serving.metrics.bundle_writes.inc_by(written);

        let is_trusted = |der: &CertificateDer<'_>| self.bundles.distrust(der, names, now);
        if !serves_shared {
            let new = is_trusted(&held.leaf.details.der);
            // What is not trusted either is no reason to wait.
            if new.is_none() || is_trusted(&self.serving.details().der).is_some() {
                match self.serving.exchange(&held.leaf.pair) {
                    Ok(()) => {
                        self.served_by = held.authority.details.der.clone();
                        let not_after = humantime::format_rfc3339_seconds(held.leaf.details.not_after);
                        info!(event = "certificate_reloaded", %not_after, "serving the new certificate");
                    }
                    Err(error) => warn!(event = "certificate_refused", %error, "keeping the old certificate"),
                }
            }
        }
        self.serving.metrics.expires("ca", held.authority.details.not_after);
        let distrust = is_trusted(&self.serving.details().der);
        if let (Some(problem), Some(before)) = (&distrust, self.serving.problem())
            && *problem != before
        {
            info!(event = "not_trusted_yet", problem, "not ready until every webhook trusts the certificate");
        }
        self.serving.judge(None, distrust.map(Distrust::Refused));
    }

    /// Once for each kind of trouble.
    fn say(&mut self, problem: &str) {
        if self.said.as_deref() != Some(problem) {
            warn!(event = "certificates_not_shared", problem, "serving what there is");
            self.said = Some(problem.to_owned());
        }
    }
}
