//! Probes against a process, as the kubelet makes them.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::{Context, Result, bail};
use k8s_openapi::{
    api::core::v1::{Container, HTTPGetAction, Probe},
    apimachinery::pkg::util::intstr::IntOrString,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};

use crate::unverified;

/// A probe's times, with the defaults of Kubernetes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    pub(super) initial_delay: Duration,
    pub(super) period: Duration,
    pub(super) failures: u32,
    pub(super) successes: u32,
    timeout: Duration,
}

impl Schedule {
    pub(super) fn of(probe: &Probe) -> Self {
        let number = |value: Option<i32>, default: u32| {
            value.and_then(|value| u32::try_from(value).ok()).filter(|&value| value > 0).unwrap_or(default)
        };
        let seconds = |value, default| Duration::from_secs(u64::from(number(value, default)));
        Self {
            initial_delay: seconds(probe.initial_delay_seconds, 0),
            period: seconds(probe.period_seconds, 10),
            failures: number(probe.failure_threshold, 3),
            successes: number(probe.success_threshold, 1),
            timeout: seconds(probe.timeout_seconds, 1),
        }
    }
}

/// Makes one attempt. The error says why it failed, as an event of the kubelet would.
pub(super) async fn attempt(probe: &Probe, container: &Container, host: Ipv4Addr) -> Result<()> {
    let limit = Schedule::of(probe).timeout;
    let attempt = async {
        if let Some(action) = &probe.http_get {
            let port = port(&action.port, container)?;
            http_get(action, host, port).await
        } else if let Some(action) = &probe.tcp_socket {
            let port = port(&action.port, container)?;
            TcpStream::connect((host, port)).await?;
            Ok(())
        } else {
            bail!("the fake node makes HTTP and TCP probes only")
        }
    };
    match tokio::time::timeout(limit, attempt).await {
        Ok(result) => result,
        Err(_) => bail!("no answer within {limit:?}"),
    }
}

fn port(port: &IntOrString, container: &Container) -> Result<u16> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let mut ports = container.ports.iter().flatten();
            ports
                .find(|port| port.name.as_ref() == Some(name))
                .with_context(|| format!("the container has no port called {name}"))?
                .container_port
        }
    };
    u16::try_from(number).context("not a port")
}

async fn http_get(action: &HTTPGetAction, host: Ipv4Addr, port: u16) -> Result<()> {
    let status = if action.scheme.as_deref() == Some("HTTPS") {
        status(unverified::connect((host, port).into()).await?, action, host, port).await?
    } else {
        status(TcpStream::connect((host, port)).await?, action, host, port).await?
    };
    match status {
        200..400 => Ok(()),
        _ => bail!("HTTP status {status}"),
    }
}

async fn status(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    action: &HTTPGetAction,
    host: Ipv4Addr,
    port: u16,
) -> Result<u16> {
    let path = action.path.as_deref().unwrap_or("/");
    let mut request =
        format!("GET {path} HTTP/1.1\r\nConnection: close\r\nUser-Agent: kube-probe/fake-node\r\n");
    let headers = action.http_headers.as_deref().unwrap_or_default();
    for header in headers {
        request = format!("{request}{}: {}\r\n", header.name, header.value);
    }
    if !headers.iter().any(|header| header.name.eq_ignore_ascii_case("host")) {
        request = format!("{request}Host: {host}:{port}\r\n");
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") && line.len() < 256 {
        line.push(stream.read_u8().await?);
    }
    let line = String::from_utf8_lossy(&line);
    line.split(' ').nth(1).and_then(|code| code.parse().ok()).with_context(|| format!("not HTTP: {line:?}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn an_http_probe_by_port_name() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let container: Container =
            serde_json::from_value(json!({"name": "a", "ports": [{"name": "web", "containerPort": port}]}))
                .unwrap();
        let probe: Probe =
            serde_json::from_value(json!({"httpGet": {"path": "/ready", "port": "web"}})).unwrap();
        let server = tokio::spawn(async move {
            for answer in ["204 No Content", "503 Service Unavailable"] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 512];
                let length = stream.read(&mut request).await.unwrap();
                assert!(request[..length].starts_with(b"GET /ready HTTP/1.1\r\n"));
                stream.write_all(format!("HTTP/1.1 {answer}\r\n\r\n").as_bytes()).await.unwrap();
            }
        });
        attempt(&probe, &container, Ipv4Addr::LOCALHOST).await.unwrap();
        let error = attempt(&probe, &container, Ipv4Addr::LOCALHOST).await.unwrap_err();
        assert_eq!(error.to_string(), "HTTP status 503");
        server.await.unwrap();
    }
}
