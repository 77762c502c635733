//! How the commands that run once say what was decided.

use std::borrow::Cow;

use sidecar_engine::{Change, ChangeKind, Decision, Reason};

/// A reason and what in particular. `options` are those that would make the labels of the namespace known.
pub(crate) fn why(decision: &Decision<'_>, namespace: &str, options: &str) -> String {
    let detail = match (&decision.detail, decision.reason) {
        // The webhook's namespaces become known in a moment; a command has to be told.
        (_, Reason::NamespaceUnknown) => Cow::Owned(format!(
            "the labels of the namespace {namespace:?} are not known: give the Namespace with {options}"
        )),
        (Some(detail), _) => Cow::Borrowed(&**detail),
        (None, reason) => Cow::Borrowed(reason.explanation()),
    };
    format!("{}: {detail}", decision.reason)
}

/// What happened to something that the pod had of its own; what was added the output shows.
pub(crate) fn conflicts<'d>(decision: &'d Decision<'_>) -> impl Iterator<Item = &'d Change> {
    decision.changes.iter().filter(|change| change.kind != ChangeKind::Added)
}
