//! Edits JSON text. Everything outside the edits stays as it is, byte for byte.

use std::fmt;

use serde::de::{Deserializer as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::edits::Edits;
use super::{Replacement, splice};

/// The text with the edits; `None` when a place is not there.
pub(super) fn apply(text: &str, edits: &Edits) -> Option<String> {
    let root: &RawValue = serde_json::Deserializer::from_str(text).into_iter().next()?.ok()?;
    let mut replacements = Vec::with_capacity(edits.places());
    collect(text, root, edits, &mut replacements)?;
    splice(text, replacements)
}

fn collect(text: &str, value: &RawValue, edits: &Edits, replacements: &mut Vec<Replacement>) -> Option<()> {
    let start = offset(text, value.get())?;
    if let Some(replaced) = &edits.replaced {
        let written = match line_of(text, start) {
            Some(indent) if value.get().contains('\n') => pretty(replaced, indent)?,
            _ => replaced.clone(),
        };
        replacements.push(Replacement { start, end: start + value.get().len(), text: written });
        return Some(());
    }
    if value.get().starts_with('[') {
        let items: Vec<&RawValue> = serde_json::from_str(value.get()).ok()?;
        for (before, added) in edits.new_items() {
            let neighbours = Neighbours {
                inside: start + 1,
                previous: before.checked_sub(1).and_then(|at| items.get(at)).map(|item| item.get()),
                next: items.get(before).map(|item| item.get()),
            };
            let added: Vec<_> = added.into_iter().map(|item| (None, item)).collect();
            replacements.push(neighbours.insertion(text, &added)?);
        }
        for (token, below) in &edits.below {
            collect(text, items.get(token.parse::<usize>().ok()?)?, below, replacements)?;
        }
        return Some(());
    }
    let fields = serde_json::Deserializer::from_str(value.get()).deserialize_map(Fields).ok()?;
    if !edits.fields.is_empty() {
        let previous = fields.last().map(|(_, value)| value.get());
        let neighbours = Neighbours { inside: start + 1, previous, next: None };
        let added: Vec<_> =
            edits.fields.iter().map(|(key, value)| (Some(key.as_str()), value.as_str())).collect();
        replacements.push(neighbours.insertion(text, &added)?);
    }
    for (token, below) in &edits.below {
        let (_, value) = fields.iter().rev().find(|(key, _)| key == token)?;
        collect(text, value, below, replacements)?;
    }
    Some(())
}

/// The fields of an object, in their order.
struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = Vec<(String, &'de RawValue)>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(fields)
    }
}

/// What stands beside something new.
struct Neighbours<'t> {
    /// Behind the opening bracket.
    inside: usize,
    previous: Option<&'t str>,
    next: Option<&'t str>,
}

impl Neighbours<'_> {
    /// Each on a line of its own where the neighbour has one, with its indentation.
    fn insertion(&self, text: &str, added: &[(Option<&str>, &str)]) -> Option<Replacement> {
        let neighbour = self.previous.or(self.next);
        let line = neighbour.and_then(|neighbour| line_of(text, offset(text, neighbour)?));
        let written = |(key, value): &(Option<&str>, &str)| -> Option<String> {
            let value = line.map_or(Some((*value).to_owned()), |indent| pretty(value, indent))?;
            let space = if line.is_some() { " " } else { "" };
            Some(match key {
                Some(key) => format!("{}:{space}{value}", serde_json::to_string(key).ok()?),
                None => value,
            })
        };
        let separator = line.map_or_else(|| ",".to_owned(), |indent| format!(",\n{indent}"));
        let all = added.iter().map(written).collect::<Option<Vec<_>>>()?.join(&separator);
        let (at, text) = match (self.previous, self.next) {
            (Some(previous), _) => (offset(text, previous)? + previous.len(), format!("{separator}{all}")),
            (None, Some(next)) => (offset(text, next)?, format!("{all}{separator}")),
            (None, None) => (self.inside, all),
        };
        Some(Replacement { start: at, end: at, text })
    }
}

/// The indentation of a value, or of its key, that begins its line.
fn line_of(text: &str, value: usize) -> Option<&str> {
    let before = text.get(..value)?;
    let line = before.get(before.rfind('\n')? + 1..)?;
    let content = line.trim_start();
    let is_first = content.is_empty() || (content.starts_with('"') && content.trim_end().ends_with(':'));
    is_first.then(|| line.get(..line.len() - content.len()))?
}

/// JSON text over several lines, all but the first indented.
pub(super) fn pretty(json: &str, indent: &str) -> Option<String> {
    let mut text = Vec::new();
    let mut reader = serde_json::Deserializer::from_str(json);
    serde_transcode::transcode(&mut reader, &mut serde_json::Serializer::pretty(&mut text)).ok()?;
    Some(String::from_utf8(text).ok()?.replace('\n', &format!("\n{indent}")))
}

/// Where a part of the text begins in it; the part is borrowed from the text.
fn offset(text: &str, part: &str) -> Option<usize> {
    (part.as_ptr() as usize).checked_sub(text.as_ptr() as usize).filter(|offset| *offset <= text.len())
}
