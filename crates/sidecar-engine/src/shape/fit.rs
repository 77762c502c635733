//! What an expression gave, as the field that it is for takes it.
//!
//! Annotations and labels are strings whatever they say, and CEL knows its own types: a port from an annotation is
//! `"8080"`, a log level may be `3`. Where there is one way to write a scalar as the field's type, it is written so. What
//! remains would make the API server refuse the pod, or not even decode it.

use std::borrow::Cow;
use std::sync::LazyLock;

use super::{ALTERNATIVES, Field, Format, ITEMS, POD, Shape, Type, alternatives, kind_of};
use crate::json::Json;
use crate::quantity::Quantity;

/// Objects that definitions have parts of: what they must have, the pod has already.
const PARTIAL: [&str; 2] = ["PodTemplateSpec", "PodSpec"];

static POD_TEMPLATE: LazyLock<Shape> = LazyLock::new(|| Shape::Named("PodTemplateSpec".to_owned()));
static CONTAINER: LazyLock<Shape> = LazyLock::new(|| Shape::Named("Container".to_owned()));

/// The place of a value in a pod, and what it can be there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slot {
    shape: &'static Shape,
    format: Format,
    is_required: bool,
    may_be_empty: bool,
}

/// Why a value cannot stand where it should.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Misfit {
    /// Where in the value: `.ports[0].containerPort`; empty for the value itself.
    pub(crate) below: String,
    /// Without anything of the value itself, which may be a secret of the pod.
    pub(crate) problem: String,
}

impl Slot {
    /// The whole pod.
    pub(crate) fn pod() -> Self {
        Slot::of(&POD_TEMPLATE)
    }

    /// A whole container.
    pub(crate) fn container() -> Self {
        Slot::of(&CONTAINER)
    }

    /// A place for a value of this type.
    pub(crate) fn of(shape: &'static Shape) -> Self {
        Slot { shape, format: Format::Any, is_required: false, may_be_empty: true }
    }

    /// The place of an item, of a list.
    pub(crate) fn item(self) -> Self {
        match self.shape {
            // An empty field is an absent one, an empty item is an item.
            Shape::List(item) => {
                Slot { format: self.format, may_be_empty: self.format == Format::Any, ..Slot::of(item) }
            }
            _ => Slot::of(&Shape::Any),
        }
    }

    /// The place of a field, of a map.
    pub(crate) fn field(self, key: &str) -> Self {
        match self.shape {
            Shape::Map(value) => Slot { format: self.format, ..Slot::of(value) },
            Shape::Named(name) => {
                POD.field(name, key).map_or(Slot::of(&Shape::Any), |field| {
                    let is_required = field.is_required && !PARTIAL.contains(&name.as_str());
                    // Of required strings only the value of an HTTP header may be.
                    let may_be_empty = !is_required || field.name == "value";
                    Slot { shape: &field.shape, format: field.format, is_required, may_be_empty }
                })
            }
            _ => Slot::of(&Shape::Any),
        }
    }

