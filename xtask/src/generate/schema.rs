//! What definitions are checked against: the types of Kubernetes' pod template and of our own part, one line a field.
//!
//! A map is a type with its fields, a list an enum with its values. A field is `string`, `integer`, `int32`, `number`,
//! `boolean`, `int-or-string`, `quantity`, `any`, a type's name, or `list of` or `map of` one of these; `, required`
//! stands behind one that must be there.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::File;

/// The types that are there once for all who refer to them, below the root of a schema.
const REFERENCE: &str = "#/$defs/";

pub(super) fn files(root: &Path) -> Result<Vec<File>> {
    let settings = SchemaSettings::draft2020_12;
    let pod = settings().into_generator().into_root_schema_for::<PodTemplateSpec>();
    let definition = sidecar_engine::definition::schema(settings());
    let folder = root.join("crates/sidecar-engine/schema");
    Ok(vec![
        (folder.join("pod.json"), compact(pod.as_value(), "PodTemplateSpec")?),
        (folder.join("definition.json"), compact(definition.as_value(), "DefinitionSpec")?),
    ])
}

/// All types of a schema, in the order of their names.
fn compact(schema: &Value, root: &str) -> Result<String> {
    let mut types = BTreeMap::new();
    types.insert(root, named(schema).context("the root")?);
    for (name, schema) in schema["$defs"].as_object().into_iter().flatten() {
        // What is a type of its own only in name is written where it is used.
        if let Some(described) = named(schema) {
            ensure!(types.insert(short(name), described).is_none(), "two types are called {}", short(name));
        }
    }
    let mut shown = Map::new();
    for (name, described) in types {
        let described = match described {
            Described::Enum(values) => json!(values),
            Described::Struct { fields, required } => {
                let mut described = Map::new();
                for (field, field_schema) in fields {
                    let kind = kind(field_schema, schema).with_context(|| format!("{name}.{field}"))?;
                    let suffix = if required.contains(&field.as_str()) { ", required" } else { "" };
                    described.insert(field.clone(), format!("{kind}{suffix}").into());
                }
                described.sort_keys();
                Value::Object(described)
            }
        };
        shown.insert(name.to_owned(), described);
    }
    Ok(serde_json::to_string_pretty(&shown)? + "\n")
}

enum Described<'s> {
    Enum(Vec<&'s str>),
    Struct { fields: &'s Map<String, Value>, required: Vec<&'s str> },
}

/// A struct or an enum.
fn named(schema: &Value) -> Option<Described<'_>> {
    if let Some(fields) = schema["properties"].as_object() {
        let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
        return Some(Described::Struct { fields, required: required.collect() });
    }
    if let Some(values) = schema["enum"].as_array() {
        return Some(Described::Enum(values.iter().filter_map(Value::as_str).collect()));
    }
    // An enum whose values are described one by one.
    let values = schema["oneOf"].as_array()?.iter().map(|value| value["const"].as_str());
    Some(Described::Enum(values.collect::<Option<_>>()?))
}

/// The type of a field, in words.
fn kind(schema: &Value, root: &Value) -> Result<String> {
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.strip_prefix(REFERENCE).context("a reference to another document")?;
        if name.ends_with(".Quantity") {
            return Ok("quantity".to_owned());
        }
        let target = &root["$defs"][name];
        return if named(target).is_some() { Ok(short(name).to_owned()) } else { kind(target, root) };
    }
    // An optional field: its type, or null.
    if let Some([schema, null]) = schema["anyOf"].as_array().map(Vec::as_slice) {
        ensure!(null["type"] == "null", "a choice of types: {schema}");
        return kind(schema, root);
    }
    if schema["x-kubernetes-int-or-string"] == true {
        return Ok("int-or-string".to_owned());
    }
    let name = match &schema["type"] {
        Value::Array(names) => names.iter().filter_map(Value::as_str).find(|name| *name != "null"),
        name => name.as_str(),
    };
    Ok(match name {
        None if schema["x-kubernetes-preserve-unknown-fields"] == true => "any".to_owned(),
        Some("integer") if schema["format"] == "int32" => "int32".to_owned(),
        Some(scalar @ ("string" | "integer" | "number" | "boolean")) => scalar.to_owned(),
        Some("array") => format!("list of {}", kind(&schema["items"], root)?),
        Some("object") if schema["additionalProperties"].is_object() => {
            format!("map of {}", kind(&schema["additionalProperties"], root)?)
        }
        Some("object") => "map of any".to_owned(),
        _ => bail!("a type that has no word: {schema}"),
    })
}

/// `io.k8s.api.core.v1.Container` → `Container`.
fn short(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}
