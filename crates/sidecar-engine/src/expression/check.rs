//! What can be known of an expression before any pod: names, functions, numbers of arguments, and that it is not too deep.

use cel::IdedExpr;
use cel::common::ast::{CallExpr, EntryExpr, Expr, LiteralValue};

use super::library::{FUNCTIONS, Form};
use super::text::INSTEAD;
use super::{ExpressionProblem, Scope};
use crate::shape::Slot;
use crate::suggestion::nearest;

/// Deeper ones would need more stack than a thread of the server has to give.
const DEPTH: usize = 64;

/// What a namespace has.
const NAMESPACE_FIELDS: [&str; 3] = ["name", "labels", "annotations"];

/// The names of types, for `type(x) == string`.
const TYPES: [&str; 10] =
    ["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint"];

/// Brackets and signs nest in the parser too, before there is a tree to look at.
pub(super) fn nesting(source: &str) -> Result<(), Vec<ExpressionProblem>> {
    let (mut depth, mut run) = (0_usize, 0_usize);
    for character in source.chars() {
        match character {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        run = if matches!(character, '!' | '-' | '?') { run + 1 } else { 0 };
        if depth > DEPTH || run > DEPTH {
            return Err(vec![too_deep()]);
        }
    }
    Ok(())
}

fn too_deep() -> ExpressionProblem {
    ExpressionProblem::new(format!("the expression is nested more than {DEPTH} deep"))
}

/// Checks a parsed expression; all problems at once. Whether its value is known without a pod: it names parameters with a
/// default, or nothing at all.
pub(super) fn tree(tree: &IdedExpr, scope: &Scope<'_>) -> Result<bool, Vec<ExpressionProblem>> {
    let mut check = Check {
        scope,
        locals: Vec::new(),
        problems: Vec::new(),
        needs_pod: false,
        parameters: 0,
        defaults: 0,
    };
    if !check.expression(tree, 0) {
        return Err(vec![too_deep()]);
    }
    if check.problems.is_empty() {
        Ok(!check.needs_pod && check.parameters == check.defaults)
    } else {
        Err(check.problems)
    }
}

/// Looks at maps that are written out, also in the branches of a condition.
pub(super) fn literals(
    tree: &IdedExpr,
    slot: Slot,
    below: &str,
    found: &mut Vec<(String, String, Option<String>)>,
) {
    match &tree.expr {
        Expr::Map(map) => {
            for entry in &map.entries {
                let EntryExpr::MapEntry(entry) = &entry.expr else { continue };
                let Expr::Literal(LiteralValue::String(key)) = &entry.key.expr else { continue };
                let key = key.inner();
                if let Some(known) = slot.without_field(key) {
                    let meant = nearest(key, known.iter().map(|field| field.name.as_str()));
                    found.push((below.to_owned(), key.to_owned(), meant.map(str::to_owned)));
                }
                literals(&entry.value, slot.field(key), &format!("{below}.{key}"), found);
            }
        }
        Expr::List(list) => {
            for (index, item) in list.elements.iter().enumerate() {
                literals(item, slot.item(), &format!("{below}[{index}]"), found);
            }
        }
        Expr::Call(call) if call.func_name == "_?_:_" => {
            call.args.iter().skip(1).for_each(|branch| literals(branch, slot, below, found));
        }
        _ => {}
    }
}

struct Check<'s, 't> {
    scope: &'s Scope<'s>,
    /// The variables of the loops around.
    locals: Vec<&'t str>,
    problems: Vec<ExpressionProblem>,
    needs_pod: bool,
    /// How often `params` is named, and how often with the name of one that has a default.
    parameters: usize,
    defaults: usize,
}

impl<'t> Check<'_, 't> {
    /// `false` when it is too deep.
    fn expression(&mut self, tree: &'t IdedExpr, depth: usize) -> bool {
        if depth > DEPTH {
            return false;
        }
        let next = depth + 1;
        match &tree.expr {
            Expr::Literal(_) => true,
            Expr::Ident(name) => {
                self.name(name);
                true
            }
            Expr::Select(select) => {
                self.member(&select.operand, &select.field);
                self.expression(&select.operand, next)
            }
            Expr::Call(call) => self.call(call, next),
            Expr::List(list) => {
                if !list.optional_indices.is_empty() {
                    self.problem("optional items [?x] cannot be used here");
                }
                list.elements.iter().all(|item| self.expression(item, next))
            }
            Expr::Map(map) => map.entries.iter().all(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => {
                    if entry.optional {
                        self.problem("optional entries {?k: v} cannot be used here");
                    }
                    self.expression(&entry.key, next) && self.expression(&entry.value, next)
                }
                EntryExpr::StructField(_) => true,
            }),
            Expr::Comprehension(each) => {
                if !self.expression(&each.iter_range, next) || !self.expression(&each.accu_init, next) {
                    return false;
                }
                let before = self.locals.len();
                self.locals.extend([each.iter_var.as_str(), each.accu_var.as_str()]);
                self.locals.extend(each.iter_var2.as_deref());
                let parts = [&each.loop_cond, &each.loop_step, &each.result];
                let fits = parts.into_iter().all(|part| self.expression(part, next));
                self.locals.truncate(before);
                fits
            }
            Expr::Struct(_) => {
                self.problem("messages NAME{...} cannot be made here, maps {'key': value} can");
                true
            }
            Expr::Unspecified => {
                self.problem("the expression has a part that means nothing");
                true
            }
        }
    }

    fn problem(&mut self, message: impl Into<String>) {
        self.problems.push(ExpressionProblem::new(message));
    }

    fn name(&mut self, name: &str) {
        let name = name.strip_prefix('.').unwrap_or(name);
        if self.locals.contains(&name) || TYPES.contains(&name) {
            return;
        }
        let mut known = vec!["pod", "namespace", "params"];
        if self.scope.container {
            known.push("container");
        }
        if name == "params" {
            self.parameters += 1;
            return;
        }
        if name == INSTEAD || (known.contains(&name) && name != "namespace") {
            self.needs_pod = true;
            return;
        }
        let mut problem = ExpressionProblem::new(if name == "container" {
            "there is no container here, only in patchContainers".to_owned()
        } else {
            format!("there is no {name:?} here, there are {}", known.join(", "))
        });
        problem.suggestion =
            nearest(name, known.into_iter().chain(self.locals.iter().copied())).map(str::to_owned);
        self.problems.push(problem);
    }

    /// `params.NAME`, `namespace.NAME`.
    fn member(&mut self, operand: &IdedExpr, field: &str) {
        let Expr::Ident(name) = &operand.expr else { return };
        let name = name.strip_prefix('.').unwrap_or(name);
        if self.locals.contains(&name) {
            return;
        }
        let (what, known) = match name {
            "params" => ("there is no parameter", self.scope.names()),
            INSTEAD => ("a namespace has no", NAMESPACE_FIELDS.to_vec()),
            _ => return,
        };
        if known.contains(&field) {
            let has_default = name == "params" && self.scope.parameters.get(field).is_some();
            self.defaults += usize::from(has_default);
            return;
        }
        let mut problem = ExpressionProblem::new(format!("{what} {field:?}"));
        problem.suggestion = nearest(field, known).map(str::to_owned);
        self.problems.push(problem);
    }

    fn call(&mut self, call: &'t CallExpr, next: usize) -> bool {
        if let ("_[_]" | "_[?_]" | "_?._", [operand, key]) = (call.func_name.as_str(), call.args.as_slice())
            && let Expr::Literal(LiteralValue::String(key)) = &key.expr
        {
            self.member(operand, key.inner());
        }
        // `optional.of(x)`: the target is no value, but part of the name.
        let is_qualified = call
            .target
            .as_ref()
            .is_some_and(|target| matches!(&target.expr, Expr::Ident(name) if name == "optional"))
            && !self.locals.contains(&"optional");
        self.function(call, is_qualified);
        let target = call.target.as_deref().filter(|_| !is_qualified);
        target.into_iter().chain(&call.args).all(|part| self.expression(part, next))
    }

    fn function(&mut self, call: &CallExpr, is_qualified: bool) {
        let name = call.func_name.as_str();
        // Operators, and what macros expand to.
        if !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
            return;
        }
        let form = match &call.target {
            _ if is_qualified => Form::Optional,
            Some(_) => Form::Method,
            None => Form::Function,
        };
        let of_name: Vec<_> = FUNCTIONS.iter().filter(|function| function.name == name).collect();
        if of_name
            .iter()
            .any(|function| function.form == form && function.arguments.contains(&call.args.len()))
        {
            return;
        }
        if of_name.is_empty() {
            let mut problem = ExpressionProblem::new(format!("there is no function {name:?}"));
            problem.suggestion =
                nearest(name, FUNCTIONS.iter().map(|function| function.name)).map(str::to_owned);
            self.problems.push(problem);
        } else {
            let forms: Vec<_> = of_name.iter().map(|function| function.usage()).collect();
            self.problem(format!("{name:?} is used as {}", forms.join(" or ")));
        }
    }
}
