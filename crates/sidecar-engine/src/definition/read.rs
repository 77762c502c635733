//! Files and objects → definitions, strictly: whatever is not understood is a problem, and all problems come at once.

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;

use super::places::{Lines, Part, Places};
use super::problem::Step;
use super::sections::{self, Section};
use super::{
    Compiled, Definition, FieldPath, Kind, PATCH_HEAD, Place, Problem, ProblemCode, references, strict,
};
use crate::fingerprint::fingerprint;
use crate::json::Json;
use crate::yaml::{self, Help};

/// One document of a file that is, or should be, a definition.
#[derive(Debug)]
pub struct Document {
    /// What it is called, if that can be read.
    pub name: Option<DefinitionName>,
    /// Its first line in the file, from 1.
    pub line: usize,
    /// The definition, or all that is wrong with it in the order of the text.
    pub definition: Result<Definition, Vec<Problem>>,
    origin: Origin,
}

/// What a definition is told from others by.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DefinitionName {
    /// Which pods it may reach.
    pub kind: Kind,
    /// Only of a [`Kind::SidecarDefinition`].
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

/// How strictly definitions are read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// Lets fields pass that this version's Kubernetes does not have in a pod.
    pub allow_unknown_pod_fields: bool,
}

/// The part of a file that a document is.
#[derive(Debug, Clone)]
struct Origin {
    /// In bytes.
    section: Range<usize>,
    /// The item of a `kind: List`; otherwise empty.
    item: FieldPath,
}

/// Reads a file: YAML with any number of documents, or JSON objects one after the other; `kind: List` too. Documents
/// without content are skipped, and a bad one is its own problem only.
pub fn read(text: &str, options: &ReadOptions) -> Vec<Document> {
    let lines = Lines::of(text);
    sections::split(text).iter().flat_map(|section| read_section(section, &lines, *options)).collect()
}

/// Reads an object from the API server. Its problems have no places.
///
/// # Errors
/// All that is wrong with it.
pub fn read_json(text: &str, options: &ReadOptions) -> Result<Definition, Vec<Problem>> {
    let json = Json::parse(text).map_err(|error| {
        vec![Problem::new(ProblemCode::Syntax, FieldPath::default(), format!("not JSON: {error}"))]
    })?;
    definition(json.into_owned(), *options)
}

impl Document {
    /// Adds to problems of this document their places in the file, and sorts them by these.
    pub fn locate(&self, text: &str, problems: Vec<Problem>) -> Vec<Problem> {
        let section = text.get(self.origin.section.clone()).unwrap_or_default();
        locate(problems, &Places::of(section), &self.origin, &Lines::of(text))
    }

    /// Where its name stands, for who has to say that there are two of it.
    pub fn place_of_name(&self, text: &str) -> Option<Place> {
        let name = Problem::new(ProblemCode::NameTaken, FieldPath::of("metadata.name"), "");
        self.locate(text, vec![name]).first()?.place
    }

    /// Compiles the definition; the problems that only this finds have places too.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn compile(mut self, text: &str) -> Result<Compiled, Vec<Problem>> {
        let definition = std::mem::replace(&mut self.definition, Err(Vec::new()))?;
        Compiled::new(definition).map_err(|problems| self.locate(text, problems))
    }
}

/// `SidecarDefinition team-a/proxy`.
impl fmt::Display for DefinitionName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DefinitionName { kind, namespace, name } = self;
        match namespace {
            Some(namespace) => write!(formatter, "{} {namespace}/{name}", kind.as_str()),
            None => write!(formatter, "{} {name}", kind.as_str()),
        }
    }
}

impl DefinitionName {
    /// As decisions say it: `log-shipper`, or `team-a/proxy`.
    pub fn shown(&self) -> String {
        match &self.namespace {
            None => self.name.clone(),
            Some(namespace) => format!("{namespace}/{}", self.name),
        }
    }

    fn of(json: &Json<'_>) -> Option<Self> {
        let kind = match &*json.text_of("kind")? {
            "ClusterSidecarDefinition" => Kind::ClusterSidecarDefinition,
            "SidecarDefinition" => Kind::SidecarDefinition,
            _ => return None,
        };
        let metadata = json.get("metadata")?;
        let namespace = metadata.text_of("namespace").filter(|_| kind == Kind::SidecarDefinition);
        let name = metadata.text_of("name")?.into_owned();
        Some(DefinitionName { kind, namespace: namespace.map(std::borrow::Cow::into_owned), name })
    }
}

