//! The routes: the article's mutation endpoint and its two health checks, and a clear answer to everything else.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Body as _;
use hyper::header::{CONTENT_TYPE, RETRY_AFTER};
use hyper::{Request, StatusCode};
use serde_json::json;
use sidecar_engine::Engine;
use tokio::sync::{Semaphore, watch};

use super::connection::Phase;
use super::logs;

/// A request's object is at most 3 MiB; the review carries it re-encoded, twice on UPDATE, and some more.
const BODY_LIMIT: usize = 7 * 1024 * 1024;

/// A review that is not there after this time comes from nobody who waits for an answer.
const BODY_TIME: Duration = Duration::from_secs(10);

/// All bodies in memory together; more are asked to come back.
const BODIES_LIMIT_KIB: u32 = 32 * 1024;

/// What every request can see.
pub(crate) struct Shared {
    pub(crate) engine: Engine,
    pub(crate) phase: watch::Receiver<Phase>,
    bodies: Semaphore,
}

impl Shared {
    pub(crate) fn new(engine: Engine, phase: watch::Receiver<Phase>) -> Self {
        Shared { engine, phase, bodies: Semaphore::new(BODIES_LIMIT_KIB as usize) }
    }
}

/// The routes over shared state.
pub(crate) fn router(shared: Shared) -> Router {
    Router::new()
        .route("/mutation/pod", post(mutate))
        .route("/health/liveness", get(liveness))
        .route("/health/readiness", get(readiness))
        .method_not_allowed_fallback(|| async {
            // axum adds the header Allow.
            Refusal::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "MethodNotAllowed",
                "this path is there for another method, see Allow",
            )
        })
        .fallback(|| async {
            let paths = "the paths are /mutation/pod, /health/liveness and /health/readiness";
            Refusal::new(StatusCode::NOT_FOUND, "NotFound", paths)
        })
        .with_state(Arc::new(shared))
}

async fn mutate(
    State(shared): State<Arc<Shared>>,
    request: Request<axum::body::Body>,
) -> Result<Response, Refusal> {
    let started = Instant::now();
    let body = body(&shared, request).await?;
    match shared.engine.review(&body) {
        Ok(mut reviewed) => {
            let response = std::mem::take(&mut reviewed.response);
            logs::review(&reviewed, started.elapsed());
            Ok(([(CONTENT_TYPE, "application/json")], response).into_response())
        }
        Err(error) => {
            logs::refused_review(error.code(), body.len());
            Err(Refusal::new(StatusCode::BAD_REQUEST, error.code(), error.to_string()))
        }
    }
}

/// Reads a body that says it is JSON, within the limits of size, time and memory.
async fn body(shared: &Shared, request: Request<axum::body::Body>) -> Result<Bytes, Refusal> {
    let media_type =
        request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        let problem = format!("Content-Type must be application/json, not {media_type:?}");
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", problem));
    }
    let too_large = || {
        Refusal::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "BodyTooLarge",
            format!("a review has at most {BODY_LIMIT} bytes"),
        )
    };
    let hint = request.body().size_hint();
    if hint.lower() > BODY_LIMIT as u64 {
        discard(request.into_body()).await;
        return Err(too_large());
    }
    let expected = hint.upper().map_or(BODY_LIMIT as u64, |upper| upper.min(BODY_LIMIT as u64));
    let kibibytes = u32::try_from(expected.div_ceil(1024)).unwrap_or(u32::MAX);
    let Ok(_memory) = shared.bodies.try_acquire_many(kibibytes) else {
        return Err(Refusal::new(
            StatusCode::TOO_MANY_REQUESTS,
            "Overloaded",
            "too many reviews at once, come back in a second",
        ));
    };
    match tokio::time::timeout(BODY_TIME, Limited::new(request.into_body(), BODY_LIMIT).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "BodyUnreadable",
            format!("the body could not be read: {error}"),
        )),
        Err(_) => {
            Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "BodyTimeout", "the body did not arrive in time"))
        }
    }
}

/// Reads a body to nowhere: a connection that is closed with unread data in it loses the answer too.
async fn discard(mut body: axum::body::Body) {
    let mut left = 4 * BODY_LIMIT;
    let read = async {
        while let Some(Ok(frame)) = body.frame().await
            && let Some(rest) = left.checked_sub(frame.data_ref().map_or(0, Bytes::len))
        {
            left = rest;
        }
    };
    // Who sends more, or slower, can do without the answer.
    let _ = tokio::time::timeout(BODY_TIME, read).await;
}

async fn liveness() -> Response {
    health(StatusCode::OK, "ok", None)
}

async fn readiness(State(shared): State<Arc<Shared>>) -> Response {
    if *shared.phase.borrow() == Phase::Up {
        health(StatusCode::OK, "ok", None)
    } else {
        health(StatusCode::SERVICE_UNAVAILABLE, "unavailable", Some("shutting down"))
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
