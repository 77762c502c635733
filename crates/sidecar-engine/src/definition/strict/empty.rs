//! Fields that are there without a value, where YAML and Kubernetes would take them for absent and the author hardly does.
//!
//! `podSelector: {matchLabels: {app: }}` would select all pods. In a pod, a field that is `null` is absent, as Kubernetes has it;
//! an entry of a map is one that lost its value.

use super::Owner;
use crate::definition::{FieldPath, Problem, ProblemCode};
use crate::json::Json;
use crate::shape::{POD, Shape};

/// All of them, in a document whose `null`s are still there.
pub(in crate::definition) fn check(json: &Json<'_>) -> Vec<Problem> {
    let mut problems = Vec::new();
    if let Some(spec) = json.get("spec") {
        named(spec, "DefinitionSpec", &FieldPath::of("spec"), Owner::Definition, &mut problems);
    }
    problems
}

fn named(json: &Json<'_>, name: &str, path: &FieldPath, owner: Owner, problems: &mut Vec<Problem>) {
    for (key, value) in json.fields().into_iter().flatten() {
        let path = path.field(key);
        if value.is_null() && owner == Owner::Definition && owner.table().field(name, key).is_some() {
            problems.push(without_value(key, path));
            continue;
        }
        // What a definition embeds is a pod's from here on.
        let (owner, field) = match (owner, name, &**key) {
            (Owner::Definition, "PodTemplate", "metadata") => {
                self::named(value, "ObjectMeta", &path, Owner::Pod, problems);
                continue;
            }
            (Owner::Definition, "PodTemplate", "spec") => {
                self::named(value, "PodSpec", &path, Owner::Pod, problems);
                continue;
            }
            (Owner::Definition, "ContainerPatch", _) => match owner.table().field(name, key) {
                Some(field) => (owner, Some(field)),
                None => (Owner::Pod, POD.field("Container", key)),
            },
            _ => (owner, owner.table().field(name, key)),
        };
        let Some(field) = field else { continue };
        if !value.is_null() {
            below(value, &field.shape, &path, owner, problems);
        }
    }
}

fn below(json: &Json<'_>, shape: &Shape, path: &FieldPath, owner: Owner, problems: &mut Vec<Problem>) {
    match shape {
        Shape::Named(name) => named(json, name, path, owner, problems),
        Shape::List(item) => {
            for (index, value) in json.items().unwrap_or_default().iter().enumerate() {
                below(value, item, &path.item(index), owner, problems);
            }
        }
        Shape::Map(_) => {
            for (key, _) in json.fields().into_iter().flatten().filter(|(_, value)| value.is_null()) {
                problems.push(without_value(key, path.field(key)));
            }
        }
        _ => {}
    }
}

fn without_value(key: &str, path: FieldPath) -> Problem {
    Problem::new(ProblemCode::NotAllowed, path, format!("{key:?} has no value: give it one, or leave it out"))
}
