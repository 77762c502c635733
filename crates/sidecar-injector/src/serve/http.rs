//! The routes: the article's mutation endpoint and its two health checks, and a clear answer to everything else.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use hyper::header::{CONTENT_TYPE, RETRY_AFTER};
use hyper::{Request, StatusCode, Version};
use serde_json::json;
use sidecar_engine::review_definition;
use tokio::sync::{Semaphore, SemaphorePermit, watch};

use super::callers::Caller;
use super::certificates::Serving;
use super::connection::Phase;
use super::events::Events;
use super::liveness::Liveness;
use super::logs;
use super::metrics::{InFlight, Reviews};
use crate::sources::Store;
use crate::sources::namespaces::NamespaceMap;
use crate::sources::readiness::Readiness;
use crate::sources::status::Statuses;

/// A request's object is at most 3 MiB; the review carries it re-encoded, twice on UPDATE, and some more.
const BODY_LIMIT: usize = 7 * 1024 * 1024;

/// The API server sends a review at once and waits 5 s for the answer, by the chart's default.
const BODY_TIME: Duration = Duration::from_secs(5);

/// All bodies in memory together, by what has arrived of them; more are asked to come back.
const BODIES_LIMIT: usize = 24 * 1024 * 1024;

/// Requests that have begun and are not answered, at most; more are asked to come back. An API server speaks HTTP/1.1 to
/// Services, and there are fewer connections than this; it is for peers that have many requests on one, which cost memory
/// before anything of a body has arrived.
const REQUESTS_LIMIT: i64 = 2048;

/// Every code with which a request can be refused.
pub(crate) const REFUSALS: [&str; 15] = [
    "BodyTimeout",
    "BodyTooLarge",
    "BodyUnreadable",
    "CallerUnknown",
    "MethodNotAllowed",
    "NotFound",
    "Overloaded",
    "ReviewEmpty",
    "ReviewKind",
    "ReviewMalformed",
    "ReviewNoRequest",
    "ReviewNoUid",
    "ReviewNotUtf8",
    "ReviewVersion",
    "UnsupportedMediaType",
];

/// What every request can see.
pub(crate) struct Shared {
    pub(crate) definitions: Arc<Store>,
    pub(crate) namespaces: Arc<NamespaceMap>,
    pub(crate) readiness: Arc<Readiness>,
    /// Absent: plain HTTP.
    pub(crate) certificate: Option<Arc<Serving>>,
    /// Absent: nobody wants to know how many pods each definition was injected into.
    pub(crate) statuses: Option<Arc<Statuses>>,
    pub(crate) phase: watch::Receiver<Phase>,
    pub(crate) bodies: Bodies,
    pub(crate) liveness: Liveness,
    pub(crate) metrics: Reviews,
    /// Absent: none are written.
    pub(crate) events: Option<Events>,
}

/// The memory that there is for bodies.
pub(crate) struct Bodies(Semaphore);

impl Default for Bodies {
    fn default() -> Self {
        Bodies(Semaphore::new(BODIES_LIMIT))
    }
}

/// The routes over shared state.
pub(crate) fn router(shared: Shared) -> Router {
    Router::new()
        .route("/mutation/pod", post(mutate))
        .route("/validation/definition", post(validate))
        .route("/health/liveness", get(liveness))
        .route("/health/readiness", get(readiness))
        .method_not_allowed_fallback(|State(shared): State<Arc<Shared>>| async move {
            // axum adds the header Allow.
            shared.refuse(Refusal::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "MethodNotAllowed",
                "this path is there for another method, see Allow",
            ))
        })
        .fallback(|State(shared): State<Arc<Shared>>| async move {
            let paths =
                "the paths are /mutation/pod, /validation/definition, /health/liveness and /health/readiness";
            shared.refuse(Refusal::new(StatusCode::NOT_FOUND, "NotFound", paths))
        })
        .with_state(Arc::new(shared))
}

impl Shared {
    /// Counts a refusal.
    fn refuse(&self, refusal: Refusal) -> Refusal {
        self.metrics.refused(refusal.code);
        refusal
    }

