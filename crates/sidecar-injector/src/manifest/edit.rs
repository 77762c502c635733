//! Puts what the engine adds into a document's text, so that comments, order and style of the rest survive.
//!
//! Nothing is trusted: the edited text is read again and must be what the patch says. Where a text cannot be edited
//! (the list is an alias, for example), the document is written anew, with its fields in order but without comments.

mod json;
mod yaml;

use serde_json::Value;
use sidecar_engine::Patch;

use super::documents::{Document, Format};

/// An item to append to a list.
struct Append<'p> {
    /// The list, as keys and indexes from the root of the document.
    list: Vec<String>,
    /// As JSON text.
    item: &'p str,
}

/// A document after its edits.
#[derive(Debug)]
pub(crate) struct Edited {
    /// In the document's format.
    pub(crate) text: String,
    /// The same as JSON, fields in order.
    pub(crate) json: String,
    /// Whether comments and style of the document were kept.
    pub(crate) kept: bool,
}

/// Why a patch could not be put into a document.
#[derive(Debug, thiserror::Error)]
#[error("the patch cannot be put into the document: {0}")]
pub(crate) struct EditError(String);

/// Applies patches, each with the pointer to its pod in the document.
pub(crate) fn apply(document: &Document, patches: &[(String, Patch<'_>)]) -> Result<Edited, EditError> {
    let mut appends = Vec::new();
    for (pointer, patch) in patches {
        for operation in patch.operations() {
            let path = format!("{pointer}{}", operation.path());
            let list = path
                .strip_suffix("/-")
                .ok_or_else(|| EditError(format!("{path} is not the end of a list")))?;
            appends.push(Append { list: tokens(list), item: operation.value() });
        }
    }
    let json = appends
        .iter()
        .try_fold(document.json.clone(), |text, append| json::append(&text, append))
        .ok_or_else(|| EditError("a list was not found again".to_owned()))?;
    let expected: Value = serde_json::from_str(&json).map_err(|error| EditError(error.to_string()))?;
    let is_expected = |text: &str| {
        sidecar_engine::yaml::to_json(text)
            .is_ok_and(|json| serde_json::from_str(&json).is_ok_and(|value: Value| value == expected))
    };
    let edited = match document.format {
        Format::Json => {
            appends.iter().try_fold(document.text.clone(), |text, append| json::append(&text, append))
        }
        Format::Yaml => {
            appends.iter().try_fold(document.text.clone(), |text, append| yaml::append(&text, append))
        }
    };
    match edited {
        Some(text) if is_expected(&text) => Ok(Edited { text, json, kept: true }),
        _ => Ok(Edited { text: rewrite(&json, document.format)?, json, kept: false }),
    }
}

/// Writes JSON text anew, with its fields in their order.
pub(crate) fn rewrite(json: &str, format: Format) -> Result<String, EditError> {
    let mut reader = serde_json::Deserializer::from_str(json);
    match format {
        Format::Yaml => serde_saphyr::to_string(&serde_transcode::Transcoder::new(&mut reader))
            .map_err(|error| EditError(error.to_string())),
        Format::Json => {
            let text = json::pretty(json, "").ok_or_else(|| EditError("not JSON".to_owned()))?;
            Ok(text + "\n")
        }
    }
}

/// The unescaped tokens of a JSON pointer.
fn tokens(pointer: &str) -> Vec<String> {
    pointer.split('/').skip(1).map(|token| token.replace("~1", "/").replace("~0", "~")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::documents;
    use crate::manifest::input::Source;
    use crate::manifest::workload;
    use sidecar_engine::Engine;
    use sidecar_engine::definition::Compiled;

    const DEFINITION: &str = "apiVersion: sidecar.me/v1alpha1\nkind: ClusterSidecarDefinition\nmetadata: {name: s}\nspec: \
        {selector: {podSelector: {}}, inject: {spec: {containers: [{name: s, image: 's:1', args: ['yes', 'a b']}]}}}\n";

    fn inject(text: &str) -> Edited {
        let engine = Engine::new(vec![Compiled::from_yaml(DEFINITION).unwrap()]);
        let document =
            documents::split(&Source { name: "a".to_owned(), bytes: text.into() }).unwrap().remove(0);
        let value: Value = serde_json::from_str(&document.json).unwrap();
        let patches: Vec<_> = workload::pods(&value)
            .into_iter()
            .map(|place| (place.pointer, engine.inject(&place.pod.to_string()).unwrap().patch))
            .collect();
        apply(&document, &patches).unwrap()
    }

    /// Style by style: the text before, and the text after.
    #[test]
    fn every_style_of_writing_is_kept() {
        let s = |indent: &str| {
            format!(
                "{indent}- name: s\n{indent}  image: s:1\n{indent}  args:\n{indent}  - \"yes\"\n{indent}  - a b\n"
            )
        };
        let head = "apiVersion: v1\nkind: Pod\n# about the spec\nspec:\n";
        let json_item = r#"{"name":"s","image":"s:1","args":["yes","a b"]}"#;
        for (before, after) in [
            ("  containers:\n  - name: a # first\n    image: a\n  volumes: []\n".to_owned(),
             format!("  containers:\n  - name: a # first\n    image: a\n{}  volumes: []\n", s("  "))),
            ("  containers:\n    - name: a\n      args:\n        - |\n          text\n\n      # about a\n  # about volumes\n  volumes: []\n".to_owned(),
             format!("  containers:\n    - name: a\n      args:\n        - |\n          text\n\n      # about a\n{}  # about volumes\n  volumes: []\n", s("    "))),
            ("  containers:\n  - name: a".to_owned(), format!("  containers:\n  - name: a\n{}", s("  "))),
            ("  containers:\n  - {name: a}\n  - # b\n    name: b\n".to_owned(),
             format!("  containers:\n  - {{name: a}}\n  - # b\n    name: b\n{}", s("  "))),
            ("  containers: [{name: a}] # flow\n".to_owned(), format!("  containers: [{{name: a}}, {json_item}] # flow\n")),
            ("  containers: [\n    {name: a}, # a\n  ]\n".to_owned(),
             format!("  containers: [\n    {{name: a}}, {json_item}, # a\n  ]\n")),
            ("  containers:\r\n  - name: a\r\n  x: 1\r\n".to_owned(),
             format!("  containers:\r\n  - name: a\r\n{}  x: 1\r\n", s("  ").replace('\n', "\r\n"))),
        ] {
            let edited = inject(&format!("{head}{before}"));
            assert_eq!(edited.text, format!("{head}{after}"));
            assert!(edited.kept, "{before}");
        }
    }

    #[test]
    fn json_keeps_its_indentation_its_numbers_and_its_order() {
        let text = "{\n  \"kind\": \"Pod\", \"apiVersion\": \"v1\", \"x\": 1.0,\n  \"spec\": {\n    \"containers\": [\n      {\n        \"name\": \"a\"\n      }\n    ]\n  }\n}\n";
        let edited = inject(text);
        let added = ",\n      {\n        \"name\": \"s\",\n        \"image\": \"s:1\",\n        \"args\": [\n          \"yes\",\n          \"a b\"\n        ]\n      }\n    ]";
        assert_eq!(edited.text, text.replacen("\n    ]", added, 1));
        let compact = r#"{"kind":"Pod","apiVersion":"v1","spec":{"containers":[{"name":"a"}]}}"#;
        assert_eq!(
            inject(compact).text,
            compact.replace("}]", r#"},{"name":"s","image":"s:1","args":["yes","a b"]}]"#)
        );
    }

    #[test]
    fn an_alias_is_not_edited_under_its_other_users() {
        let text = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Pod\n  spec: {containers: &c [{name: a}]}\n- other: *c\n";
        let edited = inject(text);
        assert!(!edited.kept);
        assert!(!edited.json.contains(r#""other":[{"name":"a"},"#), "{}", edited.json);
        assert!(edited.text.starts_with("apiVersion: v1\nkind: List\nitems:\n"), "{}", edited.text);
    }
}
