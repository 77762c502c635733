//! Finds the definitions that could select a pod without looking at all of them.
//!
//! Each definition stands under one label that a pod or its namespace must have for it to match. Those that have none
//! are looked at for every pod.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::definition::{ByName, Compiled, LabelSelector};
use crate::namespace::Namespace;
use crate::pod::Pod;

/// Places in the list of definitions, by what they can be found by.
#[derive(Debug, Default)]
pub(crate) struct Index {
    by_pod_label: Labels,
    by_namespace_label: Labels,
    by_namespace: HashMap<String, Vec<usize>>,
    by_name: HashMap<String, Vec<Named>>,
    /// Those that any pod could match.
    others: Vec<usize>,
}

type Labels = HashMap<String, HashMap<String, Vec<usize>>>;

#[derive(Debug)]
struct Named {
    at: usize,
    namespace: Option<String>,
}

impl Index {
    pub(crate) fn new(definitions: &[Arc<Compiled>]) -> Self {
        let mut index = Index::default();
        for (at, definition) in definitions.iter().enumerate() {
            let named = Named { at, namespace: definition.namespace.clone() };
            index.by_name.entry(definition.name.clone()).or_default().push(named);
            let selector = &definition.selector;
            let place = if let Some(namespace) = &definition.namespace {
                index.by_namespace.entry(namespace.clone()).or_default()
            } else if selector.by_name == ByName::Only {
                continue;
            } else if let Some((key, value)) = required_label(selector.pods.as_ref()) {
                index.by_pod_label.entry(key).or_default().entry(value).or_default()
            } else if let Some((key, value)) = required_label(selector.namespaces.as_ref()) {
                index.by_namespace_label.entry(key).or_default().entry(value).or_default()
            } else {
                &mut index.others
            };
            place.push(at);
        }
        index
    }

    /// The definitions that could apply to the pod, in their order.
    pub(crate) fn candidates(
        &self,
        pod: &Pod<'_>,
        namespace: &Namespace,
        asked: &BTreeSet<String>,
    ) -> impl Iterator<Item = usize> + use<> {
        let mut found = self.others.clone();
        let mut add = |labels: &Labels, key: &str, value: &str| {
            if let Some(places) = labels.get(key).and_then(|values| values.get(value)) {
                found.extend(places);
            }
        };
        if !self.by_pod_label.is_empty() {
            for (key, value) in pod.labels().and_then(|labels| labels.fields()).into_iter().flatten() {
                if let Some(value) = value.text() {
                    add(&self.by_pod_label, key, &value);
                }
            }
        }
        if !self.by_namespace_label.is_empty() {
            if namespace.is_known {
                namespace.labels().for_each(|(key, value)| add(&self.by_namespace_label, key, value));
            } else {
                // Any of them could match, and has to be reported.
                found.extend(self.by_namespace_label.values().flat_map(HashMap::values).flatten());
            }
        }
        found.extend(self.by_namespace.get(namespace.name()).into_iter().flatten());
        for name in asked {
            found.extend(self.by_name.get(name).into_iter().flatten().map(|named| named.at));
        }
        found.sort_unstable();
        found.dedup();
        found.into_iter()
    }

    /// Whether a pod of the namespace can ask for that name at all.
    pub(crate) fn has_name(&self, name: &str, namespace: &str) -> bool {
        self.by_name.get(name).is_some_and(|all| {
            all.iter().any(|named| named.namespace.as_deref().is_none_or(|home| home == namespace))
        })
    }

    /// Whether a definition is the one that its name stands for in a namespace: the namespace's own comes first.
    pub(crate) fn answers_to_name(&self, definition: &Compiled, namespace: &str) -> bool {
        definition.namespace.is_some()
            || !self
                .by_name
                .get(&definition.name)
                .is_some_and(|all| all.iter().any(|named| named.namespace.as_deref() == Some(namespace)))
    }

    /// A cluster-wide name that differs in a letter or two.
    pub(crate) fn near_name(&self, name: &str) -> Option<&str> {
        let cluster_wide =
            self.by_name.iter().filter(|(_, all)| all.iter().any(|named| named.namespace.is_none()));
        crate::suggestion::nearest(name, cluster_wide.map(|(name, _)| name.as_str()))
    }
}

/// A label without which the selector matches nothing.
fn required_label(selector: Option<&LabelSelector>) -> Option<(String, String)> {
    selector?.match_labels.iter().next().map(|(key, value)| (key.clone(), value.clone()))
}
