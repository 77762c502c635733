//! A pod as it was received: the parts that selecting and merging read, in one pass over its bytes; the rest stays text.

use std::borrow::Cow;
use std::collections::BTreeSet;

use serde::de::{DeserializeSeed as _, Deserializer};

use crate::error::PodError;
use crate::json::{Json, Plan};

/// The label, and annotation, by which a pod asks for sidecars or refuses them.
pub(crate) const INJECT_KEY: &str = "sidecar.me/inject";

/// The annotation of a dry run's pod that only asks whether reviews arrive.
pub const PROBE_KEY: &str = "sidecar.me/probe";

/// Its value in the question.
pub const PROBE_QUESTION: &str = "asked";

/// Its value in the answer, whatever is loaded.
pub const PROBE_ANSWER: &str = "answered";

/// The label by which nodes tell their operating system.
const OS_LABEL: &str = "kubernetes.io/os";

/// Set by the kubelet on the API server's copy of a static pod; a changed copy is deleted by the kubelet.
const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";

/// The fields of a pod's spec that hold containers; names must be unique across all three.
pub(crate) const CONTAINER_LISTS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

const CONTAINERS: Plan = Plan::Items(&Plan::Open);

/// Annotations stay text, one by one: one of them alone (`kubectl.kubernetes.io/last-applied-configuration`) can be
/// larger than the rest of the pod.
static POD: Plan = Plan::Fields(&[
    (
        "metadata",
        Plan::Fields(&[
            ("labels", Plan::Whole),
            ("annotations", Plan::Open),
            ("ownerReferences", Plan::Items(&Plan::Open)),
        ]),
    ),
    (
        "spec",
        Plan::Fields(&[
            ("containers", CONTAINERS),
            ("initContainers", CONTAINERS),
            ("ephemeralContainers", CONTAINERS),
            ("hostNetwork", Plan::Whole),
            ("os", Plan::Whole),
            ("nodeSelector", Plan::Whole),
        ]),
    ),
]);

/// A pod, or the template of one, borrowed from its JSON text.
#[derive(Debug, Default)]
pub(crate) struct Pod<'a> {
    pub(crate) json: Json<'a>,
    /// The names of volumes that a template does not have and its pods will.
    pub(crate) promised_volumes: Vec<String>,
}

/// Who owns a pod, as the pod says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Group and version of its kind; empty if the pod does not say.
    pub api_version: String,
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its uid; empty if the pod does not say.
    pub uid: String,
}

/// Reads the pod in a larger document.
pub(crate) fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Json<'de>, D::Error> {
    (&POD).deserialize(deserializer)
}

impl<'a> Pod<'a> {
    /// Reads the JSON text of one pod.
    pub(crate) fn parse(text: &'a str) -> Result<Self, PodError> {
        let json = Json::read(text, &POD).map_err(|error| PodError::Malformed {
            line: error.line(),
            column: error.column(),
            problem: error.to_string(),
        })?;
        if json.fields().is_none() {
            return Err(PodError::NotAnObject);
        }
        Ok(Pod { json, ..Pod::default() })
    }

