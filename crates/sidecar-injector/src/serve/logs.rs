//! The log: one structured line for each review, never anything of the pod but where it is, what was decided, and, where
//! it goes without a sidecar, the words of the warning.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::registry::Registry;
use sidecar_engine::{ChangeKind, Decision, DefinitionReviewed, Reviewed};
use tracing::{Level, enabled, info, warn};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{LevelFilter, ParseError};

use crate::arguments::{DEFAULT_LOG_LEVEL, LogFormat};
use crate::failure::Failure;

/// Lines that wait to be written; more are dropped and counted. A pipe that nobody reads must not stop the server.
const WAITING_LINES: usize = 4096;

/// Names in Kubernetes have 253 characters at most; whoever sends longer ones must not fill the log.
pub(super) const NAME_LENGTH: usize = 253;

/// At most so many characters of messages in one line. They have values of the pod's owner in them, which may be long.
const MESSAGES_LENGTH: usize = 400;

/// Beyond so many bytes a list in a line goes no further: thousands of lines may wait.
const LISTS_LENGTH: usize = 1000;

/// The client's own word on every answer that is an error, and on every watch that fails, which we say once and with what it means.
const SILENCED: &str = "kube_client::client::builder=off,kube_runtime::watcher=off";

/// Writes what is waiting when it is dropped, and knows how many lines were lost.
pub(crate) struct Log {
    _writer: WorkerGuard,
    dropped: ErrorCounter,
}

/// Sends the log to standard error, for people on a terminal and as JSON elsewhere, without waiting for it.
pub(crate) fn start(format: Option<LogFormat>, level: &str) -> Result<Log, Failure> {
    let wrong =
        |problem: &str| Failure::Usage(format!("--log-level {level:?}: {problem}; try info or debug"));
    // A single word that is no level would be taken for the name of a module, and nothing be logged at all.
    let is_word = !level.is_empty() && level.chars().all(|c| c.is_ascii_alphanumeric());
    if is_word && level.parse::<LevelFilter>().is_err() {
        return Err(wrong("the levels are off, error, warn, info, debug and trace"));
    }
    let filter = filter(level).map_err(|error| wrong(&error.to_string()))?;
    let is_terminal = std::io::stderr().is_terminal();
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(WAITING_LINES)
        .lossy(true)
        .finish(std::io::stderr());
    let log = Log { _writer: guard, dropped: writer.error_counter() };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_target(false);
    let result = match format.unwrap_or(if is_terminal { LogFormat::Text } else { LogFormat::Json }) {
        LogFormat::Json => {
            builder.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init()
        }
        LogFormat::Text => {
            builder.with_ansi(is_terminal && std::env::var_os("NO_COLOR").is_none()).try_init()
        }
    };
    result.map_err(Failure::internal)?;
    Ok(log)
}

fn filter(level: &str) -> Result<EnvFilter, ParseError> {
    // A variable that is set to nothing is as good as none.
    let level = if level.is_empty() { DEFAULT_LOG_LEVEL } else { level };
    // Who asks for everything, or for what the client says, hears it.
    let wants_it = |part: &str| {
        let is_debug = part.parse::<LevelFilter>().is_ok_and(|level| level >= LevelFilter::DEBUG);
        is_debug || part.starts_with("kube")
    };
    if level.split(',').any(wants_it) {
        return EnvFilter::try_new(level);
    }
    EnvFilter::try_new(format!("{SILENCED},{level}"))
}

/// The lines that were lost, as a metric.
#[derive(Debug)]
struct Dropped(ErrorCounter);

impl Collector for Dropped {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let help = "Lines of the log that nobody read in time";
        let metric = encoder.encode_descriptor("log_lines_dropped", help, None, MetricType::Counter)?;
        ConstCounter::new(u64::try_from(self.0.dropped_lines()).unwrap_or(u64::MAX)).encode(metric)
    }
}

impl Log {
    /// Has the lines that were lost among the metrics.
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(Dropped(self.dropped.clone())));
    }

    /// Says now and then how many lines were dropped, as long as it is polled.
    pub(crate) async fn watch(&self) {
        let mut said = 0;
        loop {
            tokio::time::sleep(Duration::from_secs(10)).await;
            let dropped = self.dropped.dropped_lines();
            if dropped > said {
                warn!(
                    event = "log_lines_dropped",
                    lines = dropped - said,
                    "standard error is not read fast enough"
                );
                said = dropped;
            }
        }
    }
}

