//! Reviews in, responses out: the envelope, what is not a pod's creation, and what is not a review at all.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use base64::Engine as _;
use serde_json::{Value, json};
use sidecar_engine::definition::{Compiled, ReadOptions};
use sidecar_engine::{Engine, Namespace, NoNamespaces, Reason, review_definition};

fn pod() -> Value {
    json!({
        "metadata": {"name": "web", "labels": {"sidecar.me/inject": "true"}},
        "spec": {"containers": [{"name": "app", "image": "app:1", "env": [{"name": "PASSWORD", "value": "hunter2"}]}]},
    })
}

fn review(change: impl FnOnce(&mut Value)) -> Value {
    let mut review = json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": "default",
            "operation": "CREATE",
            "userInfo": {"username": "admin"},
            "object": pod(),
            "oldObject": null,
            "dryRun": false,
        },
    });
    change(&mut review);
    review
}

fn answer(review: &Value) -> Value {
    let engine = Engine::builtin();
    serde_json::from_slice(&engine.review(review.to_string().as_bytes(), &NoNamespaces).unwrap().response)
        .unwrap()
}

fn is_allowed_without_patch(answer: &Value) -> bool {
    let response = answer["response"].as_object().unwrap();
    response["allowed"] == true && !response.contains_key("patch") && !response.contains_key("patchType")
}

#[test]
fn a_labelled_pod_gets_the_patch_and_nothing_is_echoed() {
    let answer = answer(&review(|_| ()));
    let mut keys: Vec<_> = answer.as_object().unwrap().keys().collect();
    keys.sort();
    assert_eq!(keys, ["apiVersion", "kind", "response"]);
    assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
    assert_eq!(answer["kind"], "AdmissionReview");
    assert_eq!(answer["response"]["uid"], "705ab4f5-6393-11e8-b7cc-42010a800002");
    assert_eq!(answer["response"]["allowed"], true);
    assert_eq!(answer["response"]["patchType"], "JSONPatch");
    let patch = base64::engine::general_purpose::STANDARD
        .decode(answer["response"]["patch"].as_str().unwrap())
        .unwrap();
    assert!(!answer.to_string().contains("hunter2") && !String::from_utf8_lossy(&patch).contains("hunter2"));
    let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
    let mut pod = pod();
    json_patch::patch(&mut pod, &patch).unwrap();
    assert_eq!(pod["spec"]["containers"][1]["name"], "curl");
    assert_eq!(pod["spec"]["containers"][1]["command"][2], "while :; do echo '.'; sleep 5 ; done");
}

#[test]
fn the_second_review_has_neither_patch_nor_patch_type() {
    let curl = json!({"name": "curl", "image": "yauritux/busybox-curl:latest", "imagePullPolicy": "IfNotPresent",
        "command": ["/bin/sh", "-ec", "while :; do echo '.'; sleep 5 ; done"], "resources": {}});
    let answer = answer(&review(|review| {
        review["request"]["object"]["spec"]["containers"].as_array_mut().unwrap().push(curl);
    }));
    assert!(is_allowed_without_patch(&answer), "{answer}");
    assert!(answer["response"].get("warnings").is_none(), "{answer}");
}

#[test]
fn a_taken_name_is_a_warning_with_the_reason_code() {
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        let answer = answer(&review(|review| {
            let spec = &mut review["request"]["object"]["spec"];
            if spec[list].is_null() {
                spec[list] = json!([]);
            }
            spec[list].as_array_mut().unwrap().push(json!({"name": "curl", "image": "other"}));
        }));
        assert!(is_allowed_without_patch(&answer), "{list}: {answer}");
        let warning = answer["response"]["warnings"][0].as_str().unwrap();
        assert!(warning.contains("ContainerNameConflict") && warning.chars().count() <= 120, "{warning}");
    }
}

#[test]
fn dry_runs_are_answered_like_any_other() {
    let dry = answer(&review(|review| review["request"]["dryRun"] = json!(true)));
    assert_eq!(dry, answer(&review(|_| ())));
}

