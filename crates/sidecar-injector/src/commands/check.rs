//! `check`: asks a running webhook what the API server would ask it, over the same TLS.

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use kube::Api;
use kube::api::{ApiResource, DynamicObject};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use crate::arguments::CheckArguments;
use crate::cluster;
use crate::failure::Failure;

const UID: &str = "sidecar-injector-check";

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(500);

pub(crate) fn run(arguments: &CheckArguments) -> Result<ExitCode, Failure> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::internal)?;
    let bundle = match (&arguments.ca_bundle, &arguments.webhook_configuration) {
        (None, Some(name)) => runtime.block_on(live_bundle(name))?,
        (bundle, _) => bundle.clone().unwrap_or_default(),
    };
    let target = Target::new(arguments, &bundle)?;
    match runtime.block_on(target.check_until(arguments.timeout)) {
        Ok(Finding::Injects) => eprintln!("ok: {} is ready and injects", target.url),
        Ok(Finding::OnlyForOthers) => {
            eprintln!(
                "ok: {} is ready; it answers reviews of callers with a client certificate alone",
                target.url
            );
        }
        Err(problem) => {
            eprintln!("error: {}: {problem}", target.url);
            return Ok(ExitCode::from(1));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// How a webhook that is well answered.
enum Finding {
    Injects,
    /// The certificate that reviews want is the API server's, and no pod should have it.
    OnlyForOthers,
}

/// The caBundle of the first webhook of a configuration.
async fn live_bundle(configuration: &str) -> Result<String, Failure> {
    let api: Api<DynamicObject> = Api::all_with(
        cluster::client().await?,
        &ApiResource {
            group: "admissionregistration.k8s.io".to_owned(),
            version: "v1".to_owned(),
            api_version: "admissionregistration.k8s.io/v1".to_owned(),
            kind: "MutatingWebhookConfiguration".to_owned(),
            plural: "mutatingwebhookconfigurations".to_owned(),
        },
    );
    let failed = |problem: &dyn std::fmt::Display| {
        Failure::Cluster(format!("the webhook configuration {configuration}: {problem}"))
    };
    let object = api.get(configuration).await.map_err(|error| failed(&error))?;
    let bundle = object.data.pointer("/webhooks/0/clientConfig/caBundle").and_then(Value::as_str);
    bundle.map(ToOwned::to_owned).ok_or_else(|| failed(&"its first webhook has no caBundle"))
}

/// What is asked, and how it is reached.
struct Target {
    url: Uri,
    address: String,
    server_name: ServerName<'static>,
    tls: TlsConnector,
}

impl Target {
    fn new(arguments: &CheckArguments, ca_bundle: &str) -> Result<Self, Failure> {
        let usage = |problem: String| Failure::Usage(problem);
        let url: Uri =
            arguments.url.parse().map_err(|error| usage(format!("--url {}: {error}", arguments.url)))?;
        let host = url.host().filter(|_| url.scheme_str() == Some("https"));
        let host = host
            .ok_or_else(|| usage(format!("--url {}: must be https://HOST[:PORT]", arguments.url)))?
            .to_owned();
        let default = || format!("{host}:{}", url.port_u16().unwrap_or(443));
        let address = arguments.connect_to.as_deref().map_or_else(default, bracketed);
        let pem = base64::engine::general_purpose::STANDARD
            .decode(ca_bundle.split_whitespace().collect::<String>())
            .map_err(|error| usage(format!("--ca-bundle: not base64: {error}")))?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|error| usage(format!("--ca-bundle: not PEM: {error}")))?;
            roots.add(certificate).map_err(|error| usage(format!("--ca-bundle: {error}")))?;
        }
        if roots.is_empty() {
            return Err(usage("--ca-bundle: has no certificate".to_owned()));
        }
        let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(Failure::internal)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        // What the API server speaks to Services.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let server_name = ServerName::try_from(host).map_err(|error| usage(format!("--url: {error}")))?;
        Ok(Target { url, address, server_name, tls: TlsConnector::from(Arc::new(config)) })
    }

    /// Tries until it works or the time is over; right after an installation nothing may be ready yet.
    async fn check_until(&self, limit: Duration) -> Result<Finding, String> {
        let deadline = Instant::now() + limit;
        loop {
            let problem = match tokio::time::timeout_at(deadline, self.check()).await {
                Ok(Ok(finding)) => return Ok(finding),
                Ok(Err(problem)) => problem,
                Err(_) => format!("no answer from {}", self.address),
            };
            if Instant::now() + PAUSE >= deadline {
                return Err(problem);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn check(&self) -> Result<Finding, String> {
        let ready = self.send("/health/readiness", None).await?;
        if ready.0 != StatusCode::OK {
            return Err(format!("not ready: {}", ready.0));
        }
        let (status, body) = self.send("/mutation/pod", Some(review())).await?;
        if status == StatusCode::FORBIDDEN
            && serde_json::from_slice(&body).is_ok_and(|Refusal { error }| error.code == "CallerUnknown")
        {
            return Ok(Finding::OnlyForOthers);
        }
        if status != StatusCode::OK {
            return Err(format!("a review was answered with {status}"));
        }
        let answer: Answer = serde_json::from_slice(&body)
            .map_err(|error| format!("the answer is not that of an injector: {error}"))?;
        if answer.response.uid != UID || !answer.response.allowed {
            return Err("the answer is to another question".to_owned());
        }
        if answer.response.patch_type.as_deref() != Some("JSONPatch") || answer.response.patch.is_none() {
            return Err("a labelled pod was not injected".to_owned());
        }
        Ok(Finding::Injects)
    }

    async fn send(&self, path: &str, body: Option<String>) -> Result<(StatusCode, Bytes), String> {
        let place = |what: &str, error: &dyn std::fmt::Display| format!("{what} {}: {error}", self.address);
        let stream =
            TcpStream::connect(&self.address).await.map_err(|error| place("cannot connect to", &error))?;
        let stream: io::Result<_> = self.tls.connect(self.server_name.clone(), stream).await;
        let stream = stream.map_err(|error| place("no TLS with", &error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| place("no HTTP with", &error))?;
        tokio::spawn(connection);
        let host = self.url.authority().map(ToString::to_string).unwrap_or_default();
        let request = Request::builder()
            .method(if body.is_some() { "POST" } else { "GET" })
            .uri(path)
            .header(HOST, host)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body.unwrap_or_default())))
            .map_err(|error| error.to_string())?;
        let response = sender.send_request(request).await.map_err(|error| place("no answer from", &error))?;
        let status = response.status();
        let body =
            response.into_body().collect().await.map_err(|error| place("half an answer from", &error))?;
        Ok((status, body.to_bytes()))
    }
}

/// An IPv6 address with its port as Kubernetes' Service variables put them together, in the form in which it can be told apart.
fn bracketed(address: &str) -> String {
    match address.rsplit_once(':') {
        Some((host, port)) if host.contains(':') && !host.starts_with('[') => format!("[{host}]:{port}"),
        _ => address.to_owned(),
    }
}

/// As much of a response as is looked at.
#[derive(Deserialize)]
struct Answer {
    response: Response,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    uid: String,
    allowed: bool,
    patch_type: Option<String>,
    patch: Option<String>,
}

/// The answer to what is not reviewed.
#[derive(Deserialize)]
struct Refusal {
    error: Problem,
}

#[derive(Deserialize)]
struct Problem {
    code: String,
}

/// A labelled pod, as a dry run: nobody stores the answer.
fn review() -> String {
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": UID,
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "operation": "CREATE",
            "dryRun": true,
            "object": {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": UID, "labels": {"sidecar.me/inject": "true"}},
                "spec": {"containers": [{"name": "app", "image": "app"}]},
            },
        },
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::bracketed;

    #[test]
    fn addresses_of_both_families_can_be_connected_to() {
        assert_eq!(bracketed("10.96.0.7:443"), "10.96.0.7:443");
        assert_eq!(bracketed("fd00::7:443"), "[fd00::7]:443");
        assert_eq!(bracketed("[fd00::7]:443"), "[fd00::7]:443");
        assert_eq!(bracketed("localhost:8443"), "localhost:8443");
    }
}
