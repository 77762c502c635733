//! Functions of expressions that the library does not have, or has without a limit to what they cost.

use std::any::Any;

use cel::ExecutionError;
use cel::common::types::{CelBool, CelInt, CelList, CelString, Type};
use cel::common::value::{CowVal, StaticVal, Val};
use regex::{Regex, RegexBuilder};

use super::budget::Budget;
use super::value::{Map, each, equal, unexpected, weigh};

/// Marks an error whose text was written here, for people.
pub(super) const OURS: &str = "@";

pub(super) const CHARGE: &str = "@charge";
/// For what looks into maps, too.
pub(super) const CHARGE_ALL: &str = "@chargeAll";
pub(super) const CHARGE_BYTES: &str = "@chargeBytes";
pub(super) const ITERATE: &str = "@iterate";
pub(super) const MAP: &str = "@map";
pub(super) const EQUALS: &str = "@equals";
pub(super) const CONTAINS: &str = "@contains";
pub(super) const REPLACE: &str = "@replace";
pub(super) const JOIN: &str = "@join";

/// No text that is made may be longer.
const TEXT_LENGTH: usize = 1 << 20;

/// A compiled regular expression takes at most so many bytes.
const PATTERN_SIZE: usize = 1 << 16;

/// What compiling one costs, in steps.
const PATTERN_STEPS: usize = 2_000;

/// As long as an expression, and short enough for its square.
const FIND_ALL_LENGTH: usize = 4096;

type Result<T> = std::result::Result<T, ExecutionError>;

pub(super) fn failed(problem: impl Into<String>) -> ExecutionError {
    ExecutionError::FunctionError { function: OURS.to_owned(), message: problem.into() }
}

/// One line for people that shows no value of the pod: those may be secrets.
pub(super) fn explain(error: &ExecutionError, source: &str) -> String {
    match error {
        ExecutionError::FunctionError { function, message } if function == OURS => message.clone(),
        ExecutionError::FunctionError { function, .. } => {
            format!("{:?} cannot do that with this value", function.trim_start_matches('@'))
        }
        ExecutionError::NoSuchKey(key) if source.contains(key.as_str()) => format!("there is no {key:?}"),
        ExecutionError::NoSuchKey(_) => "a key that was worked out is not there".to_owned(),
        ExecutionError::UndeclaredReference(name) => format!("there is no {name:?}"),
        ExecutionError::NoSuchOverload(error) => {
            let types: Vec<_> =
                error.argument_types().iter().filter(|name| *name != "budget").cloned().collect();
            let name = error.function().trim_start_matches('@').replace('_', "");
            let name = if name.is_empty() { "." } else { &name };
            format!("{name:?} does not work with {}", types.join(" and "))
        }
        ExecutionError::UnexpectedType { got, want } => format!("a {got} is where a {want} is expected"),
        ExecutionError::InvalidArgumentCount { expected, actual } => {
            format!("a function takes {expected} arguments, not {actual}")
        }
        ExecutionError::IndexOutOfBounds(_) => "the list has no item of that number".to_owned(),
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
            "divides by zero".to_owned()
        }
        ExecutionError::Overflow(..) => "gives a number that is too large".to_owned(),
        ExecutionError::UnsupportedBinaryOperator(operator, ..) => {
            let sign = match *operator {
                "add" => "+",
                "sub" => "-",
                "mul" => "*",
                "div" => "/",
                "rem" => "%",
                other => other,
            };
            format!("{sign:?} does not work with these two values")
        }
        ExecutionError::DuplicateKey(_) => "gives a map with one key twice".to_owned(),
        ExecutionError::ValuesNotComparable(..) => "compares values that have no order".to_owned(),
        _ => "cannot be evaluated".to_owned(),
    }
}

/// The budget is always the first argument.
fn take<'b, 'v, const N: usize>(args: Vec<CowVal<'b, 'v>>) -> Result<[CowVal<'b, 'v>; N]> {
    let actual = args.len();
    args.try_into().map_err(|_| ExecutionError::invalid_argument_count(N, actual))
}

fn budget<'x>(value: &'x CowVal<'_, '_>) -> Result<&'x Budget> {
    value.as_any().and_then(<dyn Any>::downcast_ref).ok_or_else(|| unexpected(value.as_ref(), "budget"))
}

fn text<'x>(value: &'x CowVal<'_, '_>) -> Result<&'x str> {
    value
        .downcast_ref::<CelString<'_>>()
        .map(CelString::inner)
        .ok_or_else(|| unexpected(value.as_ref(), "string"))
}

fn size(value: &dyn Val) -> usize {
    value.as_sizer().map_or(0, |sizer| usize::try_from(*sizer.size().inner()).unwrap_or_default())
}

fn boolean<'b, 'v>(flag: bool) -> CowVal<'b, 'v> {
    CowVal::owned(CelBool::from(flag))
}

pub(super) fn charge<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>> {
    let [steps, value] = take(args)?;
    weigh(value.as_ref(), false, budget(&steps)?)?;
    budget(&steps)?.charge(size(value.as_ref()))?;
    Ok(value)
}

