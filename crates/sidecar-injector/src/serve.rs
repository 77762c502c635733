//! `serve`: start order, readiness, shutdown, on one screen.

mod callers;
pub(crate) mod certificates;
mod connection;
pub(crate) mod events;
mod http;
mod lease;
mod liveness;
pub(crate) mod logs;
mod metrics;
mod probe;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};

use crate::arguments::{CallerArguments, LeaseName, ServeArguments};
use crate::cluster;
use crate::failure::Failure;
use crate::missed::{self, Watchdog};
use crate::sources::Sources;
use callers::Callers;
use certificates::{CertificateSource, Serving};
use connection::{Phase, Tls};
use liveness::Liveness;
use logs::Log;
use metrics::Reviews;
use probe::Probe;

/// What the arguments mean.
struct Config {
    sources: Sources,
    /// Absent: plain HTTP.
    certificates: Option<CertificateSource>,
    callers: CallerArguments,
    /// In this order, the first that can be had.
    addresses: Vec<SocketAddr>,
    /// The same for metrics; none: nobody gets any.
    metrics_addresses: Vec<SocketAddr>,
    /// Whether Events are written.
    events: bool,
    /// Absent: nobody asks the API server whether reviews arrive.
    probe: Option<Probe>,
    /// Absent: nobody looks for pods that run without their sidecar.
    missed: Option<missed::Settings>,
    /// Absent: this replica leads.
    lease: Option<LeaseName>,
    shutdown_delay: Duration,
    drain_timeout: Duration,
}

impl Config {
    fn new(arguments: &ServeArguments) -> Result<Self, Failure> {
        // The article's rule: HTTPS only for the value `true`.
        let is_https = arguments.https_enabled.as_deref() == Some("true");
        let port = if is_https { arguments.https_port } else { arguments.http_port };
        let hosts = match arguments.bind_address {
            Some(address) => vec![address],
            // Both families; machines without IPv6 have only the second.
            None if is_https => vec![Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()],
            None => vec![IpAddr::from(Ipv4Addr::LOCALHOST)],
        };
        let on = |port| hosts.iter().map(|host| SocketAddr::new(*host, port)).collect();
        let callers = &arguments.callers;
        for (option, is_set) in [
            ("--client-ca-file", callers.ca_file().is_some()),
            ("--client-names", !callers.names().is_empty()),
        ] {
            if is_set && !is_https {
                let problem = "needs HTTPS: over plain HTTP nobody can show a certificate";
                return Err(Failure::Usage(format!("{option} {problem}")));
            }
        }
        let sources = Sources::new(arguments);
        let missed = missed::Settings::new(&arguments.missed, sources.know_namespaces())?;
        Ok(Config {
            sources,
            certificates: is_https.then(|| CertificateSource::new(&arguments.certificates)).transpose()?,
            callers: callers.clone(),
            addresses: on(port),
            metrics_addresses: arguments.metrics_port.map(on).unwrap_or_default(),
            events: arguments.reporting.events,
            probe: arguments.reporting.probed_namespace().map(|namespace| Probe {
                namespace,
                interval: arguments.reporting.self_probe_interval,
                port,
            }),
            missed,
            lease: arguments.missed.lease.clone(),
            shutdown_delay: arguments.shutdown_delay,
            drain_timeout: arguments.drain_timeout,
        })
    }
}

