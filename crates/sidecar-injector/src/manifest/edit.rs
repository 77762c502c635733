//! Puts what the engine changes into a document's text, so that comments, order and style of the rest survive.
//!
//! Nothing is trusted: the edited text is read again and must be what the patch says. Where a text cannot be edited
//! (the list is an alias, for example), the document is written anew, with its fields in order but without comments.

mod edits;
mod json;
mod yaml;

use serde_json::Value;
use sidecar_engine::Patch;

use super::documents::{Document, Format};
use edits::Edits;

/// A piece of text in the place of another, by byte offsets of the text as it was.
struct Replacement {
    start: usize,
    end: usize,
    text: String,
}

/// The text with all replacements; of those at one place, in their order.
fn splice(text: &str, mut replacements: Vec<Replacement>) -> Option<String> {
    replacements.sort_by_key(|replacement| replacement.start);
    let added: usize = replacements.iter().map(|one| one.text.len()).sum();
    let mut spliced = String::with_capacity(text.len() + added);
    let mut copied = 0;
    for replacement in replacements {
        spliced.push_str(text.get(copied..replacement.start)?);
        spliced.push_str(&replacement.text);
        copied = replacement.end;
    }
    spliced.push_str(text.get(copied..)?);
    Some(spliced)
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
    let json = sidecar_engine::apply_all(&document.json, patches)
        .ok_or_else(|| EditError("it does not apply any more".to_owned()))?;
    let root: Value = serde_json::from_str(&document.json).map_err(|error| EditError(error.to_string()))?;
    let mut edits = Some(Edits::default());
    for (pointer, patch) in patches {
        for operation in patch.operations() {
            let path = format!("{pointer}{}", operation.path());
            let fits = edits.as_mut().is_some_and(|edits| edits.add(&root, &path, operation).is_some());
            edits = edits.filter(|_| fits);
        }
    }
    let expected: Value = serde_json::from_str(&json).map_err(|error| EditError(error.to_string()))?;
    let is_expected = |text: &str| {
        let json = sidecar_engine::yaml::to_json(text);
        json.is_ok_and(|json| serde_json::from_str(&json).is_ok_and(|value: Value| value == expected))
    };
    let edited = edits.and_then(|edits| match document.format {
        Format::Json => json::apply(&document.text, &edits),
        Format::Yaml => yaml::apply(&document.text, &edits),
    });
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

    /// Everything that a patch can do: fields and items where there are none, in front and behind, and other values.
    const EVERYTHING: &str = "apiVersion: sidecar.me/v1alpha1\nkind: ClusterSidecarDefinition\nmetadata: {name: s}\nspec: \
        {selector: {podSelector: {}}, onConflict: Replace, placement: {containers: First}, \
        inject: {metadata: {annotations: {x: '1'}}, spec: {hostname: h, containers: [{name: s, image: 's:1'}]}}, \
        patchContainers: [{env: [{name: E, value: e}], readinessProbe: {httpGet: {port: 1}}}]}\n";

    fn inject(text: &str) -> Edited {
        inject_with(DEFINITION, text)
    }

    fn inject_with(definition: &str, text: &str) -> Edited {
        let engine = Engine::new(vec![Compiled::from_yaml(definition).unwrap().into()]);
        let document =
            documents::split(&Source { name: "a".to_owned(), bytes: text.into() }).unwrap().remove(0);
        let value: Value = serde_json::from_str(&document.json).unwrap();
        let patches: Vec<_> = workload::pods(&value)
            .into_iter()
            .map(|place| {
                (
                    place.pointer,
                    engine
                        .inject(&place.pod.to_string(), &sidecar_engine::Namespace::unknown("default"))
                        .unwrap()
                        .patch,
                )
            })
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
    fn fields_and_items_are_added_and_values_replaced_in_their_style() {
        for (before, after) in [
            // Nothing there yet.
            (
                "metadata:\n  name: p # the pod\nspec:\n  containers:\n    # about a\n    - name: a\n",
                "metadata:\n  name: p # the pod\n  annotations:\n    x: \"1\"\nspec:\n  containers:\n    - name: s\n      image: s:1\n    # about a\n    - name: a\n      env:\n      - name: E\n        value: e\n      readinessProbe:\n        httpGet:\n          port: 1\n  hostname: h\n",
            ),
            // Everything there, and different.
            (
                "metadata:\n  annotations: # notes\n    y: '2' # y\nspec:\n  hostname: old # the name\n  containers:\n  - name: a\n    env: # variables\n    - {name: E, value: old} # e\n    # the probe\n    readinessProbe:\n      exec: {command: [a]}\n    image: a\n",
                "metadata:\n  annotations: # notes\n    y: '2' # y\n    x: \"1\"\nspec:\n  hostname: h # the name\n  containers:\n  - name: s\n    image: s:1\n  - name: a\n    env: # variables\n    - {\"name\":\"E\",\"value\":\"e\"} # e\n    # the probe\n    readinessProbe:\n      httpGet:\n        port: 1\n    image: a\n",
            ),
            // Keys with nothing behind them, as Helm's templates leave them.
            (
                "metadata:\n  annotations:\nspec:\n  hostname: # none\n  containers:\n  - name: a\n    env:\n    readinessProbe:\n",
                "metadata:\n  annotations: {\"x\":\"1\"}\nspec:\n  hostname: h # none\n  containers:\n  - name: s\n    image: s:1\n  - name: a\n    env: [{\"name\":\"E\",\"value\":\"e\"}]\n    readinessProbe: {\"httpGet\":{\"port\":1}}\n",
            ),
            // Flow style, empty collections.
            (
                "metadata: {annotations: {}}\nspec: {containers: [{name: a, env: []}]} # flow\n",
                "metadata: {annotations: {\"x\": \"1\"}}\nspec: {containers: [{\"name\":\"s\",\"image\":\"s:1\"}, {name: a, env: [{\"name\":\"E\",\"value\":\"e\"}], \"readinessProbe\": {\"httpGet\":{\"port\":1}}}], \"hostname\": \"h\"} # flow\n",
            ),
        ] {
            let head = "apiVersion: v1\nkind: Pod\n";
            let edited = inject_with(EVERYTHING, &format!("{head}{before}"));
            assert_eq!(edited.text, format!("{head}{after}"));
            assert!(edited.kept, "{before}");
        }
        let json = "{\n  \"kind\": \"Pod\", \"apiVersion\": \"v1\", \"metadata\": {},\n  \"spec\": {\n    \"hostname\": \"old\",\n    \"containers\": [\n      {\n        \"name\": \"a\"\n      }\n    ]\n  }\n}\n";
        let edited = inject_with(EVERYTHING, json);
        let expected = "{\n  \"kind\": \"Pod\", \"apiVersion\": \"v1\", \"metadata\": {\"annotations\":{\"x\":\"1\"}},\n  \"spec\": {\n    \"hostname\": \"h\",\n    \"containers\": [\n      {\n        \"name\": \"s\",\n        \"image\": \"s:1\"\n      },\n      {\n        \"name\": \"a\",\n        \"env\": [\n          {\n            \"name\": \"E\",\n            \"value\": \"e\"\n          }\n        ],\n        \"readinessProbe\": {\n          \"httpGet\": {\n            \"port\": 1\n          }\n        }\n      }\n    ]\n  }\n}\n";
        assert_eq!(edited.text, expected);
        assert!(edited.kept);
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

    /// Regression: each of the items walked through the whole document again, 17 s for a list of 1,000 pods.
    #[test]
    fn every_pod_of_a_list_gets_its_own() {
        let item =
            "- apiVersion: v1\n  kind: Pod\n  spec:\n    containers:\n    - name: a\n  # about the next\n";
        let edited = inject(&format!("apiVersion: v1\nkind: List\nitems:\n{}", item.repeat(1_000)));
        assert!(edited.kept);
        assert_eq!(edited.text.matches("    - name: a\n    - name: s\n").count(), 1_000);
        assert_eq!(edited.text.matches("# about the next").count(), 1_000);
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
