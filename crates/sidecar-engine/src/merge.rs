//! Puts definitions into a pod: what to add, what is there already, what is in the way.
//!
//! A definition is applied wholly or not at all. Nothing that the pod has is replaced, removed or reordered.

mod contained;

use crate::decision::{Decision, Reason};
use crate::definition::ContainerFragment;
use crate::definition::{Compiled, FailurePolicy};
use crate::pod::{PodView, SpecView};

/// What is added to a pod, and a decision for each definition that was selected.
#[derive(Debug)]
pub(crate) struct Merged<'e> {
    pub(crate) containers: Vec<&'e ContainerFragment>,
    /// One for each selected definition, in their order.
    pub(crate) decisions: Vec<Decision<'e>>,
}

/// Merges the selected definitions, in their order, into a pod.
pub(crate) fn merge<'e>(selected: &[&'e Compiled], pod: &PodView<'_>) -> Merged<'e> {
    let mut merged = Merged { containers: Vec::new(), decisions: Vec::with_capacity(selected.len()) };
    let spec = pod.spec.present().filter(|spec| spec.has_containers());
    for definition in selected {
        let mut decision = Decision::new(&definition.name, Reason::MalformedPod, true);
        if let Some(spec) = spec {
            match missing(definition, spec, &merged.containers) {
                Ok(missing) if missing.is_empty() => decision.reason = Reason::AlreadyPresent,
                Ok(missing) => {
                    decision.reason = Reason::Injected;
                    merged.containers.extend(missing);
                }
                Err(conflict) => {
                    decision.reason = Reason::ContainerNameConflict;
                    decision.detail = Some(conflict.into());
                }
            }
        }
        merged.decisions.push(decision);
    }
    merged
}

impl<'e> Merged<'e> {
    /// Takes back what was to be added, for this reason.
    pub(crate) fn withdraw(&mut self, reason: Reason, detail: &str) {
        self.containers.clear();
        for decision in self.decisions.iter_mut().filter(|decision| decision.reason == Reason::Injected) {
            decision.reason = reason;
            decision.detail = Some(detail.to_owned().into());
        }
    }

    /// Whether a selected definition that fails closed is not in the pod. Then nothing is added, and the decisions say so.
    pub(crate) fn deny(&mut self, selected: &[&'e Compiled]) -> bool {
        let mut denied = false;
        for (decision, definition) in self.decisions.iter_mut().zip(selected) {
            decision.denies = decision.is_missed() && definition.failure_policy == FailurePolicy::Fail;
            denied |= decision.denies;
        }
        if denied {
            self.withdraw(Reason::PodDenied, Reason::PodDenied.explanation());
        }
        denied
    }
}

/// The definition's containers that neither the pod nor an earlier definition brings, or what is in the way.
fn missing<'e>(
    definition: &'e Compiled,
    spec: &SpecView<'_>,
    earlier: &[&ContainerFragment],
) -> Result<Vec<&'e ContainerFragment>, String> {
    let mut missing = Vec::with_capacity(definition.containers.len());
    for fragment in &definition.containers {
        let name = &fragment.name;
        if let Some((list, existing)) = spec.find(name) {
            // Names are free only when no list has them: the API server wants them unique across the three.
            if list != "containers" || !contained::object(&fragment.fields, existing) {
                return Err(format!("the pod has a different container {name:?} in {list}"));
            }
        } else if let Some(other) = earlier.iter().find(|other| other.name == *name) {
            if other.fields != fragment.fields {
                return Err(format!("an earlier definition adds a different container {name:?}"));
            }
        } else {
            missing.push(fragment);
        }
    }
    Ok(missing)
}
