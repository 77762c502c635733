//! Peers that do not behave: the server goes on answering the others, and its memory stays bounded.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::StreamBody;
use hyper::StatusCode;
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::client::{Connection, connect_tls, pod, review, tls};
use crate::server::{HOST, Server};

async fn is_injecting(server: &Server) -> bool {
    let call = async {
        let mut connection = Connection::http1(server).await.ok()?;
        let answer = connection.review(&review(pod(Some("true")))).await.ok()?;
        (answer.status == StatusCode::OK).then_some(())
    };
    tokio::time::timeout(Duration::from_secs(5), call).await.ok().flatten().is_some()
}

/// A third of them says nothing, a third begins TLS and stops, a third sends garbage.
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_garbage_connections_do_not_keep_others_out() {
    // Two ends of each connection are in two processes; still the usual limit may be lower than 10,000.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    let batch = usize::try_from(limit.saturating_sub(200).min(10_000)).unwrap();
    let server = Server::https();
    let mut held = Vec::new();
    for index in 0..10_000 {
        if held.len() == batch {
            held.clear();
        }
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        match index % 3 {
            0 => {}
            1 => drop(stream.write_all(b"\x16\x03\x01\x02\x00\x01\x00").await),
            _ => drop(stream.write_all(b"GET / HTTP/1.1\r\n\x00\xff garbage").await),
        }
        held.push(stream);
        if index % 1_000 == 999 {
            assert!(is_injecting(&server).await, "after {index} connections");
        }
    }
    let memory = server.resident_mebibytes();
    assert!(memory < 64, "{memory} MiB");
    assert!(is_injecting(&server).await);
}

/// Sends a request of this type and length, all of it, and gives the answer.
async fn answer_to(server: &Server, content_type: &str, length: usize) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(server.address).await?;
    stream.write_all(head(content_type, length).as_bytes()).await?;
    stream.write_all(&vec![b' '; length]).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer.to_lowercase())
}

fn head(content_type: &str, length: usize) -> String {
    format!(
        "POST /mutation/pod HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n"
    )
}

/// Regression: a connection that is closed with unread data in it takes the answer with it (`Broken pipe`).
#[tokio::test]
async fn a_refusal_is_not_lost_with_the_body_that_is_not_wanted() {
    let server = Server::start(&[("HTTPS_ENABLED", "false")]);
    for _ in 0..5 {
        for (content_type, length, status) in
            [("application/json", 9_000_000, "413"), ("application/yaml", 7_000_000, "415")]
        {
            let answer = answer_to(&server, content_type, length).await.unwrap();
            assert!(answer.starts_with(&format!("http/1.1 {status} ")), "{answer}");
        }
    }
}

/// The API server comes back only when it is told when.
#[tokio::test]
async fn bodies_beyond_the_memory_for_them_are_asked_to_come_back() {
    let server = Server::start(&[("HTTPS_ENABLED", "false")]);
    for _ in 0..10 {
        // All but a byte of three large ones: they stay in memory until their time is up.
        let mut held = Vec::new();
        for _ in 0..3 {
            let mut stream = TcpStream::connect(server.address).await.unwrap();
            stream.write_all(head("application/json", 7_000_000).as_bytes()).await.unwrap();
            stream.write_all(&vec![b' '; 6_999_999]).await.unwrap();
            held.push(stream);
        }
        let answer = answer_to(&server, "application/json", 7_000_000).await.unwrap();
        if answer.starts_with("http/1.1 429 ") {
            assert!(answer.contains("retry-after: 1\r\n") && answer.contains("\"overloaded\""), "{answer}");
            return;
        }
    }
    panic!("28 MB found room at once");
}

/// HTTP/2 has many requests on one connection: 33 connections would be 2,112 requests, whose bodies never come.
#[tokio::test]
async fn more_than_2048_requests_at_once_are_asked_to_come_back() {
    let server = Server::start(&[("HTTPS_ENABLED", "false")]);
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..33 {
        let stream = TcpStream::connect(server.address).await.unwrap();
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        for _ in 0..64 {
            let mut sender = sender.clone();
            requests.spawn(async move {
                let never = futures_util::stream::pending::<Result<Frame<Bytes>, std::convert::Infallible>>();
                let request = hyper::Request::post(format!("http://{HOST}/mutation/pod"))
                    .header("Content-Type", "application/json")
                    .body(StreamBody::new(never))
                    .unwrap();
                sender.send_request(request).await
            });
        }
    }
    // The first answer is to one that came too late: the others get none before their body's time is up.
    let answer = requests.join_next().await.unwrap().unwrap().unwrap();
    assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(answer.headers()["retry-after"], "1");
}

