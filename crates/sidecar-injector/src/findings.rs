//! All that is wrong with the definitions of some files, for the people who mend them.

use std::collections::HashMap;

use serde_json::json;
use sidecar_engine::definition::{DefinitionName, FieldPath, Problem, ProblemCode, ReadOptions, read};
use sidecar_engine::yaml::Help;

use crate::drawing::{Mistake, Spot};
use crate::manifest::input::Source;

/// What was found in files of definitions.
#[derive(Default)]
pub(crate) struct Findings<'t> {
    /// In the order of the texts.
    pub(crate) all: Vec<Finding<'t>>,
    /// The names of the texts that nothing is defined in: nobody gives one for nothing.
    pub(crate) without_definitions: Vec<&'t str>,
    /// Whether something was no text at all.
    pub(crate) has_unreadable: bool,
    pub(crate) summary: Summary,
}

impl<'t> Findings<'t> {
    /// Reads files as the webhook would.
    pub(crate) fn of(sources: &'t [Source], options: ReadOptions) -> Self {
        let mut findings = Findings::default();
        let mut names: HashMap<DefinitionName, Spot<'_>> = HashMap::new();
        for source in sources {
            let name = source.name.as_str();
            let text = match source.text() {
                Ok(text) => text,
                Err(error) => {
                    let problem = Problem::new(ProblemCode::Syntax, FieldPath::default(), error);
                    findings.all.push(Finding { name, text: "", problem, other: None });
                    findings.has_unreadable = true;
                    findings.summary.count(1);
                    continue;
                }
            };
            let documents = read(text, &options);
            if documents.is_empty() {
                findings.without_definitions.push(name);
            }
            for document in documents {
                let taken = document.name.clone().and_then(|definition| {
                    let place = document.place_of_name(text);
                    let spot = Spot { name, text, range: place.map(|place| place.start..place.end) };
                    let first = names.get(&definition).cloned();
                    let message = format!("there is a {definition} already");
                    let Some(first) = first else {
                        names.insert(definition, spot);
                        return None;
                    };
                    let mut problem =
                        Problem::new(ProblemCode::NameTaken, FieldPath::of("metadata.name"), message);
                    problem.place = place;
                    Some(Finding { name, text, problem, other: Some(first) })
                });
                let problems = document.compile(text).err().unwrap_or_default();
                let found = problems.into_iter().map(|problem| Finding { name, text, problem, other: None });
                let found: Vec<_> = taken.into_iter().chain(found).collect();
                findings.summary.count(found.len());
                findings.all.extend(found);
            }
        }
        findings
    }

    /// One line for each text without definitions.
    pub(crate) fn empty(&self) -> impl Iterator<Item = String> {
        self.without_definitions.iter().map(|name| format!("{name}: there are no definitions in it"))
    }
}

/// A problem and the file that it is in.
pub(crate) struct Finding<'t> {
    name: &'t str,
    text: &'t str,
    problem: Problem,
    /// The definition that had the name first.
    other: Option<Spot<'t>>,
}

impl Finding<'_> {
    pub(crate) fn draw(&self) -> String {
        let Problem { code, path, message, suggestion, help, place } = &self.problem;
        let range = place.map(|place| place.start..place.end);
        let path = path.to_string();
        let suggestion = suggestion.as_ref().map(|suggestion| format!("did you mean {suggestion:?}?"));
        let helps: Vec<_> = suggestion.into_iter().chain(help.map(|help| help.text().to_owned())).collect();
        let mistake = Mistake {
            code: Some(code.code()),
            help: (!helps.is_empty()).then(|| helps.join(" ")),
            note: (!path.is_empty()).then(|| format!("field {path}")),
            other: self.other.clone().map(|spot| ("the first one is here", spot)),
            ..Mistake::new(message, Spot { name: self.name, text: self.text, range })
        };
        mistake.draw()
    }

    pub(crate) fn to_json(&self) -> serde_json::Value {
        let Problem { code, path, message, suggestion, help, place } = &self.problem;
        json!({
            "file": self.name,
            "line": place.map(|place| place.line),
            "column": place.map(|place| place.column),
            "code": code.code(),
            "path": path.to_string(),
            "message": message,
            "suggestion": suggestion,
            "help": help.map(Help::text),
        })
    }
}

/// `3 definitions, 1 with 5 errors`.
#[derive(Default)]
pub(crate) struct Summary {
    definitions: usize,
    bad: usize,
    errors: usize,
}

impl Summary {
    fn count(&mut self, errors: usize) {
        self.definitions += 1;
        self.bad += usize::from(errors > 0);
        self.errors += errors;
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Summary { definitions, bad, errors } = self;
        let plural = |count: &usize| if *count == 1 { "" } else { "s" };
        write!(formatter, "{definitions} definition{}, ", plural(definitions))?;
        match errors {
            0 => formatter.write_str("no errors"),
            _ => write!(formatter, "{bad} with {errors} error{}", plural(errors)),
        }
    }
}
