//! The JSON Patch (RFC 6902), made from what was done and checked against the pod as it was received.
//!
//! A patch that does not apply rejects the pod even under `failurePolicy: Ignore` (kubernetes/kubernetes#129459).
//! So only `add` is used, and an operation whose parent is not known to be there is never sent.

use serde_json::value::RawValue;

use crate::definition::ContainerFragment;
use crate::merge::Merged;
use crate::pod::PodView;

/// Where containers are appended.
const APPEND_CONTAINER: &str = "/spec/containers/-";
const APPEND_INIT_CONTAINER: &str = "/spec/initContainers/-";

/// An operation is not known to apply to the pod.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotApplicable {
    pub(crate) path: &'static str,
}

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

    /// Whether the operation's parent is in the pod, and is a list. What the view does not know is in doubt.
    fn applies_to(&self, pod: &PodView<'_>) -> bool {
        let Some(spec) = pod.spec.present() else { return false };
        let list = match self.path {
            APPEND_CONTAINER => &spec.containers,
            APPEND_INIT_CONTAINER => &spec.init_containers,
            _ => return false,
        };
        list.present().is_some()
    }
}

impl<'e> Patch<'e> {
    /// Writes down what was merged.
    pub(crate) fn new(merged: &Merged<'e>, pod: &PodView<'_>) -> Result<Self, NotApplicable> {
        let append =
            |container: &&'e ContainerFragment| Operation { path: APPEND_CONTAINER, value: &container.text };
        Self::checked(merged.containers.iter().map(append).collect(), pod)
    }

    /// A patch only of operations that are known to apply.
    fn checked(operations: Vec<Operation<'e>>, pod: &PodView<'_>) -> Result<Self, NotApplicable> {
        match operations.iter().find(|operation| !operation.applies_to(pod)) {
            Some(operation) => Err(NotApplicable { path: operation.path }),
            None => Ok(Patch { operations }),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Regression of kubernetes/kubernetes#129459: the API server rejects the pod when a patch does not apply.
    #[test]
    fn an_operation_whose_parent_is_not_a_list_in_the_pod_is_never_sent() {
        let value: &RawValue = serde_json::from_str("{}").unwrap();
        for (pod, path, applies) in [
            (r#"{"spec":{"containers":[]}}"#, APPEND_CONTAINER, true),
            (r#"{"spec":{"containers":{}}}"#, APPEND_CONTAINER, false),
            (r#"{"spec":{"containers":null}}"#, APPEND_CONTAINER, false),
            (r#"{"spec":null}"#, APPEND_CONTAINER, false),
            (r"{}", APPEND_CONTAINER, false),
            (r#"{"spec":{"containers":[]}}"#, APPEND_INIT_CONTAINER, false),
            (r#"{"spec":{"initContainers":[]}}"#, APPEND_INIT_CONTAINER, true),
            (r#"{"spec":{"volumes":[]}}"#, "/spec/volumes/-", false),
        ] {
            let view = PodView::parse(pod).unwrap();
            let patch = Patch::checked(vec![Operation { path, value }], &view);
            assert_eq!(patch.is_ok(), applies, "{path} in {pod}");
            // An independent implementation never refuses what we send.
            if let Ok(patch) = patch {
                let patch: json_patch::Patch = serde_json::from_str(&patch.to_json("")).unwrap();
                json_patch::patch(&mut serde_json::from_str(pod).unwrap(), &patch).unwrap();
            }
        }
    }
}
