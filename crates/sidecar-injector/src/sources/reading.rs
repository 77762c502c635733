//! Text to definitions, good and bad: the one place in which files and objects are read.

use std::sync::Arc;

use serde::Deserialize;
use sidecar_engine::definition::{Compiled, FieldPath, Key, Kind, Problem, ProblemCode};
use sidecar_engine::yaml;

/// One document of a source.
#[derive(Debug, Clone)]
pub(crate) struct Document {
    /// Where it is, for people: `definitions/log.yaml:1`, or `ClusterSidecarDefinition log`.
    pub(crate) place: Arc<str>,
    /// What it is called, where that much can be read.
    pub(crate) key: Option<Key>,
    pub(crate) outcome: Result<Arc<Compiled>, Arc<[Problem]>>,
}

impl Document {
    /// Something that cannot even be read, and may hold any definition.
    pub(crate) fn unreadable(place: &str, problem: String) -> Self {
        let problem = Problem {
            code: ProblemCode::Syntax,
            path: FieldPath::default(),
            message: problem,
            suggestion: None,
            place: None,
        };
        Document { place: place.into(), key: None, outcome: Err([problem].into()) }
    }
}

/// The documents of a file; what says nothing is none.
pub(crate) fn read_file(name: &str, bytes: &[u8]) -> Vec<Document> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let problem = format!("not UTF-8 (byte {})", error.valid_up_to());
            return vec![Document::unreadable(name, problem)];
        }
    };
    let mut documents = Vec::new();
    for (line, text) in cut(text) {
        let place = format!("{name}:{line}");
        if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            continue;
        }
        documents.push(read_document(&place, &text));
    }
    documents
}

/// An object of the cluster, as JSON.
pub(crate) fn read_object(place: &str, json: &str) -> Document {
    read_document(place, json)
}

#[derive(Deserialize)]
struct Head {
    kind: Kind,
    metadata: HeadMetadata,
}

#[derive(Deserialize)]
struct HeadMetadata {
    name: String,
    namespace: Option<String>,
}

fn read_document(place: &str, text: &str) -> Document {
    let outcome = Compiled::from_yaml(text).map(Arc::new).map_err(Into::into);
    let key = match &outcome {
        Ok(compiled) => Some(compiled.key()),
        Err(_) => yaml::parse::<Head>(text).ok().map(|head| Key {
            kind: head.kind,
            namespace: head.metadata.namespace.filter(|_| head.kind == Kind::SidecarDefinition),
            name: head.metadata.name,
        }),
    };
    Document { place: place.into(), key, outcome }
}

/// The documents of a stream, each with the line in which it begins.
fn cut(text: &str) -> Vec<(usize, String)> {
    let mut documents = vec![(1, String::new())];
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let content = line
            .strip_prefix("---")
            .filter(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']));
        match (content, documents.last_mut()) {
            (None, Some((_, document))) => document.push_str(line),
            (Some(content), _) if content.trim().is_empty() => documents.push((index + 2, String::new())),
            (content, _) => documents.push((index + 1, content.unwrap_or(line).to_owned())),
        }
    }
    documents
}
