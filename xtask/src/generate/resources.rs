//! The custom resource definitions, made from the types of the engine: for the chart, and as a plain manifest.
//!
//! The embedded pod YAML stays open on purpose: an expression `${...}` may stand where Kubernetes wants a number, and the
//! injector knows more about pods than a schema can say. It checks definitions when they are applied.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::File;

/// The two kinds, which differ in whom they reach.
const KINDS: [Kind; 2] = [
    Kind {
        name: "ClusterSidecarDefinition",
        plural: "clustersidecardefinitions",
        short: "cscd",
        scope: "Cluster",
        description: "A sidecar, and which pods of all namespaces get it.",
    },
    Kind {
        name: "SidecarDefinition",
        plural: "sidecardefinitions",
        short: "scd",
        scope: "Namespaced",
        description: "A sidecar, and which pods of its own namespace get it.",
    },
];

/// What is kept of a definition in etcd, and copied with every change, has a limit too.
const SIZE_LIMIT: usize = 200 * 1024;

struct Kind {
    name: &'static str,
    plural: &'static str,
    short: &'static str,
    scope: &'static str,
    description: &'static str,
}

pub(super) fn files(root: &Path) -> Result<Vec<File>> {
    const HEAD: &str = "# Written by `cargo xtask generate` from crates/sidecar-engine/src/definition.rs.\n";
    let mut files = Vec::new();
    let mut plain = format!("{HEAD}# The kinds in which sidecars are described (docs/definitions.md).\n");
    for kind in &KINDS {
        let specification = kind.specification()?;
        let text = serde_saphyr::to_string(&specification).context("cannot write YAML")?;
        ensure!(!text.contains("{{"), "{}: Helm would take a description for a template", kind.name);
        let size = serde_json::to_string(&specification)?.len();
        ensure!(size < SIZE_LIMIT, "{}: {size} bytes, more than {SIZE_LIMIT}", kind.name);
        let indented = text.lines().fold(String::new(), |mut indented, line| {
            let _ = writeln!(indented, "{}{line}", if line.is_empty() { "" } else { "  " });
            indented
        });
        let name = format!("{}.sidecar.me", kind.plural);
        let head = format!(
            "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata:\n  name: {name}\n"
        );
        let _ = write!(plain, "---\n{head}spec:\n{indented}");
        let template = format!(
            "{{{{- if .Values.crds.install }}}}\n{HEAD}{head}  labels:\n    \
             {{{{- include \"kubernetes-sidecar-injector.labels\" . | nindent 4 }}}}\n  \
             {{{{- if .Values.crds.keep }}}}\n  annotations:\n    \
             # Helm would delete every definition with it.\n    helm.sh/resource-policy: keep\n  {{{{- end }}}}\n\
             spec:\n{indented}{{{{- end }}}}\n"
        );
        let folder = root.join("charts/kubernetes-sidecar-injector/templates/crds");
        files.push((folder.join(format!("{}.yaml", kind.plural)), template));
    }
    files.push((root.join("deploy/crds.yaml"), plain));
    Ok(files)
}

impl Kind {
    fn specification(&self) -> Result<Value> {
        let column = |name: &str, kind: &str, path: &str, priority: u8| {
            let mut column = json!({"name": name, "type": kind, "jsonPath": path});
            if priority > 0 {
                column["priority"] = json!(priority);
            }
            column
        };
        Ok(json!({
            "group": "sidecar.me",
            "scope": self.scope,
            "names": {
                "kind": self.name,
                "listKind": format!("{}List", self.name),
                "plural": self.plural,
                "singular": self.name.to_lowercase(),
                "shortNames": [self.short],
                "categories": ["sidecar"],
            },
            "versions": [{
                "name": "v1alpha1",
                "served": true,
                "storage": true,
                "subresources": {"status": {}},
                "additionalPrinterColumns": [
                    column("Order", "integer", ".spec.order", 1),
                    column("Required", "boolean", ".spec.required", 0),
                    column("Failure policy", "string", ".spec.failurePolicy", 0),
                    column("Ready", "string", ".status.conditions[?(@.type==\"Ready\")].status", 0),
                    column("Age", "date", ".metadata.creationTimestamp", 0),
                ],
                "schema": {"openAPIV3Schema": self.schema()?},
            }],
        }))
    }