    /// The fields that there are, of a struct that has not this one.
    pub(crate) fn without_field(self, key: &str) -> Option<&'static [Field]> {
        let Shape::Named(name) = self.shape else { return None };
        let known = POD.fields(name);
        (!known.is_empty() && POD.field(name, key).is_none()).then_some(known)
    }

    /// Whether Kubernetes wants one field of several here.
    pub(crate) fn has_alternatives(self) -> bool {
        matches!(self.shape, Shape::Named(name) if ALTERNATIVES.iter().any(|(of_type, ..)| of_type == name))
    }

    /// What is wrong with the fields of an object here, of which Kubernetes wants one of several.
    pub(crate) fn alternatives(self, json: &Json<'_>) -> Option<String> {
        match self.shape {
            Shape::Named(name) => alternatives(name, json, |_| false),
            _ => None,
        }
    }

    /// The value as it can stand here; `null` leaves the field, or the item, out. Fields that the types do not have stay as
    /// they are: an expression may copy what a newer API server has put into the pod.
    pub(crate) fn fit(self, json: Json<'static>) -> Result<Json<'static>, Misfit> {
        if json.is_null() {
            return if self.is_required {
                Err(misfit("must be there, and the expression gives null"))
            } else {
                Ok(json)
            };
        }
        let count = json.items().map_or_else(|| json.fields().map_or(0, Vec::len), <[_]>::len);
        if count > ITEMS {
            return Err(misfit(&format!("has {count} items, {ITEMS} are allowed")));
        }
        match (self.shape, json) {
            (Shape::List(_), Json::List(items)) => self.items(items),
            (Shape::Map(_), Json::Object(fields)) => self.fields(fields),
            (Shape::Named(name), Json::Object(fields)) => {
                if !PARTIAL.contains(&name.as_str()) {
                    let missing = POD.fields(name).iter().find(|field| {
                        let is_there = fields.iter().any(|(key, _)| **key == *field.name);
                        field.is_required && !is_there
                    });
                    if let Some(field) = missing {
                        return Err(misfit("must be there, and the expression does not give it")
                            .below_field(&field.name));
                    }
                }
                let json = self.fields(fields)?;
                match alternatives(name, &json, |_| false) {
                    Some(problem) => Err(misfit(&problem)),
                    None => Ok(json),
                }
            }
            (Shape::Named(name), json) if !matches!(POD.get(name), Some(Type::Struct(_))) => Ok(json),
            (_, json) => self.scalar(json).and_then(|json| self.formatted(json)),
        }
    }

    fn items(self, items: Vec<Json<'static>>) -> Result<Json<'static>, Misfit> {
        let mut fitting = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            let item = self.item().fit(item).map_err(|misfit| misfit.below_item(index))?;
            if !item.is_null() {
                fitting.push(item);
            }
        }
        Ok(Json::List(fitting))
    }

    fn fields(self, fields: Vec<(Cow<'static, str>, Json<'static>)>) -> Result<Json<'static>, Misfit> {
        let mut fitting = Vec::with_capacity(fields.len());
        for (key, value) in fields {
            let value = self.field(&key).fit(value).map_err(|misfit| match self.shape {
                // A key of a map is a value of the pod, perhaps.
                Shape::Map(_) => misfit,
                _ => misfit.below_field(&key),
            })?;
            if !value.is_null() {
                fitting.push((key, value));
            }
        }
        Ok(Json::Object(fitting))
    }

    fn scalar(self, json: Json<'static>) -> Result<Json<'static>, Misfit> {
        let wrong = |json: &Json<'_>| {
            let given = match json {
                Json::Text(_) => "a string that says something else",
                other => kind_of(other),
            };
            misfit(&format!("must be {}, and the expression gives {given}", self.shape.described()))
        };
        match (self.shape, &json) {
            (Shape::Any, _)
            | (Shape::Text, Json::Text(_))
            | (Shape::Number, Json::Number(_))
            | (Shape::Flag, Json::Bool(_)) => Ok(json),
            (Shape::Quantity, Json::Text(text)) if Quantity::parse(text).is_some() => Ok(json),
            (Shape::Quantity, Json::Number(_)) => self.scalar(Json::text_from(json.to_string())),
            (Shape::Text, Json::Number(_) | Json::Bool(_)) => Ok(Json::text_from(json.to_string())),
            (Shape::Integer | Shape::Int32 | Shape::IntOrText, Json::Number(number)) if !number.is_f64() => {
                let small = number.as_i64().and_then(|number| i32::try_from(number).ok());
                let fits = self.shape == &Shape::Integer || small.is_some();
                if fits { Ok(json) } else { Err(misfit("is too large a number")) }
            }
            (Shape::Integer | Shape::Int32 | Shape::IntOrText, Json::Text(text)) => match text.parse::<i64>()
            {
                Ok(number) => self.scalar(Json::Number(number.into())),
                // The name of a port.
                Err(_) if self.shape == &Shape::IntOrText => Ok(json),
                Err(_) => Err(wrong(&json)),
            },
            (Shape::Number, Json::Text(text)) => match text.parse::<f64>() {
                Ok(number) if number.is_finite() => Ok(crate::json::from_float(number)),
                _ => Err(wrong(&json)),
            },
            (Shape::Flag, Json::Text(text)) => text.parse().map(Json::Bool).map_err(|_| wrong(&json)),
            _ => Err(wrong(&json)),
        }
    }

    fn formatted(self, json: Json<'static>) -> Result<Json<'static>, Misfit> {
        if matches!(&json, Json::Text(text) if text.is_empty()) && !self.may_be_empty {
            return Err(misfit("must not be empty"));
        }
        if self.format.allows(&json) { Ok(json) } else { Err(misfit(&self.format.described())) }
    }
}

fn misfit(problem: &str) -> Misfit {
    Misfit { below: String::new(), problem: problem.to_owned() }
}

impl Misfit {
    fn below_field(self, key: &str) -> Self {
        Misfit { below: format!(".{key}{}", self.below), ..self }
    }

    fn below_item(self, index: usize) -> Self {
        Misfit { below: format!("[{index}]{}", self.below), ..self }
    }
}
