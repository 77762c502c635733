//! Leaving: not ready at once, serving on, then `Connection: close` and GOAWAY, and no failed call.

use std::time::{Duration, Instant};

use hyper::StatusCode;
use rustix::process::Signal;

use crate::client::{Connection, pod, review};
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
    // HTTP/2 has been told to go away; a new connection is still served.
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

#[tokio::test]
async fn a_second_signal_ends_the_wait() {
    let mut server = Server::start(&[("SHUTDOWN_DELAY", "60s")]);
    server.signal(Signal::TERM);
    server.wait_for_log("leaving");
    server.signal(Signal::TERM);
    assert_eq!(server.exit_code(Duration::from_secs(5)), Some(0));
}
