//! The null webhook: the least that injecting can cost on this HTTP and TLS stack. What costs more than this is ours.
//!
//! It borrows the uid, the labels and the number of containers from the review, and answers with a patch that adds one
//! container. No limits, no checks, no log, no metrics: nobody should run it.

use std::collections::HashMap;
use std::net::TcpListener;
use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderName};
use axum::routing::post;
use axum_server::tls_rustls::RustlsConfig;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CONTAINER: &str = r#"{"name":"curl","image":"yauritux/busybox-curl:latest","imagePullPolicy":"IfNotPresent","command":["/bin/sh","-ec","while :; do echo '.'; sleep 5 ; done"]}"#;

#[derive(Deserialize)]
struct Review<'a> {
    #[serde(borrow)]
    request: Request<'a>,
}

#[derive(Deserialize)]
struct Request<'a> {
    uid: &'a str,
    #[serde(borrow)]
    object: Pod<'a>,
}

#[derive(Deserialize)]
struct Pod<'a> {
    #[serde(borrow)]
    metadata: Metadata<'a>,
    spec: Spec,
}

#[derive(Deserialize)]
struct Metadata<'a> {
    #[serde(borrow, default)]
    labels: HashMap<&'a str, &'a str>,
}

#[derive(Deserialize)]
struct Spec {
    containers: Vec<IgnoredAny>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    api_version: &'a str,
    kind: &'a str,
    response: Response<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Response<'a> {
    uid: &'a str,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<String>,
}

async fn mutate(body: Bytes) -> Result<([(HeaderName, &'static str); 1], Vec<u8>), StatusCode> {
    let review: Review<'_> = serde_json::from_slice(&body).map_err(|_| StatusCode::BAD_REQUEST)?;
    let pod = &review.request.object;
    let is_selected = pod.metadata.labels.get("sidecar.me/inject") == Some(&"true");
    let patch = (is_selected && !pod.spec.containers.is_empty()).then(|| {
        STANDARD.encode(format!(r#"[{{"op":"add","path":"/spec/containers/-","value":{CONTAINER}}}]"#))
    });
    let answer = serde_json::to_vec(&Answer {
        api_version: "admission.k8s.io/v1",
        kind: "AdmissionReview",
        response: Response {
            uid: review.request.uid,
            allowed: true,
            patch_type: patch.as_ref().map(|_| "JSONPatch"),
            patch,
        },
    });
    Ok(([(CONTENT_TYPE, "application/json")], answer.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let mut file = || arguments.next().context("usage: null-webhook CERTIFICATE KEY");
    let certificate = CertificateDer::from_pem_file(file()?)?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], PrivateKeyDer::from_pem_file(file()?)?)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0")?;
    // Read by whoever started this.
    println!("{}", listener.local_addr()?);
    axum_server::from_tcp_rustls(listener, RustlsConfig::from_config(Arc::new(config)))?
        .serve(Router::new().route("/mutation/pod", post(mutate)).into_make_service())
        .await?;
    Ok(())
}
