//! Where definitions come from, and the namespaces that they select by: files, the cluster's objects, or both.
//!
//! ```text
//! files ──────(look, every change)──┐
//!                                   ├──> reading ──> store ──> Engine, swapped whole
//! resources ──(watch, both kinds)───┘
//! namespaces ─(watch, metadata)──────────────────────────────> NamespaceMap, swapped whole
//! ```
//!
//! Reviews read what was swapped in last and wait for nothing. `readiness` knows what has not been loaded yet.

mod files;
mod metrics;
pub(crate) mod namespaces;
pub(crate) mod offline;
pub(crate) mod readiness;
mod reading;
mod resources;
pub(crate) mod status;
mod store;
pub(crate) mod watching;

pub(crate) use store::Store;

use std::path::PathBuf;
use std::sync::Arc;

use kube::Client;
use prometheus_client::registry::Registry;
use sidecar_engine::definition::{Kind, ReadOptions};

use crate::arguments::ServeArguments;
use crate::failure::Failure;
use files::Files;
use metrics::Watches;
use namespaces::NamespaceMap;
use readiness::Readiness;
use status::Statuses;
use store::{Settings, Source};

/// What a server was told to load.
#[derive(Debug)]
pub(crate) struct Sources {
    files: Vec<PathBuf>,
    resources: bool,
    /// Whether the objects say how they are.
    status: bool,
    settings: Settings,
}

/// What was loaded, and what remains to be followed.
pub(crate) struct Loading {
    pub(crate) definitions: Arc<Store>,
    pub(crate) namespaces: Arc<NamespaceMap>,
    pub(crate) readiness: Arc<Readiness>,
    /// Present when the cluster's definitions are to say how they are.
    pub(crate) statuses: Option<Arc<Statuses>>,
    files: Option<Files>,
    /// Present when anything of the cluster is watched.
    client: Option<Client>,
    kinds: &'static [Kind],
    watches: Watches,
}

impl Sources {
    pub(crate) fn new(arguments: &ServeArguments) -> Self {
        let excluded = arguments.excluded_namespaces.clone();
        Sources {
            // A variable that is set to nothing gives nothing.
            files: arguments
                .definitions
                .iter()
                .filter(|path| !path.as_os_str().is_empty())
                .cloned()
                .collect(),
            resources: arguments.definition_resources,
            status: arguments.reporting.definition_status && arguments.definition_resources,
            settings: Settings {
                options: ReadOptions { allow_unknown_pod_fields: arguments.allow_unknown_pod_fields },
                excluded_namespaces: excluded.map(|mut names| {
                    names.retain(|name| !name.is_empty());
                    names
                }),
                knows_namespaces: arguments.definition_resources || arguments.watch_namespaces,
            },
        }
    }

    /// Whether the labels of namespaces are known.
    pub(crate) fn know_namespaces(&self) -> bool {
        self.settings.knows_namespaces
    }

    /// Whether anything of the cluster is watched.
    pub(crate) fn need_cluster(&self) -> bool {
        self.settings.knows_namespaces
    }

    /// Reads the files. The client is used if [`Sources::need_cluster`].
    pub(crate) fn load(self, client: Option<Client>) -> Result<Loading, Failure> {
        let watches_namespaces = self.settings.knows_namespaces;
        let client = client.filter(|_| watches_namespaces);
        let kinds: &[Kind] = if self.resources { &resources::KINDS } else { &[] };
        let is_configured = self.resources || !self.files.is_empty();
        let definitions =
            if is_configured { Store::new(self.settings) } else { Store::builtin(self.settings) };
        let files = if self.files.is_empty() {
            None
        } else {
            let (files, parts) = Files::read(&self.files, definitions.options())?;
            definitions.update(Source::Files, &parts);
            Some(files)
        };
        let mut awaited: Vec<_> = kinds.iter().map(|kind| kind.as_str()).collect();
        awaited.extend(watches_namespaces.then_some(namespaces::NAME));
        Ok(Loading {
            definitions: Arc::new(definitions),
            namespaces: Arc::default(),
            readiness: Arc::new(Readiness::awaiting(awaited)),
            statuses: self.status.then(Arc::default),
            files,
            client,
            kinds,
            watches: Watches::default(),
        })
    }
}

impl Loading {
    /// Has definitions and watches among the metrics.
    pub(crate) fn register(&self, registry: &mut Registry) {
        self.definitions.register(registry);
        self.watches.register(registry);
    }

    /// Keeps everything up to date, as long as the runtime lives.
    pub(crate) fn follow(self) {
        if let Some(files) = self.files {
            tokio::spawn(files.follow(self.definitions.clone()));
        }
        if let Some(client) = self.client {
            for kind in self.kinds {
                let (store, readiness) = (self.definitions.clone(), self.readiness.clone());
                let statuses = self.statuses.clone();
                let watch = self.watches.of(kind.as_str());
                tokio::spawn(resources::follow(client.clone(), *kind, store, statuses, readiness, watch));
            }
            if let Some(statuses) = self.statuses {
                let (client, store) = (client.clone(), self.definitions.clone());
                tokio::spawn(async move { statuses.follow(client, store).await });
            }
            let watch = self.watches.of(namespaces::NAME);
            tokio::spawn(namespaces::follow(client, self.namespaces, self.readiness, watch));
        }
    }
}
