//! The set of compiled definitions and its two verbs: answer a review, inject into a pod.

use crate::decision::{Decision, Reason};
use crate::definition::{BUILTIN_CURL, Compiled};
use crate::error::{DefinitionError, PodError, ReviewError};
use crate::patch::{NotApplicable, Patch};
use crate::pod::PodView;
use crate::{merge, review, select};

/// A set of definitions; immutable, to be swapped whole.
#[derive(Debug)]
pub struct Engine {
    /// By order, then by name: the order in which they are applied.
    definitions: Vec<Compiled>,
}

/// What is to be done with one pod.
#[derive(Debug)]
pub struct Injection<'e> {
    /// One decision for each definition.
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
    /// Kind and name of the pod's owner.
    pub owner: Option<(String, String)>,
    /// Whether nothing of this will be stored.
    pub dry_run: bool,
    /// Why the review was allowed without looking at definitions.
    pub skipped: Option<Reason>,
    /// One decision for each definition, unless the review was skipped.
    pub decisions: Vec<Decision<'a>>,
    /// How many operations the patch has.
    pub operations: usize,
    /// Whether the pod was denied, on purpose.
    pub denied: bool,
}

impl Engine {
    /// An engine of these definitions.
    pub fn new(mut definitions: Vec<Compiled>) -> Self {
        definitions.sort_by(|a, b| (a.order, &a.name).cmp(&(b.order, &b.name)));
        Engine { definitions }
    }

    /// The engine of the article: its `curl` and nothing else.
    ///
    /// # Errors
    /// Never, as long as the embedded definition is a good one, which a test sees to.
    pub fn builtin() -> Result<Self, DefinitionError> {
        Ok(Engine::new(vec![Compiled::from_yaml(BUILTIN_CURL)?]))
    }

    /// The names of the definitions, in the order in which they are applied.
    pub fn definitions(&self) -> impl Iterator<Item = &str> {
        self.definitions.iter().map(Compiled::name)
    }

    /// Answers an AdmissionReview.
    ///
    /// # Errors
    /// The body is not a review that could be answered; the caller says so with status 400.
    pub fn review<'e>(&'e self, body: &[u8]) -> Result<Reviewed<'e>, ReviewError> {
        let request = review::parse(body)?;
        let mut skipped = None;
        let (mut name, mut owner) = (request.name.0.to_string(), None);
        let injection = match &request.pod {
            Ok(pod) => {
                if let (true, Some(pod_name)) = (name.is_empty(), pod.name()) {
                    pod_name.clone_into(&mut name);
                }
                owner = pod.owner().map(|(kind, name)| (kind.to_owned(), name.to_owned()));
                self.inject_view(pod)
            }
            Err(reason) => {
                skipped = Some(*reason);
                Injection { decisions: Vec::new(), patch: Patch::default(), denied: false }
            }
        };
        let response = review::respond(&request, &injection.decisions, &injection.patch, injection.denied)
            .map_err(|error| ReviewError::Malformed {
                line: error.line(),
                column: error.column(),
                problem: error.to_string(),
            })?;
        Ok(Reviewed {
            response,
            uid: request.uid.0.into_owned(),
            namespace: request.namespace.0.into_owned(),
            name,
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
    pub fn inject(&self, pod: &str) -> Result<Injection<'_>, PodError> {
        Ok(self.inject_view(&PodView::parse(pod)?))
    }

    fn inject_view(&self, pod: &PodView<'_>) -> Injection<'_> {
        let selection = select::select(&self.definitions, pod);
        let mut merged = merge::merge(&selection.selected, pod);
        let mut patch = Patch::new(&merged, pod).unwrap_or_else(|NotApplicable { path }| {
            merged.withdraw(
                Reason::PatchNotApplicable,
                &format!("adding at {path} would not apply to this pod"),
            );
            Patch::default()
        });
        let denied = merged.deny(&selection.selected);
        if denied {
            patch = Patch::default();
        }
        let mut decisions = selection.decisions;
        decisions.append(&mut merged.decisions);
        Injection { decisions, patch, denied }
    }
}
