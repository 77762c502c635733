//! What schemars writes, in the form that the API server takes (apiextensions.k8s.io, "structural schema").

use std::fmt::Write as _;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};

/// What the API server needs nothing of, and defaults: they would be written into what people see and Git does not have.
const LEFT_OUT: [&str; 4] = ["$schema", "title", "default", "nullable"];

/// What may be left. A keyword that the API server does not take makes it keep the schema and stop pruning by it.
const KNOWN: [&str; 9] = [
    "additionalProperties",
    "description",
    "enum",
    "format",
    "items",
    "properties",
    "required",
    "type",
    "x-kubernetes-preserve-unknown-fields",
];

/// Rewrites a schema and everything below it.
pub(super) fn convert(schema: &mut Value) -> Result<()> {
    let fields = schema.as_object_mut().context("a schema that is no map")?;
    for combination in ["allOf", "anyOf"] {
        if let Some(parts) = fields.remove(combination) {
            take_only_part(fields, parts).context(combination)?;
        }
    }
    for key in LEFT_OUT {
        fields.remove(key);
    }
    if let Some(variants) = fields.remove("oneOf") {
        fold_variants(fields, &variants).context("oneOf")?;
    }
    if let Some(Value::String(description)) = fields.get_mut("description") {
        // Lines are broken for the source only.
        *description = description.split_whitespace().collect::<Vec<_>>().join(" ");
    }
    if let Some(key) = fields.keys().find(|key| !KNOWN.contains(&key.as_str())) {
        bail!("the keyword {key:?} is new here: does the API server take it?");
    }
    for key in ["items", "additionalProperties"] {
        if let Some(below) = fields.get_mut(key) {
            convert(below).context(key)?;
        }
    }
    for (name, below) in fields.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten() {
        convert(below).with_context(|| name.clone())?;
    }
    Ok(())
}

/// A combination of one type, and perhaps null, is that type; what the field says of itself comes first.
fn take_only_part(fields: &mut Map<String, Value>, parts: Value) -> Result<()> {
    let Value::Array(parts) = parts else { bail!("no list") };
    let is_null = |part: &Value| part["type"] == "null" || part["enum"] == serde_json::json!([null]);
    let mut parts = parts.into_iter().filter(|part| !is_null(part));
    let (Some(Value::Object(only)), None) = (parts.next(), parts.next()) else {
        bail!("more than a type and null");
    };
    for (key, value) in only {
        fields.entry(key).or_insert(value);
    }
    Ok(())
}

/// An enum whose variants have descriptions of their own: one list of strings, and one description that explains all.
fn fold_variants(fields: &mut Map<String, Value>, variants: &Value) -> Result<()> {
    let mut names = Vec::new();
    let mut description = fields.get("description").and_then(Value::as_str).unwrap_or_default().to_owned();
    for variant in variants.as_array().context("no list")? {
        // As the one or the other, depending on the dialect.
        let only =
            variant["enum"].as_array().filter(|names| names.len() == 1).and_then(|names| names.first());
        let name = only.unwrap_or(&variant["const"]).as_str();
        let name = name.with_context(|| format!("a variant that is not one string: {variant}"))?;
        let meaning =
            variant["description"].as_str().with_context(|| format!("{name} has no description"))?;
        let _ = write!(description, " {name}: {meaning}");
        names.push(Value::from(name));
    }
    fields.insert("type".to_owned(), "string".into());
    fields.insert("enum".to_owned(), Value::Array(names));
    fields.insert("description".to_owned(), description.into());
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_optional_enum_becomes_strings_with_their_meaning() {
        let mut schema = json!({"description": "Own\ntext.", "nullable": true, "default": "A", "anyOf": [
            {"description": "The type's.", "oneOf": [
                {"const": "A", "type": "string", "description": "First."},
                {"enum": ["B"], "type": "string", "description": "Second\nof them."},
            ]},
            {"enum": [null], "nullable": true},
        ]});
        convert(&mut schema).unwrap();
        let description = "Own text. A: First. B: Second of them.";
        assert_eq!(schema, json!({"description": description, "type": "string", "enum": ["A", "B"]}));
    }

    #[test]
    fn what_is_not_known_is_not_passed_on() {
        let refused = |mut schema: Value| format!("{:#}", convert(&mut schema).unwrap_err());
        let error = refused(json!({"properties": {"a": {"items": {"$ref": "#/b"}}}}));
        assert!(error.starts_with("a: items: the keyword \"$ref\""), "{error}");
        let error = refused(json!({"anyOf": [{"type": "string"}, {"type": "integer"}]}));
        assert_eq!(error, "anyOf: more than a type and null");
    }
}
