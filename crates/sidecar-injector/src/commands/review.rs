//! `review`: a saved AdmissionReview in, the webhook's response out.

use std::process::ExitCode;

use sidecar_engine::ReviewError;

use crate::arguments::ReviewArguments;
use crate::commands::decisions::{conflicts, why};
use crate::failure::Failure;
use crate::manifest::input::{self, Source};
use crate::manifest::output;
use crate::sources::namespaces::NamespaceMap;
use crate::sources::offline;

pub(crate) fn run(arguments: &ReviewArguments) -> Result<ExitCode, Failure> {
    let source = input::read_one(&arguments.filename)?;
    let definitions = offline::definitions(&arguments.offline)?.current();
    let namespaces = NamespaceMap::of(offline::namespaces(&arguments.offline.namespace_file)?);
    let reviewed =
        definitions.engine.review(&source.bytes, &namespaces).map_err(|error| failure(&source, &error))?;
    let mut response = String::from_utf8(reviewed.response).map_err(Failure::internal)?;
    response.push('\n');
    output::print(&response)?;
    for decision in &reviewed.decisions {
        let name = &decision.definition;
        eprintln!("sidecar {name}: {}", why(decision, &reviewed.namespace, "--namespace-file"));
        for change in conflicts(decision) {
            eprintln!("sidecar {name}: {change}");
        }
    }
    if let Some(reason) = reviewed.skipped {
        eprintln!("{reason}: {}", reason.explanation());
    }
    Ok(ExitCode::SUCCESS)
}

fn failure(source: &Source, error: &ReviewError) -> Failure {
    match (error, std::str::from_utf8(&source.bytes)) {
        (ReviewError::Malformed { line, column, problem }, Ok(text)) => {
            // The place is drawn; it need not be said as well.
            let problem = problem.split(" at line ").next().unwrap_or(problem);
            let is_json = text.trim_start().starts_with('{');
            let problem = if is_json { problem } else { "this is not JSON, and an AdmissionReview is" };
            Failure::text((&source.name, text), (*line, *column), problem, None)
        }
        _ => Failure::input(&source.name, error),
    }
}
