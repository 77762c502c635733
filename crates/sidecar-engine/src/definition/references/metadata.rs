//! Labels and annotations that pods are given.

use super::{At, Report};
use crate::definition::ProblemCode;
use crate::json::Json;
use crate::names;

/// Labels by which owners find their pods; a pod that gets another value is lost to its owner.
const LABELS_OF_OWNERS: [&str; 9] = [
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/controller-uid",
    "batch.kubernetes.io/job-completion-index",
    "batch.kubernetes.io/job-name",
    "controller-revision-hash",
    "controller-uid",
    "job-name",
    "pod-template-hash",
    "statefulset.kubernetes.io/pod-name",
];

/// What the injector itself reads; with `.` in front, of which definitions have their parts.
const OWN_DOMAIN: &str = "sidecar.me";

pub(super) fn check(metadata: &At<'_>, report: &mut Report<'_>) {
    for (key, value) in metadata.entries("labels") {
        report.label_pair(key, &value);
    }
    for (key, value) in metadata.entries("annotations") {
        if !names::is_key(&key.to_lowercase()) && !key.contains("${") {
            let message = format!("{key:?} cannot be the key of an annotation");
            report.add(ProblemCode::InvalidName, &value.path, message);
        }
    }
    for (map, key, reason) in refused(metadata.json) {
        report.add(ProblemCode::NotAllowed, &metadata.path.field(map).field(key), reason);
    }
}

/// The first label or annotation that no pod is given, and why: also for maps that are known only when there is a pod.
pub(crate) fn never_injected(metadata: &Json<'_>) -> Option<String> {
    refused(metadata).next().map(|(_, _, reason)| reason)
}

fn refused<'j>(metadata: &'j Json<'_>) -> impl Iterator<Item = (&'static str, &'j str, String)> {
    let keys = |map: &'static str| {
        let fields = metadata.get(map).and_then(Json::fields).into_iter().flatten();
        fields.map(move |(key, _)| (map, &**key))
    };
    keys("labels").chain(keys("annotations")).filter_map(|(map, key)| {
        let reason = if map == "labels" && LABELS_OF_OWNERS.contains(&key) {
            "is the label by which its owner finds the pod, it cannot be injected"
        } else if is_own(key) {
            "is for whoever makes the pod: injected, it would switch other definitions on or off, or set their parameters"
        } else {
            return None;
        };
        Some((map, key, format!("{key:?} {reason}")))
    })
}

fn is_own(key: &str) -> bool {
    let domain = key.split_once('/').and_then(|(domain, _)| domain.strip_suffix(OWN_DOMAIN));
    domain.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}
