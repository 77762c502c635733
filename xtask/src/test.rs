//! `cargo xtask test`: everything that has to hold, step by step; the first step that fails ends it.

use std::env;
use std::ffi::OsString;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use sidecar_testkit::{repository_root, why_not_possible};

use crate::suites::{self, Lanes, Suite};
use crate::{demo, generate, image};

/// Long ones first: they decide when all are done.
const CHARTS: &[Suite] =
    &[Suite::all("charts"), Suite::all("chart_upgrades"), Suite::all("kinds"), Suite::all("chart_objects")];

const CLUSTER: &[Suite] = &[
    Suite::part("chart_releases", &["helm_3"]),
    Suite::part("chart_releases", &["--skip", "helm_3"]),
    Suite::all("injection"),
    Suite::all("missed"),
    Suite::all("definitions"),
    Suite::all("admissible"),
    Suite::all("callers"),
    Suite::all("seeing"),
    Suite::all("testbed"),
    Suite::all("troubleshooting"),
    Suite::all("operations"),
    Suite::all("oracle"),
];

/// In two clusters, one after the other: with forty pods a second each of them has most of two processors, and pods that are lost because
/// the machine has no time for them say nothing.
const FAULTS: &[Suite] =
    &[Suite::part("faults", &["certificates::"]), Suite::part("faults", &["--skip", "certificates::"])];

const NODE: &[Suite] = &[Suite::all("article")];

/// `cargo xtask test`
#[derive(Args)]
pub(crate) struct Arguments {
    /// Only these steps [default: all, in this order]
    steps: Vec<Step>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Step {
    /// Formatting, lints with warnings as errors
    Lint,
    /// What must not be in the dependency tree, and licences
    Dependencies,
    /// Everything that needs no cluster
    Unit,
    /// Generated files are fresh
    Generated,
    /// The charts, rendered, checked and upgraded; the kinds of definitions on an API server
    Charts,
    /// The chart as rendered on a throwaway Kubernetes (or on the cluster of KUBECONFIG)
    Cluster,
    /// What is done to the injector and to the cluster while pods are being created all the time, counted
    Faults,
    /// The article word for word on a real node (root)
    Node,
}

pub(crate) fn run(arguments: Arguments) -> Result<()> {
    let is_all = arguments.steps.is_empty();
    let steps = if is_all { Step::value_variants().to_vec() } else { arguments.steps };
    let mut summary = Vec::new();
    for step in steps {
        let name = step.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        eprintln!("\n== {name}");
        let started = Instant::now();
        let outcome = step
            .run(is_all)
            .with_context(|| format!("step `{name}` failed; to repeat it: cargo xtask test {name}"))?;
        summary.push((name, started.elapsed(), outcome));
    }
    eprintln!();
    for (name, took, outcome) in summary {
        let outcome = match outcome {
            Outcome::Passed => "passed".to_owned(),
            Outcome::LeftOut(reason) => format!("LEFT OUT: {reason}"),
        };
        eprintln!("{name:<12} {:>6.1} s  {outcome}", took.as_secs_f64());
    }
    Ok(())
}

enum Outcome {
    Passed,
    /// Only what this machine cannot do, and always said.
    LeftOut(String),
}

impl Outcome {
    fn of(left_out: &[String]) -> Self {
        if left_out.is_empty() { Outcome::Passed } else { Outcome::LeftOut(left_out.join("; ")) }
    }
}

impl Step {
    fn run(self, is_all: bool) -> Result<Outcome> {
        match self {
            Step::Lint => {
                cargo(&["fmt", "--all", "--check"])?;
                cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "--deny", "warnings"])?;
            }
            Step::Dependencies => return dependencies(),
            Step::Unit => {
                let left_out = suites::run(&suites::without_cluster()?, Lanes::Processors, &[])?;
                cargo(&["test", "--doc", "--workspace", "--locked"])?;
                return Ok(Outcome::of(&left_out));
            }
            Step::Generated => generate::run(generate::Arguments { check: true })?,
            Step::Charts => {
                let mut left_out = suites::run(&suites::of(CHARTS)?, Lanes::Processors, &[])?;
                if !has_promtool() {
                    let reason = "alerts and dashboard were not tried out: promtool is missing (Debian's package prometheus)";
                    left_out.push(reason.to_owned());
                }
                return Ok(Outcome::of(&left_out));
            }
            Step::Cluster => return with_cluster(CLUSTER, Lanes::Processors, binary()?),
            Step::Faults => return with_cluster(FAULTS, Lanes::One, binary()?),
            Step::Node => {
                // Who asks for this step by name wants it, or wants to hear that it cannot be.
                if let Some(reason) = why_not_possible() {
                    ensure!(is_all, "there can be no real node here: {reason}");
                    return Ok(Outcome::LeftOut(reason));
                }
                // A program can be installed; `.ci/run` has done so and insists.
                if let Some(reason) = demo::missing_program() {
                    ensure!(
                        is_all && env::var_os("SIDECAR_REQUIRE_NODE").is_none(),
                        "there can be no real node here: {reason}"
                    );
                    return Ok(Outcome::LeftOut(reason));
                }
                let archive = repository_root().join(image::build_image()?);
                let image = ("SIDECAR_INJECTOR_IMAGE", archive.into_os_string());
                return with_cluster(NODE, Lanes::One, image);
            }
        }
        Ok(Outcome::Passed)
    }
}

