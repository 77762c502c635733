//! `values.schema.json`, made from values.yaml: what is not a value of the chart is a misspelt one.
//!
//! The type of a value is that of its default, the description its `# --` comment, and further keywords are in `# @schema` lines.
//! Maps have the keys that they have by default and no others; one that is for the user to fill says so (`additionalProperties`), and
//! every list says what is in it (`items`).

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value, json};

use super::values::{self, Entry};

/// The schema as the text of the file.
pub(super) fn text(chart: &str, values: &str) -> Result<String> {
    let defaults: Value = serde_saphyr::from_str(values).context("values.yaml")?;
    let entries = values::entries(values).into_iter().map(|entry| (entry.name.clone(), entry)).collect();
    let mut schema = schema("", &defaults, &entries)?;
    schema["$schema"] = json!("http://json-schema.org/draft-07/schema#");
    schema["title"] = json!(format!("Values of the chart {chart}"));
    // What Helm itself, and parent charts, put into the values of every chart.
    schema["properties"]["enabled"] = json!({
        "type": "boolean",
        "description": "Not read by this chart: a parent chart may use it as the condition of the dependency",
    });
    if schema["properties"]["global"].is_null() {
        schema["properties"]["global"] = json!({"type": "object"});
    }
    schema["properties"]["global"]["additionalProperties"] = json!(true);
    schema["properties"]["global"]["description"] =
        json!("Shared with other charts, so other names are allowed here");
    // Whatever the features of `serde_json` are in this build.
    schema.sort_all_objects();
    Ok(format!("{}\n", serde_json::to_string_pretty(&schema)?))
}

fn schema(name: &str, default: &Value, entries: &BTreeMap<String, Entry<'_>>) -> Result<Value> {
    let entry = entries.get(name);
    let rules = entry.map(|entry| rules(name, &entry.rules)).transpose()?.unwrap_or_default();
    let mut schema = Map::new();
    match default {
        Value::Bool(_) => drop(schema.insert("type".to_owned(), json!("boolean"))),
        Value::Number(number) if number.is_i64() => drop(schema.insert("type".to_owned(), json!("integer"))),
        Value::Number(_) => drop(schema.insert("type".to_owned(), json!("number"))),
        Value::String(_) => drop(schema.insert("type".to_owned(), json!("string"))),
        Value::Array(_) => {
            ensure!(rules.contains_key("items"), "{name}: say what is in the list: # @schema items: {{...}}");
            schema.insert("type".to_owned(), json!("array"));
        }
        Value::Object(map) => {
            schema.insert("type".to_owned(), json!("object"));
            if !rules.contains_key("additionalProperties") {
                ensure!(
                    !map.is_empty(),
                    "{name}: say what may be in the map: # @schema additionalProperties: ..."
                );
                schema.extend(strict(name, map, entries)?);
            }
        }
        Value::Null => bail!("{name}: null has no type, and Helm takes it for `not there`"),
    }
    if let Some(meaning) = entry.and_then(|entry| entry.meaning.clone()) {
        schema.insert("description".to_owned(), json!(meaning));
    }
    // Alternatives have types of their own.
    if rules.contains_key("anyOf") {
        schema.remove("type");
    }
    schema.extend(rules);
    Ok(Value::Object(schema))
}

/// The keys of a map and no others. Those with a meaning of their own must be there: to Helm null takes a value away, and the templates
/// would fail with what nobody understands, or render something else than what was chosen. An empty one means none anyway.
fn strict(
    name: &str,
    map: &Map<String, Value>,
    entries: &BTreeMap<String, Entry<'_>>,
) -> Result<Map<String, Value>> {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for (key, default) in map {
        let child = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
        let property = schema(&child, default, entries)?;
        let is_empty = [json!(""), json!(false), json!([]), json!({})].contains(default);
        let is_user_s = default.is_object() && property.get("properties").is_none();
        if !is_empty && !is_user_s {
            required.push(key.clone());
        }
        properties.insert(key.clone(), property);
    }
    required.sort();
    let mut schema = Map::new();
    schema.insert("additionalProperties".to_owned(), json!(false));
    schema.insert("properties".to_owned(), Value::Object(properties));
    if !required.is_empty() {
        schema.insert("required".to_owned(), json!(required));
    }
    Ok(schema)
}

fn rules(name: &str, text: &str) -> Result<Map<String, Value>> {
    serde_saphyr::from_str(&format!("{{{text}}}")).with_context(|| format!("{name}: # @schema {text}"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::text;

    fn generated(values: &str) -> Value {
        serde_json::from_str(&text("chart", values).unwrap()).unwrap()
    }

    #[test]
    fn types_come_from_defaults_and_rules_from_comments() {
        let schema = generated(
            "# -- How many\n# @schema minimum: 1\ncount: 2\n# @schema items: {type: string}\nlist: []\n\
             # @schema additionalProperties: {type: string}\nlabels: {}\n\
             # @schema anyOf: [{type: integer}, {type: string, pattern: '%$'}]\neither: 1\nmap:\n  inner: false\n",
        );
        let count = json!({"type": "integer", "description": "How many", "minimum": 1});
        assert_eq!(schema["properties"]["count"], count);
        assert_eq!(schema["properties"]["list"], json!({"type": "array", "items": {"type": "string"}}));
        let labels = json!({"type": "object", "additionalProperties": {"type": "string"}});
        assert_eq!(schema["properties"]["labels"], labels);
        let either = json!({"anyOf": [{"type": "integer"}, {"type": "string", "pattern": "%$"}]});
        assert_eq!(schema["properties"]["either"], either);
        assert_eq!(schema["properties"]["map"]["additionalProperties"], false);
        assert_eq!(schema["required"], json!(["count", "either", "map"]));
    }

    #[test]
    fn parent_charts_are_let_in_and_misspelt_values_are_not() {
        let schema = generated("global:\n  own: ''\n");
        assert_eq!(schema["additionalProperties"], false);
        assert_eq!(schema["properties"]["enabled"]["type"], "boolean");
        let global = &schema["properties"]["global"];
        assert_eq!(
            (&global["additionalProperties"], &global["properties"]["own"]["type"]),
            (&json!(true), &json!("string"))
        );
    }

    #[test]
    fn what_nobody_can_check_is_refused() {
        for (values, message) in [
            ("a: []\n", "a: say what is in the list"),
            ("a:\n  b: {}\n", "a.b: say what may be in the map"),
            ("a:\n", "a: null has no type"),
            ("# @schema minimum 1: [\na: 1\n", "a: # @schema minimum 1"),
        ] {
            assert!(text("chart", values).unwrap_err().to_string().contains(message), "{values}");
        }
    }
}
