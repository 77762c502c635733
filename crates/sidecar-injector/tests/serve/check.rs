//! `check`, which `helm test` runs: it can pass, and it can fail.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use rustix::process::Signal;

use crate::server::{Authority, HOST, Server};

/// The exit code, and what is on standard error.
fn check(address: SocketAddr, host: &str, authority: &str) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_sidecar-injector"))
        .args(["check", "--timeout", "1s", "--url", &format!("https://{host}:443")])
        .args(["--connect-to", &address.to_string()])
        .args(["--ca-bundle", &base64::engine::general_purpose::STANDARD.encode(authority)])
        .output()
        .unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_server_that_injects_passes_and_any_other_does_not() {
    let mut server = Server::start(&[("SHUTDOWN_DELAY", "60s")]);
    let authority = server.authority.pem.clone();
    let (code, message) = check(server.address, HOST, &authority);
    assert_eq!(code, Some(0), "{message}");
    assert!(message.starts_with("ok: "), "{message}");

    let refused = |host: &str, authority: &str, problem: &str| {
        let (code, message) = check(server.address, host, authority);
        assert_eq!(code, Some(1), "{message}");
        assert!(message.starts_with("error: ") && message.contains(problem), "{message}");
    };
    refused("other.default.svc", &authority, "no TLS with");
    refused(HOST, &Authority::new().pem, "no TLS with");
    server.signal(Signal::TERM);
    server.wait_for_log("leaving");
    refused(HOST, &authority, "not ready: 503");
    server.signal(Signal::TERM);
    assert_eq!(server.exit_code(Duration::from_secs(5)), Some(0));
    let (code, message) = check(server.address, HOST, &authority);
    assert_eq!(code, Some(1), "{message}");
    assert!(message.contains("cannot connect to"), "{message}");
}

/// The certificate that it wants is the API server's alone.
#[test]
fn a_server_that_wants_client_certificates_passes_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.crt");
    std::fs::write(&file, Authority::new().pem).unwrap();
    let server = Server::start(&[("CLIENT_CA_FILE", file.to_str().unwrap())]);
    let (code, message) = check(server.address, HOST, &server.authority.pem);
    assert_eq!(code, Some(0), "{message}");
    assert!(message.contains("callers with a client certificate alone"), "{message}");
}
