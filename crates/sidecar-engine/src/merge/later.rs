//! What definitions that are applied later bring into a pod.
//!
//! An earlier one must not lean on it: in the first call it is not there yet, in the second one it is, and the two calls
//! would come to different results.

use crate::json::Json;
use crate::render::Fragment;

/// Names of containers and volumes that only later definitions bring.
#[derive(Debug, Default)]
pub(super) struct Later {
    containers: Vec<String>,
    volumes: Vec<String>,
}

impl Later {
    /// What fragments bring that the earlier ones do not.
    pub(super) fn new<'f, 'e: 'f>(
        earlier: impl Iterator<Item = &'f Fragment<'e>> + Clone,
        later: impl Iterator<Item = &'f Fragment<'e>> + Clone,
    ) -> Self {
        let only_later = |lists: &[&str]| {
            let known: Vec<_> = earlier.clone().flat_map(|fragment| names(fragment, lists)).collect();
            let mut only: Vec<_> = later.clone().flat_map(|fragment| names(fragment, lists)).collect();
            only.retain(|name| !known.contains(name));
            only
        };
        Later { containers: only_later(&["containers", "initContainers"]), volumes: only_later(&["volumes"]) }
    }

    pub(super) fn has_container(&self, name: &str) -> bool {
        self.containers.iter().any(|later| later == name)
    }

    pub(super) fn has_volume(&self, name: &str) -> bool {
        self.volumes.iter().any(|later| later == name)
    }
}

fn names(fragment: &Fragment<'_>, lists: &[&str]) -> Vec<String> {
    let spec = fragment.pod.get("spec");
    let items = lists.iter().filter_map(|list| spec?.get(list)?.items()).flatten();
    items.filter_map(|item: &Json<'_>| Some(item.text_of("name")?.into_owned())).collect()
}
