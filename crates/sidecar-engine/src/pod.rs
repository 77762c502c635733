//! A borrowed view of a pod: just what selecting, merging and checking read, made in one pass over its bytes.

use serde::de::{IgnoredAny, MapAccess};

use crate::error::PodError;
use crate::view::{Node, RawObject, Shape, Text, TextMap};

/// The label, and annotation, by which a pod asks for sidecars or refuses them.
pub(crate) const INJECT_KEY: &str = "sidecar.me/inject";

/// Set by the kubelet on the API server's copy of a static pod; a changed copy is deleted by the kubelet.
const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";

/// A pod, or the template of one, borrowed from its JSON text.
#[derive(Debug, Default)]
pub(crate) struct PodView<'a> {
    pub(crate) metadata: Node<MetadataView<'a>>,
    pub(crate) spec: Node<SpecView<'a>>,
}

#[derive(Debug, Default)]
pub(crate) struct MetadataView<'a> {
    pub(crate) name: Node<Text<'a>>,
    pub(crate) generate_name: Node<Text<'a>>,
    pub(crate) labels: Node<TextMap<'a>>,
    pub(crate) annotations: Node<Annotations<'a>>,
    pub(crate) owners: Node<Vec<Node<Owner<'a>>>>,
}

#[derive(Debug, Default)]
pub(crate) struct SpecView<'a> {
    pub(crate) containers: Node<Containers<'a>>,
    pub(crate) init_containers: Node<Containers<'a>>,
    pub(crate) ephemeral_containers: Node<Containers<'a>>,
    host_network: Node<bool>,
    os: Node<OperatingSystem<'a>>,
    node_selector: Node<TextMap<'a>>,
}

pub(crate) type Containers<'a> = Vec<Node<RawObject<'a>>>;

/// The few annotations that decide something. The others are skipped: one of them alone
/// (`kubectl.kubernetes.io/last-applied-configuration`) can be larger than the rest of the pod.
#[derive(Debug, Default)]
pub(crate) struct Annotations<'a> {
    mirror: bool,
    inject: Node<Text<'a>>,
}

/// An owner reference, for the log line: pods of a ReplicaSet have no name yet when they are admitted.
#[derive(Debug, Default)]
pub(crate) struct Owner<'a> {
    pub(crate) kind: Node<Text<'a>>,
    pub(crate) name: Node<Text<'a>>,
    controller: Node<bool>,
}

#[derive(Debug, Default)]
struct OperatingSystem<'a> {
    name: Node<Text<'a>>,
}

impl<'a> PodView<'a> {
    /// Reads the JSON text of one pod.
    pub(crate) fn parse(text: &'a str) -> Result<Self, PodError> {
        match serde_json::from_str(text).map_err(|error| PodError::Malformed {
            line: error.line(),
            column: error.column(),
            problem: error.to_string(),
        })? {
            Node::Present(pod) => Ok(pod),
            Node::Absent | Node::Wrong => Err(PodError::NotAnObject),
        }
    }

    pub(crate) fn label(&self, key: &str) -> Option<&str> {
        self.metadata.present()?.labels.present()?.get(key)
    }

    /// Whether there are labels that cannot be read, because one of them is no string.
    pub(crate) fn has_unreadable_labels(&self) -> bool {
        self.metadata.present().is_some_and(|metadata| metadata.labels == Node::Wrong)
    }

    /// What the annotation `sidecar.me/inject` says.
    pub(crate) fn inject_annotation(&self) -> Option<&str> {
        self.metadata.present()?.annotations.present()?.inject.present().map(|text| &*text.0)
    }

    /// Whether the pod asks for the sidecars that leave the choice to it (the article's label).
    pub(crate) fn asks_by_label(&self) -> bool {
        matches!(self.label(INJECT_KEY), Some("true" | "True"))
    }

    pub(crate) fn is_mirror(&self) -> bool {
        self.metadata
            .present()
            .and_then(|metadata| metadata.annotations.present())
            .is_some_and(|annotations| annotations.mirror)
    }

    pub(crate) fn uses_host_network(&self) -> bool {
        self.spec.present().is_some_and(|spec| spec.host_network == Node::Present(true))
    }

