//! Runs the cases in `tests/cases/*.md`: definitions and a pod in, decisions and containers out.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;
use sidecar_engine::definition::{BUILTIN_CURL, Compiled};
use sidecar_engine::{Engine, yaml};

#[derive(Default)]
struct Case {
    title: String,
    definitions: Vec<String>,
    pod: String,
    decisions: String,
    containers: Option<String>,
}

#[test]
fn every_case_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut count = 0;
    let mut failures = String::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        for case in parse(&std::fs::read_to_string(&path).unwrap()) {
            count += 1;
            if let Err(problem) = check(&case) {
                let file = path.file_name().unwrap().display();
                writeln!(failures, "{file}: {}\n{problem}\n", case.title).unwrap();
            }
        }
    }
    assert!(failures.is_empty(), "{failures}");
    assert!(count >= 30, "only {count} cases were found");
}

/// A case is a heading of level two and the fenced blocks below it; a block's second word says what it is.
fn parse(text: &str) -> Vec<Case> {
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
            let case = cases.last_mut().expect("a block belongs to a case");
            match info.split_whitespace().nth(1) {
                Some("definition") => case.definitions.push(block),
                Some("pod") => case.pod = block,
                Some("decisions") => case.decisions = block,
                Some("containers") => case.containers = Some(block.trim().to_owned()),
                other => panic!("{}: unknown block {other:?}", case.title),
            }
        }
    }
    cases
}

fn check(case: &Case) -> Result<(), String> {
    let builtin = [BUILTIN_CURL.to_owned()];
    let definitions = if case.definitions.is_empty() { &builtin[..] } else { &case.definitions };
    let compiled = definitions.iter().map(|text| Compiled::from_yaml(text)).collect::<Result<_, _>>();
    let engine = Engine::new(compiled.map_err(|error| error.to_string())?);
    // JSON as it is written, with its escapes.
    let is_json = case.pod.starts_with('{');
    let pod = if is_json { Ok(case.pod.clone()) } else { yaml::to_json(&case.pod) };
    let pod = pod.map_err(|error| error.to_string())?;
    let injection = engine.inject(&pod).map_err(|error| error.to_string())?;

    let mut decisions = String::new();
    for decision in &injection.decisions {
        let missed = if decision.is_missed() { " (missed)" } else { "" };
        writeln!(decisions, "{}: {}{missed}", decision.definition, decision.reason).unwrap();
    }
    let decided = injection.decisions.iter().map(|decision| decision.definition);
    if decided.collect::<BTreeSet<_>>() != engine.definitions().collect() {
        return Err(format!("not one decision for each definition:\n{decisions}"));
    }
    if injection.denied {
        decisions.push_str("denied\n");
    }
    if decisions != case.decisions {
        return Err(format!("expected:\n{}found:\n{decisions}", case.decisions));
    }

    let mut after: Value = serde_json::from_str(&pod).unwrap();
    let patch: json_patch::Patch = serde_json::from_str(&injection.patch.to_json("")).unwrap();
    json_patch::patch(&mut after, &patch).map_err(|error| error.to_string())?;
    match &case.containers {
        None if !injection.patch.is_empty() => return Err("a patch where none was expected".to_owned()),
        None => {}
        Some(expected) => {
            let names = after["spec"]["containers"].as_array().ok_or("no containers")?;
            let names: Vec<_> = names.iter().filter_map(|container| container["name"].as_str()).collect();
            if names.join(" ") != *expected {
                return Err(format!("expected containers {expected}, found {}", names.join(" ")));
            }
        }
    }
    let again = after.to_string();
    let again = engine.inject(&again).map_err(|error| error.to_string())?;
    if again.patch.is_empty() { Ok(()) } else { Err("injecting twice is not injecting once".to_owned()) }
}
