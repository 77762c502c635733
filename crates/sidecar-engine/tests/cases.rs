//! Runs the cases in `tests/cases/*.md`: definitions, a namespace and a pod in; decisions and the pod out.
//!
//! A case is a heading of level two and the fenced blocks below it; a block's second word says what it is:
//!
//! | Block | |
//! | --- | --- |
//! | `definition` | One or more; without any, those above the file's first case, or the article's `curl`. With the third word `lenient`, fields that no pod has pass |
//! | `namespace` | `name`, `labels`, `annotations`, or `unknown`; without one, `default` without anything |
//! | `pod` | The pod, in YAML or JSON |
//! | `decisions` | `definition: Reason`, with `(missed)` for a pod that was meant to have it; `denied` for the pod |
//! | `details` | `definition: detail`, where the wording matters |
//! | `changes` | What was done, in order |
//! | `containers` | The names of the containers afterwards |
//! | `again` | The decisions of the second call, where they are not simply `AlreadyPresent` |
//! | `result` | The whole pod afterwards; without one and without `containers` it stays as it was |

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;
use sidecar_engine::definition::{BUILTIN_CURL, ReadOptions, read};
use sidecar_engine::{Engine, Injection, Namespace, Reason, yaml};

#[derive(Default, Clone)]
struct Case {
    title: String,
    definitions: Vec<(String, ReadOptions)>,
    namespace: Option<String>,
    pod: String,
    decisions: String,
    details: Option<String>,
    changes: Option<String>,
    again: Option<String>,
    containers: Option<String>,
    result: Option<String>,
}

#[test]
fn every_case_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let only = std::env::var("CASE").ok();
    let mut count = 0;
    let mut failures = String::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().display().to_string();
        for case in parse(&std::fs::read_to_string(&path).unwrap()) {
            if only.as_ref().is_some_and(|only| !case.title.contains(only.as_str())) {
                continue;
            }
            count += 1;
            if let Err(problem) = check(&case) {
                writeln!(failures, "{file}: {}\n{problem}\n", case.title).unwrap();
            }
        }
    }
    assert!(failures.is_empty(), "{failures}");
    assert!(only.is_some() || count >= 200, "only {count} cases were found");
}

/// The examples of the documentation are cases too.
#[test]
fn what_the_documentation_shows_is_what_happens() {
    let page = include_str!("../../../docs/definitions.md");
    let mut count = 0;
    for case in parse(&page.replace("\n### ", "\n## ")).iter().filter(|case| !case.pod.is_empty()) {
        count += 1;
        check(case).unwrap_or_else(|problem| panic!("docs/definitions.md: {}\n{problem}", case.title));
    }
    assert!(count >= 12, "only {count} examples were found");
}

fn parse(text: &str) -> Vec<Case> {
    let mut preamble = Case::default();
    let mut cases: Vec<Case> = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(title) = line.strip_prefix("## ") {
            cases.push(Case { title: title.to_owned(), ..Case::default() });
        } else if let Some(info) = line.strip_prefix("```") {
            let block = lines
                .by_ref()
                .take_while(|line| *line != "```")
                .fold(String::new(), |block, line| block + line + "\n");
            let case = cases.last_mut().unwrap_or(&mut preamble);
            let mut words = info.split_whitespace().skip(1);
            match words.next() {
                Some("definition") => {
                    let allow_unknown_pod_fields = words.next() == Some("lenient");
                    case.definitions.push((block, ReadOptions { allow_unknown_pod_fields }));
                }
                Some("namespace") => case.namespace = Some(block),
                Some("pod") => case.pod = block,
                Some("decisions") => case.decisions = block,
                Some("details") => case.details = Some(block),
                Some("changes") => case.changes = Some(block),
                Some("again") => case.again = Some(block),
                Some("containers") => case.containers = Some(block.trim().to_owned()),
                Some("result") => case.result = Some(block),
                // Commands and output of other programs.
                None => {}
                other => panic!("{}: unknown block {other:?}", case.title),
            }
        }
    }
    if preamble.definitions.is_empty() {
        preamble.definitions.push((BUILTIN_CURL.to_owned(), ReadOptions::default()));
    }
    for case in &mut cases {
        if case.definitions.is_empty() {
            case.definitions.clone_from(&preamble.definitions);
        }
        if case.namespace.is_none() {
            case.namespace.clone_from(&preamble.namespace);
        }
        if case.pod.is_empty() {
            case.pod.clone_from(&preamble.pod);
        }
    }
    cases
}