#[test]
fn v1beta1_is_answered_in_v1beta1() {
    let answer = answer(&review(|review| review["apiVersion"] = json!("admission.k8s.io/v1beta1")));
    assert_eq!(answer["apiVersion"], "admission.k8s.io/v1beta1");
    assert!(answer["response"]["patch"].is_string());
}

#[test]
fn what_is_not_the_creation_of_a_pod_is_allowed_without_patch() {
    let cases: [(&str, Value, Reason); 10] = [
        ("operation", json!("UPDATE"), Reason::NotCreate),
        ("operation", json!("DELETE"), Reason::NotCreate),
        ("operation", json!("CONNECT"), Reason::NotCreate),
        ("subResource", json!("ephemeralcontainers"), Reason::Subresource),
        ("subResource", json!("resize"), Reason::Subresource),
        ("object", Value::Null, Reason::NoObject),
        ("object", json!("text"), Reason::MalformedPod),
        ("kind", json!({"group": "apps", "version": "v1", "kind": "Deployment"}), Reason::NotAPod),
        ("kind", json!({"group": "example.com", "version": "v1", "kind": "Pod"}), Reason::NotAPod),
        ("kind", json!({"group": "", "version": "v1", "kind": "PodExecOptions"}), Reason::NotAPod),
    ];
    let engine = Engine::builtin();
    for (field, value, reason) in cases {
        let review = review(|review| review["request"][field] = value.clone());
        assert!(is_allowed_without_patch(&answer(&review)), "{field}: {value}");
        assert_eq!(
            engine.review(review.to_string().as_bytes(), &NoNamespaces).unwrap().skipped,
            Some(reason),
            "{field}: {value}"
        );
    }
}

/// What the log line says of a pod: pods of controllers have no name yet.
#[test]
fn a_review_knows_the_pod_s_name_and_its_owner() {
    let replica_set = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-1", "uid": "u", "controller": true});
    let other = json!({"kind": "Backup", "name": "nightly"});
    let engine = Engine::builtin();
    for (requested, metadata, name, owner) in [
        ("web", json!({"name": "other"}), "web", None),
        ("", json!({"name": "web"}), "web", None),
        ("", json!({"name": "web", "generateName": "web-"}), "web", None),
        ("", json!({"generateName": "web-1-"}), "web-1-", None),
        ("", json!({}), "", None),
        ("", json!({"name": "web", "ownerReferences": []}), "web", None),
        ("", json!({"name": "web", "ownerReferences": [other]}), "web", Some(("Backup", "nightly"))),
        (
            "",
            json!({"name": "web", "ownerReferences": [other, replica_set]}),
            "web",
            Some(("ReplicaSet", "web-1")),
        ),
        ("", json!({"name": "web", "ownerReferences": [{"kind": "ReplicaSet"}]}), "web", None),
    ] {
        let review = review(|review| {
            review["request"]["name"] = json!(requested);
            review["request"]["object"]["metadata"] = metadata.clone();
        })
        .to_string();
        let reviewed = engine.review(review.as_bytes(), &NoNamespaces).unwrap();
        let found = reviewed.owner.as_ref().map(|owner| (owner.kind.as_str(), owner.name.as_str()));
        assert_eq!((reviewed.name.as_str(), found), (name, owner), "{metadata}");
        assert_eq!(reviewed.is_named, requested == "web" || metadata["name"].is_string(), "{metadata}");
    }
}

/// The classic: YAML's `true` is no string, and the API server would refuse the pod for it.
#[test]
fn labels_that_cannot_be_read_are_pointed_out() {
    let engine = Engine::builtin();
    for (metadata, reason, pointed_out) in [
        (json!({"labels": {"sidecar.me/inject": true}}), Reason::NotSelected, true),
        (json!({"labels": {"sidecar.me/inject": "yes"}}), Reason::NotSelected, false),
        (json!({}), Reason::NotSelected, false),
        (json!({"labels": {"a": 1}, "annotations": {"sidecar.me/inject": "false"}}), Reason::OptedOut, false),
    ] {
        let pod = json!({"metadata": metadata, "spec": {"containers": [{"name": "app"}]}}).to_string();
        let decision = engine.inject(&pod, &Namespace::unknown("default")).unwrap().decisions.remove(0);
        let says_so = decision.to_string().contains("not all strings: quote them");
        assert_eq!((decision.reason, says_so), (reason, pointed_out), "{metadata}");
    }
}

