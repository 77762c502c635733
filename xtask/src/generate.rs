//! `cargo xtask generate`: the files in the repository that are made from other files, so that they never tell a different story.
//!
//! - `deploy/kubernetes-sidecar-injector.yaml`, the chart rendered for people without Helm
//! - the table of values in each chart's README.md and its values.schema.json, from the comments in its values.yaml
//! - the custom resource definitions in the chart, and in `deploy/crds.yaml`
//! - `crates/sidecar-engine/schema/*.json`, what definitions are checked against

mod chart;
mod resources;
mod schema;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use sidecar_testkit::repository_root;

/// A generated file: where it belongs and what belongs into it.
type File = (PathBuf, String);

/// Arguments.
#[derive(Clone, Copy, Args)]
pub(crate) struct Arguments {
    /// Write nothing; show the differences and fail when a file is stale
    #[arg(long)]
    pub(crate) check: bool,
}

pub(crate) fn run(arguments: Arguments) -> Result<()> {
    let root = repository_root();
    let mut files = schema::files(&root)?;
    files.extend(resources::files(&root)?);
    files.extend(chart::files(&root)?);
    let mut stale = 0;
    for (path, content) in files {
        let shown = path.strip_prefix(&root).unwrap_or(&path).display();
        if fs::read_to_string(&path).is_ok_and(|old| old == content) {
            continue;
        }
        if arguments.check {
            show_difference(&path, &content)?;
            stale += 1;
        } else {
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder)?;
            }
            fs::write(&path, content).with_context(|| format!("cannot write {shown}"))?;
            eprintln!("written: {shown}");
        }
    }
    ensure!(stale == 0, "stale generated files: {stale}. Run `cargo xtask generate` and commit the result");
    Ok(())
}

fn show_difference(path: &Path, content: &str) -> Result<()> {
    let fresh = tempfile::NamedTempFile::new()?;
    fs::write(fresh.path(), content)?;
    let old = if path.exists() { path } else { Path::new("/dev/null") };
    Command::new("git")
        .args(["--no-pager", "diff", "--no-index", "--"])
        .args([old, fresh.path()])
        .status()
        .context("cannot run git to show the difference")?;
    Ok(())
}
