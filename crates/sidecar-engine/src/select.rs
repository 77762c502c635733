//! Which definitions apply to a pod, and why not the others.

use std::borrow::Cow;

use crate::decision::{Decision, Reason};
use crate::definition::Compiled;
use crate::pod::{INJECT_KEY, PodView};

/// The definitions that apply to one pod, in the order in which they are applied, and a decision for each other one.
#[derive(Debug)]
pub(crate) struct Selection<'e> {
    pub(crate) selected: Vec<&'e Compiled>,
    pub(crate) decisions: Vec<Decision<'e>>,
}

/// Selects among definitions that are in order already.
pub(crate) fn select<'e>(definitions: &'e [Compiled], pod: &PodView<'_>) -> Selection<'e> {
    let never = never(pod);
    let opted_out = opted_out(pod);
    let mut selection = Selection { selected: Vec::with_capacity(definitions.len()), decisions: Vec::new() };
    for definition in definitions {
        let matches = matches(definition, pod);
        let says_no = opted_out && !definition.required;
        let reason = never
            .or_else(|| says_no.then_some(Reason::OptedOut))
            .or_else(|| (!matches).then_some(Reason::NotSelected));
        match reason {
            None => selection.selected.push(definition),
            // Nobody misses what the pod itself does not want.
            Some(reason) => {
                let mut decision = Decision::new(&definition.name, reason, matches && !says_no);
                if reason == Reason::NotSelected {
                    decision.detail = near_miss(definition, pod);
                }
                selection.decisions.push(decision);
            }
        }
    }
    selection
}

/// Pods that no definition is applied to.
fn never(pod: &PodView<'_>) -> Option<Reason> {
    if pod.is_mirror() {
        Some(Reason::MirrorPod)
    } else if pod.runs_on_windows() {
        Some(Reason::WindowsPod)
    } else if pod.uses_host_network() {
        // A sidecar's ports would be the node's, and two such pods would no longer fit on one node.
        Some(Reason::HostNetwork)
    } else {
        None
    }
}

fn opted_out(pod: &PodView<'_>) -> bool {
    let says_no = |value: Option<&str>| matches!(value, Some("false" | "False"));
    says_no(pod.label(INJECT_KEY)) || says_no(pod.inject_annotation())
}

fn matches(definition: &Compiled, pod: &PodView<'_>) -> bool {
    match &definition.pod_selector {
        Some(selector) => selector.matches(|key| pod.label(key)),
        None => pod.asks_by_label(),
    }
}

/// What a pod that is not selected has that comes near, or what it lacks.
fn near_miss(definition: &Compiled, pod: &PodView<'_>) -> Option<Cow<'static, str>> {
    if pod.has_unreadable_labels() {
        return Some(Cow::Borrowed("the pod's labels are not all strings: quote them, as in \"true\""));
    }
    if definition.pod_selector.is_some() {
        return None;
    }
    Some(match (pod.label(INJECT_KEY), pod.inject_annotation()) {
        (Some(value), _) => format!("the label {INJECT_KEY} is {value:?}, it must be \"true\"").into(),
        (None, Some(_)) => Cow::Borrowed("sidecar.me/inject is an annotation here, it must be a label"),
        // The most common case by far, on every pod that asks for nothing: it must not cost a string.
        (None, None) => Cow::Borrowed("the pod has no label sidecar.me/inject: \"true\""),
    })
}
