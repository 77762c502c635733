//! The JSON Patch (RFC 6902), made from what was done and checked against the pod as it was received.
//!
//! A patch that does not apply rejects the pod even under `failurePolicy: Ignore` (kubernetes/kubernetes#129459). So
//! only `add` and `replace` are used, and before a patch is sent it is applied once, to what was received.

use crate::json::{Json, Plan};
use crate::pod::Pod;

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Adds a field or an item of a list.
    Add,
    /// Puts something in the place of a field or an item that is there.
    Replace,
}

impl Verb {
    /// As in RFC 6902.
    pub fn name(self) -> &'static str {
        match self {
            Verb::Add => "add",
            Verb::Replace => "replace",
        }
    }
}

/// Operations in the order in which they apply.
#[derive(Debug, Default)]
pub struct Patch<'e> {
    operations: Vec<Operation<'e>>,
}

/// One operation.
#[derive(Debug, Clone)]
pub struct Operation<'e> {
    pub(crate) verb: Verb,
    pub(crate) path: String,
    pub(crate) value: Json<'e>,
}

/// An operation that would not apply to the pod.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotApplicable {
    pub(crate) path: String,
}

impl Operation<'_> {
    /// What it does.
    pub fn verb(&self) -> Verb {
        self.verb
    }

    /// Where, as a JSON pointer (RFC 6901) into the pod.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What is put there, as JSON text.
    pub fn value(&self) -> String {
        self.value.to_string()
    }
}

impl<'e> Patch<'e> {
    /// A patch of operations that are known to apply to the pod, one after the other.
    pub(crate) fn checked(operations: Vec<Operation<'e>>, pod: &Pod<'_>) -> Result<Self, NotApplicable> {
        let mut result = Json::Shared(&pod.json);
        for operation in &operations {
            if apply(operation, &mut result).is_none() {
                return Err(NotApplicable { path: operation.path.clone() });
            }
        }
        Ok(Patch { operations })
    }

