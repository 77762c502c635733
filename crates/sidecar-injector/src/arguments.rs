//! The command line as it is typed. What it means is settled by each command.

mod callers;
mod certificates;
mod missed;
mod reporting;

pub(crate) use callers::CallerArguments;
pub(crate) use certificates::CertificateArguments;
pub(crate) use missed::{LeaseName, MissedPodsArguments, MissedPodsMode, WebhookScope};
pub(crate) use reporting::ReportingArguments;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser as _};
use clap::{Args, Parser, Subcommand, ValueEnum};

/// Adds sidecar containers to Kubernetes pods.
#[derive(Debug, Parser)]
#[command(name = "sidecar-injector", version, about, arg_required_else_help = true, after_help = AFTER_HELP)]
pub struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The codes stand in docs/answers.md too; a test compares them.
const AFTER_HELP: &str = "\
Exit codes:
  0  It is done
  1  Something was found: a definition has errors, a pod would be denied, a webhook does not inject
  2  The options make no sense
  3  The input cannot be read, or is not what it should be
  4  There is no cluster to watch
  5  The machine refuses: a port is taken, say

Examples:
  sidecar-injector inject -f deployment.yaml | kubectl apply -f -
  kubectl get deploy web -o yaml | sidecar-injector inject -f - -o patch
  HTTPS_ENABLED=true sidecar-injector serve";

#[derive(Debug, Subcommand)]
// What each is for stands at its arguments: a comment here would take the place of all that is said there.
pub(crate) enum Command {
    Serve(Box<ServeArguments>),
    Inject(InjectArguments),
    Review(ReviewArguments),
    Validate(ValidateArguments),
    Check(CheckArguments),
    /// Print the version
    Version,
}

/// Run the admission webhook.
///
/// Definitions come from files, from the cluster's objects, or both; without any, pods labelled
/// `sidecar.me/inject: "true"` get the container `curl`. Every option can also be given as an environment variable. On
/// SIGTERM the server stops being ready, goes on answering for the shutdown delay, then
/// finishes what is under way and exits.
///
/// Exit code 0: it was told to stop; 2: the options make no sense; 3: a certificate or a definitions folder cannot be
/// read at the start; 4: there is no cluster to watch; 5: the machine refuses, a port is taken for example.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  # HTTPS, as in the cluster
  sidecar-injector serve --https-enabled --tls-cert-file tls.crt --tls-private-key-file tls.key

  # plain HTTP on loopback, to try definitions out; they are read again when they change
  sidecar-injector serve --definitions definitions/
  curl -H 'Content-Type: application/json' -d @examples/review.json \\
    http://127.0.0.1:8010/mutation/pod")]
pub(crate) struct ServeArguments {
    /// Serve HTTPS: only for the value `true`; otherwise plain HTTP
    #[arg(long, env = "HTTPS_ENABLED", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub(crate) https_enabled: Option<String>,
    /// Port for HTTPS
    #[arg(long, env = "HTTPS_PORT", value_name = "PORT", default_value_t = 8443)]
    pub(crate) https_port: u16,
    /// Port for plain HTTP
    #[arg(long, env = "HTTP_PORT", value_name = "PORT", default_value_t = 8010)]
    pub(crate) http_port: u16,
    /// Address to listen on [default: all addresses for HTTPS, loopback for plain HTTP]
    #[arg(long, env = "BIND_ADDRESS", value_name = "ADDRESS")]
    pub(crate) bind_address: Option<IpAddr>,
    /// Port for metrics in Prometheus' format, plain HTTP [default: no metrics]
    #[arg(long, env = "METRICS_PORT", value_name = "PORT")]
    pub(crate) metrics_port: Option<u16>,
    #[command(flatten)]
    pub(crate) certificates: CertificateArguments,
    #[command(flatten)]
    pub(crate) callers: CallerArguments,
    /// File or folder of definitions, read again when it changes; can be given several times, or with `:` between
    #[arg(
        long,
        env = "DEFINITIONS",
        value_name = "PATH",
        value_delimiter = ':',
        // A variable that is set to nothing is not an error.
        value_parser = OsStringValueParser::new().map(PathBuf::from)
    )]
    pub(crate) definitions: Vec<PathBuf>,
    /// Watch the cluster's ClusterSidecarDefinition and SidecarDefinition objects, and its namespaces
    #[arg(
        long,
        env = "DEFINITION_RESOURCES",
        value_name = "BOOL",
        num_args = 0..=1,
        default_value_t = false,
        default_missing_value = "true",
        action = clap::ArgAction::Set
    )]
    pub(crate) definition_resources: bool,
    /// Watch the cluster's namespaces, whose labels the definitions in files select by
    #[arg(
        long,
        env = "WATCH_NAMESPACES",
        value_name = "BOOL",
        num_args = 0..=1,
        default_value_t = false,
        default_missing_value = "true",
        action = clap::ArgAction::Set
    )]
    pub(crate) watch_namespaces: bool,
    /// Namespaces whose pods are never changed, with `,` between [default: kube-system,kube-node-lease]
    #[arg(long, env = "EXCLUDED_NAMESPACES", value_name = "NAMES", value_delimiter = ',')]
    pub(crate) excluded_namespaces: Option<Vec<String>>,
    /// Let unknown fields of pods pass in definitions, for a Kubernetes that is newer than this program
    #[arg(
        long,
        env = "ALLOW_UNKNOWN_POD_FIELDS",
        value_name = "BOOL",
        num_args = 0..=1,
        default_value_t = false,
        default_missing_value = "true",
        action = clap::ArgAction::Set
    )]
    pub(crate) allow_unknown_pod_fields: bool,
    #[command(flatten)]
    pub(crate) reporting: ReportingArguments,
    #[command(flatten)]
    pub(crate) missed: MissedPodsArguments,
    /// How long to go on serving after SIGTERM, until every API server has noticed
    #[arg(long, env = "SHUTDOWN_DELAY", value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub(crate) shutdown_delay: Duration,
    /// How long to wait for open requests after that
    #[arg(long, env = "DRAIN_TIMEOUT", value_name = "DURATION", default_value = "15s", value_parser = duration)]
    pub(crate) drain_timeout: Duration,
    /// Form of the log on standard error [default: text on a terminal, json elsewhere]
    #[arg(long, env = "LOG_FORMAT", value_name = "FORMAT")]
    pub(crate) log_format: Option<LogFormat>,
    /// Least important level that is logged (error, warn, info, debug, trace; or off), or a filter such as `info,hyper=debug`
    #[arg(long, env = "LOG_LEVEL", value_name = "LEVEL", default_value = DEFAULT_LOG_LEVEL)]
    pub(crate) log_level: String,
}

