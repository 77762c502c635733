//! Selectors that cannot do what they say.

use std::collections::BTreeSet;

use super::{At, Report};
use crate::definition::ProblemCode;

pub(super) fn check(selector: &At<'_>, is_namespaced: bool, report: &mut Report<'_>) {
    if let Some(namespaces) = selector.field("namespaceSelector") {
        if is_namespaced {
            let message = "a SidecarDefinition is for its own namespace, it cannot select others";
            report.add(ProblemCode::NotAllowed, &namespaces.path, message);
        }
        check_labels(&namespaces, report);
    }
    if let Some(pods) = selector.field("podSelector") {
        if selector.field("byName").and_then(|by_name| by_name.text()) == Some("Only") {
            let message = "pods are selected by name only, so nothing is selected by label";
            report.add(ProblemCode::NotAllowed, &pods.path, message);
        }
        check_labels(&pods, report);
    }
    report.unique_field("match condition", &selector.items("matchConditions"), "name");
}

fn check_labels(selector: &At<'_>, report: &mut Report<'_>) {
    let wanted = selector.entries("matchLabels");
    for (key, value) in &wanted {
        report.label_pair(key, value);
    }
    let mut settled: Vec<(&str, Values<'_>)> =
        wanted.iter().filter_map(|(key, value)| Some((*key, Values::one(value.text()?)))).collect();
    for requirement in selector.items("matchExpressions") {
        let Some(key) = requirement.field("key") else { continue };
        let operator = requirement.field("operator");
        let (Some(name), Some(operator)) = (key.text(), operator.and_then(|operator| operator.text())) else {
            continue;
        };
        report.label_key(name, &key.path);
        let listed = requirement.items("values");
        for value in &listed {
            report.label_value(value);
        }
        // What is no text is somebody else's finding.
        let Some(values) = listed.iter().map(At::text).collect::<Option<BTreeSet<_>>>() else { continue };
        let needs_values = matches!(operator, "In" | "NotIn");
        let path = requirement.path.field("values");
        if needs_values && values.is_empty() {
            let message = format!("{operator} needs values, without any Kubernetes refuses the selector");
            let code = if operator == "In" { ProblemCode::NeverMatches } else { ProblemCode::MissingField };
            report.add(code, &path, message);
            continue;
        }
        // Another operator is refused by its name.
        if matches!(operator, "Exists" | "DoesNotExist") && !values.is_empty() {
            report.add(ProblemCode::NotAllowed, &path, format!("{operator} has no values"));
            continue;
        }
        let Some(of_operator) = Values::of(operator, values) else { continue };
        let before = settled.iter_mut().find(|(known, _)| *known == name);
        let Some((_, before)) = before else {
            settled.push((name, of_operator));
            continue;
        };
        if let Some(both) = before.and(&of_operator) {
            *before = both;
        } else {
            // What was required before stays, so that each contradiction is reported once.
            let message = format!("no label {name:?} can meet this and what is required before");
            report.add(ProblemCode::NeverMatches, &requirement.path, message);
        }
    }
}

/// What a label can still be.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Values<'v> {
    OneOf(BTreeSet<&'v str>),
    /// Any other, or absent.
    NoneOf(BTreeSet<&'v str>),
    /// There, and none of these.
    PresentNoneOf(BTreeSet<&'v str>),
    Absent,
}

impl<'v> Values<'v> {
    fn one(value: &'v str) -> Self {
        Values::OneOf(BTreeSet::from([value]))
    }

    /// `None` for an operator that is none.
    fn of(operator: &str, values: BTreeSet<&'v str>) -> Option<Self> {
        Some(match operator {
            "In" => Values::OneOf(values),
            "NotIn" => Values::NoneOf(values),
            "Exists" => Values::PresentNoneOf(BTreeSet::new()),
            "DoesNotExist" => Values::Absent,
            _ => return None,
        })
    }

    /// What is left when both must hold; `None` for nothing.
    fn and(&self, other: &Self) -> Option<Self> {
        use Values::{Absent, NoneOf, OneOf, PresentNoneOf};
        Some(match (self, other) {
            (OneOf(one), OneOf(other)) => {
                let both: BTreeSet<_> = one & other;
                return (!both.is_empty()).then_some(OneOf(both));
            }
            (OneOf(some), NoneOf(without) | PresentNoneOf(without))
            | (NoneOf(without) | PresentNoneOf(without), OneOf(some)) => {
                let rest: BTreeSet<_> = some - without;
                return (!rest.is_empty()).then_some(OneOf(rest));
            }
            (Absent, OneOf(_) | PresentNoneOf(_)) | (OneOf(_) | PresentNoneOf(_), Absent) => return None,
            (Absent, _) | (_, Absent) => Absent,
            (NoneOf(one), NoneOf(other)) => NoneOf(one | other),
            (NoneOf(one) | PresentNoneOf(one), NoneOf(other) | PresentNoneOf(other)) => {
                PresentNoneOf(one | other)
            }
        })
    }
}
