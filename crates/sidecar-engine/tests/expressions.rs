//! Whatever an expression gives, wherever it stands: the pod is injected and still a pod, or it is left alone.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use k8s_openapi::api::core::v1::Pod;
use proptest::prelude::*;
use serde_json::{Value, json};
use sidecar_engine::definition::Compiled;
use sidecar_engine::{Engine, Namespace, Reason};

/// Parts of a container, with `@` where the expression stands.
const IN_CONTAINER: [&str; 31] = [
    r#""image": "@""#,
    r#""imagePullPolicy": "@""#,
    r#""workingDir": "@""#,
    r#""tty": "@""#,
    r#""args": "@""#,
    r#""args": ["@", "b"]"#,
    r#""command": ["x@y"]"#,
    r#""env": "@""#,
    r#""env": ["@"]"#,
    r#""env": [{"name": "A", "value": "@"}]"#,
    r#""env": [{"name": "@", "value": "a"}]"#,
    r#""env": [{"name": "A", "valueFrom": "@"}]"#,
    r#""ports": "@""#,
    r#""ports": ["@"]"#,
    r#""ports": [{"containerPort": "@"}]"#,
    r#""ports": [{"containerPort": 80, "name": "@"}]"#,
    r#""ports": [{"containerPort": 80, "protocol": "@"}]"#,
    r#""resources": "@""#,
    r#""resources": {"limits": "@"}"#,
    r#""resources": {"limits": {"cpu": "@"}}"#,
    r#""volumeMounts": "@""#,
    r#""volumeMounts": [{"name": "v", "mountPath": "@"}]"#,
    r#""volumeMounts": [{"name": "v", "mountPath": "/v", "readOnly": "@"}]"#,
    r#""securityContext": "@""#,
    r#""securityContext": {"runAsUser": "@", "privileged": "@"}"#,
    r#""securityContext": {"capabilities": {"add": "@"}}"#,
    r#""livenessProbe": "@""#,
    r#""livenessProbe": {"httpGet": {"port": "@"}}"#,
    r#""livenessProbe": {"httpGet": {"port": 80, "httpHeaders": [{"name": "A", "value": "@"}]}}"#,
    r#""livenessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": "@"}"#,
    r#""lifecycle": {"preStop": {"sleep": {"seconds": "@"}}}"#,
];

/// Parts of a pod's spec.
const IN_SPEC: [&str; 17] = [
    r#""containers": ["@"]"#,
    r#""hostname": "@""#,
    r#""terminationGracePeriodSeconds": "@""#,
    r#""shareProcessNamespace": "@""#,
    r#""nodeSelector": "@""#,
    r#""nodeSelector": {"a": "@"}"#,
    r#""tolerations": "@""#,
    r#""tolerations": [{"key": "a", "tolerationSeconds": "@"}]"#,
    r#""affinity": "@""#,
    r#""dnsConfig": "@""#,
    r#""dnsConfig": {"options": ["@"]}"#,
    r#""hostAliases": "@""#,
    r#""topologySpreadConstraints": [{"maxSkew": "@", "topologyKey": "a", "whenUnsatisfiable": "DoNotSchedule"}]"#,
    r#""securityContext": {"fsGroup": "@", "supplementalGroups": "@"}"#,
    r#""volumes": ["@"]"#,
    r#""volumes": [{"name": "w", "configMap": {"name": "c", "defaultMode": "@"}}]"#,
    r#""volumes": [{"name": "w", "emptyDir": {"sizeLimit": "@"}}]"#,
];

