//! What ends a command early, and the exit code that says so: 2 usage, 3 input, 4 cluster, 5 internal. 0 and 1 (findings)
//! are answers of commands that came to their end.

use std::fmt::Display;
use std::process::ExitCode;

use sidecar_engine::yaml::Help;

use crate::drawing::{Mistake, Spot};

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
    /// A place in a text that cannot be understood, drawn with its line and a caret.
    #[error("{0}")]
    Text(String),
    /// A cluster that is needed and cannot be found.
    #[error("{0}")]
    Cluster(String),
    /// What should not happen, or what the machine refuses.
    #[error("{0}")]
    Internal(String),
}

impl Failure {
    pub(crate) fn input(place: impl Display, problem: impl Display) -> Self {
        Self::Input { place: place.to_string(), problem: problem.to_string() }
    }

    /// What is wrong with a text, and where: `line` and `column` count from 1.
    pub(crate) fn text(
        (name, text): (&str, &str),
        (line, column): (usize, usize),
        problem: &str,
        help: Option<Help>,
    ) -> Self {
        let start = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum::<usize>();
        let rest = text.get(start..).unwrap_or_default();
        let offset = rest.char_indices().nth(column.saturating_sub(1)).map_or(rest.len(), |(index, _)| index);
        let place = start + offset;
        let wrong = rest.get(offset..).and_then(|rest| rest.chars().next());
        // A place of no length at the start of a line is drawn as if it were in the line before.
        let length = wrong.filter(|character| !matches!(character, '\r' | '\n')).map_or(0, char::len_utf8);
        let mistake = Mistake::new(problem, Spot { name, text, range: Some(place..place + length) });
        Self::Text(Mistake { help: help.map(|help| help.text().to_owned()), ..mistake }.draw())
    }

    pub(crate) fn internal(problem: impl Display) -> Self {
        Self::Internal(problem.to_string())
    }

    /// Says it on standard error.
    pub fn report(&self) -> ExitCode {
        match self {
            Self::Text(drawn) => eprintln!("{drawn}"),
            _ => eprintln!("error: {self}"),
        }
        ExitCode::from(match self {
            Self::Usage(_) => 2,
            Self::Input { .. } | Self::Text(_) => 3,
            Self::Cluster(_) => 4,
            Self::Internal(_) => 5,
        })
    }
}
