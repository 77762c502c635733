//! YAML with expressions in it, to be filled in for one pod.
//!
//! Values are filled in after parsing, so no value can change the structure. What has no expression is kept as it is
//! and shared with every pod that gets it.

use std::borrow::Cow;

use crate::definition::{FieldPath, Problem, ProblemCode};
use crate::expression::{Bindings, ExpressionProblem, Scope, Text};
use crate::json::Json;

/// A value of a definition, compiled.
#[derive(Debug)]
pub(crate) enum Template {
    /// The same for every pod.
    Static(Json<'static>),
    /// A string with expressions.
    Text {
        path: FieldPath,
        text: Text,
    },
    List(Vec<Template>),
    Object(Vec<(String, Template)>),
}

/// An expression that gave no value.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) path: String,
    pub(crate) message: String,
}

impl Template {
    /// Compiles a value and everything below it; problems are added to the list.
    pub(crate) fn compile(
        json: Json<'static>,
        path: &FieldPath,
        scope: &Scope<'_>,
        problems: &mut Vec<Problem>,
    ) -> Self {
        match json {
            Json::Text(text) if text.contains("${") => match Text::compile(&text, scope) {
                Ok(Text::Literal(text)) => Template::Static(Json::text_from(text)),
                Ok(text) => Template::Text { path: path.clone(), text },
                Err(found) => {
                    problems.extend(found.into_iter().map(|problem| invalid(path, problem)));
                    Template::Static(Json::Null)
                }
            },
            Json::List(items) => {
                let compile =
                    |(index, item)| Template::compile(item, &path.item(index), scope, &mut *problems);
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
                    (key.into_owned(), Template::compile(value, &path, scope, problems))
                };
                let fields: Vec<_> = fields.into_iter().map(&mut compile).collect();
                if fields.iter().all(|(_, value)| value.is_static()) {
                    let fields = fields.into_iter().map(|(key, value)| (key.into(), value.into_static()));
                    Template::Static(Json::Object(fields.collect()))
                } else {
                    Template::Object(fields)
                }
            }
            other => Template::Static(other),
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
            Template::Text { path, text } => {
                text.evaluate(bindings).map_err(|message| Failed { path: path.to_string(), message })?
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

pub(crate) fn invalid(path: &FieldPath, problem: ExpressionProblem) -> Problem {
    let mut invalid = Problem::new(ProblemCode::InvalidExpression, path.clone(), problem.message);
    invalid.suggestion = problem.suggestion;
    invalid
}