/// What is logged where nothing is said.
pub(crate) const DEFAULT_LOG_LEVEL: &str = "info";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// One JSON object a line
    Json,
    /// For people
    Text,
}

/// Inject into manifests, as the webhook would inject into their pods.
///
/// Reads YAML or JSON: several documents, `kind: List`, and Pod, Deployment, StatefulSet, DaemonSet, ReplicaSet,
/// ReplicationController, Job, CronJob and PodTemplate objects. Documents that get nothing pass through byte for byte;
/// the others keep their comments and the order of their fields. What was done is said on standard error.
///
/// Exit code 0: everything was written, whatever got a sidecar; 1: the webhook would deny a pod, and nothing at all was
/// written; 3: a manifest, a definition or a Namespace cannot be read, and nothing was written.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  # inject and apply
  sidecar-injector inject -f deployment.yaml | kubectl apply -f -

  # a folder of manifests (.yaml, .yml and .json files, also in folders below)
  sidecar-injector inject -f manifests/

  # with definitions of your own, as in a namespace with these labels
  sidecar-injector inject -f pod.yaml --definitions definitions/ --namespace-file namespace.yaml

  # only the JSON patch, one line for each object that gets something
  kubectl get deploy web -o json | sidecar-injector inject -f - -o patch")]
pub(crate) struct InjectArguments {
    /// File, folder, or `-` for standard input; can be given several times
    #[arg(short, long, value_name = "FILE", required = true)]
    pub(crate) filename: Vec<PathBuf>,
    /// Output [default: each document in the form in which it was read]
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) output: Option<OutputFormat>,
    #[command(flatten)]
    pub(crate) offline: OfflineArguments,
    /// Namespace that the objects are for [default: the one that each of them names, or `default`]
    #[arg(short, long, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
}

/// What a server would know from files and from its cluster.
#[derive(Debug, Args)]
pub(crate) struct OfflineArguments {
    /// File or folder of definitions; can be given several times [default: the container `curl` for labelled pods]
    #[arg(long, value_name = "PATH")]
    pub(crate) definitions: Vec<PathBuf>,
    /// File with Namespace objects, whose labels and annotations are used; can be given several times. `inject` takes
    /// those in its input, too; what is given here comes before them
    #[arg(long, value_name = "FILE")]
    pub(crate) namespace_file: Vec<PathBuf>,
    /// Let unknown fields of pods pass in definitions, for a Kubernetes that is newer than this program
    #[arg(long)]
    pub(crate) allow_unknown_pod_fields: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// YAML documents; JSON documents are rewritten
    Yaml,
    /// JSON, one object after the other; YAML documents are rewritten
    Json,
    /// JSON Patches (RFC 6902), one line for each object that gets something
    Patch,
}

