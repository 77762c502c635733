//! Definitions as objects of the cluster: ClusterSidecarDefinition and SidecarDefinition.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use kube::api::{ApiResource, DynamicObject};
use kube::core::TypeMeta;
use kube::{Api, Client};
use sidecar_engine::definition::{API_VERSION, DefinitionName, Kind};

use super::metrics::Watch;
use super::readiness::Readiness;
use super::reading::{self, Document};
use super::status::{Seen, Statuses};
use super::store::{Part, Source, Store};
use super::watching::{self, Watched};

/// The kinds, as they are awaited and logged.
pub(crate) const KINDS: [Kind; 2] = [Kind::ClusterSidecarDefinition, Kind::SidecarDefinition];

/// Keeps the store up to date with the objects of a kind, as long as it is polled.
pub(super) async fn follow(
    client: Client,
    kind: Kind,
    store: Arc<Store>,
    statuses: Option<Arc<Statuses>>,
    readiness: Arc<Readiness>,
    watch: Watch,
) {
    let resource = resource(kind);
    let api = Api::all_with(client, &resource);
    watching::follow(api, Objects { kind, store, statuses, readiness }, watch).await;
}

/// Where the objects of a kind are.
pub(super) fn resource(kind: Kind) -> ApiResource {
    let (group, version) = API_VERSION.split_once('/').unwrap_or_default();
    ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: API_VERSION.to_owned(),
        kind: kind.as_str().to_owned(),
        plural: format!("{}s", kind.as_str().to_lowercase()),
    }
}

struct Objects {
    kind: Kind,
    store: Arc<Store>,
    /// Absent: nothing is written into the objects.
    statuses: Option<Arc<Statuses>>,
    readiness: Arc<Readiness>,
}

struct Object {
    hash: u64,
    document: Document,
    /// Where something is written into the objects: what is there.
    seen: Option<Arc<Seen>>,
}

impl Watched for Objects {
    // Untyped: an object that is not what we expect must be reported, not end the watch.
    type Object = DynamicObject;
    type Kept = Object;

    fn name(&self) -> &'static str {
        self.kind.as_str()
    }

    fn keep(&self, mut object: DynamicObject, before: Option<&Object>) -> Object {
        let metadata = &mut object.metadata;
        let name = DefinitionName {
            kind: self.kind,
            namespace: metadata.namespace.clone(),
            name: metadata.name.clone().unwrap_or_default(),
        };
        // What others do to an object's metadata must not look like a change of the definition.
        metadata.managed_fields = None;
        metadata.resource_version = None;
        let generation = metadata.generation.unwrap_or_default();
        object.types.get_or_insert_with(|| TypeMeta {
            api_version: API_VERSION.to_owned(),
            kind: self.kind.as_str().to_owned(),
        });
        let status = object.data.as_object_mut().and_then(|fields| fields.remove("status"));
        let json = match serde_json::to_string(&object) {
            Ok(json) => json,
            Err(error) => {
                let document = Document::unreadable(&name.to_string(), error.to_string());
                return Object { hash: 0, document, seen: None };
            }
        };
        let mut hasher = DefaultHasher::new();
        json.hash(&mut hasher);
        let hash = hasher.finish();
        let document = match before.filter(|before| before.hash == hash) {
            Some(before) => before.document.clone(),
            None => reading::read_object(name, &json, self.store.options()),
        };
        let seen = self.statuses.as_ref().map(|_| {
            let problems = document.outcome.as_ref().err().cloned();
            Arc::new(Seen { generation, status: status.unwrap_or_default(), problems })
        });
        Object { hash, document, seen }
    }

    fn publish(&self, kept: &BTreeMap<String, Object>) {
        let documents = kept.values().map(|object| object.document.clone()).collect();
        let part = Part { origin: self.kind.as_str().into(), documents };
        self.store.update(Source::Resources(self.kind), &[part]);
        self.readiness.loaded(self.kind.as_str());
        if let Some(statuses) = &self.statuses {
            let seen = kept.values();
            let seen = seen.filter_map(|object| Some((object.document.name.clone()?, object.seen.clone()?)));
            statuses.publish(self.kind, seen);
        }
    }
}
