//! Appends to lists in YAML text, in the style in which each list is written.

use granit_parser::{Event, Parser, Span, StructureStyle};

use super::{Appends, Insertion, splice};
use crate::manifest::documents::Format;

/// The text with the items appended; `None` when a list is not found as a list of its own.
pub(super) fn append(text: &str, appends: &Appends<'_>) -> Option<String> {
    let mut walk =
        Walk { text, root: Some(appends), levels: Vec::new(), lists: Vec::new(), insertions: Vec::new() };
    for event in Parser::new_from_str(text) {
        let (event, span) = event.ok()?;
        walk.step(&event, span)?;
    }
    // One that is an alias was not found.
    (walk.insertions.len() == appends.lists()).then_some(())?;
    splice(text, walk.insertions)
}

/// A walk through a document, from event to event.
struct Walk<'w> {
    text: &'w str,
    /// What is appended from the root on, until the root is entered.
    root: Option<&'w Appends<'w>>,
    /// The collections that the walk is inside of, outermost first.
    levels: Vec<Level<'w>>,
    /// Those of them that get something.
    lists: Vec<List<'w>>,
    insertions: Vec<Insertion>,
}

struct Level<'w> {
    kind: Kind,
    /// What is appended below; absent: nothing.
    appends: Option<&'w Appends<'w>>,
}

enum Kind {
    /// The key whose value comes next, if the key was read.
    Mapping(Option<String>),
    /// The index of the item that comes next.
    Sequence(usize),
}

/// A list that gets something, as far as it was read; offsets are bytes.
struct List<'w> {
    is_flow: bool,
    items: &'w [&'w str],
    /// How many levels there are inside of it.
    depth: usize,
    /// Where its first item begins.
    first_item: Option<usize>,
    /// Where the content of its last item ends so far.
    content_end: usize,
}

/// A key that is a collection or an alias; no manifest has one.
struct NoScalarKey;

impl<'w> Walk<'w> {
    fn step(&mut self, event: &Event<'_>, span: Span) -> Option<()> {
        let (start, end) = (span.start.byte_offset()?, span.end.byte_offset()?);
        if matches!(event, Event::MappingEnd | Event::SequenceEnd) {
            if let Some(list) = self.lists.pop_if(|list| list.depth == self.levels.len()) {
                self.insertions.push(list.insertion(self.text)?);
            }
            self.levels.pop();
        }
        for list in &mut self.lists {
            if event.is_node() {
                list.first_item.get_or_insert(start);
            }
            if !matches!(event, Event::Comment(..)) {
                // A block scalar's span reaches over the blank lines behind it, a block collection's end has none.
                let content = self.text.get(start..end)?.trim_end().len();
                list.content_end = list.content_end.max(if content > 0 { start + content } else { 0 });
            }
        }
        match event {
            Event::MappingStart(..) => {
                let appends = self.enter().ok()?;
                self.levels.push(Level { kind: Kind::Mapping(None), appends });
            }
            Event::SequenceStart(style, anchor, _) => {
                let appends = self.enter().ok()?;
                self.levels.push(Level { kind: Kind::Sequence(0), appends });
                if let Some(appends) = appends.filter(|appends| !appends.items.is_empty()) {
                    // An anchor has other users, who must not get the item.
                    (*anchor == 0).then_some(())?;
                    self.lists.push(List {
                        is_flow: matches!(style, StructureStyle::Flow),
                        items: &appends.items,
                        depth: self.levels.len(),
                        first_item: None,
                        content_end: 0,
                    });
                }
            }
            Event::Scalar(value, ..) => match self.levels.last_mut() {
                Some(Level { kind: Kind::Mapping(key @ None), .. }) => *key = Some(value.to_string()),
                _ => drop(self.enter().ok()?),
            },
            Event::Alias(..) => drop(self.enter().ok()?),
            _ => {}
        }
        Some(())
    }

    /// Steps to the node that comes next and says what is appended from there on. A key that is no scalar is refused.
    fn enter(&mut self) -> Result<Option<&'w Appends<'w>>, NoScalarKey> {
        let Some(level) = self.levels.last_mut() else { return Ok(self.root.take()) };
        let token = match &mut level.kind {
            Kind::Mapping(key) => key.take().ok_or(NoScalarKey)?,
            Kind::Sequence(index) => {
                *index += 1;
                (*index - 1).to_string()
            }
        };
        Ok(level.appends.and_then(|appends| appends.below.get(&token)))
    }
}

impl List<'_> {
    /// Behind the content of the last item, which has been read.
    fn insertion(&self, text: &str) -> Option<Insertion> {
        let first_item = self.first_item?;
        if self.is_flow {
            return Some(Insertion {
                offset: self.content_end,
                text: format!(", {}", self.items.join(", ")),
            });
        }
        let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
        let column = dash_column(text.get(..first_item)?)?;
        let offset = end_of_item(text, self.content_end, column);
        let mut block = String::from(if text.get(..offset)?.ends_with('\n') { "" } else { newline });
        for item in self.items {
            for (index, line) in super::rewrite(item, Format::Yaml).ok()?.lines().enumerate() {
                block.push_str(&" ".repeat(column));
                block.push_str(if index == 0 { "- " } else { "  " });
                block.push_str(line);
                block.push_str(newline);
            }
        }
        Some(Insertion { offset, text: block })
    }
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
