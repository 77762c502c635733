//! Where the pods are in a manifest: a pod is one itself, workloads carry the template of one, a list carries both.

use serde_json::Value;

/// A pod, or the template of one, in a document.
#[derive(Debug)]
pub(crate) struct PodPlace<'d> {
    /// Of the object that is or has the pod, as in `Deployment/web`.
    pub(crate) object: String,
    /// JSON pointer (RFC 6901) to the pod in the document; empty when the document is the pod.
    pub(crate) pointer: String,
    pub(crate) pod: &'d Value,
    /// The namespace that the object names.
    pub(crate) namespace: Option<&'d str>,
    /// The object's own metadata where the pod is a template in it: none of it reaches the pods.
    pub(crate) outer_metadata: Option<&'d Value>,
    /// JSON pointer to the pod in its object.
    pub(crate) template: &'static str,
    /// The names of the volumes that the StatefulSet controller adds to each of its pods.
    pub(crate) claimed_volumes: Vec<String>,
}

/// A kind of objects that are pods or have the template of one.
struct Kind {
    name: &'static str,
    /// The one to write.
    version: &'static str,
    /// Groups in which it is that kind; empty for the core group.
    groups: &'static [&'static str],
    /// JSON pointer to the pod.
    template: &'static str,
}

const fn kind(
    name: &'static str,
    version: &'static str,
    groups: &'static [&'static str],
    template: &'static str,
) -> Kind {
    Kind { name, version, groups, template }
}

static KINDS: [Kind; 9] = [
    kind("Pod", "v1", &[""], ""),
    kind("PodTemplate", "v1", &[""], "/template"),
    kind("ReplicationController", "v1", &[""], "/spec/template"),
    kind("Deployment", "apps/v1", &["apps", "extensions"], "/spec/template"),
    kind("StatefulSet", "apps/v1", &["apps"], "/spec/template"),
    kind("DaemonSet", "apps/v1", &["apps", "extensions"], "/spec/template"),
    kind("ReplicaSet", "apps/v1", &["apps", "extensions"], "/spec/template"),
    kind("Job", "batch/v1", &["batch"], "/spec/template"),
    kind("CronJob", "batch/v1", &["batch"], "/spec/jobTemplate/spec/template"),
];

/// Kubernetes' own groups that have one of them; whatever others call a Deployment is none of ours.
const GROUPS: [&str; 4] = ["", "apps", "batch", "extensions"];

impl Kind {
    fn is_named(&self, kind: &str, version: &str) -> bool {
        self.name == kind && self.groups.contains(&group(version))
    }
}

fn group(version: &str) -> &str {
    version.split_once('/').map_or("", |(group, _)| group)
}

/// What is nearly an object that has pods, and what it would have to be.
pub(crate) fn near_misses(document: &Value) -> Vec<String> {
    let text = |field: &str| document.get(field).and_then(Value::as_str).unwrap_or_default();
    let (version, kind) = (text("apiVersion"), text("kind"));
    if let Some(items) = document.get("items").and_then(Value::as_array).filter(|_| kind.ends_with("List")) {
        return items.iter().flat_map(near_misses).collect();
    }
    let near = KINDS.iter().find(|known| known.name.eq_ignore_ascii_case(kind));
    let Some(known) = near.filter(|_| GROUPS.contains(&group(version))) else { return Vec::new() };
    let name = known.name;
    let problem = if name != kind {
        format!("is a {kind}, did you mean {name}?")
    } else if version.is_empty() && name != "Pod" {
        format!("is a {name} without an apiVersion; {name} is of {}", known.version)
    } else if !known.is_named(kind, version) {
        format!("is a {name} of {version}, which has no pods here; {name} is of {}", known.version)
    } else if document.pointer(known.template).is_none() {
        format!("is a {name} without {}", known.template.trim_start_matches('/').replace('/', "."))
    } else {
        return Vec::new();
    };
    vec![problem]
}

/// All pods of a document, in their order.
pub(crate) fn pods(document: &Value) -> Vec<PodPlace<'_>> {
    let mut places = Vec::new();
    find(document, "", &mut places);
    places
}

