//! What several definitions want of one pod, so that two that disagree are reported and not settled by accident.
//!
//! Looks at the definitions alone, never at the pod: a second call, for a pod that the first one has changed already,
//! comes to the same result.

use super::contained::{self, Place};
use super::path::{Path, name_of};
use super::rules::{CONTAINER, POD, Rule};
use crate::definition::OnConflict;
use crate::json::Json;
use crate::render::Fragment;

/// The values that definitions put at places of a pod.
#[derive(Debug, Default)]
pub(crate) struct Claims<'f, 'e> {
    claims: Vec<Claim<'f, 'e>>,
}

#[derive(Debug)]
struct Claim<'f, 'e> {
    definition: &'f str,
    path: String,
    value: Json<'e>,
    place: Place<'static>,
    on_conflict: OnConflict,
}

/// A place at which an earlier definition wants something else.
#[derive(Debug)]
pub(crate) struct Disagreement {
    pub(crate) path: String,
    pub(crate) earlier: String,
}

impl<'f, 'e> Claims<'f, 'e> {
    /// Adds what a definition wants, unless an earlier one wants something else at one of the places.
    pub(crate) fn add(
        &mut self,
        definition: &'f str,
        fragment: &'f Fragment<'e>,
        on_conflict: OnConflict,
    ) -> Result<(), Disagreement> {
        let mut claims = Collected { definition, on_conflict, claims: Vec::new() };
        claims.of(&fragment.pod, &POD, (&Path::TOP, Place::TOP));
        for patch in &fragment.patches {
            claims.on_conflict = patch.on_conflict;
            let spec = Path::TOP.field("spec");
            let list = spec.field(patch.list);
            claims.of(&patch.fields, &CONTAINER, (&list.item(0, &patch.container), Place::TOP));
        }
        for claim in &claims.claims {
            let earlier = self.claims.iter().find(|earlier| {
                // Two rules of one definition are that definition's own affair, and are merged in their order.
                earlier.path == claim.path
                    && earlier.definition != claim.definition
                    && !contained::value(&claim.value, Some(&earlier.value), claim.place)
            });
            if let Some(earlier) = earlier
                && claim.on_conflict != OnConflict::KeepPod
            {
                return Err(Disagreement {
                    path: claim.path.clone(),
                    earlier: earlier.definition.to_owned(),
                });
            }
        }
        self.claims.append(&mut claims.claims);
        Ok(())
    }

    /// Forgets what a definition wants that cannot be applied.
    pub(crate) fn withdraw(&mut self, definition: &str) {
        self.claims.retain(|claim| claim.definition != definition);
    }
}

struct Collected<'f, 'e> {
    definition: &'f str,
    on_conflict: OnConflict,
    claims: Vec<Claim<'f, 'e>>,
}

impl<'e> Collected<'_, 'e> {
    fn of(&mut self, wanted: &Json<'e>, rule: &Rule, at: (&Path<'_>, Place<'_>)) {
        match rule {
            Rule::Fields(_) | Rule::Labels => {
                for (key, value) in wanted.fields().into_iter().flatten() {
                    self.of(value, rule.of(key), (&at.0.field(key), at.1.field(key)));
                }
            }
            Rule::Keyed(keys, item) => self.items(wanted, keys, item, at),
            Rule::Containers => self.items(wanted, &["name"], &Rule::Value, at),
            // A set takes everybody's.
            Rule::Set => {}
            Rule::Value | Rule::Defaulted(_) | Rule::Clears(_) => self.claims.push(Claim {
                definition: self.definition,
                path: at.0.to_string(),
                value: wanted.clone(),
                place: at.1.without_field(),
                on_conflict: self.on_conflict,
            }),
        }
    }

    fn items(&mut self, wanted: &Json<'e>, keys: &[&str], rule: &Rule, at: (&Path<'_>, Place<'_>)) {
        for (index, item) in wanted.items().unwrap_or_default().iter().enumerate() {
            self.of(item, rule, (&at.0.item(index, &name_of(item, keys)), at.1));
        }
    }
}
