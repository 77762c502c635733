//! Edits YAML text, in the style in which each map and list is written.

use granit_parser::{Event, Parser, ScalarStyle, Span, StructureStyle};

use super::edits::Edits;
use super::{Replacement, splice};
use crate::manifest::documents::Format;

/// The text with the edits; `None` when a place is not found as one of its own.
pub(super) fn apply(text: &str, edits: &Edits) -> Option<String> {
    let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let mut walk = Walk {
        text,
        newline,
        root: Some(edits),
        levels: Vec::new(),
        open: Vec::new(),
        replacements: Vec::new(),
    };
    for event in Parser::new_from_str(text) {
        let (event, span) = event.ok()?;
        walk.step(&event, span)?;
    }
    // One that is an alias was not found.
    (walk.replacements.len() == edits.places()).then_some(())?;
    splice(text, walk.replacements)
}

/// A walk through a document, from event to event.
struct Walk<'w> {
    text: &'w str,
    /// How its lines end; looked for once.
    newline: &'static str,
    /// What happens from the root on, until the root is entered.
    root: Option<&'w Edits>,
    /// The collections that the walk is inside of, outermost first.
    levels: Vec<Level<'w>>,
    /// Those of them that change.
    open: Vec<Open<'w>>,
    replacements: Vec<Replacement>,
}

struct Level<'w> {
    kind: Kind,
    /// What happens below; absent: nothing.
    edits: Option<&'w Edits>,
}

enum Kind {
    /// The key whose value comes next, if the key was read.
    Mapping(Option<String>),
    /// The index of the item that comes next.
    Sequence(usize),
}

/// A collection that changes, as far as it was read; offsets are bytes.
struct Open<'w> {
    is_flow: bool,
    is_list: bool,
    edits: &'w Edits,
    /// How many levels there are inside of it.
    depth: usize,
    /// Where it begins: at its bracket, or at its first item or key.
    start: usize,
    /// Where its items begin, or its first key.
    items: Vec<usize>,
    /// Where the content of its last item, or of each one, ends so far.
    content_ends: Vec<usize>,
}

/// A key that is a collection or an alias; no manifest has one.
struct NoScalarKey;

impl<'w> Walk<'w> {
    fn step(&mut self, event: &Event<'_>, span: Span) -> Option<()> {
        let (start, end) = (span.start.byte_offset()?, span.end.byte_offset()?);
        if matches!(event, Event::MappingEnd | Event::SequenceEnd) {
            if let Some(open) = self.open.pop_if(|open| open.depth == self.levels.len()) {
                open.close(self.text, self.newline, &mut self.replacements)?;
            }
            self.levels.pop();
        }
        for open in &mut self.open {
            if event.is_node() && self.levels.len() == open.depth && (open.is_list || open.items.is_empty()) {
                open.items.push(start);
                open.content_ends.push(0);
            }
            if !matches!(event, Event::Comment(..))
                && let Some(content_end) = open.content_ends.last_mut()
            {
                // A block scalar's span reaches over the blank lines behind it, a block collection's end has none.
                let content = self.text.get(start..end)?.trim_end().len();
                *content_end = (*content_end).max(if content > 0 { start + content } else { 0 });
            }
        }
        match event {
            Event::MappingStart(style, anchor, _) => {
                let edits = self.enter().ok()?;
                self.levels.push(Level { kind: Kind::Mapping(None), edits: below(edits) });
                self.open(edits, matches!(style, StructureStyle::Flow), *anchor, (false, start))?;
            }
            Event::SequenceStart(style, anchor, _) => {
                let edits = self.enter().ok()?;
                self.levels.push(Level { kind: Kind::Sequence(0), edits: below(edits) });
                self.open(edits, matches!(style, StructureStyle::Flow), *anchor, (true, start))?;
            }
            Event::Scalar(value, style, anchor, _) => match self.levels.last_mut() {
                Some(Level { kind: Kind::Mapping(key @ None), .. }) => *key = Some(value.to_string()),
                _ => {
                    if let Some(replaced) = self.enter().ok()?.and_then(|edits| edits.replaced.as_deref()) {
                        (*anchor == 0 && !matches!(style, ScalarStyle::Literal | ScalarStyle::Folded))
                            .then_some(())?;
                        let mut replacement = Replacement { start, end, text: inline(replaced)? };
                        if start == end {
                            // Nothing stands behind the key: the place is in front of its colon.
                            self.text.get(start..)?.starts_with(':').then_some(())?;
                            (replacement.start, replacement.end) = (start + 1, end + 1);
                            replacement.text.insert(0, ' ');
                        }
                        self.replacements.push(replacement);
                    }
                }
            },
            Event::Alias(..) => drop(self.enter().ok()?),
            _ => {}
        }
        Some(())
    }

