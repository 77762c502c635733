//! AdmissionReview bytes to a borrowed request, and the decision back to response bytes.
//!
//! The envelope is strict (an API server that sends another one is not speaking this protocol), the object in it is
//! not: see [`crate::json`]. Nothing of the request goes into the response but its uid.

mod audit;
mod definition;

pub use definition::{DefinitionReviewed, review_definition};

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use serde::{Deserialize, Serialize};

use crate::decision::{Decision, Reason};
use crate::error::ReviewError;
use crate::json::Json;
use crate::patch::Patch;
use crate::pod::{self, Pod};

const GROUP: &str = "admission.k8s.io/";

/// kubectl shows warnings; 120 characters is what the API conventions recommend.
const WARNING_LENGTH: usize = 120;

/// A request that can be answered.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    api_version: &'static str,
    pub(crate) uid: Cow<'a, str>,
    pub(crate) namespace: Cow<'a, str>,
    pub(crate) dry_run: bool,
    /// The pod, or why the review is none of ours.
    pub(crate) pod: Result<Pod<'a>, Reason>,
    /// Known also where there is no pod to work on.
    pub(crate) name: Cow<'a, str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[serde(bound(deserialize = "O: Deserialize<'de> + Default"))]
struct Envelope<'a, O> {
    #[serde(borrow, default)]
    api_version: Cow<'a, str>,
    #[serde(borrow, default)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    request: Option<Body<'a, O>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[serde(bound(deserialize = "O: Deserialize<'de> + Default"))]
struct Body<'a, O> {
    #[serde(borrow, default)]
    uid: Cow<'a, str>,
    #[serde(borrow, default)]
    kind: GroupVersionKind<'a>,
    #[serde(borrow, default)]
    sub_resource: Cow<'a, str>,
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    namespace: Cow<'a, str>,
    #[serde(borrow, default)]
    operation: Cow<'a, str>,
    #[serde(default)]
    dry_run: Option<bool>,
    /// The object, as far as its reader wants to know it.
    #[serde(default)]
    object: O,
}

/// What of a pod is read.
#[derive(Deserialize)]
#[serde(transparent)]
struct PodObject<'a>(#[serde(borrow, deserialize_with = "pod::read")] Json<'a>);

impl Default for PodObject<'_> {
    fn default() -> Self {
        PodObject(Json::Null)
    }
}

#[derive(Deserialize, Default)]
struct GroupVersionKind<'a> {
    #[serde(borrow, default)]
    group: Cow<'a, str>,
    #[serde(borrow, default)]
    version: Cow<'a, str>,
    #[serde(borrow, default)]
    kind: Cow<'a, str>,
}

/// Reads a review's envelope, once and in one pass: the version to answer in, and the request.
fn open<'a, O: Deserialize<'a> + Default>(
    bytes: &'a [u8],
) -> Result<(&'static str, Body<'a, O>), ReviewError> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(ReviewError::Empty);
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|error| ReviewError::NotUtf8 { valid_up_to: error.valid_up_to() })?;
    let envelope: Envelope<'_, O> = serde_json::from_str(text).map_err(|error| malformed(&error))?;
    if envelope.kind != "AdmissionReview" {
        return Err(ReviewError::NotAReview { kind: envelope.kind.into_owned() });
    }
    let api_version = match envelope.api_version.strip_prefix(GROUP) {
        Some("v1") => "admission.k8s.io/v1",
        Some("v1beta1") => "admission.k8s.io/v1beta1",
        _ => return Err(ReviewError::UnknownVersion { version: envelope.api_version.into_owned() }),
    };
    let body = envelope.request.ok_or(ReviewError::NoRequest)?;
    if body.uid.is_empty() {
        return Err(ReviewError::NoUid);
    }
    Ok((api_version, body))
}

pub(crate) fn malformed(error: &serde_json::Error) -> ReviewError {
    ReviewError::Malformed { line: error.line(), column: error.column(), problem: error.to_string() }
}

/// Reads the review of a pod.
pub(crate) fn parse(bytes: &[u8]) -> Result<Request<'_>, ReviewError> {
    let (api_version, body) = open::<PodObject<'_>>(bytes)?;
    let kind = (&*body.kind.group, &*body.kind.version, &*body.kind.kind);
    let pod = if kind != ("", "v1", "Pod") {
        Err(Reason::NotAPod)
    } else if !body.sub_resource.is_empty() {
        Err(Reason::Subresource)
    } else if body.operation != "CREATE" {
        Err(Reason::NotCreate)
    } else {
        match body.object.0 {
            Json::Null => Err(Reason::NoObject),
            json @ Json::Object(_) => Ok(Pod { json, ..Pod::default() }),
            _ => Err(Reason::MalformedPod),
        }
    };
    Ok(Request {
        api_version,
        uid: body.uid,
        namespace: body.namespace,
        dry_run: body.dry_run.unwrap_or(false),
        pod,
        name: body.name,
    })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    api_version: &'static str,
    kind: &'static str,
    response: Response<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Response<'a> {
    uid: &'a str,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
    /// Never without `patch`: the API server refuses one without the other.
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    audit_annotations: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct Status {
    /// Without a code the API server makes it 400, as if the caller's request had been malformed.
    code: u16,
    /// For programs; the API server makes one up from the code where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    message: String,
}

/// A response, and how large the patch in it is before it is encoded.
pub(crate) struct Written {
    pub(crate) response: Vec<u8>,
    pub(crate) patch_bytes: usize,
}

/// Writes the answer to a request.
pub(crate) fn respond(
    request: &Request<'_>,
    decisions: &[Decision<'_>],
    patch: &Patch<'_>,
    denied: bool,
) -> serde_json::Result<Written> {
    let missed = || decisions.iter().filter(|decision| decision.is_missed());
    // Only those that deny; the others would not have stopped the pod.
    let causes = || {
        missed().filter(|decision| decision.denies).map(ToString::to_string).collect::<Vec<_>>().join("; ")
    };
    let patch = (!denied && !patch.is_empty()).then(|| patch.to_json(""));
    let patch_bytes = patch.as_ref().map_or(0, String::len);
    let patch = patch.map(|patch| base64::engine::general_purpose::STANDARD.encode(patch));
    let response = serde_json::to_vec(&Answer {
        api_version: request.api_version,
        kind: "AdmissionReview",
        response: Response {
            uid: &request.uid,
            allowed: !denied,
            status: denied.then(|| Status { code: 403, reason: None, message: causes() }),
            patch_type: patch.as_ref().map(|_| "JSONPatch"),
            patch,
            warnings: missed().map(|decision| printable(&decision.to_string(), WARNING_LENGTH)).collect(),
            audit_annotations: audit::annotations(decisions, denied),
        },
    })?;
    Ok(Written { response, patch_bytes })
}

/// One line of at most so many characters. The API server drops warnings with control characters, and cuts long ones.
pub(crate) fn printable(text: &str, length: usize) -> String {
    let mut characters = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut text: String = characters.by_ref().take(length).collect();
    if characters.next().is_some() {
        text.pop();
        text.push('…');
    }
    text
}
