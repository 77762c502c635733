//! The `caBundle` of our webhook configurations: what is in it, what must be, and who has seen it.
//!
//! CA certificates of others in it stay for a while: pods of another certificate mode, which an upgrade is replacing, serve
//! with them, and so does a replica that could not read the Secret.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::{Api, Client};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use super::Distrust;
use super::authority::Details;
use super::object::{self, Seen};
use super::secret::FIELD_MANAGER;
use crate::cluster;

/// At most so many CA certificates of others in a bundle; the oldest go first.
const OTHERS: usize = 16;

/// So often a bundle is written within [`FIGHT_TIME`] before we take it that somebody else writes it all the time, and slow down.
const FIGHT: usize = 8;
const FIGHT_TIME: Duration = Duration::from_mins(1);

/// How long to wait for the API server to take one.
const WRITE: Duration = Duration::from_secs(10);

/// How long to wait between two writes then.
const TRUCE: Duration = Duration::from_secs(5);

/// Checks a certificate as the API server does.
pub(super) fn verify<'a>(
    roots: impl IntoIterator<Item = &'a CertificateDer<'static>>,
    certificate: &CertificateDer<'_>,
    names: impl IntoIterator<Item = &'a str>,
    now: SystemTime,
) -> Result<(), String> {
    let mut store = RootCertStore::empty();
    for root in roots {
        // One that cannot be read is one that verifies nothing.
        let _ = store.add(root.clone());
    }
    if store.is_empty() {
        return Err("there are no CA certificates".to_owned());
    }
    let provider = aws_lc_rs::default_provider().into();
    let verifier = WebPkiServerVerifier::builder_with_provider(store.into(), provider).build();
    let verifier = verifier.map_err(|error| error.to_string())?;
    let now = UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
    for name in names {
        let server_name = ServerName::try_from(name).map_err(|error| format!("{name}: {error}"))?;
        let verified = verifier.verify_server_cert(certificate, &[], &server_name, &[], now);
        verified.map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// A webhook configuration of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConfigurationKind {
    Mutating,
    Validating,
}

impl ConfigurationKind {
    fn as_str(self) -> &'static str {
        match self {
            ConfigurationKind::Mutating => "MutatingWebhookConfiguration",
            ConfigurationKind::Validating => "ValidatingWebhookConfiguration",
        }
    }

    fn resource(self) -> ApiResource {
        const GROUP: &str = "admissionregistration.k8s.io";
        ApiResource {
            group: GROUP.to_owned(),
            version: "v1".to_owned(),
            api_version: format!("{GROUP}/v1"),
            kind: self.as_str().to_owned(),
            plural: format!("{}s", self.as_str().to_lowercase()),
        }
    }
}

/// All webhook configurations whose bundles are ours to keep.
pub(super) struct Bundles {
    configurations: Vec<Configuration>,
    /// Since when each certificate has been in all bundles.
    present: HashMap<CertificateDer<'static>, Instant>,
    /// Since when each certificate of others has been known.
    others: HashMap<CertificateDer<'static>, Instant>,
}

struct Configuration {
    kind: ConfigurationKind,
    name: String,
    api: Api<DynamicObject>,
    seen: watch::Receiver<Seen<DynamicObject>>,
    /// The webhooks as they were last looked at; none where there is no such object, nothing while that is not known.
    webhooks: Option<Vec<Webhook>>,
    /// Whether it may not be looked at.
    is_forbidden: bool,
    written: Vec<Instant>,
    said: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Webhook {
    name: String,
    /// Nothing, where it is no PEM.
    bundle: Vec<CertificateDer<'static>>,
    trusted: Trusted,
}

/// Whom the API server trusts at a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trusted {
    /// Who is in the bundle.
    Bundle,
    /// Others as well: there is no bundle, so that its own CA certificates count, or one that it may read better than we do.
    Others,
    /// There is no bundle, and no public CA signs the name of a Service.
    Nobody,
}