/// Print the response that the webhook would give to a saved AdmissionReview.
///
/// A review is JSON, as the API server sends it; for a pod in YAML there is `inject`.
///
/// Exit code 0: there is a response, be it a denial; 3: the review, a definition or a Namespace cannot be read.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sidecar-injector review -f examples/review.json
  sidecar-injector review -f - < examples/review.json | jq -r .response.patch | base64 -d")]
pub(crate) struct ReviewArguments {
    /// File with an AdmissionReview in JSON, or `-` for standard input
    #[arg(short, long, value_name = "FILE")]
    pub(crate) filename: PathBuf,
    #[command(flatten)]
    pub(crate) offline: OfflineArguments,
}

/// Check definitions and show all that is wrong with them.
///
/// Reads `ClusterSidecarDefinition` and `SidecarDefinition` objects in YAML or JSON: several documents, and `kind: List`.
/// Fields are checked against Kubernetes' own schema of a pod, the pod YAML in a definition too. Two definitions of one
/// name are an error wherever they are. Exit code 0: all are good; 1: some are not; 3: something cannot be read.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  # one file
  sidecar-injector validate -f log-shipper.yaml

  # a folder (.yaml, .yml and .json files, also in folders below)
  sidecar-injector validate -f definitions/

  # what is in the cluster
  kubectl get clustersidecardefinitions,sidecardefinitions -A -o yaml | sidecar-injector validate -f -

  # for a program: file, line, column, code, path, message, suggestion and help of every error
  sidecar-injector validate -f definitions/ -o json | jq -r '.[].code'")]
pub(crate) struct ValidateArguments {
    /// File, folder, or `-` for standard input; can be given several times
    #[arg(short, long, value_name = "FILE", required = true)]
    pub(crate) filename: Vec<PathBuf>,
    /// Output [default: for people, on standard error]
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) output: Option<ValidateFormat>,
    /// Let unknown fields of pods pass, for a Kubernetes that is newer than this program
    #[arg(long)]
    pub(crate) allow_unknown_pod_fields: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ValidateFormat {
    /// A JSON array with one object for each error
    Json,
}

/// Ask a running webhook over HTTPS whether it injects (what `helm test` runs).
///
/// Connects as the API server does (TLS verified against the CA bundle and the Service's name), asks whether it is
/// ready, and sends the review of a labelled pod. Exit code 0: it injects; 1: it does not; 2: the address or the CA
/// certificates are none.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kubectl port-forward deployment/kubernetes-sidecar-injector 8443 &
  sidecar-injector check --url https://kubernetes-sidecar-injector.default.svc \\
    --webhook-configuration kubernetes-sidecar-injector --connect-to 127.0.0.1:8443")]
pub(crate) struct CheckArguments {
    /// The webhook's address; its host is the name that the certificate must have
    #[arg(long, value_name = "URL")]
    pub(crate) url: String,
    /// Connect to this address instead of looking the host up
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) connect_to: Option<String>,
    /// CA certificates, PEM in base64, as in the webhook configuration's caBundle
    #[arg(long, env = "CA_BUNDLE", value_name = "BASE64", required_unless_present = "webhook_configuration")]
    pub(crate) ca_bundle: Option<String>,
    /// Configuration of mutating webhooks in the cluster, to take the caBundle from
    #[arg(long, env = "WEBHOOK_CONFIGURATION", value_name = "NAME", conflicts_with = "ca_bundle")]
    pub(crate) webhook_configuration: Option<String>,
    /// How long to try
    #[arg(long, value_name = "DURATION", default_value = "20s", value_parser = duration)]
    pub(crate) timeout: Duration,
}

/// `10s`, `500ms`, `1m 30s`.
fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write it like 10s, 500ms or 1m"))
}

/// The same where less would do nothing but keep the server busy.
fn duration_of_at_least(seconds: u64) -> impl Fn(&str) -> Result<Duration, String> + Clone {
    let least = Duration::from_secs(seconds);
    move |text| match duration(text)? {
        long_enough if long_enough >= least => Ok(long_enough),
        _ => Err(format!("must be at least {seconds}s")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    /// Regression: probes without a pause, and certificates that expired before they were served and were made again at once.
    #[test]
    fn what_is_done_again_and_again_has_pauses() {
        for (option, too_short, shortest) in [
            ("--self-probe-interval", "0s", "1s"),
            ("--ca-lifetime", "9s", "10s"),
            ("--certificate-lifetime", "9999ms", "10s"),
        ] {
            let parse = |value| Arguments::try_parse_from(["sidecar-injector", "serve", option, value]);
            let problem = parse(too_short).unwrap_err().to_string();
            assert!(
                problem.contains(&format!("{option} <DURATION>': must be at least {shortest}")),
                "{problem}"
            );
            assert!(parse(shortest).is_ok(), "{option} {shortest}");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
