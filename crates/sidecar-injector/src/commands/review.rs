//! `review`: a saved AdmissionReview in, the webhook's response out.

use std::process::ExitCode;

use sidecar_engine::Engine;

use crate::arguments::ReviewArguments;
use crate::failure::Failure;
use crate::manifest::{input, output};

pub(crate) fn run(arguments: &ReviewArguments) -> Result<ExitCode, Failure> {
    let source = input::read_one(&arguments.filename)?;
    let engine = Engine::builtin().map_err(Failure::internal)?;
    let reviewed = engine.review(&source.bytes).map_err(|error| Failure::input(&source.name, error))?;
    let mut response = String::from_utf8(reviewed.response).map_err(Failure::internal)?;
    response.push('\n');
    output::print(&response)?;
    for decision in &reviewed.decisions {
        eprintln!("{decision}");
    }
    if let Some(reason) = reviewed.skipped {
        eprintln!("{reason}: {}", reason.explanation());
    }
    Ok(ExitCode::SUCCESS)
}
