//! The set of compiled definitions and its two verbs: answer a review, inject into a pod.

use std::sync::Arc;

use crate::decision::{Decision, Reason};
use crate::definition::{BUILTIN_CURL, Compiled, Problem};
use crate::error::{PodError, ReviewError};
use crate::json::Json;
use crate::merge::{self, Merged};
use crate::namespace::{Namespace, Namespaces};
use crate::patch::{NotApplicable, Operation, Patch, Verb};
use crate::pod::{Owner, PROBE_ANSWER, PROBE_KEY, Pod};
use crate::select::{self, Candidates, Detail, Index};
use crate::{render, review};

/// Where the cluster itself runs: nothing of it may depend on an injector.
pub const EXCLUDED_NAMESPACES: [&str; 2] = ["kube-system", "kube-node-lease"];

/// A set of definitions; immutable, to be swapped whole.
#[derive(Debug)]
pub struct Engine {
    /// By order, then by name: the order in which they are applied.
    definitions: Vec<Arc<Compiled>>,
    index: Index,
    /// Namespaces whose pods are never changed.
    excluded_namespaces: Vec<String>,
}

/// What is to be done with one pod.
#[derive(Debug)]
pub struct Injection<'e> {
    /// One decision for each definition, and for each name that the pod asks for in vain.
    pub decisions: Vec<Decision<'e>>,
    /// What to change, known to apply; empty when nothing is to be done.
    pub patch: Patch<'e>,
    /// Whether a definition that could not be applied wants the pod denied.
    pub denied: bool,
}

/// An answered review, with what a log line says about it.
#[derive(Debug)]
pub struct Reviewed<'a> {
    /// The response, in JSON.
    pub response: Vec<u8>,
    /// The request's uid.
    pub uid: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name, or the prefix of the name it will get; empty when neither is known.
    pub name: String,
    /// Whether this is its name, and not a prefix.
    pub is_named: bool,
    /// The pod's owner.
    pub owner: Option<Owner>,
    /// Whether nothing of this will be stored.
    pub dry_run: bool,
    /// Why the review was allowed without looking at definitions.
    pub skipped: Option<Reason>,
    /// One decision for each definition that selects the pod or that it asks for.
    pub decisions: Vec<Decision<'a>>,
    /// How many operations the patch has.
    pub operations: usize,
    /// How many bytes it has.
    pub patch_bytes: usize,
    /// Whether the pod was denied, on purpose.
    pub denied: bool,
}

impl Engine {
    /// An engine of these definitions, which it shares: when one changes, the others need not be compiled again.
    pub fn new(mut definitions: Vec<Arc<Compiled>>) -> Self {
        definitions.sort_by(|a, b| {
            // A namespace's own come after those of the cluster, which have been there first.
            (a.order, &a.name, &a.namespace).cmp(&(b.order, &b.name, &b.namespace))
        });
        let index = Index::new(&definitions);
        let excluded_namespaces = EXCLUDED_NAMESPACES.map(str::to_owned).to_vec();
        Engine { definitions, index, excluded_namespaces }
    }

    /// The same definitions for all namespaces but these, instead of all but [`EXCLUDED_NAMESPACES`].
    #[must_use]
    pub fn with_excluded_namespaces(self, excluded_namespaces: Vec<String>) -> Self {
        Engine { excluded_namespaces, ..self }
    }

    /// The engine of the article: its `curl` and nothing else.
    pub fn builtin() -> Self {
        // A test sees to it that the embedded definition is a good one.
        Engine::new(builtin().into_iter().map(Arc::new).collect())
    }

