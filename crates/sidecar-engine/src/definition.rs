//! A sidecar definition as its author writes it: one small Kubernetes object that holds ordinary pod YAML.
//!
//! These types are the format. The custom resource definitions are generated from them (`cargo xtask generate`), and
//! so is the schema that files are checked against, so a field is described once, here.

mod compile;
mod labels;
mod places;
mod problem;
mod read;
mod references;
#[cfg(feature = "schema")]
mod schema;
mod sections;
mod strict;

pub use compile::Compiled;
pub(crate) use compile::Written;
pub use labels::{LabelSelector, Requirement, RequirementOperator};
pub use problem::{FieldPath, Place, Problem, ProblemCode};
pub use read::{DefinitionName, Document, ReadOptions, read, read_json};
pub(crate) use references::never_injected;
#[cfg(feature = "schema")]
pub use schema::schema;

use serde::{Deserialize, Deserializer};

use crate::json::Json;

/// The one API version of the definition kinds.
pub const API_VERSION: &str = "sidecar.me/v1alpha1";

/// The article's definition, an ordinary one, embedded for a start without any configuration.
pub const BUILTIN_CURL: &str = include_str!("../builtin/curl.yaml");

/// A definition, as written.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Definition {
    /// Must be [`API_VERSION`].
    pub api_version: String,
    /// Which pods the definition may reach.
    pub kind: Kind,
    /// Its name is what pods ask for and what decisions report.
    pub metadata: Metadata,
    /// What to inject into which pods.
    pub spec: DefinitionSpec,
    /// Of the whole `spec`, as it is written: to tell whether it has changed.
    #[serde(skip)]
    pub fingerprint: u32,
}

/// The two kinds of definitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Kind {
    /// For the pods of every namespace.
    ClusterSidecarDefinition,
    /// For the pods of its own namespace only.
    SidecarDefinition,
}

impl Kind {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::ClusterSidecarDefinition => "ClusterSidecarDefinition",
            Kind::SidecarDefinition => "SidecarDefinition",
        }
    }
}

/// The part of a Kubernetes object's metadata that is read here.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// A DNS label, unique among the definitions of its kind and namespace.
    pub name: String,
    /// Only for a [`Kind::SidecarDefinition`].
    pub namespace: Option<String>,
}

/// What to inject into which pods.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct DefinitionSpec {
    /// Which pods get this. Absent: the pods labelled `sidecar.me/inject: "true"`.
    #[serde(default)]
    pub selector: Selector,
    /// What the owner of a pod may change, with the annotation `DEFINITION.sidecar.me/PARAMETER`, and within which limits.
    #[serde(default)]
    pub parameters: Vec<Parameter>,
    /// A partial pod template: ordinary pod YAML. Strings may hold expressions `${...}`.
    #[serde(default)]
    pub inject: PodTemplate,
    /// What the pod's own containers get.
    #[serde(default)]
    pub patch_containers: Vec<ContainerPatch>,
    /// Where the injected containers stand among the pod's own.
    #[serde(default)]
    pub placement: Placement,
    /// Several definitions on one pod are applied from the lowest order to the highest, those of one order by name.
    #[serde(default)]
    pub order: i32,
    /// What happens when the pod has something different under the same key.
    #[serde(default)]
    pub on_conflict: OnConflict,
    /// Whether pods and namespaces cannot opt out with `sidecar.me/inject: "false"`.
    #[serde(default)]
    pub required: bool,
    /// What happens to a pod that this selects and cannot be applied to.
    #[serde(default)]
    pub failure_policy: FailurePolicy,
    /// What happens to pods that run without this although it is meant for them, or with an older version of it.
    #[serde(default)]
    pub missed_pods: MissedPods,
}

/// Which pods a definition selects; every part that is given must match.
#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Selector {
    /// By the labels of the pod's namespace. Absent: every namespace. A `SidecarDefinition` has none: it is for its own namespace.
    pub namespace_selector: Option<LabelSelector>,
    /// By the labels of the pod. Absent: the pods labelled `sidecar.me/inject: "true"`. Empty: all pods.
    pub pod_selector: Option<LabelSelector>,
    /// By CEL expressions that must all be true, over `pod`, `namespace` and `params`.
    #[serde(default)]
    pub match_conditions: Vec<MatchCondition>,
    /// Whether a pod can ask for this by name, with the annotation `sidecar.me/inject: NAME,NAME`. A pod that asks needs
    /// to be in a namespace that namespaceSelector matches, and nothing else.
    #[serde(default)]
    pub by_name: ByName,
    /// Whether pods that share their node's network can be selected.
    #[serde(default)]
    pub include_host_network: bool,
    /// Whether pods for Windows nodes can be selected.
    #[serde(default)]
    pub include_windows: bool,
}

/// A condition in CEL.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct MatchCondition {
    /// What the condition is called in answers.
    pub name: String,
    /// A CEL expression that gives true or false.
    pub expression: String,
}

/// Whether pods can ask for a definition by name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum ByName {
    /// They can, and the selector selects others.
    #[default]
    Allowed,
    /// They must: the selector selects nobody.
    Only,
    /// They cannot.
    Refused,
}

