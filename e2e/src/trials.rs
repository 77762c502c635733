//! A harness for tests that share one cluster: trials run one after the other, and the cluster is stopped at the end.
//!
//! With `KUBECONFIG` set they run on that cluster, where the injector's image must have been loaded; trials that look into
//! processes are then left out, by name.

use std::future::Future;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use libtest_mimic::{Arguments, Failed};
use tokio::runtime::Runtime;

use crate::Installation;

/// A trial.
pub struct Trial {
    /// What it is called on the command line and in the summary.
    pub name: &'static str,
    /// Whether it looks into processes that only a cluster of ours has.
    pub needs_processes: bool,
    /// What it does.
    pub body: Body,
}

/// What a trial does with the cluster.
pub type Body = for<'a> fn(&'a Installation) -> Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

/// A list of trials: paths of functions, some of them marked with `#[processes]`.
#[macro_export]
macro_rules! trials {
    (@ processes) => { true };
    ($($(#[$mark:ident])? $module:ident::$name:ident),* $(,)?) => {
        [$($crate::trials::Trial {
            name: concat!(stringify!($module), "::", stringify!($name)),
            needs_processes: false $(|| $crate::trials!(@ $mark))?,
            body: |installation| Box::pin($module::$name(installation)),
        }),*]
    };
}

/// Runs the trials that the command line asks for, in their order. Without any, no cluster is started.
#[must_use]
pub fn run(trials: &'static [Trial]) -> ExitCode {
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    if arguments.list {
        let names = trials.iter().map(|trial| libtest_mimic::Trial::test(trial.name, || Ok(())));
        return libtest_mimic::run(&arguments, names.collect()).exit_code();
    }
    match on_a_cluster(&arguments, trials) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn on_a_cluster(arguments: &Arguments, trials: &'static [Trial]) -> Result<ExitCode> {
    let runtime = Runtime::new()?;
    let installation = Arc::new(runtime.block_on(Installation::start())?);
    let trials = trials.iter().map(|trial| {
        let (handle, installation, body) = (runtime.handle().clone(), installation.clone(), trial.body);
        let left_out = trial.needs_processes && installation.cluster.is_external();
        libtest_mimic::Trial::test(trial.name, move || {
            handle.block_on(body(&installation)).map_err(|error| Failed::from(format!("{error:#}")))
        })
        .with_ignored_flag(left_out)
    });
    let conclusion = libtest_mimic::run(arguments, trials.collect());
    let Some(installation) = Arc::into_inner(installation) else {
        anyhow::bail!("a trial still uses the cluster");
    };
    runtime.block_on(async {
        if installation.cluster.is_external() {
            installation.shell("helm uninstall kubernetes-sidecar-injector --namespace default").await?;
        }
        installation.cluster.stop().await
    })?;
    Ok(conclusion.exit_code())
}
