//! Which definitions apply to a pod, and why not the others.

mod index;

pub(crate) use index::Index;

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

use crate::decision::{Decision, Reason};
use crate::definition::{ByName, Compiled};
use crate::expression::{Bindings, Budget};
use crate::json::Json;
use crate::names;
use crate::namespace::Namespace;
use crate::pod::{INJECT_KEY, Pod};
use crate::review::printable;

/// Labels of the injector's own pods; a webhook that has to inject into itself to start never does.
const OWN_NAME: (&str, &str) = ("app.kubernetes.io/name", "kubernetes-sidecar-injector");

/// So many names that do not exist are reported one by one: each costs a look at all names that do.
const UNKNOWN_NAMES: usize = 8;

/// A definition that applies to a pod, with the values of its parameters.
#[derive(Debug)]
pub(crate) struct Selected<'e> {
    pub(crate) definition: &'e Compiled,
    pub(crate) parameters: Json<'e>,
    /// What is left for its expressions.
    pub(crate) budget: Rc<Budget>,
}

/// The definitions that apply to one pod, in the order in which they are applied, and a decision for each other one.
#[derive(Debug, Default)]
pub(crate) struct Selection<'e> {
    pub(crate) selected: Vec<Selected<'e>>,
    /// Those with a false match condition that looks at containers. In a second call it may be false because of what the
    /// first one did.
    pub(crate) declined: Vec<&'e Compiled>,
    pub(crate) decisions: Vec<Decision<'e>>,
}

/// How much is said about definitions that have nothing to do with a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detail {
    /// Everything: one decision for each definition.
    All,
    /// Only about those that select the pod or that it asks for. With a thousand definitions this is what keeps the
    /// cost of a review that of the few.
    Relevant,
}

/// All that there is to select from.
#[derive(Debug)]
pub(crate) struct Candidates<'e> {
    /// In the order in which they are applied.
    pub(crate) definitions: &'e [Arc<Compiled>],
    pub(crate) index: &'e Index,
    pub(crate) excluded_namespaces: &'e [String],
}

/// Selects the definitions for one pod.
pub(crate) fn select<'e>(
    candidates: &Candidates<'e>,
    pod: &Pod<'_>,
    namespace: &Namespace,
    detail: Detail,
) -> Selection<'e> {
    let Candidates { definitions, index, excluded_namespaces } = candidates;
    let is_excluded = excluded_namespaces.iter().any(|excluded| excluded == namespace.name());
    let asked = pod.asked_names();
    let gates = Gates { explains: detail == Detail::All, ..Gates::new(pod, namespace, is_excluded) };
    let mut selection = Selection::default();
    let mut unknown = asked.iter().filter(|name| !index.has_name(name, namespace.name()));
    selection.decisions.extend(unknown.by_ref().take(UNKNOWN_NAMES).map(|name| self::unknown(name, index)));
    if let (Some(last), more @ 1..) = (selection.decisions.last_mut(), unknown.count()) {
        last.detail = Some(format!("there is no definition of that name, nor of {more} others").into());
    }
    let mut decide = |definition: &'e Compiled| {
        let is_asked =
            asked.contains(&definition.name) && index.answers_to_name(definition, namespace.name());
        match gates.decide(definition, is_asked) {
            Ok(selected) => selection.selected.push(selected),
            Err(decision) => {
                if decision.reason == Reason::ConditionNotMet && definition.looks_at_containers() {
                    selection.declined.push(definition);
                }
                if detail == Detail::All || decision.expected || decision.reason.is_about_a_match() {
                    selection.decisions.push(decision);
                }
            }
        }
    };
    match detail {
        Detail::All => definitions.iter().for_each(|definition| decide(definition)),
        Detail::Relevant => {
            index
                .candidates(pod, namespace, &asked)
                .filter_map(|at| definitions.get(at))
                .for_each(|definition| decide(definition));
        }
    }
    selection
}

/// Whether one of them may be meant for a pod of which only the metadata is known, or the pod asks for one in vain.
pub(crate) fn may_select(candidates: &Candidates<'_>, pod: &Pod<'_>, namespace: &Namespace) -> bool {
    let Candidates { definitions, index, excluded_namespaces } = candidates;
    let is_excluded = excluded_namespaces.iter().any(|excluded| excluded == namespace.name());
    let asked = pod.asked_names();
    let gates = Gates::new(pod, namespace, is_excluded);
    if gates.never.is_some() {
        return false;
    }
    let mut candidates = index.candidates(pod, namespace, &asked).filter_map(|at| definitions.get(at));
    asked.iter().any(|name| !index.has_name(name, namespace.name()))
        || candidates.any(|definition| {
            let is_asked =
                asked.contains(&definition.name) && index.answers_to_name(definition, namespace.name());
            gates.may_apply(definition, is_asked)
        })
}

