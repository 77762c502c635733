//! Hints of `inject`: what does something else than was probably meant, and would pass in silence.

use std::collections::HashMap;

use serde_json::Value;
use sidecar_engine::{ChangeKind, Decision, Injection, Reason};

use crate::commands::decisions::why;
use crate::manifest::workload::PodPlace;

/// The label, and annotation, by which a pod asks for sidecars or refuses them.
const INJECT_KEY: &str = "sidecar.me/inject";

/// So many names are listed where one is wrong.
const NAMES: usize = 5;

/// What goes wrong first for somebody who is new to this. `definitions` are all names that there are.
pub(super) fn of_place(place: &PodPlace<'_>, definitions: &[String]) -> Vec<String> {
    let mut hints = Vec::new();
    for (field, what) in [("labels", "label"), ("annotations", "annotation")] {
        let entries = entries(place.pod.get("metadata"), field);
        for (key, value) in entries {
            if value.is_boolean() || value.is_number() {
                hints.push(format!(
                    "the {what} {key} is not a string, and the API server will refuse it: quote it, {key}: \"{value}\""
                ));
            }
        }
    }
    hints.extend(outside(place));
    for (key, value) in entries(place.pod.get("metadata"), "labels") {
        if let Some(value) = value.as_str().filter(|value| key == INJECT_KEY && !is_choice(value)) {
            hints.push(format!(
                "the label {INJECT_KEY} is {value:?}, and only \"true\" and \"false\" mean something there"
            ));
        }
    }
    for (key, _) in
        entries(place.pod.get("metadata"), "labels").chain(entries(place.outer_metadata, "labels"))
    {
        if definition_of(key).is_some() {
            hints.push(format!("the label {key} does nothing: parameters are annotations of the pod"));
        }
    }
    for (key, _) in entries(place.pod.get("metadata"), "annotations") {
        if let Some(name) = definition_of(key).filter(|name| definitions.iter().all(|known| known != name)) {
            let known = match definitions.len() {
                0 => "there are none".to_owned(),
                1..=NAMES => format!("there is {}", definitions.join(", ")),
                _ => "there are others".to_owned(),
            };
            hints.push(format!(
                "the annotation {key} does nothing: no definition is called {name:?}, {known}"
            ));
        }
    }
    hints
}

/// What of ours stands in the metadata of a workload and nowhere in that of its pods.
fn outside(place: &PodPlace<'_>) -> Vec<String> {
    let mut hints = Vec::new();
    let path = place.template.trim_start_matches('/').replace('/', ".");
    for (field, what) in [("labels", "label"), ("annotations", "annotation")] {
        let is_inside = |key: &str| entries(place.pod.get("metadata"), field).any(|(inner, _)| inner == key);
        for (key, _) in entries(place.outer_metadata, field) {
            let is_ours = key == INJECT_KEY || (field == "annotations" && definition_of(key).is_some());
            if is_ours && !is_inside(key) {
                hints.push(format!(
                    "the {what} {key} belongs into the pod template ({path}.metadata.{field})"
                ));
            }
        }
    }
    hints
}

fn entries<'v>(metadata: Option<&'v Value>, field: &str) -> impl Iterator<Item = (&'v String, &'v Value)> {
    metadata.and_then(|metadata| metadata.get(field)).and_then(Value::as_object).into_iter().flatten()
}

/// The definition whose parameter the key sets: `DEFINITION.sidecar.me/PARAMETER`.
fn definition_of(key: &str) -> Option<&str> {
    key.split_once('/')?.0.strip_suffix(".sidecar.me")
}

fn is_choice(value: &str) -> bool {
    matches!(value, "true" | "True" | "false" | "False")
}

/// What the second call for a pod does that the first has not done. An expression that looks at the containers sees those
/// that were injected, too.
pub(super) fn of_second_call(
    first: &[Decision<'_>],
    second: &Injection<'_>,
    namespace: &str,
    options: &str,
) -> Vec<String> {
    let first: HashMap<_, _> = first.iter().map(|decision| (&*decision.definition, decision)).collect();
    let mut hints = Vec::new();
    for decision in &second.decisions {
        let was_missed = first.get(&*decision.definition).is_some_and(|decision| decision.is_missed());
        let added: Vec<_> = decision
            .changes
            .iter()
            .filter(|change| change.kind != ChangeKind::Kept)
            .map(ToString::to_string)
            .collect();
        let what = match decision.reason {
            Reason::Injected => format!("{}: {}", decision.reason, added.join(", ")),
            // Another definition is the cause, and is named.
            Reason::PodDenied => continue,
            _ if decision.is_missed() && !was_missed => why(decision, namespace, options),
            _ => continue,
        };
        let denied = if decision.denies { ", and the pod is denied" } else { "" };
        hints.push(format!(
            "the API server asks a second time about a pod, and then {}: {what}{denied}",
            decision.definition
        ));
    }
    hints
}
