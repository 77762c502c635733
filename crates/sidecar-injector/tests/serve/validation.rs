//! The review of definitions, as the API server sends it for every object of the two kinds.

use hyper::StatusCode;
use serde_json::{Value, json};

use crate::client::{Connection, request};
use crate::definitions::definition;
use crate::server::Server;

fn review(operation: &str, object: Value) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800003",
            "kind": {"group": "sidecar.me", "version": "v1alpha1", "kind": "ClusterSidecarDefinition"},
            "resource": {"group": "sidecar.me", "version": "v1alpha1", "resource": "clustersidecardefinitions"},
            "name": "log",
            "operation": operation,
            "object": object,
            "oldObject": null,
        },
    })
}

fn object(name: &str) -> Value {
    json!({
        "apiVersion": "sidecar.me/v1alpha1", "kind": "ClusterSidecarDefinition",
        "metadata": {"name": name, "uid": "1", "generation": 1, "creationTimestamp": "2026-11-24T00:00:00Z",
            "managedFields": [{"manager": "kubectl", "operation": "Apply", "fieldsV1": {"f:spec": {}}}]},
        "spec": {"inject": {"spec": {"containers": [{"name": name, "image": "a"}]}}},
    })
}

async fn answer(connection: &mut Connection, review: &Value) -> Value {
    let request = request("POST", "/validation/definition", Some("application/json"), review.to_string());
    let answer = connection.send(request).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    let answer = answer.json();
    assert_eq!(answer["kind"], "AdmissionReview");
    assert_eq!(answer["response"]["uid"], review["request"]["uid"]);
    assert!(answer["response"].get("patch").is_none());
    answer["response"].clone()
}

#[tokio::test]
async fn bad_definitions_are_refused_with_all_that_is_wrong() {
    let server = Server::https();
    let mut connection = Connection::http1(&server).await.unwrap();
    for operation in ["CREATE", "UPDATE"] {
        let good = answer(&mut connection, &review(operation, object("log"))).await;
        assert_eq!(good, json!({"uid": good["uid"], "allowed": true}));

        let mut bad = object("log");
        bad["apiVersion"] = "sidecar.me/v9".into();
        bad["spec"]["parameters"] = json!([{"name": "level", "type": "integer", "default": "high"}]);
        let refused = answer(&mut connection, &review(operation, bad)).await;
        assert_eq!(refused["allowed"], false);
        assert_eq!(refused["status"]["code"], 422);
        assert_eq!(refused["status"]["reason"], "Invalid");
        let message = refused["status"]["message"].as_str().unwrap();
        let lines: Vec<_> = message.lines().collect();
        assert_eq!(
            lines[0],
            "apiVersion: is \"sidecar.me/v9\", must be \"sidecar.me/v1alpha1\" [InvalidValue]"
        );
        assert!(lines[1].starts_with("spec.parameters[0].default: "), "{message}");
        assert_eq!(lines.len(), 2, "{message}");
    }
    let line = server.wait_for_log("definition_review");
    assert_eq!((&line["name"], &line["decision"]), (&json!("log"), &json!("allowed")));
}

#[tokio::test]
async fn what_is_not_the_writing_of_a_definition_is_allowed() {
    let server = Server::https();
    let mut connection = Connection::http1(&server).await.unwrap();
    let broken = json!({"apiVersion": "sidecar.me/v9", "kind": "ClusterSidecarDefinition", "metadata": {"name": "log"}});
    for (operation, object) in [
        ("DELETE", broken.clone()),
        ("DELETE", Value::Null),
        ("CONNECT", broken.clone()),
        ("CREATE", Value::Null),
    ] {
        assert_eq!(answer(&mut connection, &review(operation, object)).await["allowed"], true, "{operation}");
    }
    for (field, value) in [
        ("kind", json!({"group": "", "version": "v1", "kind": "Pod"})),
        ("kind", json!({"group": "example.com", "version": "v1", "kind": "ClusterSidecarDefinition"})),
        ("kind", json!({"group": "sidecar.me", "version": "v1alpha1", "kind": "Other"})),
        ("subResource", json!("status")),
    ] {
        let mut review = review("CREATE", broken.clone());
        review["request"][field] = value;
        assert_eq!(answer(&mut connection, &review).await["allowed"], true, "{review}");
    }
    assert_eq!(answer(&mut connection, &review("CREATE", broken)).await["allowed"], false);
}

#[tokio::test]
async fn a_name_that_a_file_serves_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("log.yaml"), definition("log", "log:1")).unwrap();
    let server = Server::start(&[("DEFINITIONS", folder.path().to_str().unwrap())]);
    let mut connection = Connection::http1(&server).await.unwrap();
    let refused = answer(&mut connection, &review("CREATE", object("log"))).await;
    let message = refused["status"]["message"].as_str().unwrap();
    assert!(
        message.starts_with("metadata.name: ") && message.ends_with("log.yaml:1 [NameTaken]"),
        "{message}"
    );
    assert_eq!(answer(&mut connection, &review("CREATE", object("other"))).await["allowed"], true);
    // A SidecarDefinition of the same name is another one.
    let mut own = object("log");
    own["kind"] = "SidecarDefinition".into();
    own["metadata"]["namespace"] = "team-a".into();
    let mut review = review("CREATE", own);
    review["request"]["kind"]["kind"] = "SidecarDefinition".into();
    assert_eq!(answer(&mut connection, &review).await["allowed"], true);
}

#[tokio::test]
async fn bodies_are_read_as_those_of_pods_are() {
    let server = Server::https();
    let json = Some("application/json");
    for (method, content_type, body, status, code) in [
        ("POST", json, b"".to_vec(), 400, "ReviewEmpty"),
        ("POST", json, br#"{"kind":"Pod"}"#.to_vec(), 400, "ReviewKind"),
        ("POST", json, vec![b' '; 7 * 1024 * 1024 + 1], 413, "BodyTooLarge"),
        ("POST", Some("text/plain"), b"{}".to_vec(), 415, "UnsupportedMediaType"),
        ("GET", None, b"".to_vec(), 405, "MethodNotAllowed"),
    ] {
        let mut connection = Connection::http1(&server).await.unwrap();
        let answer =
            connection.send(request(method, "/validation/definition", content_type, body)).await.unwrap();
        assert_eq!(answer.status.as_u16(), status, "{code}");
        assert_eq!(answer.json()["error"]["code"], code);
    }
}