fn read_section(section: &Section<'_>, lines: &Lines<'_>, options: ReadOptions) -> Vec<Document> {
    let range = section.start..section.start + section.text.len();
    let origin = |item: FieldPath| Origin { section: range.clone(), item };
    let json = match parse(section) {
        Ok(json) => json,
        Err(error) => {
            let start = section.start + Lines::of(section.text).offset(error.line, error.column);
            let content = section.text.len() - section.text.trim_start().len();
            let mut problem = Problem::new(ProblemCode::Syntax, FieldPath::default(), error.problem);
            // A place of no length at the start of a line is drawn as if it were in the line before.
            let wrong = lines.text().get(start..).and_then(|rest| rest.chars().next());
            let wrong = wrong.filter(|character| !matches!(character, '\r' | '\n'));
            problem.place = Some(lines.place(start..start + wrong.map_or(0, char::len_utf8)));
            problem.help = error.help;
            return vec![Document {
                name: None,
                line: lines.line(section.start + content),
                definition: Err(vec![problem]),
                origin: origin(FieldPath::default()),
            }];
        }
    };
    if json.is_null() {
        return Vec::new();
    }
    let places = Places::of(section.text);
    let document = |json: Json<'static>, item: FieldPath, is_alone: bool| {
        let start = places.find(&item, Part::Value).map_or(0, |found| found.start);
        let origin = origin(item);
        // A key that is there twice outside of the items of a list is everybody's problem.
        let repeated = places.duplicates.iter().filter_map(|(path, range)| {
            let below = path.0.strip_prefix(origin.item.0.as_slice()).filter(|_| !is_alone);
            let path = FieldPath(below.unwrap_or(&path.0).to_vec());
            (is_alone || below.is_some()).then(|| repeated_key(path, range, section, lines))
        });
        let repeated: Vec<_> = repeated.collect();
        let name = DefinitionName::of(&json);
        let definition = match definition(json, options) {
            Ok(definition) if repeated.is_empty() => Ok(definition),
            result => Err(locate(
                result.err().unwrap_or_default().into_iter().chain(repeated).collect(),
                &places,
                &origin,
                lines,
            )),
        };
        Document { name, line: lines.line(section.start + start), definition, origin }
    };
    let is_list = json.text_of("kind").is_some_and(|kind| {
        kind == "List" || kind.strip_suffix("List").is_some_and(|kind| strict::KINDS.contains(&kind))
    });
    match json.get("items").filter(|_| is_list).and_then(Json::items) {
        Some(items) => {
            let item = |(index, item): (usize, &Json<'static>)| {
                document(item.clone(), FieldPath::of("items").item(index), false)
            };
            items.iter().enumerate().map(item).collect()
        }
        None => vec![document(json, FieldPath::default(), true)],
    }
}

