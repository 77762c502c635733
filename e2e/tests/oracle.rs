//! An independent opinion: where strategic merge and ours agree, `kubectl patch --local` makes the same pod.
//!
//! Where they differ on purpose is said in the engine's cases: strategic merge puts new items of lists in front, takes
//! two ports of one number for one, replaces lists without keys, and lets the patch win where the two differ.

// A test may panic; clippy.toml says so for the test functions, this for their helpers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use sidecar_engine::definition::Compiled;
use sidecar_engine::{Engine, Namespace, apply_all};
use sidecar_testkit::{Program, Programs};

fn strategic(programs: &Programs, pod: &Value, fragment: &Value) -> Value {
    let mut child = Command::new(programs.path(Program::Kubectl).unwrap())
        .args(["patch", "--local", "--type=strategic", "-o", "json", "-f", "-", "-p", &fragment.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(pod.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{fragment} into {pod}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn ours(pod: &Value, fragment: &Value) -> Value {
    let definition = json!({
        "apiVersion": "sidecar.me/v1alpha1", "kind": "ClusterSidecarDefinition", "metadata": {"name": "d"},
        "spec": {"selector": {"podSelector": {}}, "inject": fragment},
    });
    let engine = Engine::new(vec![Compiled::from_yaml(&definition.to_string()).unwrap().into()]);
    let injection = engine.inject(&pod.to_string(), &Namespace::new("default", [], [])).unwrap();
    assert!(!injection.patch.is_empty(), "{:?}", injection.decisions);
    serde_json::from_str(&apply_all(&pod.to_string(), &[(String::new(), injection.patch)]).unwrap()).unwrap()
}

/// New items of lists in front or behind: which of the two is not what is compared here.
fn without_order(value: &Value) -> Value {
    match value {
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), without_order(value))).collect(),
        Value::Array(items) => {
            let mut items: Vec<_> = items.iter().map(without_order).collect();
            items.sort_by_key(ToString::to_string);
            Value::Array(items)
        }
        other => other.clone(),
    }
}

#[test]
fn lists_with_keys_and_maps_are_merged_as_kubernetes_merges_them() {
    let programs = Programs::ensure(&[Program::Kubectl]).unwrap();
    let container = |name: &str| json!({"name": name, "image": "i", "env": [{"name": "A", "value": "a"}]});
    let lists = [
        ("containers", container("s"), container("app")),
        ("initContainers", json!({"name": "s", "image": "i", "restartPolicy": "Always"}), container("init")),
        ("volumes", json!({"name": "v", "emptyDir": {}}), json!({"name": "w", "configMap": {"name": "c"}})),
        ("imagePullSecrets", json!({"name": "a"}), json!({"name": "b"})),
        (
            "hostAliases",
            json!({"ip": "10.0.0.1", "hostnames": ["a"]}),
            json!({"ip": "10.0.0.2", "hostnames": ["b"]}),
        ),
        ("schedulingGates", json!({"name": "a"}), json!({"name": "b"})),
        (
            "resourceClaims",
            json!({"name": "a", "resourceClaimName": "x"}),
            json!({"name": "b", "resourceClaimName": "y"}),
        ),
        (
            "topologySpreadConstraints",
            json!({"topologyKey": "a", "whenUnsatisfiable": "DoNotSchedule", "maxSkew": 1}),
            json!({"topologyKey": "b", "whenUnsatisfiable": "DoNotSchedule", "maxSkew": 1}),
        ),
    ];
    let pod = |spec: Value| {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"a": "1"}}, "spec": {"containers": [container("app")], "x-unknown": [1]}});
        for (key, value) in spec.as_object().unwrap() {
            pod["spec"][key] = value.clone();
        }
        pod
    };
    let mut compared = 0;
    let mut compare = |pod: &Value, fragment: &Value| {
        assert_eq!(
            without_order(&ours(pod, fragment)),
            without_order(&strategic(&programs, pod, fragment)),
            "{fragment}"
        );
        compared += 1;
    };
    for (list, new, other) in &lists {
        let fragment = json!({"spec": {*list: [new]}});
        // Where the list is absent, and where it has another item.
        compare(&pod(json!({})), &fragment);
        compare(&pod(json!({*list: [other]})), &fragment);
    }
    for (field, value, before) in [
        ("nodeSelector", json!({"a": "1"}), json!({"b": "2"})),
        ("securityContext", json!({"runAsUser": 1}), json!({"fsGroup": 2})),
        ("resources", json!({"limits": {"cpu": "1"}}), json!({"limits": {"memory": "1Gi"}})),
    ] {
        let fragment = json!({"spec": {field: value}});
        compare(&pod(json!({})), &fragment);
        compare(&pod(json!({field: before})), &fragment);
    }
    for (field, value) in
        [("hostname", json!("h")), ("runtimeClassName", json!("r")), ("shareProcessNamespace", json!(true))]
    {
        compare(&pod(json!({})), &json!({"spec": {field: value}}));
    }
    compare(&pod(json!({})), &json!({"metadata": {"labels": {"b": "2"}, "annotations": {"x/y": "z"}}}));
    assert_eq!(compared, 26);
}