    fn schema(&self) -> Result<Value> {
        let settings = SchemaSettings::openapi3().with(|settings| settings.inline_subschemas = true);
        let mut spec = sidecar_engine::definition::schema(settings).to_value();
        structural(&mut spec);
        limit(&mut spec)?;
        rules(
            &mut spec,
            "",
            &[rule(
                "has(self.inject) || has(self.patchContainers)",
                "nothing is injected: set inject, patchContainers, or both",
            )],
        )?;
        let mut of_selector = vec![rule(
            "!(has(self.byName) && self.byName == 'Only' && has(self.podSelector))",
            "byName: Only selects nobody, so it goes without podSelector",
        )];
        if self.scope == "Namespaced" {
            of_selector.push(rule(
                "!has(self.namespaceSelector)",
                "a SidecarDefinition is for the pods of its own namespace: it has no namespaceSelector",
            ));
        }
        rules(&mut spec, "/properties/selector", &of_selector)?;
        // What has no type here (default, minimum, maximum) does not exist for rules: the injector says what is wrong with it.
        rules(
            &mut spec,
            "/properties/parameters/items",
            &[
                rule(
                    "self.name.matches('^[A-Za-z][A-Za-z0-9_]*$')",
                    "the name of a parameter is letters, digits and _, a letter first: it stands in expressions",
                ),
                rule(
                    "!has(self.pattern) || !has(self.type) || self.type == 'string'",
                    "pattern is for parameters of the type string",
                ),
            ],
        )?;
        Ok(json!({
            "description": self.description,
            "type": "object",
            "required": ["spec"],
            "properties": {
                // The API server's; named, so that `kubectl explain` shows them.
                "apiVersion": {"type": "string"},
                "kind": {"type": "string"},
                "metadata": {"type": "object"},
                "spec": spec,
                "status": status(),
            },
            "x-kubernetes-validations": [
                rule(
                    "self.metadata.name.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$')",
                    "the name must be lower-case letters, digits and inner hyphens, 63 at most: it stands in annotations of pods",
                ),
                rule(
                    "self.metadata.name != 'true' && self.metadata.name != 'false'",
                    "the names true and false are values of sidecar.me/inject",
                ),
            ],
        }))
    }
}

fn rule(expression: &str, message: &str) -> Value {
    json!({"rule": expression, "message": message})
}

fn rules(schema: &mut Value, pointer: &str, rules: &[Value]) -> Result<()> {
    let place = schema.pointer_mut(pointer).with_context(|| format!("the schema has no {pointer}"))?;
    place["x-kubernetes-validations"] = json!(rules);
    Ok(())
}

/// Limits without which the API server cannot bound what its rules cost, and keys by which lists are merged.
fn limit(spec: &mut Value) -> Result<()> {
    for (pointer, limits) in [
        (
            "/properties/parameters",
            json!({"maxItems": 64, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}),
        ),
        ("/properties/parameters/items/properties/name", json!({"maxLength": 63})),
        ("/properties/parameters/items/properties/pattern", json!({"maxLength": 1024})),
        ("/properties/patchContainers", json!({"maxItems": 64})),
        (
            "/properties/selector/properties/matchConditions",
            json!({"maxItems": 64, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}),
        ),
        ("/properties/selector/properties/matchConditions/items/properties/name", json!({"maxLength": 63})),
        (
            "/properties/selector/properties/matchConditions/items/properties/expression",
            json!({"maxLength": 4096}),
        ),
    ] {
        let place = spec.pointer_mut(pointer).with_context(|| format!("the schema has no {pointer}"))?;
        for (key, value) in limits.as_object().into_iter().flatten() {
            place[key] = value.clone();
        }
    }
    Ok(())
}

/// Reserved for what the injector will say about a definition.
fn status() -> Value {
    json!({
        "description": "What the injector says about the definition.",
        "type": "object",
        "properties": {
            "observedGeneration": {"type": "integer", "format": "int64", "description": "The generation that this is about."},
            "injectedPods": {"type": "integer", "format": "int64", "description": "How many pods were injected."},
            "conditions": {
                "type": "array",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["type"],
                "items": {
                    "type": "object",
                    "required": ["type", "status"],
                    "properties": {
                        "type": {"type": "string"},
                        "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
                        "reason": {"type": "string"},
                        "message": {"type": "string"},
                        "observedGeneration": {"type": "integer", "format": "int64"},
                        "lastTransitionTime": {"type": "string", "format": "date-time"},
                    },
                },
            },
        },
    })
}

/// What schemars writes, in the form that the API server takes (apiextensions.k8s.io, "structural schema").
fn structural(schema: &mut Value) {
    let Value::Object(fields) = schema else { return };
    for key in ["$schema", "title", "default", "nullable", "definitions", "components"] {
        fields.remove(key);
    }
    for combination in ["allOf", "anyOf"] {
        // One alternative, or one and "null".
        let Some(Value::Array(parts)) = fields.remove(combination) else { continue };
        let part = parts.into_iter().find(|part| {
            part.get("type").is_some() || part.get("oneOf").is_some() || part.get("enum").is_some()
        });
        for (key, value) in part.and_then(|part| part.as_object().cloned()).unwrap_or_default() {
            fields.entry(key).or_insert(value);
        }
    }
    for key in ["title", "default", "nullable"] {
        fields.remove(key);
    }
    if let Some(Value::Array(variants)) = fields.remove("oneOf") {
        enumeration(fields, &variants);
    }
    if let Some(Value::Object(properties)) = fields.get_mut("properties") {
        properties.values_mut().for_each(structural);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(below) = fields.get_mut(key) {
            structural(below);
        }
    }
}

/// An enum whose variants have descriptions of their own.
fn enumeration(fields: &mut Map<String, Value>, variants: &[Value]) {
    let mut values = Vec::new();
    let mut description = fields.get("description").and_then(Value::as_str).unwrap_or_default().to_owned();
    for variant in variants {
        let named = variant["enum"].as_array().cloned().unwrap_or_else(|| vec![variant["const"].clone()]);
        for value in named {
            if let (Some(value), Some(meaning)) = (value.as_str(), variant["description"].as_str()) {
                let _ = write!(description, " {value}: {}", meaning.trim());
            }
            values.push(value);
        }
    }
    fields.insert("type".to_owned(), json!("string"));
    fields.insert("enum".to_owned(), Value::Array(values));
    fields.insert("description".to_owned(), Value::String(description.trim().to_owned()));
}
