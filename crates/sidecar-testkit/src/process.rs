//! Child processes that never outlive this one.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, File},
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError, mpsc},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::state;

/// Variables of the caller that would make the test bed's programs talk to something else.
pub(crate) const FOREIGN_VARIABLES: [&str; 9] = [
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
    "KUBECONFIG",
];

/// What to start.
#[derive(Debug)]
pub(crate) struct Launch {
    /// What messages call it.
    pub(crate) name: String,
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    /// Added to the caller's environment, or all there is with `only_environment`.
    pub(crate) environment: BTreeMap<String, OsString>,
    pub(crate) only_environment: bool,
    pub(crate) working_folder: Option<PathBuf>,
    /// Standard output and standard error go here.
    pub(crate) log: PathBuf,
}

impl Launch {
    pub(crate) fn new(name: &str, program: &Path, log: PathBuf) -> Self {
        Self {
            name: name.to_owned(),
            program: program.to_path_buf(),
            arguments: Vec::new(),
            environment: BTreeMap::new(),
            only_environment: false,
            working_folder: None,
            log,
        }
    }

    pub(crate) fn argument(&mut self, argument: impl Into<OsString>) -> &mut Self {
        self.arguments.push(argument.into());
        self
    }
}

/// A running child. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    id: u32,
    log: PathBuf,
    state_folder: PathBuf,
    child: Mutex<Child>,
}

impl Process {
    /// Starts a child and notes it in the cluster's folder.
    pub(crate) fn start(state_folder: &Path, launch: &Launch) -> Result<Self> {
        if !launch.program.is_file() {
            bail!("{}: there is no file {}", launch.name, launch.program.display());
        }
        let (reply, answer) = mpsc::channel();
        spawner().send((command(launch)?, reply)).context("the thread that starts processes has ended")?;
        let child = answer
            .recv()
            .context("the thread that starts processes has ended")?
            .with_context(|| format!("cannot start {}", launch.name))?;
        let id = child.id();
        let process = Self {
            name: launch.name.clone(),
            id,
            log: launch.log.clone(),
            state_folder: state_folder.to_path_buf(),
            child: Mutex::new(child),
        };
        state::record_process(state_folder, id)?;
        Ok(process)
    }

    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// How it ended, or nothing while it runs.
    pub(crate) fn ended(&self) -> Option<ExitStatus> {
        self.child().try_wait().ok().flatten()
    }

    /// Waits for the end. Looks every 20 ms: the runtime that waits need not be the one that started it.
    pub(crate) async fn wait(&self) -> ExitStatus {
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Signals the process, not its children. Nothing happens when it has ended.
    pub(crate) fn signal(&self, signal: Signal) {
        // Under the lock nobody collects the child, so the number cannot be somebody else's.
        let mut child = self.child();
        if matches!(child.try_wait(), Ok(None))
            && let Some(pid) = self.pid()
        {
            let _ = kill_process(pid, signal);
        }
    }

    /// Kills the process and its children at once, and collects it.
    pub(crate) fn kill(&self) {
        let mut child = self.child();
        if matches!(child.try_wait(), Ok(None)) {
            if let Some(pid) = self.pid() {
                let _ = kill_process_group(pid, Signal::KILL);
            }
            let _ = child.wait();
        }
        state::forget_process(&self.state_folder, self.id);
    }

    /// SIGTERM, and SIGKILL for what is left after the grace period.
    pub(crate) async fn terminate(&self, grace: Duration) {
        self.signal(Signal::TERM);
        let _ = tokio::time::timeout(grace, self.wait()).await;
        self.kill();
    }

    /// An error about an early end, with the last lines of the log.
    pub(crate) fn early_end(&self, status: ExitStatus) -> anyhow::Error {
        anyhow::anyhow!("{} ended early ({status}). The end of its log:\n{}", self.name, self.log_tail())
    }

    pub(crate) fn log_tail(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pid(&self) -> Option<Pid> {
        i32::try_from(self.id).ok().and_then(Pid::from_raw)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn command(launch: &Launch) -> Result<Command> {
    let mut command = match setpriv() {
        // The kernel kills the child when we end, SIGKILL included.
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "KILL", "--"]).arg(&launch.program);
            command
        }
        None => Command::new(&launch.program),
    };
    if launch.only_environment {
        command.env_clear();
    }
    for name in FOREIGN_VARIABLES {
        command.env_remove(name);
    }
    let log = File::create(&launch.log).with_context(|| format!("cannot create {}", launch.log.display()))?;
    command
        .args(&launch.arguments)
        .envs(&launch.environment)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // Ctrl-C on the terminal is for us: the children are stopped in order.
        .process_group(0);
    if let Some(folder) = &launch.working_folder {
        command.current_dir(folder);
    }
    Ok(command)
}

/// `setpriv` of util-linux. Without it a crashed run's children stay until the next run takes them down.
fn setpriv() -> Option<&'static Path> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    FOUND
        .get_or_init(|| {
            let path = std::env::var_os("PATH")?;
            std::env::split_paths(&path).map(|folder| folder.join("setpriv")).find(|candidate| {
                Command::new(candidate)
                    .args(["--pdeathsig", "KILL", "--", "true"])
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .status()
                    .is_ok_and(|status| status.success())
            })
        })
        .as_deref()
}

type Request = (Command, mpsc::Sender<io::Result<Child>>);

/// The death signal fires when the *thread* that started the child ends, so one thread starts them all and never ends.
fn spawner() -> mpsc::Sender<Request> {
    static SPAWNER: OnceLock<mpsc::Sender<Request>> = OnceLock::new();
    SPAWNER
        .get_or_init(|| {
            let (sender, receiver) = mpsc::channel::<Request>();
            thread::spawn(move || {
                for (mut command, reply) in receiver {
                    // Who asked may have given up.
                    let _ = reply.send(command.spawn());
                }
            });
            sender
        })
        .clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dropped_process_is_gone_and_its_log_is_read() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("pids")).unwrap();
        let mut launch = Launch::new("shell", Path::new("/bin/sh"), folder.path().join("log"));
        launch.argument("-c").argument("echo hello; exec sleep 60");
        let process = Process::start(folder.path(), &launch).unwrap();
        let id = process.id();
        while process.log_tail() != "hello" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(process.ended().is_none());
        drop(process);
        assert!(!Path::new(&format!("/proc/{id}")).exists());
        assert_eq!(fs::read_dir(folder.path().join("pids")).unwrap().count(), 0);
    }
}
