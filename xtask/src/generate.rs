//! To be written.

use clap::Args;

/// Arguments.
#[derive(Args)]
pub(crate) struct Arguments {}

pub(crate) fn run(_: Arguments) -> anyhow::Result<()> {
    anyhow::bail!("not written yet")
}