impl Reason {
    /// Whether the definition would have applied, had the pod or its namespace not been what it is.
    fn is_about_a_match(self) -> bool {
        !matches!(
            self,
            Reason::NotSelected
                | Reason::NamespaceNotSelected
                | Reason::OtherNamespace
                | Reason::OnlyByName
                | Reason::ConditionNotMet
        )
    }
}

fn unknown<'e>(name: &str, index: &Index) -> Decision<'e> {
    // What a pod asks for may be anything of any length, and decisions go into logs.
    let shown = printable(name, names::LONGEST);
    let mut decision = Decision::new(shown, Reason::UnknownDefinition, true);
    if matches!(name, "true" | "True") {
        decision.detail =
            Some("the value \"true\" belongs into the label sidecar.me/inject, not the annotation".into());
    } else if let Some(near) = index.near_name(name) {
        decision.detail = Some(format!("there is no definition of that name; did you mean {near:?}?").into());
    }
    decision
}

/// What all definitions ask about one pod, answered once.
#[expect(clippy::struct_excessive_bools, reason = "each is one question")]
struct Gates<'p, 'a> {
    pod: &'p Pod<'a>,
    namespace: &'p Namespace,
    never: Option<Reason>,
    is_own: bool,
    is_windows: bool,
    uses_host_network: bool,
    opted_out: Option<Reason>,
    asks_by_label: bool,
    /// Whether anybody will read why a definition that has nothing to do with the pod has nothing to do with it.
    explains: bool,
    /// Whoever may write definitions in a namespace may write a thousand of them: they share one.
    namespace_budget: Rc<Budget>,
}

impl<'p, 'a> Gates<'p, 'a> {
    fn new(pod: &'p Pod<'a>, namespace: &'p Namespace, is_excluded: bool) -> Self {
        let never = if is_excluded {
            Some(Reason::ExcludedNamespace)
        } else if pod.is_mirror() {
            Some(Reason::MirrorPod)
        } else {
            None
        };
        let says_no = |value: Option<&str>| matches!(value, Some("false" | "False"));
        let opted_out = if pod.opts_out() {
            Some(Reason::OptedOut)
        } else if says_no(namespace.label(INJECT_KEY)) || says_no(namespace.annotation(INJECT_KEY)) {
            Some(Reason::NamespaceOptedOut)
        } else {
            None
        };
        Gates {
            pod,
            namespace,
            never,
            is_own: pod.label(OWN_NAME.0) == Some(OWN_NAME.1),
            is_windows: pod.runs_on_windows(),
            uses_host_network: pod.uses_host_network(),
            opted_out,
            asks_by_label: pod.asks_by_label(),
            explains: false,
            namespace_budget: Rc::default(),
        }
    }

