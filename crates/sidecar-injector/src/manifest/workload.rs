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
    let group = version.split_once('/').map_or("", |(group, _)| group);
    let template = match (group, kind) {
        ("", "Pod") => "",
        ("", "PodTemplate") => "/template",
        (
            "" | "apps" | "extensions",
            "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "ReplicationController",
        )
        | ("batch", "Job") => "/spec/template",
        ("batch", "CronJob") => "/spec/jobTemplate/spec/template",
        _ => return,
    };
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
    fn namesakes_of_other_groups_are_left_alone() {
        assert!(pods(&json!({"apiVersion": "example.com/v1", "kind": "Pod", "spec": {}})).is_empty());
        assert!(pods(&json!({"apiVersion": "serving.example.com/v1", "kind": "Deployment", "spec": {"template": {}}})).is_empty());
        assert!(pods(&json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": null})).is_empty());
        assert!(pods(&json!([1])).is_empty());
        assert!(pods(&Value::Null).is_empty());
    }
}