    /// Begins a request, unless its caller may not ask, or there are too many.
    async fn begin(
        &self,
        request: Request<axum::body::Body>,
    ) -> Result<(InFlight<'_>, Request<axum::body::Body>), Refusal> {
        if request.extensions().get::<Caller>() == Some(&Caller::Unknown) {
            discard(request.into_body()).await;
            let problem = "reviews are for callers with a client certificate that is expected here";
            return Err(Refusal::new(StatusCode::FORBIDDEN, "CallerUnknown", problem));
        }
        if let Some(in_flight) = self.metrics.begin(REQUESTS_LIMIT) {
            return Ok((in_flight, request));
        }
        // A stream of HTTP/2 ends without its body, and must: there may be any number of them.
        if request.version() < Version::HTTP_2 {
            discard(request.into_body()).await;
        }
        let problem = "too many requests at once, come back in a second";
        Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, "Overloaded", problem))
    }
}

async fn mutate(
    State(shared): State<Arc<Shared>>,
    request: Request<axum::body::Body>,
) -> Result<Response, Refusal> {
    review_pod(&shared, request).await.map_err(|refusal| shared.refuse(refusal))
}

async fn review_pod(shared: &Shared, request: Request<axum::body::Body>) -> Result<Response, Refusal> {
    let began = Instant::now();
    let (_in_flight, request) = shared.begin(request).await?;
    let Body { bytes: body, memory: _memory } = body(shared, request).await?;
    let _work = shared.liveness.begin();
    let started = Instant::now();
    let current = shared.definitions.current();
    match current.engine.review(&body, &*shared.namespaces) {
        Ok(mut reviewed) => {
            logs::review(&reviewed, started.elapsed());
            current.count(&reviewed);
            if let Some(statuses) = &shared.statuses {
                statuses.count(&reviewed);
            }
            if let Some(events) = &shared.events {
                events.review(&reviewed);
            }
            shared.metrics.answered(&reviewed, body.len(), began);
            let response = std::mem::take(&mut reviewed.response);
            Ok(([(CONTENT_TYPE, "application/json")], response).into_response())
        }
        Err(error) => {
            logs::refused_review(error.code(), body.len());
            shared.metrics.unreadable(began);
            Err(Refusal::new(StatusCode::BAD_REQUEST, error.code(), error.to_string()))
        }
    }
}

async fn validate(
    State(shared): State<Arc<Shared>>,
    request: Request<axum::body::Body>,
) -> Result<Response, Refusal> {
    review_of_definition(&shared, request).await.map_err(|refusal| shared.refuse(refusal))
}

async fn review_of_definition(
    shared: &Shared,
    request: Request<axum::body::Body>,
) -> Result<Response, Refusal> {
    let (_in_flight, request) = shared.begin(request).await?;
    let Body { bytes: body, memory: _memory } = body(shared, request).await?;
    let _work = shared.liveness.begin();
    let current = shared.definitions.current();
    match review_definition(&body, shared.definitions.options(), |name| current.file_of(name)) {
        Ok(mut reviewed) => {
            let response = std::mem::take(&mut reviewed.response);
            logs::definition_review(&reviewed);
            Ok(([(CONTENT_TYPE, "application/json")], response).into_response())
        }
        Err(error) => {
            logs::refused_review(error.code(), body.len());
            Err(Refusal::new(StatusCode::BAD_REQUEST, error.code(), error.to_string()))
        }
    }
}

/// A body, and the part of the memory for bodies that it takes up until it is dropped.
struct Body<'s> {
    bytes: Bytes,
    memory: Option<SemaphorePermit<'s>>,
}

/// Reads a body that says it is JSON, within the limits of size, time and memory.
async fn body(shared: &Shared, request: Request<axum::body::Body>) -> Result<Body<'_>, Refusal> {
    let media_type =
        request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        let problem = format!("Content-Type must be application/json, not {media_type:?}");
        discard(request.into_body()).await;
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", problem));
    }
    let mut body = request.into_body();
    let read = tokio::time::timeout(BODY_TIME, read(shared, &mut body)).await;
    let too_slow =
        || Refusal::new(StatusCode::REQUEST_TIMEOUT, "BodyTimeout", "the body did not arrive in time");
    let result = read.unwrap_or_else(|_| Err(too_slow()));
    if result.is_err() {
        discard(body).await;
    }
    result
}

