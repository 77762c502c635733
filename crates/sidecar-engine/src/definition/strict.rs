//! Every field of a definition, the pod YAML in it too, against the types that Kubernetes and we have for it.

mod empty;
mod metadata;

pub(super) use empty::check as empty;

use std::borrow::Cow;

use super::problem::Step;
use super::{API_VERSION, FieldPath, Problem, ProblemCode, ReadOptions};
use crate::expression::unknown_fields;
use crate::json::Json;
use crate::quantity::Quantity;
use crate::shape::{Field, Format, ITEMS, OWN, POD, Shape, Slot, Table, Type, alternatives, kind_of};
use crate::suggestion::nearest;
use crate::yaml::Help;

/// The fields of a definition itself.
const TOP: [&str; 4] = ["apiVersion", "kind", "metadata", "spec"];

/// The kinds of definitions.
pub(super) const KINDS: [&str; 2] = ["ClusterSidecarDefinition", "SidecarDefinition"];

/// All that is wrong with a document.
pub(super) fn check(json: &Json<'_>, options: ReadOptions) -> Vec<Problem> {
    let mut check = Check { options, problems: Vec::new() };
    check.definition(json);
    check.problems
}

/// What a map is instead of a definition, where it is not even a misspelt one.
pub(super) fn foreign(json: &Json<'_>) -> Option<Problem> {
    json.fields()?;
    let (version, kind) = (json.get("apiVersion"), json.get("kind"));
    if version.is_none() && kind.is_none() {
        let message = format!(
            "neither apiVersion nor kind is there; a definition begins with apiVersion: {API_VERSION} and kind: {}",
            KINDS.join(" or ")
        );
        return Some(Problem::new(ProblemCode::MissingField, FieldPath::of("kind"), message));
    }
    let kind = kind?.text()?;
    let version = version.map_or(Some(Cow::Borrowed("")), Json::text)?;
    let group = API_VERSION.split('/').next().unwrap_or_default();
    if version.split('/').next() == Some(group) || nearest(&kind, KINDS).is_some() {
        return None;
    }
    let article = if kind.starts_with(['A', 'E', 'I', 'O', 'U']) { "an" } else { "a" };
    let version = if version.is_empty() { String::new() } else { format!(" ({version})") };
    let message =
        format!("this is {article} {kind}{version}, not a definition: kind must be {}", KINDS.join(" or "));
    Some(Problem::new(ProblemCode::InvalidValue, FieldPath::of("kind"), message))
}

struct Check {
    options: ReadOptions,
    problems: Vec<Problem>,
}

/// Whose YAML is looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    /// Ours: no expressions.
    Definition,
    /// A pod's: an expression may stand for anything.
    Pod,
}

impl Owner {
    fn table(self) -> &'static Table {
        match self {
            Owner::Definition => &OWN,
            Owner::Pod => &POD,
        }
    }
}

impl Check {
    fn report(&mut self, code: ProblemCode, path: &FieldPath, message: impl Into<String>) {
        self.problems.push(Problem::new(code, path.clone(), message));
    }

    fn suggest(&mut self, code: ProblemCode, path: &FieldPath, message: String, suggestion: Option<String>) {
        self.problems.push(Problem { suggestion, ..Problem::new(code, path.clone(), message) });
    }

    fn definition(&mut self, json: &Json<'_>) {
        let top = FieldPath::default();
        let Some(fields) = json.fields() else {
            self.wrong_type(&top, "a map", json);
            return;
        };
        for (key, _) in fields {
            // The API server keeps a status beside the spec.
            if !TOP.contains(&&**key) && key != "status" {
                self.unknown(&top.field(key), key, TOP, "");
            }
        }
        let version = self.required_text(json, &top, "apiVersion");
        if let Some(version) = version.filter(|version| version != API_VERSION) {
            let suggestion = nearest(&version, [API_VERSION]).map(ToOwned::to_owned);
            let message = format!("is {version:?}, must be {API_VERSION:?}");
            self.suggest(ProblemCode::InvalidValue, &top.field("apiVersion"), message, suggestion);
        }
        let kind = self.required_text(json, &top, "kind");
        if let Some(kind) = kind.as_deref().filter(|kind| !KINDS.contains(kind)) {
            self.not_one_of(&top.field("kind"), kind, KINDS);
        }
        match json.get("metadata") {
            Some(metadata) => self.metadata(metadata, kind.as_deref()),
            None => self.missing(&top.field("metadata"), "metadata"),
        }
        match json.get("spec") {
            Some(spec) => self.named(spec, "DefinitionSpec", &top.field("spec"), Owner::Definition),
            None => self.missing(&top.field("spec"), "spec"),
        }
    }

