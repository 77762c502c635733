//! The documentation lists what there is.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use sidecar_engine::Reason;

#[test]
fn every_reason_is_explained_in_the_documentation_and_no_other() {
    let page = include_str!("../../../docs/answers.md");
    let (_, table) = page.split_once("## Reasons").unwrap_or_default();
    let (table, _) = table.split_once("\n## ").unwrap_or_default();
    let documented: Vec<_> =
        table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let known: Vec<_> = Reason::ALL.iter().map(|reason| reason.code()).collect();
    assert_eq!(documented, known);
}

#[test]
fn every_reason_has_an_explanation_of_its_own_in_one_line() {
    let explanations: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.explanation()).collect();
    assert_eq!(explanations.len(), Reason::ALL.len());
    for explanation in explanations {
        assert!(explanation.len() > 10 && !explanation.contains('\n'), "{explanation:?}");
    }
}

#[test]
fn every_link_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut broken = Vec::new();
    for page in ["", "docs", "charts/kubernetes-sidecar-injector", "charts/httpbin"]
        .iter()
        .flat_map(|folder| pages(&root.join(folder)))
    {
        let text = std::fs::read_to_string(&page).unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains(':') {
                continue;
            }
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let path = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            let is_there = path.exists() && (heading.is_empty() || anchors(&path).contains(heading));
            if !is_there {
                broken.push(format!("{}: {target}", page.display()));
            }
        }
        for command in text.split("cargo xtask ").skip(1) {
            let word: String = command.chars().take_while(char::is_ascii_alphabetic).collect();
            if !["test", "demo", "image", "generate", "bench", ""].contains(&word.as_str()) {
                broken.push(format!("{}: cargo xtask {word}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

fn pages(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect()
}

/// What the headings of a page are called in links, as GitHub makes it.
fn anchors(page: &Path) -> BTreeSet<String> {
    let text = std::fs::read_to_string(page).unwrap();
    let headings = text.lines().filter_map(|line| line.strip_prefix('#'));
    let named = headings.map(|heading| {
        let letters = heading.trim_start_matches('#').trim().to_lowercase();
        let letters = letters.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
        letters.map(|letter| if letter == ' ' { '-' } else { letter }).collect()
    });
    named.collect()
}
