//! Cuts a source into documents without losing a byte: put together again they are the source.

use serde_json::value::RawValue;
use sidecar_engine::yaml;

use super::input::Source;
use crate::failure::Failure;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Yaml,
    Json,
}

/// One document, with whatever stands around it.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) format: Format,
    /// Separator lines, comments and blanks before it.
    pub(crate) before: String,
    /// The document itself; for YAML with its comments.
    pub(crate) text: String,
    /// The same as JSON, fields in order; `null` for a document of comments.
    pub(crate) json: String,
}

/// Cuts a source into its documents.
pub(crate) fn split(source: &Source) -> Result<Vec<Document>, Failure> {
    let text = source.text().map_err(|error| Failure::input(&source.name, error))?;
    // YAML includes JSON, but not a stream of JSON objects one after the other.
    if text.trim_start().starts_with('{')
        && let Some(documents) = split_json(text)
    {
        return Ok(documents);
    }
    split_yaml(text, &source.name)
}

fn split_json(text: &str) -> Option<Vec<Document>> {
    let mut documents = Vec::new();
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
    let mut end = 0;
    while let Some(value) = stream.next() {
        let json = value.ok()?.get();
        let next = stream.byte_offset();
        let start = next.checked_sub(json.len())?;
        documents.push(Document {
            format: Format::Json,
            before: text.get(end..start)?.to_owned(),
            text: json.to_owned(),
            json: json.to_owned(),
        });
        end = next;
    }
    let rest = text.get(end..)?;
    if let Some(last) = documents.last_mut() {
        last.text.push_str(rest);
    }
    Some(documents)
}

/// A line that begins with `---` separates documents wherever it stands, inside a block scalar too (YAML 1.2, 9.1.2).
fn split_yaml(text: &str, name: &str) -> Result<Vec<Document>, Failure> {
    let mut documents = Vec::new();
    let (mut before, mut body, mut line_number, mut body_line) = (String::new(), String::new(), 0, 0);
    let mut push = |before: &mut String, body: &mut String, line: usize| -> Result<(), Failure> {
        if before.is_empty() && body.is_empty() {
            return Ok(());
        }
        let json = yaml::to_json(body).map_err(|error| {
            Failure::text((name, text), (line + error.line, error.column), &error.problem, error.help)
        })?;
        documents.push(Document {
            format: Format::Yaml,
            before: std::mem::take(before),
            text: std::mem::take(body),
            json,
        });
        Ok(())
    };
    for line in text.split_inclusive('\n') {
        let is_separator = line
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']));
        if is_separator {
            push(&mut before, &mut body, body_line)?;
            // `--- {a: b}` has its document on the same line.
            let content = line.get(3..).unwrap_or_default();
            if content.trim().is_empty() || content.trim_start().starts_with('#') {
                line.clone_into(&mut before);
                body_line = line_number + 1;
            } else {
                "---".clone_into(&mut before);
                content.clone_into(&mut body);
                body_line = line_number;
            }
        } else {
            body.push_str(line);
        }
        line_number += 1;
    }
    push(&mut before, &mut body, body_line)?;
    Ok(documents)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn documents(text: &str) -> Vec<Document> {
        split(&Source { name: "a.yaml".to_owned(), bytes: text.into() }).unwrap()
    }

    #[test]
    fn documents_put_together_are_the_source() {
        for text in [
            "",
            "a: 1",
            "# only a comment\n",
            "---\na: 1\n---\n# b\nb: 2\n...\n---\n",
            "a: |\n  text\n  --- no separator\n--- # next\nb: 2\r\n",
            "--- {a: 1}\n--- b\n",
            "{\"a\": 1}\n{\"b\": 2}\n\n",
            "{a: 1}\n",
        ] {
            let documents = documents(text);
            let again: String = documents.iter().flat_map(|d| [d.before.as_str(), d.text.as_str()]).collect();
            assert_eq!(again, text);
        }
    }

    #[test]
    fn an_error_has_the_line_of_the_file() {
        let source = Source { name: "a.yaml".to_owned(), bytes: "a: 1\n---\nb: 2\nb: 3\n".into() };
        let message = split(&source).unwrap_err().to_string();
        assert!(message.contains("a.yaml:4:1") && message.contains("4 | b: 3"), "{message}");
    }

    #[test]
    fn json_is_told_from_yaml_in_flow_style() {
        assert_eq!(documents("{\"a\": 1}")[0].format, Format::Json);
        assert_eq!(documents("{a: 1}")[0].format, Format::Yaml);
        assert_eq!(
            documents("{\"a\": 1} {\"b\": [2]}").iter().map(|d| d.json.as_str()).collect::<Vec<_>>(),
            ["{\"a\": 1}", "{\"b\": [2]}"]
        );
    }
}
