//! Everything of the sidecar injector that touches the world: the webhook server, files, the terminal.
//!
//! What is injected and why is decided in `sidecar_engine`, the same for every command.
//!
//! ```text
//! arguments ──> serve ──> connection ──> http ──> Engine::review
//!          │      └ sources, certificates, shutdown, logs
//!          ├──> commands::inject ──> manifest (input ─ workload ─ edit) ──> Engine::inject
//!          └──> commands::validate ──> findings ──> drawing
//! ```

// No request and no file may make it panic.
#![warn(clippy::indexing_slicing, clippy::string_slice)]

mod arguments;
mod changes;
mod clock;
mod cluster;
mod commands;
mod drawing;
mod failure;
mod findings;
mod manifest;
mod missed;
mod serve;
mod sources;

pub use arguments::Arguments;
pub use failure::Failure;

use std::process::ExitCode;

use arguments::Command;

/// Runs the command that was typed.
///
/// # Errors
/// With what went wrong, and the exit code that says so.
pub fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    match arguments.command {
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Inject(arguments) => commands::inject::run(&arguments),
        Command::Review(arguments) => commands::review::run(&arguments),
        Command::Check(arguments) => commands::check::run(&arguments),
        Command::Validate(arguments) => commands::validate::run(&arguments),
        Command::Version => commands::version::run(),
    }
}
