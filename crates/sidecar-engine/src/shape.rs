//! The types of everything in a pod or a definition, as `cargo xtask generate` wrote them down.

mod fit;
mod format;

pub(crate) use fit::{Misfit, Slot};
pub(crate) use format::Format;

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::json::Json;

/// The pod template and everything below it.
pub(crate) static POD: LazyLock<Table> = LazyLock::new(|| Table::read(include_str!("../schema/pod.json")));

/// Our own part of a definition.
pub(crate) static OWN: LazyLock<Table> =
    LazyLock::new(|| Table::read(include_str!("../schema/definition.json")));

/// Types by their names.
#[derive(Debug)]
pub(crate) struct Table(HashMap<String, Type>);

#[derive(Debug)]
pub(crate) enum Type {
    Struct(Vec<Field>),
    Enum(Vec<String>),
}

#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) shape: Shape,
    pub(crate) is_required: bool,
    pub(crate) format: Format,
}

/// Items of a list, or entries of a map, in a definition or from an expression. Merging compares each with each of the pod's.
pub(crate) const ITEMS: usize = 512;

/// What a value can be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Any,
    Text,
    Integer,
    Int32,
    Number,
    Flag,
    IntOrText,
    Quantity,
    List(Box<Shape>),
    Map(Box<Shape>),
    Named(String),
}

impl Table {
    /// What cannot be read is left out; a test sees that there is none.
    fn read(text: &str) -> Self {
        let types = Json::parse(text).ok().and_then(Json::into_fields).unwrap_or_default();
        let types = types.into_iter().map(|(name, described)| {
            let described = Type::read(&name, &described);
            (name.into_owned(), described)
        });
        Table(types.collect())
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Type> {
        self.0.get(name)
    }

    /// A field of a struct.
    pub(crate) fn field(&self, name: &str, key: &str) -> Option<&Field> {
        self.fields(name).iter().find(|field| field.name == key)
    }

    /// The fields of a struct; none for an unknown one.
    pub(crate) fn fields(&self, name: &str) -> &[Field] {
        match self.get(name) {
            Some(Type::Struct(fields)) => fields,
            _ => &[],
        }
    }
}

impl Type {
    fn read(type_name: &str, described: &Json<'_>) -> Self {
        if let Some(values) = described.items() {
            return Type::Enum(values.iter().filter_map(|value| Some(value.text()?.into_owned())).collect());
        }
        let fields = described.fields().map(Vec::as_slice).unwrap_or_default();
        let read = |(name, kind): &(std::borrow::Cow<'_, str>, Json<'_>)| {
            let kind = kind.text()?;
            let required = kind.strip_suffix(", required");
            let shape = Shape::read(required.unwrap_or(&kind));
            let format = Format::of(type_name, name);
            Some(Field { name: name.to_string(), shape, is_required: required.is_some(), format })
        };
        Type::Struct(fields.iter().filter_map(read).collect())
    }
}

impl Shape {
    fn read(kind: &str) -> Self {
        if let Some(item) = kind.strip_prefix("list of ") {
            return Shape::List(Box::new(Shape::read(item)));
        }
        if let Some(value) = kind.strip_prefix("map of ") {
            return Shape::Map(Box::new(Shape::read(value)));
        }
        match kind {
            "any" => Shape::Any,
            "string" => Shape::Text,
            "integer" => Shape::Integer,
            "int32" => Shape::Int32,
            "number" => Shape::Number,
            "boolean" => Shape::Flag,
            "int-or-string" => Shape::IntOrText,
            "quantity" => Shape::Quantity,
            name => Shape::Named(name.to_owned()),
        }
    }
}

impl Shape {
    /// For messages: what a value must be.
    pub(crate) fn described(&self) -> &'static str {
        match self {
            Shape::Any => "anything",
            Shape::Text => "a string",
            Shape::Integer | Shape::Int32 => "an integer",
            Shape::Number => "a number",
            Shape::Flag => "true or false",
            Shape::IntOrText => "an integer or a string",
            Shape::Quantity => "a quantity such as 100m or 64Mi",
            Shape::List(_) => "a list",
            Shape::Map(_) | Shape::Named(_) => "a map",
        }
    }
}

