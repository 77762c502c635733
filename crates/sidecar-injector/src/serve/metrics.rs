//! Metrics in Prometheus' text format, on a port of their own: plain HTTP, so that whoever scrapes needs no CA.
//!
//! Each part of the server owns its metrics and registers them here before anything is served.

mod process;
mod reviews;

pub(crate) use reviews::{InFlight, Reviews};

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::StatusCode;
use hyper::header::CONTENT_TYPE;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tracing::warn;

use process::Process;

/// In front of every name.
const PREFIX: &str = "sidecar_injector";

/// The text format that every Prometheus since 2.23 takes.
const FORMAT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A registry that knows which build this is.
pub(crate) fn registry() -> Registry {
    let mut registry = Registry::with_prefix(PREFIX);
    // A gauge and no info metric, which the older text format does not know.
    let build = Family::<[(&'static str, &'static str); 1], Gauge>::default();
    build.get_or_create(&[("version", env!("CARGO_PKG_VERSION"))]).set(1);
    registry.register("build_info", "Which build this is; always 1", build);
    registry
}

/// All that is served.
struct Registries {
    /// With our prefix.
    own: Registry,
    /// What every program has, without one.
    process: Registry,
}

/// Serves the metrics, as long as it is polled.
pub(crate) async fn serve(listener: TcpListener, own: Registry) {
    let mut process = Registry::default();
    process.register_collector(Box::new(Process::started_now()));
    let registries = Arc::new(Registries { own, process });
    let router = Router::new().route("/metrics", get(scrape)).with_state(registries);
    if let Err(error) = axum::serve(listener, router).await {
        warn!(event = "metrics_stopped", %error, "metrics are not served any more");
    }
}

async fn scrape(State(registries): State<Arc<Registries>>) -> Response {
    let mut text = String::new();
    let encoded = encode_registry(&mut text, &registries.own)
        .and_then(|()| encode_registry(&mut text, &registries.process))
        .and_then(|()| encode_eof(&mut text));
    match encoded {
        Ok(()) => ([(CONTENT_TYPE, FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