fn with_cluster(suites: &[Suite], lanes: Lanes, tried: (&str, OsString)) -> Result<Outcome> {
    Ok(Outcome::of(&suites::run(&suites::of(suites)?, lanes, &[tried])?))
}

/// The invariants of ARCHITECTURE.md that are about crates.
fn dependencies() -> Result<Outcome> {
    for (package, forbidden) in [
        // The engine is pure: no runtime, no network, no clients.
        ("sidecar-engine", "tokio"),
        ("sidecar-engine", "hyper"),
        ("sidecar-engine", "kube-client"),
        ("sidecar-engine", "rustls"),
        // One TLS provider in the product; two make rustls refuse to choose.
        ("sidecar-injector", "ring"),
        ("sidecar-injector", "openssl-sys"),
        ("sidecar-injector", "native-tls"),
    ] {
        let output = Command::new(cargo_program())
            .current_dir(repository_root())
            .args(["tree", "--locked", "--edges", "normal,build", "--package", package, "--prefix", "none"])
            .output()?;
        ensure!(output.status.success(), "cargo tree failed: {}", String::from_utf8_lossy(&output.stderr));
        let tree = String::from_utf8(output.stdout)?;
        if let Some(line) = tree.lines().find(|line| line.split(' ').next() == Some(forbidden)) {
            bail!("{package} must not depend on {forbidden}, but has {line}");
        }
    }
    if !Command::new(cargo_program())
        .args(["deny", "--version"])
        .output()
        .is_ok_and(|output| output.status.success())
    {
        let reason =
            "licences were not checked: cargo-deny is missing (cargo install --locked cargo-deny)".to_owned();
        ensure!(env::var_os("SIDECAR_REQUIRE_DENY").is_none(), "{reason}");
        return Ok(Outcome::LeftOut(reason));
    }
    // Advisories come from a repository that CI cannot reach; a release looks at them (CONTRIBUTING.md).
    cargo(&["deny", "--locked", "check", "licenses", "bans", "sources"])?;
    Ok(Outcome::Passed)
}

/// What the tests try: the one that goes into the image.
fn binary() -> Result<(&'static str, OsString)> {
    Ok(("SIDECAR_INJECTOR_BINARY", image::build_binary()?.into_os_string()))
}

/// The tests say so themselves if it is required and missing.
fn has_promtool() -> bool {
    Command::new("promtool").arg("--version").output().is_ok_and(|output| output.status.success())
}

fn cargo(arguments: &[&str]) -> Result<()> {
    eprintln!("$ cargo {}", arguments.join(" "));
    let status = Command::new(cargo_program())
        .current_dir(repository_root())
        .args(arguments)
        .status()
        .context("cannot start cargo")?;
    ensure!(status.success(), "cargo {} failed ({status})", arguments.join(" "));
    Ok(())
}

pub(crate) fn cargo_program() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}
