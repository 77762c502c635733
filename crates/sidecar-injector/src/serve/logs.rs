//! The log: one structured line for each review, never anything of the pod but where it is and what was decided.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::time::Duration;

use sidecar_engine::Reviewed;
use tracing::{Level, enabled, info, warn};
use tracing_subscriber::EnvFilter;

use crate::arguments::LogFormat;
use crate::failure::Failure;

/// Sends the log to standard error, for people on a terminal and as JSON elsewhere.
pub(crate) fn start(format: Option<LogFormat>, level: &str) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(level)
        .map_err(|error| Failure::Usage(format!("--log-level {level:?}: {error}; try info or debug")))?;
    let is_terminal = std::io::stderr().is_terminal();
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    let result = match format.unwrap_or(if is_terminal { LogFormat::Text } else { LogFormat::Json }) {
        LogFormat::Json => {
            builder.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init()
        }
        LogFormat::Text => {
            builder.with_ansi(is_terminal && std::env::var_os("NO_COLOR").is_none()).try_init()
        }
    };
    result.map_err(Failure::internal)
}

/// One line about an answered review.
pub(crate) fn review(reviewed: &Reviewed<'_>, took: Duration) {
    if !enabled!(Level::INFO) {
        return;
    }
    // Definitions and reasons in one field each, side by side, so that a line stays flat.
    let (mut definitions, mut reasons) = (String::new(), String::new());
    for decision in &reviewed.decisions {
        let comma = if definitions.is_empty() { "" } else { "," };
        let _ = write!(definitions, "{comma}{}", decision.definition);
        let _ = write!(reasons, "{comma}{}", decision.reason.code());
    }
    if let Some(reason) = reviewed.skipped {
        reasons.push_str(reason.code());
    }
    let decision = match reviewed {
        Reviewed { denied: true, .. } => "denied",
        Reviewed { operations: 1.., .. } => "injected",
        _ => "unchanged",
    };
    let owner = reviewed.owner.as_ref().map(|(kind, name)| format!("{kind}/{name}"));
    info!(
        event = "review",
        uid = reviewed.uid,
        namespace = reviewed.namespace,
        pod = reviewed.name,
        owner,
        decision,
        definitions,
        reasons,
        operations = reviewed.operations,
        dry_run = reviewed.dry_run,
        microseconds = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
    );
}

/// One line about a body that was no review; its text may hold anything and stays out.
pub(crate) fn refused_review(code: &'static str, bytes: usize) {
    warn!(event = "review_refused", code, bytes);
}
