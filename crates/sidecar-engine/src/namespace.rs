//! What is known of the namespace that a pod is created in.

use std::sync::Arc;

use crate::json::{Fields, Json};

/// The label that Kubernetes puts on every namespace.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// A namespace: its name, and its labels and annotations where they are known.
#[derive(Debug, Clone)]
pub struct Namespace {
    /// As expressions see it: `name`, `labels` and `annotations`.
    pub(crate) json: Json<'static>,
    /// Whether the labels and annotations are all there, or only what can be told from the name.
    pub(crate) is_known: bool,
}

/// Where namespaces are looked up; without asking anybody, since a pod is waiting.
pub trait Namespaces {
    /// The namespace of that name, if it is known.
    fn get(&self, name: &str) -> Option<Arc<Namespace>>;
}

/// Nothing is known of any namespace.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoNamespaces;

impl Namespaces for NoNamespaces {
    fn get(&self, _name: &str) -> Option<Arc<Namespace>> {
        None
    }
}

impl Namespace {
    /// A namespace with its labels and annotations.
    pub fn new(
        name: &str,
        labels: impl IntoIterator<Item = (String, String)>,
        annotations: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        Namespace { json: namespace(name, labels, annotations), is_known: true }
    }

    /// A namespace of which only the name is known.
    pub fn unknown(name: &str) -> Self {
        Namespace { json: namespace(name, [], []), is_known: false }
    }

    /// Its name; empty when not even that is known.
    pub fn name(&self) -> &str {
        self.text("name")
    }

    /// The value of a label, where it is known.
    pub fn label(&self, key: &str) -> Option<&str> {
        text(self.json.get("labels")?.get(key)?)
    }

    pub(crate) fn annotation(&self, key: &str) -> Option<&str> {
        text(self.json.get("annotations")?.get(key)?)
    }

    pub(crate) fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        entries(self.json.get("labels"))
    }

    pub(crate) fn annotations(&self) -> impl Iterator<Item = (&str, &str)> {
        entries(self.json.get("annotations"))
    }

    fn text(&self, field: &str) -> &str {
        self.json.get(field).and_then(text).unwrap_or_default()
    }
}

fn text<'j>(json: &'j Json<'static>) -> Option<&'j str> {
    match json {
        Json::Text(text) => Some(text),
        _ => None,
    }
}

fn entries<'j>(map: Option<&'j Json<'static>>) -> impl Iterator<Item = (&'j str, &'j str)> {
    let fields = map.and_then(Json::fields).map(Vec::as_slice).unwrap_or_default();
    fields.iter().filter_map(|(key, value)| Some((&**key, text(value)?)))
}

fn namespace(
    name: &str,
    labels: impl IntoIterator<Item = (String, String)>,
    annotations: impl IntoIterator<Item = (String, String)>,
) -> Json<'static> {
    let map = |entries: &mut dyn Iterator<Item = (String, String)>| -> Fields<'static> {
        entries.map(|(key, value)| (key.into(), Json::text_from(value))).collect()
    };
    let mut labels = map(&mut labels.into_iter());
    if !name.is_empty() && !labels.iter().any(|(key, _)| key == NAME_LABEL) {
        labels.push((NAME_LABEL.into(), Json::text_from(name.to_owned())));
    }
    Json::Object(vec![
        ("name".into(), Json::text_from(name.to_owned())),
        ("labels".into(), Json::Object(labels)),
        ("annotations".into(), Json::Object(map(&mut annotations.into_iter()))),
    ])
}
