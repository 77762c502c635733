//! The custom resource definitions, made from the types of the engine: for the chart, and as a plain manifest.
//!
//! The embedded pod YAML stays open on purpose: an expression `${...}` may stand where Kubernetes wants a number, and the
//! injector knows more about pods than a schema can say. It checks definitions when they are applied.

mod rules;
mod structural;

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

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
        let mut specification = kind.specification()?;
        // Whatever the features of `serde_json` are in this build.
        specification.sort_all_objects();
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
            "{{{{- if .Values.crds.install }}}}\n{HEAD}{head}  \
             # Helm would delete every definition with it.\n  \
             {{{{- $keep := ternary (dict \"helm.sh/resource-policy\" \"keep\") dict .Values.crds.keep }}}}\n  \
             {{{{- include \"kubernetes-sidecar-injector.metadata\" (dict \"root\" . \"annotations\" $keep) | nindent 2 }}}}\n\
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
                    column("Injected", "integer", ".status.injectedPods", 0),
                    column("Age", "date", ".metadata.creationTimestamp", 0),
                ],
                "schema": {"openAPIV3Schema": self.schema()?},
            }],
        }))
    }

    fn schema(&self) -> Result<Value> {
        let settings = SchemaSettings::openapi3().with(|settings| settings.inline_subschemas = true);
        let mut spec = sidecar_engine::definition::schema(settings).to_value();
        structural::convert(&mut spec).context("spec")?;
        let mut object = json!({
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
        });
        rules::add(&mut object, self.scope == "Namespaced")?;
        Ok(object)
    }
}

/// What the injector says about a definition (`crates/sidecar-injector/src/sources/status.rs`).
fn status() -> Value {
    json!({
        "description": "What the injector says about the definition.",
        "type": "object",
        "properties": {
            "observedGeneration": {"type": "integer", "format": "int64", "description": "The generation that this is about."},
            "injectedPods": {"type": "integer", "format": "int64", "description": "How many pods it was injected into since then."},
            "since": {"type": "string", "format": "date-time", "description": "When this generation was first looked at."},
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
