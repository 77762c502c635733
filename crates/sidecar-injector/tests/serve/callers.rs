//! With a CA for client certificates, reviews are for those who have one.

use std::process::Command;
use std::time::Duration;

use hyper::StatusCode;

use crate::client::{Connection, pod, review, tls_as};
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
        let refused = Command::new(env!("CARGO_BIN_EXE_sidecar-injector"))
            .args(["serve", "--http-port", "0", option, value])
            .output()
            .unwrap();
        let message = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(2), "{message}");
        assert!(message.contains(&format!("{option} needs HTTPS")), "{message}");
    }
}