    /// The names of the definitions, in the order in which they are applied.
    pub fn definitions(&self) -> impl Iterator<Item = std::borrow::Cow<'_, str>> {
        self.definitions.iter().map(|definition| definition.shown_name())
    }

    /// Answers an AdmissionReview.
    ///
    /// # Errors
    /// The body is not a review that could be answered; the caller says so with status 400.
    pub fn review(&self, body: &[u8], namespaces: &impl Namespaces) -> Result<Reviewed<'_>, ReviewError> {
        let request = review::parse(body)?;
        let mut skipped = None;
        let (mut name, mut owner) = (request.name.to_string(), None);
        let mut is_named = !name.is_empty();
        let injection = match &request.pod {
            Ok(pod) => {
                if let (true, Some(pod_name)) = (name.is_empty(), pod.name()) {
                    name = pod_name.into_owned();
                }
                is_named = is_named || pod.is_named();
                owner = pod.owner();
                // Of a dry run nothing remains: it is no way around the definitions.
                if request.dry_run && pod.is_probe() {
                    skipped = Some(Reason::Probe);
                    answer_probe(pod)
                } else if let Some(namespace) = namespaces.get(&request.namespace) {
                    self.inject_pod(pod, &namespace, Detail::Relevant)
                } else {
                    self.inject_pod(pod, &Namespace::unknown(&request.namespace), Detail::Relevant)
                }
            }
            Err(reason) => {
                skipped = Some(*reason);
                Injection { decisions: Vec::new(), patch: Patch::default(), denied: false }
            }
        };
        let written = review::respond(&request, &injection.decisions, &injection.patch, injection.denied)
            .map_err(|error| review::malformed(&error))?;
        Ok(Reviewed {
            response: written.response,
            patch_bytes: written.patch_bytes,
            uid: request.uid.into_owned(),
            namespace: request.namespace.into_owned(),
            name,
            is_named,
            owner,
            dry_run: request.dry_run,
            skipped,
            operations: injection.patch.operations().len(),
            decisions: injection.decisions,
            denied: injection.denied,
        })
    }

    /// Decides what to do with a pod, or with the template of one, given as JSON text.
    ///
    /// # Errors
    /// The text is not a JSON object.
    pub fn inject(&self, pod: &str, namespace: &Namespace) -> Result<Injection<'_>, PodError> {
        self.inject_template(pod, namespace, Vec::new())
    }

    /// The same for the template of pods that get further volumes when they are made, by name: those of a StatefulSet's
    /// `volumeClaimTemplates`.
    ///
    /// # Errors
    /// The text is not a JSON object.
    pub fn inject_template(
        &self,
        template: &str,
        namespace: &Namespace,
        promised_volumes: Vec<String>,
    ) -> Result<Injection<'_>, PodError> {
        let pod = Pod { promised_volumes, ..Pod::parse(template)? };
        Ok(self.inject_pod(&pod, namespace, Detail::All))
    }

    pub(crate) fn candidates(&self) -> Candidates<'_> {
        Candidates {
            definitions: &self.definitions,
            index: &self.index,
            excluded_namespaces: &self.excluded_namespaces,
        }
    }

    /// The definition that decisions call so.
    pub(crate) fn definition(&self, shown_name: &str) -> Option<&Compiled> {
        let mut definitions = self.definitions.iter();
        definitions.find(|definition| definition.shown_name() == shown_name).map(Arc::as_ref)
    }

    pub(crate) fn inject_pod(&self, pod: &Pod<'_>, namespace: &Namespace, detail: Detail) -> Injection<'_> {
        let mut selection = select::select(&self.candidates(), pod, namespace, detail);
        let mut decisions = std::mem::take(&mut selection.decisions);
        let mut merged = Merged::default();
        if !selection.selected.is_empty() {
            let fragments = render::render(&selection, pod, namespace);
            merged = merge::merge(&selection.selected, &fragments, pod);
        }
        let operations = std::mem::take(&mut merged.operations);
        let mut patch = Patch::checked(operations, pod).unwrap_or_else(|NotApplicable { path }| {
            merged.withdraw(
                Reason::PatchNotApplicable,
                &format!("a change at {path} would not apply to this pod"),
            );
            for (decision, selected) in merged.decisions.iter_mut().zip(&selection.selected) {
                decision.denies = decision.is_missed() && selected.definition.fails_closed();
            }
            Patch::default()
        });
        let denied = decisions.iter().chain(&merged.decisions).any(|decision| decision.denies);
        if denied {
            merged.withdraw(Reason::PodDenied, Reason::PodDenied.explanation());
            patch = Patch::default();
        }
        decisions.append(&mut merged.decisions);
        Injection { decisions, patch, denied }
    }
}

/// Says to a pod that asks whether reviews arrive that one has.
fn answer_probe(pod: &Pod<'_>) -> Injection<'static> {
    let path = format!("/metadata/annotations/{}", PROBE_KEY.replace('/', "~1"));
    let answer = Operation { verb: Verb::Replace, path, value: Json::text_from(PROBE_ANSWER) };
    let patch = Patch::checked(vec![answer], pod).unwrap_or_default();
    Injection { decisions: Vec::new(), patch, denied: false }
}

/// The article's definition.
fn builtin() -> Result<Compiled, Vec<Problem>> {
    Compiled::from_yaml(BUILTIN_CURL)
}
