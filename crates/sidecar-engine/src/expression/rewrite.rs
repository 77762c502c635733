//! Puts the budget into an expression: every loop and every function pays for what it is given.
//!
//! The interpreter knows no limits, but its syntax tree is open: `a + b` becomes `@charge(@budget, a) + …`, and a loop
//! over a list one over `@iterate(@budget, list, nodes in its body)`. Nobody can write these names.

use cel::IdedExpr;
use cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, ListExpr, LiteralValue, MapExpr, operators,
};
use cel::common::types::CelInt;

use super::ExpressionProblem;
use super::functions::{
    CHARGE, CHARGE_ALL, CHARGE_BYTES, CONTAINS, EQUALS, ITERATE, JOIN, MAP, Pattern, REPLACE,
};

/// The name of the budget.
pub(super) const BUDGET: &str = "@budget";
/// The names of regular expressions that are written out, with their number.
pub(super) const PATTERN: &str = "@pattern";

#[derive(Default)]
pub(super) struct Rewriter {
    pub(super) patterns: Vec<Pattern>,
}

impl Rewriter {
    pub(super) fn rewrite(&mut self, tree: IdedExpr) -> Result<IdedExpr, Vec<ExpressionProblem>> {
        let expr = match tree.expr {
            Expr::Select(mut select) => {
                select.operand = Box::new(self.rewrite(*select.operand)?);
                Expr::Select(select)
            }
            Expr::List(list) => Expr::List(ListExpr::new(self.copied(list.elements)?)),
            Expr::Map(map) => self.map(map)?,
            Expr::Call(call) => self.call(call)?,
            Expr::Comprehension(each) => Expr::Comprehension(Box::new(self.each(*each)?)),
            other => other,
        };
        Ok(IdedExpr { id: tree.id, expr })
    }

    fn all(&mut self, trees: Vec<IdedExpr>) -> Result<Vec<IdedExpr>, Vec<ExpressionProblem>> {
        trees.into_iter().map(|tree| self.rewrite(tree)).collect()
    }

    /// What the interpreter copies: items of lists, values of maps, what an optional value holds.
    fn copied(&mut self, trees: Vec<IdedExpr>) -> Result<Vec<IdedExpr>, Vec<ExpressionProblem>> {
        Ok(self.all(trees)?.into_iter().map(|tree| charged(CHARGE, tree)).collect())
    }

    /// Into a map that keeps its order: the library's own hash their keys, and would give another pod every time.
    fn map(&mut self, map: MapExpr) -> Result<Expr, Vec<ExpressionProblem>> {
        if map.entries.is_empty() {
            return Ok(call(MAP, vec![node(Expr::List(ListExpr::new(Vec::new())))]));
        }
        let mut parts = Vec::with_capacity(map.entries.len() * 2);
        for entry in map.entries {
            if let EntryExpr::MapEntry(entry) = entry.expr {
                parts.push(self.rewrite(entry.key)?);
                parts.push(charged(CHARGE, self.rewrite(entry.value)?));
            }
        }
        Ok(call(MAP, vec![node(Expr::List(ListExpr::new(parts)))]))
    }

    fn each(&mut self, each: ComprehensionExpr) -> Result<ComprehensionExpr, Vec<ExpressionProblem>> {
        let nodes = size(&each.loop_step) + size(&each.loop_cond);
        let nodes =
            node(Expr::Literal(LiteralValue::Int(CelInt::from(i64::try_from(nodes).unwrap_or(i64::MAX)))));
        let range = self.rewrite(each.iter_range)?;
        Ok(ComprehensionExpr {
            iter_range: node(call(ITERATE, vec![budget(), range, nodes])),
            accu_init: self.rewrite(each.accu_init)?,
            loop_cond: self.rewrite(each.loop_cond)?,
            loop_step: self.step(each.loop_step, &each.accu_var)?,
            result: self.rewrite(each.result)?,
            ..each
        })
    }

    /// What a loop does with its result: `@result + [x]` and the like keep the form in which the interpreter knows
    /// that it can append instead of copying.
    fn step(&mut self, tree: IdedExpr, result: &str) -> Result<IdedExpr, Vec<ExpressionProblem>> {
        let is_result = |tree: &IdedExpr| matches!(&tree.expr, Expr::Ident(name) if name == result);
        match tree.expr {
            Expr::Call(mut step)
                if step.target.is_none()
                    && step.func_name == operators::CONDITIONAL
                    && step.args.iter().any(is_result) =>
            {
                let mut args = step.args.into_iter();
                step.args = match (args.next(), args.next(), args.next()) {
                    (Some(condition), Some(then), Some(otherwise)) => vec![
                        self.rewrite(condition)?,
                        self.step(then, result)?,
                        self.step(otherwise, result)?,
                    ],
                    _ => Vec::new(),
                };
                Ok(IdedExpr { id: tree.id, expr: Expr::Call(step) })
            }
            Expr::Call(mut step)
                if step.target.is_none()
                    && step.func_name == operators::ADD
                    && step.args.first().is_some_and(is_result) =>
            {
                step.args = self.all(step.args)?;
                Ok(IdedExpr { id: tree.id, expr: Expr::Call(step) })
            }
            expr => self.rewrite(IdedExpr { id: tree.id, expr }),
        }
    }