/// For messages: what a value is.
pub(crate) fn kind_of(json: &Json<'_>) -> &'static str {
    match json {
        Json::Bool(_) => "a boolean",
        Json::Number(number) if number.is_f64() => "a number with a fraction",
        Json::Number(_) => "an integer",
        Json::Text(_) => "a string",
        Json::List(_) => "a list",
        Json::Object(_) => "a map",
        Json::Null | Json::Raw(_) | Json::Shared(_) => "null",
    }
}

/// Of these fields of a struct only one can be there, and where it says so one must be (pkg/apis/core/validation). No fields:
/// all but the name.
const ALTERNATIVES: [(&str, &[&str], bool); 6] = [
    ("EnvFromSource", &["configMapRef", "secretRef"], true),
    (
        "EnvVarSource",
        &["configMapKeyRef", "fieldRef", "fileKeyRef", "resourceFieldRef", "secretKeyRef"],
        true,
    ),
    ("LifecycleHandler", &["exec", "httpGet", "sleep", "tcpSocket"], true),
    ("Probe", &["exec", "grpc", "httpGet", "tcpSocket"], true),
    // Without any it is an emptyDir.
    ("Volume", &[], false),
    ("VolumeProjection", &[], false),
];

/// What is wrong with the alternatives in an object of this type. `is_open` says of a value that it may turn out to be absent.
pub(crate) fn alternatives(
    name: &str,
    json: &Json<'_>,
    is_open: impl Fn(&Json<'_>) -> bool,
) -> Option<String> {
    let (_, listed, is_required) = ALTERNATIVES.iter().find(|(of_type, ..)| *of_type == name)?;
    let is_one = |key: &str| {
        let is_known = POD.field(name, key).is_some();
        is_known && if listed.is_empty() { key != "name" } else { listed.contains(&key) }
    };
    let fields = json.fields()?;
    let present: Vec<_> = fields.iter().filter(|(key, value)| is_one(key) && !value.is_null()).collect();
    let settled: Vec<_> =
        present.iter().filter(|(_, value)| !is_open(value)).map(|(key, _)| &**key).collect();
    if settled.len() > 1 {
        return Some(format!("has {}: only one of them can be there", settled.join(" and ")));
    }
    // A newer Kubernetes may have others.
    let has_unknown = fields.iter().any(|(key, _)| POD.field(name, key).is_none());
    let all = || {
        let known = POD.fields(name).iter().map(|field| field.name.as_str());
        known.filter(|key| is_one(key)).collect::<Vec<_>>().join(", ")
    };
    (*is_required && present.is_empty() && !has_unknown).then(|| format!("must have one of {}", all()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_are_known(shape: &Shape, table: &Table) -> bool {
        match shape {
            Shape::List(inner) | Shape::Map(inner) => all_are_known(inner, table),
            Shape::Named(name) => table.get(name).is_some(),
            _ => true,
        }
    }

    #[test]
    fn every_type_that_is_named_is_there() {
        for (table, root, least) in [(&*POD, "PodTemplateSpec", 100), (&*OWN, "DefinitionSpec", 14)] {
            assert!(!table.fields(root).is_empty());
            assert!(table.0.len() >= least, "{}", table.0.len());
            for name in table.0.keys() {
                for field in table.fields(name) {
                    assert!(all_are_known(&field.shape, table), "{name}.{}", field.name);
                }
            }
        }
        for (name, field, _) in format::FORMATS {
            assert!(POD.fields(name).iter().any(|known| known.name == field), "{name}.{field}");
        }
        for (name, fields, _) in ALTERNATIVES {
            assert!(
                !POD.fields(name).is_empty() && fields.iter().all(|field| POD.field(name, field).is_some()),
                "{name}"
            );
        }
        let name = POD.fields("Container").iter().find(|field| field.name == "name").unwrap();
        assert!(name.is_required && name.shape == Shape::Text);
    }
}