/// Runs the webhook until it is told to stop.
pub(crate) fn run(arguments: &ServeArguments) -> Result<ExitCode, Failure> {
    let log = logs::start(arguments.log_format, &arguments.log_level)?;
    let config = Config::new(arguments)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // A review takes microseconds; more threads would only take memory on large machines.
        .worker_threads(std::thread::available_parallelism().map_or(2, usize::from).min(4))
        .enable_all()
        .build()
        .map_err(Failure::internal)?;
    if let Some(value) =
        arguments.https_enabled.as_deref().filter(|value| !matches!(*value, "true" | "false"))
    {
        warn!(
            event = "https_disabled",
            value, "HTTPS_ENABLED counts only with the value true: serving plain HTTP"
        );
    }
    runtime.block_on(async {
        tokio::select! {
            result = serve(config, &log) => result,
            // Never ends.
            () = log.watch() => Ok(()),
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(config: Config, log: &Log) -> Result<(), Failure> {
    let certificate_needs_cluster =
        config.certificates.as_ref().is_some_and(CertificateSource::needs_cluster);
    let reports = config.events || config.probe.is_some();
    let needs_cluster = config.sources.need_cluster() || certificate_needs_cluster || reports;
    let client = if needs_cluster { Some(cluster::client().await?) } else { None };
    let loading = config.sources.load(client.clone())?;
    let mut registry = metrics::registry();
    log.register(&mut registry);
    loading.register(&mut registry);
    let reviews = Reviews::register(&mut registry, &http::REFUSALS);
    if let (Some(client), Some(probe)) = (&client, config.probe) {
        let metrics = probe::Metrics::register(&mut registry);
        tokio::spawn(probe.follow(client.clone(), metrics));
    }
    let events = client.clone().filter(|_| config.events).map(|client| {
        let (events, writer) = events::queue(&mut registry);
        tokio::spawn(writer.write(client));
        events
    });
    let missed = match config.missed {
        Some(settings) => {
            let metrics = missed::Settings::metrics(&mut registry);
            Some((cluster::client_that_asks_once().await?, settings, metrics))
        }
        None => None,
    };
    let definitions = loading.definitions.current().names();
    let certificate = match config.certificates {
        Some(source) => Some(source.start(client).await?),
        None => None,
    };
    let tls = match &certificate {
        Some(serving) => {
            serving.register(&mut registry);
            let callers = Callers::watch(&config.callers)?;
            let config = Serving::tls_config(serving.clone(), callers.clone()).map_err(Failure::internal)?;
            Some(Tls { acceptor: TlsAcceptor::from(Arc::new(config)), callers })
        }
        None => None,
    };
    // Before anything is served: a signal that comes early must not be lost.
    let signals = Signals::new()?;
    let listener = listen(&config.addresses)?;
    if !config.metrics_addresses.is_empty() {
        let listener = listen(&config.metrics_addresses)?;
        let address = listener.local_addr().map_err(Failure::internal)?;
        info!(event = "serving_metrics", %address, "serving metrics");
        tokio::spawn(metrics::serve(listener, registry));
    }
    let address = listener.local_addr().map_err(Failure::internal)?;
    let protocol = if tls.is_some() { "https" } else { "http" };
    info!(event = "serving", protocol, %address, definitions, version = env!("CARGO_PKG_VERSION"), "serving");

    let (missed_events, missed_certificate) = (events.clone(), certificate.clone());
    let (phase, watched) = watch::channel(Phase::Up);
    let router = http::router(http::Shared {
        definitions: loading.definitions.clone(),
        namespaces: loading.namespaces.clone(),
        readiness: loading.readiness.clone(),
        certificate,
        statuses: loading.statuses.clone(),
        phase: watched.clone(),
        bodies: http::Bodies::default(),
        liveness: Liveness::default(),
        metrics: reviews,
        events,
    });
    let mut candidacy = None;
    if let Some((client, settings, metrics)) = missed {
        let leading = match config.lease {
            Some(LeaseName { namespace, name }) => {
                let (candidate, leading) = lease::Candidate::new(client.clone(), &namespace, &name);
                candidacy = Some(tokio::spawn(candidate.stand(watched.clone())));
                leading
            }
            // Nobody else is there.
            None => watch::Sender::new(true).subscribe(),
        };
        let (definitions, namespaces) = (loading.definitions.clone(), loading.namespaces.clone());
        let readiness = loading.readiness.clone();
        let watchdog = Watchdog {
            client,
            definitions,
            namespaces,
            readiness,
            certificate: missed_certificate,
            leading,
            settings,
            metrics,
            events: missed_events,
        };
        tokio::spawn(watchdog.run());
    }
    loading.follow();
    let mut server = tokio::spawn(connection::serve(listener, tls, router, watched));
    let shutdown = async {
        signals.shut_down(&phase, config.shutdown_delay).await;
        tokio::time::sleep(config.drain_timeout).await;
    };
    tokio::select! {
        ended = &mut server => ended.map_err(Failure::internal)?,
        () = shutdown => warn!(event = "drain_timeout", "connections were still open after {:?}", config.drain_timeout),
    }
    if let Some(candidacy) = candidacy {
        // It has had the whole drain; what is left takes a few seconds at most.
        let _ = candidacy.await;
    }
    info!(event = "stopped", "stopped");
    Ok(())
}

fn listen(addresses: &[SocketAddr]) -> Result<TcpListener, Failure> {
    let listen = |address: &SocketAddr| {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // A restart must not wait for the last run's connections to time out.
        socket.set_reuseaddr(true)?;
        socket.bind(*address)?;
        socket.listen(1024)
    };
    let mut problem = String::from("no address");
    for address in addresses {
        match listen(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => problem = format!("cannot listen on {address}: {error}"),
        }
    }
    Err(Failure::internal(problem))
}

/// SIGTERM comes from the kubelet, SIGINT from a terminal.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(Failure::internal);
        Ok(Signals {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    /// Waits for a signal, then takes the server down in order: not ready, still serving for the delay, draining.
    async fn shut_down(mut self, phase: &watch::Sender<Phase>, delay: Duration) {
        let from_terminal = tokio::select! {
            _ = self.terminate.recv() => false,
            _ = self.interrupt.recv() => true,
        };
        if !from_terminal {
            info!(event = "leaving", delay_seconds = delay.as_secs_f64(), "not ready any more, serving on");
            phase.send_replace(Phase::Leaving);
            // A second signal ends the wait.
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
            }
        }
        info!(event = "draining", "finishing open requests");
        phase.send_replace(Phase::Draining);
    }
}
