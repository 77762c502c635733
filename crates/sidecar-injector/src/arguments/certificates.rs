//! Certificates: from files, or made by the server itself.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{duration, duration_of_at_least};

/// In seconds. What lives for less is renewed all the time, and may expire on its way to the API server.
const SHORTEST_LIFE: u64 = 10;

/// Where the serving certificate comes from.
#[derive(Debug, Args)]
pub(crate) struct CertificateArguments {
    /// Certificate chain, PEM; read again when it changes
    #[arg(
        long,
        env = "TLS_CERT_FILE",
        value_name = "FILE",
        default_value = "/var/run/secrets/certs/tls-cert-file"
    )]
    pub(crate) tls_cert_file: PathBuf,
    /// Private key of the certificate, PEM; read again when it changes
    #[arg(
        long,
        env = "TLS_PRIVATE_KEY_FILE",
        value_name = "FILE",
        default_value = "/var/run/secrets/certs/tls-private-key-file"
    )]
    pub(crate) tls_private_key_file: PathBuf,
    /// DNS names that the certificate must have, with `,` between: SERVICE.NAMESPACE.svc, as the API server calls it
    #[arg(long, env = "CERTIFICATE_NAMES", value_name = "NAMES", value_delimiter = ',')]
    pub(crate) certificate_names: Vec<String>,
    /// Make CA and certificate, keep them in this Secret and renew them, instead of reading files: NAMESPACE/NAME. The
    /// Secret must be there
    #[arg(long, env = "CERTIFICATE_SECRET", value_name = "NAMESPACE/NAME", requires = "certificate_names")]
    pub(crate) certificate_secret: Option<String>,
    /// Configuration of mutating webhooks whose caBundle is kept up to date then; with certificates from files it is only
    /// looked at: not ready until it verifies them
    #[arg(long, env = "MUTATING_WEBHOOK_CONFIGURATION", value_name = "NAME")]
    pub(crate) mutating_webhook_configuration: Option<String>,
    /// The same for validating webhooks
    #[arg(long, env = "VALIDATING_WEBHOOK_CONFIGURATION", value_name = "NAME")]
    pub(crate) validating_webhook_configuration: Option<String>,
    /// How long a CA is valid; at two thirds of it the next one is introduced
    #[arg(long, env = "CA_LIFETIME", value_name = "DURATION", default_value = "43800h", value_parser = duration_of_at_least(SHORTEST_LIFE))]
    pub(crate) ca_lifetime: Duration,
    /// How long a certificate is valid; at two thirds of it it is renewed. At most a third of the CA's life
    #[arg(long, env = "CERTIFICATE_LIFETIME", value_name = "DURATION", default_value = "2160h", value_parser = duration_of_at_least(SHORTEST_LIFE))]
    pub(crate) certificate_lifetime: Duration,
    /// How long a new CA must have been in every caBundle before it signs: the time that the slowest API server needs to notice
    #[arg(long, env = "CA_PROPAGATION", value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub(crate) ca_propagation: Duration,
    /// How long a CA that nobody uses any more stays in the caBundle
    #[arg(long, env = "CA_OVERLAP", value_name = "DURATION", default_value = "1h", value_parser = duration)]
    pub(crate) ca_overlap: Duration,
}
