//! What makes a pod anew: its Deployment, StatefulSet or DaemonSet, by its template, or whoever notices that it is gone.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{ApiResource, DynamicObject, EvictParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::mark::{Lacking, Mark};
use super::pods::Owner;

const FIELD_MANAGER: &str = "sidecar-injector-repair";

/// What is made anew at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// By its template; kind and name.
    Workload(&'static str, String),
    /// By eviction: its controller makes another one.
    Pod(String),
}

/// Why a workload is not restarted now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Hindrance {
    /// It was, and still belongs to that restart for so long.
    UnderWay(Duration),
    /// It would change nothing; what somebody has to do first.
    Needs(&'static str),
}

impl Target {
    /// What to make anew for a pod with this owner; nothing for what its owner will not make again.
    pub(super) async fn of(
        client: &Client,
        namespace: &str,
        pod: &str,
        owner: &Owner,
    ) -> kube::Result<Option<Self>> {
        let itself = || Some(Target::Pod(pod.to_owned()));
        if !owner.is_of_apps {
            return Ok(itself());
        }
        Ok(match &*owner.kind {
            "StatefulSet" => Some(Target::Workload("StatefulSet", owner.name.to_string())),
            "DaemonSet" => Some(Target::Workload("DaemonSet", owner.name.to_string())),
            "ReplicaSet" => {
                let set = apps(client, namespace, "ReplicaSet").get_opt(&owner.name).await?;
                // It is gone, and the pod is going.
                let Some(set) = set else { return Ok(None) };
                let owners = set.metadata.owner_references.unwrap_or_default();
                let deployment = owners.into_iter().find(|owner| {
                    owner.controller == Some(true)
                        && owner.kind == "Deployment"
                        && owner.api_version == "apps/v1"
                });
                deployment.map_or_else(itself, |owner| Some(Target::Workload("Deployment", owner.name)))
            }
            _ => itself(),
        })
    }
}

/// A workload as it is now; nothing if it is gone.
pub(super) async fn read(
    client: &Client,
    namespace: &str,
    kind: &str,
    name: &str,
) -> kube::Result<Option<DynamicObject>> {
    apps(client, namespace, kind).get_opt(name).await
}

/// What is against restarting it for a pod with this mark that goes without this.
pub(super) fn hindrance(
    workload: &Value,
    pod: Option<&Mark>,
    lacking: Lacking,
    now: SystemTime,
) -> Option<Hindrance> {
    let annotations = workload.pointer("/spec/template/metadata/annotations");
    let annotations = annotations.and_then(|map| serde_json::from_value::<BTreeMap<_, _>>(map.clone()).ok());
    let mark = annotations.and_then(|annotations| Mark::of(&annotations));
    let text = |path| workload.pointer(path).and_then(Value::as_str);
    if let Some(mark) = mark.as_ref().filter(|mark| mark.is_around(now)) {
        return Some(Hindrance::UnderWay(mark.rest(now)));
    }
    if workload.pointer("/spec/paused") == Some(&Value::Bool(true)) {
        return Some(Hindrance::Needs("it is paused: resume it, with kubectl rollout resume"));
    }
    if text("/spec/updateStrategy/type") == Some("OnDelete") {
        return Some(Hindrance::Needs(
            "its update strategy is OnDelete, and its pods are replaced when somebody deletes them",
        ));
    }
    // The pod is not of that restart, which has had its time.
    let is_stuck = mark.is_some_and(|mark| mark.is_for(lacking) && pod != Some(&mark));
    is_stuck.then_some(Hindrance::Needs(
        "it was restarted for this, and the pod is not replaced: look at kubectl rollout status, and for a partition",
    ))
}

/// Restarts it, unless somebody has changed it since it was read.
pub(super) async fn restart(
    client: &Client,
    namespace: &str,
    kind: &str,
    workload: &DynamicObject,
    mark: &Mark,
) -> kube::Result<()> {
    let patch = json!({
        "metadata": {"resourceVersion": workload.metadata.resource_version},
        "spec": {"template": {"metadata": {"annotations": mark.annotations()}}},
    });
    let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let name = workload.metadata.name.as_deref().unwrap_or_default();
    apps(client, namespace, kind).patch(name, &parameters, &Patch::Merge(&patch)).await.map(drop)
}