    /// By `spec.os.name`, or by the node selector where that is unset.
    pub(crate) fn runs_on_windows(&self) -> bool {
        let Some(spec) = self.spec.present() else { return false };
        let by_os = spec.os.present().and_then(|os| os.name.present()).map(|name| &*name.0);
        let by_selector = || spec.node_selector.present().and_then(|labels| labels.get("kubernetes.io/os"));
        by_os.or_else(by_selector) == Some("windows")
    }

    /// The name, or the prefix of the name that the API server will make.
    pub(crate) fn name(&self) -> Option<&str> {
        let metadata = self.metadata.present()?;
        let named = metadata.name.present().or(metadata.generate_name.present());
        named.map(|text| &*text.0)
    }

    /// Kind and name of the controller that owns the pod, or of its first owner.
    pub(crate) fn owner(&self) -> Option<(&str, &str)> {
        let owners = self.metadata.present()?.owners.present()?;
        let mut known = owners.iter().filter_map(Node::present);
        let owner =
            known.clone().find(|owner| owner.controller == Node::Present(true)).or_else(|| known.next())?;
        Some((&owner.kind.present()?.0, &owner.name.present()?.0))
    }
}

impl<'a> SpecView<'a> {
    /// The container of that name, whichever list it is in, and the list's field name.
    pub(crate) fn find(&self, name: &str) -> Option<(&'static str, &RawObject<'a>)> {
        [
            ("containers", &self.containers),
            ("initContainers", &self.init_containers),
            ("ephemeralContainers", &self.ephemeral_containers),
        ]
        .into_iter()
        .filter_map(|(list, node)| Some((list, node.present()?)))
        .flat_map(|(list, items)| items.iter().filter_map(move |item| Some((list, item.present()?))))
        .find(|(_, container)| container.text("name").as_deref() == Some(name))
    }

    /// Whether there are containers, and every list of them is a list of objects: otherwise it cannot be told which
    /// names are taken, and the API server will refuse the pod anyway.
    pub(crate) fn has_containers(&self) -> bool {
        let has_some = self.containers.present().is_some_and(|containers| !containers.is_empty());
        has_some
            && [&self.containers, &self.init_containers, &self.ephemeral_containers].into_iter().all(|node| {
                match node {
                    Node::Absent => true,
                    Node::Wrong => false,
                    Node::Present(items) => items.iter().all(|item| item.present().is_some()),
                }
            })
    }
}

/// Reads these fields of an object into a view, and skips the others.
macro_rules! fields_of {
    ($view:ident { $($key:literal => $field:ident),* $(,)? }) => {
        impl<'de: 'a, 'a> Shape<'de> for $view<'a> {
            fn map<A: MapAccess<'de>>(mut map: A) -> Result<Option<Self>, A::Error> {
                let mut view = $view::default();
                while let Some(key) = map.next_key::<Text<'de>>()? {
                    match &*key.0 {
                        $($key => view.$field = map.next_value()?,)*
                        _ => skip(&mut map)?,
                    }
                }
                Ok(Some(view))
            }
        }
    };
}

fields_of!(PodView { "metadata" => metadata, "spec" => spec });
fields_of!(MetadataView {
    "name" => name,
    "generateName" => generate_name,
    "labels" => labels,
    "annotations" => annotations,
    "ownerReferences" => owners,
});
fields_of!(SpecView {
    "containers" => containers,
    "initContainers" => init_containers,
    "ephemeralContainers" => ephemeral_containers,
    "hostNetwork" => host_network,
    "os" => os,
    "nodeSelector" => node_selector,
});
fields_of!(Owner { "kind" => kind, "name" => name, "controller" => controller });
fields_of!(OperatingSystem { "name" => name });

impl<'de: 'a, 'a> Shape<'de> for Annotations<'a> {
    fn map<A: MapAccess<'de>>(mut map: A) -> Result<Option<Self>, A::Error> {
        let mut annotations = Annotations::default();
        while let Some(key) = map.next_key::<Text<'de>>()? {
            match &*key.0 {
                MIRROR_ANNOTATION => {
                    annotations.mirror = true;
                    skip(&mut map)?;
                }
                INJECT_KEY => annotations.inject = map.next_value()?,
                _ => skip(&mut map)?,
            }
        }
        Ok(Some(annotations))
    }
}

fn skip<'de, A: MapAccess<'de>>(map: &mut A) -> Result<(), A::Error> {
    map.next_value::<IgnoredAny>().map(drop)
}
