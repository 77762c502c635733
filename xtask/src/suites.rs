//! Test binaries, built once for all steps and run several at the same time: they mostly wait, those with a cluster of their own for it.

use std::collections::VecDeque;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use sidecar_testkit::repository_root;

/// A test binary with a cluster of its own, or a part of its tests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Suite {
    test: &'static str,
    arguments: &'static [&'static str],
}

impl Suite {
    pub(crate) const fn all(test: &'static str) -> Self {
        Suite { test, arguments: &[] }
    }

    pub(crate) const fn part(test: &'static str, arguments: &'static [&'static str]) -> Self {
        Suite { test, arguments }
    }
}

/// What can be run.
#[derive(Debug)]
pub(crate) struct Run {
    name: String,
    executable: PathBuf,
    arguments: &'static [&'static str],
    /// That of its package, as tests expect.
    folder: PathBuf,
}

/// These of the package `e2e`, in this order.
pub(crate) fn of(suites: &[Suite]) -> Result<Vec<Run>> {
    let built = build()?;
    let run = |suite: &Suite| {
        let Suite { test, arguments } = *suite;
        let built = built.iter().find(|built| built.needs_cluster() && built.name == test);
        let built = built.with_context(|| format!("there is no test {test}"))?;
        Ok(built.run([&[test], arguments].concat().join(" "), arguments))
    };
    suites.iter().map(run).collect()
}

/// Everything else, the one first that decides when all are done.
pub(crate) fn without_cluster() -> Result<Vec<Run>> {
    let mut built: Vec<_> = build()?.into_iter().filter(|built| !built.needs_cluster()).collect();
    built.sort_by_key(|built| (built.name != "serve", built.package.clone(), built.name.clone()));
    Ok(built.iter().map(|built| built.run(format!("{} {}", built.package, built.name), &[])).collect())
}

/// How many run at the same time.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Lanes {
    One,
    /// As many as there are processors.
    Processors,
}

/// Runs them in this order, in so many lanes. What those print that fail comes last. Returns what they left out,
/// each with its reason.
pub(crate) fn run(runs: &[Run], lanes: Lanes, environment: &[(&str, OsString)]) -> Result<Vec<String>> {
    let left_out = tempfile::NamedTempFile::new()?;
    let queue: Mutex<VecDeque<_>> = Mutex::new(runs.iter().collect());
    let failed = Mutex::new(Vec::new());
    let work = || -> Result<()> {
        loop {
            let Some(Run { name, executable, arguments, folder }) = lock(&queue).pop_front() else {
                return Ok(());
            };
            eprintln!("-- {name} ...");
            let started = Instant::now();
            let mut command = Command::new(executable);
            command.args(*arguments).current_dir(folder);
            command.envs(environment.iter().map(|(name, value)| (name, value)));
            command.env("SIDECAR_LEFT_OUT", left_out.path());
            let (is_success, output) = output(&mut command)?;
            let took = started.elapsed().as_secs_f64();
            if is_success {
                eprintln!("{output}-- {name} passed in {took:.1} s");
            } else {
                eprintln!("-- {name} FAILED in {took:.1} s, see below");
                lock(&failed).push(format!("{output}-- {name} failed\n"));
                lock(&queue).clear();
            }
        }
    };
    thread::scope(|scope| {
        let lanes: Vec<_> = (0..lanes.count()).map(|_| scope.spawn(work)).collect();
        lanes.into_iter().try_for_each(|lane| match lane.join() {
            Ok(result) => result,
            Err(_) => bail!("a lane panicked"),
        })
    })?;
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    for output in &failed {
        eprint!("{output}");
    }
    ensure!(failed.is_empty(), "tests failed");
    Ok(fs::read_to_string(left_out.path())?.lines().map(ToOwned::to_owned).collect())
}

impl Lanes {
    fn count(self) -> usize {
        match self {
            Lanes::One => 1,
            // Somebody else's cluster is one that all share.
            Lanes::Processors if env::var_os("KUBECONFIG").is_some() => 1,
            Lanes::Processors => thread::available_parallelism().map_or(1, NonZero::get),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A test binary of the workspace.
#[derive(Debug)]
struct Built {
    package: String,
    /// Of an integration test its own, otherwise that of the library or program.
    name: String,
    is_integration: bool,
    executable: PathBuf,
    folder: PathBuf,
}

impl Built {
    fn needs_cluster(&self) -> bool {
        self.package == "e2e" && self.is_integration
    }

    fn run(&self, name: String, arguments: &'static [&'static str]) -> Run {
        Run { name, executable: self.executable.clone(), arguments, folder: self.folder.clone() }
    }

    /// From a message of Cargo's that says where a test binary is.
    fn of(message: &Value) -> Option<Self> {
        let target = &message["target"];
        let is_test = message["profile"]["test"].as_bool()?;
        let folder = Path::new(message["manifest_path"].as_str()?).parent()?;
        is_test.then_some(Built {
            package: folder.file_name()?.to_str()?.to_owned(),
            name: target["name"].as_str()?.to_owned(),
            is_integration: target["kind"] == json!(["test"]),
            executable: message["executable"].as_str()?.into(),
            folder: folder.to_owned(),
        })
    }
}

/// All of them every time: what Cargo builds for one package alone has other features, and would be built again.
fn build() -> Result<Vec<Built>> {
    let arguments = ["test", "--no-run", "--workspace", "--locked"];
    eprintln!("$ cargo {}", arguments.join(" "));
    let mut command = Command::new(super::test::cargo_program());
    command.current_dir(repository_root()).args(arguments).arg("--message-format=json-render-diagnostics");
    let output = command.stderr(Stdio::inherit()).output().context("cannot start cargo")?;
    ensure!(output.status.success(), "the tests do not compile");
    let messages = output.stdout.split(|byte| *byte == b'\n');
    let messages = messages.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    Ok(messages.filter_map(|message| Built::of(&message)).collect())
}

/// Both streams as they come, in one.
fn output(command: &mut Command) -> Result<(bool, String)> {
    let file = tempfile::NamedTempFile::new()?;
    let status = command
        .stdin(Stdio::null())
        .stdout(file.as_file().try_clone()?)
        .stderr(file.as_file().try_clone()?)
        .status()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    Ok((status.success(), String::from_utf8_lossy(&fs::read(file.path())?).into_owned()))
}
