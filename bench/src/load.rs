//! The load generator: HTTP/1.1 over TLS on connections that stay open, as an API server sends reviews.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::reviews::{Situation, UID};
use crate::servers::{self, Server};

/// Connections of the open loop: enough that a review never waits for a free one.
const OPEN_LOOP_CONNECTIONS: usize = 32;

/// One connection with one review to send over it, again and again.
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    body: Bytes,
    /// What every answer must be, known after the first.
    expected: Bytes,
}

/// A client that trusts one certificate.
pub(crate) fn tls(pem: &str) -> Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pem.as_bytes())?)?;
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

impl Connection {
    /// Connects, sends the review once and looks closely at the answer.
    pub(crate) async fn open(
        server: &Server,
        tls: &TlsConnector,
        body: Bytes,
        situation: Option<Situation>,
    ) -> Result<Self> {
        let stream = TcpStream::connect(server.address).await?;
        stream.set_nodelay(true)?;
        let stream = tls.connect(ServerName::try_from(servers::HOST)?, stream).await?;
        let (sender, driver) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(driver);
        let mut connection = Connection { sender, body, expected: Bytes::new() };
        connection.expected = connection.send().await?;
        check(&connection.expected, situation)
            .with_context(|| format!("not the answer: {}", String::from_utf8_lossy(&connection.expected)))?;
        Ok(connection)
    }

    async fn send(&mut self) -> Result<Bytes> {
        let request = Request::post("/mutation/pod?timeout=5s")
            .header(HOST, servers::HOST)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(self.body.clone()))?;
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        ensure!(response.status() == StatusCode::OK, "status {}", response.status());
        Ok(response.into_body().collect().await?.to_bytes())
    }

    /// Sends the review once more; the answer must be the same.
    async fn repeat(&mut self) -> Result<()> {
        let answer = self.send().await?;
        ensure!(answer == self.expected, "another answer to the same review");
        Ok(())
    }
}

/// Without a situation the patch may be there or not: the null webhook does not look for its own container.
fn check(answer: &[u8], situation: Option<Situation>) -> Result<()> {
    let answer: Value = serde_json::from_slice(answer)?;
    let response = &answer["response"];
    ensure!(response["uid"] == UID, "another uid");
    ensure!(response["allowed"] == true, "not allowed");
    let patch = match response["patch"].as_str() {
        Some(text) => serde_json::from_slice::<Vec<Value>>(&STANDARD.decode(text)?)?,
        None => Vec::new(),
    };
    if let Some(situation) = situation {
        ensure!(
            patch.is_empty() != (situation == Situation::Selected),
            "patch of {} operations",
            patch.len()
        );
    }
    Ok(())
}

/// What was sent and how long each took, in ascending order.
pub(crate) struct Sample {
    pub(crate) took: Duration,
    pub(crate) latencies: Vec<Duration>,
}

impl Sample {
    /// The latency that this share of the reviews did not exceed.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let index = (self.latencies.len() * percent).div_ceil(100).saturating_sub(1);
        self.latencies.get(index).copied().unwrap_or_default()
    }
}

async fn sample(
    started: Instant,
    mut tasks: JoinSet<Result<(Connection, Vec<Duration>)>>,
) -> Result<(Vec<Connection>, Sample)> {
    let (mut connections, mut latencies) = (Vec::new(), Vec::new());
    while let Some(task) = tasks.join_next().await {
        let (connection, took) = task??;
        connections.push(connection);
        latencies.extend(took);
    }
    let took = started.elapsed();
    latencies.sort_unstable();
    Ok((connections, Sample { took, latencies }))
}

/// Closed loop: each connection sends its next review when it has the answer to the last.
pub(crate) async fn closed_loop(
    connections: Vec<Connection>,
    time: Duration,
) -> Result<(Vec<Connection>, Sample)> {
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for mut connection in connections {
        tasks.spawn(async move {
            let mut latencies = Vec::with_capacity(1 << 16);
            let mut now = Instant::now();
            while now.duration_since(started) < time {
                connection.repeat().await?;
                let then = std::mem::replace(&mut now, Instant::now());
                latencies.push(now.duration_since(then));
            }
            Ok((connection, latencies))
        });
    }
    sample(started, tasks).await
}

/// Open loop: reviews are due at even distances, whatever the server does, and late from the moment they were due.
pub(crate) async fn open_loop(
    server: &Server,
    tls: &TlsConnector,
    body: &Bytes,
    rate: u32,
    time: Duration,
) -> Result<Sample> {
    let mut tasks = JoinSet::new();
    let mut queues = Vec::new();
    for _ in 0..OPEN_LOOP_CONNECTIONS {
        let mut connection = Connection::open(server, tls, body.clone(), None).await?;
        let (queue, mut due) = mpsc::unbounded_channel::<Instant>();
        queues.push(queue);
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            while let Some(due) = due.recv().await {
                connection.repeat().await?;
                latencies.push(due.elapsed());
            }
            Ok((connection, latencies))
        });
    }
    let started = Instant::now();
    // A thread of its own: tokio's timers are a millisecond coarse.
    let pacer = std::thread::spawn(move || {
        rustix::thread::set_current_timer_slack(NonZeroU64::new(1))?;
        for (index, queue) in (0_u32..).zip(queues.iter().cycle()) {
            let due = Duration::from_secs(1) * index / rate;
            if due >= time {
                break;
            }
            std::thread::sleep((started + due).saturating_duration_since(Instant::now()));
            // Refused only when the task has failed, which is heard of below.
            let _ = queue.send(started + due);
        }
        rustix::io::Result::Ok(())
    });
    let (_, sample) = sample(started, tasks).await?;
    pacer.join().ok().context("the pacing thread panicked")??;
    Ok(sample)
}
