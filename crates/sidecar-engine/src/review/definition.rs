//! Reviews of definitions: refused before they are stored, with everything that is wrong with them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Answer, Response, Status, malformed, open};
use crate::definition::{Compiled, DefinitionName, Kind, Problem, ReadOptions, read_json};
use crate::error::ReviewError;

/// The group of the definition kinds.
const GROUP: &str = "sidecar.me";

/// An answered review of a definition, with what a log line says about it.
#[derive(Debug)]
pub struct DefinitionReviewed<'a> {
    /// The response, in JSON.
    pub response: Vec<u8>,
    /// The request's uid.
    pub uid: Cow<'a, str>,
    /// The kind of the object.
    pub kind: Cow<'a, str>,
    /// The object's namespace; empty where it has none.
    pub namespace: Cow<'a, str>,
    /// The object's name.
    pub name: Cow<'a, str>,
    /// What is wrong with it; it was denied if there is anything.
    pub problems: Vec<Problem>,
}

/// The object as it stands in the review, to be read as any definition's text.
#[derive(Deserialize, Default)]
#[serde(transparent)]
struct Object<'a>(#[serde(borrow)] Option<&'a RawValue>);

/// What says that somebody has deleted the object already and its finalizers are waited for.
#[derive(Deserialize)]
struct Deleted<'a> {
    #[serde(borrow)]
    metadata: DeletedMetadata<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DeletedMetadata<'a> {
    #[serde(borrow)]
    deletion_timestamp: Option<&'a RawValue>,
}

/// Answers the AdmissionReview of a definition. Everything that is none of ours is allowed, and so are what has nothing
/// wrong with it and what is being deleted. `taken` says where a definition of that name is served from, if not from the
/// cluster's objects.
///
/// # Errors
/// The body is not a review that could be answered; the caller says so with status 400.
pub fn review_definition<'a>(
    body: &'a [u8],
    options: ReadOptions,
    taken: impl FnOnce(&DefinitionName) -> Option<String>,
) -> Result<DefinitionReviewed<'a>, ReviewError> {
    let (api_version, request) = open::<Object<'a>>(body)?;
    let kinds = [Kind::ClusterSidecarDefinition, Kind::SidecarDefinition];
    let is_ours = request.kind.group == GROUP
        && kinds.iter().any(|kind| kind.as_str() == request.kind.kind)
        && request.sub_resource.is_empty()
        && matches!(&*request.operation, "CREATE" | "UPDATE");
    let is_leaving = |object: &RawValue| request.operation == "UPDATE" && is_deleted(object.get());
    let problems = match request.object.0.filter(|object| is_ours && !is_leaving(object)) {
        Some(object) => problems(object.get(), options, taken),
        None => Vec::new(),
    };
    let message = || problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    let is_denied = !problems.is_empty();
    let response = serde_json::to_vec(&Answer {
        api_version,
        kind: "AdmissionReview",
        response: Response {
            uid: &request.uid,
            allowed: !is_denied,
            status: is_denied.then(|| Status { code: 422, reason: Some("Invalid"), message: message() }),
            patch_type: None,
            patch: None,
            warnings: Vec::new(),
            audit_annotations: BTreeMap::new(),
        },
    });
    Ok(DefinitionReviewed {
        response: response.map_err(|error| malformed(&error))?,
        uid: request.uid,
        kind: request.kind.kind,
        namespace: request.namespace,
        name: request.name,
        problems,
    })
}

/// A finalizer is taken off by an update. Refused, an object that is wrong (it was stored while no injector was asked, or by
/// an older one) could never go. Only the API server sets the field, so it is no way in for anybody.
fn is_deleted(object: &str) -> bool {
    serde_json::from_str(object).is_ok_and(|object: Deleted<'_>| object.metadata.deletion_timestamp.is_some())
}

fn problems(
    object: &str,
    options: ReadOptions,
    taken: impl FnOnce(&DefinitionName) -> Option<String>,
) -> Vec<Problem> {
    match read_json(object, &options).and_then(Compiled::new) {
        Ok(definition) => {
            let name = definition.full_name();
            taken(&name).map(|other| Problem::name_taken(&name, &other)).into_iter().collect()
        }
        Err(problems) => problems,
    }
}
