//! The JSON Patch (RFC 6902), made from what was done and checked against the pod as it was received.
//!
//! A patch that does not apply rejects the pod even under `failurePolicy: Ignore` (kubernetes/kubernetes#129459).
//! So only `add` is used, and an operation whose parent is not known to be there is never sent.

use serde_json::value::RawValue;

use crate::merge::Merged;
use crate::pod::PodView;

/// Where containers are appended.
const APPEND_CONTAINER: &str = "/spec/containers/-";

/// Operations that are known to apply to the pod they were made for, in order.
#[derive(Debug, Default)]
pub struct Patch<'e> {
    operations: Vec<Operation<'e>>,
}

/// One operation `add`.
#[derive(Debug)]
pub struct Operation<'e> {
    path: &'static str,
    value: &'e RawValue,
}

impl<'e> Operation<'e> {
    /// Where, as a JSON pointer (RFC 6901) into the pod.
    pub fn path(&self) -> &str {
        self.path
    }

    /// What is added, as JSON text.
    pub fn value(&self) -> &'e str {
        self.value.get()
    }

    /// Whether the operation's parent is in the pod, with the right type.
    fn applies_to(&self, pod: &PodView<'_>) -> bool {
        // The view knows this one parent; whatever it does not know is in doubt.
        self.path == APPEND_CONTAINER
            && pod.spec.present().is_some_and(|spec| spec.containers.present().is_some())
    }
}

impl<'e> Patch<'e> {
    /// Writes down what was merged; gives the path of an operation that would not apply.
    pub(crate) fn new(merged: &Merged<'e>, pod: &PodView<'_>) -> Result<Self, &'static str> {
        let mut operations = Vec::with_capacity(merged.containers.len());
        for container in &merged.containers {
            let operation = Operation { path: APPEND_CONTAINER, value: &container.text };
            if !operation.applies_to(pod) {
                return Err(operation.path);
            }
            operations.push(operation);
        }
        Ok(Patch { operations })
    }

    /// The operations, in the order in which they apply.
    pub fn operations(&self) -> &[Operation<'e>] {
        &self.operations
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// The patch as JSON text, for a pod that stands at `prefix` (a JSON pointer, empty for the pod itself).
    pub fn to_json(&self, prefix: &str) -> String {
        // Paths and prefixes are ours and need no escaping; values are JSON text already.
        let mut json =
            String::with_capacity(2 + self.operations.iter().map(|o| 64 + o.value().len()).sum::<usize>());
        json.push('[');
        for (index, operation) in self.operations.iter().enumerate() {
            json.push_str(if index == 0 { r#"{"op":"add","path":""# } else { r#",{"op":"add","path":""# });
            json.push_str(prefix);
            json.push_str(operation.path);
            json.push_str(r#"","value":"#);
            json.push_str(operation.value());
            json.push('}');
        }
        json.push(']');
        json
    }
}
