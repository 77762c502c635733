//! `validate`: reads definitions as the webhook would and shows everything that is wrong with them.

use std::process::ExitCode;

use serde_json::json;
use sidecar_engine::definition::ReadOptions;

use crate::arguments::{ValidateArguments, ValidateFormat};
use crate::failure::Failure;
use crate::findings::{Finding, Findings};
use crate::manifest::input;
use crate::manifest::output;

pub(crate) fn run(arguments: &ValidateArguments) -> Result<ExitCode, Failure> {
    let options = ReadOptions { allow_unknown_pod_fields: arguments.allow_unknown_pod_fields };
    let sources = input::read(&arguments.filename)?;
    let findings = Findings::of(&sources, options);
    match arguments.output {
        Some(ValidateFormat::Json) => {
            let shown: Vec<_> = findings.all.iter().map(Finding::to_json).collect();
            output::print(&format!("{:#}\n", json!(shown)))?;
        }
        None => findings.all.iter().for_each(|finding| eprintln!("{}\n", finding.draw())),
    }
    findings.empty().for_each(|line| eprintln!("{line}"));
    eprintln!("{}", findings.summary);
    Ok(match findings {
        // All was said that there is to say, but of that file nobody knows what is in it.
        Findings { has_unreadable: true, .. } => ExitCode::from(3),
        _ if findings.all.is_empty() => ExitCode::SUCCESS,
        _ => ExitCode::from(1),
    })
}
