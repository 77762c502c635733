//! Metrics in Prometheus' text format, on a port of their own: plain HTTP, so that whoever scrapes needs no CA.
//!
//! Each part of the server owns its metrics and registers them here before anything is served.

mod process;
mod reviews;

pub(crate) use reviews::{InFlight, Reviews};

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::StatusCode;
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tracing::warn;

use process::Process;

/// Connections at a time: this port has no other guard, and its scrapers are few.
const CONNECTIONS: usize = 32;

/// How long to wait for a request, the next one too.
const PATIENCE: Duration = Duration::from_secs(20);

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
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // Who comes when all places are taken waits in the queue of the listener.
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(event = "accept_failed", %error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let _place = place;
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
            // Whoever scrapes comes again in a while, on another connection if need be.
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
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
