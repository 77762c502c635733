//! Parameters whose limits make no sense. Whether the default is within them is the compiler's to say.

use super::{At, Report};
use crate::definition::{ParameterType, ProblemCode};
use crate::names;
use crate::parameter;
use crate::quantity::Quantity;

pub(super) fn check(parameters: &[At<'_>], report: &mut Report<'_>) {
    report.unique_field("parameter", parameters, "name");
    for parameter in parameters {
        if let Some(name) = parameter.field("name")
            && let Some(text) = name.text().filter(|text| !names::is_parameter(text))
        {
            let suggestion = text.replace(['-', '.', ' '], "_");
            let suggestion = names::is_parameter(&suggestion).then_some(suggestion);
            let message =
                format!("{text:?} cannot be a parameter's name: letters, digits and '_', a letter first");
            report.suggest(ProblemCode::InvalidName, &name.path, message, suggestion);
        }
        let kind = parameter.field("type");
        let kind = kind.map_or(Some(ParameterType::String), |kind| ParameterType::named(kind.text()?));
        if let Some(kind) = kind {
            check_limits(parameter, kind, report);
        }
    }
}

fn check_limits(parameter: &At<'_>, kind: ParameterType, report: &mut Report<'_>) {
    // Of the other types the compiler reads the text, to a string every text is right.
    if let Some(default) = parameter.field("default").filter(|_| kind == ParameterType::String) {
        typed(&default, kind, report);
    }
    let allowed = parameter.items("allowed");
    for value in &allowed {
        typed(value, kind, report);
    }
    if let Some(list) =
        parameter.field("allowed").filter(|list| list.json.items().is_some_and(<[_]>::is_empty))
    {
        report.add(ProblemCode::InvalidValue, &list.path, "no value is allowed; leave it out to allow all");
    }
    let texts: Vec<_> = allowed.iter().map(|value| (parameter::plain(value.json), &value.path)).collect();
    report.unique("value", texts);
    if let Some(pattern) = parameter.field("pattern").filter(|_| kind != ParameterType::String) {
        report.add(
            ProblemCode::NotAllowed,
            &pattern.path,
            format!("a pattern is for strings, not for {}", kind.plural()),
        );
    }
    let mut bounds = Vec::new();
    for name in ["minimum", "maximum"] {
        let Some(bound) = parameter.field(name) else { continue };
        if matches!(kind, ParameterType::String | ParameterType::Boolean) {
            let message =
                format!("a {name} is for integers, numbers and quantities, not for {}", kind.plural());
            report.add(ProblemCode::NotAllowed, &bound.path, message);
        } else if typed(&bound, kind, report) {
            bounds.extend(Quantity::parse(&parameter::plain(bound.json)).map(|value| (value, bound)));
        }
    }
    if let [(least, _), (greatest, bound)] = bounds.as_slice()
        && least > greatest
    {
        report.add(ProblemCode::InvalidValue, &bound.path, "is less than the minimum");
    }
}

/// Whether a value is of the type; otherwise that is a problem. YAML makes `true` of `yes` and `1.1` of `1.10`, so a
/// string must be one there already.
fn typed(value: &At<'_>, kind: ParameterType, report: &mut Report<'_>) -> bool {
    let text = parameter::plain(value.json);
    let is_scalar = value.json.fields().is_none() && value.json.items().is_none();
    if is_scalar && kind == ParameterType::String && value.text().is_none() {
        let message = "must be in quotes to be a string".to_owned();
        report.suggest(ProblemCode::WrongType, &value.path, message, Some(text));
        return false;
    }
    if !is_scalar || !kind.has(&text) {
        report.add(ProblemCode::WrongType, &value.path, format!("{text:?} is no {}", kind.described()));
        return false;
    }
    true
}
