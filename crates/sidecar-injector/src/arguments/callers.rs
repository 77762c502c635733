//! Who may ask for reviews.

use std::path::PathBuf;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser as _};

/// What callers have to show.
#[derive(Debug, Clone, Args)]
pub(crate) struct CallerArguments {
    /// CA certificates, PEM, that callers must have a certificate of; read again when it changes. Health checks are answered
    /// without one [default: whoever can connect may ask]
    #[arg(long, env = "CLIENT_CA_FILE", value_name = "FILE", value_parser = OsStringValueParser::new().map(PathBuf::from))]
    pub(crate) client_ca_file: Option<PathBuf>,
    /// Common names, or DNS names, that such a certificate may have, with `,` between [default: any]
    #[arg(long, env = "CLIENT_NAMES", value_name = "NAMES", value_delimiter = ',')]
    pub(crate) client_names: Vec<String>,
}
