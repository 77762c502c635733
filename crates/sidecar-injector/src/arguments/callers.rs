//! Who may ask for reviews.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

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

impl CallerArguments {
    /// A variable that is set to nothing is no file.
    pub(crate) fn ca_file(&self) -> Option<&Path> {
        self.client_ca_file.as_deref().filter(|file| !file.as_os_str().is_empty())
    }

    /// And no name.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        self.client_names.iter().filter(|name| !name.is_empty()).cloned().collect()
    }
}
