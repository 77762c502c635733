//! The table of rights in `docs/security.md`, as data: tests compare it with what the chart renders and with what an API server allows.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use sidecar_testkit::repository_root;

/// One verb on one kind of object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    /// Where it holds, in the table's words.
    pub place: String,
    /// The resource, with its group behind a dot as kubectl writes it.
    pub objects: String,
    /// The object's name, or `any`.
    pub name: String,
    /// What may be done.
    pub verb: String,
}

/// A row of the table.
#[derive(Debug)]
pub struct Row {
    needs: Vec<Need>,
    rights: Vec<Right>,
}

/// A value of the chart, and those of its settings that bring the right.
#[derive(Debug)]
struct Need {
    value: String,
    settings: Vec<String>,
}

/// The place of rights that hold in every namespace.
pub const EVERYWHERE: &str = "everywhere";
/// The place of rights in the release's namespace.
pub const OWN_NAMESPACE: &str = "own namespace";

/// The rows of the table.
///
/// # Errors
/// There is no table, or it has another form.
pub fn documented() -> Result<Vec<Row>> {
    let page = std::fs::read_to_string(repository_root().join("docs/security.md"))?;
    let (_, section) = page.split_once("\n## Rights\n").context("no section Rights")?;
    let section = section.split("\n## ").next().unwrap_or_default();
    let lines = section.lines().filter(|line| line.starts_with("| `"));
    let rows = lines.map(row).collect::<Result<Vec<_>>>()?;
    ensure!(!rows.is_empty(), "the section Rights has no table");
    Ok(rows)
}

/// What the table says where the values of the chart are these.
pub fn expected(rows: &[Row], setting: impl Fn(&str) -> String) -> BTreeSet<Right> {
    let holds = |row: &&Row| row.needs.iter().all(|need| need.settings.contains(&setting(&need.value)));
    rows.iter().filter(holds).flat_map(|row| row.rights.clone()).collect()
}

/// The values that rows of the table depend on.
pub fn values(rows: &[Row]) -> BTreeSet<&str> {
    rows.iter().flat_map(|row| &row.needs).map(|need| need.value.as_str()).collect()
}

fn row(line: &str) -> Result<Row> {
    let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
    let [objects, name, verbs, place, needs, _why] = cells.as_slice() else {
        anyhow::bail!("not six cells: {line}");
    };
    let mut rights = Vec::new();
    for objects in words(objects) {
        for verb in words(verbs) {
            let name = words(name).pop().unwrap_or_else(|| "any".to_owned());
            rights.push(Right { place: place.replace('`', ""), objects: objects.clone(), name, verb });
        }
    }
    let needs = needs.split(';').map(|need| {
        let mut words = words(need).into_iter();
        let value = words.next().with_context(|| format!("no value in {need:?}: {line}"))?;
        Ok(Need { value, settings: words.collect() })
    });
    Ok(Row { needs: needs.collect::<Result<_>>()?, rights })
}

/// What stands between backticks.
fn words(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}
