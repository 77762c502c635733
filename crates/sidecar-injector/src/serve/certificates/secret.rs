//! The Secret that the replicas share: what is in it, and writing it without overwriting somebody else's.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::PostParams;

use super::authority::{Authority, CertificateError, Leaf, Pair};
use super::rotation::{Request, Step, Stored};

/// The article's names for the certificate and its key.
const LEAF: [&str; 2] = ["tls-cert-file", "tls-private-key-file"];
const AUTHORITY: [&str; 2] = ["ca.crt", "ca.key"];
const NEXT: [&str; 2] = ["next-ca.crt", "next-ca.key"];

/// An annotation that asks for a rotation, `leaf` or `ca`; taken off when it is done.
const ROTATE: &str = "sidecar.me/rotate";

/// Whose fields these are, in the eyes of server-side apply.
pub(super) const FIELD_MANAGER: &str = "sidecar-injector";

/// Reads what can be used; the rest is said.
pub(super) fn read(secret: &Secret) -> (Stored, Vec<String>) {
    let mut problems = Vec::new();
    let data = secret.data.as_ref();
    let mut pair = |[certificate, private_key]: [&str; 2]| {
        let text = |key: &str| {
            let bytes = &data?.get(key)?.0;
            Some(String::from_utf8_lossy(bytes).into_owned())
        };
        match (text(certificate), text(private_key)) {
            (Some(certificate), Some(private_key)) => Some(Pair { certificate, private_key }),
            (None, None) => None,
            (has_certificate, _) => {
                let missing = if has_certificate.is_some() { private_key } else { certificate };
                problems.push(format!("{missing} is missing"));
                None
            }
        }
    };
    let (authority, leaf, next) = (pair(AUTHORITY), pair(LEAF), pair(NEXT));
    let mut problem = |key: &str, error: &CertificateError| problems.push(format!("{key}: {error}"));
    let authority = authority
        .and_then(|pair| Authority::read(pair).inspect_err(|error| problem(AUTHORITY[0], error)).ok());
    let leaf = leaf.and_then(|pair| Leaf::read(pair).inspect_err(|error| problem(LEAF[0], error)).ok());
    let next = next.and_then(|pair| Authority::read(pair).inspect_err(|error| problem(NEXT[0], error)).ok());
    let annotations = secret.metadata.annotations.as_ref();
    let request = read_request(secret);
    if let (Some(what), None) = (annotations.and_then(|annotations| annotations.get(ROTATE)), request) {
        problems.push(format!("the annotation {ROTATE} can be leaf or ca, not {what:?}"));
    }
    (Stored { authority, leaf, next, request }, problems)
}

fn read_request(secret: &Secret) -> Option<Request> {
    match secret.metadata.annotations.as_ref()?.get(ROTATE)?.as_str() {
        "leaf" => Some(Request::Leaf),
        "ca" => Some(Request::Authority),
        _ => None,
    }
}

/// Stores what is to be shared, if the Secret is still the one that was read.
///
/// # Errors
/// Status 409: somebody else was faster, and the watch shows what they stored.
pub(super) async fn write(api: &Api<Secret>, read: &Secret, step: &Step) -> kube::Result<Secret> {
    let Step { certificates, why } = step;
    let mut secret = read.clone();
    if why.fulfils(read_request(read))
        && let Some(annotations) = &mut secret.metadata.annotations
    {
        annotations.remove(ROTATE);
    }
    let mut data: BTreeMap<String, ByteString> = BTreeMap::new();
    let mut put = |[certificate, private_key]: [&str; 2], pair: &Pair| {
        data.insert(certificate.to_owned(), ByteString(pair.certificate.clone().into_bytes()));
        data.insert(private_key.to_owned(), ByteString(pair.private_key.clone().into_bytes()));
    };
    put(AUTHORITY, &certificates.authority.pair);
    put(LEAF, &certificates.leaf.pair);
    if let Some(next) = &certificates.next {
        put(NEXT, &next.pair);
    }
    secret.data = Some(data);
    let name = secret.metadata.name.clone().unwrap_or_default();
    // The resource version that was read goes with it: this is the compare of compare-and-swap.
    let parameters = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    api.replace(&name, &parameters, &secret).await
}
