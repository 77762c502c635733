//! `quantity('64Mi')`: Kubernetes quantities in expressions, as in admission policies.

#![expect(
    clippy::needless_pass_by_value,
    clippy::unnecessary_wraps,
    reason = "the library says what a function looks like"
)]

use std::any::Any;
use std::cmp::Ordering;

use cel::ExecutionError;
use cel::common::types::{CelBool, CelDouble, CelInt, CelString, Type};
use cel::common::value::{CowVal, StaticVal, Val};

use super::functions::failed;
use super::value::unexpected;
use crate::quantity::Quantity;

/// Their type.
pub(super) const TYPE: Type = Type::new_unspecified_type("quantity");

static STATIC_TYPE: Type = TYPE;

type Result<T> = std::result::Result<T, ExecutionError>;

impl Val for Quantity {
    fn get_type(&self) -> &Type {
        &STATIC_TYPE
    }

    fn cel_type() -> &'static Type {
        &STATIC_TYPE
    }

    fn equals(&self, other: &dyn Val) -> bool {
        other.as_any().and_then(<dyn Any>::downcast_ref::<Quantity>) == Some(self)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(*self)
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for Quantity {}

/// The argument of that number.
fn argument(args: &[CowVal<'_, '_>], number: usize) -> Result<Quantity> {
    let value = args.get(number).ok_or_else(|| failed("cannot be evaluated"))?;
    if let Some(whole) = value.downcast_ref::<CelInt>() {
        return Ok(Quantity::from_integer(*whole.inner()));
    }
    value
        .as_any()
        .and_then(<dyn Any>::downcast_ref::<Quantity>)
        .copied()
        .ok_or_else(|| unexpected(value.as_ref(), "quantity"))
}

fn parse(args: &[CowVal<'_, '_>]) -> Option<Quantity> {
    Quantity::parse(args.first()?.downcast_ref::<CelString<'_>>()?.inner())
}

pub(super) fn quantity<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>> {
    parse(&args).map(CowVal::owned).ok_or_else(|| failed("\"quantity\" is given what is none"))
}

pub(super) fn is_quantity<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>> {
    Ok(CowVal::owned(CelBool::from(parse(&args).is_some())))
}

pub(super) fn string<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>> {
    Ok(CowVal::owned(CelString::from(argument(&args, 0)?.to_string())))
}

pub(super) fn sign<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>> {
    let sign = match argument(&args, 0)?.cmp(&Quantity::ZERO) {
        Ordering::Less => -1,
        Ordering::Equal => 0,
        Ordering::Greater => 1,
    };
    Ok(CowVal::owned(CelInt::from(sign)))
}

fn too_large() -> ExecutionError {
    failed("gives a number that is too large")
}

pub(super) fn add<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>> {
    argument(&args, 0)?.plus(argument(&args, 1)?).map(CowVal::owned).ok_or_else(too_large)
}

pub(super) fn subtract<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>> {
    argument(&args, 0)?.plus(argument(&args, 1)?.negated()).map(CowVal::owned).ok_or_else(too_large)
}

pub(super) fn is_greater_than<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>> {
    Ok(CowVal::owned(CelBool::from(argument(&args, 0)? > argument(&args, 1)?)))
}

pub(super) fn is_less_than<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>> {
    Ok(CowVal::owned(CelBool::from(argument(&args, 0)? < argument(&args, 1)?)))
}

pub(super) fn compare_to<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>> {
    let order = match argument(&args, 0)?.cmp(&argument(&args, 1)?) {
        Ordering::Less => -1,
        Ordering::Equal => 0,
        Ordering::Greater => 1,
    };
    Ok(CowVal::owned(CelInt::from(order)))
}

pub(super) fn is_integer<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>> {
    Ok(CowVal::owned(CelBool::from(argument(&args, 0)?.as_integer().is_some())))
}

pub(super) fn as_integer<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>> {
    let whole = argument(&args, 0)?.as_integer();
    whole.map(|whole| CowVal::owned(CelInt::from(whole))).ok_or_else(|| failed("the quantity is no integer"))
}

pub(super) fn as_approximate_float<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>> {
    Ok(CowVal::owned(CelDouble::from(argument(&args, 0)?.as_float())))
}
