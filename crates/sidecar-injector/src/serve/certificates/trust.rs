//! Whether the webhooks trust a certificate that others made: looked at, never written.
//!
//! Who upgrades to certificates that no webhook trusts keeps the old replicas, which are: new ones do not become ready.

use std::slice;
use std::time::{Duration, SystemTime};

use kube::Client;
use rustls::CertificateError;
use rustls::pki_types::CertificateDer;
use tokio::time::Instant;
use tracing::warn;

use super::Serving;
use super::bundle::{Bundles, ConfigurationKind, Distrust, verify};

/// How long to wait for the first sight of the webhook configurations. Without a right to see them there is none.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is known of the webhooks that call this process.
pub(super) struct Trust {
    bundles: Bundles,
    began: Instant,
    was_trusted: bool,
    said: Option<String>,
}

impl Trust {
    pub(super) fn watch(client: &Client, configurations: &[(ConfigurationKind, String)]) -> Self {
        let bundles = Bundles::watch(client, configurations);
        Trust { bundles, began: Instant::now(), was_trusted: false, said: None }
    }

    /// Waits until there may be something else to say.
    pub(super) async fn changed(&mut self) {
        let patience = (!self.bundles.are_seen()).then(|| self.began + PATIENCE);
        let is_over = async {
            match patience.filter(|end| *end > Instant::now()) {
                Some(end) => tokio::time::sleep_until(end).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.bundles.changed() => {}
            () = is_over => {}
        }
    }

    /// Looks whether the API server takes what is served, as far as that can be told. Says why not to be ready because of it.
    pub(super) fn look(
        &mut self,
        serving: &Serving,
        name: Option<&String>,
        now: SystemTime,
    ) -> Option<String> {
        self.bundles.look(&[]);
        if !self.bundles.are_seen() {
            let is_waiting = !self.was_trusted && self.began.elapsed() < PATIENCE;
            self.was_trusted |= !is_waiting;
            // Nobody is alarmed about what nobody can see.
            serving.metrics.in_sync.set(i64::from(!is_waiting));
            return is_waiting.then(|| "the webhook configuration was not seen so far".to_owned());
        }
        let problem = self.problem(&serving.current.load().key.cert, name, now);
        serving.metrics.in_sync.set(i64::from(problem.is_none()));
        if let Some(problem) = problem.as_ref().filter(|problem| self.said.as_ref() != Some(problem)) {
            warn!(event = "not_trusted_yet", problem, "the API server will not take the certificate");
        }
        self.said.clone_from(&problem);
        // Once ready it stays ready: who takes all replicas out of service because of a bundle makes nothing better.
        self.was_trusted |= problem.is_none();
        problem.filter(|_| !self.was_trusted)
    }

    fn problem(
        &self,
        served: &[CertificateDer<'static>],
        name: Option<&String>,
        now: SystemTime,
    ) -> Option<String> {
        self.bundles.all().find_map(|(place, bundle)| {
            Some(format!("{place} does not verify it: {}", refusal(bundle, served, name, now)?))
        })
    }
}

/// Why a bundle does not verify what is served, as far as that is beyond doubt: what our library is stricter about than the API
/// server's does not count.
fn refusal(
    bundle: &[CertificateDer<'static>],
    served: &[CertificateDer<'static>],
    name: Option<&String>,
    now: SystemTime,
) -> Option<Distrust> {
    let (certificate, chain) = served.split_first()?;
    // Without a bundle the API server's own CA certificates count. One that is its own CA need not be a CA.
    if bundle.is_empty() || bundle.contains(certificate) {
        return None;
    }
    let names = name.map(slice::from_ref).unwrap_or_default().iter().map(String::as_str);
    let distrust = verify(bundle, certificate, chain, names, now).err()?;
    let is_sure = matches!(
        distrust,
        Distrust::NotVerified(rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature
        ))
    );
    is_sure.then_some(distrust)
}

#[cfg(test)]
mod tests {
    use super::super::authority::{Authority, Pair};
    use super::*;

    const NAME: &str = "injector.default.svc";

    fn served(pair: &Pair) -> Vec<CertificateDer<'static>> {
        pair.certified_key().unwrap().cert
    }

    #[test]
    fn a_bundle_that_has_another_ca_does_not_verify_and_one_that_is_empty_says_nothing() {
        let (now, life) = (SystemTime::now(), Duration::from_hours(1));
        let [ours, others] = [(), ()].map(|()| Authority::make(life, now).unwrap());
        let leaf = ours.issue(&[NAME.to_owned()], life / 3, now).unwrap();
        let served = served(&leaf.pair);
        let name = NAME.to_owned();
        let refused = |bundle: &[&CertificateDer<'static>]| {
            let bundle: Vec<_> = bundle.iter().map(|der| (*der).clone()).collect();
            refusal(&bundle, &served, Some(&name), now).map(|distrust| distrust.to_string())
        };
        let (our, other) = (&ours.details.der, &others.details.der);
        assert_eq!(refused(&[other]).as_deref(), Some("invalid peer certificate: UnknownIssuer"));
        for good in [&[our][..], &[other, our], &[], &[other, &leaf.details.der]] {
            assert_eq!(refused(good), None);
        }
    }

    #[test]
    fn what_is_signed_by_an_intermediate_needs_it_in_the_chain() {
        let now = SystemTime::now();
        let authority = |name: &str| {
            let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
            (params, rcgen::KeyPair::generate().unwrap())
        };
        let (root_params, root_key) = authority("root");
        let root = root_params.self_signed(&root_key).unwrap();
        let root_issuer = rcgen::Issuer::new(root_params, root_key);
        let (params, key) = authority("intermediate");
        let intermediate = params.signed_by(&key, &root_issuer).unwrap();
        let issuer = rcgen::Issuer::new(params, key);
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![NAME.to_owned()]).unwrap();
        let leaf = params.signed_by(&key, &issuer).unwrap();
        let chain = [leaf.der().clone(), intermediate.der().clone()];
        let name = NAME.to_owned();
        let refused = |served: &[CertificateDer<'static>]| {
            refusal(&[root.der().clone()], served, Some(&name), now).is_some()
        };
        assert!(!refused(&chain));
        assert!(refused(&chain[..1]));
    }
}
