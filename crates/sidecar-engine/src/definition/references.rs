//! What no single field shows: names that are taken or lead nowhere, selectors that match nobody, and the rest of what
//! Kubernetes would refuse in every pod.
//!
//! Works on the document as it was written, whatever else is wrong with it. A value of the wrong type is somebody else's
//! finding, one with an expression nobody's before there is a pod.

mod gates;
mod metadata;
mod parameters;
mod pod;
mod selector;

pub(crate) use metadata::never_injected;

use std::collections::HashSet;

use super::{FieldPath, Problem, ProblemCode};
use crate::json::Json;
use crate::names;
use crate::suggestion::nearest;

pub(super) fn check(definition: &Json<'static>, problems: &mut Vec<Problem>) {
    let mut report = Report { problems };
    let top = At { json: definition, path: FieldPath::default() };
    let Some(spec) = top.field("spec") else { return };
    let is_namespaced = top.field("kind").and_then(|kind| kind.text()) == Some("SidecarDefinition");
    if let Some(selector) = spec.field("selector") {
        selector::check(&selector, is_namespaced, &mut report);
    }
    parameters::check(&spec.items("parameters"), &mut report);
    let inject = spec.field("inject");
    if let Some(metadata) = inject.as_ref().and_then(|inject| inject.field("metadata")) {
        metadata::check(&metadata, &mut report);
    }
    gates::check(&spec, &mut report);
    pod::check(&spec, &mut report);
    if spec.json.fields().is_some() && is_without_effect(&spec) {
        let message = "the definition does nothing: nothing is injected and nothing is patched";
        report.add(ProblemCode::MissingField, &spec.path.field("inject"), message);
    }
}

/// A value and where it is.
struct At<'j> {
    json: &'j Json<'static>,
    path: FieldPath,
}

impl<'j> At<'j> {
    fn field(&self, name: &str) -> Option<At<'j>> {
        let json = self.json.get(name)?;
        Some(At { json, path: self.path.field(name) })
    }

    /// The items of a list below this; none when there is no list.
    fn items(&self, name: &str) -> Vec<At<'j>> {
        let Some(items) = self.json.get(name).and_then(Json::items) else { return Vec::new() };
        let path = self.path.field(name);
        items.iter().enumerate().map(|(index, json)| At { json, path: path.item(index) }).collect()
    }

    /// The fields of a map below this; none when there is no map.
    fn entries(&self, name: &str) -> Vec<(&'j str, At<'j>)> {
        let Some(fields) = self.json.get(name).and_then(Json::fields) else { return Vec::new() };
        let path = self.path.field(name);
        fields.iter().map(|(key, json)| (&**key, At { json, path: path.field(key) })).collect()
    }

    fn text(&self) -> Option<&'j str> {
        match self.json {
            Json::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The text, unless it is known only when there is a pod.
    fn settled(&self) -> Option<&'j str> {
        self.text().filter(|text| !text.contains("${"))
    }

    fn is_expression(&self) -> bool {
        self.text().is_some_and(|text| text.contains("${"))
    }
}

/// The problems found so far.
struct Report<'p> {
    problems: &'p mut Vec<Problem>,
}

impl Report<'_> {
    fn add(&mut self, code: ProblemCode, path: &FieldPath, message: impl Into<String>) {
        self.problems.push(Problem::new(code, path.clone(), message));
    }

    fn suggest(&mut self, code: ProblemCode, path: &FieldPath, message: String, suggestion: Option<String>) {
        self.problems.push(Problem { suggestion, ..Problem::new(code, path.clone(), message) });
    }

    /// A name that must be a DNS label.
    fn label(&mut self, name: &At<'_>) {
        if let Some(text) = name.settled().filter(|text| !names::is_label(text)) {
            let message =
                format!("{text:?} is no DNS label: lower-case letters, digits and inner hyphens, at most 63");
            self.suggest(ProblemCode::InvalidName, &name.path, message, names::nearest_label(text));
        }
    }

    /// Names that are there already.
    fn unique<'k>(&mut self, what: &str, keys: impl IntoIterator<Item = (String, &'k FieldPath)>) {
        let mut known = HashSet::new();
        for (key, path) in keys {
            if known.contains(&key) {
                self.add(ProblemCode::DuplicateName, path, format!("there is a {what} {key:?} already"));
            } else {
                known.insert(key);
            }
        }
    }

    /// Texts below a field of items, that must be there once.
    fn unique_field(&mut self, what: &str, items: &[At<'_>], name: &str) {
        let found: Vec<_> = items.iter().filter_map(|item| item.field(name)).collect();
        let keys = found.iter().filter_map(|at| Some((at.settled()?.to_owned(), &at.path)));
        self.unique(what, keys);
    }

    /// Something that is not among what the definition has.
    fn dangling(&mut self, path: &FieldPath, message: String, name: &str, known: &[&str]) {
        let suggestion = nearest(name, known.iter().copied()).map(ToOwned::to_owned);
        self.suggest(ProblemCode::DanglingReference, path, message, suggestion);
    }

    /// The key and the value of a label.
    fn label_pair(&mut self, key: &str, value: &At<'_>) {
        self.label_key(key, &value.path);
        self.label_value(value);
    }

    fn label_key(&mut self, key: &str, path: &FieldPath) {
        if !names::is_key(key) && !key.contains("${") {
            self.add(ProblemCode::InvalidName, path, format!("{key:?} cannot be the key of a label"));
        }
    }

    fn label_value(&mut self, value: &At<'_>) {
        if let Some(text) = value.settled().filter(|text| !names::is_label_value(text)) {
            let message = format!(
                "{text:?} cannot be the value of a label: letters, digits and inner '-', '_', '.', at most 63"
            );
            self.add(ProblemCode::InvalidValue, &value.path, message);
        }
    }
}

/// Whether a pod would stay as it is.
fn is_without_effect(spec: &At<'_>) -> bool {
    let is_empty = |json: &Json<'_>| match json {
        Json::Object(fields) => fields.is_empty(),
        Json::List(items) => items.is_empty(),
        Json::Null => true,
        _ => false,
    };
    let is_hollow = |json: &Json<'_>| match json {
        Json::Object(fields) => fields.iter().all(|(_, value)| is_empty(value)),
        other => is_empty(other),
    };
    let of_pods = match spec.json.get("inject") {
        Some(Json::Object(parts)) => parts.iter().all(|(_, part)| is_hollow(part)),
        other => other.is_none(),
    };
    let is_head = |patch: &Json<'_>| {
        let fields = patch.fields()?;
        Some(fields.iter().all(|(key, _)| matches!(&**key, "names" | "kinds" | "onConflict")))
    };
    let of_containers = match spec.json.get("patchContainers") {
        Some(Json::List(patches)) => patches.iter().all(|patch| is_head(patch).unwrap_or_default()),
        other => other.is_none(),
    };
    of_pods && of_containers
}
