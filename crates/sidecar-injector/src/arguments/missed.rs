//! Pods that run without their sidecar, and which replica looks for them.

use clap::{Args, ValueEnum};
use sidecar_engine::definition::LabelSelector;

#[derive(Debug, Args)]
pub(crate) struct MissedPodsArguments {
    /// What to do about pods that run without a sidecar that is meant for them
    #[arg(long, env = "MISSED_PODS", value_name = "MODE", default_value = "off")]
    pub(crate) missed_pods: MissedPodsMode,
    /// How many owners of such pods are restarted in a minute at most, with `--missed-pods repair`
    #[arg(
        long,
        env = "MAX_REPAIRS_PER_MINUTE",
        value_name = "NUMBER",
        default_value_t = 5,
        value_parser = clap::value_parser!(u32).range(1..=600)
    )]
    pub(crate) max_repairs_per_minute: u32,
    /// Lease of the replicas: one of them does what only one may do [default: this one does]
    #[arg(long, env = "LEASE", value_name = "NAMESPACE/NAME", value_parser = lease)]
    pub(crate) lease: Option<LeaseName>,
    /// Which pods the API server asks about (the chart's `webhook.scope`), to say which ones it does not
    #[arg(long, env = "WEBHOOK_SCOPE", value_name = "SCOPE")]
    pub(crate) webhook_scope: Option<WebhookScope>,
    /// Which namespaces it asks about, as a label selector in JSON (the chart's `webhook.namespaceSelector`) [default: all]
    #[arg(long, env = "WEBHOOK_NAMESPACE_SELECTOR", value_name = "JSON", value_parser = selector)]
    pub(crate) webhook_namespace_selector: Option<LabelSelector>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum MissedPodsMode {
    /// Nothing, and no pods are watched
    Off,
    /// Count and name them
    Report,
    /// The same, and restart their owners where the definition says `missedPods: Repair`
    Repair,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub(crate) enum WebhookScope {
    /// Those with the label or annotation `sidecar.me/inject`
    Requested,
    /// Those of namespaces labelled `sidecar.me/injection: enabled`
    Namespaces,
    /// All
    All,
}

/// Where a Lease is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LeaseName {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

fn selector(text: &str) -> Result<LabelSelector, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

fn lease(text: &str) -> Result<LeaseName, String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => {
            Ok(LeaseName { namespace: namespace.to_owned(), name: name.to_owned() })
        }
        _ => Err("write it as NAMESPACE/NAME".to_owned()),
    }
}