    fn metadata(&self) -> Option<&Json<'a>> {
        self.json.get("metadata")
    }

    pub(crate) fn spec(&self) -> Option<&Json<'a>> {
        self.json.get("spec")
    }

    pub(crate) fn labels(&self) -> Option<&Json<'a>> {
        self.metadata()?.get("labels")
    }

    pub(crate) fn label(&self, key: &str) -> Option<&str> {
        // One value that is no string makes all labels wrong, as in the API server.
        let labels = self.labels().filter(|_| !self.has_unreadable_labels())?;
        match labels.get(key)? {
            Json::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Whether there are labels that cannot be read, because one of them is no string.
    pub(crate) fn has_unreadable_labels(&self) -> bool {
        self.labels().is_some_and(|labels| match labels {
            Json::Object(labels) => {
                labels.iter().any(|(_, value)| !matches!(value, Json::Text(_) | Json::Null))
            }
            _ => true,
        })
    }

    pub(crate) fn annotations(&self) -> Option<&Json<'a>> {
        self.metadata()?.get("annotations")
    }

    pub(crate) fn annotation(&self, key: &str) -> Option<Cow<'_, str>> {
        self.annotations()?.text_of(key)
    }

    /// Whether the pod asks for the sidecars that leave the choice to it (the article's label).
    pub(crate) fn asks_by_label(&self) -> bool {
        matches!(self.label(INJECT_KEY), Some("true" | "True"))
    }

    /// The definitions that the pod asks for by name. A set: the annotation may have a hundred thousand names in it.
    pub(crate) fn asked_names(&self) -> BTreeSet<String> {
        let Some(names) = self.annotation(INJECT_KEY) else { return BTreeSet::new() };
        let names = names.split(',').map(str::trim);
        names.filter(|name| !name.is_empty() && !is_refusal(name)).map(str::to_owned).collect()
    }

    /// Whether the pod says that it wants no sidecars.
    pub(crate) fn opts_out(&self) -> bool {
        self.label(INJECT_KEY).is_some_and(is_refusal)
            || self.annotation(INJECT_KEY).is_some_and(|value| is_refusal(value.trim()))
    }

    pub(crate) fn is_mirror(&self) -> bool {
        self.annotations()
            .and_then(Json::fields)
            .is_some_and(|annotations| annotations.iter().any(|(key, _)| key == MIRROR_ANNOTATION))
    }

    pub(crate) fn is_probe(&self) -> bool {
        self.annotation(PROBE_KEY).as_deref() == Some(PROBE_QUESTION)
    }

    pub(crate) fn uses_host_network(&self) -> bool {
        self.spec().and_then(|spec| spec.get("hostNetwork")).and_then(Json::flag) == Some(true)
    }

    /// By `spec.os.name`, or by the nodes that it can run on where that is unset.
    pub(crate) fn runs_on_windows(&self) -> bool {
        let Some(spec) = self.spec() else { return false };
        let by_os = spec.get("os").and_then(|os| os.text_of("name"));
        let by_selector = || spec.get("nodeSelector")?.text_of(OS_LABEL);
        match by_os.or_else(by_selector) {
            Some(os) => os == "windows",
            None => spec.get("affinity").is_some_and(needs_windows),
        }
    }

    /// The name, or the prefix of the name that the API server will make.
    pub(crate) fn name(&self) -> Option<Cow<'_, str>> {
        let metadata = self.metadata()?;
        metadata.text_of("name").or_else(|| metadata.text_of("generateName"))
    }

    /// Whether it has a name already, and not only a prefix of one.
    pub(crate) fn is_named(&self) -> bool {
        self.metadata().and_then(|metadata| metadata.text_of("name")).is_some_and(|name| !name.is_empty())
    }

    /// The controller that owns the pod, or its first owner.
    pub(crate) fn owner(&self) -> Option<Owner> {
        let owners = self.metadata()?.get("ownerReferences")?.items()?;
        let is_controller = |owner: &&Json<'a>| owner.get("controller").and_then(Json::flag) == Some(true);
        let mut known = owners.iter().filter(|owner| owner.fields().is_some());
        let owner = known.clone().find(is_controller).or_else(|| known.next())?;
        let text = |key: &str| owner.text_of(key).map(Cow::into_owned);
        Some(Owner {
            api_version: text("apiVersion").unwrap_or_default(),
            kind: text("kind")?,
            name: text("name")?,
            uid: text("uid").unwrap_or_default(),
        })
    }

    /// The containers of a list.
    pub(crate) fn containers(&self, list: &str) -> &[Json<'a>] {
        self.spec().and_then(|spec| spec.get(list)).and_then(Json::items).unwrap_or_default()
    }

    /// Whether there are containers, and every list of them is a list of objects: otherwise it cannot be told which
    /// names are taken, and the API server will refuse the pod anyway.
    pub(crate) fn has_containers(&self) -> bool {
        let Some(spec) = self.spec() else { return false };
        !self.containers("containers").is_empty()
            && CONTAINER_LISTS.iter().filter_map(|list| spec.get(list)).all(|list| {
                list.items().is_some_and(|items| items.iter().all(|item| item.fields().is_some()))
            })
    }
}

fn is_refusal(value: &str) -> bool {
    matches!(value, "false" | "False")
}

/// Whether each term of the node affinity that a node must meet wants Windows.
fn needs_windows(affinity: &Json<'_>) -> bool {
    // Most affinities are about something else, and are not read for this.
    if matches!(affinity, Json::Raw(raw) if !raw.get().contains(OS_LABEL)) {
        return false;
    }
    let terms = || {
        let required =
            affinity.field("nodeAffinity")?.field("requiredDuringSchedulingIgnoredDuringExecution")?;
        required.field("nodeSelectorTerms")
    };
    let wants_windows = |expression: &Json<'_>| {
        let is = |key: &str, wanted: &str| {
            expression.field(key).is_some_and(|value| value.text().as_deref() == Some(wanted))
        };
        let values = expression.field("values");
        let values = values.as_ref().map(Json::resolve);
        let is_alone = values
            .as_ref()
            .and_then(|values| values.items())
            .is_some_and(|values| matches!(values, [value] if value.text().as_deref() == Some("windows")));
        is("key", OS_LABEL) && is("operator", "In") && is_alone
    };
    let meets = |term: &Json<'_>| {
        let expressions = term.field("matchExpressions");
        let expressions = expressions.as_ref().map(Json::resolve);
        expressions
            .as_ref()
            .and_then(|expressions| expressions.items())
            .is_some_and(|expressions| expressions.iter().any(wants_windows))
    };
    let terms = terms();
    let terms = terms.as_ref().map(Json::resolve);
    let terms = terms.as_ref().and_then(|terms| terms.items()).unwrap_or_default();
    !terms.is_empty() && terms.iter().all(meets)
}
