//! Properties over generated pods: patches apply, nothing else changes, twice is once, and no input is too odd.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;

use proptest::prelude::*;
use serde_json::{Value, json};
use sidecar_engine::{Engine, Namespace, NoNamespaces};

/// Any JSON, with the keys and numbers that have broken others.
fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        Just(json!(9_223_372_036_854_775_808_u64)),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        Just(json!("true")),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::hash_map(key(), inner, 0..6).prop_map(|map| map.into_iter().collect()),
        ]
    })
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        ".{0,6}",
        prop::sample::select(vec![
            "a/b",
            "a~b",
            "~1",
            "metadata",
            "spec",
            "labels",
            "containers",
            "initContainers",
            "name",
            "hostNetwork",
            "os",
            "nodeSelector",
            "annotations",
            "ownerReferences",
            "sidecar.me/inject",
            "größe",
            "-",
            "0",
        ])
        .prop_map(str::to_owned),
    ]
}

/// A labelled pod with invented fields at every level.
fn pod() -> impl Strategy<Value = Value> {
    let container = ("[a-z]{1,4}", anything(), anything())
        .prop_map(|(name, x, y)| json!({"name": name, "x-a/b~c": x, "image": y}));
    (prop::collection::vec(container, 1..4), anything(), anything(), anything()).prop_map(
        |(containers, a, b, c)| {
            json!({
                "apiVersion": "v1", "kind": "Pod", "x-top": a,
                "metadata": {"labels": {"sidecar.me/inject": "true"}, "x-metadata": b},
                "spec": {"x-spec": c, "containers": containers},
            })
        },
    )
}

fn apply(pod: &Value, patch: &str) -> Value {
    let mut after = pod.clone();
    let patch: json_patch::Patch = serde_json::from_str(patch).unwrap();
    json_patch::patch(&mut after, &patch).unwrap();
    after
}

proptest! {
    #[test]
    fn a_pod_only_gains_its_sidecar_and_gains_it_once(pod in pod()) {
        let engine = Engine::builtin();
        let text = pod.to_string();
        let patch = engine.inject(&text, &Namespace::unknown("default")).unwrap().patch.to_json("");
        prop_assert_eq!(&engine.inject(&text, &Namespace::unknown("default")).unwrap().patch.to_json(""), &patch, "deterministic");
        let mut after = apply(&pod, &patch);
        let again = after.to_string();
        prop_assert!(engine.inject(&again, &Namespace::unknown("default")).unwrap().patch.is_empty());
        if patch != "[]" {
            let added = after["spec"]["containers"].as_array_mut().unwrap().pop().unwrap();
            prop_assert_eq!(&added["name"], "curl");
        }
        prop_assert_eq!(after, pod);
    }

    #[test]
    fn any_object_is_answered(object in anything()) {
        let engine = Engine::builtin();
        let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
            "uid": "u", "kind": {"group": "", "version": "v1", "kind": "Pod"}, "operation": "CREATE", "object": object}});
        let text = review.to_string();
        let reviewed = engine.review(text.as_bytes(), &NoNamespaces).unwrap();
        let answer: Value = serde_json::from_slice(&reviewed.response).unwrap();
        prop_assert_eq!(&answer["response"]["allowed"], true);
    }

    #[test]
    fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Engine::builtin().review(&bytes, &NoNamespaces);
    }

    #[test]
    fn half_a_review_is_answered(pod in pod(), cut in 0.0..1.0_f64) {
        let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "u", "object": pod}});
        let text = review.to_string();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a place in a short text")]
        let cut = (text.len() as f64 * cut) as usize;
        let _ = Engine::builtin().review(text.as_bytes().get(..cut).unwrap(), &NoNamespaces);
    }
}

/// Numbers that lose their form when a document model reads them, keys that need escaping, text that is not ASCII:
/// the patch is made of what was added, so the bytes of everything else cannot change.
#[test]
fn a_pod_of_1_5_megabytes_with_every_oddity_is_patched_in_one_place() {
    let mut odd = String::from(
        r#""x-float":1.0,"x-big":9223372036854775808,"x-exp":1E+2,"x-a/b~c":{"~":"/","größe":"日本語 \u00e9"}"#,
    );
    for index in 0..28_000 {
        write!(odd, r#","x-{index}":{{"a/b":[1.0,-0,9223372036854775808],"~":"ü"}}"#).unwrap();
    }
    let pod = format!(
        r#"{{"metadata":{{"labels":{{"sidecar.me/inject":"true"}},"x-m":1.0}},"spec":{{"containers":[{{"name":"app","x-c":1.0}}],{odd}}},"x-t":1.0}}"#
    );
    assert!(pod.len() > 1_500_000, "{}", pod.len());
    let engine = Engine::builtin();
    let injection = engine.inject(&pod, &Namespace::unknown("default")).unwrap();
    let paths: Vec<_> = injection.patch.operations().iter().map(sidecar_engine::Operation::path).collect();
    assert_eq!(paths, ["/spec/containers/-"]);
    assert!(injection.patch.to_json("").len() < 300);
    let before: Value = serde_json::from_str(&pod).unwrap();
    let mut after = apply(&before, &injection.patch.to_json(""));
    after["spec"]["containers"].as_array_mut().unwrap().pop();
    assert_eq!(after, before);
}
