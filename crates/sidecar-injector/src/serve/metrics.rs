//! Metrics in Prometheus' text format, on a port of their own: plain HTTP, so that whoever scrapes needs no CA.
//!
//! Each part of the server owns its metrics and registers them here before anything is served.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::StatusCode;
use hyper::header::CONTENT_TYPE;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tracing::warn;

/// In front of every name.
const PREFIX: &str = "sidecar_injector";

/// The text format that every Prometheus since 2.23 takes.
const FORMAT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A registry that knows which build this is.
pub(crate) fn registry() -> Registry {
    let mut registry = Registry::with_prefix(PREFIX);
    let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
    registry.register("build", "Which build this is; always 1", build);
    registry
}

/// Serves the metrics, as long as it is polled.
pub(crate) async fn serve(listener: TcpListener, registry: Registry) {
    let router = Router::new().route("/metrics", get(scrape)).with_state(Arc::new(registry));
    if let Err(error) = axum::serve(listener, router).await {
        warn!(event = "metrics_stopped", %error, "metrics are not served any more");
    }
}

async fn scrape(State(registry): State<Arc<Registry>>) -> Response {
    let mut text = String::new();
    match encode(&mut text, &registry) {
        Ok(()) => ([(CONTENT_TYPE, FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