fn parse(section: &Section<'_>) -> Result<Json<'static>, yaml::YamlError> {
    // What was cut out as JSON is JSON; YAML would stumble over pairs of surrogates.
    match Json::parse(section.text) {
        Ok(json) if section.is_json => Ok(json.into_owned()),
        _ => yaml::to_tree(section.text),
    }
}

/// A document as a definition.
fn definition(json: Json<'static>, options: ReadOptions) -> Result<Definition, Vec<Problem>> {
    let empty = strict::empty(&json);
    let json = normal(json);
    // Whatever else is to be said about it would be said about something that it is not.
    if let Some(problem) = strict::foreign(&json) {
        return Err(vec![problem]);
    }
    let mut problems = strict::check(&json, options);
    // What is there without a value is not missing as well.
    let without_value: HashSet<_> = empty.iter().map(|problem| &problem.path).collect();
    problems.retain(|problem| !without_value.contains(&problem.path));
    problems.extend(empty);
    references::check(&json, &mut problems);
    let misspelt: HashSet<_> = problems.iter().filter_map(meant).collect();
    // A field that is there under a misspelt name is one problem, not two.
    problems.retain(|problem| problem.code != ProblemCode::MissingField || !misspelt.contains(&problem.path));
    let decode = |json: &Json<'_>| serde_json::from_str::<Definition>(&json.to_string());
    let definition = match decode(&json) {
        Ok(definition) if problems.is_empty() => {
            let written = json.get("spec").map(Json::to_string).unwrap_or_default();
            return Ok(Definition { fingerprint: fingerprint(&written), ..definition });
        }
        Err(error) if problems.is_empty() => {
            return Err(vec![Problem::new(ProblemCode::WrongType, FieldPath::default(), error.to_string())]);
        }
        // What the expressions may refer to is not known.
        _ if misspelt.contains(&FieldPath::of("spec").field("parameters")) => return Err(problems),
        definition => definition.or_else(|_| decode(&with_expressions(json))),
    };
    // Good enough to be compiled: what is wrong with its expressions is said at the same time.
    if let Ok(definition) = definition {
        let mut more = Compiled::new(definition).err().unwrap_or_default();
        let known: HashSet<_> = problems.iter().map(|problem| &problem.path).collect();
        more.retain(|problem| !known.contains(&problem.path));
        problems.extend(more);
    }
    Err(problems)
}

/// What of a definition parameters and expressions are checked by. Nothing of the rest changes what is found in these.
fn with_expressions(mut json: Json<'static>) -> Json<'static> {
    retain(&mut json, |key| key != "metadata");
    if let Json::Object(fields) = &mut json {
        let name = Json::Object(vec![("name".into(), Json::Text("unnamed".into()))]);
        fields.push(("metadata".into(), name));
    }
    let Some(spec) = json.get_mut("spec") else { return json };
    let has_selector = matches!(spec.get("selector"), Some(Json::Object(_)));
    retain(spec, |key| match key {
        "parameters" | "inject" | "patchContainers" => true,
        "selector" => has_selector,
        _ => false,
    });
    if let Some(selector) = spec.get_mut("selector") {
        retain(selector, |key| key == "matchConditions");
    }
    if let Some(Json::List(patches)) = spec.get_mut("patchContainers") {
        for patch in patches {
            retain(patch, |key| !PATCH_HEAD.contains(&key));
        }
    }
    json
}

fn retain(json: &mut Json<'_>, is_kept: impl Fn(&str) -> bool) {
    if let Json::Object(fields) = json {
        fields.retain(|(key, _)| is_kept(key));
    }
}

/// The field that an unknown one was meant to be.
fn meant(problem: &Problem) -> Option<FieldPath> {
    let name = problem.suggestion.as_ref().filter(|_| problem.code == ProblemCode::UnknownField)?;
    let (_, parent) = problem.path.0.split_last()?;
    Some(FieldPath(parent.to_vec()).field(name))
}

/// Without what does not count: fields that are `null`, and all but the last of equal keys.
fn normal(json: Json<'static>) -> Json<'static> {
    match json {
        Json::List(items) => Json::List(items.into_iter().map(normal).collect()),
        Json::Object(fields) => {
            let mut kept: Vec<(_, Json<'static>)> = Vec::with_capacity(fields.len());
            for (key, value) in fields {
                match kept.iter_mut().find(|(known, _)| *known == key) {
                    Some((_, place)) => *place = normal(value),
                    None => kept.push((key, normal(value))),
                }
            }
            kept.retain(|(_, value)| !value.is_null());
            Json::Object(kept)
        }
        other => other,
    }
}

fn repeated_key(path: FieldPath, range: &Range<usize>, section: &Section<'_>, lines: &Lines<'_>) -> Problem {
    let key = match path.0.last() {
        Some(Step::Field(key)) => key.clone(),
        _ => String::new(),
    };
    let mut problem = Problem::new(ProblemCode::DuplicateKey, path, format!("{key:?} is there already"));
    problem.place = Some(lines.place(section.start + range.start..section.start + range.end));
    problem
}

fn locate(problems: Vec<Problem>, places: &Places, origin: &Origin, lines: &Lines<'_>) -> Vec<Problem> {
    let place = |problem: &Problem| {
        let part = match problem.code {
            ProblemCode::UnknownField | ProblemCode::DuplicateKey | ProblemCode::NotAllowed => Part::Key,
            ProblemCode::MissingField => Part::Parent,
            _ => Part::Value,
        };
        let path = FieldPath(origin.item.0.iter().chain(&problem.path.0).cloned().collect());
        let found = places.find(&path, part)?;
        Some(lines.place(origin.section.start + found.start..origin.section.start + found.end))
    };
    let mut problems: Vec<Problem> = problems
        .into_iter()
        .map(|problem| Problem { place: problem.place.or_else(|| place(&problem)), ..problem })
        .map(|problem| as_written(problem, lines.text()))
        .collect();
    problems.sort_by_key(|problem| problem.place.map(|place| (place.start, place.end)));
    problems
}

/// Quotes belong around what was written, `1.10` or `yes`, not around what YAML made of it.
fn as_written(problem: Problem, text: &str) -> Problem {
    let written = problem.place.and_then(|place| text.get(place.start..place.end));
    match (problem.code, &problem.suggestion, written) {
        (ProblemCode::WrongType, Some(meant), Some(written)) => {
            let is_word = matches!(meant.as_str(), "true" | "false") && meant != written;
            let help = if is_word { Some(Help::QuoteWord) } else { problem.help };
            Problem { suggestion: Some(written.to_owned()), help, ..problem }
        }
        // `expression: !has(x)` is nothing, with a tag.
        (ProblemCode::NotAllowed, None, Some(key))
            if problem.place.is_some_and(|place| {
                let after = text.get(place.end..).and_then(|rest| rest.strip_prefix(':'));
                after.is_some_and(|rest| rest.trim_start_matches(' ').starts_with('!')) && !key.is_empty()
            }) =>
        {
            Problem { help: Some(Help::QuoteTag), ..problem }
        }
        _ => problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: ReadOptions = ReadOptions { allow_unknown_pod_fields: false };

    fn definition(name: &str, spec: &str) -> String {
        format!(
            "apiVersion: sidecar.me/v1alpha1\nkind: ClusterSidecarDefinition\nmetadata: {{name: {name}}}\nspec: {spec}\n"
        )
    }

    /// `line name: ok`, or the problems with their places.
    fn shown(text: &str) -> Vec<String> {
        let show = |document: Document| {
            let name = document.name.as_ref().map_or("?".to_owned(), ToString::to_string);
            let line = document.line;
            match document.compile(text) {
                Ok(_) => format!("{line} {name}: ok"),
                Err(problems) => {
                    let show = |problem: &Problem| {
                        let place = problem.place.unwrap();
                        format!("{}:{} {}", place.line, place.column, problem.code.code())
                    };
                    format!("{line} {name}: {}", problems.iter().map(show).collect::<Vec<_>>().join(", "))
                }
            }
        };
        read(text, &OPTIONS).into_iter().map(show).collect()
    }

    #[test]
    fn a_bad_document_stops_nobody() {
        let good = definition("a", "{inject: {spec: {nodeName: a}}}");
        let bad = definition("b", "{inject: {spec: {nodeNam: a}}}");
        let text =
            format!("# first\n\n{good}---\na: [\n---\n# nothing\n---\n{bad}---\n{{a: 1, a: 2}}\n---\n{good}");
        assert_eq!(
            shown(&text),
            [
                "3 ClusterSidecarDefinition a: ok",
                "8 ?: 8:4 Syntax",
                "12 ClusterSidecarDefinition b: 15:24 UnknownField",
                "17 ?: 17:1 MissingField, 17:8 DuplicateKey",
                "19 ClusterSidecarDefinition a: ok",
            ]
        );
    }

    #[test]
    fn the_items_of_a_list_are_documents() {
        let item = |name: &str, field: &str| {
            definition(name, &format!("{{inject: {{spec: {{{field}: a}}}}}}")).replace('\n', "\n  ")
        };
        let (good, bad) = (item("a", "nodeName"), item("b", "nodeNam"));
        for kind in ["List", "ClusterSidecarDefinitionList"] {
            let text = format!("kind: {kind}\napiVersion: v1\nitems:\n- {good}\n- {bad}\n  spec: {{}}\n");
            assert_eq!(
                shown(&text),
                [
                    "4 ClusterSidecarDefinition a: ok",
                    "9 ClusterSidecarDefinition b: 14:3 MissingField, 14:3 DuplicateKey",
                ]
            );
        }
        let json = yaml::to_json(&definition("a", "{order: x}")).unwrap();
        let text = format!("{{\"kind\": \"List\", \"items\": [\n{json}]}}\n{json}");
        assert_eq!(
            shown(&text),
            [
                "2 ClusterSidecarDefinition a: 2:95 MissingField, 2:111 WrongType",
                "3 ClusterSidecarDefinition a: 3:95 MissingField, 3:111 WrongType",
            ]
        );
    }

    #[test]
    fn an_object_from_the_api_server_is_read_without_places() {
        let object = |spec: &str| yaml::to_json(&definition("a", spec)).unwrap();
        let good = read_json(&object("{inject: {spec: {nodeName: a}}}"), &OPTIONS).unwrap();
        assert_eq!(good.metadata.name, "a");
        let problems = read_json(&object("{inject: {spec: {nodeNam: a}}}"), &OPTIONS).unwrap_err();
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].place, None);
        assert_eq!(
            problems[0].to_string(),
            "spec.inject.spec.nodeNam: unknown field \"nodeNam\"; did you mean \"nodeName\"? [UnknownField]"
        );
        let lenient = ReadOptions { allow_unknown_pod_fields: true };
        assert!(read_json(&object("{inject: {spec: {nodeNam: a}}}"), &lenient).is_ok());
        let problems = read_json("{", &OPTIONS).unwrap_err();
        assert_eq!(problems[0].code, ProblemCode::Syntax);
    }
}
