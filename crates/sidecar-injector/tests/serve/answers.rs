//! The server's answers, input by input. What the engine makes of odd pods is tested there; here it is what arrives.

use hyper::StatusCode;
use serde_json::{Value, json};

use crate::client::{Connection, connect_tls, patch, pod, request, review, tls_of};
use crate::server::{Server, wait_until};

fn is_allowed_without_patch(answer: &Value) -> bool {
    let response = answer["response"].as_object().unwrap();
    response["allowed"] == true && !response.contains_key("patch") && !response.contains_key("patchType")
}

#[tokio::test]
async fn labelled_pods_get_the_patch_over_http1_and_http2() {
    let server = Server::https();
    for mut connection in
        [Connection::http1(&server).await.unwrap(), Connection::http2(&server).await.unwrap()]
    {
        for label in ["true", "True"] {
            let answer = connection.review(&review(pod(Some(label)))).await.unwrap();
            assert_eq!(answer.status, StatusCode::OK);
            assert_eq!(answer.headers["content-type"], "application/json");
            let text = String::from_utf8(answer.body.to_vec()).unwrap();
            assert!(!text.contains("hunter2") && !text.contains("object"), "{text}");
            let answer = answer.json();
            assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
            assert_eq!(answer["kind"], "AdmissionReview");
            assert_eq!(answer["response"]["uid"], "705ab4f5-6393-11e8-b7cc-42010a800002");
            assert_eq!(answer["response"]["allowed"], true);
            let mut injected = pod(Some(label));
            json_patch::patch(&mut injected, &patch(&answer).unwrap()).unwrap();
            assert_eq!(injected["spec"]["containers"][1]["image"], "yauritux/busybox-curl:latest");

            let again = connection.review(&review(injected)).await.unwrap().json();
            assert!(is_allowed_without_patch(&again), "{again}");
        }
    }
}

#[tokio::test]
async fn pods_that_get_nothing_are_allowed() {
    let server = Server::https();
    let mut connection = Connection::http1(&server).await.unwrap();
    let mut taken = pod(Some("true"));
    taken["spec"]["initContainers"] = json!([{"name": "curl", "image": "other"}]);
    for (object, warning) in [
        (pod(Some("false")), None),
        (pod(Some("yes")), None),
        (pod(None), None),
        (Value::Null, None),
        (json!({"metadata": null}), None),
        (
            json!({"metadata": {"labels": {"sidecar.me/inject": 1}}, "spec": {"containers": [{"name": "app"}]}}),
            None,
        ),
        (json!({"metadata": {"labels": {"sidecar.me/inject": "true"}}}), Some("MalformedPod")),
        (json!({"metadata": {"labels": {"sidecar.me/inject": "true"}}, "spec": {}}), Some("MalformedPod")),
        (taken, Some("ContainerNameConflict")),
    ] {
        let answer = connection.review(&review(object.clone())).await.unwrap();
        assert_eq!(answer.status, StatusCode::OK);
        let answer = answer.json();
        assert!(is_allowed_without_patch(&answer), "{object}: {answer}");
        match warning {
            None => assert!(answer["response"].get("warnings").is_none(), "{answer}"),
            Some(code) => {
                assert!(answer["response"]["warnings"][0].as_str().unwrap().contains(code), "{answer}");
            }
        }
    }
}

#[tokio::test]
async fn what_is_not_the_creation_of_a_pod_is_allowed() {
    let server = Server::https();
    let mut connection = Connection::http1(&server).await.unwrap();
    for (field, value) in [
        ("operation", json!("UPDATE")),
        ("operation", json!("DELETE")),
        ("operation", json!("CONNECT")),
        ("subResource", json!("ephemeralcontainers")),
        ("kind", json!({"group": "apps", "version": "v1", "kind": "Deployment"})),
        ("kind", json!({"group": "example.com", "version": "v1", "kind": "Pod"})),
    ] {
        let mut review = review(pod(Some("true")));
        review["request"][field] = value;
        assert!(is_allowed_without_patch(&connection.review(&review).await.unwrap().json()), "{field}");
    }
    let mut dry = review(pod(Some("true")));
    dry["request"]["dryRun"] = json!(true);
    assert!(
        patch(&connection.review(&dry).await.unwrap().json()).is_some(),
        "dry runs are answered like any other"
    );
    let mut old = review(pod(Some("true")));
    old["apiVersion"] = json!("admission.k8s.io/v1beta1");
    let answer = connection.review(&old).await.unwrap().json();
    assert_eq!(answer["apiVersion"], "admission.k8s.io/v1beta1");
    assert!(patch(&answer).is_some());
}

