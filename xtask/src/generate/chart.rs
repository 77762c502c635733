//! What is made from the charts: the plain manifest, the schemas of their values, and the tables of values in their READMEs.

mod schema;
mod values;

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, bail, ensure};
use sidecar_testkit::{Program, Programs};

use super::File;

const CHARTS: [&str; 2] = ["kubernetes-sidecar-injector", "httpbin"];
const BEFORE_TABLE: &str = "<!-- values: written by `cargo xtask generate` -->\n";
const AFTER_TABLE: &str = "<!-- /values -->\n";

pub(super) fn files(root: &Path) -> Result<Vec<File>> {
    let mut files = vec![plain_manifest(root)?];
    for chart in CHARTS {
        let folder = root.join("charts").join(chart);
        let values = fs::read_to_string(folder.join("values.yaml"))?;
        files.push((folder.join("values.schema.json"), schema::text(chart, &values)?));
        files.push(readme(&folder, &values)?);
    }
    Ok(files)
}

/// The chart as it is. The injector makes its certificate; the fields that it writes are not in the file, and so survive every later
/// `kubectl apply`.
fn plain_manifest(root: &Path) -> Result<File> {
    const HEAD: &str = "\
# The injector without Helm, for the namespace \"default\". Written by `cargo xtask generate` from charts/kubernetes-sidecar-injector.
# deploy/crds.yaml goes first: docs/certificates.md, \"Without Helm\".
";
    let programs = Programs::ensure(&[Program::Helm4])?;
    let output = Command::new(programs.path(Program::Helm4)?)
        .current_dir(root)
        .args([
            "template",
            "kubernetes-sidecar-injector",
            "charts/kubernetes-sidecar-injector",
            "--skip-tests",
            // The schema of the values that there were; the one of those that there are is made here, too.
            "--skip-schema-validation",
        ])
        .args(["--namespace", "default"])
        // In a file of their own: deleting this one must not delete all definitions.
        .args(["--set", "crds.install=false"])
        .output()
        .context("cannot run helm")?;
    ensure!(output.status.success(), "helm template: {}", String::from_utf8_lossy(&output.stderr));
    let rendered =
        String::from_utf8(output.stdout).context("helm template printed something that is not UTF-8")?;
    let mut text = String::from(HEAD);
    for line in rendered.lines() {
        // What only Helm would say.
        let word = line.trim_start();
        if word.is_empty()
            || word.starts_with("# Source:")
            || word.starts_with("helm.sh/chart:")
            || word.starts_with("app.kubernetes.io/managed-by:")
        {
            continue;
        }
        text.push_str(line);
        text.push('\n');
    }
    Ok((root.join("deploy/kubernetes-sidecar-injector.yaml"), text))
}

/// The README with its table of values made anew.
fn readme(folder: &Path, values: &str) -> Result<File> {
    let path = folder.join("README.md");
    let old = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let parts = old.split_once(BEFORE_TABLE).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(AFTER_TABLE)?;
        Some((before, after))
    });
    let Some((before, after)) = parts else {
        bail!("{} has lost the two comments around its table of values", path.display());
    };
    Ok((path, format!("{before}{BEFORE_TABLE}{}{AFTER_TABLE}{after}", value_table(values))))
}

/// One row for each value that says what it is for.
fn value_table(values: &str) -> String {
    let mut table = String::from("| Value | Default | Meaning |\n| --- | --- | --- |\n");
    for entry in values::entries(values) {
        let Some(meaning) = entry.meaning else { continue };
        let default = match entry.default {
            "" => "see [values.yaml](values.yaml)".to_owned(),
            value => format!("`{value}`"),
        };
        let row = format!("| `{}` | {default} | {} |\n", entry.name, meaning.replace('|', "\\|"));
        table.push_str(&row);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::value_table;

    #[test]
    fn comments_become_rows() {
        let values = "# A section, no row.\na:\n  # -- One | two\n  # and more\n  b: 1\n  c: 2\n# -- A block\nd:\n  e: {}\n";
        let rows: Vec<_> = value_table(values).lines().skip(2).map(ToOwned::to_owned).collect();
        assert_eq!(
            rows,
            ["| `a.b` | `1` | One \\| two and more |", "| `d` | see [values.yaml](values.yaml) | A block |"]
        );
    }
}
