//! Text to definitions, good and bad: the one place in which a server's files and objects are read.

use std::sync::Arc;

use sidecar_engine::definition::{
    Compiled, DefinitionName, FieldPath, Problem, ProblemCode, ReadOptions, read, read_json,
};

/// One document of a source.
#[derive(Debug, Clone)]
pub(crate) struct Document {
    /// Where it is, for people: `definitions/log.yaml:1`, or `ClusterSidecarDefinition log`.
    pub(crate) place: Arc<str>,
    /// What it is called, where that much can be read.
    pub(crate) name: Option<DefinitionName>,
    pub(crate) outcome: Result<Arc<Compiled>, Arc<[Problem]>>,
}

impl Document {
    /// Something that cannot even be read, and may hold any definition.
    pub(crate) fn unreadable(place: &str, problem: String) -> Self {
        let problem = Problem::new(ProblemCode::Syntax, FieldPath::default(), problem);
        Document { place: place.into(), name: None, outcome: Err([problem].into()) }
    }
}

/// The documents of a file; what says nothing is none.
pub(crate) fn read_file(file: &str, bytes: &[u8], options: ReadOptions) -> Vec<Document> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let problem = format!("not UTF-8 (byte {})", error.valid_up_to());
            return vec![Document::unreadable(file, problem)];
        }
    };
    let documents = read(text, &options).into_iter().map(|document| Document {
        place: format!("{file}:{}", document.line).into(),
        name: document.name.clone(),
        outcome: document.compile(text).map(Arc::new).map_err(Into::into),
    });
    documents.collect()
}

/// An object of the cluster, as JSON.
pub(crate) fn read_object(name: DefinitionName, json: &str, options: ReadOptions) -> Document {
    let outcome = read_json(json, &options).and_then(Compiled::new).map(Arc::new).map_err(Into::into);
    Document { place: name.to_string().into(), name: Some(name), outcome }
}
