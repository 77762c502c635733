//! The pod's JSON as CEL values, and CEL values as JSON. Nothing is converted but what is looked at.

use std::any::Any;
use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use cel::ExecutionError;
use cel::common::traits::{Container, Indexer, Iterable, Iterator, Sizer};
use cel::common::types::{
    CelBool, CelDouble, CelInt, CelList, CelNull, CelOptional, CelString, CelUInt, Kind, MAP_TYPE, Type,
};
use cel::common::value::{CowVal, Val};
use serde_json::Number;

use super::budget::Budget;
use crate::json::{Json, from_float};
use crate::quantity::Quantity;

/// Bytes of the pod's text that cost a step when they are read for the first time, or again.
const READ: usize = 128;

/// Items of a list that cost a step: each becomes a value.
const ITEMS: usize = 4;

/// The parameters: one that has no value is there, and is null.
pub(super) fn parameters<'v>(
    params: &'v Json<'v>,
    budget: &'v Budget,
) -> Result<CowVal<'v, 'v>, ExecutionError> {
    let fields = params.fields().map(Vec::as_slice).unwrap_or_default();
    budget.charge(fields.len().div_ceil(ITEMS))?;
    let mut values = Vec::with_capacity(fields.len());
    for (name, value) in fields {
        values.push((CelString::from(&**name), boxed(value.share(), budget)?));
    }
    Ok(CowVal::owned(Map::written(values)))
}

/// A JSON value as a CEL value; a field that is null is not there, as in Kubernetes. What is still text is read, each
/// time that it is looked at.
pub(super) fn of<'b, 'v>(json: Json<'v>, budget: &'v Budget) -> Result<CowVal<'b, 'v>, ExecutionError> {
    boxed(json, budget).map(CowVal::Owned)
}

fn boxed<'v>(json: Json<'v>, budget: &'v Budget) -> Result<Box<dyn Val + 'v>, ExecutionError> {
    Ok(match json {
        Json::Null => Box::new(CelNull),
        Json::Bool(flag) => Box::new(CelBool::from(flag)),
        Json::Number(number) => number_of(&number),
        Json::Text(text) => Box::new(CelString::from(text)),
        Json::List(items) => listed(items.into_iter(), budget)?,
        Json::Object(_) => Box::new(Map::json(json, budget)),
        Json::Raw(raw) => {
            budget.charge(1 + raw.get().len() / READ)?;
            boxed(json.resolve().into_owned(), budget)?
        }
        Json::Shared(shared) => match shared {
            Json::Text(text) => Box::new(CelString::from(&**text)),
            Json::Number(number) => number_of(number),
            Json::Object(_) => Box::new(Map::json(json, budget)),
            Json::List(items) => listed(items.iter().map(Json::share), budget)?,
            other => boxed(other.share(), budget)?,
        },
    })
}

fn listed<'v>(
    items: impl ExactSizeIterator<Item = Json<'v>>,
    budget: &'v Budget,
) -> Result<Box<dyn Val + 'v>, ExecutionError> {
    budget.charge(items.len().div_ceil(ITEMS))?;
    let items: Result<Vec<_>, _> = items.map(|item| boxed(item, budget)).collect();
    Ok(Box::new(CelList::from(items?)))
}

fn number_of<'v>(number: &Number) -> Box<dyn Val + 'v> {
    if let Some(whole) = number.as_i64() {
        Box::new(CelInt::from(whole))
    } else if let Some(whole) = number.as_u64() {
        Box::new(CelUInt::from(whole))
    } else {
        Box::new(CelDouble::from(number.as_f64().unwrap_or_default()))
    }
}

/// A map with strings for keys: an object of the pod, or one that an expression has written. Ordered, since the same
/// pod must give the same bytes, which the library's own maps do not see to.
#[derive(Debug)]
pub(super) struct Map<'v> {
    entries: Entries<'v>,
    /// For loops over the keys; made when the first one runs.
    keys: OnceLock<Vec<CelString<'v>>>,
}

#[derive(Debug)]
enum Entries<'v> {
    /// And what reading more of it is paid from.
    Json(Json<'v>, &'v Budget),
    /// Shared: the interpreter clones whatever it binds or puts into a list.
    Written(Arc<Vec<(CelString<'v>, Box<dyn Val + 'v>)>>),
}

impl<'v> Map<'v> {
    fn json(json: Json<'v>, budget: &'v Budget) -> Self {
        Map { entries: Entries::Json(json, budget), keys: OnceLock::new() }
    }

    pub(super) fn written(entries: Vec<(CelString<'v>, Box<dyn Val + 'v>)>) -> Self {
        Map { entries: Entries::Written(Arc::new(entries)), keys: OnceLock::new() }
    }