/// One line about an answered review.
pub(crate) fn review(reviewed: &Reviewed<'_>, took: Duration) {
    if !enabled!(Level::INFO) {
        return;
    }
    // Side by side.
    let definitions = list(reviewed.decisions.iter().map(|decision| &*decision.definition));
    let mut reasons = list(reviewed.decisions.iter().map(|decision| decision.reason.code()));
    // How many, and not which: a path has names of the pod's in it.
    let changes = |kind| {
        let changes = reviewed.decisions.iter().flat_map(|decision| &decision.changes);
        let count = changes.filter(|change| change.kind == kind).count();
        // Seldom there, and absent otherwise.
        (count > 0).then_some(count)
    };
    if let Some(reason) = reviewed.skipped {
        reasons.push_str(reason.code());
    }
    let decision = match reviewed {
        Reviewed { denied: true, .. } => "denied",
        Reviewed { operations: 1.., skipped: None, .. } => "injected",
        _ => "unchanged",
    };
    let owner = reviewed.owner.as_ref().map(|owner| format!("{}/{}", owner.kind, owner.name));
    info!(
        event = "review",
        uid = short(&reviewed.uid),
        namespace = short(&reviewed.namespace),
        pod = short(&reviewed.name),
        owner = owner.as_deref().map(short),
        decision,
        definitions,
        reasons,
        // Warnings reach whoever makes a pod, which mostly is a controller that shows them to nobody.
        messages = messages(&reviewed.decisions),
        operations = reviewed.operations,
        replaced = changes(ChangeKind::Replaced),
        kept = changes(ChangeKind::Kept),
        dry_run = reviewed.dry_run,
        microseconds = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
    );
}

/// Several in one field, so that a line stays flat.
fn list<'i>(items: impl Iterator<Item = &'i str>) -> String {
    let mut list = String::new();
    for item in items {
        if list.len() > LISTS_LENGTH {
            list.push_str(",…");
            break;
        }
        let comma = if list.is_empty() { "" } else { "," };
        let _ = write!(list, "{comma}{item}");
    }
    list
}

/// What the warnings say, of the sidecars that the pod was meant to have and goes without.
pub(super) fn messages(decisions: &[Decision<'_>]) -> Option<String> {
    let mut messages = String::new();
    // A pod may miss a thousand sidecars; what would be cut off need not be written first.
    for decision in decisions.iter().filter(|decision| decision.is_missed()) {
        if messages.chars().count() > MESSAGES_LENGTH {
            break;
        }
        let separator = if messages.is_empty() { "" } else { "; " };
        let _ = write!(messages, "{separator}{decision}");
    }
    (!messages.is_empty()).then(|| printable(&messages))
}

/// One line of text that is not too long, whatever was in it.
pub(crate) fn printable(text: &str) -> String {
    let mut characters = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut line: String = characters.by_ref().take(MESSAGES_LENGTH).collect();
    if characters.next().is_some() {
        line.pop();
        line.push('…');
    }
    line
}

/// One line about the review of a definition.
pub(crate) fn definition_review(reviewed: &DefinitionReviewed<'_>) {
    info!(
        event = "definition_review",
        uid = short(&reviewed.uid),
        kind = short(&reviewed.kind),
        namespace = short(&reviewed.namespace),
        name = short(&reviewed.name),
        decision = if reviewed.problems.is_empty() { "allowed" } else { "denied" },
        problems = list(reviewed.problems.iter().map(|problem| problem.code.code())),
    );
}

/// A name of the review's, which may be anything.
pub(crate) fn short(name: &str) -> &str {
    name.char_indices().nth(NAME_LENGTH).and_then(|(end, _)| name.get(..end)).unwrap_or(name)
}

/// One line about a body that was no review; its text may hold anything and stays out.
pub(crate) fn refused_review(code: &'static str, bytes: usize) {
    warn!(event = "review_refused", code, bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_client_says_of_errors_is_logged_for_those_who_name_it() {
        for (level, expected) in [
            ("info", false),
            ("", false),
            ("info,hyper=debug", false),
            ("debug", true),
            ("hyper=info,debug", true),
            ("info,kube=debug", true),
            ("info,kube_client=debug", true),
        ] {
            let subscriber = tracing_subscriber::fmt().with_env_filter(filter(level).unwrap()).finish();
            tracing::subscriber::with_default(subscriber, || {
                let is_heard = enabled!(target: "kube_client::client::builder", Level::ERROR);
                assert_eq!(is_heard, expected, "{level}");
                assert_eq!(enabled!(target: "kube_runtime::watcher", Level::WARN), expected, "{level}");
                assert!(enabled!(target: "kube_client::client", Level::INFO), "{level}");
            });
        }
    }
}
