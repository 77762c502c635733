//! Test binaries of one package, several at the same time: each has a cluster of its own and mostly waits for it.

use std::collections::{BTreeMap, VecDeque};
use std::env;
use std::ffi::OsString;
use std::fs;
use std::num::NonZero;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use sidecar_testkit::repository_root;

/// A test binary, or a part of its tests.
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

    fn name(&self) -> String {
        [&[self.test], self.arguments].concat().join(" ")
    }
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
pub(crate) fn run(suites: &[Suite], lanes: Lanes, environment: &[(&str, OsString)]) -> Result<Vec<String>> {
    let executables = build(suites)?;
    let left_out = tempfile::NamedTempFile::new()?;
    let queue: Mutex<VecDeque<_>> = Mutex::new(suites.iter().collect());
    let failed = Mutex::new(Vec::new());
    let folder = repository_root().join("e2e");
    let work = || -> Result<()> {
        loop {
            let Some(suite) = lock(&queue).pop_front() else { return Ok(()) };
            let name = suite.name();
            let executable = executables.get(suite.test).with_context(|| format!("no test {name}"))?;
            eprintln!("-- {name} ...");
            let started = Instant::now();
            let mut command = Command::new(executable);
            command.args(suite.arguments).current_dir(&folder);
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

/// Where each test's binary is.
fn build(suites: &[Suite]) -> Result<BTreeMap<String, PathBuf>> {
    let mut command = Command::new(super::test::cargo_program());
    command.current_dir(repository_root()).args(["test", "--no-run", "--locked", "--package", "e2e"]);
    command.arg("--message-format=json-render-diagnostics");
    for suite in suites {
        command.args(["--test", suite.test]);
    }
    let output = command.stderr(Stdio::inherit()).output().context("cannot start cargo")?;
    ensure!(output.status.success(), "the tests do not compile");
    let messages = output.stdout.split(|byte| *byte == b'\n');
    let messages = messages.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    let executables = messages.filter_map(|message| {
        let name = message["target"]["name"].as_str()?.to_owned();
        Some((name, PathBuf::from(message["executable"].as_str()?)))
    });
    Ok(executables.collect())
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