    fn keys(&self) -> &[CelString<'v>] {
        self.keys.get_or_init(|| match &self.entries {
            Entries::Json(Json::Shared(json), _) => {
                let fields = json.fields().into_iter().flatten();
                fields.filter(|(_, value)| !value.is_null()).map(|(key, _)| CelString::from(&**key)).collect()
            }
            Entries::Json(json, _) => {
                let fields = json.fields().into_iter().flatten();
                let known = fields.filter(|(_, value)| !value.is_null());
                known.map(|(key, _)| CelString::from(key.clone())).collect()
            }
            Entries::Written(entries) => entries.iter().map(|(key, _)| key.clone()).collect(),
        })
    }

    fn find<'b>(&'b self, key: &str) -> Result<Option<CowVal<'b, 'v>>, ExecutionError> {
        match &self.entries {
            Entries::Json(Json::Shared(json), budget) => {
                json.get(key).map(|value| of(value.share(), budget)).transpose()
            }
            Entries::Json(json, budget) => json.get(key).map(|value| of(value.clone(), budget)).transpose(),
            Entries::Written(entries) => Ok(entries
                .iter()
                .find(|(name, _)| name.inner() == key)
                .map(|(_, value)| CowVal::Borrowed(value.as_ref()))),
        }
    }
}

fn key_of(key: &dyn Val) -> Result<Cow<'_, str>, ExecutionError> {
    match key.downcast_ref::<CelString>() {
        Some(text) => Ok(Cow::Borrowed(text.inner())),
        None => Err(ExecutionError::UnexpectedType {
            got: key.get_type().name().to_owned(),
            want: "string".to_owned(),
        }),
    }
}

impl<'m> Val for Map<'m> {
    fn get_type(&self) -> &Type {
        &MAP_TYPE
    }

    fn cel_type() -> &'static Type {
        &MAP_TYPE
    }

    fn as_container(&self) -> Option<&dyn Container> {
        Some(self)
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_iterable<'b, 'v>(&'b self) -> Option<&'b (dyn Iterable + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_sizer(&self) -> Option<&dyn Sizer> {
        Some(self)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
    where
        Self: 'v,
    {
        let entries = match &self.entries {
            Entries::Json(json, budget) => Entries::Json(json.clone(), budget),
            Entries::Written(entries) => Entries::Written(Arc::clone(entries)),
        };
        let copy: Map<'m> = Map { entries, keys: OnceLock::new() };
        Box::new(copy)
    }
}

impl Container for Map<'_> {
    fn contains(&self, key: &dyn Val) -> Result<bool, ExecutionError> {
        Ok(self.find(&key_of(key)?)?.is_some())
    }
}

impl Indexer for Map<'_> {
    fn get<'b, 'v>(&'b self, key: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        let key = key_of(key)?;
        self.find(&key)?.ok_or_else(|| ExecutionError::no_such_key(&key))
    }

    fn steal<'v>(self: Box<Self>, key: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.get(key).map(CowVal::into_owned)
    }
}

impl Iterable for Map<'_> {
    fn iter<'b, 'v>(&'b self) -> Box<dyn Iterator<'b, 'v> + 'b>
    where
        Self: 'v,
    {
        Box::new(Keys(self.keys().iter()))
    }
}

struct Keys<'b, 'v>(std::slice::Iter<'b, CelString<'v>>);

impl<'b, 'v, 'k: 'v> Iterator<'b, 'v> for Keys<'b, 'k> {
    fn next(&mut self) -> Option<&'b (dyn Val + 'v)> {
        self.0.next().map(|key| key as &(dyn Val + 'v))
    }
}

impl Sizer for Map<'_> {
    fn size(&self) -> CelInt {
        CelInt::from(i64::try_from(self.keys().len()).unwrap_or(i64::MAX))
    }
}

/// The items of a list, or the keys of a map.
pub(super) fn each<'b, 'v>(
    value: &'b (dyn Val + 'v),
    mut then: impl FnMut(&'b (dyn Val + 'v)) -> Result<(), ExecutionError>,
) -> Result<(), ExecutionError> {
    let iterable = value.as_iterable().ok_or_else(|| unexpected(value, "list"))?;
    let mut items = iterable.iter();
    while let Some(item) = items.next() {
        then(item)?;
    }
    Ok(())
}

pub(super) fn unexpected(value: &dyn Val, wanted: &str) -> ExecutionError {
    ExecutionError::UnexpectedType { got: value.get_type().name().to_owned(), want: wanted.to_owned() }
}

