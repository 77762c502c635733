//! What was decided for a pod and why: one reason from a closed list.

use std::borrow::Cow;
use std::fmt;

/// Why something was done or not done. The same codes are used in warnings, logs, the command line and the docs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The sidecar was added.
    Injected,
    /// All that would be added is there already.
    AlreadyPresent,
    /// The definition's pod selector does not match the pod.
    NotSelected,
    /// The definition's namespace selector does not match the pod's namespace.
    NamespaceNotSelected,
    /// The definition is for the pods of its own namespace.
    OtherNamespace,
    /// One of the definition's match conditions is false.
    ConditionNotMet,
    /// The definition is for pods that ask for it by name, and this one does not.
    OnlyByName,
    /// The pod says `sidecar.me/inject: "false"`.
    OptedOut,
    /// The pod's namespace says `sidecar.me/inject: "false"`.
    NamespaceOptedOut,
    /// The injector leaves this namespace alone.
    ExcludedNamespace,
    /// The pod is the injector itself.
    InjectorPod,
    /// The API server's copy of a static pod: the kubelet deletes it when it is changed.
    MirrorPod,
    /// The pod is for Windows nodes.
    WindowsPod,
    /// The pod shares its node's network.
    HostNetwork,
    /// The pod asks for a definition that does not exist.
    UnknownDefinition,
    /// The pod asks for a definition that it cannot ask for.
    RequestRefused,
    /// The labels of the pod's namespace are not known (yet).
    NamespaceUnknown,
    /// The pod, or its namespace, sets a parameter that does not exist or a value that it cannot have.
    InvalidParameter,
    /// An expression of the definition gave no value for this pod.
    ExpressionFailed,
    /// The pod has a different container of that name.
    ContainerNameConflict,
    /// The pod has something different under the same key.
    Conflict,
    /// An earlier definition puts something different under the same key.
    DefinitionsDisagree,
    /// The container that the sidecar was to stand before or after is not there.
    PlacementNotFound,
    /// The API server would refuse the pod with the sidecar.
    WouldBeRejected,
    /// The pod's spec is missing, or not what a pod's spec looks like.
    MalformedPod,
    /// The patch would not have applied to the pod as it was received.
    PatchNotApplicable,
    /// Another definition, which must not be left out, had the pod denied.
    PodDenied,
    /// The review is about another kind of object.
    NotAPod,
    /// The review is about a subresource.
    Subresource,
    /// The review is about another operation than CREATE.
    NotCreate,
    /// The review has no object.
    NoObject,
    /// The pod only asks whether reviews arrive.
    Probe,
}

impl Reason {
    /// Every reason, for documentation and for metrics that start at zero.
    pub const ALL: [Reason; 32] = [
        Reason::Injected,
        Reason::AlreadyPresent,
        Reason::NotSelected,
        Reason::NamespaceNotSelected,
        Reason::OtherNamespace,
        Reason::ConditionNotMet,
        Reason::OnlyByName,
        Reason::OptedOut,
        Reason::NamespaceOptedOut,
        Reason::ExcludedNamespace,
        Reason::InjectorPod,
        Reason::MirrorPod,
        Reason::WindowsPod,
        Reason::HostNetwork,
        Reason::UnknownDefinition,
        Reason::RequestRefused,
        Reason::NamespaceUnknown,
        Reason::InvalidParameter,
        Reason::ExpressionFailed,
        Reason::ContainerNameConflict,
        Reason::Conflict,
        Reason::DefinitionsDisagree,
        Reason::PlacementNotFound,
        Reason::WouldBeRejected,
        Reason::MalformedPod,
        Reason::PatchNotApplicable,
        Reason::PodDenied,
        Reason::NotAPod,
        Reason::Subresource,
        Reason::NotCreate,
        Reason::NoObject,
        Reason::Probe,
    ];

