//! Definitions that would not select a pod any more once they have been applied to it. The API server asks twice, and the
//! second time the pod would be said to go without what it has.

use super::{At, Report};
use crate::definition::ProblemCode;

pub(super) fn check(spec: &At<'_>, report: &mut Report<'_>) {
    let Some(inject) = spec.field("inject") else { return };
    let selector = spec.field("selector");
    if let Some(metadata) = inject.field("metadata") {
        check_labels(&metadata, selector.as_ref(), report);
    }
    let Some(pod) = inject.field("spec") else { return };
    let includes = |field: &str| {
        let flag = selector.as_ref().and_then(|selector| selector.field(field));
        flag.and_then(|flag| flag.json.flag()) == Some(true)
    };
    if let Some(network) = pod.field("hostNetwork").filter(|network| network.json.flag() == Some(true))
        && !includes("includeHostNetwork")
    {
        let message = "pods on their node's network are left out, without selector.includeHostNetwork: true";
        report.add(ProblemCode::NotAllowed, &network.path, message);
    }
    let by_os = pod.field("os").and_then(|os| os.field("name"));
    let by_nodes = pod.field("nodeSelector").and_then(|nodes| nodes.field("kubernetes.io/os"));
    for os in [by_os, by_nodes].into_iter().flatten() {
        if os.text() == Some("windows") && !includes("includeWindows") {
            let message = "pods for Windows are left out, without selector.includeWindows: true";
            report.add(ProblemCode::NotAllowed, &os.path, message);
        }
    }
}

/// Another value than the selector wants would be a conflict; a label that it does not want is no label to inject.
fn check_labels(metadata: &At<'_>, selector: Option<&At<'_>>, report: &mut Report<'_>) {
    let requirements = selector.and_then(|selector| selector.field("podSelector"));
    let requirements = requirements.map(|pods| pods.items("matchExpressions")).unwrap_or_default();
    for (key, value) in metadata.entries("labels") {
        let is_unwanted = |requirement: &At<'_>| {
            let text = |field: &str| requirement.field(field).and_then(|field| field.text());
            let values = requirement.field("values");
            let values = values.as_ref().and_then(|values| values.json.items()).unwrap_or_default();
            let listed = || {
                let value = value.settled();
                value.is_some_and(|value| values.iter().any(|item| item.text().as_deref() == Some(value)))
            };
            text("key") == Some(key)
                && match text("operator") {
                    Some("DoesNotExist") => true,
                    Some("NotIn") => listed(),
                    _ => false,
                }
        };
        if requirements.iter().any(is_unwanted) {
            let message = format!("with the label {key:?} the podSelector does not select the pod any more");
            report.add(ProblemCode::NotAllowed, &value.path, message);
        }
    }
}