/// What the owner of a pod may change.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Parameter {
    /// The name in expressions, as `params.NAME`, and in the annotation. Letters, digits and `_`, a letter first.
    pub name: String,
    /// What its values are.
    #[serde(default, rename = "type")]
    pub kind: ParameterType,
    /// What it is for.
    pub description: Option<String>,
    /// The value when neither the pod nor its namespace gives one. Absent: null.
    pub default: Option<Untyped>,
    /// The values that can be chosen from.
    pub allowed: Option<Vec<Untyped>>,
    /// A regular expression (RE2) that the whole text must match; for strings.
    pub pattern: Option<String>,
    /// The least value; for integers, numbers and quantities.
    pub minimum: Option<Untyped>,
    /// The greatest value; for integers, numbers and quantities.
    pub maximum: Option<Untyped>,
}

/// The types of parameters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum ParameterType {
    /// Any text.
    #[default]
    String,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// `true` or `false`.
    Boolean,
    /// A Kubernetes quantity, such as `100m` or `64Mi`.
    Quantity,
}

/// A partial pod template.
#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PodTemplate {
    /// Labels and annotations for the pod.
    pub metadata: Option<Untyped>,
    /// Fields of a pod's spec, as in any pod.
    pub spec: Option<Untyped>,
}

/// What some of the pod's own containers get.
#[derive(Debug, Clone)]
pub struct ContainerPatch {
    /// The containers' names; `*` stands for any characters. Absent: all.
    pub names: Vec<String>,
    /// The kinds of containers. Absent: ordinary containers.
    pub kinds: Vec<ContainerKind>,
    /// What happens when a container has something different under the same key. Absent: as the definition says.
    pub on_conflict: Option<OnConflict>,
    /// Fields of a container, as in any pod: `env`, `volumeMounts`, `securityContext` and so on.
    pub fields: Untyped,
}

/// The kinds of containers that a pod can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum ContainerKind {
    /// In `spec.containers`.
    Container,
    /// In `spec.initContainers`, and run to its end before the next one starts.
    InitContainer,
    /// In `spec.initContainers` with `restartPolicy: Always`.
    NativeSidecar,
}

/// Where injected containers stand.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// Those in `spec.containers`: First, Last, {before: NAME} or {after: NAME}. Absent: Last.
    #[serde(default)]
    pub containers: Position,
    /// Those in `spec.initContainers`: First, Last, {before: NAME} or {after: NAME}. Absent: Last.
    #[serde(default)]
    pub init_containers: Position,
}

/// A place in a list of containers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Position {
    /// At an end of the list.
    End(End),
    /// Right before the container of this name.
    Before {
        /// The container's name.
        before: String,
    },
    /// Right after the container of this name.
    After {
        /// The container's name.
        after: String,
    },
    /// As if nothing were said: last.
    #[default]
    Unset,
}

/// The ends of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum End {
    /// Before all others.
    First,
    /// After all others.
    Last,
}

/// What happens when the pod has something different under the same key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum FailurePolicy {
    /// The pod is allowed, with a warning.
    #[default]
    Ignore,
    /// The pod is denied.
    Fail,
}

/// What happens to pods that run without a definition that is meant for them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum MissedPods {
    /// They are counted and named.
    #[default]
    Report,
    /// Their owners are restarted too, slowly, where the injector was told that it may.
    Repair,
}

/// YAML whose shape somebody else knows: a part of a pod, or a value whose type a neighbouring field says.
#[derive(Debug, Clone, Default)]
pub struct Untyped(pub(crate) Json<'static>);

impl<'de> Deserialize<'de> for Untyped {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Json::deserialize(deserializer).map(|json| Untyped(json.into_owned()))
    }
}

/// The fields of a patch that are not a container's.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
struct ContainerPatchHead {
    /// The containers' names; `*` stands for any characters. Absent: all.
    #[serde(default = "every_name")]
    names: Vec<String>,
    /// The kinds of containers. Absent: ordinary containers.
    #[serde(default = "ordinary_containers")]
    kinds: Vec<ContainerKind>,
    /// What happens when a container has something different under the same key. Absent: as the definition says.
    on_conflict: Option<OnConflict>,
}

fn every_name() -> Vec<String> {
    vec!["*".to_owned()]
}

fn ordinary_containers() -> Vec<ContainerKind> {
    vec![ContainerKind::Container]
}

/// The fields of [`ContainerPatchHead`].
const PATCH_HEAD: [&str; 3] = ["names", "kinds", "onConflict"];

impl<'de> Deserialize<'de> for ContainerPatch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        let json = Json::deserialize(deserializer)?.into_owned();
        let ContainerPatchHead { names, kinds, on_conflict } =
            serde_json::from_str(&json.to_string()).map_err(D::Error::custom)?;
        let Json::Object(mut fields) = json else { return Err(D::Error::custom("a patch is a map")) };
        fields.retain(|(key, _)| !PATCH_HEAD.contains(&&**key));
        Ok(ContainerPatch { names, kinds, on_conflict, fields: Untyped(Json::Object(fields)) })
    }
}
