//! `cargo xtask bench`: what a review costs, beside a webhook that does the least the job can cost.

use std::env;
use std::ffi::OsString;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Args;
use sidecar_testkit::repository_root;

use crate::image;

/// `cargo xtask bench`
#[derive(Args)]
pub(crate) struct Arguments {
    /// Seconds of load for each server, kind of review and round
    #[arg(long, value_name = "N")]
    seconds: Option<f64>,
    /// How many rounds
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Only the cost in the process, without HTTP and TLS
    #[arg(long)]
    micro: bool,
    /// Form of the result: table or json
    #[arg(long, value_name = "FORMAT")]
    output: Option<String>,
    /// More for the program `bench`, after `--` (see its --help)
    #[arg(last = true, value_name = "ARGUMENTS")]
    more: Vec<OsString>,
}

pub(crate) fn run(arguments: Arguments) -> Result<()> {
    let mut options = arguments.more;
    let mut option = |name: &str, value: Option<String>| {
        options.extend(value.map(|value| format!("--{name}={value}").into()));
    };
    option("seconds", arguments.seconds.map(|seconds| seconds.to_string()));
    option("rounds", arguments.rounds.map(|rounds| rounds.to_string()));
    option("output", arguments.output);
    if arguments.micro {
        options.push("--micro".into());
    } else {
        // The binary of the image, not the one of `cargo build`.
        options.extend(["--injector".into(), image::build_binary()?.into_os_string()]);
    }
    cargo(&["build", "--release", "--locked", "--package", "bench"], &[])?;
    cargo(&["run", "--quiet", "--release", "--locked", "--package", "bench", "--"], &options)
}

fn cargo(arguments: &[&str], options: &[OsString]) -> Result<()> {
    let program = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.current_dir(repository_root()).args(arguments).args(options);
    let status = command.status().context("cannot start cargo")?;
    ensure!(status.success(), "{command:?} failed ({status})");
    Ok(())
}
