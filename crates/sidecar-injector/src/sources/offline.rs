//! The same definitions and namespaces for a command that runs once: everything must be good, or nothing is done.

use std::path::PathBuf;

use serde::Deserialize;
use sidecar_engine::Namespace;
use sidecar_engine::definition::ReadOptions;

use super::namespaces::NamespaceMap;
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
    let findings = Findings::of(&sources, options)?.all;
    if !findings.is_empty() {
        let drawn: Vec<_> = findings.iter().map(Finding::draw).collect();
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

#[derive(Deserialize)]
struct Object {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    items: Vec<Object>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Metadata {
    name: String,
    labels: std::collections::BTreeMap<String, String>,
    annotations: std::collections::BTreeMap<String, String>,
}

/// The Namespace objects of files; other objects in them do not matter.
pub(crate) fn namespaces(files: &[PathBuf]) -> Result<NamespaceMap, Failure> {
    let mut namespaces = Vec::new();
    for source in input::read(files)? {
        for document in split(&source)? {
            let object: Option<Object> = serde_json::from_str(&document.json)
                .map_err(|error| Failure::input(&source.name, format!("not a Namespace: {error}")))?;
            let objects = object.into_iter().flat_map(|mut object| {
                let items = std::mem::take(&mut object.items);
                items.into_iter().chain([object])
            });
            namespaces.extend(objects.filter(|object| object.kind == "Namespace").map(|object| {
                let Metadata { name, labels, annotations } = object.metadata;
                Namespace::new(&name, labels, annotations)
            }));
        }
    }
    Ok(NamespaceMap::of(namespaces))
}
