//! Accepts connections, guards them until their first request is answered, serves them, drains them.
//!
//! A peer that has not sent a whole request yet costs a slot in a short queue; when the queue is full the oldest one
//! loses its connection. An API server is through its handshake within milliseconds, and through a request as soon, so it is
//! whoever opens connections and says nothing that is turned away, however many there are. Between the two, and after its
//! first request, a connection may be idle for longer than the API server keeps idle connections (90 s): it does not send a POST
//! again, so a connection closed under it is an admission that failed. And it does keep connections that have had no request:
//! where another one becomes free while it is dialling, it keeps both (Go, net/http, `Transport.dialConnFor`).

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::service::{Service as _, service_fn};
use hyper::{Request, Version};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use super::callers::{Caller, Callers};

/// For a handshake; and for the first request, from its first byte to its answer.
const STEP: Duration = Duration::from_secs(10);

/// Without a word. hyper counts this limit for a request's head from the end of the request before, so it is one for idle
/// connections.
const IDLE: Duration = Duration::from_secs(130);

/// Connections without an answered request so far, each some 20 KiB and what it has sent of its request. Several API servers in a
/// hurry open some hundred at once.
const NEWCOMERS: usize = 640;

/// Connections that are kept open between requests, each some 40 KiB; the ones beyond are closed after their response. An API
/// server keeps at most 25 idle ones.
const KEPT: usize = 512;

/// Connections with a request, at most; the ones beyond are closed at once.
const SERVED: usize = 768;

/// What is read of a connection in advance, at most.
const READ_BUFFER: usize = 64 * 1024;

/// How far the server is on its way down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Serving.
    Up,
    /// Serving, not ready any more, asking HTTP/1.1 peers to close after their response.
    Leaving,
    /// Finishing what is under way; nothing new is accepted.
    Draining,
}

/// How a connection becomes one that nobody else reads.
#[derive(Clone)]
pub(crate) struct Tls {
    pub(crate) acceptor: TlsAcceptor,
    /// Absent: whoever can connect may ask.
    pub(crate) callers: Option<Arc<Callers>>,
}

/// Serves until the phase is [`Phase::Draining`] and the last connection is done.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<Tls>,
    router: Router,
    phase: watch::Receiver<Phase>,
) {
    let shared = Arc::new(Shared {
        tls,
        router: TowerToHyperService::new(router),
        newcomers: Mutex::default(),
        kept: AtomicUsize::new(0),
        phase: phase.clone(),
    });
    // Each connection holds a sender; when the last one is gone the receiver hears of it.
    let (open, mut all_closed) = mpsc::channel::<()>(1);
    let down = phase;
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    tokio::spawn(connection(stream, shared.clone(), open.clone()));
                }
                Err(error) => {
                    // Out of file descriptors, mostly: give connections the time to end instead of spinning.
                    warn!(event = "accept_failed", %error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            () = reached(down.clone(), Phase::Draining) => break,
        }
    }
    drop(listener);
    drop(open);
    let _ = all_closed.recv().await;
}

/// Waits until the server is as far on its way down.
async fn reached(mut phase: watch::Receiver<Phase>, awaited: Phase) {
    // The sender lives as long as the server.
    drop(phase.wait_for(|phase| *phase >= awaited).await);
}

struct Shared {
    tls: Option<Tls>,
    router: TowerToHyperService<Router>,
    newcomers: Mutex<Newcomers>,
    kept: AtomicUsize,
    phase: watch::Receiver<Phase>,
}

/// Connections without a request so far, oldest first.
#[derive(Default)]
struct Newcomers {
    queue: VecDeque<(u64, oneshot::Sender<()>)>,
    next: u64,
}

impl Shared {
    /// Takes a slot; the receiver hears when the slot is lost to others.
    fn enter(&self) -> (u64, oneshot::Receiver<()>) {
        let (evict, evicted) = oneshot::channel();
        let mut newcomers = self.newcomers.lock().unwrap_or_else(PoisonError::into_inner);
        if newcomers.queue.len() >= NEWCOMERS
            && let Some((_, oldest)) = newcomers.queue.pop_front()
        {
            let _ = oldest.send(());
        }
        let id = newcomers.next;
        newcomers.next += 1;
        newcomers.queue.push_back((id, evict));
        (id, evicted)
    }

    fn leave(&self, id: u64) {
        let mut newcomers = self.newcomers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(index) = newcomers.queue.binary_search_by_key(&id, |(id, _)| *id) {
            newcomers.queue.remove(index);
        }
    }
}

/// What becomes of a connection after its first answer.
enum Welcome {
    /// It may be idle and used again.
    Stay,
    /// It is closed after the response.
    BeBrief,
    /// It is closed without one.
    Leave,
}

/// Frees what a connection holds, however it ends.
struct Slot {
    shared: Arc<Shared>,
    id: u64,
    established: AtomicBool,
}

impl Slot {
    /// When the first request is answered. Says how welcome the connection is.
    fn establish(&self) -> Welcome {
        if self.established.swap(true, Ordering::Relaxed) {
            return Welcome::Stay;
        }
        self.shared.leave(self.id);
        match self.shared.kept.fetch_add(1, Ordering::Relaxed) {
            0..KEPT => Welcome::Stay,
            KEPT..SERVED => Welcome::BeBrief,
            _ => Welcome::Leave,
        }
    }