#[tokio::test]
async fn beyond_512_connections_each_is_closed_after_its_answer() {
    let server = Server::start(&[("HTTPS_ENABLED", "false")]);
    let mut kept = Vec::new();
    for index in 0..520 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(b"GET /health/liveness HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let mut answer = vec![0; 4096];
        let length = stream.read(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer[..length]).to_lowercase();
        assert!(answer.starts_with("http/1.1 200 "), "{answer}");
        assert_eq!(answer.contains("connection: close"), index >= 512, "{index}: {answer}");
        kept.push(stream);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_heads_and_slow_bodies_end_in_time() {
    let server = Server::https();
    let config = tls(&server.authority.pem, &["http/1.1"]);
    let slow_head = tokio::spawn(connect_tls(server.address, config.clone()));
    let mut slow_head = slow_head.await.unwrap().unwrap();
    slow_head.write_all(b"POST /mutation/pod HTTP/1.1\r\nHost: a\r\nX-Slow: ").await.unwrap();
    let mut slow_body = connect_tls(server.address, config).await.unwrap();
    let head = b"POST /mutation/pod HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
    slow_body.write_all(head).await.unwrap();
    assert!(is_injecting(&server).await);
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(20), slow_head.read_to_end(&mut answer))
        .await
        .expect("the end");
    assert!(answer.is_empty());
    let _ = tokio::time::timeout(Duration::from_secs(20), slow_body.read_to_end(&mut answer))
        .await
        .expect("the end");
    assert!(
        String::from_utf8_lossy(&answer).starts_with("HTTP/1.1 408 "),
        "{}",
        String::from_utf8_lossy(&answer)
    );
}

/// Regression: hyper closes idle connections after 30 s by default, the API server keeps them for 90 s and does not
/// repeat a POST (linkerd/linkerd2#14096). It also keeps connections that it has dialled and then not needed: they were closed
/// after 10 s, in the moment of their first request if that came then.
#[tokio::test]
async fn connections_that_were_idle_for_longer_than_the_api_server_keeps_them_still_answer() {
    let server = Server::https();
    let mut used = Connection::http1(&server).await.unwrap();
    used.review(&review(pod(Some("true")))).await.unwrap();
    let mut dialled = Connection::http1(&server).await.unwrap();
    tokio::time::sleep(Duration::from_secs(95)).await;
    for connection in [&mut used, &mut dialled] {
        assert_eq!(connection.review(&review(pod(Some("true")))).await.unwrap().status, StatusCode::OK);
    }
}

/// Regression: memory for bodies was counted by what was announced, so five peers that sent nothing kept all others out.
#[tokio::test(flavor = "multi_thread")]
async fn announced_bodies_that_do_not_arrive_keep_nobody_out() {
    let server = Server::https();
    let config = tls(&server.authority.pem, &["http/1.1"]);
    let mut silent = Vec::new();
    for _ in 0..20 {
        let mut stream = connect_tls(server.address, config.clone()).await.unwrap();
        let head = b"POST /mutation/pod HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 7000000\r\n\r\n{";
        stream.write_all(head).await.unwrap();
        silent.push(stream);
    }
    assert!(is_injecting(&server).await);
}

/// Established connections cost memory too, most of all over HTTP/2 and with bodies that are refused.
#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_established_connections_do_not_keep_others_out() {
    let server = Server::https();
    let mut held = Vec::new();
    for _ in 0..1_000 {
        let mut connection = Connection::http2(&server).await.unwrap();
        let _ = connection.get("/health/liveness").await;
        held.push(connection);
    }
    assert!(is_injecting(&server).await);
    let memory = server.resident_mebibytes();
    assert!(memory < 64, "{memory} MiB");
    drop(held);

    let config = tls(&server.authority.pem, &["http/1.1"]);
    let mut large = Vec::new();
    let head = "POST /mutation/pod HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 9000000\r\n\r\n";
    for _ in 0..800 {
        // The ones beyond the limit are closed under us.
        let Ok(mut stream) = connect_tls(server.address, config.clone()).await else { continue };
        let _ = stream.write_all(head.as_bytes()).await;
        let _ = stream.write_all(&vec![b' '; 60_000]).await;
        large.push(stream);
    }
    assert!(is_injecting(&server).await);
    let memory = server.resident_mebibytes();
    assert!(memory < 128, "{memory} MiB");
}

/// Regression: the log was written on the request path, and a pipe that nobody read stopped liveness too.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_reads_does_not_stop_the_server() {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut unread = std::process::Command::new(env!("CARGO_BIN_EXE_sidecar-injector"))
        .args(["serve", "--http-port", &address.port().to_string()])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut stream = loop {
        if let Ok(stream) = TcpStream::connect(address).await {
            break stream;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let body = review(pod(Some("true"))).to_string();
    let request = format!(
        "POST /mutation/pod HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut answer = vec![0; 4096];
    // A pipe holds 64 KiB, some 200 lines.
    for count in 0..2_000 {
        stream.write_all(request.as_bytes()).await.unwrap();
        let read = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut answer)).await;
        assert!(
            read.is_ok_and(|read| read.is_ok_and(|length| length > 0)),
            "no answer after {count} reviews"
        );
    }
    unread.kill().unwrap();
    unread.wait().unwrap();
}
