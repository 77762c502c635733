//! Certificates: replaced under load without a failed call, refused when they are no pair.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hyper::StatusCode;

use crate::client::{Connection, connect_tls, pod, review, tls};
use crate::server::{Authority, Server, wait_until};

/// The certificate that a new connection is shown.
async fn shown(server: &Server) -> Vec<u8> {
    let stream = connect_tls(server.address, tls(&server.authority.pem, &["http/1.1"])).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

async fn wait_for_other(server: &Server, old: &[u8]) {
    for _ in 0..150 {
        if shown(server).await != old {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the old certificate is still served");
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_replaced_under_load_without_one_failed_call() {
    let server = Arc::new(Server::https());
    let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut callers = Vec::new();
    for caller in 0..6 {
        let (server, stop, calls) = (server.clone(), stop.clone(), calls.clone());
        callers.push(tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let mut connection = Connection::http1(&server).await.expect("a handshake");
                // Some callers keep their connection over the exchange, some make a new one for each call.
                for _ in 0..if caller % 2 == 0 { 1 } else { 50 } {
                    let answer = connection.review(&review(pod(Some("true")))).await.expect("an answer");
                    assert_eq!(answer.status, StatusCode::OK);
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            }
        }));
    }
    for generation in ["second", "third", "fourth"] {
        let old = shown(&server).await;
        let (certificate, key) = server.authority.issue();
        server.swap_certificate(generation, &certificate, &key);
        wait_for_other(&server, &old).await;
    }
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.unwrap();
    }
    assert!(calls.load(Ordering::Relaxed) > 100);
    wait_until(|| server.logged("certificate_reloaded").len() == 3).await;
}

/// The kubelet renames `..data` in the folder; a watch on the files would not show it.
#[tokio::test]
async fn the_kubelets_swap_is_noticed_long_before_the_next_look() {
    let server = Server::https();
    let started = Instant::now();
    let old = shown(&server).await;
    let (certificate, key) = server.authority.issue();
    server.swap_certificate("second", &certificate, &key);
    wait_for_other(&server, &old).await;
    // The first look without an event is 10 s after the start.
    assert!(started.elapsed() < Duration::from_secs(9), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_change_that_no_event_shows_is_noticed_all_the_same() {
    let server = Server::https();
    let old = shown(&server).await;
    let (certificate, key) = server.authority.issue();
    server.overwrite_certificate(&certificate, &key);
    wait_for_other(&server, &old).await;
}

#[tokio::test]
async fn a_key_that_does_not_belong_to_the_certificate_is_refused_and_the_old_pair_kept() {
    let server = Server::https();
    let old = shown(&server).await;
    let (certificate, key) = server.authority.issue();
    let (_, other_key) = Authority::new().issue();
    server.swap_certificate("mismatched", &certificate, &other_key);
    server.wait_for_log("certificate_refused");
    assert_eq!(shown(&server).await, old);
    server.swap_certificate("garbage", "no certificate", &key);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(shown(&server).await, old);
    server.swap_certificate("good", &certificate, &key);
    wait_for_other(&server, &old).await;
}

#[test]
fn a_bad_pair_at_the_start_says_which_file_and_why() {
    let folder = tempfile::tempdir().unwrap();
    let start = || {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_sidecar-injector"))
            .args(["serve", "--https-enabled", "--https-port", "0"])
            .arg("--tls-cert-file")
            .arg(folder.path().join("certificate.pem"))
            .arg("--tls-private-key-file")
            .arg(folder.path().join("key.pem"))
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, message) = start();
    assert_eq!(code, Some(3), "{message}");
    assert!(message.contains("certificate.pem") && message.contains("No such file"), "{message}");
    std::fs::write(folder.path().join("certificate.pem"), "").unwrap();
    std::fs::write(folder.path().join("key.pem"), "").unwrap();
    let (code, message) = start();
    assert_eq!(code, Some(3), "{message}");
    assert!(message.contains("no certificate in PEM form"), "{message}");
}