#[tokio::test]
async fn what_is_no_review_is_refused_with_a_reason() {
    let server = Server::https();
    let json = Some("application/json");
    let large = vec![b' '; 7 * 1024 * 1024 + 1];
    for (method, path, content_type, body, status, code) in [
        ("POST", "/mutation/pod", json, b"".to_vec(), 400, "ReviewEmpty"),
        ("POST", "/mutation/pod", json, b"{\"a\":".to_vec(), 400, "ReviewMalformed"),
        ("POST", "/mutation/pod", json, br#"{"kind":"Pod"}"#.to_vec(), 400, "ReviewKind"),
        (
            "POST",
            "/mutation/pod",
            json,
            br#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1"}"#.to_vec(),
            400,
            "ReviewNoRequest",
        ),
        ("POST", "/mutation/pod", json, large, 413, "BodyTooLarge"),
        ("POST", "/mutation/pod", Some("application/yaml"), b"{}".to_vec(), 415, "UnsupportedMediaType"),
        ("POST", "/mutation/pod", None, b"{}".to_vec(), 415, "UnsupportedMediaType"),
        ("GET", "/mutation/pod", None, b"".to_vec(), 405, "MethodNotAllowed"),
        ("POST", "/health/readiness", json, b"".to_vec(), 405, "MethodNotAllowed"),
        ("POST", "/mutation/pod/", json, b"{}".to_vec(), 404, "NotFound"),
        ("GET", "/", None, b"".to_vec(), 404, "NotFound"),
    ] {
        // A connection of its own: after 413 the server closes it rather than read on.
        let mut connection = Connection::http1(&server).await.unwrap();
        let answer = connection.send(request(method, path, content_type, body)).await.unwrap();
        assert_eq!(answer.status.as_u16(), status, "{method} {path}");
        assert_eq!(answer.json()["error"]["code"], code, "{method} {path}");
        assert!(!answer.json()["error"]["message"].as_str().unwrap().is_empty());
        if status == 405 {
            let allowed = answer.headers["allow"].to_str().unwrap();
            assert!(allowed.contains(if method == "GET" { "POST" } else { "GET" }), "{allowed}");
        }
    }
}

#[tokio::test]
async fn tls_1_2_and_1_3_are_spoken() {
    let server = Server::https();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = tls_of(&[version], &server.authority.pem, &["http/1.1"]);
        let stream = connect_tls(server.address, config).await.unwrap();
        assert_eq!(stream.get_ref().1.protocol_version(), Some(version.version));
    }
}

#[tokio::test]
async fn content_types_with_parameters_are_json_too() {
    let server = Server::https();
    let mut connection = Connection::http1(&server).await.unwrap();
    let body = review(pod(Some("true"))).to_string();
    let answer = connection
        .send(request("POST", "/mutation/pod", Some("Application/JSON; charset=utf-8"), body))
        .await;
    assert_eq!(answer.unwrap().status, StatusCode::OK);
}

/// Regression of the article's 100 KiB limit; and every byte that is not named survives, because it is not in the patch.
#[tokio::test]
async fn a_pod_of_1_5_megabytes_is_patched() {
    let server = Server::https();
    let mut connection = Connection::http1(&server).await.unwrap();
    let mut large = pod(Some("true"));
    for index in 0..15_000 {
        large["spec"][format!("x-{index}")] =
            json!({"a/b": [1.0, 9_223_372_036_854_775_808_u64, "größe"], "~": {"deep": null}});
        large["metadata"]["annotations"][format!("example.com/{index}")] = "日本語".into();
    }
    assert!(large.to_string().len() > 1_500_000);
    let answer = connection.review(&review(large.clone())).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    assert!(answer.body.len() < 1_000);
    let mut injected = large.clone();
    json_patch::patch(&mut injected, &patch(&answer.json()).unwrap()).unwrap();
    injected["spec"]["containers"].as_array_mut().unwrap().pop();
    assert_eq!(injected, large);
}

