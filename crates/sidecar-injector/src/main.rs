//! The one binary: an admission webhook (`serve`) and the commands that work without a cluster.

use std::process::ExitCode;

use clap::Parser;
use sidecar_injector::{Arguments, run};

fn main() -> ExitCode {
    // Clap answers `--help` and wrong usage itself, the latter with exit code 2.
    match run(Arguments::parse()) {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}