impl Bundles {
    pub(super) fn watch(client: &Client, names: &[(ConfigurationKind, String)]) -> Self {
        let configurations = names.iter().map(|(kind, name)| {
            let api: Api<DynamicObject> = Api::all_with(client.clone(), &kind.resource());
            let seen = object::watch(api.clone(), name.clone(), kind.as_str());
            Configuration::new(*kind, name.clone(), api, seen)
        });
        Self::of(configurations.collect())
    }

    fn of(configurations: Vec<Configuration>) -> Self {
        Bundles { configurations, present: HashMap::new(), others: HashMap::new() }
    }

    /// Waits until one of the configurations is another than it was.
    pub(super) async fn changed(&mut self) {
        if self.configurations.is_empty() {
            std::future::pending::<()>().await;
        }
        let waiting = self.configurations.iter_mut().map(|it| Box::pin(it.seen.changed()));
        // Whoever sends lives as long as the runtime.
        let _ = futures_util::future::select_all(waiting).await;
    }

    /// Takes in what the configurations are now. `ours` are the certificates that are in them because of us.
    pub(super) fn look(&mut self, ours: &[CertificateDer<'static>]) {
        for configuration in &mut self.configurations {
            let seen = configuration.seen.borrow_and_update().clone();
            configuration.is_forbidden = matches!(seen, Seen::Forbidden);
            configuration.webhooks = match seen {
                Seen::Present(object) => Some(webhooks(&object)),
                // Nobody is called by it, so nobody has to trust us.
                Seen::Missing => Some(Vec::new()),
                Seen::Unknown | Seen::Forbidden => None,
            };
        }
        let now = Instant::now();
        let bundles: Vec<_> = self.webhooks().map(|webhook| &webhook.bundle).collect();
        let in_all = |certificate: &CertificateDer<'static>| {
            !bundles.is_empty() && bundles.iter().all(|bundle| bundle.contains(certificate))
        };
        let found: Vec<_> = bundles.iter().copied().flatten().cloned().collect();
        let is_everywhere: Vec<_> = found.iter().filter(|certificate| in_all(certificate)).cloned().collect();
        self.present.retain(|certificate, _| is_everywhere.contains(certificate));
        for certificate in is_everywhere {
            self.present.entry(certificate).or_insert(now);
        }
        self.others.retain(|certificate, _| found.contains(certificate) && !ours.contains(certificate));
        for certificate in found.into_iter().filter(|certificate| !ours.contains(certificate)) {
            self.others.entry(certificate).or_insert(now);
        }
    }

    fn webhooks(&self) -> impl Iterator<Item = &Webhook> {
        self.configurations.iter().filter_map(|it| it.webhooks.as_ref()).flatten()
    }

    /// Why the API server would not take a certificate; nothing when every webhook's bundle verifies it.
    pub(super) fn distrust(
        &self,
        certificate: &CertificateDer<'_>,
        names: &[String],
        now: SystemTime,
    ) -> Option<String> {
        for configuration in &self.configurations {
            let Some(webhooks) = &configuration.webhooks else { return Some(configuration.unseen()) };
            for webhook in webhooks {
                let names = names.iter().map(String::as_str);
                if let Err(problem) = verify(&webhook.bundle, certificate, names, now) {
                    return Some(configuration.refusal(webhook, &problem));
                }
            }
        }
        None
    }