pub(super) fn charge_all<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>> {
    let [steps, value] = take(args)?;
    weigh(value.as_ref(), true, budget(&steps)?)?;
    Ok(value)
}

pub(super) fn charge_bytes<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>> {
    let [steps, value] = take(args)?;
    let bytes = value.downcast_ref::<CelString<'_>>().map_or(0, |text| text.inner().len());
    budget(&steps)?.charge(1 + bytes + size(value.as_ref()))?;
    Ok(value)
}

pub(super) fn iterate<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>> {
    let [steps, range, nodes] = take(args)?;
    let nodes =
        nodes.downcast_ref::<CelInt>().map_or(1, |nodes| usize::try_from(*nodes.inner()).unwrap_or(1));
    budget(&steps)?.charge(size(range.as_ref()).saturating_mul(nodes.saturating_add(2)))?;
    // Each item is copied into the loop's variable.
    weigh(range.as_ref(), false, budget(&steps)?)?;
    Ok(range)
}

/// A map from a list of keys and values in turn.
pub(super) fn map<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>> {
    let [list] = take(args)?;
    let parts = match list.into_owned().into_builtin() {
        Some(cel::common::value::Builtin::List(list)) => list.into_inner(),
        _ => return Err(failed("cannot be evaluated")),
    };
    let mut entries: Vec<(CelString<'v>, Box<dyn Val + 'v>)> = Vec::with_capacity(parts.len() / 2);
    let mut parts = parts.into_iter();
    while let (Some(key), Some(value)) = (parts.next(), parts.next()) {
        let Some(key) = key.downcast_ref::<CelString<'v>>().cloned() else {
            return Err(failed("a map has strings for keys here"));
        };
        if entries.iter().any(|(other, _)| other.inner() == key.inner()) {
            return Err(failed("gives a map with one key twice"));
        }
        entries.push((key, value));
    }
    Ok(CowVal::owned(Map::written(entries)))
}

pub(super) fn equals<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>> {
    let [steps, one, other] = take(args)?;
    equal(one.as_ref(), other.as_ref(), budget(&steps)?).map(boolean)
}

/// `item in list`, `key in map`.
pub(super) fn contains<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>> {
    let [steps, item, container] = take(args)?;
    let steps = budget(&steps)?;
    if container.get_type().kind() == cel::common::types::Kind::Map {
        let container = container.as_container().ok_or_else(|| unexpected(container.as_ref(), "map"))?;
        steps.charge(1)?;
        return container.contains(item.as_ref()).map(boolean);
    }
    let mut found = false;
    each(container.as_ref(), |other| {
        found = found || equal(item.as_ref(), other, steps)?;
        Ok(())
    })?;
    Ok(boolean(found))
}

pub(super) fn replace<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>> {
    let limit = match args.get(4).and_then(|limit| limit.downcast_ref::<CelInt>()) {
        Some(limit) => usize::try_from(*limit.inner()).unwrap_or(usize::MAX),
        None => usize::MAX,
    };
    let [steps, of, from, to] = take(args.into_iter().take(4).collect())?;
    let (steps, of, from, to) = (budget(&steps)?, text(&of)?, text(&from)?, text(&to)?);
    steps.charge_text(of.len())?;
    let count = of.matches(from).count().min(limit);
    let length = of.len().saturating_add(count.saturating_mul(to.len()));
    made(steps, length)?;
    Ok(CowVal::owned(CelString::from(of.replacen(from, to, limit))))
}

/// Pays for text that is about to be made.
fn made(steps: &Budget, length: usize) -> Result<()> {
    if length > TEXT_LENGTH {
        return Err(failed("makes a text of more than a megabyte"));
    }
    steps.charge_text(length)
}

pub(super) fn join<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>> {
    let separator =
        args.get(2).map(|separator| text(separator).map(str::to_owned)).transpose()?.unwrap_or_default();
    let [steps, list] = take(args.into_iter().take(2).collect())?;
    let steps = budget(&steps)?;
    let mut parts = Vec::new();
    let mut length = 0_usize;
    each(list.as_ref(), |item| {
        let part = item.downcast_ref::<CelString<'_>>().ok_or_else(|| unexpected(item, "string"))?.inner();
        length = length.saturating_add(part.len()).saturating_add(separator.len());
        parts.push(part);
        Ok(())
    })?;
    made(steps, length)?;
    Ok(CowVal::owned(CelString::from(parts.join(&separator))))
}

/// A regular expression that was written out in an expression.
#[derive(Debug, Clone)]
pub(super) struct Pattern(Regex);

static PATTERN: Type = Type::new_unspecified_type("pattern");

impl Val for Pattern {
    fn get_type(&self) -> &Type {
        &PATTERN
    }

    fn cel_type() -> &'static Type {
        &PATTERN
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for Pattern {}

impl Pattern {
    pub(super) fn compile(pattern: &str) -> std::result::Result<Self, String> {
        let compiled = RegexBuilder::new(pattern).size_limit(PATTERN_SIZE).build();
        compiled.map(Pattern).map_err(|error| {
            let text = error.to_string();
            text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
        })
    }

