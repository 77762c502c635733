//! `version`: what this is.

use std::process::ExitCode;

use crate::failure::Failure;
use crate::manifest::output::print;

pub(crate) fn run() -> Result<ExitCode, Failure> {
    print(&format!("sidecar-injector {}\n", env!("CARGO_PKG_VERSION")))?;
    Ok(ExitCode::SUCCESS)
}
