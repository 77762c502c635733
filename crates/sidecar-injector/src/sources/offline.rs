//! The same definitions and namespaces for a command that runs once: everything must be good, or nothing is done.

use std::path::PathBuf;

use serde::Deserialize;
use sidecar_engine::Namespace;

use super::files::Files;
use super::namespaces::NamespaceMap;
use super::store::{Settings, Source, Store};
use crate::arguments::OfflineArguments;
use crate::failure::Failure;
use crate::manifest::documents::split;
use crate::manifest::input;

/// The definitions of files and folders, or the article's if there are none.
pub(crate) fn definitions(arguments: &OfflineArguments) -> Result<Store, Failure> {
    // Whatever the labels of namespaces are, there is nothing to watch here.
    let settings = Settings { knows_namespaces: true, ..Settings::default() };
    if arguments.definitions.is_empty() {
        return Ok(Store::builtin(settings));
    }
    let store = Store::new(settings);
    let (_, parts) = Files::read(&arguments.definitions)?;
    store.update(Source::Files, &parts);
    let complaints = store.complaints();
    if complaints.is_empty() {
        return Ok(store);
    }
    let lines = complaints.iter().flat_map(|complaint| {
        complaint.problems.lines().map(|problem| format!("error: {}: {problem}", complaint.place))
    });
    Err(Failure::Text(lines.collect::<Vec<_>>().join("\n")))
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