    /// A text that must be there.
    fn required_text(&mut self, json: &Json<'_>, path: &FieldPath, name: &str) -> Option<String> {
        let Some(value) = json.get(name) else {
            self.missing(&path.field(name), name);
            return None;
        };
        let text = value.text();
        if text.is_none() {
            self.wrong_type(&path.field(name), "a string", value);
        }
        Some(text?.into_owned())
    }

    fn field(&mut self, json: &Json<'_>, field: &'static Field, path: &FieldPath, owner: Owner) {
        self.value(json, &field.shape, path, owner);
        // A newer Kubernetes has more words, but no other numbers and names.
        let is_checked = !matches!(field.format, Format::OneOf(_)) || !self.options.allow_unknown_pod_fields;
        if field.format != Format::Any && is_checked {
            self.format(json, field.format, path);
        }
    }

    fn format(&mut self, json: &Json<'_>, format: Format, path: &FieldPath) {
        match json {
            Json::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.format(item, format, &path.item(index));
                }
            }
            Json::Object(fields) => {
                for (key, value) in fields {
                    self.format(value, format, &path.field(key));
                }
            }
            scalar if !is_expression(scalar) && !format.allows(scalar) => {
                let message = format!("is {scalar}, {}", format.described());
                let suggestion = scalar.text().and_then(|text| format.suggestion(&text));
                self.suggest(ProblemCode::InvalidValue, path, message, suggestion);
            }
            _ => {}
        }
    }

    fn value(&mut self, json: &Json<'_>, shape: &'static Shape, path: &FieldPath, owner: Owner) {
        if owner == Owner::Pod
            && let Json::Text(text) = json
            && is_expression(json)
        {
            self.written_out(text, shape, path);
            return;
        }
        match (shape, json) {
            (Shape::Any, _)
            | (Shape::Text | Shape::IntOrText, Json::Text(_))
            | (Shape::Number, Json::Number(_))
            | (Shape::Flag, Json::Bool(_)) => {}
            (Shape::Integer, Json::Number(number)) if number.is_i64() || number.is_u64() => {}
            (Shape::Int32 | Shape::IntOrText, Json::Number(number)) if number.is_i64() || number.is_u64() => {
                if number.as_i64().is_none_or(|number| i32::try_from(number).is_err()) {
                    let message =
                        format!("{number} is too large, must be within {} and {}", i32::MIN, i32::MAX);
                    self.report(ProblemCode::InvalidValue, path, message);
                }
            }
            (Shape::Quantity, Json::Text(_) | Json::Number(_)) => {
                let text = json.text().map_or_else(|| json.to_string(), std::borrow::Cow::into_owned);
                if Quantity::parse(&text).is_none() {
                    let message = format!("{text:?} is no quantity, write it like 100m or 64Mi");
                    self.report(ProblemCode::InvalidValue, path, message);
                }
            }
            (Shape::List(_), Json::List(items)) if items.len() > ITEMS => self.too_many(items.len(), path),
            (Shape::Map(_), Json::Object(fields)) if fields.len() > ITEMS => {
                self.too_many(fields.len(), path);
            }
            (Shape::List(item), Json::List(items)) => {
                for (index, value) in items.iter().enumerate() {
                    self.value(value, item, &path.item(index), owner);
                }
            }
            (Shape::Map(item), Json::Object(fields)) => {
                for (key, value) in fields {
                    self.value(value, item, &path.field(key), owner);
                }
            }
            (Shape::Named(name), _) => self.named(json, name, path, owner),
            _ => self.wrong_type(path, shape.described(), json),
        }
    }

    /// What an expression writes out, as if it were YAML.
    fn written_out(&mut self, text: &str, shape: &'static Shape, path: &FieldPath) {
        if self.options.allow_unknown_pod_fields {
            return;
        }
        for (below, key, suggestion) in unknown_fields(text, Slot::of(shape)) {
            let place = if below.is_empty() {
                String::new()
            } else {
                format!(" in {}", below.trim_start_matches('.'))
            };
            let message = format!("unknown field {key:?}{place} of what the expression gives");
            self.suggest(ProblemCode::InvalidExpression, path, message, suggestion);
        }
    }

    fn named(&mut self, json: &Json<'_>, name: &str, path: &FieldPath, owner: Owner) {
        match (owner.table().get(name), json) {
            (Some(Type::Enum(values)), Json::Text(text)) => {
                if !values.iter().any(|value| value == text) {
                    self.not_one_of(path, text, values.iter().map(String::as_str));
                }
            }
            (Some(Type::Enum(values)), _) => {
                self.wrong_type(path, &format!("one of {}", values.join(", ")), json);
            }
            (Some(Type::Struct(_)), Json::Object(_)) => match (owner, name) {
                (Owner::Definition, "PodTemplate") => self.pod_template(json, path),
                (Owner::Definition, "ContainerPatch") => self.container_patch(json, path),
                (Owner::Definition, "Placement") => self.placement(json, path),
                _ => {
                    self.fields(json, owner.table().fields(name), path, owner);
                    let problem = alternatives(name, json, is_expression).filter(|_| owner == Owner::Pod);
                    if let Some(problem) = problem {
                        self.report(ProblemCode::InvalidValue, path, problem);
                    }
                }
            },
            (Some(Type::Struct(_)), _) => self.wrong_type(path, "a map", json),
            // The tables name no type that they do not have; a test sees to it.
            (None, _) => {}
        }
    }

    /// The fields of an object against those of its type.
    fn fields(&mut self, json: &Json<'_>, known: &'static [Field], path: &FieldPath, owner: Owner) {
        self.known_fields(json, known, path, owner);
        for field in known.iter().filter(|field| field.is_required) {
            if json.get(&field.name).is_none() {
                self.missing(&path.field(&field.name), &field.name);
            }
        }
    }

    fn known_fields(&mut self, json: &Json<'_>, known: &'static [Field], path: &FieldPath, owner: Owner) {
        for (key, value) in json.fields().into_iter().flatten() {
            let path = path.field(key);
            match known.iter().find(|field| field.name == *key) {
                Some(field) => self.field(value, field, &path, owner),
                None => self.unknown_of(&path, key, known, owner),
            }
        }
    }

    fn unknown_of(&mut self, path: &FieldPath, key: &str, known: &'static [Field], owner: Owner) {
        if owner == Owner::Definition || !self.options.allow_unknown_pod_fields {
            let hint = if owner == Owner::Pod { " in this pod YAML" } else { "" };
            self.unknown(path, key, known.iter().map(|field| field.name.as_str()), hint);
        }
    }

    /// Partial: what a pod must have, the pod that gets this has already.
    fn pod_template(&mut self, json: &Json<'_>, path: &FieldPath) {
        for (key, value) in json.fields().into_iter().flatten() {
            let path = path.field(key);
            if is_expression(value) {
                continue;
            }
            match (&**key, value) {
                ("metadata", Json::Object(_)) => self.pod_metadata(value, &path),
                ("spec", Json::Object(_)) => {
                    self.known_fields(value, POD.fields("PodSpec"), &path, Owner::Pod);
                }
                ("metadata" | "spec", _) => self.wrong_type(&path, "a map", value),
                _ => {
                    let in_spec = POD.fields("PodSpec").iter().any(|field| field.name == *key);
                    let hint = if in_spec { ", it belongs into inject.spec" } else { "" };
                    self.unknown(&path, key, ["metadata", "spec"], hint);
                }
            }
        }
    }

    fn container_patch(&mut self, json: &Json<'_>, path: &FieldPath) {
        let (own, container) = (OWN.fields("ContainerPatch"), POD.fields("Container"));
        for (key, value) in json.fields().into_iter().flatten() {
            let path = path.field(key);
            let find = |fields: &'static [Field]| fields.iter().find(|field| field.name == *key);
            if key == "name" {
                let message = "a patch cannot rename containers; \"names\" says which ones it is for";
                self.suggest(ProblemCode::NotAllowed, &path, message.to_owned(), Some("names".to_owned()));
            } else if let Some(field) = find(own) {
                self.field(value, field, &path, Owner::Definition);
            } else if let Some(field) = find(container) {
                self.field(value, field, &path, Owner::Pod);
            } else if !self.options.allow_unknown_pod_fields {
                let known = own.iter().chain(container).map(|field| field.name.as_str());
                self.unknown(&path, key, known.filter(|name| *name != "name"), "");
            }
        }
    }

    fn placement(&mut self, json: &Json<'_>, path: &FieldPath) {
        const SHAPE: &str = "First, Last, {before: NAME} or {after: NAME}";
        for (key, value) in json.fields().into_iter().flatten() {
            let path = path.field(key);
            if !OWN.fields("Placement").iter().any(|field| field.name == *key) {
                self.unknown_of(&path, key, OWN.fields("Placement"), Owner::Definition);
                continue;
            }
            match value {
                Json::Text(end) if end == "First" || end == "Last" => {}
                Json::Text(end) => {
                    let suggestion = nearest(end, ["First", "Last"]).map(ToOwned::to_owned);
                    let message = format!("is {end:?}, must be {SHAPE}");
                    self.suggest(ProblemCode::InvalidValue, &path, message, suggestion);
                }
                Json::Object(sides) => {
                    let is_side = |side: &str| matches!(side, "before" | "after");
                    for (side, name) in sides {
                        let path = path.field(side);
                        if !is_side(side) {
                            self.unknown(&path, side, ["before", "after"], "");
                        } else if name.text().is_none() {
                            self.wrong_type(&path, "a string", name);
                        }
                    }
                    if sides.iter().all(|(side, _)| is_side(side)) && sides.len() != 1 {
                        self.report(ProblemCode::InvalidValue, &path, format!("must be {SHAPE}"));
                    }
                }
                other => self.wrong_type(&path, SHAPE, other),
            }
        }
    }

    fn unknown<'k>(
        &mut self,
        path: &FieldPath,
        key: &str,
        known: impl IntoIterator<Item = &'k str>,
        hint: &str,
    ) {
        let suggestion = nearest(key, known).map(ToOwned::to_owned);
        let hint = if suggestion.is_some() { "" } else { hint };
        self.suggest(ProblemCode::UnknownField, path, format!("unknown field {key:?}{hint}"), suggestion);
        self.help_with(key);
    }

    /// `- ${a ? b : c}` is a map to YAML.
    fn help_with(&mut self, key: &str) {
        if let Some(problem) = self.problems.last_mut().filter(|_| key.contains("${")) {
            problem.help = Some(Help::QuoteExpression);
        }
    }

    fn too_many(&mut self, count: usize, path: &FieldPath) {
        self.report(ProblemCode::InvalidValue, path, format!("has {count} items, {ITEMS} are allowed"));
    }

    fn missing(&mut self, path: &FieldPath, name: &str) {
        self.report(ProblemCode::MissingField, path, format!("{name:?} must be there"));
    }

    fn not_one_of<'v>(&mut self, path: &FieldPath, value: &str, values: impl IntoIterator<Item = &'v str>) {
        let values: Vec<_> = values.into_iter().collect();
        let suggestion = nearest(value, values.iter().copied()).map(ToOwned::to_owned);
        let message = format!("is {value:?}, must be one of {}", values.join(", "));
        self.suggest(ProblemCode::InvalidValue, path, message, suggestion);
    }

    fn wrong_type(&mut self, path: &FieldPath, expected: &str, json: &Json<'_>) {
        // A number or a boolean where YAML needs quotes.
        let quoted = expected == "a string" && matches!(json, Json::Number(_) | Json::Bool(_));
        let suggestion = quoted.then(|| json.to_string());
        let message = match path.0.last() {
            None => format!("a definition must be {expected}, not {}", kind_of(json)),
            Some(Step::Field(_) | Step::Item(_)) => format!("must be {expected}, not {}", kind_of(json)),
        };
        self.suggest(ProblemCode::WrongType, path, message, suggestion);
        if let Some((key, _)) = json.fields().and_then(|fields| fields.first()) {
            self.help_with(key);
        }
    }
}

/// A string with an expression in it.
fn is_expression(json: &Json<'_>) -> bool {
    matches!(json, Json::Text(text) if text.contains("${"))
}
