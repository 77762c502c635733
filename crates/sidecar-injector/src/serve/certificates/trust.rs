//! Whether the webhooks trust a certificate that others made: looked at, never written.
//!
//! Who upgrades to certificates that no webhook trusts keeps the old replicas, which are: new ones do not become ready.

use std::ops::RangeInclusive;
use std::time::SystemTime;

use kube::Client;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, Error, RootCertStore};
use tracing::warn;
use x509_parser::public_key::PublicKey;

use super::bundle::{Bundles, ConfigurationKind};

/// Bits of the RSA keys that our library reads. Signatures of others it calls wrong.
const RSA: RangeInclusive<usize> = 2048..=8192;

/// What is known of the webhooks that call this process.
pub(super) struct Trust {
    bundles: Bundles,
    said: Option<String>,
}

impl Trust {
    pub(super) fn watch(client: &Client, configurations: &[(ConfigurationKind, String)]) -> Self {
        Trust { bundles: Bundles::watch(client, configurations), said: None }
    }

    /// Waits until there may be something else to say.
    pub(super) async fn changed(&mut self) {
        self.bundles.changed().await;
    }

    /// Why the API server does not take what is served, a certificate and its chain, or why that is not known yet.
    pub(super) fn look(&mut self, served: &[CertificateDer<'static>], now: SystemTime) -> Option<String> {
        self.bundles.look(&[]);
        let problem = self.bundles.distrust_of_others(|bundle| refusal(bundle, served, now));
        if let Some(problem) = problem.as_ref().filter(|problem| self.said.as_ref() != Some(problem)) {
            warn!(event = "not_trusted_yet", problem, "a replica that starts now is not ready");
        }
        self.said.clone_from(&problem);
        problem
    }
}

/// Why a bundle does not verify what is served, as far as that is beyond doubt: what our library is stricter about than the API
/// server's does not count. The name is not looked at.
fn refusal(
    bundle: &[CertificateDer<'static>],
    served: &[CertificateDer<'static>],
    now: SystemTime,
) -> Option<Error> {
    let (certificate, chain) = served.split_first()?;
    // Without a bundle the API server's own CA certificates count. One that is its own CA need not be a CA.
    if bundle.is_empty() || bundle.contains(certificate) || !bundle.iter().chain(served).all(is_understood) {
        return None;
    }
    let mut roots = RootCertStore::empty();
    let (_, unreadable) = roots.add_parsable_certificates(bundle.iter().cloned());
    let parsed = ParsedCertificate::try_from(certificate).ok().filter(|_| unreadable == 0)?;
    let now = UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
    let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
    let verified = verify_server_cert_signed_by_trust_anchor(&parsed, &roots, chain, now, algorithms.all);
    verified.err().filter(|error| {
        use CertificateError::{BadSignature, UnknownIssuer};
        matches!(error, Error::InvalidCertificate(UnknownIssuer | BadSignature))
    })
}

/// Whether our library reads it, and its key.
fn is_understood(certificate: &CertificateDer<'_>) -> bool {
    let parsed = x509_parser::parse_x509_certificate(certificate);
    parsed.is_ok_and(|(_, parsed)| match parsed.public_key().parsed() {
        Ok(PublicKey::RSA(key)) => RSA.contains(&key.key_size()),
        Ok(_) => true,
        Err(_) => false,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use kube::api::DynamicObject;
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
    use serde_json::json;
    use tokio::sync::watch;

    use super::super::object::Seen;
    use super::*;

    /// A certificate, and what signs others in its name.
    struct Authority {
        der: CertificateDer<'static>,
        issuer: Issuer<'static, KeyPair>,
    }

    fn authority(name: &str, by: Option<&Authority>) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let signed = match by {
            Some(by) => params.signed_by(&key, &by.issuer),
            None => params.self_signed(&key),
        };
        Authority { der: signed.unwrap().der().clone(), issuer: Issuer::new(params, key) }
    }

    fn leaf(by: &Authority) -> CertificateDer<'static> {
        let params = CertificateParams::new(vec!["injector.default.svc".to_owned()]).unwrap();
        params.signed_by(&KeyPair::generate().unwrap(), &by.issuer).unwrap().der().clone()
    }

    fn refused(bundle: &[&CertificateDer<'static>], served: &[&CertificateDer<'static>]) -> Option<Error> {
        let owned =
            |all: &[&CertificateDer<'static>]| all.iter().map(|der| (*der).clone()).collect::<Vec<_>>();
        refusal(&owned(bundle), &owned(served), SystemTime::now())
    }

    #[test]
    fn a_bundle_that_has_another_ca_does_not_verify_and_one_that_is_empty_says_nothing() {
        let (ours, other, of_our_name) =
            (authority("ours", None), authority("other", None), authority("ours", None));
        let leaf = leaf(&ours);
        let is_refused = |bundle: &[&CertificateDer<'static>]| refused(bundle, &[&leaf]).is_some();
        assert!(is_refused(&[&other.der]) && is_refused(&[&of_our_name.der]));
        for good in [&[&ours.der][..], &[&other.der, &ours.der], &[], &[&other.der, &leaf]] {
            assert!(!is_refused(good));
        }
    }

    #[test]
    fn what_is_signed_by_an_intermediate_needs_it_in_the_chain() {
        let root = authority("root", None);
        let intermediate = authority("intermediate", Some(&root));
        let leaf = leaf(&intermediate);
        assert!(refused(&[&root.der], &[&leaf, &intermediate.der]).is_none());
        assert!(refused(&[&root.der], &[&leaf]).is_some());
    }

    #[test]
    fn what_our_library_does_not_read_is_no_refusal() {
        // A CA with such a key (openssl req -x509 -newkey rsa:1024 -days 36500), and what it signed (openssl x509 -req -CA).
        let short = pem::parse_many(include_str!("testdata/rsa-1024.pem")).unwrap();
        let [short, signed] = &short[..] else { panic!("two certificates") };
        let [short, signed] = [short, signed].map(|pem| CertificateDer::from(pem.contents().to_vec()));
        let other = authority("other", None);
        assert!(refused(&[&other.der], &[&signed]).is_some());
        let nonsense = CertificateDer::from(vec![0x30, 0]);
        for doubtful in [&short, &nonsense] {
            assert!(refused(&[doubtful], &[&signed]).is_none());
            assert!(refused(&[&other.der, doubtful], &[&signed]).is_none());
        }
    }

    #[tokio::test]
    async fn what_is_seen_counts_and_what_is_not_is_waited_for_unless_the_right_is_missing() {
        let (ours, other) = (authority("ours", None), authority("other", None));
        let served = [leaf(&ours)];
        let present = |ca: &CertificateDer<'static>| {
            let bundle = STANDARD.encode(pem::encode(&pem::Pem::new("CERTIFICATE", ca.to_vec())));
            let mut object = DynamicObject::new(
                "injector",
                &kube::api::ApiResource::erase::<k8s_openapi::api::core::v1::Pod>(&()),
            );
            object.data = json!({"webhooks": [{"name": "pods", "clientConfig": {"caBundle": bundle}}]});
            Seen::Present(Arc::new(object))
        };
        let (mutating, validating) = (watch::Sender::new(Seen::Unknown), watch::Sender::new(Seen::Unknown));
        let bundles = Bundles::shown([
            (ConfigurationKind::Mutating, mutating.subscribe()),
            (ConfigurationKind::Validating, validating.subscribe()),
        ]);
        let mut trust = Trust { bundles, said: None };
        let mut look = || trust.look(&served, SystemTime::now()).unwrap_or_default();
        assert!(look().contains("MutatingWebhookConfiguration injector: not seen so far"));
        validating.send_replace(present(&other.der));
        assert!(
            look()
                .contains("ValidatingWebhookConfiguration injector: the caBundle of pods does not verify it")
        );
        validating.send_replace(present(&ours.der));
        assert!(look().contains("MutatingWebhookConfiguration injector: not seen so far"));
        for fine in [Seen::Forbidden, Seen::Missing, present(&ours.der)] {
            mutating.send_replace(fine);
            assert_eq!(look(), "");
        }
        mutating.send_replace(present(&other.der));
        assert!(look().contains("does not verify it"));
        // It wakes whoever waits.
        validating.send_replace(Seen::Missing);
        tokio::time::timeout(Duration::from_secs(5), trust.changed()).await.unwrap();
    }
}
