//! stub
use crate::json::Json;
pub(crate) struct Scope<'s> {
    pub(crate) parameters: &'s [&'s str],
    pub(crate) container: bool,
}
#[derive(Debug)]
pub(crate) struct Expression;
#[derive(Debug)]
pub(crate) struct ExpressionProblem {
    pub(crate) message: String,
    pub(crate) offset: Option<usize>,
    pub(crate) suggestion: Option<String>,
}
#[derive(Clone, Copy)]
pub(crate) struct Bindings<'a> {
    pub(crate) pod: &'a Json<'a>,
    pub(crate) namespace: &'a Json<'a>,
    pub(crate) params: &'a Json<'a>,
    pub(crate) container: Option<&'a Json<'a>>,
}
impl Expression {
    pub(crate) fn compile(_source: &str, _scope: &Scope<'_>) -> Result<Self, Vec<ExpressionProblem>> {
        Ok(Expression)
    }
    pub(crate) fn evaluate_bool(&self, _bindings: &Bindings<'_>) -> Result<bool, String> {
        Ok(true)
    }
}
#[derive(Debug)]
pub(crate) enum Text {
    Literal(String),
    Whole(Expression),
}
impl Text {
    pub(crate) fn compile(text: &str, _scope: &Scope<'_>) -> Result<Text, Vec<ExpressionProblem>> {
        Ok(Text::Literal(text.to_owned()))
    }
    pub(crate) fn evaluate(&self, _bindings: &Bindings<'_>) -> Result<Json<'static>, String> {
        match self {
            Text::Literal(t) => Ok(Json::text_from(t.clone())),
            Text::Whole(_) => Ok(Json::Null),
        }
    }
}
