//! A certificate authority and the serving certificate that it signs: made, read back from PEM, looked at.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

/// Certificates are valid from a while ago: an API server whose clock is behind must take them, too.
const BACKDATED: Duration = Duration::from_hours(1);

/// The most characters that the common name of a certificate can have (RFC 5280, ub-common-name).
const COMMON_NAME: usize = 64;

/// What is wrong with a certificate, or with its key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificateError {
    #[error("no certificate in PEM form")]
    NoCertificate,
    #[error("no private key in PEM form")]
    NoKey,
    #[error("the private key does not belong to the certificate")]
    Mismatch,
    #[error("the certificate cannot be used: {0}")]
    Unusable(rustls::Error),
    #[error("the certificate cannot be read")]
    Unreadable,
    #[error("a certificate could not be made: {0}")]
    NotMade(#[from] rcgen::Error),
}

/// A certificate with its private key, as they are stored and served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pair {
    /// One certificate, or a chain with the server's first; PEM.
    pub(crate) certificate: String,
    /// PEM.
    pub(crate) private_key: String,
}

/// What is looked at in a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Details {
    pub(crate) der: CertificateDer<'static>,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
    /// The DNS names and IP addresses that it is for.
    pub(crate) names: BTreeSet<String>,
}

impl Details {
    /// Of the first certificate in a PEM text.
    pub(crate) fn of_pem(certificate: &str) -> Result<Self, CertificateError> {
        let der = CertificateDer::from_pem_slice(certificate.as_bytes());
        Details::of(der.map_err(|_| CertificateError::NoCertificate)?)
    }

    pub(crate) fn of(der: CertificateDer<'static>) -> Result<Self, CertificateError> {
        let (_, parsed) = X509Certificate::from_der(&der).map_err(|_| CertificateError::Unreadable)?;
        let names = parsed.subject_alternative_name().map_err(|_| CertificateError::Unreadable)?;
        let names = names.iter().flat_map(|names| &names.value.general_names);
        let names = names.filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => match **bytes {
                [a, b, c, d] => Some(Ipv4Addr::new(a, b, c, d).to_string()),
                _ => <[u8; 16]>::try_from(*bytes).ok().map(|bytes| Ipv6Addr::from(bytes).to_string()),
            },
            _ => None,
        });
        let names = names.collect();
        let moment = |seconds: i64| {
            let seconds = Duration::from_secs(seconds.unsigned_abs());
            SystemTime::UNIX_EPOCH.checked_add(seconds).unwrap_or(SystemTime::UNIX_EPOCH)
        };
        let not_before = moment(parsed.validity().not_before.timestamp().max(0));
        let not_after = moment(parsed.validity().not_after.timestamp().max(0));
        Ok(Details { der, not_before, not_after, names })
    }

    /// Whether it is for this DNS name, be it by a wildcard.
    pub(crate) fn is_for(&self, name: &str) -> bool {
        let wildcard = name.split_once('.').map(|(_, domain)| format!("*.{domain}"));
        self.names.contains(name) || wildcard.is_some_and(|wildcard| self.names.contains(&wildcard))
    }

    /// How long it is valid from now on; nothing when it has expired.
    pub(crate) fn remaining(&self, now: SystemTime) -> Duration {
        self.not_after.duration_since(now).unwrap_or_default()
    }

    /// How long ago one of ours was made.
    pub(crate) fn age(&self, now: SystemTime) -> Duration {
        now.duration_since(self.not_before + BACKDATED).unwrap_or_default()
    }

    pub(crate) fn is_valid(&self, now: SystemTime) -> bool {
        self.not_before <= now && now < self.not_after
    }
}

impl Pair {
    /// The same as rustls wants it. Refuses a key that does not belong to the certificate.
    pub(crate) fn certified_key(&self) -> Result<CertifiedKey, CertificateError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(self.certificate.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|_| CertificateError::NoCertificate)?;
        if chain.is_empty() {
            return Err(CertificateError::NoCertificate);
        }
        let key = PrivateKeyDer::from_pem_slice(self.private_key.as_bytes())
            .map_err(|_| CertificateError::NoKey)?;
        CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => CertificateError::Mismatch,
            error => CertificateError::Unusable(error),
        })
    }
}

/// A serving certificate whose key belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leaf {
    pub(crate) pair: Pair,
    pub(crate) details: Details,
}

impl Leaf {
    pub(crate) fn read(pair: Pair) -> Result<Self, CertificateError> {
        pair.certified_key()?;
        Ok(Leaf { details: Details::of_pem(&pair.certificate)?, pair })
    }
}

/// A certificate authority: who has its key can sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Authority {
    pub(crate) pair: Pair,
    pub(crate) details: Details,
}

impl Authority {
    /// A new one, valid for as long as said from now on. Its key is an ECDSA key on P-256, the cheapest for handshakes
    /// of those that every API server takes.
    pub(crate) fn make(lifetime: Duration, now: SystemTime) -> Result<Self, CertificateError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        set_validity(&mut params, now, now + lifetime);
        // Another name for each: whoever looks at a bundle of two can tell them apart.
        let identifier = params.key_identifier(&key);
        let identifier = identifier.first_chunk().copied().map(u32::from_be_bytes).unwrap_or_default();
        params.distinguished_name = common_name(&format!("sidecar-injector CA {identifier:08x}"));
        let certificate = params.self_signed(&key)?;
        let pair = Pair { certificate: certificate.pem(), private_key: key.serialize_pem() };
        Ok(Authority { details: Details::of_pem(&pair.certificate)?, pair })
    }

    /// Reads one back.
    pub(crate) fn read(pair: Pair) -> Result<Self, CertificateError> {
        pair.certified_key()?;
        Ok(Authority { details: Details::of_pem(&pair.certificate)?, pair })
    }

    /// A serving certificate with a key of its own. It does not outlive its authority.
    pub(crate) fn issue(
        &self,
        names: &[String],
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Leaf, CertificateError> {
        let authority_key = KeyPair::from_pem(&self.pair.private_key)?;
        let issuer = Issuer::from_ca_cert_der(&self.details.der, authority_key)?;
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, now, (now + lifetime).min(self.details.not_after));
        // For people; what counts is the alternative names.
        let first: String = names.iter().flat_map(|name| name.chars()).take(COMMON_NAME).collect();
        params.distinguished_name = common_name(&first);
        let certificate = params.signed_by(&key, &issuer)?;
        let pair = Pair { certificate: certificate.pem(), private_key: key.serialize_pem() };
        Leaf::read(pair)
    }
}

fn set_validity(params: &mut CertificateParams, now: SystemTime, not_after: SystemTime) {
    let not_before = now.checked_sub(BACKDATED).unwrap_or(SystemTime::UNIX_EPOCH);
    params.not_before = OffsetDateTime::from(not_before);
    params.not_after = OffsetDateTime::from(not_after);
}

fn common_name(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}
