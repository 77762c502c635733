//! Appends to a list in YAML text, in the style in which the list is written.

use granit_parser::{Event, Parser, StructureStyle};

use super::Append;

/// A list as it stands in the text; offsets are bytes.
struct List {
    is_flow: bool,
    /// Where its first item begins.
    first_item: usize,
    /// Where the content of its last item ends.
    content_end: usize,
}

/// The text with the item appended; `None` when the list is not found as a list of its own.
pub(super) fn append(text: &str, append: &Append<'_>) -> Option<String> {
    let list = find(text, &append.list)?;
    if list.is_flow {
        let (before, after) = text.split_at_checked(list.content_end)?;
        return Some(format!("{before}, {}{after}", append.item));
    }
    let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let column = dash_column(text.get(..list.first_item)?)?;
    let insertion = end_of_item(text, list.content_end, column);
    let (before, after) = text.split_at_checked(insertion)?;
    let separator = if before.ends_with('\n') { "" } else { newline };
    let item = super::rewrite(append.item, crate::manifest::documents::Format::Yaml).ok()?;
    let mut block = String::new();
    for (index, line) in item.lines().enumerate() {
        block.push_str(&" ".repeat(column));
        block.push_str(if index == 0 { "- " } else { "  " });
        block.push_str(line);
        block.push_str(newline);
    }
    Some(format!("{before}{separator}{block}{after}"))
}

/// What the walk through the events is inside of.
enum Level {
    /// The key whose value comes next, if the key was read.
    Mapping(Option<String>),
    /// The index of the item that comes next.
    Sequence(usize),
}

/// Walks through the document to the list at `path`.
fn find(text: &str, path: &[String]) -> Option<List> {
    let mut levels: Vec<Level> = Vec::new();
    // The keys and indexes from the root to the node that comes next.
    let mut here: Vec<String> = Vec::new();
    // The list that was searched for, and at which depth it ends.
    let mut found: Option<(List, usize)> = None;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.ok()?;
        let (start, end) = (span.start.byte_offset()?, span.end.byte_offset()?);
        if let Some((list, depth)) = &mut found {
            if matches!(event, Event::SequenceEnd) && levels.len() == *depth {
                return found.map(|(list, _)| list);
            }
            if event.is_node() && list.first_item == 0 {
                list.first_item = start;
            }
            if !matches!(event, Event::Comment(..)) {
                // A block scalar's span reaches over the blank lines behind it, a block collection's end has none.
                let content = text.get(start..end)?.trim_end().len();
                list.content_end = list.content_end.max(if content > 0 { start + content } else { 0 });
            }
        }
        match &event {
            Event::MappingStart(..) | Event::SequenceStart(..) => {
                enter(&mut levels, &mut here)?;
                if let Event::SequenceStart(style, anchor, _) = &event
                    && found.is_none()
                    && here == path
                {
                    // An anchor has other users, who must not get the item.
                    if *anchor != 0 {
                        return None;
                    }
                    let list = List {
                        is_flow: matches!(style, StructureStyle::Flow),
                        first_item: 0,
                        content_end: 0,
                    };
                    found = Some((list, levels.len() + 1));
                }
                levels.push(if matches!(event, Event::MappingStart(..)) {
                    Level::Mapping(None)
                } else {
                    Level::Sequence(0)
                });
            }
            Event::MappingEnd | Event::SequenceEnd => {
                levels.pop();
                here.pop();
            }
            Event::Scalar(value, ..) => match levels.last_mut() {
                Some(Level::Mapping(key @ None)) => *key = Some(value.to_string()),
                Some(_) => {
                    enter(&mut levels, &mut here)?;
                    here.pop();
                }
                None => {}
            },
            Event::Alias(..) => {
                enter(&mut levels, &mut here)?;
                here.pop();
            }
            _ => {}
        }
    }
    None
}

/// Steps into the node that comes next, which belongs to the innermost level. A key that is no scalar is refused.
fn enter(levels: &mut [Level], here: &mut Vec<String>) -> Option<()> {
    match levels.last_mut() {
        Some(Level::Mapping(key)) => here.push(key.take()?),
        Some(Level::Sequence(index)) => {
            here.push(index.to_string());
            *index += 1;
        }
        // The root is no step.
        None => {}
    }
    Some(())
}

/// The column of the dash in front of an item.
fn dash_column(before_item: &str) -> Option<usize> {
    let mut dash = before_item.rfind('-')?;
    // Comments may stand between a dash and its item, with dashes of their own.
    loop {
        let line_start = before_item.get(..dash)?.rfind('\n').map_or(0, |newline| newline + 1);
        let in_front = before_item.get(line_start..dash)?;
        if in_front.chars().all(|c| c == ' ' || c == '-') {
            return Some(in_front.len());
        }
        dash = before_item.get(..line_start)?.rfind('-')?;
    }
}

/// The end of the line on which an item's content ends, or of the last comment below it that is indented more than
/// the item's dash and so is about it.
fn end_of_item(text: &str, content_end: usize, dash_column: usize) -> usize {
    let line_end =
        |from: usize| text.get(from..).and_then(|rest| rest.find('\n')).map_or(text.len(), |n| from + n + 1);
    let mut end = line_end(content_end);
    let mut next = end;
    while next < text.len() {
        let following = line_end(next);
        let line = text.get(next..following).unwrap_or_default();
        let indent = line.len() - line.trim_start_matches(' ').len();
        if line.trim_start().starts_with('#') && indent > dash_column {
            end = following;
        } else if !line.trim().is_empty() {
            break;
        }
        next = following;
    }
    end
}
