//! Leaving: not ready at once, serving on, then `Connection: close` and GOAWAY, and no failed call.

use std::time::{Duration, Instant};

use hyper::StatusCode;
use rustix::process::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::client::{Connection, connect_tls, pod, review, tls};
use crate::server::Server;

#[tokio::test]
async fn sigterm_serves_on_for_the_delay_and_then_drains() {
    let mut server = Server::start(&[("SHUTDOWN_DELAY", "2s")]);
    let mut kept = Connection::http1(&server).await.unwrap();
    assert!(!kept.review(&review(pod(Some("true")))).await.unwrap().headers.contains_key("connection"));
    let mut kept2 = Connection::http2(&server).await.unwrap();
    kept2.review(&review(pod(Some("true")))).await.unwrap();

    let signalled = Instant::now();
    server.signal(Signal::TERM);
    server.wait_for_log("leaving");

    // A kept HTTP/1.1 connection is answered once more and told to close.
    let answer = kept.review(&review(pod(Some("true")))).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.headers["connection"], "close");
    // HTTP/2 has been told to go away, while new connections are still served.
    while !kept2.is_closed() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut fresh = Connection::http1(&server).await.unwrap();
    let answer = fresh.get("/health/readiness").await.unwrap();
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.json()["data"]["reason"], "shutting down");
    let mut fresh = Connection::http1(&server).await.unwrap();
    assert_eq!(fresh.get("/health/liveness").await.unwrap().status, StatusCode::OK);

    assert_eq!(server.exit_code(Duration::from_secs(10)), Some(0));
    assert!(signalled.elapsed() >= Duration::from_secs(2));
    assert!(Connection::http1(&server).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_fails_while_a_server_leaves() {
    let mut server = Server::start(&[("SHUTDOWN_DELAY", "2s")]);
    let (address, authority) = (server.address, server.authority.pem.clone());
    let deadline = Instant::now() + Duration::from_millis(1_500);
    // Each caller reuses its connection until it is told to close, as the API server does.
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let authority = authority.clone();
            tokio::spawn(async move {
                let mut calls = 0_usize;
                while Instant::now() < deadline {
                    let mut connection =
                        Connection::http1_to(address, &authority).await.expect("a connection");
                    loop {
                        let answer = connection.review(&review(pod(Some("true")))).await.expect("an answer");
                        calls += 1;
                        if answer.headers.contains_key("connection") || Instant::now() >= deadline {
                            break;
                        }
                    }
                }
                calls
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    server.signal(Signal::TERM);
    for caller in callers {
        assert!(caller.await.unwrap() > 10);
    }
    assert_eq!(server.exit_code(Duration::from_secs(10)), Some(0));
}

/// A connection on which a review has begun, and what it still has to send.
async fn begun_review(server: &Server) -> (TlsStream<TcpStream>, String) {
    let body = review(pod(Some("true"))).to_string();
    let head = format!(
        "POST /mutation/pod HTTP/1.1\r\nHost: a\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = connect_tls(server.address, tls(&server.authority.pem, &["http/1.1"])).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    // The server waits for the body now.
    let mut go_on = [0; 25];
    stream.read_exact(&mut go_on).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    (stream, body)
}

#[tokio::test]
async fn what_is_under_way_is_finished_before_the_end() {
    let mut server = Server::start(&[("SHUTDOWN_DELAY", "0s")]);
    let (mut stream, body) = begun_review(&server).await;
    server.signal(Signal::TERM);
    server.wait_for_log("draining");
    // Nothing new is accepted.
    while Connection::http1(&server).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    stream.write_all(body.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("JSONPatch"), "{answer}");
    assert_eq!(server.exit_code(Duration::from_secs(5)), Some(0));
}

#[tokio::test]
async fn who_does_not_come_to_an_end_is_not_waited_for() {
    let mut server = Server::start(&[("SHUTDOWN_DELAY", "0s"), ("DRAIN_TIMEOUT", "1s")]);
    let _begun = begun_review(&server).await;
    server.signal(Signal::TERM);
    server.wait_for_log("drain_timeout");
    assert_eq!(server.exit_code(Duration::from_secs(5)), Some(0));
}

#[tokio::test]
async fn from_a_terminal_the_end_comes_at_once() {
    let mut server = Server::start(&[("SHUTDOWN_DELAY", "60s")]);
    server.signal(Signal::INT);
    assert_eq!(server.exit_code(Duration::from_secs(5)), Some(0));
}

#[tokio::test]
async fn a_second_signal_ends_the_wait() {
    let mut server = Server::start(&[("SHUTDOWN_DELAY", "60s")]);
    server.signal(Signal::TERM);
    server.wait_for_log("leaving");
    server.signal(Signal::TERM);
    assert_eq!(server.exit_code(Duration::from_secs(5)), Some(0));
}
