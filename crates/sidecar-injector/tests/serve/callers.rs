//! With a CA for client certificates, reviews are for those who have one.

use std::process::Command;
use std::time::Duration;

use hyper::StatusCode;

use crate::client::{Connection, pod, request, review, tls, tls_as};
use crate::server::{Authority, Server};

#[tokio::test(flavor = "multi_thread")]
async fn reviews_are_for_callers_with_a_certificate_that_is_expected() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.crt");
    let clients = Authority::new();
    std::fs::write(&file, &clients.pem).unwrap();
    let file = file.to_str().unwrap();
    let server = Server::start(&[("CLIENT_CA_FILE", file), ("CLIENT_NAMES", "other,kube-apiserver")]);
    let asks = async |config| {
        let mut connection = Connection::http1_with(server.address, config).await?;
        let answer = connection.review(&review(pod(Some("true")))).await.map_err(std::io::Error::other)?;
        std::io::Result::Ok((answer.status, answer.json()["error"]["code"].clone()))
    };
    let of = |authority: &Authority, name| tls_as(authority.issue_for(name), &server.authority.pem);

    let (status, _) = asks(of(&clients, "kube-apiserver")).await.unwrap();
    assert_eq!(status, StatusCode::OK);
    let (status, code) = asks(of(&clients, "somebody")).await.unwrap();
    assert_eq!((status, code), (StatusCode::FORBIDDEN, "CallerUnknown".into()));
    asks(of(&Authority::new(), "kube-apiserver")).await.expect_err("the CA is another");

    // Kubelets have no certificate.
    let mut anybody = Connection::http1(&server).await.unwrap();
    assert_eq!(anybody.get("/health/readiness").await.unwrap().status, StatusCode::OK);
    let answer = anybody.review(&review(pod(Some("true")))).await.unwrap();
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert_eq!(anybody.get("/health/liveness").await.unwrap().status, StatusCode::OK, "the same connection");

    // Another CA takes effect without a restart; what is none does not.
    let others = Authority::new();
    std::fs::write(file, "nonsense").unwrap();
    server.wait_for_log("client_ca_refused");
    assert_eq!(asks(of(&clients, "kube-apiserver")).await.unwrap().0, StatusCode::OK);
    std::fs::write(file, &others.pem).unwrap();
    server.wait_for_log("client_ca_reloaded");
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(asks(of(&others, "kube-apiserver")).await.unwrap().0, StatusCode::OK);
    asks(of(&clients, "kube-apiserver")).await.expect_err("the CA is another now");
}

/// Regression: over plain HTTP a variable that was set to nothing was an error, and names were ignored.
#[test]
fn certificates_are_not_asked_for_where_nobody_can_show_one() {
    let nothing = [("CLIENT_CA_FILE", ""), ("CLIENT_NAMES", "")];
    for https in ["true", "false"] {
        let settings = [&nothing[..], &[("HTTPS_ENABLED", https)]].concat();
        Server::start(&settings).wait_for_log("serving");
    }
    for (option, value) in [("--client-ca-file", "ca.crt"), ("--client-names", "kube-apiserver")] {
        // Without definitions it would end too, in another way.
        let refused = Command::new(env!("CARGO_BIN_EXE_sidecar-injector"))
            .args(["serve", "--http-port", "0", "--definitions", "nowhere", option, value])
            .output()
            .unwrap();
        let message = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(2), "{message}");
        assert!(message.contains(&format!("{option} needs HTTPS")), "{message}");
    }
}

/// An API server may be configured to send one (docs/security.md); nothing depends on it, and no log may have it.
#[tokio::test]
async fn a_bearer_token_is_neither_checked_nor_logged() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.crt");
    let clients = Authority::new();
    std::fs::write(&file, &clients.pem).unwrap();
    let server = Server::start(&[("CLIENT_CA_FILE", file.to_str().unwrap()), ("LOG_LEVEL", "trace")]);
    let trusted = &server.authority.pem;
    let known = tls_as(clients.issue_for("kube-apiserver"), trusted);
    let callers = [(known, StatusCode::OK), (tls(trusted, &["http/1.1"]), StatusCode::FORBIDDEN)];
    for (config, status) in callers {
        for token in [None, Some("Bearer kept-secret-by-all"), Some("kept-secret-by-all")] {
            let mut connection = Connection::http1_with(server.address, config.clone()).await.unwrap();
            let mut request = request(
                "POST",
                "/mutation/pod",
                Some("application/json"),
                review(pod(Some("true"))).to_string(),
            );
            if let Some(token) = token {
                request.headers_mut().insert("authorization", token.parse().unwrap());
            }
            assert_eq!(connection.send(request).await.unwrap().status, status, "{token:?}");
        }
    }
    let mut connection = Connection::http2(&server).await.unwrap();
    let mut request = request("GET", "/health/readiness", None, "");
    request.headers_mut().insert("authorization", "Bearer kept-secret-by-all".parse().unwrap());
    assert_eq!(connection.send(request).await.unwrap().status, StatusCode::OK);
    drop(connection);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let log = server.log.lock().unwrap().join("\n");
    assert!(log.contains("\"TRACE\""), "it is at its most talkative");
    assert!(!log.contains("kept-secret-by-all"), "{log}");
}
