//! The documentation lists what there is.

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
