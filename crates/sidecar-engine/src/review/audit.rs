//! What the API server writes into its audit log beside the request, under the webhook's name.
//!
//! It keeps one value for a key; a second one is refused, with a complaint in its own log. But it calls twice for most pods, and
//! what is decided may differ: somebody else changed the pod in between, or what was added is there by then. So a key ends in a hash
//! of its value: what is the same in both calls is the same annotation, and what is not is another one.

use std::collections::BTreeMap;

use super::printable;
use crate::decision::{Decision, Reason};
use crate::fingerprint::fingerprint;

/// A pod may get, or miss, a thousand sidecars.
const VALUE_LENGTH: usize = 400;

/// `injected-…`: names of definitions. `missed-…`: the words of the warnings. What changed nothing is not written down.
pub(super) fn annotations(decisions: &[Decision<'_>], denied: bool) -> BTreeMap<String, String> {
    let injected = decisions.iter().filter(|decision| decision.reason == Reason::Injected && !denied);
    let missed = decisions.iter().filter(|decision| decision.is_missed());
    let mut annotations = BTreeMap::new();
    for (topic, value) in [
        ("injected", join(injected.map(|decision| decision.definition.to_string()), ",")),
        ("missed", join(missed.map(ToString::to_string), "; ")),
    ] {
        if let Some(value) = value {
            annotations.insert(format!("{topic}-{:08x}", fingerprint(&value)), value);
        }
    }
    annotations
}

fn join(parts: impl Iterator<Item = String>, separator: &str) -> Option<String> {
    let mut text = String::new();
    for part in parts {
        // What would be cut off need not be written first.
        if text.len() > 4 * VALUE_LENGTH {
            break;
        }
        if !text.is_empty() {
            text.push_str(separator);
        }
        text.push_str(&part);
    }
    (!text.is_empty()).then(|| printable(&text, VALUE_LENGTH))
}