/// kubectl shows warnings on one line; the API server cuts long ones and drops those with control characters.
#[test]
fn warnings_are_short_and_printable() {
    let definition = |name: &str| {
        Compiled::from_yaml(&format!(
            "{{apiVersion: sidecar.me/v1alpha1, kind: ClusterSidecarDefinition, metadata: {{name: {name}}}, \
             spec: {{inject: {{spec: {{containers: [{{name: app, image: a}}]}}}}}}}}"
        ))
        .unwrap()
    };
    // "sidecar : ContainerNameConflict: the pod has a different container \"app\" in containers" and the name: the last
    // one that fits, and the first one that does not.
    for (length, cut) in [(18, false), (19, true)] {
        let engine = Engine::new(vec![definition(&"d".repeat(length)).into()]);
        let review = review(|_| ()).to_string();
        let answer: Value =
            serde_json::from_slice(&engine.review(review.as_bytes(), &NoNamespaces).unwrap().response)
                .unwrap();
        let warning = answer["response"]["warnings"][0].as_str().unwrap();
        assert_eq!((warning.chars().count(), warning.ends_with('…')), (120, cut), "{warning}");
    }
}

/// Regression: eight of them, each as long as a review, waited in the log.
#[test]
fn names_that_do_not_exist_are_short_and_printable() {
    let engine = Engine::builtin();
    let long = format!("a\n{}", "ü".repeat(1_000_000));
    let body = review(|review| {
        review["request"]["object"]["metadata"]["annotations"] = json!({"sidecar.me/inject": long});
    });
    let reviewed = engine.review(body.to_string().as_bytes(), &NoNamespaces).unwrap();
    let decision = &reviewed.decisions[0];
    assert_eq!(decision.reason, Reason::UnknownDefinition);
    assert!(decision.definition.starts_with("a ü") && decision.definition.ends_with("ü…"));
    assert_eq!(decision.definition.chars().count(), 253);
}

/// A probe is answered whatever is loaded, once, and only where nothing of it remains.
#[test]
fn a_dry_run_that_only_asks_whether_reviews_arrive_is_told_so() {
    let engine = Engine::new(Vec::new());
    let probe = |value: &str, dry_run: bool| {
        let review = review(|review| {
            review["request"]["object"]["metadata"]["annotations"] = json!({"sidecar.me/probe": value});
            review["request"]["dryRun"] = json!(dry_run);
        });
        let review = review.to_string();
        let reviewed = engine.review(review.as_bytes(), &NoNamespaces).unwrap();
        let answer: Value = serde_json::from_slice(&reviewed.response).unwrap();
        (reviewed.skipped, answer)
    };
    let (skipped, answer) = probe("asked", true);
    assert_eq!(skipped, Some(Reason::Probe));
    let patch = base64::engine::general_purpose::STANDARD
        .decode(answer["response"]["patch"].as_str().unwrap())
        .unwrap();
    let mut asked = json!({"metadata": {"annotations": {"sidecar.me/probe": "asked"}}});
    let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
    json_patch::patch(&mut asked, &patch).unwrap();
    assert_eq!(asked["metadata"]["annotations"]["sidecar.me/probe"], "answered");

    for (value, dry_run) in [("answered", true), ("", true), ("asked", false)] {
        let (skipped, answer) = probe(value, dry_run);
        assert!(skipped.is_none() && is_allowed_without_patch(&answer), "{value} {dry_run}: {answer}");
    }
}

/// What the API server writes into its audit log, key and value.
fn audited(engine: &Engine, object: &Value) -> Vec<(String, String)> {
    let review = review(|review| review["request"]["object"] = object.clone()).to_string();
    let response = engine.review(review.as_bytes(), &NoNamespaces).unwrap().response;
    let answer: Value = serde_json::from_slice(&response).unwrap();
    let annotations = answer["response"]["auditAnnotations"].as_object().cloned().unwrap_or_default();
    annotations.into_iter().map(|(key, value)| (key, value.as_str().unwrap().to_owned())).collect()
}

