//! Where the fields of a YAML (or JSON) document stand in its text.

use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

use granit_parser::{Event, Parser, Span};

use super::problem::Step;
use super::{FieldPath, Place};

/// The places of one document; offsets are bytes of its text.
#[derive(Debug, Default)]
pub(super) struct Places {
    root: Option<Rc<Node>>,
    /// Keys that were there already in their maps.
    pub(super) duplicates: Vec<(FieldPath, Range<usize>)>,
}

/// Which place of a field is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Key,
    Value,
    /// The field is not there: its parent.
    Parent,
}

#[derive(Debug)]
struct Node {
    span: Range<usize>,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Scalar(String),
    Map(Vec<Entry>),
    List(Vec<Rc<Node>>),
}

#[derive(Debug)]
struct Entry {
    key: String,
    key_span: Range<usize>,
    value: Rc<Node>,
}

impl Places {
    /// Text that is not YAML has places as far as it is.
    pub(super) fn of(text: &str) -> Self {
        let mut walk = Walk { text, open: Vec::new(), anchors: HashMap::new(), places: Places::default() };
        for event in Parser::new_from_str(text) {
            let Ok((event, span)) = event else { break };
            walk.step(&event, span);
        }
        // Of a broken document the part that was read is better than nothing.
        while !walk.open.is_empty() {
            walk.close(text.len());
        }
        walk.places
    }

    /// Where a field stands, or the nearest of its parents that is known.
    pub(super) fn find(&self, path: &FieldPath, part: Part) -> Option<Range<usize>> {
        let mut node = self.root.as_ref()?;
        let mut found = node.span.clone();
        let mut key_found = None;
        for (position, step) in path.0.iter().enumerate() {
            let is_last = position + 1 == path.0.len();
            match step {
                Step::Field(name) => {
                    let Some(entry) = node.entry(name) else { break };
                    if part == Part::Key && is_last {
                        return Some(entry.key_span.clone());
                    }
                    node = &entry.value;
                    key_found = Some(entry.key_span.clone());
                }
                Step::Item(index) => {
                    let Content::List(items) = &node.content else { break };
                    let Some(item) = items.get(*index) else { break };
                    node = item;
                    key_found = None;
                }
            }
            found = node.span.clone();
        }
        match (part, key_found) {
            (Part::Parent, Some(key)) => Some(key),
            _ => Some(found),
        }
    }
}

impl Node {
    /// The entry that counts: the last one, or one that is merged in.
    fn entry(&self, name: &str) -> Option<&Entry> {
        let Content::Map(entries) = &self.content else { return None };
        let own = entries.iter().rev().find(|entry| entry.key == name);
        own.or_else(|| {
            let merged = entries.iter().filter(|entry| entry.key == "<<").map(|entry| &entry.value);
            merged.into_iter().find_map(|value| match &value.content {
                Content::List(items) => items.iter().find_map(|item| item.entry(name)),
                _ => value.entry(name),
            })
        })
    }
}

/// A walk through a document, from event to event.
struct Walk<'t> {
    text: &'t str,
    /// The collections that the walk is inside of, outermost first.
    open: Vec<Open>,
    anchors: HashMap<usize, Rc<Node>>,
    places: Places,
}

struct Open {
    start: usize,
    anchor: usize,
    content: OpenContent,
}

enum OpenContent {
    /// With the key whose value comes next.
    Map(Vec<Entry>, Option<(String, Range<usize>)>),
    List(Vec<Rc<Node>>),
}

impl Walk<'_> {
    fn step(&mut self, event: &Event<'_>, span: Span) {
        let start = span.start.byte_offset().unwrap_or_default();
        let end = span.end.byte_offset().unwrap_or(start);
        match event {
            Event::MappingStart(_, anchor, _) => {
                let content = OpenContent::Map(Vec::new(), None);
                self.open.push(Open { start, anchor: *anchor, content });
            }
            Event::SequenceStart(_, anchor, _) => {
                self.open.push(Open { start, anchor: *anchor, content: OpenContent::List(Vec::new()) });
            }
            Event::MappingEnd | Event::SequenceEnd => self.close(end),
            Event::Scalar(value, _, anchor, _) => {
                let content = Content::Scalar(value.to_string());
                self.add(Rc::new(Node { span: self.trimmed(start, end), content }), *anchor);
            }
            Event::Alias(anchor) => {
                // Mistakes in what is used twice are where it is written.
                let node = self.anchors.get(anchor).cloned();
                let alone = || Rc::new(Node { span: start..end, content: Content::Scalar(String::new()) });
                self.add(node.unwrap_or_else(alone), 0);
            }
            _ => {}
        }
    }

    fn close(&mut self, end: usize) {
        let Some(Open { start, anchor, content }) = self.open.pop() else { return };
        let content = match content {
            OpenContent::Map(entries, _) => Content::Map(entries),
            OpenContent::List(items) => Content::List(items),
        };
        self.add(Rc::new(Node { span: self.trimmed(start, end), content }), anchor);
    }

    /// Adds a value, or a key, to what it stands in.
    fn add(&mut self, node: Rc<Node>, anchor: usize) {
        if anchor != 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        match self.open.last_mut().map(|open| &mut open.content) {
            None => self.places.root = Some(node),
            Some(OpenContent::List(items)) => items.push(node),
            Some(OpenContent::Map(entries, key)) => {
                if let Some((key, key_span)) = key.take() {
                    entries.push(Entry { key, key_span, value: node });
                    return;
                }
                // A key that is a collection; no definition has one.
                let text = match &node.content {
                    Content::Scalar(text) => text.clone(),
                    Content::Map(_) | Content::List(_) => String::new(),
                };
                let is_there = entries.iter().any(|entry| entry.key == text);
                *key = Some((text, node.span.clone()));
                if is_there {
                    let path = self.path();
                    self.places.duplicates.push((path, node.span.clone()));
                }
            }
        }
    }

    /// The path of what comes next.
    fn path(&self) -> FieldPath {
        let step = |open: &Open| match &open.content {
            OpenContent::Map(_, key) => {
                Step::Field(key.as_ref().map(|(key, _)| key.clone()).unwrap_or_default())
            }
            OpenContent::List(items) => Step::Item(items.len()),
        };
        FieldPath(self.open.iter().map(step).collect())
    }

    /// Without the blank space behind a value, and only its first line: enough to point at.
    fn trimmed(&self, start: usize, end: usize) -> Range<usize> {
        let text = self.text.get(start..end).unwrap_or_default();
        let line = text.lines().next().unwrap_or_default().trim_end();
        start..start + line.len()
    }
}

