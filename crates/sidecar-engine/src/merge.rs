//! Puts definitions into a pod: what to add, what is there already, what is in the way.
//!
//! A definition is applied wholly or not at all. Nothing that the pod has is replaced, removed or reordered, unless the
//! definition's author says so, and then it is reported.

mod admissible;
mod claims;
mod contained;
mod containers;
mod draft;
mod later;
mod path;
mod rules;

pub(crate) use draft::Blocked;

use std::borrow::Cow;

use crate::decision::{Decision, Reason};
use crate::definition::Position;
use crate::json::Json;
use crate::patch::Operation;
use crate::pod::Pod;
use crate::render::Fragment;
use crate::select::Selected;
use claims::Claims;
use contained::Place;
use draft::Log;
use later::Later;
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
pub(crate) fn merge<'e>(
    selected: &[Selected<'e>],
    fragments: &[Result<Fragment<'e>, Blocked>],
    pod: &Pod<'_>,
) -> Merged<'e> {
    let mut merged = Merged { operations: Vec::new(), decisions: Vec::with_capacity(selected.len()) };
    let names: Vec<Cow<'e, str>> = selected.iter().map(|selected| selected.definition.shown_name()).collect();
    let has_containers = pod.has_containers();
    let mut draft = Json::Shared(&pod.json);
    let mut claims = Claims::default();
    let mut first = First::default();
    for (position, ((selected, fragment), name)) in selected.iter().zip(fragments).zip(&names).enumerate() {
        let definition = selected.definition;
        let mut decision = Decision::new(name.clone(), Reason::MalformedPod, true);
        let result = match fragment {
            _ if !has_containers => {
                Err(Blocked::new(Reason::MalformedPod, Reason::MalformedPod.explanation()))
            }
            Err(blocked) => Err(Blocked::new(blocked.reason, blocked.detail.clone())),
            Ok(fragment) => {
                // With one definition there is nobody to disagree with, and nothing to go back to.
                let is_only = names.len() == 1;
                let later = if is_only {
                    Later::default()
                } else {
                    let earlier = fragments.iter().take(position + 1).flatten();
                    Later::new(earlier, fragments.iter().skip(position + 1).flatten())
                };
                let before = (!is_only).then(|| (draft.clone(), first.clone()));
                let claimed = if is_only {
                    Ok(())
                } else {
                    claims.add(name, fragment, definition.on_conflict).map_err(|disagreement| {
                        let claims::Disagreement { path, earlier } = disagreement;
                        Blocked::new(
                            Reason::DefinitionsDisagree,
                            format!("the definition {earlier:?} puts a different {path}"),
                        )
                    })
                };
                let result = claimed.and_then(|()| apply(selected, fragment, &later, &mut draft, &mut first));
                if let (Err(_), Some((old_draft, old_first))) = (&result, before) {
                    (draft, first) = (old_draft, old_first);
                    claims.withdraw(name);
                }
                result
            }
        };
        match result {
            Ok(log) => {
                decision.reason =
                    if log.operations.is_empty() { Reason::AlreadyPresent } else { Reason::Injected };
                decision.changes = log.changes;
                merged.operations.extend(log.operations);
            }
            Err(Blocked { reason, detail }) => {
                decision.reason = reason;
                decision.detail = Some(detail.into());
                decision.denies = definition.fails_closed();
            }
        }
        merged.decisions.push(decision);
    }
    merged
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
    later: &Later,
    draft: &mut Json<'p>,
    first: &mut First,
) -> Result<Log<'e>, Blocked> {
    let definition = selected.definition;
    let mut log = Log { operations: Vec::new(), changes: Vec::new(), on_conflict: definition.on_conflict };
    let placement = |list: &str| match definition.placement.of(list) {
        Position::Before { before: next_to } | Position::After { after: next_to }
            if later.has_container(next_to) =>
        {
            let detail =
                format!("the container {next_to:?} is injected by a definition that is applied later");
            Err(Blocked::new(Reason::PlacementNotFound, detail))
        }
        place => Ok(place),
    };
    for (part, wanted) in fragment.pod.clone().into_fields().unwrap_or_default() {
        if part != "spec" {
            let rule = POD.of(&part);
            log.field(draft, part, wanted, rule, (&Path::TOP, Place::TOP))?;
            continue;
        }
        let path = Path::TOP.field("spec");
        let place = Place::TOP.field("spec");
        let spec = draft.get_mut("spec").ok_or_else(|| Blocked::malformed(&path, "a map"))?;
        for (field, wanted) in wanted.into_fields().unwrap_or_default() {
            if wanted.is_null() {
                continue;
            }
            match &*field {
                "containers" => {
                    let place = placement("containers")?;
                    log.containers(spec, "containers", wanted, place, &mut first.containers, &path)?;
                }
                "initContainers" => {
                    let place = placement("initContainers")?;
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
        let items = draft.get_mut("spec").and_then(|spec| spec.get_mut(patch.list)).and_then(Json::items_mut);
        let Some(items) = items else { continue };
        let Some(index) = containers::position(items, &patch.container) else { continue };
        let Some(container) = items.get_mut(index) else { continue };
        let path = list.item(index, &patch.container);
        log.fields(container, patch.fields.clone(), &CONTAINER, (&path, Place::TOP))?;
    }
    if !log.operations.is_empty() {
        admissible::check(draft, fragment, later)?;
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
