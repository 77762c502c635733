//! Whether the webhooks trust a certificate that others made: looked at, never written.
//!
//! Who upgrades to certificates that no webhook trusts keeps the old replicas, which are: new ones do not become ready.

use std::ops::RangeInclusive;
use std::time::SystemTime;

use kube::Client;
use rustls::CertificateError::{BadSignature, UnknownIssuer};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{Error, RootCertStore};
use tracing::{info, warn};
use x509_parser::public_key::PublicKey;

use super::Distrust;
use super::authority::Details;
use super::bundle::{Bundles, ConfigurationKind};

/// Bits of the RSA keys that our library reads. Signatures of others it calls wrong.
const RSA: RangeInclusive<usize> = 2048..=8192;

/// What is known of the webhooks that call this process.
pub(super) struct Trust {
    bundles: Bundles,
    said: Option<Distrust>,
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
    pub(super) fn look(&mut self, served: &[CertificateDer<'static>], now: SystemTime) -> Option<Distrust> {
        self.bundles.look(&[]);
        let distrust = self.bundles.distrust_of_others(|bundle| refusal(bundle, served, now));
        if self.said != distrust {
            self.say(distrust.as_ref());
        }
        distrust
    }

    fn say(&mut self, distrust: Option<&Distrust>) {
        match distrust {
            // Why, is said where it is looked at.
            Some(Distrust::Unseen(_)) => return,
            Some(Distrust::Nobody(problem)) => {
                warn!(event = "not_trusted_yet", problem, "nothing is injected until something writes it");
            }
            Some(Distrust::Refused(problem)) => {
                warn!(event = "not_trusted_yet", problem, "a replica that starts now is not ready");
            }
            None => info!(event = "trusted", "every webhook trusts the certificate"),
        }
        self.said = distrust.cloned();
    }
}

/// Why a bundle does not verify what is served, as far as that is beyond doubt: what our library is stricter about than the API
/// server's does not count. The name is not looked at.
fn refusal(
    bundle: &[CertificateDer<'static>],
    served: &[CertificateDer<'static>],
    now: SystemTime,
) -> Option<String> {
    let (certificate, chain) = served.split_first()?;
    // One that is its own CA need not be a CA.
    if bundle.contains(certificate) || !bundle.iter().chain(served).all(is_understood) {
        return None;
    }
    let mut roots = RootCertStore::empty();
    // The API server looks at the dates of a root as well, our library does not.
    let (valid, invalid): (Vec<_>, Vec<_>) = bundle.iter().cloned().partition(|root| is_valid(root, now));
    let (_, unreadable) = roots.add_parsable_certificates(valid);
    let parsed = ParsedCertificate::try_from(certificate).ok().filter(|_| unreadable == 0)?;
    let now = UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
    let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
    let verified = verify_server_cert_signed_by_trust_anchor(&parsed, &roots, chain, now, algorithms.all);
    match verified {
        // The second is a CA of the right name with another key.
        Err(Error::InvalidCertificate(UnknownIssuer | BadSignature)) => Some(match invalid.len() {
            0 => "none of its CA certificates signed it".to_owned(),
            _ => "none of its CA certificates that are valid now signed it".to_owned(),
        }),
        _ => None,
    }
}

fn is_valid(certificate: &CertificateDer<'static>, now: SystemTime) -> bool {
    // One whose dates we cannot read may have good ones.
    let details = Details::of(certificate.clone()).ok();
    details.is_none_or(|details| (details.not_before..=details.not_after).contains(&now))
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

    fn refused(bundle: &[&CertificateDer<'static>], served: &[&CertificateDer<'static>]) -> Option<String> {
        refused_at(SystemTime::now(), bundle, served)
    }

    fn refused_at(
        now: SystemTime,
        bundle: &[&CertificateDer<'static>],
        served: &[&CertificateDer<'static>],
    ) -> Option<String> {
        let owned =
            |all: &[&CertificateDer<'static>]| all.iter().map(|der| (*der).clone()).collect::<Vec<_>>();
        refusal(&owned(bundle), &owned(served), now)
    }

    #[test]
    fn a_bundle_that_has_another_ca_or_none_does_not_verify() {
        let (ours, other, of_our_name) =
            (authority("ours", None), authority("other", None), authority("ours", None));
        let leaf = leaf(&ours);
        let is_refused = |bundle: &[&CertificateDer<'static>]| refused(bundle, &[&leaf]).is_some();
        for bad in [&[][..], &[&other.der], &[&of_our_name.der]] {
            assert!(is_refused(bad));
        }
        for good in [&[&ours.der][..], &[&other.der, &ours.der], &[&other.der, &leaf]] {
            assert!(!is_refused(good));
        }
    }

    #[test]
    fn a_ca_that_has_expired_does_not_verify_and_a_new_one_of_its_key_does() {
        let (old, new) = (authority("ours", None), authority("ours", None));
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "ours");
        params.not_after = rcgen::date_time_ymd(2030, 1, 1);
        let ends = SystemTime::from(params.not_after);
        let expiring = params.self_signed(old.issuer.key()).unwrap().der().clone();
        let leaf = leaf(&old);
        let day = Duration::from_hours(24);
        assert_eq!(refused_at(ends - day, &[&expiring], &[&leaf]), None);
        let problem = refused_at(ends + day, &[&expiring], &[&leaf]).unwrap();
        assert_eq!(problem, "none of its CA certificates that are valid now signed it");
        assert!(refused_at(ends + day, &[&expiring, &new.der], &[&leaf]).is_some());
        assert_eq!(refused_at(ends + day, &[&expiring, &old.der], &[&leaf]), None);
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
        let client = |config: serde_json::Value| {
            let mut object = DynamicObject::new(
                "injector",
                &kube::api::ApiResource::erase::<k8s_openapi::api::core::v1::Pod>(&()),
            );
            object.data = json!({"webhooks": [{"name": "pods", "clientConfig": config}]});
            Seen::Present(Arc::new(object))
        };
        let with = |bundle: &str| client(json!({"caBundle": STANDARD.encode(bundle), "service": {}}));
        let present =
            |ca: &CertificateDer<'static>| with(&pem::encode(&pem::Pem::new("CERTIFICATE", ca.to_vec())));
        let (mutating, validating) = (watch::Sender::new(Seen::Unknown), watch::Sender::new(Seen::Unknown));
        let bundles = Bundles::shown([
            (ConfigurationKind::Mutating, mutating.subscribe()),
            (ConfigurationKind::Validating, validating.subscribe()),
        ]);
        let mut trust = Trust { bundles, said: None };
        let mut look = || trust.look(&served, SystemTime::now());
        let unseen = "MutatingWebhookConfiguration injector: not seen so far";
        let does_not = |problem: &str| {
            format!(
                "ValidatingWebhookConfiguration injector: the caBundle of pods does not verify it: {problem}"
            )
        };
        let signed = does_not("none of its CA certificates signed it");
        assert_eq!(look(), Some(Distrust::Unseen(unseen.to_owned())));
        validating.send_replace(present(&other.der));
        assert_eq!(look(), Some(Distrust::Refused(signed.clone())));
        for certain_soon in [present(&ours.der), client(json!({"service": {}}))] {
            validating.send_replace(certain_soon);
            assert_eq!(look(), Some(Distrust::Unseen(unseen.to_owned())));
        }
        mutating.send_replace(present(&ours.der));
        let broken = "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----";
        for (seen, expected) in [
            (Seen::Forbidden, None),
            (Seen::Missing, None),
            (present(&ours.der), None),
            (present(&other.der), Some(Distrust::Refused(signed.clone()))),
            (with("no PEM"), Some(Distrust::Refused(signed))),
            // The API server may find more in it.
            (with(broken), None),
            (
                client(json!({"caBundle": "", "service": {}})),
                Some(Distrust::Nobody(does_not("there is none"))),
            ),
            // A public CA may have signed it.
            (client(json!({"url": "https://injector.example.com"})), None),
        ] {
            validating.send_replace(seen);
            assert_eq!(look(), expected);
        }
        // It wakes whoever waits.
        validating.send_replace(Seen::Missing);
        tokio::time::timeout(Duration::from_secs(5), trust.changed()).await.unwrap();
    }
}
