//! Reviews as an API server sends them for the pod of a ReplicaSet, in three sizes and three situations.

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

/// The uid of every review.
pub(crate) const UID: &str = "705ab4f5-6393-11e8-b7cc-42010a800002";

/// What the pod is to the injector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Situation {
    /// It has the label and gets the sidecar.
    Selected,
    /// It has no label.
    NotSelected,
    /// The API server's second call: the sidecar is there, with the API server's defaults.
    AlreadyPresent,
}

/// One kind of review.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) situation: Situation,
    pub(crate) bytes: usize,
    containers: usize,
    env: usize,
}

impl Case {
    pub(crate) const ALL: [Case; 7] = [
        Case::small("4.1 KB, selected", Situation::Selected),
        Case::small("4.1 KB, not selected", Situation::NotSelected),
        Case::small("4.1 KB, second call", Situation::AlreadyPresent),
        Case::large("100 KB, selected", Situation::Selected),
        Case::large("100 KB, not selected", Situation::NotSelected),
        Case::large("100 KB, second call", Situation::AlreadyPresent),
        Case {
            name: "1 MB, selected",
            situation: Situation::Selected,
            bytes: 1_000_000,
            containers: 6,
            env: 5_800,
        },
    ];

    const fn small(name: &'static str, situation: Situation) -> Self {
        Case { name, situation, bytes: 4_147, containers: 1, env: 3 }
    }

    const fn large(name: &'static str, situation: Situation) -> Self {
        Case { name, situation, bytes: 100_000, containers: 6, env: 568 }
    }

    /// The review, in exactly as many bytes as the case says.
    pub(crate) fn body(&self) -> Result<Vec<u8>> {
        let length = self.review(0).len();
        let filler = self.bytes.checked_sub(length);
        let filler = filler.with_context(|| format!("{}: {length} bytes without filler", self.name))?;
        Ok(self.review(filler).into_bytes())
    }

    fn review(&self, filler: usize) -> String {
        json!({
            "kind": "AdmissionReview",
            "apiVersion": "admission.k8s.io/v1",
            "request": {
                "uid": UID,
                "kind": {"group": "", "version": "v1", "kind": "Pod"},
                "resource": {"group": "", "version": "v1", "resource": "pods"},
                "requestKind": {"group": "", "version": "v1", "kind": "Pod"},
                "requestResource": {"group": "", "version": "v1", "resource": "pods"},
                "namespace": "default",
                "operation": "CREATE",
                "userInfo": {
                    "username": "system:serviceaccount:kube-system:replicaset-controller",
                    "uid": "1b3f3f0d-0f0c-4c38-9d2c-2f1d2f0d6a11",
                    "groups": ["system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"],
                },
                "object": self.pod(filler),
                "oldObject": null,
                "dryRun": false,
                "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
            },
        })
        .to_string()
    }

    fn pod(&self, filler: usize) -> Value {
        let mut labels = json!({"app.kubernetes.io/name": "shop", "pod-template-hash": "7d4b9c6f5d"});
        if self.situation != Situation::NotSelected {
            labels["sidecar.me/inject"] = "true".into();
        }
        let mut containers: Vec<_> =
            (0..self.containers).map(|index| container(index, &self.env(index))).collect();
        if self.situation == Situation::AlreadyPresent {
            containers.push(sidecar());
        }
        let managed: Map<_, _> = (0..self.containers)
            .map(|index| (format!(r#"k:{{"name":"app-{index}"}}"#), managed_container(&self.env(index))))
            .collect();
        json!({
            "kind": "Pod",
            "apiVersion": "v1",
            "metadata": {
                "generateName": "shop-7d4b9c6f5d-",
                "namespace": "default",
                "creationTimestamp": null,
                "labels": labels,
                "annotations": {"example.com/note": "x".repeat(filler)},
                "ownerReferences": [{
                    "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "shop-7d4b9c6f5d",
                    "uid": "a7e0c1f2-5a0d-4a53-8a9e-7c1f4f0b1c11", "controller": true, "blockOwnerDeletion": true,
                }],
                "managedFields": [{
                    "manager": "kube-controller-manager", "operation": "Update", "apiVersion": "v1",
                    "time": "2026-11-23T12:00:00Z", "fieldsType": "FieldsV1",
                    "fieldsV1": {"f:metadata": {"f:generateName": {}, "f:labels": {".": {}}}, "f:spec": {"f:containers": managed}},
                }],
            },
            "spec": {
                "volumes": [{"name": "kube-api-access-x2x7k", "projected": {"defaultMode": 420, "sources": [
                    {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                    {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                ]}}],
                "containers": containers,
                "restartPolicy": "Always",
                "terminationGracePeriodSeconds": 30,
                "dnsPolicy": "ClusterFirst",
                "serviceAccountName": "default",
                "securityContext": {},
                "schedulerName": "default-scheduler",
                "tolerations": [
                    {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
                ],
                "priority": 0,
                "enableServiceLinks": true,
                "preemptionPolicy": "PreemptLowerPriority",
            },
            "status": {},
        })
    }

    /// The names of one container's variables: an even share of all.
    fn env(&self, container: usize) -> Vec<String> {
        let share = container * self.env / self.containers..(container + 1) * self.env / self.containers;
        share.map(|index| format!("APPLICATION_SETTING_{index:04}")).collect()
    }
}

fn container(index: usize, env: &[String]) -> Value {
    let env: Vec<_> = env
        .iter()
        .map(|name| json!({"name": name, "value": "a value of some forty characters, as most"}))
        .collect();
    json!({
        "name": format!("app-{index}"),
        "image": "registry.example.com/shop/app:1.27.3",
        "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
        "env": env,
        "resources": {"limits": {"cpu": "500m", "memory": "256Mi"}, "requests": {"cpu": "100m", "memory": "128Mi"}},
        "volumeMounts": [token_mount()],
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "imagePullPolicy": "IfNotPresent",
    })
}

/// The article's sidecar as the API server gives it back.
fn sidecar() -> Value {
    json!({
        "name": "curl",
        "image": "yauritux/busybox-curl:latest",
        "command": ["/bin/sh", "-ec", "while :; do echo '.'; sleep 5 ; done"],
        "resources": {},
        "volumeMounts": [token_mount()],
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "imagePullPolicy": "IfNotPresent",
    })
}

fn token_mount() -> Value {
    json!({
        "name": "kube-api-access-x2x7k",
        "readOnly": true,
        "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
    })
}

/// What managedFields say about a container: as much text again as its variables.
fn managed_container(env: &[String]) -> Value {
    let env: Map<_, _> = env
        .iter()
        .map(|name| (format!(r#"k:{{"name":"{name}"}}"#), json!({".": {}, "f:name": {}, "f:value": {}})))
        .collect();
    json!({".": {}, "f:name": {}, "f:image": {}, "f:env": env})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reviews_have_the_size_that_they_say() {
        for case in Case::ALL {
            let body = case.body().unwrap();
            assert_eq!(body.len(), case.bytes, "{}", case.name);
            let review: Value = serde_json::from_slice(&body).unwrap();
            let managed = review["request"]["object"]["metadata"]["managedFields"].to_string().len();
            if case.bytes >= 100_000 {
                assert!((40..=60).contains(&(100 * managed / case.bytes)), "{}: {managed}", case.name);
            }
        }
    }
}
