//! What a patch means for the document as it was: its operations count from the state that the earlier ones leave, a text
//! can only be edited where it stands.

use std::collections::BTreeMap;

use serde_json::Value;
use sidecar_engine::{Operation, Verb};

/// What happens to a node of the document, and below it; values are JSON texts.
#[derive(Debug, Default)]
pub(super) struct Edits {
    /// Something else stands in its place.
    pub(super) replaced: Option<String>,
    /// Fields that a map gets.
    pub(super) fields: Vec<(String, String)>,
    /// The items of a list, old and new, if it gets any.
    items: Option<Vec<Item>>,
    pub(super) below: BTreeMap<String, Edits>,
}

#[derive(Debug, Clone)]
enum Item {
    /// By its number in the document.
    Old(usize),
    New(String),
}

impl Edits {
    /// Adds an operation, whose path leads from this node on; `None` when it does not fit the document.
    pub(super) fn add(&mut self, node: &Value, path: &str, operation: &Operation<'_>) -> Option<()> {
        if let Some(replaced) = &mut self.replaced {
            *replaced = operation.apply_at(replaced, path)?;
            return Some(());
        }
        let (token, rest) = split(path)?;
        match node {
            Value::Object(fields) => {
                if let Some((_, added)) = self.fields.iter_mut().find(|(key, _)| *key == token) {
                    *added = operation.apply_at(added, rest)?;
                } else if let Some(below) = fields.get(&token) {
                    let edits = self.below.entry(token).or_default();
                    if rest.is_empty() {
                        edits.replaced = Some(operation.value());
                    } else {
                        edits.add(below, rest, operation)?;
                    }
                } else if rest.is_empty() && operation.verb() == Verb::Add {
                    self.fields.push((token, operation.value()));
                } else {
                    return None;
                }
            }
            Value::Array(old) => {
                let items = self.items.get_or_insert_with(|| (0..old.len()).map(Item::Old).collect());
                let at = if token == "-" { items.len() } else { token.parse().ok()? };
                if rest.is_empty() && operation.verb() == Verb::Add {
                    (at <= items.len()).then(|| items.insert(at, Item::New(operation.value())))?;
                    return Some(());
                }
                match items.get_mut(at)? {
                    Item::New(added) => *added = operation.apply_at(added, rest)?,
                    Item::Old(number) => {
                        let (number, edits) = (*number, self.below.entry(number.to_string()).or_default());
                        if rest.is_empty() {
                            edits.replaced = Some(operation.value());
                        } else {
                            edits.add(old.get(number)?, rest, operation)?;
                        }
                    }
                }
            }
            _ => return None,
        }
        Some(())
    }

    /// The new items of a list, by the number of the old one that they stand before; behind the last one, by their count.
    pub(super) fn new_items(&self) -> BTreeMap<usize, Vec<&str>> {
        let mut new = BTreeMap::<usize, Vec<&str>>::new();
        let items = self.items.as_deref().unwrap_or_default();
        let old = |item: &Item| match item {
            Item::Old(number) => Some(*number),
            Item::New(_) => None,
        };
        let count = items.iter().filter_map(old).count();
        for (at, item) in items.iter().enumerate() {
            if let Item::New(value) = item {
                let before = items.iter().skip(at).find_map(old).unwrap_or(count);
                new.entry(before).or_default().push(value);
            }
        }
        new
    }

    /// How many places of the text change.
    pub(super) fn places(&self) -> usize {
        if self.replaced.is_some() {
            return 1;
        }
        usize::from(!self.fields.is_empty())
            + self.new_items().len()
            + self.below.values().map(Edits::places).sum::<usize>()
    }
}

/// The first token of a JSON pointer, and the rest.
fn split(path: &str) -> Option<(String, &str)> {
    let path = path.strip_prefix('/')?;
    let end = path.find('/').unwrap_or(path.len());
    let (token, rest) = path.split_at_checked(end)?;
    Some((token.replace("~1", "/").replace("~0", "~"), rest))
}