    /// The stable code.
    pub fn code(self) -> &'static str {
        match self {
            Reason::Injected => "Injected",
            Reason::AlreadyPresent => "AlreadyPresent",
            Reason::NotSelected => "NotSelected",
            Reason::NamespaceNotSelected => "NamespaceNotSelected",
            Reason::OtherNamespace => "OtherNamespace",
            Reason::ConditionNotMet => "ConditionNotMet",
            Reason::OnlyByName => "OnlyByName",
            Reason::OptedOut => "OptedOut",
            Reason::NamespaceOptedOut => "NamespaceOptedOut",
            Reason::ExcludedNamespace => "ExcludedNamespace",
            Reason::InjectorPod => "InjectorPod",
            Reason::MirrorPod => "MirrorPod",
            Reason::WindowsPod => "WindowsPod",
            Reason::HostNetwork => "HostNetwork",
            Reason::UnknownDefinition => "UnknownDefinition",
            Reason::RequestRefused => "RequestRefused",
            Reason::NamespaceUnknown => "NamespaceUnknown",
            Reason::InvalidParameter => "InvalidParameter",
            Reason::ExpressionFailed => "ExpressionFailed",
            Reason::ContainerNameConflict => "ContainerNameConflict",
            Reason::Conflict => "Conflict",
            Reason::DefinitionsDisagree => "DefinitionsDisagree",
            Reason::PlacementNotFound => "PlacementNotFound",
            Reason::WouldBeRejected => "WouldBeRejected",
            Reason::MalformedPod => "MalformedPod",
            Reason::PatchNotApplicable => "PatchNotApplicable",
            Reason::PodDenied => "PodDenied",
            Reason::NotAPod => "NotAPod",
            Reason::Subresource => "Subresource",
            Reason::NotCreate => "NotCreate",
            Reason::NoObject => "NoObject",
            Reason::Probe => "Probe",
        }
    }

    /// One line for people.
    pub fn explanation(self) -> &'static str {
        match self {
            Reason::Injected => "the sidecar was added",
            Reason::AlreadyPresent => "everything that would be added is there already",
            Reason::NotSelected => "the definition does not select this pod",
            Reason::NamespaceNotSelected => "the definition does not select this namespace",
            Reason::OtherNamespace => "the definition is for the pods of another namespace",
            Reason::ConditionNotMet => "a match condition of the definition is false",
            Reason::OnlyByName => "the definition is only for pods that ask for it by name",
            Reason::OptedOut => "the pod opts out with sidecar.me/inject: \"false\"",
            Reason::NamespaceOptedOut => "the namespace opts out with sidecar.me/inject: \"false\"",
            Reason::ExcludedNamespace => "the injector leaves this namespace alone",
            Reason::InjectorPod => "the injector's own pods are never changed",
            Reason::MirrorPod => "mirror pods of static pods are never changed",
            Reason::WindowsPod => "the pod is for Windows nodes",
            Reason::HostNetwork => "the pod uses its node's network",
            Reason::UnknownDefinition => "there is no definition of that name",
            Reason::RequestRefused => "the definition cannot be asked for by name",
            Reason::NamespaceUnknown => "the labels of the namespace are not known yet",
            Reason::InvalidParameter => "a parameter has a value that it cannot have",
            Reason::ExpressionFailed => "an expression of the definition failed",
            Reason::ContainerNameConflict => "the pod has a different container of that name",
            Reason::Conflict => "the pod has something different under the same key",
            Reason::DefinitionsDisagree => "an earlier definition wants something different",
            Reason::PlacementNotFound => "the container to stand before or after is not there",
            Reason::WouldBeRejected => "the API server would refuse the pod with the sidecar",
            Reason::MalformedPod => "the pod has no containers, or something in it has a wrong type",
            Reason::PatchNotApplicable => "the patch would not apply to this pod",
            Reason::PodDenied => "another definition had the pod denied",
            Reason::NotAPod => "the review is not about a pod",
            Reason::Subresource => "the review is about a subresource of a pod",
            Reason::NotCreate => "only the creation of pods is changed",
            Reason::NoObject => "the review has no object",
            Reason::Probe => "the pod only asks whether reviews arrive",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.code())
    }
}

/// What was decided about one definition for one pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision<'e> {
    /// The definition's name, with its namespace in front if it has one: `team-a/proxy`.
    pub definition: Cow<'e, str>,
    /// What was decided.
    pub reason: Reason,
    /// What in particular, where there is something to say.
    pub detail: Option<Cow<'static, str>>,
    /// Whether the pod was meant to have this sidecar: selected, or asking for it.
    pub expected: bool,
    /// Whether the pod is denied because of this: the definition could not be applied, and fails closed.
    pub denies: bool,
    /// What was done to the pod, in order.
    pub changes: Vec<Change>,
}

/// One thing that a definition did to a pod, or refrained from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What happened.
    pub kind: ChangeKind,
    /// Where, by name instead of by number: `spec.containers[app].env[LOG_DIR]`.
    pub path: String,
}

/// What happened to a part of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It was not there.
    Added,
    /// Something different was there, and the definition says `onConflict: Replace`; or it was Kubernetes' default.
    Replaced,
    /// Something different was there and stays: the definition says `onConflict: KeepPod`.
    Kept,
}

impl fmt::Display for Change {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            ChangeKind::Added => write!(formatter, "added {}", self.path),
            ChangeKind::Replaced => write!(formatter, "replaced {}", self.path),
            // The pod's own, or another definition's.
            ChangeKind::Kept => write!(formatter, "kept {} as it was", self.path),
        }
    }
}

impl<'e> Decision<'e> {
    pub(crate) fn new(definition: impl Into<Cow<'e, str>>, reason: Reason, expected: bool) -> Self {
        Decision {
            definition: definition.into(),
            reason,
            detail: None,
            expected,
            denies: false,
            changes: Vec::new(),
        }
    }

    /// Whether the pod was meant to have the sidecar and goes without it.
    pub fn is_missed(&self) -> bool {
        self.expected && !matches!(self.reason, Reason::Injected | Reason::AlreadyPresent)
    }
}

impl fmt::Display for Decision<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "sidecar {}: {}: ", self.definition, self.reason)?;
        match &self.detail {
            Some(detail) => formatter.write_str(detail),
            None => formatter.write_str(self.reason.explanation()),
        }
    }
}