    fn of(steps: &Budget, value: &CowVal<'_, '_>) -> Result<Self> {
        if let Some(pattern) = value.as_any().and_then(<dyn Any>::downcast_ref::<Pattern>) {
            return Ok(pattern.clone());
        }
        let pattern = text(value)?;
        steps.charge(PATTERN_STEPS + pattern.len())?;
        Pattern::compile(pattern)
            .map_err(|problem| failed(format!("has no regular expression there: {problem}")))
    }
}

pub(super) fn matches<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>> {
    let [steps, of, pattern] = take(args)?;
    let (steps, of) = (budget(&steps)?, text(&of)?);
    steps.charge(1 + of.len())?;
    Ok(boolean(Pattern::of(steps, &pattern)?.0.is_match(of)))
}

pub(super) fn find<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>> {
    let [steps, of, pattern] = take(args)?;
    let (steps, of) = (budget(&steps)?, text(&of)?);
    steps.charge(1 + of.len())?;
    let found = Pattern::of(steps, &pattern)?.0.find(of).map(|found| found.as_str().to_owned());
    Ok(CowVal::owned(CelString::from(found.unwrap_or_default())))
}

pub(super) fn find_all<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>> {
    let limit = match args.get(3).and_then(|limit| limit.downcast_ref::<CelInt>()) {
        Some(limit) => usize::try_from(*limit.inner()).unwrap_or(usize::MAX),
        None => usize::MAX,
    };
    let [steps, of, pattern] = take(args.into_iter().take(3).collect())?;
    let (steps, of) = (budget(&steps)?, text(&of)?);
    // Each find can read all that is left, so that the cost can grow with the square of the length.
    if of.len() > FIND_ALL_LENGTH {
        return Err(failed("\"findAll\" searches at most 4,096 bytes"));
    }
    steps.charge(1 + of.len())?;
    let pattern = Pattern::of(steps, &pattern)?;
    let found = pattern.0.find_iter(of).take(limit);
    let found = found.map(|found| Box::new(CelString::from(found.as_str().to_owned())) as Box<dyn Val + 'v>);
    Ok(CowVal::owned(CelList::from(found.collect::<Vec<_>>())))
}

fn items<'x, 'v>(list: &'x CowVal<'_, 'v>) -> Result<Vec<&'x (dyn Val + 'v)>> {
    let mut items = Vec::new();
    each(list.as_ref(), |item| {
        items.push(item);
        Ok(())
    })?;
    Ok(items)
}

fn compare(one: &dyn Val, other: &dyn Val) -> Result<std::cmp::Ordering> {
    let comparer = one.as_comparer().ok_or_else(|| failed("orders values that have no order"))?;
    comparer.compare(other).map_err(|_| failed("orders values of different types"))
}

pub(super) fn is_sorted<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>> {
    let [list] = take(args)?;
    let items = items(&list)?;
    for (one, next) in items.iter().zip(items.iter().skip(1)) {
        if compare(*one, *next)?.is_gt() {
            return Ok(boolean(false));
        }
    }
    Ok(boolean(true))
}

pub(super) fn sum<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>> {
    let [list] = take(args)?;
    let mut sum: Option<Box<dyn Val + 'v>> = None;
    for item in items(&list)? {
        sum = Some(match sum {
            None => item.clone_as_boxed(),
            Some(sum) => {
                let adder = sum.as_adder().ok_or_else(|| failed("adds what cannot be added"))?;
                adder.add(item)?.into_owned()
            }
        });
    }
    Ok(sum.map_or_else(|| CowVal::owned(CelInt::from(0)), CowVal::Owned))
}

fn extreme<'b, 'v>(args: Vec<CowVal<'b, 'v>>, wanted: std::cmp::Ordering) -> Result<CowVal<'b, 'v>> {
    let [list] = take(args)?;
    let mut best: Option<&(dyn Val + 'v)> = None;
    for item in items(&list)? {
        best = match best {
            Some(best) if compare(item, best)? != wanted => Some(best),
            _ => Some(item),
        };
    }
    best.map(|best| CowVal::Owned(best.clone_as_boxed()))
        .ok_or_else(|| failed("an empty list has no least or greatest item"))
}

pub(super) fn minimum<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>> {
    extreme(args, std::cmp::Ordering::Less)
}

pub(super) fn maximum<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>> {
    extreme(args, std::cmp::Ordering::Greater)
}

fn position<'v>(found: Option<usize>) -> CowVal<'v, 'v> {
    CowVal::owned(CelInt::from(found.and_then(|at| i64::try_from(at).ok()).unwrap_or(-1)))
}

pub(super) fn index_of<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>> {
    let [list, wanted] = take(args)?;
    let found = items(&list)?.iter().position(|item| item.equals(wanted.as_ref()));
    Ok(position(found))
}

pub(super) fn last_index_of<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>> {
    let [list, wanted] = take(args)?;
    let found = items(&list)?.iter().rposition(|item| item.equals(wanted.as_ref()));
    Ok(position(found))
}