async fn read<'s>(shared: &'s Shared, body: &mut axum::body::Body) -> Result<Body<'s>, Refusal> {
    let announced = body.size_hint().lower();
    if announced > BODY_LIMIT as u64 {
        return Err(too_large());
    }
    let mut whole = Body { bytes: Bytes::new(), memory: None };
    // Most reviews come in one piece, which need not be copied.
    let mut pieces: Option<BytesMut> = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Refusal::new(
                StatusCode::BAD_REQUEST,
                "BodyUnreadable",
                format!("the body could not be read: {error}"),
            )
        })?;
        let Ok(data) = frame.into_data() else { continue };
        // What is announced costs nothing, only what has arrived: otherwise a few peers that announce much and send
        // nothing would keep all others out.
        let memory =
            u32::try_from(data.len()).ok().and_then(|length| shared.bodies.0.try_acquire_many(length).ok());
        let Some(memory) = memory else {
            let problem = "too many reviews at once, come back in a second";
            return Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, "Overloaded", problem));
        };
        match &mut whole.memory {
            Some(held) => held.merge(memory),
            none => *none = Some(memory),
        }
        if whole.bytes.is_empty() && pieces.is_none() {
            whole.bytes = data;
            continue;
        }
        let pieces = pieces.get_or_insert_with(|| {
            // Memory that is not written to yet is not taken up yet.
            let mut pieces = BytesMut::with_capacity(usize::try_from(announced).unwrap_or_default());
            pieces.extend_from_slice(&std::mem::take(&mut whole.bytes));
            pieces
        });
        if pieces.len() + data.len() > BODY_LIMIT {
            return Err(too_large());
        }
        pieces.extend_from_slice(&data);
    }
    if let Some(pieces) = pieces {
        whole.bytes = pieces.freeze();
    }
    Ok(whole)
}

fn too_large() -> Refusal {
    Refusal::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "BodyTooLarge",
        format!("a review has at most {BODY_LIMIT} bytes"),
    )
}

/// Reads what is left of a body to nowhere: a connection that is closed with unread data in it can lose the answer too.
async fn discard(mut body: axum::body::Body) {
    let mut left = 2 * BODY_LIMIT;
    let read = async {
        while let Some(Ok(frame)) = body.frame().await
            && let Some(rest) = left.checked_sub(frame.data_ref().map_or(0, Bytes::len))
        {
            left = rest;
        }
    };
    // Who sends more, or slower, can do without the answer.
    let _ = tokio::time::timeout(Duration::from_secs(2), read).await;
}

async fn liveness(State(shared): State<Arc<Shared>>) -> Response {
    match shared.liveness.problem() {
        None => health(StatusCode::OK, "ok", None),
        Some(reason) => health(StatusCode::SERVICE_UNAVAILABLE, "unavailable", Some(&reason)),
    }
}

async fn readiness(State(shared): State<Arc<Shared>>) -> Response {
    let leaving = (*shared.phase.borrow() != Phase::Up).then(|| "shutting down".to_owned());
    let untrusted = || shared.certificate.as_ref()?.problem();
    match leaving.or_else(|| shared.readiness.reason()).or_else(untrusted) {
        None => health(StatusCode::OK, "ok", None),
        Some(reason) => health(StatusCode::SERVICE_UNAVAILABLE, "unavailable", Some(&reason)),
    }
}

/// The article's form: `{"data":{"status":"ok","time":<milliseconds since 1970>}}`.
fn health(code: StatusCode, status: &str, reason: Option<&str>) -> Response {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let time = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let body = match reason {
        None => json!({"data": {"status": status, "time": time}}),
        Some(reason) => json!({"data": {"status": status, "time": time, "reason": reason}}),
    };
    (code, [(CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

/// An answer that is not a review: `{"error":{"code":"...","message":"..."}}`.
struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl Refusal {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Refusal { status, code, message: message.into() }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let text = json!({"error": {"code": self.code, "message": self.message}}).to_string();
        let mut response = (self.status, [(CONTENT_TYPE, "application/json")], text).into_response();
        if self.status == StatusCode::TOO_MANY_REQUESTS {
            // The API server tries again only when it is told when (client-go rest/with_retry.go).
            response.headers_mut().insert(RETRY_AFTER, hyper::header::HeaderValue::from_static("1"));
        }
        response
    }
}