/// Whether two values are equal, whichever types stand for them.
pub(super) fn equal(one: &dyn Val, other: &dyn Val, budget: &Budget) -> Result<bool, ExecutionError> {
    budget.charge(1)?;
    match (one.get_type().kind(), other.get_type().kind()) {
        (Kind::Map, Kind::Map) => {
            let (Some(size), Some(other_size)) = (one.as_sizer(), other.as_sizer()) else { return Ok(false) };
            if size.size() != other_size.size() {
                return Ok(false);
            }
            let (Some(values), Some(others)) = (one.as_indexer(), other.as_indexer()) else {
                return Ok(false);
            };
            let mut all = true;
            each(one, |key| {
                all = all
                    && match others.get(key) {
                        Ok(found) => equal(values.get(key)?.as_ref(), found.as_ref(), budget)?,
                        Err(_) => false,
                    };
                Ok(())
            })?;
            Ok(all)
        }
        (Kind::List, Kind::List) => {
            let (mut items, mut others) = (Vec::new(), Vec::new());
            each(one, |item| {
                items.push(item);
                Ok(())
            })?;
            each(other, |item| {
                others.push(item);
                Ok(())
            })?;
            budget.charge(items.len() + others.len())?;
            if items.len() != others.len() {
                return Ok(false);
            }
            for (item, other) in items.into_iter().zip(others) {
                if !equal(item, other, budget)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        _ => {
            if let Some(text) = one.downcast_ref::<CelString>() {
                budget.charge_text(text.inner().len())?;
            }
            Ok(one.equals(other))
        }
    }
}

/// Charges what a copy of a value costs: the interpreter copies lists, and all that is in them, wherever it binds them
/// or puts them into others. Maps are shared, and only what prints them looks into them.
pub(super) fn weigh(value: &dyn Val, into_maps: bool, budget: &Budget) -> Result<(), ExecutionError> {
    budget.charge(1)?;
    if let Some(text) = value.downcast_ref::<CelString>() {
        return budget.charge_text(text.inner().len());
    }
    if let Some(optional) = value.downcast_ref::<CelOptional>() {
        return optional.inner().map_or(Ok(()), |value| weigh(value, into_maps, budget));
    }
    match value.get_type().kind() {
        Kind::List => each(value, |item| weigh(item, into_maps, budget)),
        Kind::Map if into_maps => {
            let values = value.as_indexer().ok_or_else(|| unexpected(value, "map"))?;
            each(value, |key| {
                weigh(key, into_maps, budget)?;
                weigh(values.get(key)?.as_ref(), into_maps, budget)
            })
        }
        _ => Ok(()),
    }
}

/// A value as JSON, to be put into a pod.
pub(super) fn to_json(value: &dyn Val, budget: &Budget) -> Result<Json<'static>, ExecutionError> {
    budget.charge(1)?;
    if let Some(optional) = value.downcast_ref::<CelOptional>() {
        return optional.inner().map_or(Ok(Json::Null), |value| to_json(value, budget));
    }
    Ok(match value.get_type().kind() {
        Kind::NullType => Json::Null,
        Kind::Boolean => Json::Bool(value.downcast_ref::<CelBool>().is_some_and(|flag| *flag.inner())),
        Kind::Int => Json::Number(value.downcast_ref::<CelInt>().map_or(0, |number| *number.inner()).into()),
        Kind::UInt => {
            Json::Number(value.downcast_ref::<CelUInt>().map_or(0, |number| *number.inner()).into())
        }
        Kind::Double => from_float(value.downcast_ref::<CelDouble>().map_or(0.0, |number| *number.inner())),
        Kind::String => {
            let text = value.downcast_ref::<CelString>().map(CelString::inner).unwrap_or_default();
            budget.charge_text(text.len())?;
            Json::text_from(text.to_owned())
        }
        Kind::List => {
            let mut items = Vec::new();
            each(value, |item| {
                items.push(to_json(item, budget)?);
                Ok(())
            })?;
            Json::List(items)
        }
        Kind::Map => {
            let indexer = value.as_indexer().ok_or_else(|| unexpected(value, "map"))?;
            let mut fields = Vec::new();
            each(value, |key| {
                let value = to_json(indexer.get(key)?.as_ref(), budget)?;
                fields.push((Cow::Owned(key_of(key)?.into_owned()), value));
                Ok(())
            })?;
            Json::Object(fields)
        }
        // As `string()` writes it.
        _ if let Some(quantity) = value.as_any().and_then(<dyn Any>::downcast_ref::<Quantity>) => {
            Json::text_from(quantity.to_string())
        }
        _ => {
            let problem = format!("gives a {}, which YAML does not have", value.get_type().name());
            return Err(ExecutionError::function_error(super::functions::OURS, problem));
        }
    })
}
