//! Puts definitions into a pod: what to add, what is there already, what is in the way.
//!
//! A definition is applied wholly or not at all. Nothing that the pod has is replaced, removed or reordered, unless the
//! definition's author says so, and then it is reported.

mod admissible;
mod claims;
mod contained;
mod containers;
mod draft;
mod path;
mod rules;

pub(crate) use contained::is_same_image;
pub(crate) use draft::Blocked;

use std::borrow::Cow;
use std::rc::Rc;

use crate::decision::{Decision, Reason};
use crate::json::Json;
use crate::patch::Operation;
use crate::pod::Pod;
use crate::render::Fragment;
use crate::select::Selected;
use claims::{Disagreement, Standing};
use contained::Place;
use draft::Log;
use path::Path;
use rules::{CONTAINER, POD};

/// What is done to a pod, and a decision for each definition that was selected.
#[derive(Debug, Default)]
pub(crate) struct Merged<'e> {
    pub(crate) operations: Vec<Operation<'e>>,
    /// One for each selected definition, in their order.
    pub(crate) decisions: Vec<Decision<'e>>,
}

/// Merges fragments, in their order, into a pod.
///
/// One that cannot be applied is tried again after others were: the container to stand next to, or the volume to mount,
/// may be theirs. A second call, which finds what the first one did, then has nothing left to do.
pub(crate) fn merge<'e>(
    selected: &[Selected<'e>],
    fragments: &[Result<Fragment<'e>, Blocked>],
    pod: &Pod<'_>,
) -> Merged<'e> {
    let names: Vec<Cow<'e, str>> = selected.iter().map(|selected| selected.definition.shown_name()).collect();
    let mut merged = Merged {
        operations: Vec::new(),
        decisions: names.iter().map(|name| Decision::new(name.clone(), Reason::MalformedPod, true)).collect(),
    };
    // With one definition there is nobody to disagree with.
    let standings = if names.len() > 1 {
        let policies = selected.iter().map(|selected| selected.definition.on_conflict);
        claims::compare(fragments.iter().map(|fragment| fragment.as_ref().ok()).zip(policies))
    } else {
        Vec::new()
    };
    let mut draft =
        Draft { pod: Json::Shared(&pod.json), first: First::default(), promised: &pod.promised_volumes };
    let has_containers = pod.has_containers();
    let mut waiting: Vec<usize> = (0..selected.len()).collect();
    let mut applied = vec![false; selected.len()];
    loop {
        let mut changed = false;
        waiting.retain(|&at| {
            let (Some(selected), Some(fragment), Some(decision)) =
                (selected.get(at), fragments.get(at), merged.decisions.get_mut(at))
            else {
                return false;
            };
            let result = match fragment {
                _ if !has_containers => {
                    Err(Blocked::new(Reason::MalformedPod, Reason::MalformedPod.explanation()))
                }
                Err(blocked) => Err(Blocked::new(blocked.reason, blocked.detail.clone())),
                Ok(fragment) => match standings.get(at) {
                    None => apply(selected, fragment, &mut draft),
                    Some(standing) => stands(standing, &applied, &names)
                        .and_then(|()| attempt(selected, fragment, &mut draft)),
                },
            };
            match result {
                Ok(log) => {
                    applied.get_mut(at).into_iter().for_each(|applied| *applied = true);
                    changed |= !log.operations.is_empty();
                    decision.reason =
                        if log.operations.is_empty() { Reason::AlreadyPresent } else { Reason::Injected };
                    decision.detail = nothing_to_do(selected, fragment, &log).map(Cow::Borrowed);
                    decision.denies = false;
                    decision.changes = log.changes;
                    merged.operations.extend(log.operations);
                    false
                }
                Err(Blocked { reason, detail }) => {
                    decision.reason = reason;
                    decision.detail = Some(detail.into());
                    decision.denies = selected.definition.fails_closed();
                    true
                }
            }
        });
        if !changed || waiting.is_empty() {
            return merged;
        }
    }
}

/// Why a definition does nothing to a pod, where it is not that all of it is there already.
fn nothing_to_do(
    selected: &Selected<'_>,
    fragment: &Result<Fragment<'_>, Blocked>,
    log: &Log<'_>,
) -> Option<&'static str> {
    if !log.operations.is_empty() {
        return None;
    }
    if !log.changes.is_empty() {
        return Some("what is not there already was kept as it was (onConflict: KeepPod)");
    }
    let is_for_nobody = fragment.as_ref().is_ok_and(|fragment| {
        fragment.patches.is_empty() && fragment.pod.fields().is_some_and(Vec::is_empty)
    });
    (is_for_nobody && !selected.definition.patches.is_empty())
        .then_some("patchContainers is for none of the pod's containers")
}