#[tokio::test]
async fn health_has_the_articles_form() {
    let server = Server::https();
    let mut connection = Connection::http1(&server).await.unwrap();
    for path in ["/health/liveness", "/health/readiness"] {
        let answer = connection.get(path).await.unwrap();
        assert_eq!(answer.status, StatusCode::OK);
        let answer = answer.json();
        assert_eq!(answer["data"]["status"], "ok");
        assert!(answer["data"]["time"].as_u64().unwrap() > 1_700_000_000_000, "{answer}");
    }
}

/// Regression of the article's log of whole reviews.
#[tokio::test]
async fn the_log_has_one_short_line_for_each_review_and_nothing_of_the_pod() {
    let server = Server::https();
    let mut connection = Connection::http1(&server).await.unwrap();
    connection.review(&review(pod(Some("true")))).await.unwrap();
    connection.send(request("POST", "/mutation/pod", Some("application/json"), "hunter2 {")).await.unwrap();
    server.wait_for_log("review_refused");
    let lines = server.logged("review");
    assert_eq!(lines.len(), 1);
    let line = &lines[0];
    assert_eq!(line["uid"], "705ab4f5-6393-11e8-b7cc-42010a800002");
    assert_eq!((&line["namespace"], &line["owner"]), (&json!("default"), &json!("ReplicaSet/web-7d4b9c")));
    assert_eq!(
        (&line["decision"], &line["definitions"], &line["reasons"]),
        (&json!("injected"), &json!("curl"), &json!("Injected"))
    );
    assert_eq!(line["operations"], 1);
    assert!(line["microseconds"].is_u64());
    assert!(line.to_string().len() <= 400 && line.get("messages").is_none(), "{line}");
    assert!(!server.log.lock().unwrap().join("\n").contains("hunter2"));
}

