//! Appends to lists in JSON text. Everything outside the insertions stays as it is, byte for byte.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::{Appends, Insertion, splice};

/// The text with the items appended; `None` when a list is not there or is empty.
pub(super) fn append(text: &str, appends: &Appends<'_>) -> Option<String> {
    let root: &RawValue = serde_json::Deserializer::from_str(text).into_iter().next()?.ok()?;
    let mut insertions = Vec::with_capacity(appends.lists());
    collect(text, root, appends, &mut insertions)?;
    splice(text, insertions)
}

fn collect(
    text: &str,
    value: &RawValue,
    appends: &Appends<'_>,
    insertions: &mut Vec<Insertion>,
) -> Option<()> {
    let is_list = value.get().starts_with('[');
    if is_list {
        let items: Vec<&RawValue> = serde_json::from_str(value.get()).ok()?;
        if !appends.items.is_empty() {
            insertions.push(insertion(text, &items, &appends.items)?);
        }
        for (token, below) in &appends.below {
            collect(text, items.get(token.parse::<usize>().ok()?)?, below, insertions)?;
        }
        return Some(());
    }
    if !appends.items.is_empty() {
        return None;
    }
    let fields: BTreeMap<String, &RawValue> = serde_json::from_str(value.get()).ok()?;
    for (token, below) in &appends.below {
        collect(text, fields.get(token)?, below, insertions)?;
    }
    Some(())
}

/// Behind the last of the items that are there.
fn insertion(text: &str, items: &[&RawValue], added: &[&str]) -> Option<Insertion> {
    let (first, last) = (offset(text, items.first()?.get())?, items.last()?.get());
    // An item that begins its line is followed by one that does, at the same column.
    let line = text.get(..first)?.rsplit('\n').next()?;
    let on_its_own_line = text.get(..first)?.contains('\n') && line.trim().is_empty();
    let mut inserted = String::new();
    for item in added {
        if on_its_own_line {
            inserted.push_str(",\n");
            inserted.push_str(line);
            inserted.push_str(&pretty(item, line)?);
        } else {
            inserted.push(',');
            inserted.push_str(item);
        }
    }
    Some(Insertion { offset: offset(text, last)? + last.len(), text: inserted })
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
