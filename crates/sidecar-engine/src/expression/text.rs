//! Strings with expressions in them: `${...}`, where `$${` is a literal `${` and Kubernetes' own `$(VAR)` is left alone.

use super::{Bindings, Expression, ExpressionProblem, Scope};
use crate::json::Json;

/// A string of a definition.
#[derive(Debug)]
pub(crate) enum Text {
    /// No expression.
    Literal(String),
    /// Nothing but one expression, whose type the field takes.
    Whole(Expression),
    /// Expressions between other text.
    Mixed(Vec<Part>),
}

/// A part of a mixed text.
#[derive(Debug)]
pub(crate) enum Part {
    Literal(String),
    Expression(Expression),
}

impl Text {
    pub(crate) fn compile(text: &str, scope: &Scope<'_>) -> Result<Text, Vec<ExpressionProblem>> {
        let mut parts = Vec::new();
        let mut problems = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            if let Some(before) = before.strip_suffix('$') {
                literal.push_str(before);
                literal.push_str("${");
                rest = after;
                continue;
            }
            literal.push_str(before);
            let Some((source, after)) = split_expression(after) else {
                problems.push(ExpressionProblem::new(
                    "an expression ${ is not closed; a literal ${ is written $${",
                ));
                return Err(problems);
            };
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal)));
            }
            match Expression::compile(source, scope) {
                Ok(expression) => parts.push(Part::Expression(expression)),
                Err(found) => problems.extend(found),
            }
            rest = after;
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        literal.push_str(rest);
        if parts.is_empty() {
            return Ok(Text::Literal(literal));
        }
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        match parts.pop() {
            Some(Part::Expression(expression)) if parts.is_empty() => Ok(Text::Whole(expression)),
            last => {
                parts.extend(last);
                Ok(Text::Mixed(parts))
            }
        }
    }

    /// Whether the parameters' defaults are all that it takes to evaluate it.
    pub(crate) fn is_settled(&self) -> bool {
        match self {
            Text::Literal(_) => true,
            Text::Whole(expression) => expression.is_settled,
            Text::Mixed(parts) => parts.iter().all(|part| match part {
                Part::Literal(_) => true,
                Part::Expression(expression) => expression.is_settled,
            }),
        }
    }

    pub(crate) fn evaluate(&self, bindings: &Bindings<'_>) -> Result<Json<'static>, String> {
        match self {
            Text::Literal(text) => Ok(Json::text_from(text.clone())),
            Text::Whole(expression) => expression.evaluate(bindings),
            Text::Mixed(parts) => {
                let mut text = String::new();
                for part in parts {
                    match part {
                        Part::Literal(literal) => text.push_str(literal),
                        Part::Expression(expression) => match expression.evaluate(bindings)? {
                            Json::Text(value) => text.push_str(&value),
                            value @ (Json::Bool(_) | Json::Number(_)) => text.push_str(&value.to_string()),
                            _ => {
                                let source = expression.source.trim();
                                return Err(format!(
                                    "${{{source}}} gives no text that could stand in other text"
                                ));
                            }
                        },
                    }
                }
                Ok(Json::text_from(text))
            }
        }
    }
}

/// The source up to the brace that closes the expression, and what follows. Braces in CEL's strings and maps do not.
fn split_expression(text: &str) -> Option<(&str, &str)> {
    let mut depth = 0_usize;
    let mut rest = text;
    loop {
        let at = text.len() - rest.len();
        let character = rest.chars().next()?;
        rest = rest.get(character.len_utf8()..)?;
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => return Some((text.get(..at)?, rest)),
            '}' => depth -= 1,
            '"' | '\'' => {
                let is_raw = text.get(..at)?.ends_with(['r', 'R']);
                rest = text.get(at + string_length(text.get(at..)?, is_raw)?..)?;
            }
            _ => {}
        }
    }
}

