//! A sidecar definition as its author writes it: one small Kubernetes object that holds ordinary pod YAML.
//!
//! The shape is complete. What this version cannot apply yet is refused when a definition is compiled, by name;
//! nothing that was written is silently ignored.

mod compile;
mod labels;

pub use compile::Compiled;
pub(crate) use compile::ContainerFragment;
pub use labels::{LabelSelector, Requirement, RequirementOperator};

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

/// The one API version of the definition kinds.
pub const API_VERSION: &str = "sidecar.me/v1alpha1";

/// The article's definition, an ordinary one, embedded for a start without any configuration.
pub const BUILTIN_CURL: &str = include_str!("../builtin/curl.yaml");

/// A definition, as written.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Definition {
    /// Must be [`API_VERSION`].
    pub api_version: String,
    /// Which pods the definition may reach.
    pub kind: Kind,
    /// Its name is what pods ask for and what decisions report.
    pub metadata: Metadata,
    /// What to inject into which pods.
    pub spec: DefinitionSpec,
}

/// The two kinds of definitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Kind {
    /// For the pods of every namespace.
    ClusterSidecarDefinition,
    /// For the pods of its own namespace only.
    SidecarDefinition,
}

/// The part of a Kubernetes object's metadata that a definition may have.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metadata {
    /// A DNS label, unique among the definitions of one engine.
    pub name: String,
    /// Only for a [`Kind::SidecarDefinition`].
    pub namespace: Option<String>,
    /// Free; nothing here reads them.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Free; nothing here reads them.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// What to inject into which pods.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DefinitionSpec {
    /// Which pods; absent: those labelled `sidecar.me/inject` `"true"` or `"True"`.
    #[serde(default)]
    pub selector: Selector,
    /// What the owner of a pod may change.
    #[serde(default)]
    pub parameters: Vec<Map<String, Value>>,
    /// A partial pod template in plain pod YAML.
    #[serde(default)]
    pub inject: PodTemplate,
    /// What the pod's own containers get.
    #[serde(default)]
    pub patch_containers: Vec<Map<String, Value>>,
    /// Where the injected containers stand in their lists; absent: last.
    #[serde(default)]
    pub placement: Placement,
    /// Several definitions on one pod are applied by order, then by name.
    #[serde(default)]
    pub order: i32,
    /// When the pod has something different under the same key.
    #[serde(default)]
    pub on_conflict: OnConflict,
    /// Whether pods cannot opt out.
    #[serde(default)]
    pub required: bool,
    /// When the definition selects a pod and cannot be applied to it.
    #[serde(default)]
    pub failure_policy: FailurePolicy,
}

/// Which pods a definition selects; every part that is given must match.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Selector {
    /// By the labels of the pod's namespace.
    pub namespace_selector: Option<LabelSelector>,
    /// By the labels of the pod; empty: all pods.
    pub pod_selector: Option<LabelSelector>,
    /// By CEL expressions over the pod.
    #[serde(default)]
    pub match_conditions: Vec<Map<String, Value>>,
}

/// A partial pod template.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodTemplate {
    /// Labels and annotations for the pod.
    #[serde(default)]
    pub metadata: Map<String, Value>,
    /// Fields of a pod's spec.
    #[serde(default)]
    pub spec: Map<String, Value>,
}

/// Where injected containers stand.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Placement {
    /// In `spec.containers`.
    pub containers: Option<Value>,
    /// In `spec.initContainers`.
    pub init_containers: Option<Value>,
}

/// What happens when the pod has something different under the same key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum OnConflict {
    /// The definition is not applied to this pod.
    #[default]
    Fail,
    /// The pod's own stays.
    KeepPod,
    /// The definition's takes its place.
    Replace,
}

/// What happens to a pod that a definition selects and cannot be applied to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum FailurePolicy {
    /// The pod is allowed, with a warning.
    #[default]
    Ignore,
    /// The pod is denied.
    Fail,
}