/// As Events refer to it.
pub(super) fn reference(kind: &str, name: &str, workload: &DynamicObject) -> OwnerReference {
    OwnerReference {
        api_version: "apps/v1".to_owned(),
        kind: kind.to_owned(),
        name: name.to_owned(),
        uid: workload.metadata.uid.clone().unwrap_or_default(),
        ..OwnerReference::default()
    }
}

/// Who makes another pod when this one is gone; nothing where nobody does, or it is gone. All that is remembered of it is a hash.
pub(super) async fn controller(
    client: &Client,
    namespace: &str,
    pod: &str,
) -> kube::Result<Option<OwnerReference>> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let owners = api.get_metadata_opt(pod).await?.and_then(|pod| pod.metadata.owner_references);
    Ok(owners.unwrap_or_default().into_iter().find(|owner| owner.controller == Some(true)))
}

/// Evicts a pod, as far as disruption budgets allow.
pub(super) async fn evict(client: &Client, namespace: &str, pod: &str) -> kube::Result<()> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    api.evict(pod, &EvictParams::default()).await.map(drop)
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Workload(kind, name) => write!(formatter, "{kind}/{name}"),
            Target::Pod(name) => write!(formatter, "Pod/{name}"),
        }
    }
}

fn apps(client: &Client, namespace: &str, kind: &str) -> Api<DynamicObject> {
    let resource = ApiResource {
        group: "apps".to_owned(),
        version: "v1".to_owned(),
        api_version: "apps/v1".to_owned(),
        kind: kind.to_owned(),
        plural: format!("{}s", kind.to_lowercase()),
    };
    Api::namespaced_with(client.clone(), namespace, &resource)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-11-24T12:00:00Z";

    fn now() -> SystemTime {
        humantime::parse_rfc3339(NOW).unwrap()
    }

    fn annotations(at: &str, lacking: &str) -> Value {
        json!({"sidecar.me/restarted-at": at, "sidecar.me/restarted-for": lacking})
    }

    fn mark(at: &str, lacking: &str) -> Mark {
        Mark::of(&serde_json::from_value(annotations(at, lacking)).unwrap()).unwrap()
    }

    /// Of a workload with such annotations in its template.
    fn found(annotations: &Value, pod: Option<&Mark>) -> Option<Hindrance> {
        let workload = json!({"spec": {"template": {"metadata": {"annotations": annotations}}}});
        hindrance(&workload, pod, 0xa, now())
    }

    #[test]
    fn a_restart_has_an_hour_whatever_it_was_for() {
        for lacking in ["a", "b"] {
            let recent = found(&annotations("2026-11-24T11:20:00Z", lacking), None);
            assert_eq!(recent, Some(Hindrance::UnderWay(Duration::from_mins(20))));
        }
        assert_eq!(found(&annotations("2026-11-24T10:59:00Z", "b"), None), None);
        assert_eq!(found(&Value::Null, None), None);
    }

    #[test]
    fn a_restart_that_does_not_reach_a_pod_is_not_repeated() {
        let template = annotations("2026-11-24T10:00:00Z", "a");
        assert!(matches!(found(&template, None), Some(Hindrance::Needs(_))));
        let older = mark("2026-11-24T08:00:00Z", "a");
        assert!(matches!(found(&template, Some(&older)), Some(Hindrance::Needs(_))));
        // The pod is of this template, made long after.
        assert_eq!(found(&template, Some(&mark("2026-11-24T10:00:00Z", "a"))), None);
    }

    #[test]
    fn what_a_restart_would_not_change_is_left_alone() {
        let found = |spec: Value| hindrance(&json!({"spec": spec}), None, 0xa, now());
        assert!(matches!(found(json!({"paused": true})), Some(Hindrance::Needs(_))));
        assert_eq!(found(json!({"paused": false})), None);
        let strategy = |kind: &str| json!({"updateStrategy": {"type": kind}});
        assert!(matches!(found(strategy("OnDelete")), Some(Hindrance::Needs(_))));
        assert_eq!(found(strategy("RollingUpdate")), None);
    }
}
