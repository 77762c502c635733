//! The pod as it will be, field by field: each change is made here and written down as an operation in one step.
//!
//! Nothing of the pod is copied but the maps and lists on the way to a change.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::rc::Rc;

use super::contained::{self, Place};
use super::path::{Path, name_of};
use super::rules::Rule;
use crate::decision::{Change, ChangeKind, Reason};
use crate::definition::OnConflict;
use crate::expression::Budget;
use crate::json::Json;
use crate::patch::{Operation, Verb};

/// Why a definition cannot be applied to a pod.
#[derive(Debug)]
pub(crate) struct Blocked {
    pub(crate) reason: Reason,
    pub(crate) detail: String,
}

impl Blocked {
    pub(crate) fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Blocked { reason, detail: detail.into() }
    }

    pub(super) fn malformed(path: &Path<'_>, expected: &str) -> Self {
        Blocked::new(Reason::MalformedPod, format!("{path} is not {expected}"))
    }
}

/// What has been done for one definition so far. The pod itself is passed along, so that a place in it can be changed
/// while this is written to.
#[derive(Debug)]
pub(crate) struct Log<'e> {
    pub(crate) operations: Vec<Operation<'e>>,
    pub(crate) changes: Vec<Change>,
    pub(crate) on_conflict: OnConflict,
    /// What comparing lists is paid from.
    pub(crate) budget: Rc<Budget>,
}

/// What to do about a value that is there and differs.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Keep,
    Replace,
}

/// Comparisons of two items of a list that cost a step.
const COMPARISONS: usize = 64;

impl<'e> Log<'e> {
    /// Opens the items of a list, each of which will be compared with each of what is wanted, and pays for that.
    fn compared(&self, items: &mut [Json<'_>], wanted: &Json<'_>) -> Result<(), Blocked> {
        let wanted = wanted.items().map_or(0, <[_]>::len);
        let paid = self.budget.pay(items.len().saturating_mul(wanted) / COMPARISONS);
        paid.map_err(|problem| Blocked::new(Reason::ExpressionFailed, problem))?;
        for item in items {
            item.open();
        }
        Ok(())
    }

    pub(super) fn write(&mut self, verb: Verb, path: &Path<'_>, value: Json<'e>) {
        self.operations.push(Operation { verb, path: path.pointer(), value });
    }

    pub(super) fn note(&mut self, kind: ChangeKind, path: &Path<'_>) {
        self.changes.push(Change { kind, path: path.to_string() });
    }

    /// Merges a value into the field of a map.
    pub(super) fn field<'p>(
        &mut self,
        parent: &mut Json<'p>,
        key: Cow<'e, str>,
        wanted: Json<'e>,
        rule: &Rule,
        at: (&Path<'_>, Place<'_>),
    ) -> Result<(), Blocked>
    where
        'e: 'p,
    {
        let path = at.0.field(&key);
        let place = at.1.field(&key);
        let existing = parent.get_mut(&key).filter(|existing| !existing.is_null());
        let Some(existing) = existing else {
            if rule.is_empty(&wanted) {
                return Ok(());
            }
            self.note(ChangeKind::Added, &path);
            self.write(Verb::Add, &path, wanted.clone());
            parent.set(key, wanted);
            self.clear(parent, rule, at.0);
            return Ok(());
        };
        match rule {
            Rule::Fields(_) => self.fields(existing, wanted, rule, (&path, place)),
            Rule::Keyed(keys, item) => self.keyed(existing, wanted, (keys, item), (&path, place)),
            Rule::Set => self.set(existing, wanted, (&path, place)),
            Rule::Labels => self.labels(existing, wanted, (&path, place)),
            // Containers are merged by whoever knows where they belong.
            Rule::Value | Rule::Containers => self.value(existing, wanted, (&path, place)).map(drop),
            Rule::Clears(_) => {
                if self.value(existing, wanted, (&path, place))? {
                    self.clear(parent, rule, at.0);
                }
                Ok(())
            }
            Rule::Defaulted(default) => {
                if !contained::value(&wanted, Some(existing), place) && existing.to_string() == *default {
                    self.replace(existing, wanted, &path);
                    return Ok(());
                }
                self.value(existing, wanted, (&path, place)).map(drop)
            }
        }
    }

