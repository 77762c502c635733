//! What several definitions want of one pod, so that two that disagree are reported and not settled by accident.
//!
//! Looks at the definitions alone, never at the pod: which of two wins must not depend on it, and a second call, for a
//! pod that the first one has changed already, must come to the same result.

use std::collections::HashMap;

use super::contained::{self, Place};
use super::path::{Path, name_of};
use super::rules::{CONTAINER, POD, Rule};
use crate::definition::OnConflict;
use crate::json::Json;
use crate::render::Fragment;

/// What the others mean for one definition.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// One that comes first wants something else: this one is not applied.
    pub(super) loses: Option<Disagreement>,
    /// One that comes first wants something else, and this one keeps what it finds: it goes after that one was applied.
    pub(super) waits: Vec<Disagreement>,
}

/// A place at which a definition that comes first wants something else.
#[derive(Debug)]
pub(super) struct Disagreement {
    pub(super) path: String,
    /// The number of the other one.
    pub(super) with: usize,
}

/// Compares definitions that are in their order. One that loses does not count for those that come after it.
pub(super) fn compare<'f, 'e: 'f>(
    fragments: impl Iterator<Item = (Option<&'f Fragment<'e>>, OnConflict)>,
) -> Vec<Standing> {
    let mut standings = Vec::new();
    let mut known: HashMap<String, Vec<Claim<'e>>> = HashMap::new();
    for (number, (fragment, on_conflict)) in fragments.enumerate() {
        let mut standing = Standing::default();
        let claims = fragment.map(|fragment| Claims::of(number, fragment, on_conflict)).unwrap_or_default();
        for claim in &claims.0 {
            let differs =
                |other: &&Claim<'e>| !contained::value(&claim.value, Some(&other.value), claim.place);
            for other in known.get(&claim.path).into_iter().flatten().filter(differs) {
                let disagreement = Disagreement { path: claim.path.clone(), with: other.definition };
                if claim.on_conflict == OnConflict::KeepPod {
                    standing.waits.push(disagreement);
                } else if standing.loses.is_none() {
                    standing.loses = Some(disagreement);
                }
            }
        }
        if standing.loses.is_none() {
            for claim in claims.0 {
                known.entry(claim.path.clone()).or_default().push(claim);
            }
        }
        standings.push(standing);
    }
    standings
}

/// The value that a definition puts at a place of a pod.
#[derive(Debug)]
struct Claim<'e> {
    definition: usize,
    path: String,
    value: Json<'e>,
    place: Place<'static>,
    on_conflict: OnConflict,
}

#[derive(Debug, Default)]
struct Claims<'e>(Vec<Claim<'e>>);

impl<'e> Claims<'e> {
    fn of(definition: usize, fragment: &Fragment<'e>, on_conflict: OnConflict) -> Self {
        let mut claims = Claims::default();
        claims.add(definition, on_conflict, &fragment.pod, &POD, (&Path::TOP, Place::TOP));
        for patch in &fragment.patches {
            let spec = Path::TOP.field("spec");
            let list = spec.field(patch.list);
            let at = (&list.item(0, &patch.container), Place::TOP);
            claims.add(definition, patch.on_conflict, &patch.fields, &CONTAINER, at);
        }
        claims
    }

    fn add(
        &mut self,
        definition: usize,
        on_conflict: OnConflict,
        wanted: &Json<'e>,
        rule: &Rule,
        at: (&Path<'_>, Place<'_>),
    ) {
        let mut items = |keys: &[&str], rule: &Rule, path: &Path<'_>| {
            for (index, item) in wanted.items().unwrap_or_default().iter().enumerate() {
                let name = name_of(item, keys);
                let path = path.item(index, &name);
                self.add(definition, on_conflict, item, rule, (&path, at.1));
            }
        };
        match rule {
            Rule::Fields(_) | Rule::Labels => {
                for (key, value) in wanted.fields().into_iter().flatten() {
                    self.add(
                        definition,
                        on_conflict,
                        value,
                        rule.of(key),
                        (&at.0.field(key), at.1.field(key)),
                    );
                }
            }
            Rule::Keyed(keys, rule) => items(keys, rule, at.0),
            // A name is free in all lists or in none.
            Rule::Containers => items(&["name"], &Rule::Value, &Path::TOP.field("spec").field("containers")),
            // A set takes everybody's.
            Rule::Set => {}
            Rule::Value | Rule::Defaulted(_) | Rule::Clears(_) => self.0.push(Claim {
                definition,
                path: at.0.to_string(),
                value: wanted.clone(),
                place: at.1.without_field(),
                on_conflict,
            }),
        }
    }
}
