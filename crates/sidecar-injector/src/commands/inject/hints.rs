//! Hints of `inject`: what does something else than was probably meant, and would pass in silence.

use std::collections::HashMap;

use serde_json::Value;
use sidecar_engine::{ChangeKind, Decision, Injection, Reason};

use crate::commands::decisions::why;
use crate::manifest::workload::PodPlace;

/// What goes wrong first for somebody who is new to this.
pub(super) fn of_place(place: &PodPlace<'_>) -> Vec<String> {
    let mut hints = Vec::new();
    if place.is_labelled_outside {
        hints.push("the label belongs into the pod template (spec.template.metadata.labels)".to_owned());
    }
    for (field, what) in [("labels", "label"), ("annotations", "annotation")] {
        let entries = place.pod.pointer(&format!("/metadata/{field}")).and_then(Value::as_object);
        for (key, value) in entries.into_iter().flatten() {
            if value.is_boolean() || value.is_number() {
                hints.push(format!(
                    "the {what} {key} is not a string, and the API server will refuse it: quote it, {key}: \"{value}\""
                ));
            }
        }
    }
    hints
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
