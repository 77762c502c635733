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
    /// The definition's selector does not match the pod.
    NotSelected,
    /// The pod says `sidecar.me/inject: "false"`.
    OptedOut,
    /// The API server's copy of a static pod: the kubelet deletes it when it is changed.
    MirrorPod,
    /// The pod is for Windows nodes.
    WindowsPod,
    /// The pod shares its node's network.
    HostNetwork,
    /// The pod has a different container of that name.
    ContainerNameConflict,
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
}

impl Reason {
    /// Every reason, for documentation and for metrics that start at zero.
    pub const ALL: [Reason; 15] = [
        Reason::Injected,
        Reason::AlreadyPresent,
        Reason::NotSelected,
        Reason::OptedOut,
        Reason::MirrorPod,
        Reason::WindowsPod,
        Reason::HostNetwork,
        Reason::ContainerNameConflict,
        Reason::MalformedPod,
        Reason::PatchNotApplicable,
        Reason::PodDenied,
        Reason::NotAPod,
        Reason::Subresource,
        Reason::NotCreate,
        Reason::NoObject,
    ];

    /// The stable code.
    pub fn code(self) -> &'static str {
        match self {
            Reason::Injected => "Injected",
            Reason::AlreadyPresent => "AlreadyPresent",
            Reason::NotSelected => "NotSelected",
            Reason::OptedOut => "OptedOut",
            Reason::MirrorPod => "MirrorPod",
            Reason::WindowsPod => "WindowsPod",
            Reason::HostNetwork => "HostNetwork",
            Reason::ContainerNameConflict => "ContainerNameConflict",
            Reason::MalformedPod => "MalformedPod",
            Reason::PatchNotApplicable => "PatchNotApplicable",
            Reason::PodDenied => "PodDenied",
            Reason::NotAPod => "NotAPod",
            Reason::Subresource => "Subresource",
            Reason::NotCreate => "NotCreate",
            Reason::NoObject => "NoObject",
        }
    }

    /// One line for people.
    pub fn explanation(self) -> &'static str {
        match self {
            Reason::Injected => "the sidecar was added",
            Reason::AlreadyPresent => "everything that would be added is there already",
            Reason::NotSelected => "the definition does not select this pod",
            Reason::OptedOut => "the pod opts out with sidecar.me/inject: \"false\"",
            Reason::MirrorPod => "mirror pods of static pods are never changed",
            Reason::WindowsPod => "the pod is for Windows nodes",
            Reason::HostNetwork => "the pod uses its node's network",
            Reason::ContainerNameConflict => "the pod has a different container of that name",
            Reason::MalformedPod => "the pod has no containers, or something in their list is none",
            Reason::PatchNotApplicable => "the patch would not apply to this pod",
            Reason::PodDenied => "another definition had the pod denied",
            Reason::NotAPod => "the review is not about a pod",
            Reason::Subresource => "the review is about a subresource of a pod",
            Reason::NotCreate => "only the creation of pods is changed",
            Reason::NoObject => "the review has no object",
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
    /// The definition's name.
    pub definition: &'e str,
    /// What was decided.
    pub reason: Reason,
    /// What in particular, where there is something to say.
    pub detail: Option<Cow<'static, str>>,
    /// Whether the pod was meant to have this sidecar: selected, or asking for it.
    pub expected: bool,
    /// Whether the pod is denied because of this: the definition could not be applied, and fails closed.
    pub denies: bool,
}

impl<'e> Decision<'e> {
    pub(crate) fn new(definition: &'e str, reason: Reason, expected: bool) -> Self {
        Decision { definition, reason, detail: None, expected, denies: false }
    }

    /// Whether the pod was meant to have the sidecar and goes without it.
    pub fn is_missed(&self) -> bool {
        self.expected && !matches!(self.reason, Reason::Injected | Reason::AlreadyPresent | Reason::OptedOut)
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
