//! The labels and annotations of the cluster's namespaces, kept in memory by a watch of their metadata.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use k8s_openapi::api::core::v1::Namespace as KubernetesNamespace;
use kube::core::PartialObjectMeta;
use kube::{Api, Client};
use sidecar_engine::{Namespace, Namespaces};

use super::metrics::Watch;
use super::readiness::Readiness;
use super::watching::{self, Watched};

/// What is awaited until the first list is complete.
pub(crate) const NAME: &str = "Namespace";

/// A whole object in an annotation: much memory for nothing.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// All namespaces that are known; none, where nothing watches them.
#[derive(Debug, Default)]
pub(crate) struct NamespaceMap(ArcSwap<HashMap<Arc<str>, Arc<Namespace>>>);

impl NamespaceMap {
    /// Of these namespaces, for good.
    pub(crate) fn of(namespaces: impl IntoIterator<Item = Namespace>) -> Self {
        let named = namespaces.into_iter().map(|namespace| (namespace.name().into(), Arc::new(namespace)));
        NamespaceMap(ArcSwap::from_pointee(named.collect()))
    }
}

impl Namespaces for NamespaceMap {
    fn get(&self, name: &str) -> Option<Arc<Namespace>> {
        self.0.load().get(name).cloned()
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

struct Known {
    name: Arc<str>,
    namespace: Arc<Namespace>,
}

impl Watched for Metadata {
    type Object = PartialObjectMeta<KubernetesNamespace>;
    type Kept = Known;

    fn name(&self) -> &'static str {
        NAME
    }

    fn keep(&self, object: Self::Object, _: Option<&Known>) -> Known {
        let metadata = object.metadata;
        let name = metadata.name.unwrap_or_default();
        let annotations = metadata.annotations.unwrap_or_default().into_iter();
        let namespace = Namespace::new(
            &name,
            metadata.labels.unwrap_or_default(),
            annotations.filter(|(key, _)| key != LAST_APPLIED),
        );
        Known { name: name.into(), namespace: Arc::new(namespace) }
    }

    fn publish(&self, kept: &BTreeMap<String, Known>) {
        let all = kept.values().map(|known| (known.name.clone(), known.namespace.clone()));
        self.map.0.store(Arc::new(all.collect()));
        self.readiness.loaded(NAME);
    }
}