    fn call(&mut self, of: CallExpr) -> Result<Expr, Vec<ExpressionProblem>> {
        let CallExpr { func_name: name, target, args } = of;
        // `optional.of(x)`: the target is part of a name, not a value.
        let is_qualified = target
            .as_ref()
            .is_some_and(|target| matches!(&target.expr, Expr::Ident(name) if name == "optional"));
        if is_qualified {
            return Ok(Expr::Call(CallExpr { func_name: name, target, args: self.copied(args)? }));
        }
        let is_method = target.is_some();
        let operands: Vec<_> = target.map(|target| *target).into_iter().chain(args).collect();
        let pattern = operands.get(1).and_then(literal);
        let mut operands = self.all(operands)?;
        match name.as_str() {
            operators::EQUALS => return Ok(paid(EQUALS, operands)),
            operators::NOT_EQUALS => {
                return Ok(call(operators::LOGICAL_NOT, vec![node(paid(EQUALS, operands))]));
            }
            operators::IN => return Ok(paid(CONTAINS, operands)),
            "replace" => return Ok(paid(REPLACE, operands)),
            "join" => return Ok(paid(JOIN, operands)),
            "matches" | "find" | "findAll" => {
                if let (Some(pattern), Some(place)) = (pattern, operands.get_mut(1)) {
                    *place = self.pattern(&pattern)?;
                }
                return Ok(paid(&format!("@{name}"), operands));
            }
            operators::CONDITIONAL
            | operators::LOGICAL_AND
            | operators::LOGICAL_OR
            | operators::LOGICAL_NOT
            | operators::NOT_STRICTLY_FALSE
            | operators::INDEX
            | operators::NEGATE => {}
            // Copied into an optional value.
            operators::OPT_INDEX | operators::OPT_SELECT => {
                let picked = Expr::Call(CallExpr { func_name: name, target: None, args: operands });
                return Ok(paid(CHARGE, vec![node(picked)]));
            }
            "format" => {
                operands = operands.into_iter().map(|operand| charged(CHARGE_ALL, operand)).collect();
            }
            // What is cut into many pieces, or searched piece by piece, pays for each byte.
            "split" | "reverse" | "indexOf" | "lastIndexOf" => {
                operands = operands.into_iter().map(|operand| charged(CHARGE_BYTES, operand)).collect();
            }
            _ => operands = operands.into_iter().map(|operand| charged(CHARGE, operand)).collect(),
        }
        let mut operands = operands.into_iter();
        let target = if is_method { operands.next().map(Box::new) } else { None };
        Ok(Expr::Call(CallExpr { func_name: name, target, args: operands.collect() }))
    }

    /// A regular expression that is written out is compiled once.
    fn pattern(&mut self, pattern: &str) -> Result<IdedExpr, Vec<ExpressionProblem>> {
        let compiled = Pattern::compile(pattern).map_err(|problem| {
            vec![ExpressionProblem::new(format!("{pattern:?} is no regular expression: {problem}"))]
        })?;
        let name = format!("{PATTERN}{}", self.patterns.len());
        self.patterns.push(compiled);
        Ok(node(Expr::Ident(name)))
    }
}

fn node(expr: Expr) -> IdedExpr {
    IdedExpr { id: 0, expr }
}

fn budget() -> IdedExpr {
    node(Expr::Ident(BUDGET.to_owned()))
}

fn call(name: &str, args: Vec<IdedExpr>) -> Expr {
    Expr::Call(CallExpr { func_name: name.to_owned(), target: None, args })
}

/// A call of a function of ours, which pays for itself.
fn paid(name: &str, mut args: Vec<IdedExpr>) -> Expr {
    args.insert(0, budget());
    call(name, args)
}

/// What a value costs that is handed to somebody else's function. Literals are paid for by their length in the source.
fn charged(function: &str, tree: IdedExpr) -> IdedExpr {
    match tree.expr {
        Expr::Literal(_) => tree,
        _ => node(paid(function, vec![tree])),
    }
}

fn literal(tree: &IdedExpr) -> Option<String> {
    match &tree.expr {
        Expr::Literal(LiteralValue::String(text)) => Some(text.inner().to_owned()),
        _ => None,
    }
}

/// How many nodes there are, which is about what one evaluation costs. Loops inside pay for themselves.
fn size(tree: &IdedExpr) -> usize {
    let all = |trees: &[IdedExpr]| trees.iter().map(size).sum::<usize>();
    1 + match &tree.expr {
        Expr::Select(select) => size(&select.operand),
        Expr::Call(call) => call.target.as_deref().map_or(0, size) + all(&call.args),
        Expr::List(list) => all(&list.elements),
        Expr::Map(map) => map
            .entries
            .iter()
            .map(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => size(&entry.key) + size(&entry.value),
                EntryExpr::StructField(_) => 0,
            })
            .sum(),
        Expr::Comprehension(each) => size(&each.iter_range) + size(&each.accu_init) + size(&each.result),
        _ => 0,
    }
}