/// The source with another word where `namespace` is a name, of the same length, so that places stay what they are.
/// CEL reserves the word and has no use for it.
pub(super) fn without_reserved_word(source: &str) -> String {
    let mut written = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(character) = rest.chars().next() {
        let word = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let length = if word > 0 {
            word
        } else if matches!(character, '"' | '\'') {
            string_length(rest, written.ends_with(['r', 'R'])).unwrap_or(rest.len())
        } else {
            character.len_utf8()
        };
        let (token, after) = rest.split_at_checked(length).unwrap_or((rest, ""));
        let before = written.trim_end();
        let is_field = before.ends_with('.')
            || before.strip_suffix('?').is_some_and(|rest| rest.trim_end().ends_with('.'));
        let is_name = token == RESERVED && !is_field;
        written.push_str(if is_name { INSTEAD } else { token });
        rest = after;
    }
    written
}

/// The word, and what stands for it.
const RESERVED: &str = "namespace";
pub(super) const INSTEAD: &str = "namespac_";

/// The length of the string that the text begins with, quotes included.
fn string_length(text: &str, is_raw: bool) -> Option<usize> {
    let quote = text.get(..1)?;
    let triple = quote.repeat(3);
    let (quote, body) = match text.strip_prefix(&triple) {
        Some(body) => (triple.as_str(), body),
        None => (quote, text.get(1..)?),
    };
    after_string(body, quote, is_raw).map(|after| text.len() - after.len())
}

/// What follows a string whose opening quote has been read.
fn after_string<'t>(mut body: &'t str, quote: &str, is_raw: bool) -> Option<&'t str> {
    loop {
        if let Some(after) = body.strip_prefix(quote) {
            return Some(after);
        }
        let mut characters = body.chars();
        if characters.next()? == '\\' && !is_raw {
            characters.next()?;
        }
        body = characters.as_str();
    }
}

#[cfg(test)]
mod tests {
    use super::super::Budget;
    use super::*;

    fn evaluate(text: &str) -> Result<String, String> {
        let params = Json::parse(r#"{"level":"debug","port":80,"none":null}"#).unwrap();
        let empty = Json::Object(Vec::new());
        let scope = Scope { parameters: &params, container: false };
        let budget = Budget::default();
        let bindings =
            Bindings { pod: &empty, namespace: &empty, params: &params, container: None, budget: &budget };
        Text::compile(text, &scope)
            .map_err(|problems| {
                problems.into_iter().map(|problem| problem.message).collect::<Vec<_>>().join("; ")
            })?
            .evaluate(&bindings)
            .map(|json| json.to_string())
    }

    #[test]
    fn one_whole_expression_keeps_its_type_and_others_become_text() {
        for (text, expected) in [
            ("plain", r#""plain""#),
            ("$(VAR) $ { $", r#""$(VAR) $ { $""#),
            ("$${x}", r#""${x}""#),
            ("a$${b}${params.level}", r#""a${b}debug""#),
            ("${params.port}", "80"),
            ("${ params.port }", "80"),
            ("${params.port + 1}", "81"),
            (":${params.port}", r#"":80""#),
            ("${params.level}-${params.port}", r#""debug-80""#),
            ("${true}", "true"),
            ("x${true}", r#""xtrue""#),
            ("${[1, 'a']}", r#"[1,"a"]"#),
            ("${{'a': 1, 'b': {'c': '}'}}}", r#"{"a":1,"b":{"c":"}"}}"#),
            (r#"${"}" + '}' + "\"}"}"#, r#""}}\"}""#),
            (r"${r'\}' + '''}'}'''}", r#""\\}}'}""#),
            ("${null}", "null"),
            ("${1.5}", "1.5"),
            ("${2.0}", "2"),
        ] {
            assert_eq!(evaluate(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, problem) in [
            ("${params.port", "is not closed"),
            ("${'a}", "is not closed"),
            ("${}", "is not CEL"),
            ("${1 +}", "is not CEL"),
            ("a${[1]}", "${[1]} gives no text"),
            ("a${null}", "${null} gives no text"),
            ("${params.lvel}", "there is no parameter \"lvel\""),
        ] {
            let found = evaluate(text).unwrap_err();
            assert!(found.contains(problem), "{text}: {found}");
        }
    }
}
