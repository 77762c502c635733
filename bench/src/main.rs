//! What a review costs, beside a webhook that does the least that the job can cost. Run it with `cargo xtask bench`.
//!
//! Machines are shared and noisy, so no figure stands alone: the servers are loaded in turn, round after round, and
//! each is set beside the null webhook of its own round. The generator shares the processors with the server; reviews
//! per second are therefore of this machine, processor time per review is of the server.

mod load;
mod micro;
mod report;
mod reviews;
mod servers;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use clap::{Parser, ValueEnum};
use tokio_rustls::TlsConnector;

use load::{Connection, Sample};
use report::{Report, Round, Row};
use reviews::{Case, Situation};
use servers::{Pair, Program, Server};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Connections of the closed loop.
const CONNECTIONS: usize = 16;

#[derive(Debug, Parser)]
#[command(about, version)]
struct Arguments {
    /// The injector's binary; several builds can be measured side by side
    #[arg(long, value_name = "[NAME=]FILE", required_unless_present = "micro")]
    injector: Vec<String>,
    /// The null webhook [default: beside this program]
    #[arg(long, value_name = "FILE")]
    null_webhook: Option<PathBuf>,
    /// Seconds of load for each server, kind of review and round
    #[arg(long, value_name = "N", default_value_t = 4.0)]
    seconds: f64,
    /// How many rounds
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: usize,
    /// Reviews a second of the open loop
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    rate: u32,
    /// Only the kinds of review whose name has this in it
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Only the cost in the process, without HTTP and TLS
    #[arg(long)]
    micro: bool,
    /// Form of the result
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    output: Output,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Output {
    Table,
    Json,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut report = Report::default();
    if !arguments.micro {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        report.served = runtime.block_on(Bench::new(&arguments)?.run())?;
    }
    report.in_process_us = micro::run()?;
    report.definitions = micro::definitions()?;
    match arguments.output {
        Output::Table => print!("{report}"),
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    Ok(())
}

struct Bench<'a> {
    arguments: &'a Arguments,
    time: Duration,
    folder: tempfile::TempDir,
    pair: Pair,
    tls: TlsConnector,
    /// The null webhook first.
    programs: Vec<Program>,
}

impl<'a> Bench<'a> {
    fn new(arguments: &'a Arguments) -> Result<Self> {
        ensure!(arguments.rounds > 0 && arguments.rate > 0, "at least one round, and one review a second");
        let null = match &arguments.null_webhook {
            Some(path) => path.clone(),
            None => std::env::current_exe()?.with_file_name("null-webhook"),
        };
        let injectors = arguments.injector.iter().map(|injector| {
            let (name, path) = injector.split_once('=').unwrap_or(("sidecar-injector", injector));
            Program::Injector { name: name.to_owned(), path: path.into() }
        });
        let folder = tempfile::tempdir()?;
        let pair = Pair::write(&folder.path().join("certificate"))?;
        Ok(Bench {
            arguments,
            time: Duration::try_from_secs_f64(arguments.seconds)?,
            tls: load::tls(&pair.pem)?,
            pair,
            folder,
            programs: std::iter::once(Program::Null(null)).chain(injectors).collect(),
        })
    }

    async fn run(&self) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        let wanted = |case: &Case| self.arguments.only.as_ref().is_none_or(|only| case.name.contains(only));
        for case in Case::ALL.iter().filter(|case| wanted(case)) {
            let body = Bytes::from(case.body()?);
            rows.extend(
                self.measure(case.name, async |program, server| {
                    self.closed(program, server, case, &body).await
                })
                .await?,
            );
        }
        if let Some(case) = Case::ALL.iter().find(|case| wanted(case)) {
            let body = Bytes::from(case.body()?);
            let name = format!("{}, {}/s", case.name, self.arguments.rate);
            rows.extend(self.measure(&name, async |_, server| self.open(server, &body).await).await?);
        }
        Ok(rows)
    }

    /// Starts the servers afresh and loads one after the other, as often as there are rounds.
    async fn measure(
        &self,
        name: &str,
        round: impl AsyncFn(&Program, &Server) -> Result<Round>,
    ) -> Result<Vec<Row>> {
        let mut servers = Vec::new();
        for program in &self.programs {
            servers.push((program, self.start(program)?, Vec::new()));
        }
        for number in 1..=self.arguments.rounds {
            eprintln!("{name}: round {number} of {}", self.arguments.rounds);
            for (program, server, rounds) in &mut servers {
                rounds.push(round(program, server).await.with_context(|| program.name().to_owned())?);
            }
        }
        let (_, _, null) = servers.first().context("no server")?;
        let row = |(program, server, rounds): &(&Program, Server, Vec<Round>)| {
            Ok(Row::new(name, program.name(), rounds, null, server.resident()?))
        };
        servers.iter().map(row).collect()
    }

    fn start(&self, program: &Program) -> Result<Server> {
        let folder: &Path = self.folder.path();
        Server::start(program, &self.pair, folder).with_context(|| program.name().to_owned())
    }

    async fn closed(&self, program: &Program, server: &Server, case: &Case, body: &Bytes) -> Result<Round> {
        let is_blind = matches!(program, Program::Null(_)) && case.situation == Situation::AlreadyPresent;
        let situation = (!is_blind).then_some(case.situation);
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            connections.push(Connection::open(server, &self.tls, body.clone(), situation).await?);
        }
        let (connections, _) = load::closed_loop(connections, self.time / 4).await?;
        let before = Before::new(server)?;
        let (_, sample) = load::closed_loop(connections, self.time).await?;
        before.round(server, &sample)
    }

    async fn open(&self, server: &Server, body: &Bytes) -> Result<Round> {
        load::open_loop(server, &self.tls, body, self.arguments.rate, self.time / 4).await?;
        let before = Before::new(server)?;
        let sample = load::open_loop(server, &self.tls, body, self.arguments.rate, self.time).await?;
        before.round(server, &sample)
    }
}

/// The server's accounts at the start of a round.
struct Before {
    cpu: Duration,
    logged: u64,
}

impl Before {
    fn new(server: &Server) -> Result<Self> {
        Ok(Before { cpu: server.cpu()?, logged: server.logged()? })
    }

    fn round(&self, server: &Server, sample: &Sample) -> Result<Round> {
        let reviews = f64::from(u32::try_from(sample.latencies.len())?);
        let milliseconds = |percent| sample.percentile(percent).as_secs_f64() * 1e3;
        Ok(Round {
            reviews_per_second: reviews / sample.took.as_secs_f64(),
            p50_ms: milliseconds(50),
            p99_ms: milliseconds(99),
            cpu_us: server.cpu()?.saturating_sub(self.cpu).as_secs_f64() * 1e6 / reviews,
            log_bytes: f64::from(u32::try_from(server.logged()? - self.logged)?) / reviews,
        })
    }
}