/// The lines of a text.
pub(super) struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    pub(super) fn of(text: &'t str) -> Self {
        let after_newlines = text.match_indices('\n').map(|(newline, _)| newline + 1);
        Lines { text, starts: std::iter::once(0).chain(after_newlines).collect() }
    }

    pub(super) fn text(&self) -> &'t str {
        self.text
    }

    /// A range of bytes as a place.
    pub(super) fn place(&self, range: Range<usize>) -> Place {
        let line = self.line(range.start);
        let line_start = self.starts.get(line.saturating_sub(1)).copied().unwrap_or_default();
        let before = self.text.get(line_start..range.start).unwrap_or_default();
        Place { line, column: before.chars().count() + 1, start: range.start, end: range.end }
    }

    /// The line that a byte is on, from 1.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset)
    }

    /// The byte at a line and column, both from 1.
    pub(super) fn offset(&self, line: usize, column: usize) -> usize {
        let start = self.starts.get(line.saturating_sub(1)).copied().unwrap_or(self.text.len());
        let rest = self.text.get(start..).unwrap_or_default();
        start + rest.char_indices().nth(column.saturating_sub(1)).map_or(rest.len(), |(index, _)| index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> FieldPath {
        let step = |step: &str| step.parse().map_or_else(|_| Step::Field(step.to_owned()), Step::Item);
        FieldPath(text.split(' ').filter(|step| !step.is_empty()).map(step).collect())
    }

    fn found(text: &str, steps: &str, part: Part) -> String {
        let range = Places::of(text).find(&path(steps), part).unwrap();
        let place = Lines::of(text).place(range.clone());
        format!("{}:{} {}", place.line, place.column, text.get(range).unwrap())
    }

    #[test]
    fn a_field_is_found_however_it_is_written() {
        for (text, steps, part, expected) in [
            ("a:\n  b: 1 # one\n", "a b", Part::Value, "2:6 1"),
            ("a:\n  b: 1\n", "a b", Part::Key, "2:3 b"),
            ("a:\n  b: 1\n", "a c", Part::Parent, "1:1 a"),
            ("a:\n  b: 1\n", "a c d", Part::Value, "2:3 b: 1"),
            ("a:\n- b: 1\n  c: 2\n", "a 0 d", Part::Parent, "2:3 b: 1"),
            ("a:\n- b: 1\n- c: 2\n", "a 1", Part::Value, "3:3 c: 2"),
            ("a:\n- b: 1\n", "a 7", Part::Value, "2:3 b: 1"),
            ("{a: [{b: 1}, {c: 2}]}", "a 1 c", Part::Value, "1:18 2"),
            ("{a: [{b: 1}, {c: 2}]}", "a 1", Part::Value, "1:14 {c: 2}"),
            ("{\n\t\"a\": {\n\t\t\"b\": true}}", "a b", Part::Value, "3:8 true"),
            ("{\n\t\"a\": {\n\t\t\"b\": true}}", "a b", Part::Key, "3:3 \"b\""),
            ("ä: {ö: 'ü'}", "ä ö", Part::Value, "1:8 'ü'"),
            ("a: |\n  text\n  more\nb: 1\n", "a", Part::Value, "2:3 text"),
            ("a: &x {b: 1}\nc: *x\n", "c b", Part::Value, "1:11 1"),
            ("a: &x {b: 1}\nc:\n  <<: *x\n  d: 2\n", "c b", Part::Key, "1:8 b"),
            ("a: &x {b: 1}\nc: {<<: [*x], d: 2}\n", "c b", Part::Value, "1:11 1"),
            ("a: 1\na: 2\n", "a", Part::Value, "2:4 2"),
            ("a: 1\n", "", Part::Value, "1:1 a: 1"),
        ] {
            assert_eq!(found(text, steps, part), expected, "{text:?} {steps}");
        }
    }

    #[test]
    fn all_keys_that_are_there_already_are_found() {
        let text = "a: 1\nb: [{c: 1, c: 2, c: 3}]\na:\n  d: {}\n";
        let places = Places::of(text);
        let shown: Vec<_> =
            places.duplicates.iter().map(|(path, at)| format!("{path} {}", at.start)).collect();
        assert_eq!(shown, ["b[0].c 16", "b[0].c 22", "a 29"]);
    }

    #[test]
    fn text_that_is_no_yaml_has_places_as_far_as_it_is() {
        assert_eq!(found("a: 1\nb: [1, 2\n", "a", Part::Value), "1:4 1");
    }
}