/// Whether no definition that comes first is in the way.
fn stands(standing: &Standing, applied: &[bool], names: &[Cow<'_, str>]) -> Result<(), Blocked> {
    let unmet = |wait: &&Disagreement| applied.get(wait.with) != Some(&true);
    let Some(Disagreement { path, with }) =
        standing.loses.as_ref().or_else(|| standing.waits.iter().find(unmet))
    else {
        return Ok(());
    };
    let other = names.get(*with).map(Cow::as_ref).unwrap_or_default();
    Err(Blocked::new(
        Reason::DefinitionsDisagree,
        format!("the definition {other:?} comes first and wants a different {path}"),
    ))
}

/// Applies a fragment to the draft, or leaves the draft as it was.
fn attempt<'e: 'p, 'p>(
    selected: &Selected<'e>,
    fragment: &Fragment<'e>,
    draft: &mut Draft<'p>,
) -> Result<Log<'e>, Blocked> {
    let mut changed = draft.clone();
    let log = apply(selected, fragment, &mut changed)?;
    *draft = changed;
    Ok(log)
}

/// The pod as it will be.
#[derive(Debug, Clone)]
struct Draft<'p> {
    pod: Json<'p>,
    first: First,
    /// The names of volumes that it gets later.
    promised: &'p [String],
}

/// The containers that definitions put first, in each list.
#[derive(Debug, Default, Clone)]
struct First {
    containers: Vec<String>,
    init_containers: Vec<String>,
}

/// Merges one fragment; after an error the draft is of no use.
fn apply<'e: 'p, 'p>(
    selected: &Selected<'e>,
    fragment: &Fragment<'e>,
    draft: &mut Draft<'p>,
) -> Result<Log<'e>, Blocked> {
    let definition = selected.definition;
    let Draft { pod, first, promised } = draft;
    let mut log = Log {
        operations: Vec::new(),
        changes: Vec::new(),
        on_conflict: definition.on_conflict,
        budget: Rc::clone(&selected.budget),
    };
    for (part, wanted) in fragment.pod.clone().into_fields().unwrap_or_default() {
        if part != "spec" {
            let rule = POD.of(&part);
            log.field(pod, part, wanted, rule, (&Path::TOP, Place::TOP))?;
            continue;
        }
        let path = Path::TOP.field("spec");
        let place = Place::TOP.field("spec");
        let spec = pod.get_mut("spec").ok_or_else(|| Blocked::malformed(&path, "a map"))?;
        for (field, wanted) in wanted.into_fields().unwrap_or_default() {
            if wanted.is_null() {
                continue;
            }
            match &*field {
                "containers" => {
                    let place = definition.placement.of("containers");
                    log.containers(spec, "containers", wanted, place, &mut first.containers, &path)?;
                }
                "initContainers" => {
                    let place = definition.placement.of("initContainers");
                    log.containers(spec, "initContainers", wanted, place, &mut first.init_containers, &path)?;
                }
                _ => {
                    let rule = POD.of("spec").of(&field);
                    log.field(spec, field, wanted, rule, (&path, place))?;
                }
            }
        }
    }
    for patch in &fragment.patches {
        log.on_conflict = patch.on_conflict;
        let spec = Path::TOP.field("spec");
        let list = spec.field(patch.list);
        let items = pod.get_mut("spec").and_then(|spec| spec.get_mut(patch.list)).and_then(Json::items_mut);
        let Some(items) = items else { continue };
        let Some(index) = containers::position(items, &patch.container) else { continue };
        let Some(container) = items.get_mut(index) else { continue };
        let path = list.item(index, &patch.container);
        log.fields(container, patch.fields.clone(), &CONTAINER, (&path, Place::TOP))?;
    }
    if !log.operations.is_empty() {
        admissible::check(pod, fragment, promised)?;
    }
    Ok(log)
}

impl Merged<'_> {
    /// Takes back what was to be done, for this reason.
    pub(crate) fn withdraw(&mut self, reason: Reason, detail: &str) {
        self.operations.clear();
        for decision in self.decisions.iter_mut().filter(|decision| decision.reason == Reason::Injected) {
            decision.reason = reason;
            decision.detail = Some(detail.to_owned().into());
            decision.changes.clear();
        }
    }
}