    fn is_established(&self) -> bool {
        self.established.load(Ordering::Relaxed)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.is_established() {
            self.shared.kept.fetch_sub(1, Ordering::Relaxed);
        } else {
            self.shared.leave(self.id);
        }
    }
}

async fn connection(stream: TcpStream, shared: Arc<Shared>, _open: mpsc::Sender<()>) {
    let (id, evicted) = shared.enter();
    let slot = Arc::new(Slot { shared: shared.clone(), id, established: AtomicBool::new(false) });
    let (deadline, next_step) = watch::channel(Instant::now() + STEP);
    // Reviews are answered in one small write each.
    let _ = stream.set_nodelay(true);
    let served = async {
        match &shared.tls {
            Some(tls) => {
                let stream = tls.acceptor.accept(stream).await?;
                let session = stream.get_ref().1;
                let is_http2 = session.alpn_protocol() == Some(b"h2");
                let caller = tls.callers.as_ref().map(|callers| callers.caller(session.peer_certificates()));
                serve_http(stream, slot.clone(), &deadline, is_http2, caller).await
            }
            None => serve_http(stream, slot.clone(), &deadline, false, None).await,
        }
    };
    tokio::select! {
        reason = turned_away(&slot, evicted, next_step) => debug!(event = "connection_dropped", reason),
        result = served => {
            if let Err(error) = result {
                debug!(event = "connection_failed", %error);
            }
        }
    }
}

/// Waits until the peer begins to speak, without taking from it what it says. Nothing when the server goes down first.
async fn first_byte<S>(
    stream: S,
    shared: &Shared,
    deadline: &watch::Sender<Instant>,
) -> io::Result<Option<BufReader<S>>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    deadline.send_replace(Instant::now() + IDLE);
    // One byte is all that it can take; whatever follows goes by it.
    let mut stream = BufReader::with_capacity(1, stream);
    tokio::select! {
        byte = stream.fill_buf() => byte?,
        () = reached(shared.phase.clone(), Phase::Draining) => return Ok(None),
    };
    deadline.send_replace(Instant::now() + STEP);
    Ok(Some(stream))
}

/// Waits for a reason to drop a connection that has not sent a whole request; for ever once it has.
async fn turned_away(
    slot: &Slot,
    mut evicted: oneshot::Receiver<()>,
    mut next_step: watch::Receiver<Instant>,
) -> &'static str {
    loop {
        let deadline = *next_step.borrow_and_update();
        let reason = tokio::select! {
            // The queue lets go of it when the first request is answered, too.
            evicted = &mut evicted => evicted.ok().map(|()| "no request so far, and too many like it"),
            Ok(()) = next_step.changed() => continue,
            () = sleep_until(deadline) => Some("no request in time"),
        };
        // The answer may have come in the same moment.
        return match reason {
            Some(reason) if !slot.is_established() => reason,
            _ => std::future::pending().await,
        };
    }
}

async fn serve_http<S>(
    stream: S,
    slot: Arc<Slot>,
    deadline: &watch::Sender<Instant>,
    is_http2: bool,
    caller: Option<Caller>,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let shared = slot.shared.clone();
    let Some(stream) = first_byte(stream, &shared, deadline).await? else { return Ok(()) };
    // Tells this connection to close when its requests are answered.
    let brief = Arc::new(Notify::new());
    let service = {
        let (shared, brief) = (shared.clone(), brief.clone());
        service_fn(move |mut request: Request<Incoming>| {
            if let Some(caller) = caller {
                request.extensions_mut().insert(caller);
            }
            let is_http1 = request.version() < Version::HTTP_2;
            let (slot, shared, brief) = (slot.clone(), shared.clone(), brief.clone());
            async move {
                let Ok(mut response) = shared.router.call(request).await;
                // Not before: whoever sends half a request must be easy to get rid of.
                let welcome = slot.establish();
                match welcome {
                    Welcome::Stay => {}
                    Welcome::BeBrief => brief.notify_one(),
                    Welcome::Leave => return Err(io::Error::other("too many connections")),
                }
                if is_http1 && (matches!(welcome, Welcome::BeBrief) || *shared.phase.borrow() != Phase::Up) {
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok(response)
            }
        })
    };
    debug!(event = "connected", protocol = if is_http2 { "h2" } else { "http/1.1" });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(IDLE).max_buf_size(READ_BUFFER);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(64)
        .keep_alive_interval(IDLE)
        .keep_alive_timeout(Duration::from_secs(20));
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    // HTTP/2 has a proper goodbye (GOAWAY), so it is said at once. An idle HTTP/1.1 connection can only be closed, and
    // the peer may be sending at that moment; so it stays until the peer had the time to hear `Connection: close`.
    let goodbye = if is_http2 { Phase::Leaving } else { Phase::Draining };
    let leaving = async {
        tokio::select! {
            () = reached(shared.phase.clone(), goodbye) => {}
            () = brief.notified() => {}
        }
    };
    tokio::pin!(leaving);
    let mut said_goodbye = false;
    let result = loop {
        tokio::select! {
            result = connection.as_mut() => break result,
            () = &mut leaving, if !said_goodbye => {
                said_goodbye = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    };
    result.map_err(io::Error::other)
}
