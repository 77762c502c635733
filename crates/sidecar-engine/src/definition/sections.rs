//! Cuts a file into its documents before any of them is parsed, so that one that is broken costs nobody else anything.

use serde_json::value::RawValue;

/// The text of one document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Section<'t> {
    /// Where it begins in the file, in bytes.
    pub(super) start: usize,
    pub(super) text: &'t str,
    pub(super) is_json: bool,
}

pub(super) fn split(text: &str) -> Vec<Section<'_>> {
    // YAML includes JSON, but not a stream of JSON objects one after the other.
    if text.trim_start().starts_with('{')
        && let Some(sections) = split_json(text)
    {
        return sections;
    }
    split_yaml(text)
}

fn split_json(text: &str) -> Option<Vec<Section<'_>>> {
    let mut sections = Vec::new();
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
    while let Some(value) = stream.next() {
        let text = value.ok()?.get();
        let start = stream.byte_offset().checked_sub(text.len())?;
        sections.push(Section { start, text, is_json: true });
    }
    Some(sections)
}

/// A line that begins with `---` separates documents wherever it stands, inside a block scalar too (YAML 1.2, 9.1.2).
fn split_yaml(text: &str) -> Vec<Section<'_>> {
    let mut sections = Vec::new();
    let mut begin = 0;
    let mut push = |start: usize, end: usize| {
        let text = text.get(start..end).unwrap_or_default();
        if text.lines().any(has_content) {
            sections.push(Section { start, text, is_json: false });
        }
    };
    let mut line_start = 0;
    for line in text.split_inclusive('\n') {
        let separator = line.strip_prefix("---");
        if separator.is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n'])) {
            push(begin, line_start);
            // `--- {a: b}` has its document on the same line.
            begin = line_start + 3;
        }
        line_start += line.len();
    }
    push(begin, text.len());
    sections
}

/// Neither blank, nor a comment, nor what stands between documents.
fn has_content(line: &str) -> bool {
    let word = line.trim_start_matches('\u{feff}').trim();
    !(word.is_empty() || word == "..." || word.starts_with('#') || line.starts_with('%'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_found_and_empty_ones_skipped() {
        for (text, expected) in [
            ("", vec![]),
            ("# only a comment\n", vec![]),
            ("a: 1", vec![(0, "a: 1")]),
            ("---\na: 1\n---\n# b\n---\nb: 2\n...\n", vec![(3, "\na: 1\n"), (20, "\nb: 2\n...\n")]),
            ("%YAML 1.2\n---\na: 1\n", vec![(13, "\na: 1\n")]),
            ("--- {a: 1}\n--- # c\nb", vec![(3, " {a: 1}\n"), (14, " # c\nb")]),
            ("a: |\n  text\n  --- none\n----\n", vec![(0, "a: |\n  text\n  --- none\n----\n")]),
            ("{\"a\": 1}\n {\"b\": 2}\n", vec![(0, "{\"a\": 1}"), (10, "{\"b\": 2}")]),
            ("{a: 1}\n---\n{b: 2}\n", vec![(0, "{a: 1}\n"), (10, "\n{b: 2}\n")]),
        ] {
            let found: Vec<_> = split(text).iter().map(|section| (section.start, section.text)).collect();
            assert_eq!(found, expected, "{text:?}");
        }
    }
}
