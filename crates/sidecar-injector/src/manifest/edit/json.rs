//! Appends to a list in JSON text. Everything outside the insertion stays as it is, byte for byte.

use serde::Deserialize as _;
use serde_json::value::RawValue;

use super::Append;

/// The text with the item appended; `None` when the list is not there or is empty.
pub(super) fn append(text: &str, append: &Append<'_>) -> Option<String> {
    let mut value: &RawValue = serde_json::Deserializer::from_str(text).into_iter().next()?.ok()?;
    for token in &append.list {
        value = child(value, token)?;
    }
    let items: Vec<&RawValue> = serde_json::from_str(value.get()).ok()?;
    let (first, last) =
        (offset(text, items.first()?.get())?, offset(text, items.last()?.get())? + items.last()?.get().len());
    let (before, after) = (text.get(..last)?, text.get(last..)?);
    // An item that begins its line is followed by one that does, at the same column.
    let line = text.get(..first)?.rsplit('\n').next()?;
    let on_its_own_line = text.get(..first)?.contains('\n') && line.trim().is_empty();
    let item = if on_its_own_line {
        format!(",\n{line}{}", pretty(append.item, line)?)
    } else {
        format!(",{}", append.item)
    };
    Some(format!("{before}{item}{after}"))
}

/// JSON text over several lines, all but the first indented.
pub(super) fn pretty(json: &str, indent: &str) -> Option<String> {
    let mut text = Vec::new();
    let mut reader = serde_json::Deserializer::from_str(json);
    serde_transcode::transcode(&mut reader, &mut serde_json::Serializer::pretty(&mut text)).ok()?;
    Some(String::from_utf8(text).ok()?.replace('\n', &format!("\n{indent}")))
}

fn child<'t>(value: &'t RawValue, token: &str) -> Option<&'t RawValue> {
    if value.get().starts_with('[') {
        let items: Vec<&RawValue> = serde_json::from_str(value.get()).ok()?;
        return items.get(token.parse::<usize>().ok()?).copied();
    }
    let mut reader = serde_json::Deserializer::from_str(value.get());
    let fields = std::collections::BTreeMap::<String, &RawValue>::deserialize(&mut reader).ok()?;
    fields.get(token).copied()
}

/// Where a part of the text begins in it; the part is borrowed from the text.
fn offset(text: &str, part: &str) -> Option<usize> {
    (part.as_ptr() as usize).checked_sub(text.as_ptr() as usize).filter(|offset| *offset <= text.len())
}