    /// Notes a collection that changes. An anchor has other users, who must not get the change.
    fn open(
        &mut self,
        edits: Option<&'w Edits>,
        is_flow: bool,
        anchor: usize,
        (is_list, start): (bool, usize),
    ) -> Option<()> {
        let changes = |edits: &&Edits| {
            edits.replaced.is_some() || !edits.fields.is_empty() || !edits.new_items().is_empty()
        };
        let Some(edits) = edits.filter(changes) else { return Some(()) };
        (anchor == 0).then_some(())?;
        let depth = self.levels.len();
        self.open.push(Open {
            is_flow,
            is_list,
            edits,
            depth,
            start,
            items: Vec::new(),
            content_ends: Vec::new(),
        });
        Some(())
    }

    /// Steps to the node that comes next and says what happens from there on. A key that is no scalar is refused.
    fn enter(&mut self) -> Result<Option<&'w Edits>, NoScalarKey> {
        let Some(level) = self.levels.last_mut() else { return Ok(self.root.take()) };
        let token = match &mut level.kind {
            Kind::Mapping(key) => key.take().ok_or(NoScalarKey)?,
            Kind::Sequence(index) => {
                *index += 1;
                (*index - 1).to_string()
            }
        };
        Ok(level.edits.and_then(|edits| edits.below.get(&token)))
    }
}

/// What happens inside; nothing where all of it is replaced.
fn below(edits: Option<&Edits>) -> Option<&Edits> {
    edits.filter(|edits| edits.replaced.is_none())
}

impl Open<'_> {
    /// Writes down what happens to it, now that all of it was read.
    fn close(&self, text: &str, newline: &'static str, replacements: &mut Vec<Replacement>) -> Option<()> {
        let last_end = self.content_ends.last().copied();
        if let Some(replaced) = &self.edits.replaced {
            // A flow collection ends with its bracket, which is the next one behind its last item.
            let end = match last_end {
                Some(end) if !self.is_flow => end,
                end => {
                    let from = end.unwrap_or(self.start + 1);
                    from + text.get(from..)?.find(if self.is_list { ']' } else { '}' })? + 1
                }
            };
            let column = column_of(text, self.start)?;
            let written =
                if self.is_flow { inline(replaced)? } else { block(replaced, &" ".repeat(column), newline)? };
            replacements.push(Replacement { start: self.start, end, text: written });
            return Some(());
        }
        if !self.edits.fields.is_empty() {
            replacements.push(self.fields(text, newline, last_end)?);
        }
        for (before, added) in self.edits.new_items() {
            replacements.push(self.items(text, newline, before, &added)?);
        }
        Some(())
    }

    /// New fields, behind the last one.
    fn fields(&self, text: &str, newline: &str, last_end: Option<usize>) -> Option<Replacement> {
        let field = |(key, value): &(String, String)| {
            Some(format!("{{{}:{value}}}", serde_json::to_string(key).ok()?))
        };
        if self.is_flow {
            let entry = |(key, value): &(String, String)| {
                Some(format!("{}: {value}", serde_json::to_string(key).ok()?))
            };
            let all = self.edits.fields.iter().map(entry).collect::<Option<Vec<_>>>()?.join(", ");
            let (at, written) = match last_end {
                Some(end) => (end, format!(", {all}")),
                None => (self.start + 1, all),
            };
            return Some(Replacement { start: at, end: at, text: written });
        }
        let column = column_of(text, *self.items.first()?)?;
        let offset = end_of_item(text, last_end?, column);
        let mut written = String::from(if text.get(..offset)?.ends_with('\n') { "" } else { newline });
        for added in &self.edits.fields {
            let indent = " ".repeat(column);
            written.push_str(&indent);
            written.push_str(&block(&field(added)?, &indent, newline)?);
            written.push_str(newline);
        }
        Some(Replacement { start: offset, end: offset, text: written })
    }

    /// New items, before an old one or behind the last one.
    fn items(&self, text: &str, newline: &str, before: usize, added: &[&str]) -> Option<Replacement> {
        if self.is_flow {
            let all = added.join(", ");
            let (at, written) = match (before.checked_sub(1), self.items.get(before)) {
                (Some(previous), _) => (*self.content_ends.get(previous)?, format!(", {all}")),
                (None, Some(next)) => (*next, format!("{all}, ")),
                (None, None) => (self.start + 1, all),
            };
            return Some(Replacement { start: at, end: at, text: written });
        }
        let column = dash_column(text.get(..*self.items.first()?)?)?;
        let offset = match before.checked_sub(1) {
            Some(previous) => end_of_item(text, *self.content_ends.get(previous)?, column),
            // In front of the comments above the first item, which are about it.
            None => start_of_item(text, *self.items.first()?)?,
        };
        let mut written =
            String::from(if offset == 0 || text.get(..offset)?.ends_with('\n') { "" } else { newline });
        let indent = " ".repeat(column);
        for item in added {
            written.push_str(&indent);
            written.push_str("- ");
            written.push_str(&block(item, &format!("{indent}  "), newline)?);
            written.push_str(newline);
        }
        Some(Replacement { start: offset, end: offset, text: written })
    }
}

