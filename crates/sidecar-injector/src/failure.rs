//! What ends a command early, and the exit code that says so: 2 usage, 3 input, 5 internal (DESIGN: 0 ok, 1 findings).

use std::fmt::Display;
use std::process::ExitCode;

/// Why a command could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Arguments that make no sense together.
    #[error("{0}")]
    Usage(String),
    /// A file, or standard input, that cannot be read or understood.
    #[error("{place}: {problem}")]
    Input {
        /// Which one, with line and column where they are known.
        place: String,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// What should not happen, or what the machine refuses.
    #[error("{0}")]
    Internal(String),
}

impl Failure {
    pub(crate) fn input(place: impl Display, problem: impl Display) -> Self {
        Self::Input { place: place.to_string(), problem: problem.to_string() }
    }

    pub(crate) fn internal(problem: impl Display) -> Self {
        Self::Internal(problem.to_string())
    }

    /// Says it on standard error.
    pub fn report(&self) -> ExitCode {
        eprintln!("error: {self}");
        ExitCode::from(match self {
            Self::Usage(_) => 2,
            Self::Input { .. } => 3,
            Self::Internal(_) => 5,
        })
    }
}
