//! Expressions `${...}`: CEL, compiled when a definition is loaded, over the parts of a pod that they name.
//!
//! The language is the `cel` crate's. What is here is what a server needs around it: names are checked when a
//! definition is loaded, values are the pod's own and not copies of it, and no expression can take long.

mod budget;
mod check;
mod functions;
mod library;
mod quantities;
mod rewrite;
#[cfg(test)]
mod tests;
mod text;
mod urls;
mod value;

pub(crate) use text::Text;

use std::sync::{Arc, OnceLock};

use cel::common::value::CowVal;
use cel::context::VariableResolver;
use cel::{Context, Env, IdedExpr, Value};

use crate::json::Json;
use crate::shape::Slot;
pub(crate) use budget::Budget;
use functions::Pattern;

/// Longer ones are programs, and belong elsewhere.
const SOURCE_LENGTH: usize = 4096;

/// What an expression can name; for checks when it is compiled.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scope<'s> {
    /// The definition's parameters with their defaults; `null` for those that have none.
    pub(crate) parameters: &'s Json<'s>,
    /// Whether there is a `container`.
    pub(crate) container: bool,
}

/// A compiled expression.
#[derive(Debug)]
pub(crate) struct Expression {
    /// As it is written, to tell what its author knows from what a pod says.
    source: String,
    tree: IdedExpr,
    /// The regular expressions that are written out in it.
    patterns: Vec<Pattern>,
    /// Whether the parameters' defaults are all that it takes to evaluate it.
    pub(crate) is_settled: bool,
}

/// What is wrong with an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExpressionProblem {
    /// In one line.
    pub(crate) message: String,
    /// What was probably meant.
    pub(crate) suggestion: Option<String>,
}

/// What the names in an expression stand for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bindings<'a> {
    /// The pod as it was received.
    pub(crate) pod: &'a Json<'a>,
    /// `name`, `labels` and `annotations` of its namespace.
    pub(crate) namespace: &'a Json<'a>,
    /// The values of the definition's parameters.
    pub(crate) params: &'a Json<'a>,
    /// The container that is patched.
    pub(crate) container: Option<&'a Json<'a>>,
    /// What the definition's expressions may cost, all together.
    pub(crate) budget: &'a Budget,
}

impl<'a> Bindings<'a> {
    /// For what needs nothing but the parameters' defaults.
    pub(crate) fn settled(scope: &Scope<'a>, budget: &'a Budget) -> Self {
        Bindings {
            pod: &Json::Null,
            namespace: &Json::Null,
            params: scope.parameters,
            container: None,
            budget,
        }
    }
}

impl<'s> Scope<'s> {
    pub(crate) fn has_parameters(&self) -> bool {
        self.parameters.fields().is_some_and(|parameters| !parameters.is_empty())
    }

    /// The names of the parameters.
    fn names(&self) -> Vec<&'s str> {
        self.parameters.fields().into_iter().flatten().map(|(name, _)| &**name).collect()
    }
}

impl ExpressionProblem {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        ExpressionProblem { message: message.into(), suggestion: None }
    }
}

impl Expression {
    /// Compiles CEL source.
    pub(crate) fn compile(source: &str, scope: &Scope<'_>) -> Result<Self, Vec<ExpressionProblem>> {
        if source.len() > SOURCE_LENGTH {
            let problem =
                format!("an expression has at most {SOURCE_LENGTH} bytes, this one has {}", source.len());
            return Err(vec![ExpressionProblem::new(problem)]);
        }
        check::nesting(source)?;
        let tree = environment().parser().parse(&text::without_reserved_word(source)).map_err(|errors| {
            let problem = |error: &cel::ParseError| {
                let message = error.msg.lines().next().unwrap_or_default();
                let message = message.strip_prefix("Syntax error: ").unwrap_or(message);
                let column = error.pos.1;
                ExpressionProblem::new(format!("{source:?} is not CEL: {message} (at character {column})"))
            };
            // What follows the first is mostly a consequence of it.
            errors.errors.first().map(problem).into_iter().collect::<Vec<_>>()
        })?;
        let is_settled = check::tree(&tree, scope)?;
        let mut rewriter = rewrite::Rewriter::default();
        let tree = rewriter.rewrite(tree)?;
        Ok(Expression { source: source.to_owned(), tree, patterns: rewriter.patterns, is_settled })
    }

    /// The value for one pod; the error is one line for people, and never shows a value of the pod.
    pub(crate) fn evaluate(&self, bindings: &Bindings<'_>) -> Result<Json<'static>, String> {
        let names = Names { bindings, patterns: &self.patterns };
        let mut context = Context::with_env(Arc::clone(environment()));
        context.set_variable_resolver(&names);
        let result = Value::resolve_val(&self.tree, &context)
            .and_then(|value| value::to_json(value.as_ref(), bindings.budget));
        // An error in one branch of a condition can hide that it was the budget that ended the other, and so can a value.
        if bindings.budget.is_spent() {
            return Err(budget::SPENT.to_owned());
        }
        result.map_err(|error| functions::explain(&error, &self.source))
    }

    /// As it is written.
    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    /// As [`Expression::evaluate`], for an expression that must give true or false.
    pub(crate) fn evaluate_bool(&self, bindings: &Bindings<'_>) -> Result<bool, String> {
        match self.evaluate(bindings)? {
            Json::Bool(flag) => Ok(flag),
            _ => Err("gives something else than true or false".to_owned()),
        }
    }
}

/// The fields that a text which is nothing but one expression writes out in maps, and that their place does not have: path
/// below the value, name, and what was probably meant.
pub(crate) fn unknown_fields(text: &str, slot: Slot) -> Vec<(String, String, Option<String>)> {
    let source = text.trim().strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    let Some(source) = source.filter(|source| source.contains('{') && source.len() <= SOURCE_LENGTH) else {
        return Vec::new();
    };
    if check::nesting(source).is_err() {
        return Vec::new();
    }
    let mut found = Vec::new();
    // What is no expression is somebody else's finding.
    if let Ok(tree) = environment().parser().parse(&text::without_reserved_word(source)) {
        check::literals(&tree, slot, "", &mut found);
    }
    found
}

/// Looks names up when they are evaluated: what is not named costs nothing.
struct Names<'n> {
    bindings: &'n Bindings<'n>,
    patterns: &'n [Pattern],
}

impl VariableResolver for Names<'_> {
    fn resolve<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        let budget = self.bindings.budget;
        let json = match name {
            "pod" => self.bindings.pod,
            text::INSTEAD => self.bindings.namespace,
            // A name cannot fail: the spent budget is found by whatever is evaluated next.
            "params" => return value::parameters(self.bindings.params, budget).ok(),
            "container" => self.bindings.container?,
            rewrite::BUDGET => return Some(CowVal::Borrowed(budget)),
            _ => {
                let index: usize = name.strip_prefix(rewrite::PATTERN)?.parse().ok()?;
                return Some(CowVal::Borrowed(self.patterns.get(index)?));
            }
        };
        value::of(json.share(), budget).ok()
    }
}

/// The standard library and what users of admission policies know besides.
fn environment() -> &'static Arc<Env> {
    static ENVIRONMENT: OnceLock<Arc<Env>> = OnceLock::new();
    ENVIRONMENT.get_or_init(|| Arc::new(library::environment()))
}
