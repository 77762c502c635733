//! A client that speaks to the server as the API server does: TLS verified, HTTP/1.1 or HTTP/2, connections reused.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::header::{CONTENT_TYPE, HeaderMap};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::server::{HOST, Server};

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

pub(crate) fn tls(authority: &str, alpn: &[&str]) -> Arc<ClientConfig> {
    tls_of(rustls::DEFAULT_VERSIONS, authority, alpn)
}

pub(crate) fn tls_of(
    versions: &[&'static rustls::SupportedProtocolVersion],
    authority: &str,
    alpn: &[&str],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority.as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// The same with a certificate to show.
pub(crate) fn tls_as((certificate, key): (String, String), authority: &str) -> Arc<ClientConfig> {
    let mut config = Arc::unwrap_or_clone(tls(authority, &["http/1.1"]));
    let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<_, _>>().unwrap();
    let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let key = rustls::sign::CertifiedKey::from_der(chain, key, &provider).unwrap();
    config.client_auth_cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(key));
    Arc::new(config)
}

/// One connection; requests go over it one after the other.
pub(crate) enum Connection {
    Http1(hyper::client::conn::http1::SendRequest<Full<Bytes>>),
    Http2(hyper::client::conn::http2::SendRequest<Full<Bytes>>),
}

pub(crate) async fn connect_tls(
    address: SocketAddr,
    config: Arc<ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    // As Go does; otherwise each connection's first request waits 40 ms for an acknowledgement.
    stream.set_nodelay(true)?;
    TlsConnector::from(config).connect(ServerName::try_from(HOST).unwrap(), stream).await
}

impl Connection {
    pub(crate) async fn http1(server: &Server) -> std::io::Result<Self> {
        Self::http1_to(server.address, &server.authority.pem).await
    }

    pub(crate) async fn http1_to(address: SocketAddr, authority: &str) -> std::io::Result<Self> {
        Self::http1_with(address, tls(authority, &["http/1.1"])).await
    }

    pub(crate) async fn http1_with(address: SocketAddr, config: Arc<ClientConfig>) -> std::io::Result<Self> {
        let stream = connect_tls(address, config).await?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(std::io::Error::other)?;
        tokio::spawn(connection);
        Ok(Connection::Http1(sender))
    }

    pub(crate) async fn http2(server: &Server) -> std::io::Result<Self> {
        let stream = connect_tls(server.address, tls(&server.authority.pem, &["h2"])).await?;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .map_err(std::io::Error::other)?;
        tokio::spawn(connection);
        Ok(Connection::Http2(sender))
    }

    pub(crate) async fn send(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Answer> {
        let response: Response<_> = match self {
            Connection::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Connection::Http2(sender) => sender.send_request(request).await?,
        };
        let (parts, body) = response.into_parts();
        Ok(Answer { status: parts.status, headers: parts.headers, body: body.collect().await?.to_bytes() })
    }

    /// Whether the server has ended the connection.
    pub(crate) fn is_closed(&self) -> bool {
        match self {
            Connection::Http1(sender) => sender.is_closed(),
            Connection::Http2(sender) => sender.is_closed(),
        }
    }

    pub(crate) async fn get(&mut self, path: &str) -> hyper::Result<Answer> {
        self.send(request("GET", path, None, "")).await
    }

    pub(crate) async fn review(&mut self, body: &Value) -> hyper::Result<Answer> {
        self.send(request("POST", "/mutation/pod?timeout=5s", Some("application/json"), body.to_string()))
            .await
    }
}

pub(crate) fn request(
    method: &str,
    path: &str,
    content_type: Option<&str>,
    body: impl Into<Bytes>,
) -> Request<Full<Bytes>> {
    let mut builder =
        Request::builder().method(method).uri(format!("https://{HOST}{path}")).header("Host", HOST);
    if let Some(content_type) = content_type {
        builder = builder.header(CONTENT_TYPE, content_type);
    }
    builder.body(Full::new(body.into())).unwrap()
}

/// A review as the API server sends it.
pub(crate) fn review(object: Value) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "requestKind": {"group": "", "version": "v1", "kind": "Pod"},
            "namespace": "default",
            "operation": "CREATE",
            "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller"},
            "object": object,
            "oldObject": null,
            "dryRun": false,
            "options": {"apiVersion": "meta.k8s.io/v1", "kind": "CreateOptions"},
        },
    })
}

pub(crate) fn pod(label: Option<&str>) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"generateName": "web-7d4b9c-", "namespace": "default", "labels": {"app": "web"}, "ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-7d4b9c", "controller": true}]},
        "spec": {"containers": [{"name": "app", "image": "app:1", "env": [{"name": "PASSWORD", "value": "hunter2"}]}]},
    });
    if let Some(value) = label {
        pod["metadata"]["labels"]["sidecar.me/inject"] = value.into();
    }
    pod
}

/// The decoded patch of an answer.
pub(crate) fn patch(answer: &Value) -> Option<json_patch::Patch> {
    use base64::Engine as _;
    let text = answer["response"]["patch"].as_str()?;
    assert_eq!(answer["response"]["patchType"], "JSONPatch");
    Some(serde_json::from_slice(&base64::engine::general_purpose::STANDARD.decode(text).unwrap()).unwrap())
}