    /// Field by field.
    pub(super) fn fields<'p>(
        &mut self,
        existing: &mut Json<'p>,
        wanted: Json<'e>,
        rule: &Rule,
        at: (&Path<'_>, Place<'_>),
    ) -> Result<(), Blocked>
    where
        'e: 'p,
    {
        if existing.fields_mut().is_none() {
            return Err(Blocked::malformed(at.0, "a map"));
        }
        for (key, value) in wanted.into_fields().ok_or_else(|| rejected(at.0, "must be a map"))? {
            let rule = rule.of(&key);
            if !value.is_null() {
                self.field(existing, key, value, rule, at)?;
            }
        }
        Ok(())
    }

    /// A map that is only ever added to.
    fn labels<'p>(
        &mut self,
        existing: &mut Json<'p>,
        wanted: Json<'e>,
        at: (&Path<'_>, Place<'_>),
    ) -> Result<(), Blocked>
    where
        'e: 'p,
    {
        let policy = self.on_conflict;
        if policy == OnConflict::Replace {
            self.on_conflict = OnConflict::Fail;
        }
        let result = self.fields(existing, wanted, &Rule::Value, at);
        self.on_conflict = policy;
        result.map_err(|blocked| match policy {
            OnConflict::Replace => Blocked {
                detail: format!("{}, and an existing one is never replaced", blocked.detail),
                ..blocked
            },
            _ => blocked,
        })
    }

    /// Item by item, by their keys.
    fn keyed<'p>(
        &mut self,
        existing: &mut Json<'p>,
        wanted: Json<'e>,
        (keys, rule): (&[&str], &Rule),
        at: (&Path<'_>, Place<'_>),
    ) -> Result<(), Blocked>
    where
        'e: 'p,
    {
        let items = existing.items_mut().ok_or_else(|| Blocked::malformed(at.0, "a list"))?;
        self.compared(items, &wanted)?;
        for wanted in wanted.into_items().ok_or_else(|| rejected(at.0, "must be a list"))? {
            let name = name_of(&wanted, keys);
            let found = contained::find(items, &wanted, keys);
            if let Some((index, item)) = found.and_then(|index| Some((index, items.get_mut(index)?))) {
                let path = at.0.item(index, &name);
                match rule {
                    Rule::Fields(_) => self.fields(item, wanted, rule, (&path, at.1))?,
                    _ => drop(self.value(item, wanted, (&path, at.1))?),
                }
            } else {
                self.note(ChangeKind::Added, &at.0.item(items.len(), &name));
                self.write(Verb::Add, &at.0.end(), wanted.clone());
                items.push(wanted);
            }
        }
        Ok(())
    }

    /// What is not there is appended.
    fn set<'p>(
        &mut self,
        existing: &mut Json<'p>,
        wanted: Json<'e>,
        at: (&Path<'_>, Place<'_>),
    ) -> Result<(), Blocked>
    where
        'e: 'p,
    {
        let items = existing.items_mut().ok_or_else(|| Blocked::malformed(at.0, "a list"))?;
        self.compared(items, &wanted)?;
        for wanted in wanted.into_items().ok_or_else(|| rejected(at.0, "must be a list"))? {
            if !items.iter().any(|item| contained::same(&wanted, item, at.1)) {
                self.note(ChangeKind::Added, at.0);
                self.write(Verb::Add, &at.0.end(), wanted.clone());
                items.push(wanted);
            }
        }
        Ok(())
    }

    /// One value that is there: the same, or a conflict. Says whether it was replaced.
    pub(super) fn value<'p>(
        &mut self,
        existing: &mut Json<'p>,
        wanted: Json<'e>,
        at: (&Path<'_>, Place<'_>),
    ) -> Result<bool, Blocked>
    where
        'e: 'p,
    {
        if contained::value(&wanted, Some(existing), at.1) {
            return Ok(false);
        }
        match self.judge(at.0, &wanted, existing, at.1)? {
            Verdict::Keep => Ok(false),
            Verdict::Replace => {
                self.replace(existing, wanted, at.0);
                Ok(true)
            }
        }
    }

    pub(super) fn replace<'p>(&mut self, existing: &mut Json<'p>, wanted: Json<'e>, path: &Path<'_>)
    where
        'e: 'p,
    {
        self.note(ChangeKind::Replaced, path);
        self.write(Verb::Replace, path, wanted.clone());
        *existing = wanted;
    }

    /// What the definition's author wants to happen about something different.
    pub(super) fn judge(
        &mut self,
        path: &Path<'_>,
        wanted: &Json<'_>,
        existing: &Json<'_>,
        place: Place<'_>,
    ) -> Result<Verdict, Blocked> {
        match self.on_conflict {
            OnConflict::Replace => Ok(Verdict::Replace),
            OnConflict::KeepPod => {
                self.note(ChangeKind::Kept, path);
                Ok(Verdict::Keep)
            }
            OnConflict::Fail => {
                let mut detail = format!("the pod has a different {path}");
                if let Some(field) = contained::first_difference(wanted, existing, place) {
                    // Never the values: they may be secrets.
                    let _ = write!(detail, " ({field} differs)");
                }
                Err(Blocked::new(Reason::Conflict, detail))
            }
        }
    }

    /// Empties the fields that were worked out from one that has changed. `null` is how a patch without `remove` says it.
    fn clear(&mut self, parent: &mut Json<'_>, rule: &Rule, at: &Path<'_>) {
        let Rule::Clears(fields) = rule else { return };
        for field in *fields {
            if let Some(value) = parent.get_mut(field).filter(|value| !value.is_null()) {
                *value = Json::Null;
                let path = at.field(field);
                self.note(ChangeKind::Replaced, &path);
                self.write(Verb::Replace, &path, Json::Null);
            }
        }
    }
}

/// Something that an expression made, and the API server would refuse.
pub(super) fn rejected(path: &Path<'_>, problem: &str) -> Blocked {
    Blocked::new(Reason::WouldBeRejected, format!("{path} {problem}"))
}