fn fragment() -> impl Strategy<Value = String> {
    let in_container = prop::sample::select(IN_CONTAINER.to_vec()).prop_map(|part| {
        format!(
            r#"{{"spec": {{"containers": [{{"name": "s", "image": "i", {part}}}], "volumes": [{{"name": "v", "emptyDir": {{}}}}]}}}}"#
        )
        // Keys are there once: the part's own image counts.
        .replacen(r#""image": "i", "image""#, r#""image""#, 1)
    });
    let in_spec =
        prop::sample::select(IN_SPEC.to_vec()).prop_map(|part| format!(r#"{{"spec": {{{part}}}}}"#));
    let in_metadata = prop::sample::select(vec![
        r#"{"metadata": {"labels": {"a": "@"}, "annotations": {"a": "@"}}}"#.to_owned(),
        r#"{"metadata": {"labels": "@"}}"#.to_owned(),
        r#"{"metadata": {"annotations": "@"}}"#.to_owned(),
    ]);
    prop_oneof![4 => in_container, 2 => in_spec, 1 => in_metadata]
}

fn value() -> impl Strategy<Value = Value> {
    let text = prop::sample::select(vec![
        "",
        "a",
        "8080",
        "-1",
        "99999999999",
        "1.5",
        "true",
        "false",
        "100m",
        "64Mi",
        "TCP",
        "Always",
        "/a",
        "Exists",
        " ",
    ]);
    let number = prop::sample::select(vec![0, 1, -1, 80, 70_000, i64::from(i32::MAX) + 1, i64::MAX]);
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        number.prop_map(Value::from),
        prop::sample::select(vec![0.5, 1e30, -2.0]).prop_map(Value::from),
        text.prop_map(Value::from),
    ];
    let key = prop::sample::select(vec![
        "name",
        "value",
        "image",
        "containerPort",
        "port",
        "httpGet",
        "path",
        "key",
        "operator",
        "mountPath",
        "limits",
        "cpu",
        "add",
        "emptyDir",
        "options",
        "ip",
        "hostnames",
        "env",
        "args",
        "x-newer",
    ]);
    scalar.prop_recursive(3, 12, 3, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map(key.clone(), inner, 0..5)
                .prop_map(|fields| fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
        ]
    })
}

/// How often pods were injected: a property that never meets one says nothing.
static INJECTED: AtomicUsize = AtomicUsize::new(0);

fn still_a_pod(fragment: &str, value: &Value) -> Result<(), TestCaseError> {
    let fragment = fragment.replace('@', "${pod.spec.containers[0].x}");
    let definition = format!(
        r#"{{"apiVersion": "sidecar.me/v1alpha1", "kind": "ClusterSidecarDefinition", "metadata": {{"name": "d"}},
            "spec": {{"selector": {{"podSelector": {{}}}}, "inject": {fragment}}}}}"#
    );
    let compiled = Compiled::from_yaml(&definition);
    let compiled = compiled.map_err(|problems| TestCaseError::fail(format!("{definition}: {problems:?}")))?;
    let engine = Engine::new(vec![Arc::new(compiled)]);
    let mut pod = json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "app", "image": "a", "x": value}]}});
    let injection = engine.inject(&pod.to_string(), &Namespace::new("default", [], [])).unwrap();
    let decision = injection.decisions.first().unwrap();
    if decision.reason != Reason::Injected {
        prop_assert!(injection.patch.is_empty());
        return Ok(());
    }
    INJECTED.fetch_add(1, Ordering::Relaxed);
    let patch: json_patch::Patch = serde_json::from_str(&injection.patch.to_json("")).unwrap();
    json_patch::patch(&mut pod, &patch).unwrap();
    let decoded = serde_json::from_value::<Pod>(pod.clone());
    prop_assert!(decoded.is_ok(), "{} in {pod}", decoded.unwrap_err());
    let decoded = serde_json::to_value(decoded.unwrap()).unwrap();
    for container in decoded["spec"]["containers"].as_array().unwrap() {
        prop_assert!(container["image"].as_str().is_some_and(|image| !image.is_empty()), "{container}");
    }
    Ok(())
}

#[test]
fn what_expressions_give_never_makes_something_that_is_no_pod() {
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(4000));
    runner.run(&(fragment(), value()), |(fragment, value)| still_a_pod(&fragment, &value)).unwrap();
    let injected = INJECTED.load(Ordering::Relaxed);
    assert!(injected > 200, "only {injected} were injected");
}

fn engine(spec: &str) -> Result<Engine, String> {
    let text = format!(
        r#"{{"apiVersion": "sidecar.me/v1alpha1", "kind": "ClusterSidecarDefinition", "metadata": {{"name": "d"}}, "spec": {spec}}}"#
    );
    let compiled = Compiled::from_yaml(&text)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect::<String>())?;
    Ok(Engine::new(vec![Arc::new(compiled)]))
}

fn variables(count: usize) -> String {
    let all: Vec<_> = (0..count).map(|index| format!(r#"{{"name": "A{index}", "value": "x"}}"#)).collect();
    format!("[{}]", all.join(","))
}

/// Merging compares each item with each of the pod's: 20,000 variables took half a minute.
#[test]
fn what_grows_with_the_definition_and_with_the_pod_has_limits() {
    let patch = |count| {
        format!(
            r#"{{"selector": {{"podSelector": {{}}}}, "patchContainers": [{{"env": {}}}]}}"#,
            variables(count)
        )
    };
    assert!(engine(&patch(513)).unwrap_err().contains("has 513 items, 512 are allowed"));
    let engine = engine(&patch(512)).unwrap();
    let inject = |containers: usize| {
        let containers: Vec<_> =
            (0..containers).map(|index| json!({"name": format!("c{index}"), "image": "a"})).collect();
        let pod = json!({"spec": {"containers": containers}}).to_string();
        let injection = engine.inject(&pod, &Namespace::new("default", [], [])).unwrap();
        injection.decisions.first().map(|decision| decision.reason)
    };
    assert_eq!(inject(50), Some(Reason::Injected));
    assert_eq!(inject(200), Some(Reason::ExpressionFailed));
}
