//! Commands run as a user of the cluster would type them.

use std::{
    ffi::OsString,
    fmt,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tokio::{io::AsyncWriteExt, process::Command};

use crate::{
    process::FOREIGN_VARIABLES,
    programs::{Program, repository_root},
};

/// Longer than anything that works takes.
const LIMIT: Duration = Duration::from_mins(10);

/// Which Helm the word `helm` stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HelmVersion {
    /// Helm 4: server-side apply.
    #[default]
    Four,
    /// Helm 3: patches by three-way merge.
    Three,
}

impl HelmVersion {
    pub(crate) fn program(self) -> Program {
        match self {
            Self::Four => Program::Helm4,
            Self::Three => Program::Helm3,
        }
    }
}

/// What a command printed and how it ended.
#[derive(Clone, Debug)]
pub struct CommandOutput {
    /// The command, for messages.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl CommandOutput {
    /// Whether the exit code was 0.
    pub fn success(&self) -> bool {
        self.status.success()
    }

    /// Standard output, or an error that shows everything when the command failed.
    pub fn checked(self) -> Result<String> {
        if self.success() { Ok(self.stdout) } else { bail!("{self}") }
    }
}

impl fmt::Display for CommandOutput {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "$ {}\n{}{}({})", self.command, self.stdout, self.stderr, self.status)
    }
}

/// A command with the cluster's environment.
pub(crate) struct Invocation {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(String, OsString)>,
    pub(crate) input: Option<String>,
}

/// Runs a command in the root of the repository.
pub(crate) async fn run(invocation: Invocation) -> Result<CommandOutput> {
    let Invocation { program, arguments, environment, input } = invocation;
    let name = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned();
    let command_line = format!("{name} {}", arguments.join(" "));
    let mut command = Command::new(&program);
    for variable in FOREIGN_VARIABLES {
        command.env_remove(variable);
    }
    for (variable, _) in std::env::vars_os() {
        // A caller's HELM_NAMESPACE or HELM_DRIVER would change what the commands do.
        if variable.to_str().is_some_and(|variable| variable.starts_with("HELM_")) {
            command.env_remove(variable);
        }
    }
    command
        .args(&arguments)
        .envs(environment)
        .current_dir(repository_root())
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().with_context(|| format!("cannot run {}", program.display()))?;
    if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
        tokio::spawn(async move {
            // A command that does not read all of it says so itself.
            let _ = stdin.write_all(text.as_bytes()).await;
        });
    }
    let output = tokio::time::timeout(LIMIT, child.wait_with_output())
        .await
        .with_context(|| format!("`{command_line}` did not end within {} s", LIMIT.as_secs()))??;
    Ok(CommandOutput {
        command: command_line,
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
