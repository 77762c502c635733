//! Puts containers where they belong: by name, which is free in all three lists, and at the place that was asked for.

use std::fmt::Write as _;

use super::contained::{self, Place};
use super::draft::{Blocked, Log, Verdict, rejected};
use super::path::Path;
use crate::decision::{ChangeKind, Reason};
use crate::definition::{End, OnConflict, Position};
use crate::json::Json;
use crate::patch::Verb;
use crate::pod::CONTAINER_LISTS;

/// Where the container of that name is.
pub(crate) fn position(items: &[Json<'_>], name: &str) -> Option<usize> {
    items.iter().position(|item| item.text_of("name").as_deref() == Some(name))
}

impl<'e> Log<'e> {
    /// Merges containers into one list of a pod's spec. `first` has the names of those that earlier definitions put
    /// first; what this one puts first stands behind them and is added to it.
    pub(super) fn containers<'p>(
        &mut self,
        spec: &mut Json<'p>,
        list: &'static str,
        wanted: Json<'e>,
        placement: &Position,
        first: &mut Vec<String>,
        at: &Path<'_>,
    ) -> Result<(), Blocked>
    where
        'e: 'p,
    {
        let path = at.field(list);
        let wanted = wanted.into_items().ok_or_else(|| rejected(&path, "must be a list"))?;
        let mut previous: Option<usize> = None;
        for container in wanted {
            let Some(name) = container.text_of("name").map(std::borrow::Cow::into_owned) else {
                return Err(rejected(&path, "has a container without a name"));
            };
            if let Some(other) = other_list(spec, list, &name) {
                let detail = format!("the pod has a container {name:?} in {other}");
                if self.on_conflict == OnConflict::KeepPod {
                    self.note(ChangeKind::Kept, &at.field(other).item(0, &name));
                    continue;
                }
                return Err(Blocked::new(Reason::ContainerNameConflict, detail));
            }
            let Some(existing) = spec.get_mut(list).filter(|existing| !existing.is_null()) else {
                let index = insertion(&[], placement, previous, first)?;
                self.note(ChangeKind::Added, &path.item(index, &name));
                self.write(Verb::Add, &path, Json::List(vec![container.clone()]));
                spec.set(list.into(), Json::List(vec![container]));
                previous = Some(0);
                remember(first, placement, name);
                continue;
            };
            let items = existing.items_mut().ok_or_else(|| Blocked::malformed(&path, "a list"))?;
            if let Some(index) = position(items, &name) {
                if let Some(existing) = items.get_mut(index) {
                    self.container(existing, container, &path.item(index, &name), list)?;
                }
                previous = Some(index);
            } else {
                let index = insertion(items, placement, previous, first)?;
                self.note(ChangeKind::Added, &path.item(index, &name));
                let at = if index == items.len() { path.end() } else { path.item(index, &name) };
                self.write(Verb::Add, &at, container.clone());
                items.insert(index, container);
                previous = Some(index);
            }
            remember(first, placement, name);
        }
        Ok(())
    }

    /// A container of that name is there.
    fn container<'p>(
        &mut self,
        existing: &mut Json<'p>,
        wanted: Json<'e>,
        path: &Path<'_>,
        list: &str,
    ) -> Result<(), Blocked>
    where
        'e: 'p,
    {
        if contained::value(&wanted, Some(existing), Place::TOP) {
            return Ok(());
        }
        if self.on_conflict == OnConflict::Fail {
            let mut detail = format!("the pod has a different container {} in {list}", NameOf(&wanted));
            if let Some(field) = contained::first_difference(&wanted, existing, Place::TOP) {
                let _ = write!(detail, " ({field} differs)");
            }
            return Err(Blocked::new(Reason::ContainerNameConflict, detail));
        }
        if self.judge(path, &wanted, existing, Place::TOP)? == Verdict::Replace {
            self.replace(existing, wanted, path);
        }
        Ok(())
    }
}

/// A container's name in quotes.
struct NameOf<'j, 'a>(&'j Json<'a>);

impl std::fmt::Display for NameOf<'_, '_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{:?}", self.0.text_of("name").unwrap_or_default())
    }
}

/// The other list that has a container of that name: the API server wants names unique across all three.
fn other_list(spec: &Json<'_>, list: &str, name: &str) -> Option<&'static str> {
    CONTAINER_LISTS.into_iter().filter(|other| *other != list).find(|other| {
        spec.get(other).and_then(Json::items).is_some_and(|items| position(items, name).is_some())
    })
}

fn remember(first: &mut Vec<String>, placement: &Position, name: String) {
    if *placement == Position::End(End::First) {
        first.push(name);
    }
}

/// Where a new container goes: behind the one that the definition has before it, else where the placement says.
fn insertion(
    items: &[Json<'_>],
    placement: &Position,
    previous: Option<usize>,
    first: &[String],
) -> Result<usize, Blocked> {
    let missing = |name: &str| {
        Blocked::new(Reason::PlacementNotFound, format!("there is no container {name:?} to stand next to"))
    };
    if let Some(previous) = previous
        && !matches!(placement, Position::Unset | Position::End(End::Last))
    {
        return Ok(previous + 1);
    }
    match placement {
        Position::Unset | Position::End(End::Last) => Ok(items.len()),
        Position::End(End::First) => {
            let is_earlier = |item: &&Json<'_>| {
                item.text_of("name").is_some_and(|name| first.iter().any(|earlier| *earlier == *name))
            };
            Ok(items.iter().take_while(is_earlier).count())
        }
        Position::Before { before } => position(items, before).ok_or_else(|| missing(before)),
        Position::After { after } => {
            position(items, after).map(|index| index + 1).ok_or_else(|| missing(after))
        }
    }
}