    /// The same for a certificate that others look after, and `refused`, which says why a bundle does not verify it. What may not be
    /// looked at says nothing.
    pub(super) fn distrust_of_others(
        &self,
        refused: impl Fn(&[CertificateDer<'static>]) -> Option<String>,
    ) -> Option<Distrust> {
        let (mut unseen, mut nobody) = (None, None);
        for configuration in &self.configurations {
            if configuration.webhooks.is_none() && !configuration.is_forbidden {
                unseen.get_or_insert_with(|| configuration.unseen());
            }
            for webhook in configuration.webhooks.iter().flatten() {
                match webhook.trusted {
                    Trusted::Bundle => {
                        if let Some(problem) = refused(&webhook.bundle) {
                            return Some(Distrust::Refused(configuration.refusal(webhook, &problem)));
                        }
                    }
                    Trusted::Nobody => {
                        nobody.get_or_insert_with(|| configuration.refusal(webhook, "there is none"));
                    }
                    Trusted::Others => {}
                }
            }
        }
        unseen.map(Distrust::Unseen).or_else(|| nobody.map(Distrust::Nobody))
    }

    /// Whether a CA certificate has been in all bundles for so long.
    pub(super) fn have_had(&self, certificate: &CertificateDer<'static>, time: Duration) -> bool {
        self.present.get(certificate).is_some_and(|since| since.elapsed() >= time)
    }

    /// The certificates of others that stay: in use elsewhere, as far as anybody can tell.
    fn kept_others(&self, overlap: Option<Duration>, now: SystemTime) -> Vec<CertificateDer<'static>> {
        let kept =
            self.others.iter().filter(|(_, since)| overlap.is_none_or(|overlap| since.elapsed() < overlap));
        let mut kept: Vec<_> = kept
            .filter_map(|(certificate, _)| Details::of(certificate.clone()).ok())
            // One that is not valid yet is new, by another clock than ours.
            .filter(|details| now < details.not_after)
            .collect();
        // The same order for every replica.
        kept.sort_by(|a, b| (b.not_before, &*b.der).cmp(&(a.not_before, &*a.der)));
        kept.into_iter().take(OTHERS).map(|details| details.der).collect()
    }

    /// Sees to it that every bundle has these certificates. Those of others stay for the overlap, for ever without one.
    /// Returns how many configurations were written.
    pub(super) async fn ensure(
        &mut self,
        needed: &[CertificateDer<'static>],
        overlap: Option<Duration>,
        now: SystemTime,
    ) -> u64 {
        let others = self.kept_others(overlap, now);
        let mut written = 0;
        for configuration in &mut self.configurations {
            let Some(webhooks) = &configuration.webhooks else { continue };
            // What somebody has taken out of a bundle does not come back from another one: so a CA can be got rid of.
            let wanted: Vec<_> = webhooks
                .iter()
                .map(|webhook| {
                    let kept = others.iter().filter(|certificate| webhook.bundle.contains(certificate));
                    (webhook.name.clone(), needed.iter().chain(kept).cloned().collect::<Vec<_>>())
                })
                .collect();
            let is_wrong = |(webhook, (_, wanted)): (&Webhook, &(_, Vec<CertificateDer<'static>>))| {
                wanted.iter().any(|certificate| !webhook.bundle.contains(certificate))
                    || webhook.bundle.iter().any(|certificate| !wanted.contains(certificate))
            };
            if webhooks.iter().zip(&wanted).any(is_wrong) {
                written += u64::from(configuration.write(wanted).await);
            }
        }
        written
    }
}

impl Configuration {
    fn new(
        kind: ConfigurationKind,
        name: String,
        api: Api<DynamicObject>,
        seen: watch::Receiver<Seen<DynamicObject>>,
    ) -> Self {
        let (webhooks, is_forbidden) = (None, false);
        Configuration { kind, name, api, seen, webhooks, is_forbidden, written: Vec::new(), said: None }
    }

    fn unseen(&self) -> String {
        format!("{} {}: not seen so far", self.kind.as_str(), self.name)
    }

    fn refusal(&self, webhook: &Webhook, problem: &str) -> String {
        let (kind, webhook) = (self.kind.as_str(), &webhook.name);
        format!("{kind} {}: the caBundle of {webhook} does not verify it: {problem}", self.name)
    }

    /// Applies the bundle to every webhook, and nothing else.
    async fn write(&mut self, wanted: Vec<(String, Vec<CertificateDer<'static>>)>) -> bool {
        self.written.retain(|at| at.elapsed() < FIGHT_TIME);
        if self.written.len() >= FIGHT && self.written.last().is_some_and(|last| last.elapsed() < TRUCE) {
            self.say("somebody else keeps writing the caBundle: waiting between two writes");
            return false;
        }
        let certificates = wanted.iter().map(|(_, bundle)| bundle.len()).max();
        let webhooks: Vec<_> = wanted
            .into_iter()
            .map(|(name, bundle)| json!({"name": name, "clientConfig": {"caBundle": encoded(bundle)}}))
            .collect();
        let resource = self.kind.resource();
        let object = json!({
            "apiVersion": resource.api_version, "kind": resource.kind,
            "metadata": {"name": self.name}, "webhooks": webhooks,
        });
        // Forced: a chart that made the certificates itself until now has rendered this field.
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        let patch = Patch::Apply(object);
        let written = timeout(WRITE, self.api.patch(&self.name, &parameters, &patch)).await;
        match written.unwrap_or_else(|_| Err(kube::Error::Service("no answer in time".into()))) {
            Ok(_) => {
                self.written.push(Instant::now());
                info!(
                    event = "ca_bundle_written",
                    kind = self.kind.as_str(),
                    name = self.name,
                    certificates,
                    "every webhook trusts the CA"
                );
                self.said = None;
                true
            }
            Err(error) => {
                self.say(&cluster::problem(&error));
                false
            }
        }
    }

    /// Once for each kind of trouble.
    fn say(&mut self, problem: &str) {
        if self.said.as_deref() != Some(problem) {
            let kind = self.kind.as_str();
            warn!(event = "ca_bundle_not_written", kind, name = self.name, problem, "trying again");
            self.said = Some(problem.to_owned());
        }
    }
}

fn encoded(bundle: Vec<CertificateDer<'static>>) -> String {
    let pem: Vec<_> =
        bundle.into_iter().map(|certificate| pem::Pem::new("CERTIFICATE", certificate.to_vec())).collect();
    let unix = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    STANDARD.encode(pem::encode_many_config(&pem, unix))
}

fn webhooks(configuration: &DynamicObject) -> Vec<Webhook> {
    let webhooks = configuration.data.get("webhooks").and_then(Value::as_array).into_iter().flatten();
    let webhooks = webhooks.filter_map(|webhook| {
        let name = webhook.get("name")?.as_str()?.to_owned();
        let bundle = webhook.pointer("/clientConfig/caBundle").and_then(Value::as_str).unwrap_or_default();
        let pem = STANDARD.decode(bundle).ok().and_then(|pem| pem::parse_many(pem).ok());
        let has_service = webhook.pointer("/clientConfig/service").is_some();
        let trusted = match &pem {
            _ if bundle.is_empty() && has_service => Trusted::Nobody,
            Some(_) if !bundle.is_empty() => Trusted::Bundle,
            _ => Trusted::Others,
        };
        let certificates = pem.unwrap_or_default().into_iter();
        let bundle = certificates.map(|pem| CertificateDer::from(pem.into_contents())).collect();
        Some(Webhook { name, bundle, trusted })
    });
    webhooks.collect()
}

#[cfg(test)]
impl Bundles {
    /// Of configurations that are seen as somebody says. Its client wants a runtime.
    pub(super) fn shown(
        seen: impl IntoIterator<Item = (ConfigurationKind, watch::Receiver<Seen<DynamicObject>>)>,
    ) -> Self {
        let client = Client::try_from(kube::Config::new("http://127.0.0.1:9".parse().unwrap())).unwrap();
        let configurations = seen.into_iter().map(|(kind, seen)| {
            let api = Api::all_with(client.clone(), &kind.resource());
            Configuration::new(kind, "injector".to_owned(), api, seen)
        });
        Self::of(configurations.collect())
    }
}
