//! The labels and annotations of the cluster's namespaces, kept in memory by a watch of their metadata.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use arc_swap::ArcSwap;
use k8s_openapi::api::core::v1::Namespace as KubernetesNamespace;
use kube::core::PartialObjectMeta;
use kube::{Api, Client};
use sidecar_engine::{Namespace, Namespaces};
use tokio::sync::watch;

use super::metrics::Watch;
use super::readiness::Readiness;
use super::watching::{self, Watched};

/// What is awaited until the first list is complete.
pub(crate) const NAME: &str = "Namespace";

/// A whole object in an annotation: much memory for nothing.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// All namespaces that are known; none, where nothing watches them.
#[derive(Debug, Default)]
pub(crate) struct NamespaceMap {
    known: ArcSwap<HashMap<Arc<str>, Known>>,
    /// Counted up when one that was known has other labels or annotations.
    changes: watch::Sender<u64>,
}

#[derive(Debug, Clone)]
struct Known {
    namespace: Arc<Namespace>,
    /// A hash of its labels and annotations.
    version: u64,
}

impl NamespaceMap {
    /// Of these namespaces, for good.
    pub(crate) fn of(namespaces: impl IntoIterator<Item = Namespace>) -> Self {
        let named = namespaces
            .into_iter()
            .map(|namespace| (namespace.name().into(), Known { namespace: Arc::new(namespace), version: 0 }));
        NamespaceMap { known: ArcSwap::from_pointee(named.collect()), changes: watch::Sender::default() }
    }

    /// Another number whenever what is known of a namespace is something else.
    pub(crate) fn version(&self, name: &str) -> Option<u64> {
        self.known.load().get(name).map(|known| known.version)
    }

    /// Where to see that one that was known has other labels or annotations than before.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn publish(&self, known: HashMap<Arc<str>, Known>) {
        let before = self.known.swap(Arc::new(known));
        let is_other = |(name, known): (&Arc<str>, &Known)| {
            before.get(name).is_some_and(|before| before.version != known.version)
        };
        if self.known.load().iter().any(is_other) {
            self.changes.send_modify(|changes| *changes += 1);
        }
    }
}

impl Namespaces for NamespaceMap {
    fn get(&self, name: &str) -> Option<Arc<Namespace>> {
        self.known.load().get(name).map(|known| known.namespace.clone())
    }
}

/// Keeps the map up to date, as long as it is polled.
pub(super) async fn follow(client: Client, map: Arc<NamespaceMap>, readiness: Arc<Readiness>, watch: Watch) {
    // The API server then sends nothing but metadata.
    let api: Api<PartialObjectMeta<KubernetesNamespace>> = Api::all(client);
    watching::follow(api, Metadata { map, readiness }, watch).await;
}

struct Metadata {
    map: Arc<NamespaceMap>,
    readiness: Arc<Readiness>,
}

impl Watched for Metadata {
    type Object = PartialObjectMeta<KubernetesNamespace>;
    type Kept = (Arc<str>, Known);

    fn name(&self) -> &'static str {
        NAME
    }

    fn keep(&self, object: Self::Object, _: Option<&Self::Kept>) -> Self::Kept {
        let metadata = object.metadata;
        let name = metadata.name.unwrap_or_default();
        let labels = metadata.labels.unwrap_or_default();
        let mut annotations = metadata.annotations.unwrap_or_default();
        annotations.remove(LAST_APPLIED);
        let mut hasher = DefaultHasher::new();
        (&labels, &annotations).hash(&mut hasher);
        let namespace = Arc::new(Namespace::new(&name, labels, annotations));
        (name.into(), Known { namespace, version: hasher.finish() })
    }

    fn publish(&self, kept: &BTreeMap<String, Self::Kept>) {
        self.map.publish(kept.values().cloned().collect());
        self.readiness.loaded(NAME);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(namespaces: &[(&str, &str)]) -> BTreeMap<String, (Arc<str>, Known)> {
        let watched = Metadata { map: Arc::default(), readiness: Arc::new(Readiness::awaiting(vec![])) };
        let keep = |(name, team): &(&str, &str)| {
            let mut object = PartialObjectMeta::<KubernetesNamespace>::default();
            object.metadata.name = Some((*name).to_owned());
            object.metadata.labels = Some([("team".to_owned(), (*team).to_owned())].into());
            ((*name).to_owned(), watched.keep(object, None))
        };
        namespaces.iter().map(keep).collect()
    }

    #[test]
    fn a_change_is_one_of_a_namespace_that_was_known() {
        let watched = Metadata { map: Arc::default(), readiness: Arc::new(Readiness::awaiting(vec![])) };
        let mut changes = watched.map.changes();
        let mut is_change = |namespaces: &[(&str, &str)]| {
            watched.publish(&map(namespaces));
            let is_change = changes.has_changed().unwrap();
            changes.mark_unchanged();
            is_change
        };
        assert!(!is_change(&[("shop", "a")]));
        assert!(!is_change(&[("shop", "a"), ("new", "a")]));
        assert!(is_change(&[("shop", "b"), ("new", "a")]));
        assert!(!is_change(&[("shop", "b")]));
        assert_eq!(watched.map.version("new"), None);
        let version = watched.map.version("shop");
        watched.publish(&map(&[("shop", "a")]));
        assert_ne!(watched.map.version("shop"), version);
    }
}
