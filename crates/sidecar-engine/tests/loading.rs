//! Runs the cases in `tests/loading/*.md`: text of a definition in, the problems with it out.
//!
//! A case is a heading of level two and two fenced blocks: a `definition` (`yaml` or `json`; with the third word
//! `lenient`, fields that no pod has pass) and `problems`, one a line: `line:column code path: message (suggestion) [help]`.
//! A definition without problems has an empty block. The lines at the top of a file that all its cases begin with are a
//! `head` above the first case: a case whose text begins with `spec:` gets them, and its lines count from there.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::path::Path;

use proptest::prelude::{prop_assert, prop_assert_eq, proptest};
use sidecar_engine::definition::{Compiled, Problem, ReadOptions, read};

struct Case {
    title: String,
    text: String,
    options: ReadOptions,
    expected: String,
}

#[test]
fn every_case_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/loading");
    let mut count = 0;
    let mut failures = String::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        for case in parse(&std::fs::read_to_string(&path).unwrap()) {
            count += 1;
            let found = problems(&case);
            if found != case.expected {
                let file = path.file_name().unwrap().display();
                writeln!(failures, "{file}: {}\nexpected:\n{}\nfound:\n{found}\n", case.title, case.expected)
                    .unwrap();
            }
        }
    }
    assert!(failures.is_empty(), "{failures}");
    assert!(count >= 60, "only {count} cases were found");
}

fn parse(text: &str) -> Vec<Case> {
    let mut head = String::new();
    let mut cases: Vec<Case> = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(title) = line.strip_prefix("## ") {
            cases.push(Case {
                title: title.to_owned(),
                text: String::new(),
                options: ReadOptions::default(),
                expected: "no block of problems".to_owned(),
            });
        } else if let Some(info) = line.strip_prefix("```") {
            let block = lines
                .by_ref()
                .take_while(|line| *line != "```")
                .fold(String::new(), |block, line| block + line + "\n");
            let words: Vec<_> = info.split_whitespace().skip(1).collect();
            match (words.as_slice(), cases.last_mut()) {
                (["head"], None) => head = block,
                (["definition", rest @ ..], Some(case)) => {
                    case.text = if block.starts_with("spec:") { head.clone() + &block } else { block };
                    case.options.allow_unknown_pod_fields = rest == ["lenient"];
                }
                (["problems"], Some(case)) => case.expected = block,
                _ => panic!("an unknown block: {info}"),
            }
        }
    }
    cases
}

fn problems(case: &Case) -> String {
    let found = if case.options == ReadOptions::default() {
        Compiled::from_yaml(&case.text).err().unwrap_or_default()
    } else {
        let documents = read(&case.text, &case.options).into_iter();
        documents.filter_map(|document| document.compile(&case.text).err()).flatten().collect()
    };
    // Lines count from the case's own first line.
    let own = case.text.find("\nspec:").filter(|_| case.text.starts_with("# head"));
    let skipped = own.map_or(0, |own| case.text[..=own].lines().count());
    found.iter().fold(String::new(), |text, problem| text + &show(problem, skipped) + "\n")
}

fn show(problem: &Problem, skipped: usize) -> String {
    let mut shown = String::new();
    if let Some(place) = problem.place {
        write!(shown, "{}:{} ", place.line - skipped, place.column).unwrap();
    }
    write!(shown, "{}", problem.code.code()).unwrap();
    if !problem.path.to_string().is_empty() {
        write!(shown, " {}", problem.path).unwrap();
    }
    write!(shown, ": {}", problem.message).unwrap();
    if let Some(suggestion) = &problem.suggestion {
        write!(shown, " ({suggestion})").unwrap();
    }
    if let Some(help) = problem.help {
        write!(shown, " [{}]", help.text()).unwrap();
    }
    shown
}

proptest! {
    /// Whatever a text is, it is read without a panic, and every place is one of the text.
    #[test]
    fn every_place_is_in_the_text(at in 0..10_000_usize, cut in 0..12_usize, put in "[-:{}\\[\\]a#&*|'\"\n\t ä$0<>!,]{0,6}") {
        let files = ["fields", "references", "selectors", "texts"];
        let path = format!("{}/tests/loading/{}.md", env!("CARGO_MANIFEST_DIR"), files[at % files.len()]);
        let cases = parse(&std::fs::read_to_string(path).unwrap());
        let text = &cases[at % cases.len()].text;
        let characters: Vec<char> = text.chars().collect();
        let from = at % characters.len();
        let to = (from + cut).min(characters.len());
        let text: String =
            characters[..from].iter().copied().chain(put.chars()).chain(characters[to..].iter().copied()).collect();
        for document in read(&text, &ReadOptions::default()) {
            let line = document.line;
            prop_assert!(line >= 1 && line <= text.lines().count(), "line {line} of {text:?}");
            for problem in document.compile(&text).err().into_iter().flatten() {
                let place = problem.place.unwrap();
                prop_assert!(text.get(place.start..place.end).is_some(), "{problem} {place:?} of {text:?}");
                let before = text[..place.start].matches('\n').count();
                prop_assert_eq!(place.line, before + 1);
            }
        }
    }
}