/// A JSON value as YAML over several lines, all but the first indented.
fn block(json: &str, indent: &str, newline: &str) -> Option<String> {
    let written = super::rewrite(json, Format::Yaml).ok()?;
    Some(written.trim_end_matches('\n').replace('\n', &format!("{newline}{indent}")))
}

/// A JSON value in one line, where a scalar or a flow collection stood.
fn inline(json: &str) -> Option<String> {
    if json.starts_with(['{', '[']) {
        return Some(json.to_owned());
    }
    let written = super::rewrite(json, Format::Yaml).ok()?;
    let written = written.trim_end_matches('\n');
    // What needs several lines is a text, and in quotes JSON is YAML.
    Some(if written.contains('\n') { json.to_owned() } else { written.to_owned() })
}

/// In which column something stands.
fn column_of(text: &str, at: usize) -> Option<usize> {
    let before = text.get(..at)?;
    Some(before.rsplit('\n').next()?.chars().count())
}

/// The column of the dash in front of an item.
fn dash_column(before_item: &str) -> Option<usize> {
    let dash = dash(before_item)?;
    column_of(before_item, dash)
}

/// Where the dash in front of an item is.
fn dash(before_item: &str) -> Option<usize> {
    let mut dash = before_item.rfind('-')?;
    // Comments may stand between a dash and its item, with dashes of their own.
    loop {
        let line_start = before_item.get(..dash)?.rfind('\n').map_or(0, |newline| newline + 1);
        let in_front = before_item.get(line_start..dash)?;
        if in_front.chars().all(|c| c == ' ' || c == '-') {
            return Some(dash);
        }
        dash = before_item.get(..line_start)?.rfind('-')?;
    }
}

/// The beginning of the line of an item's dash, or of the first comment right above it. `None` for an item that shares
/// its line with what it is in.
fn start_of_item(text: &str, item: usize) -> Option<usize> {
    let dash = dash(text.get(..item)?)?;
    let mut start = text.get(..dash)?.rfind('\n').map_or(0, |newline| newline + 1);
    text.get(start..dash)?.chars().all(|c| c == ' ').then_some(())?;
    while let Some(above) = start.checked_sub(1) {
        let line_start = text.get(..above)?.rfind('\n').map_or(0, |newline| newline + 1);
        if !text.get(line_start..above)?.trim_start().starts_with('#') {
            break;
        }
        start = line_start;
    }
    Some(start)
}

/// The end of the line on which an item's content ends, or of the last comment below it that is indented more than
/// the item's dash and so is about it.
fn end_of_item(text: &str, content_end: usize, column: usize) -> usize {
    let line_end =
        |from: usize| text.get(from..).and_then(|rest| rest.find('\n')).map_or(text.len(), |n| from + n + 1);
    let mut end = line_end(content_end);
    let mut next = end;
    while next < text.len() {
        let following = line_end(next);
        let line = text.get(next..following).unwrap_or_default();
        let indent = line.len() - line.trim_start_matches(' ').len();
        if line.trim_start().starts_with('#') && indent > column {
            end = following;
        } else if !line.trim().is_empty() {
            break;
        }
        next = following;
    }
    end
}
