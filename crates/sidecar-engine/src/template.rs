//! YAML with expressions in it, to be filled in for one pod.
//!
//! Values are filled in after parsing, so no value can change the structure. What has no expression is kept as it is
//! and shared with every pod that gets it.

use std::borrow::Cow;

use crate::definition::{FieldPath, Problem, ProblemCode};
use crate::expression::{Bindings, Budget, ExpressionProblem, Scope, Text};
use crate::json::Json;
use crate::shape::{Misfit, Slot};

/// A value of a definition, compiled.
#[derive(Debug)]
pub(crate) enum Template {
    /// The same for every pod.
    Static(Json<'static>),
    /// A string with expressions.
    Text(Box<Expressions>),
    List(Vec<Template>),
    Object(Vec<(String, Template)>),
    /// An object of which Kubernetes wants one field of several, and an expression may leave some out.
    Choice(Box<Choice>),
}

/// A string with expressions, and the field that takes its value.
#[derive(Debug)]
pub(crate) struct Expressions {
    path: FieldPath,
    slot: Slot,
    text: Text,
}

/// Alternatives, of which it is known only for a pod which are there.
#[derive(Debug)]
pub(crate) struct Choice {
    path: FieldPath,
    slot: Slot,
    fields: Template,
}

/// An expression that gave no value, or none that its field can have.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) path: String,
    pub(crate) message: String,
}

impl Template {
    /// Compiles a value and everything below it; problems are added to the list. `slot` is its place in the pod.
    pub(crate) fn compile(
        json: Json<'static>,
        path: &FieldPath,
        slot: Slot,
        scope: &Scope<'_>,
        problems: &mut Vec<Problem>,
    ) -> Self {
        match json {
            Json::Text(text) if text.contains("${") => match Text::compile(&text, scope) {
                Ok(Text::Literal(text)) => Template::Static(Json::text_from(text)),
                Ok(text) => {
                    let expressions = Expressions { path: path.clone(), slot, text };
                    if let Err(problem) = expressions.attempt(scope) {
                        problems.push(problem);
                    }
                    Template::Text(Box::new(expressions))
                }
                Err(found) => {
                    problems.extend(found.into_iter().map(|problem| invalid(path, problem)));
                    Template::Static(Json::Null)
                }
            },
            Json::List(items) => {
                let compile = |(index, item)| {
                    Template::compile(item, &path.item(index), slot.item(), scope, &mut *problems)
                };
                let items: Vec<_> = items.into_iter().enumerate().map(compile).collect();
                if items.iter().all(Template::is_static) {
                    Template::Static(Json::List(items.into_iter().map(Template::into_static).collect()))
                } else {
                    Template::List(items)
                }
            }
            Json::Object(fields) => {
                let mut compile = |(key, value): (Cow<'static, str>, Json<'static>)| {
                    let path = path.field(&key);
                    if key.contains("${") {
                        problems.push(Problem::new(
                            ProblemCode::InvalidExpression,
                            path.clone(),
                            "an expression cannot stand in a key",
                        ));
                    }
                    let slot = slot.field(&key);
                    (key.into_owned(), Template::compile(value, &path, slot, scope, problems))
                };
                let fields: Vec<_> = fields.into_iter().map(&mut compile).collect();
                if fields.iter().all(|(_, value)| value.is_static()) {
                    let fields = fields.into_iter().map(|(key, value)| (key.into(), value.into_static()));
                    Template::Static(Json::Object(fields.collect()))
                } else if slot.has_alternatives() {
                    let fields = Template::Object(fields);
                    Template::Choice(Box::new(Choice { path: path.clone(), slot, fields }))
                } else {
                    Template::Object(fields)
                }
            }
            other => Template::Static(other),
        }
    }

    /// How many values it has, for what merging it costs.
    pub(crate) fn size(&self) -> usize {
        match self {
            Template::Static(json) => json.size(),
            Template::Text(_) => 1,
            Template::List(items) => 1 + items.iter().map(Template::size).sum::<usize>(),
            Template::Object(fields) => 1 + fields.iter().map(|(_, field)| field.size()).sum::<usize>(),
            Template::Choice(choice) => choice.fields.size(),
        }
    }

    fn is_static(&self) -> bool {
        matches!(self, Template::Static(_))
    }

    fn into_static(self) -> Json<'static> {
        match self {
            Template::Static(json) => json,
            _ => Json::Null,
        }
    }

    /// The value for one pod. An expression that gives `null` leaves its field or item out.
    pub(crate) fn render<'e>(&'e self, bindings: &Bindings<'_>) -> Result<Json<'e>, Failed> {
        Ok(match self {
            Template::Static(json) => json.share(),
            Template::Text(expressions) => expressions.evaluate(bindings)?,
            Template::Choice(choice) => {
                let json = choice.fields.render(bindings)?;
                match choice.slot.alternatives(&json) {
                    Some(message) => return Err(Failed { path: choice.path.to_string(), message }),
                    None => json,
                }
            }
            Template::List(items) => {
                let mut rendered = Vec::with_capacity(items.len());
                for item in items {
                    let value = item.render(bindings)?;
                    if !value.is_null() {
                        rendered.push(value);
                    }
                }
                Json::List(rendered)
            }
            Template::Object(fields) => {
                let mut rendered = Vec::with_capacity(fields.len());
                for (key, field) in fields {
                    let value = field.render(bindings)?;
                    if !value.is_null() {
                        rendered.push((Cow::Borrowed(key.as_str()), value));
                    }
                }
                Json::Object(rendered)
            }
        })
    }
}

impl Expressions {
    fn evaluate(&self, bindings: &Bindings<'_>) -> Result<Json<'static>, Failed> {
        let failed = |below: &str, message| Failed { path: format!("{}{below}", self.path), message };
        let value = self.text.evaluate(bindings).map_err(|message| failed("", message))?;
        self.slot.fit(value).map_err(|Misfit { below, problem }| failed(&below, problem))
    }

    /// Tries what needs no pod with the parameters' defaults: what fails with them fails for nearly every pod.
    fn attempt(&self, scope: &Scope<'_>) -> Result<(), Problem> {
        if !self.text.is_settled() {
            return Ok(());
        }
        let budget = Budget::default();
        let bindings = Bindings::settled(scope, &budget);
        let attempt = self.evaluate(&bindings);
        attempt.map(drop).map_err(|Failed { path, message }| {
            // The place in the value is nowhere in the text.
            let below = path.strip_prefix(&self.path.to_string()).unwrap_or_default().to_owned();
            let below = if below.is_empty() { below } else { format!("{below}: ") };
            let with = if scope.has_parameters() { "with the parameters' defaults: " } else { "" };
            invalid(&self.path, ExpressionProblem::new(format!("{with}{below}{message}")))
        })
    }
}

pub(crate) fn invalid(path: &FieldPath, problem: ExpressionProblem) -> Problem {
    let mut invalid = Problem::new(ProblemCode::InvalidExpression, path.clone(), problem.message);
    invalid.suggestion = problem.suggestion;
    invalid
}