/// A warning about the pod of a Deployment reaches its controller, and nobody else.
#[tokio::test]
async fn the_log_says_in_the_words_of_the_warning_why_a_pod_goes_without_a_sidecar() {
    let definitions = tempfile::tempdir().unwrap();
    let definition = "apiVersion: sidecar.me/v1alpha1\nkind: ClusterSidecarDefinition\nmetadata: {name: shipper}\nspec:\n  \
                      parameters: [{name: level, default: info, allowed: [info]}]\n  \
                      inject: {spec: {containers: [{name: shipper, image: s}]}}\n";
    std::fs::write(definitions.path().join("d.yaml"), definition).unwrap();
    let server = Server::start(&[("DEFINITIONS", definitions.path().to_str().unwrap())]);
    let mut connection = Connection::http1(&server).await.unwrap();
    let mut wrong = pod(Some("true"));
    wrong["metadata"]["annotations"] =
        json!({"shipper.sidecar.me/level": "loud", "sidecar.me/inject": "no\tne"});
    let answer = connection.review(&review(wrong.clone())).await.unwrap().json();
    let warnings: Vec<_> = answer["response"]["warnings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|text| text.as_str().unwrap())
        .collect();
    assert!(warnings.iter().any(|text| text.starts_with("sidecar shipper: InvalidParameter: level: ")));
    let line = server.wait_for_log("review");
    assert_eq!((&line["reasons"], warnings.len()), (&json!("UnknownDefinition,InvalidParameter"), 2));
    assert_eq!(line["messages"], warnings.join("; "));
    assert!(!line.to_string().contains("hunter2"), "{line}");

    wrong["metadata"]["annotations"]["sidecar.me/inject"] = "ü1,ü2,ü3,ü4,ü5,ü6,ü7,ü8".into();
    connection.review(&review(wrong)).await.unwrap();
    wait_until(|| server.logged("review").len() == 2).await;
    let message = server.logged("review")[1]["messages"].as_str().unwrap().to_owned();
    assert!(message.chars().count() == 400 && message.ends_with('…'), "{message}");
}

/// Regression: what a made-up review asked for was in its line as a whole, and thousands of lines may wait.
#[tokio::test]
async fn the_log_has_short_lines_whatever_a_review_says() {
    let server = Server::https();
    let mut connection = Connection::http1(&server).await.unwrap();
    let long = |letter: &str| letter.repeat(700_000);
    let mut odd = pod(Some("true"));
    let asked = ["a", "b", "c", "d", "e"].map(long).join(",");
    odd["metadata"]["annotations"] = json!({"sidecar.me/inject": asked});
    odd["metadata"]["ownerReferences"] = json!([{"kind": long("K"), "name": long("n"), "controller": true}]);
    let mut odd = review(odd);
    odd["request"]["namespace"] = long("s").into();
    assert_eq!(connection.review(&odd).await.unwrap().status, StatusCode::OK);
    let line = server.wait_for_log("review");
    assert!(line["definitions"].as_str().unwrap().ends_with("d…,…"), "{line}");
    assert!(line.to_string().len() < 4_000, "{} bytes", line.to_string().len());

    let unknown: serde_json::Map<_, _> = (0..2_000).map(|field| (format!("{field}"), json!(1))).collect();
    let definition = json!({
        "apiVersion": "sidecar.me/v1alpha1",
        "kind": "ClusterSidecarDefinition",
        "metadata": {"name": "odd"},
        "spec": unknown,
    });
    let mut odd = review(definition);
    odd["request"]["kind"] =
        json!({"group": "sidecar.me", "version": "v1alpha1", "kind": "ClusterSidecarDefinition"});
    let body = request("POST", "/validation/definition", Some("application/json"), odd.to_string());
    assert_eq!(connection.send(body).await.unwrap().status, StatusCode::OK);
    let line = server.wait_for_log("definition_review");
    assert!(line["problems"].as_str().unwrap().ends_with(",UnknownField,…"), "{line}");
    assert!(line.to_string().len() < 2_000, "{} bytes", line.to_string().len());
}

#[tokio::test]
async fn the_log_counts_what_was_kept_and_replaced_and_names_nothing_of_it() {
    for (policy, counted, other) in [("KeepPod", "kept", "replaced"), ("Replace", "replaced", "kept")] {
        let definitions = tempfile::tempdir().unwrap();
        let definition = format!(
            "apiVersion: sidecar.me/v1alpha1\nkind: ClusterSidecarDefinition\nmetadata: {{name: d}}\nspec:\n  onConflict: {policy}\n  \
             patchContainers: [{{env: [{{name: PASSWORD, value: a}}, {{name: OTHER, value: b}}]}}]\n"
        );
        std::fs::write(definitions.path().join("d.yaml"), definition).unwrap();
        let server = Server::start(&[("DEFINITIONS", definitions.path().to_str().unwrap())]);
        let mut connection = Connection::http1(&server).await.unwrap();
        let answer = connection.review(&review(pod(Some("true")))).await.unwrap().json();
        assert!(answer["response"].get("warnings").is_none(), "{answer}");
        let line = server.wait_for_log("review");
        assert_eq!((&line[counted], line.get(other)), (&json!(1), None), "{line}");
        assert!(!line.to_string().contains("PASSWORD"), "{line}");
    }
}

#[tokio::test]
async fn https_is_on_only_for_true_and_plain_http_is_on_loopback() {
    for value in ["True", "1", "yes", "", "false"] {
        let server = Server::start(&[("HTTPS_ENABLED", value)]);
        let serving = server.wait_for_log("serving");
        assert_eq!(serving["protocol"], "http", "{value}");
        assert!(server.address.ip().is_loopback());
        let mut stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(
            &mut stream,
            b"GET /health/liveness HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        )
        .await
        .unwrap();
        let mut answer = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    }
}