fn check(case: &Case) -> Result<(), String> {
    let mut compiled = Vec::new();
    for (text, options) in &case.definitions {
        for document in read(text, options) {
            let problems =
                |problems: Vec<_>| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
            compiled.push(document.compile(text).map_err(problems)?.into());
        }
    }
    let engine = Engine::new(compiled);
    let namespace = namespace(case.namespace.as_deref());
    let pod = json(&case.pod);
    let injection = engine.inject(&pod, &namespace).map_err(|error| error.to_string())?;

    let decided: BTreeSet<_> =
        injection.decisions.iter().map(|decision| decision.definition.clone()).collect();
    if !engine.definitions().all(|name| decided.contains(&name)) {
        return Err(format!("not one decision for each definition:\n{decided:?}"));
    }
    same("decisions", &case.decisions, &decisions(&injection))?;
    if let Some(expected) = &case.details {
        same("details", expected, &details(&injection))?;
    }
    if let Some(expected) = &case.changes {
        same("changes", expected, &changes(&injection))?;
    }

    let before: Value = serde_json::from_str(&pod).unwrap();
    let mut after = before.clone();
    let patch: json_patch::Patch = serde_json::from_str(&injection.patch.to_json("")).unwrap();
    json_patch::patch(&mut after, &patch).map_err(|error| error.to_string())?;
    if let Some(expected) = &case.containers {
        let names = after["spec"]["containers"].as_array().ok_or("no containers")?;
        let names: Vec<_> = names.iter().filter_map(|container| container["name"].as_str()).collect();
        same("containers", expected, &names.join(" "))?;
    }
    let expected = match (&case.result, &case.containers) {
        (Some(result), _) => Some(serde_json::from_str(&json(result)).unwrap()),
        (None, None) => Some(before),
        (None, Some(_)) => None,
    };
    if let Some(expected) = expected
        && without_nulls(&expected) != without_nulls(&after)
    {
        let shown = |value| serde_json::to_string_pretty(value).unwrap();
        return Err(format!("expected the pod:\n{}\nfound:\n{}", shown(&expected), shown(&after)));
    }
    injecting_again_does_nothing(&engine, &after, &namespace, &injection, case.again.as_deref())
}

fn injecting_again_does_nothing(
    engine: &Engine,
    after: &Value,
    namespace: &Namespace,
    first: &Injection<'_>,
    expected: Option<&str>,
) -> Result<(), String> {
    let again = after.to_string();
    let again = engine.inject(&again, namespace).map_err(|error| error.to_string())?;
    if !again.patch.is_empty() {
        return Err(format!("injecting twice is not injecting once: {}", again.patch.to_json("")));
    }
    if let Some(expected) = expected {
        let found =
            again.decisions.iter().map(|decision| format!("{}: {}\n", decision.definition, decision.reason));
        return same("the second time", expected, &found.collect::<String>());
    }
    for (one, other) in first.decisions.iter().zip(&again.decisions) {
        let expected = if one.reason == Reason::Injected { Reason::AlreadyPresent } else { one.reason };
        if other.reason != expected {
            return Err(format!("the second time {} is {}", other.definition, other.reason));
        }
    }
    Ok(())
}

fn namespace(text: Option<&str>) -> Namespace {
    let Some(text) = text else { return Namespace::new("default", [], []) };
    let value: Value = serde_json::from_str(&json(text)).unwrap();
    let name = value["name"].as_str().unwrap_or("default");
    if value["unknown"] == true {
        return Namespace::unknown(name);
    }
    let map = |field: &str| -> Vec<(String, String)> {
        let entries = value[field].as_object().into_iter().flatten();
        entries.map(|(key, value)| (key.clone(), value.as_str().unwrap().to_owned())).collect()
    };
    Namespace::new(name, map("labels"), map("annotations"))
}

fn decisions(injection: &Injection<'_>) -> String {
    let mut text = String::new();
    for decision in &injection.decisions {
        let missed = if decision.is_missed() { " (missed)" } else { "" };
        writeln!(text, "{}: {}{missed}", decision.definition, decision.reason).unwrap();
    }
    if injection.denied {
        text.push_str("denied\n");
    }
    text
}

fn details(injection: &Injection<'_>) -> String {
    let mut text = String::new();
    for decision in &injection.decisions {
        if let Some(detail) = &decision.detail {
            writeln!(text, "{}: {detail}", decision.definition).unwrap();
        }
    }
    text
}

fn changes(injection: &Injection<'_>) -> String {
    let mut text = String::new();
    for change in injection.decisions.iter().flat_map(|decision| &decision.changes) {
        writeln!(text, "{change}").unwrap();
    }
    text
}

/// JSON as it is written, with its escapes.
fn json(text: &str) -> String {
    if serde_json::from_str::<Value>(text).is_ok() {
        text.to_owned()
    } else {
        yaml::to_json(text).expect("YAML")
    }
}

/// `null` is Kubernetes' absent.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key.clone(), without_nulls(value)))
            .collect(),
        Value::Array(items) => items.iter().map(without_nulls).collect(),
        other => other.clone(),
    }
}

fn same(what: &str, expected: &str, found: &str) -> Result<(), String> {
    if expected == found { Ok(()) } else { Err(format!("expected {what}:\n{expected}\nfound:\n{found}")) }
}