    /// The definition with the values of its parameters if it applies, else why it does not.
    fn decide<'e>(&self, definition: &'e Compiled, is_asked: bool) -> Result<Selected<'e>, Decision<'e>> {
        let no = |reason, expected| Decision::new(definition.shown_name(), reason, expected);
        let selector = &definition.selector;
        if let Some(home) = &definition.namespace
            && home != self.namespace.name()
        {
            return Err(no(Reason::OtherNamespace, false));
        }
        // Whom the pod asks for, it is meant to have; all others must select it.
        let wants =
            if is_asked && selector.by_name != ByName::Refused { Ok(()) } else { self.selects(definition) };
        let opted_out = self.opted_out.filter(|_| !definition.required);
        // Anybody can give a pod that label, so it is no way around what cannot be opted out of.
        let is_own = self.is_own && !definition.required;
        let excluded = [
            (is_own, Reason::InjectorPod),
            (self.is_windows && !selector.include_windows, Reason::WindowsPod),
            (self.uses_host_network && !selector.include_host_network, Reason::HostNetwork),
        ];
        let excluded = excluded.into_iter().find_map(|(is_excluded, reason)| is_excluded.then_some(reason));
        let never = self.never.or(excluded);
        let matches_namespace = self.namespace_matches(definition);
        let expected = is_asked || (wants.is_ok() && matches_namespace == Some(true));
        // What cannot be had is said first: no label would change it.
        if let Some(reason) = never {
            return Err(no(reason, expected && opted_out.is_none()));
        }
        // Nobody misses what the pod itself does not want, or its namespace, unless the pod asks for it.
        if let Some(reason) = opted_out {
            let asks = is_asked || (self.asks_by_label && selector.pods.is_none() && expected);
            return Err(no(reason, reason == Reason::NamespaceOptedOut && asks));
        }
        if is_asked && selector.by_name == ByName::Refused && wants.is_err() {
            return Err(no(Reason::RequestRefused, true));
        }
        if let Err((reason, detail)) = wants {
            let mut decision = no(reason, false);
            decision.detail = detail;
            return Err(decision);
        }
        match matches_namespace {
            Some(true) => {}
            Some(false) => {
                let mut decision = no(Reason::NamespaceNotSelected, is_asked);
                if self.explains || is_asked {
                    let mismatch = definition.selector.namespaces.as_ref();
                    let mismatch =
                        mismatch.and_then(|labels| labels.mismatch(|key| self.namespace.label(key)));
                    decision.detail = mismatch.map(|what| {
                        format!("the definition does not select this namespace: its {what}").into()
                    });
                }
                return Err(decision);
            }
            None => return Self::failed(definition, Reason::NamespaceUnknown, None),
        }
        let budget = match &definition.namespace {
            Some(_) => Rc::clone(&self.namespace_budget),
            None => Rc::default(),
        };
        let parameters = definition.parameters.values(self.pod, self.namespace);
        let parameters = parameters.or_else(|problem| {
            // A pod that no condition selects has nothing to do with the parameters.
            match definition.conditions_hold(&self.bindings(&Json::Null, &budget), is_asked) {
                Ok(Some(_)) => Err(no(Reason::ConditionNotMet, false)),
                _ => Self::failed(definition, Reason::InvalidParameter, Some(problem)),
            }
        })?;
        match definition.conditions_hold(&self.bindings(&parameters, &budget), is_asked) {
            Ok(None) => Ok(Selected { definition, parameters, budget }),
            Ok(Some(name)) => {
                let mut decision = no(Reason::ConditionNotMet, false);
                decision.detail = Some(format!("the match condition {name:?} is false").into());
                Err(decision)
            }
            Err(problem) => Self::failed(definition, Reason::ExpressionFailed, Some(problem)),
        }
    }

    /// What [`Gates::decide`] can say without looking into the pod's spec.
    fn may_apply(&self, definition: &Compiled, is_asked: bool) -> bool {
        let is_elsewhere = definition.namespace.as_ref().is_some_and(|home| home != self.namespace.name());
        let is_refused = !definition.required && (self.is_own || self.opted_out == Some(Reason::OptedOut));
        let is_meant = is_asked
            || (self.selects(definition).is_ok() && self.namespace_matches(definition) != Some(false));
        !is_elsewhere && !is_refused && is_meant
    }

    fn bindings<'b>(&'b self, parameters: &'b Json<'b>, budget: &'b Budget) -> Bindings<'b> {
        let (pod, namespace) = (&self.pod.json, &self.namespace.json);
        Bindings { pod, namespace, params: parameters, container: None, budget }
    }

    /// Something that should have worked, and is the failure policy's to judge.
    fn failed<T>(definition: &Compiled, reason: Reason, detail: Option<String>) -> Result<T, Decision<'_>> {
        let mut decision = Decision::new(definition.shown_name(), reason, true);
        decision.detail = detail.map(Cow::Owned);
        decision.denies = definition.fails_closed();
        Err(decision)
    }

    /// By the pod's labels; the namespace is looked at separately.
    fn selects(&self, definition: &Compiled) -> Result<(), (Reason, Option<Cow<'static, str>>)> {
        let selector = &definition.selector;
        if selector.by_name == ByName::Only {
            return Err((Reason::OnlyByName, None));
        }
        let matches = match &selector.pods {
            Some(pods) => pods.matches(|key| self.pod.label(key)),
            None => self.asks_by_label,
        };
        if matches {
            return Ok(());
        }
        Err((Reason::NotSelected, self.explains.then(|| near_miss(definition, self.pod)).flatten()))
    }

    /// `None` when it depends on labels that are not known.
    fn namespace_matches(&self, definition: &Compiled) -> Option<bool> {
        let Some(selector) = &definition.selector.namespaces else { return Some(true) };
        let is_decided = self.namespace.is_known
            || selector.needs_only_name(self.namespace.label("kubernetes.io/metadata.name"));
        is_decided.then(|| selector.matches(|key| self.namespace.label(key)))
    }
}

/// What a pod that is not selected has that comes near, or what it lacks.
fn near_miss(definition: &Compiled, pod: &Pod<'_>) -> Option<Cow<'static, str>> {
    if pod.has_unreadable_labels() {
        return Some(Cow::Borrowed("the pod's labels are not all strings: quote them, as in \"true\""));
    }
    if let Some(pods) = &definition.selector.pods {
        let mismatch = pods.mismatch(|key| pod.label(key))?;
        return Some(format!("the definition does not select this pod: its {mismatch}").into());
    }
    Some(match (pod.label(INJECT_KEY), pod.annotation(INJECT_KEY)) {
        (Some(value), _) => format!(
            "the label {INJECT_KEY} is {value:?}, it must be \"true\"; names of definitions belong into the annotation {INJECT_KEY}"
        )
        .into(),
        (None, Some(value)) if matches!(&*value, "true" | "True") => {
            Cow::Borrowed("sidecar.me/inject is an annotation here, it must be a label")
        }
        (None, _) => Cow::Borrowed("the pod has no label sidecar.me/inject: \"true\""),
    })
}