fn find<'d>(object: &'d Value, pointer: &str, places: &mut Vec<PodPlace<'d>>) {
    let text = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or_default();
    let (version, kind) = (text("apiVersion"), text("kind"));
    if let Some(items) = object.get("items").and_then(Value::as_array).filter(|_| kind.ends_with("List")) {
        for (index, item) in items.iter().enumerate() {
            find(item, &format!("{pointer}/items/{index}"), places);
        }
        return;
    }
    let Some(known) = KINDS.iter().find(|known| known.is_named(kind, version)) else { return };
    let template = known.template;
    if let Some(pod) = object.pointer(template) {
        let metadata = |field: &str| object.pointer(&format!("/metadata/{field}")).and_then(Value::as_str);
        let name = metadata("name").or_else(|| metadata("generateName")).unwrap_or("(no name)");
        let claims = object.pointer("/spec/volumeClaimTemplates").filter(|_| kind == "StatefulSet");
        let claims = claims.and_then(Value::as_array).into_iter().flatten();
        let claimed = claims.filter_map(|claim| Some(claim.pointer("/metadata/name")?.as_str()?.to_owned()));
        places.push(PodPlace {
            object: format!("{kind}/{name}"),
            pointer: format!("{pointer}{template}"),
            pod,
            namespace: metadata("namespace").filter(|namespace| !namespace.is_empty()),
            outer_metadata: object.get("metadata").filter(|_| !template.is_empty()),
            template,
            claimed_volumes: claimed.collect(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pointers(document: &Value) -> Vec<String> {
        pods(document).into_iter().map(|place| format!("{} {}", place.object, place.pointer)).collect()
    }

    #[test]
    fn every_kind_that_has_a_pod_is_known() {
        let template = json!({"spec": {"containers": []}});
        for (version, kind, object, pointer) in [
            ("v1", "Pod", json!({}), ""),
            ("v1", "PodTemplate", json!({"template": template}), "/template"),
            ("v1", "ReplicationController", json!({"spec": {"template": template}}), "/spec/template"),
            ("apps/v1", "Deployment", json!({"spec": {"template": template}}), "/spec/template"),
            ("apps/v1", "StatefulSet", json!({"spec": {"template": template}}), "/spec/template"),
            ("apps/v1", "DaemonSet", json!({"spec": {"template": template}}), "/spec/template"),
            ("apps/v1", "ReplicaSet", json!({"spec": {"template": template}}), "/spec/template"),
            ("batch/v1", "Job", json!({"spec": {"template": template}}), "/spec/template"),
            (
                "batch/v1",
                "CronJob",
                json!({"spec": {"jobTemplate": {"spec": {"template": template}}}}),
                "/spec/jobTemplate/spec/template",
            ),
        ] {
            let mut object = object;
            object["apiVersion"] = version.into();
            object["kind"] = kind.into();
            object["metadata"] = json!({"name": "web"});
            assert_eq!(pointers(&object), [format!("{kind}/web {pointer}")]);
            let list = json!({"apiVersion": "v1", "kind": "List", "items": [{"kind": "Service"}, object]});
            assert_eq!(pointers(&list), [format!("{kind}/web /items/1{pointer}")]);
        }
    }

    #[test]
    fn what_is_nearly_known_is_said() {
        for (object, expected) in [
            (
                json!({"apiVersion": "v1", "kind": "Deployment", "spec": {"template": {}}}),
                "is a Deployment of v1, which has no pods here; Deployment is of apps/v1",
            ),
            (
                json!({"apiVersion": "apps/v1", "kind": "CronJob"}),
                "is a CronJob of apps/v1, which has no pods here; CronJob is of batch/v1",
            ),
            (json!({"kind": "Job"}), "is a Job without an apiVersion; Job is of batch/v1"),
            (json!({"apiVersion": "v1", "kind": "pod"}), "is a pod, did you mean Pod?"),
            (
                json!({"apiVersion": "batch/v1", "kind": "CronJob", "spec": {"template": {}}}),
                "is a CronJob without spec.jobTemplate.spec.template",
            ),
        ] {
            assert!(pods(&object).is_empty(), "{object}");
            assert_eq!(near_misses(&json!({"kind": "List", "items": [object]})), [expected]);
        }
        for object in [
            json!({"apiVersion": "v1", "kind": "Pod"}),
            json!({"kind": "Pod"}),
            json!({"apiVersion": "extensions/v1beta1", "kind": "Deployment", "spec": {"template": {}}}),
            json!({"apiVersion": "serving.example.com/v1", "kind": "Deployment"}),
            json!({"apiVersion": "v1", "kind": "Service"}),
            Value::Null,
        ] {
            assert!(near_misses(&object).is_empty(), "{object}");
        }
    }

    #[test]
    fn namesakes_of_other_groups_are_left_alone() {
        assert!(pods(&json!({"apiVersion": "example.com/v1", "kind": "Pod", "spec": {}})).is_empty());
        assert!(pods(&json!({"apiVersion": "serving.example.com/v1", "kind": "Deployment", "spec": {"template": {}}})).is_empty());
        assert!(pods(&json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": null})).is_empty());
        assert!(pods(&json!([1])).is_empty());
        assert!(pods(&Value::Null).is_empty());
    }
}
