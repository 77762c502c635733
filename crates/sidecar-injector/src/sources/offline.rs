//! The same definitions and namespaces for a command that runs once: everything must be good, or nothing is done.

use std::path::PathBuf;

use serde_json::Value;
use sidecar_engine::Namespace;
use sidecar_engine::definition::ReadOptions;

use super::reading;
use super::store::{Part, Settings, Source, Store};
use crate::arguments::OfflineArguments;
use crate::failure::Failure;
use crate::findings::{Finding, Findings};
use crate::manifest::documents::split;
use crate::manifest::input;

/// The definitions of files and folders, or the article's if there are none.
pub(crate) fn definitions(arguments: &OfflineArguments) -> Result<Store, Failure> {
    let options = ReadOptions { allow_unknown_pod_fields: arguments.allow_unknown_pod_fields };
    // Whatever the labels of namespaces are, there is nothing to watch here.
    let settings = Settings { knows_namespaces: true, options, ..Settings::default() };
    if arguments.definitions.is_empty() {
        return Ok(Store::builtin(settings));
    }
    let sources = input::read(&arguments.definitions)?;
    let findings = Findings::of(&sources, options);
    findings.empty().for_each(|line| eprintln!("{line}"));
    if !findings.all.is_empty() {
        let drawn: Vec<_> = findings.all.iter().map(Finding::draw).collect();
        return Err(Failure::Text(drawn.join("\n\n")));
    }
    let store = Store::new(settings);
    store.update(Source::Files, &sources.iter().map(|source| part(source, options)).collect::<Vec<_>>());
    Ok(store)
}

fn part(source: &input::Source, options: ReadOptions) -> Part {
    let documents = reading::read_file(&source.name, &source.bytes, options);
    Part { origin: source.name.as_str().into(), documents: documents.into() }
}

/// The Namespace objects in a document; other objects in it do not matter.
pub(crate) fn namespaces_in(document: &Value) -> Vec<Namespace> {
    let text = |field: &str| document.get(field).and_then(Value::as_str).unwrap_or_default();
    if text("kind").ends_with("List") {
        let items = document.get("items").and_then(Value::as_array);
        return items.into_iter().flatten().flat_map(namespaces_in).collect();
    }
    if text("kind") != "Namespace" || text("apiVersion").contains('/') {
        return Vec::new();
    }
    let name = document.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    // What is no string the API server refuses, with all of the Namespace.
    let map = |field: &str| -> Vec<(String, String)> {
        let entries = document.pointer(&format!("/metadata/{field}")).and_then(Value::as_object);
        let entries = entries.into_iter().flatten();
        entries.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
    };
    vec![Namespace::new(name, map("labels"), map("annotations"))]
}

/// The Namespace objects of files.
pub(crate) fn namespaces(files: &[PathBuf]) -> Result<Vec<Namespace>, Failure> {
    let mut namespaces = Vec::new();
    for file in files {
        let before = namespaces.len();
        for source in input::read(std::slice::from_ref(file))? {
            for document in split(&source)? {
                let value: Value = serde_json::from_str(&document.json)
                    .map_err(|error| Failure::input(&source.name, error))?;
                namespaces.extend(namespaces_in(&value));
            }
        }
        if namespaces.len() == before {
            return Err(Failure::input(file.display(), "there is no Namespace in it"));
        }
    }
    Ok(namespaces)
}