    /// The operations, in the order in which they apply.
    pub fn operations(&self) -> &[Operation<'e>] {
        &self.operations
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// The patch as JSON text, for a pod that stands at `prefix` (a JSON pointer, empty for the pod itself).
    pub fn to_json(&self, prefix: &str) -> String {
        let mut json = String::with_capacity(256);
        json.push('[');
        for (index, operation) in self.operations.iter().enumerate() {
            json.push_str(if index == 0 { r#"{"op":""# } else { r#",{"op":""# });
            json.push_str(operation.verb.name());
            json.push_str(r#"","path":"#);
            // Labels and annotations may have any key.
            push_text(&mut json, prefix, &operation.path);
            json.push_str(r#","value":"#);
            json.push_str(&operation.value());
            json.push('}');
        }
        json.push(']');
        json
    }
}

/// A document with patches applied, each to the pod at its prefix (a JSON pointer). What no patch touches stays as it is,
/// byte for byte; `None` when one does not apply.
pub fn apply_all(document: &str, patches: &[(String, Patch<'_>)]) -> Option<String> {
    let mut result = Json::read(document, &Plan::Open).ok()?;
    for (prefix, patch) in patches {
        for operation in &patch.operations {
            let operation = Operation { path: format!("{prefix}{}", operation.path), ..operation.clone() };
            apply(&operation, &mut result)?;
        }
    }
    Some(result.to_string())
}

impl Operation<'_> {
    /// A document with this operation applied at another path; `None` when it does not apply.
    pub fn apply_at(&self, document: &str, path: &str) -> Option<String> {
        let mut result = Json::read(document, &Plan::Open).ok()?;
        if path.is_empty() {
            return Some(self.value());
        }
        apply(&Operation { path: path.to_owned(), ..self.clone() }, &mut result)?;
        Some(result.to_string())
    }
}

fn push_text(json: &mut String, prefix: &str, path: &str) {
    let is_plain = |text: &str| text.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\');
    if is_plain(prefix) && is_plain(path) {
        json.extend(["\"", prefix, path, "\""]);
    } else {
        json.push_str(&Json::text_from(format!("{prefix}{path}")).to_string());
    }
}

/// As the API server's library does it, but stricter: what is replaced must be there.
fn apply<'p, 'e: 'p>(operation: &Operation<'e>, pod: &mut Json<'p>) -> Option<()> {
    let (parents, last) = operation.path.rsplit_once('/')?;
    let mut parent = pod;
    for token in parents.split('/').skip(1) {
        parent = match parent.open() {
            Json::List(items) => items.get_mut(index(token)?)?,
            object => object.get_mut(&unescaped(token))?,
        };
    }
    let value = operation.value.clone();
    match (parent.open(), operation.verb) {
        (Json::List(items), Verb::Add) if last == "-" => items.push(value),
        (Json::List(items), Verb::Add) => {
            let index = index(last)?;
            if index > items.len() {
                return None;
            }
            items.insert(index, value);
        }
        (Json::List(items), Verb::Replace) => *items.get_mut(index(last)?)? = value,
        (object @ Json::Object(_), Verb::Add) => object.set(unescaped(last).into(), value),
        (object @ Json::Object(_), Verb::Replace) => *object.get_mut(&unescaped(last))? = value,
        _ => return None,
    }
    Some(())
}

fn index(token: &str) -> Option<usize> {
    // `01` and `+1` mean something to Go, and nothing to others.
    let is_canonical =
        token == "0" || (!token.starts_with('0') && token.bytes().all(|byte| byte.is_ascii_digit()));
    is_canonical.then(|| token.parse().ok())?
}

fn unescaped(token: &str) -> String {
    token.replace("~1", "/").replace("~0", "~")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Regression of kubernetes/kubernetes#129459: the API server rejects the pod when a patch does not apply.
    #[test]
    fn an_operation_that_does_not_apply_is_never_sent() {
        for (pod, verb, path, applies) in [
            (r#"{"spec":{"containers":[]}}"#, Verb::Add, "/spec/containers/-", true),
            (r#"{"spec":{"containers":[1]}}"#, Verb::Add, "/spec/containers/0", true),
            (r#"{"spec":{"containers":[1]}}"#, Verb::Add, "/spec/containers/1", true),
            (r#"{"spec":{"containers":[1]}}"#, Verb::Add, "/spec/containers/2", false),
            (r#"{"spec":{"containers":[1]}}"#, Verb::Add, "/spec/containers/01", false),
            (r#"{"spec":{"containers":[1]}}"#, Verb::Replace, "/spec/containers/0", true),
            (r#"{"spec":{"containers":[1]}}"#, Verb::Replace, "/spec/containers/1", false),
            (r#"{"spec":{"containers":[1]}}"#, Verb::Replace, "/spec/containers/-", false),
            (r#"{"spec":{"containers":{}}}"#, Verb::Add, "/spec/containers/-", true),
            (r#"{"spec":{"containers":null}}"#, Verb::Add, "/spec/containers/-", false),
            (r#"{"spec":null}"#, Verb::Add, "/spec/containers/-", false),
            (r"{}", Verb::Add, "/spec/containers", false),
            (r#"{"spec":{}}"#, Verb::Add, "/spec/containers", true),
            (r#"{"spec":{}}"#, Verb::Replace, "/spec/containers", false),
            (r#"{"spec":"x"}"#, Verb::Add, "/spec/containers", false),
            (r#"{"a":{"b/c~d":{}}}"#, Verb::Add, "/a/b~1c~0d/x", true),
            (r#"{"a":{"b/c~d":{}}}"#, Verb::Add, "/a/b/c~d/x", false),
        ] {
            let view = Pod::parse(pod).unwrap();
            let operation = Operation { verb, path: path.to_owned(), value: Json::Bool(true) };
            let patch = Patch::checked(vec![operation], &view);
            assert_eq!(patch.is_ok(), applies, "{path} in {pod}");
            // An independent implementation never refuses what we send.
            if let Ok(patch) = patch {
                let patch: json_patch::Patch = serde_json::from_str(&patch.to_json("")).unwrap();
                json_patch::patch(&mut serde_json::from_str(pod).unwrap(), &patch).unwrap();
            }
        }
    }

    #[test]
    fn paths_are_json_strings_whatever_is_in_them() {
        let operation = Operation { verb: Verb::Add, path: "/a/\"\\\n".to_owned(), value: Json::Null };
        let patch = Patch { operations: vec![operation] };
        let read: serde_json::Value = serde_json::from_str(&patch.to_json("/t")).unwrap();
        assert_eq!(read[0]["path"], "/t/a/\"\\\n");
    }
}
