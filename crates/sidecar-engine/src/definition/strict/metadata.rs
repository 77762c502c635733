//! The metadata of definitions, and the metadata that they inject.

use super::{Check, Owner};
use crate::definition::{FieldPath, ProblemCode};
use crate::json::Json;
use crate::names;
use crate::shape::POD;

/// What can be injected of a pod's metadata.
const INJECTED: [&str; 2] = ["labels", "annotations"];

impl Check {
    /// An object from the API server has fields that only the API server sets; they are nobody's mistake.
    pub(super) fn metadata(&mut self, json: &Json<'_>, kind: Option<&str>) {
        let path = FieldPath::of("metadata");
        if json.fields().is_none() {
            self.wrong_type(&path, "a map", json);
            return;
        }
        self.fields(json, POD.fields("ObjectMeta"), &path, Owner::Definition);
        let field = |name: &str| json.get(name).and_then(Json::text);
        let name_path = path.field("name");
        match field("name") {
            // As an annotation's value these two are an opt in and an opt out.
            Some(name) if name == "true" || name == "false" => {
                let message = format!("{name:?} cannot be a definition's name, pods could not ask for it");
                self.report(ProblemCode::InvalidName, &name_path, message);
            }
            Some(name) => self.label(&name_path, &name),
            None if json.get("name").is_none() => self.missing(&name_path, "name"),
            None => {}
        }
        let namespace_path = path.field("namespace");
        match (kind, field("namespace")) {
            (Some("ClusterSidecarDefinition"), Some(_)) => {
                let message = "a ClusterSidecarDefinition has no namespace; a SidecarDefinition is for one";
                self.report(ProblemCode::NotAllowed, &namespace_path, message);
            }
            (Some("SidecarDefinition"), None) if json.get("namespace").is_none() => {
                let message = "a SidecarDefinition needs the namespace whose pods it is for";
                self.report(ProblemCode::MissingField, &namespace_path, message);
            }
            (_, Some(namespace)) => self.label(&namespace_path, &namespace),
            _ => {}
        }
    }

    pub(super) fn pod_metadata(&mut self, json: &Json<'_>, path: &FieldPath) {
        let known = POD.fields("ObjectMeta");
        for (key, value) in json.fields().into_iter().flatten() {
            let path = path.field(key);
            match known.iter().find(|field| field.name == *key) {
                Some(field) if INJECTED.contains(&&**key) => {
                    self.value(value, &field.shape, &path, Owner::Pod);
                }
                Some(_) => {
                    let message = format!("{key:?} cannot be injected, only labels and annotations can");
                    self.report(ProblemCode::NotAllowed, &path, message);
                }
                None if self.options.allow_unknown_pod_fields => {}
                None => self.unknown(&path, key, INJECTED, ""),
            }
        }
    }

    fn label(&mut self, path: &FieldPath, name: &str) {
        if !names::is_label(name) {
            let message =
                format!("{name:?} is no DNS label: lower-case letters, digits and inner hyphens, at most 63");
            self.suggest(ProblemCode::InvalidName, path, message, names::nearest_label(name));
        }
    }
}
