//! What a server tells the cluster about itself, and asks it.

use std::time::Duration;

use clap::{ArgAction, Args};

use super::duration_of_at_least;

#[derive(Debug, Args)]
pub(crate) struct ReportingArguments {
    /// Write Events on the owners of pods: what was injected, and why something was not
    #[arg(
        long,
        env = "EVENTS",
        value_name = "BOOL",
        num_args = 0..=1,
        default_value_t = false,
        default_missing_value = "true",
        action = ArgAction::Set
    )]
    pub(crate) events: bool,
    /// Write into the cluster's definitions whether they are served, and into how many pods they were injected; only with
    /// `--definition-resources`
    #[arg(
        long,
        env = "DEFINITION_STATUS",
        value_name = "BOOL",
        num_args = 0..=1,
        default_value_t = false,
        default_missing_value = "true",
        action = ArgAction::Set
    )]
    pub(crate) definition_status: bool,
    /// Ask the API server now and then for a pod in this namespace, as a dry run, to see that reviews arrive [default: never]
    #[arg(long, env = "SELF_PROBE_NAMESPACE", value_name = "NAME")]
    pub(crate) self_probe_namespace: Option<String>,
    /// How often
    #[arg(long, env = "SELF_PROBE_INTERVAL", value_name = "DURATION", default_value = "60s", value_parser = duration_of_at_least(1))]
    pub(crate) self_probe_interval: Duration,
}

impl ReportingArguments {
    /// A variable that is set to nothing is no namespace.
    pub(crate) fn probed_namespace(&self) -> Option<String> {
        self.self_probe_namespace.clone().filter(|name| !name.is_empty())
    }
}