/// The API server keeps one value for a key, so what the two calls for a pod say must be the same, or have another key.
#[test]
fn audit_annotations_of_the_two_calls_for_a_pod_never_collide() {
    let definition = |name: &str, rest: &str| {
        let text = format!(
            "{{apiVersion: sidecar.me/v1alpha1, kind: ClusterSidecarDefinition, metadata: {{name: {name}}}, \
             spec: {{{rest} inject: {{spec: {{containers: [{{name: {name}, image: a}}]}}}}}}}}"
        );
        Compiled::from_yaml(&text).unwrap().into()
    };
    let parameter = "parameters: [{name: level, type: string, default: info, allowed: [info, warn]}],";
    let engine = Engine::new(vec![definition("one", ""), definition("two", parameter)]);
    let with = |annotations: Value, names: &[&str]| {
        let mut pod = pod();
        pod["metadata"]["annotations"] = annotations;
        let containers = pod["spec"]["containers"].as_array_mut().unwrap();
        containers.extend(names.iter().map(|name| json!({"name": name, "image": "a"})));
        pod
    };
    let topics = |audited: &[(String, String)]| {
        let topics =
            audited.iter().map(|(key, value)| (key.split('-').next().unwrap().to_owned(), value.clone()));
        topics.collect::<Vec<_>>()
    };
    let loud = json!({"two.sidecar.me/level": "loud"});
    let missed = "sidecar two: InvalidParameter: level: \"loud\" is not allowed: one of info, warn";

    let nothing = audited(&engine, &json!({"spec": {"containers": [{"name": "app"}]}}));
    assert_eq!(nothing, []);
    let first = audited(&engine, &with(loud.clone(), &[]));
    assert_eq!(
        topics(&first),
        [("injected".to_owned(), "one".to_owned()), ("missed".to_owned(), missed.to_owned())]
    );
    // The same pod again, with what was added: only what is still missing, under the key that it has already.
    let second = audited(&engine, &with(loud, &["one"]));
    assert_eq!(second, first[1..]);
    // Somebody corrected the pod in between: another value, another key.
    let corrected = audited(&engine, &with(json!({}), &["one"]));
    assert_eq!(topics(&corrected), [("injected".to_owned(), "two".to_owned())]);
    assert_ne!(corrected[0].0, first[0].0);

    for (key, _) in first.iter().chain(&corrected) {
        let ends = [key.as_bytes().first().unwrap(), key.as_bytes().last().unwrap()];
        assert!(key.len() <= 63 && ends.into_iter().all(u8::is_ascii_alphanumeric), "{key}");
        assert!(key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'), "{key}");
    }
}

#[test]
fn audit_annotations_are_bounded_and_say_nothing_of_what_was_taken_back() {
    let definition = |index: usize, more: &str| {
        let text = format!(
            "{{apiVersion: sidecar.me/v1alpha1, kind: ClusterSidecarDefinition, metadata: {{name: d{index:03}}}, \
             spec: {{{more} inject: {{spec: {{containers: [{{name: app, image: a}}]}}}}}}}}"
        );
        Compiled::from_yaml(&text).unwrap().into()
    };
    let engine = Engine::new((0..500).map(|index| definition(index, "")).collect());
    let [(key, value)] = audited(&engine, &pod()).try_into().unwrap();
    assert!(
        key.starts_with("missed-") && value.starts_with("sidecar d000: ContainerNameConflict"),
        "{key}: {value}"
    );
    assert_eq!((value.chars().count(), value.ends_with('…')), (400, true));

    let added = "{apiVersion: sidecar.me/v1alpha1, kind: ClusterSidecarDefinition, metadata: {name: good}, \
         spec: {inject: {spec: {containers: [{name: good, image: a}]}}}}";
    let added = Compiled::from_yaml(added).unwrap().into();
    let engine = Engine::new(vec![added, definition(1, "failurePolicy: Fail,")]);
    let denied = audited(&engine, &pod());
    assert!(denied.iter().all(|(key, _)| key.starts_with("missed-")) && denied.len() == 1, "{denied:?}");
}

#[test]
fn odd_pods_are_allowed_without_patch() {
    for object in [
        json!({}),
        json!([]),
        json!({"metadata": null}),
        json!({"metadata": [], "spec": []}),
        json!({"metadata": {"labels": {"sidecar.me/inject": "true"}}}),
        json!({"metadata": {"labels": {"sidecar.me/inject": "true"}}, "spec": null}),
        json!({"metadata": {"labels": {"sidecar.me/inject": "true"}}, "spec": {}}),
        json!({"metadata": {"labels": {"sidecar.me/inject": "true"}}, "spec": {"containers": null}}),
        json!({"metadata": {"labels": {"sidecar.me/inject": "true"}}, "spec": {"containers": [null]}}),
        json!({"metadata": {"labels": {"sidecar.me/inject": true}}, "spec": {"containers": [{"name": "a"}]}}),
        json!({"metadata": {"labels": "sidecar.me/inject"}, "spec": {"containers": [{"name": "a"}]}}),
    ] {
        let answer = answer(&review(|review| review["request"]["object"] = object.clone()));
        assert!(is_allowed_without_patch(&answer), "{object}: {answer}");
    }
}

/// Taking a finalizer off is an update: refused like any other, the object stood in the cluster for ever.
#[test]
fn a_wrong_definition_that_is_being_deleted_kept_its_finalizers() {
    let is_allowed = |operation: &str, metadata: Value| {
        let review = review(|review| {
            let kind = "ClusterSidecarDefinition";
            review["request"]["kind"] = json!({"group": "sidecar.me", "version": "v1alpha1", "kind": kind});
            review["request"]["operation"] = json!(operation);
            review["request"]["object"] = json!({
                "apiVersion": "sidecar.me/v1alpha1", "kind": kind, "metadata": metadata, "spec": {"no": "field"},
            });
        });
        let review = review.to_string();
        let reviewed = review_definition(review.as_bytes(), ReadOptions::default(), |_| None).unwrap();
        let answer: Value = serde_json::from_slice(&reviewed.response).unwrap();
        assert_eq!(answer["response"]["allowed"], reviewed.problems.is_empty());
        reviewed.problems.is_empty()
    };
    let deleted = json!({"name": "a", "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": []});
    assert!(is_allowed("UPDATE", deleted.clone()));
    // Whoever creates an object can write anything into it.
    assert!(!is_allowed("CREATE", deleted));
    for metadata in [json!({"name": "a"}), json!({"name": "a", "deletionTimestamp": null}), json!("text")] {
        assert!(!is_allowed("UPDATE", metadata.clone()), "{metadata}");
    }
}

#[test]
fn what_is_no_review_says_what_is_wrong() {
    let engine = Engine::builtin();
    let code = |body: &str| engine.review(body.as_bytes(), &NoNamespaces).map(|_| ()).unwrap_err().code();
    assert_eq!(code(""), "ReviewEmpty");
    assert_eq!(code(" \n"), "ReviewEmpty");
    assert_eq!(code("{"), "ReviewMalformed");
    assert_eq!(code("[]"), "ReviewMalformed");
    assert_eq!(code("null"), "ReviewMalformed");
    assert_eq!(code("{} {}"), "ReviewMalformed");
    assert_eq!(code("{}"), "ReviewKind");
    assert_eq!(code(r#"{"kind":"Pod","apiVersion":"v1"}"#), "ReviewKind");
    assert_eq!(code(r#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v2"}"#), "ReviewVersion");
    assert_eq!(code(r#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1"}"#), "ReviewNoRequest");
    assert_eq!(
        code(r#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{}}"#),
        "ReviewNoUid"
    );
    assert_eq!(engine.review(b"\xff", &NoNamespaces).map(|_| ()).unwrap_err().code(), "ReviewNotUtf8");
}
