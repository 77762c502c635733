//! One container: a pretence, or a process that is probed and started again.

use std::{
    net::Ipv4Addr,
    path::PathBuf,
    process::ExitStatus,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use anyhow::Result;
use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use kube::ResourceExt;
use rustix::process::Signal;
use tokio::sync::{Notify, watch};

use super::{
    RunningContainer, Shared,
    environment::{self, Mounts},
    probe::{self, Schedule},
    timestamp,
};
use crate::process::{Launch, Process};

/// The kubelet looks for containers that have ended once a second. Until then a pod counts as ready.
const NOTICE: Duration = Duration::from_secs(1);
/// The kubelet starts a container again at once, then waits from 10 s to 5 min between restarts; tests have less patience.
const FIRST_BACK_OFF: Duration = Duration::from_millis(500);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(10);
/// A container that ran this long starts with a fresh back-off.
const STEADY: Duration = Duration::from_mins(1);
/// The kubelet, too, looks more often than the period until a container is ready.
const EAGER_PERIOD: Duration = Duration::from_millis(100);

/// What a container is doing.
#[derive(Clone, Debug)]
pub(super) enum Activity {
    Waiting { reason: String, message: String },
    Running { since: String },
    Terminated(Termination),
}

/// How a container ended.
#[derive(Clone, Debug)]
pub(super) struct Termination {
    pub(super) exit_code: i32,
    pub(super) reason: &'static str,
    pub(super) started: String,
    pub(super) finished: String,
}

/// What the pod's status says of a container.
#[derive(Clone, Debug)]
pub(super) struct ContainerState {
    pub(super) activity: Activity,
    pub(super) last: Option<Termination>,
    pub(super) restarts: u32,
    pub(super) started: bool,
    pub(super) ready: bool,
}

impl ContainerState {
    pub(super) fn waiting(reason: &str, message: impl Into<String>) -> Self {
        let activity = Activity::Waiting { reason: reason.to_owned(), message: message.into() };
        Self { activity, last: None, restarts: 0, started: false, ready: false }
    }

    fn runs() -> Self {
        let activity = Activity::Running { since: timestamp() };
        Self { activity, last: None, restarts: 0, started: true, ready: true }
    }

    fn ran() -> Self {
        let now = timestamp();
        let termination =
            Termination { exit_code: 0, reason: "Completed", started: now.clone(), finished: now };
        Self {
            activity: Activity::Terminated(termination),
            last: None,
            restarts: 0,
            started: false,
            ready: true,
        }
    }

    pub(super) fn exit_code(&self) -> Option<i32> {
        match &self.activity {
            Activity::Terminated(termination) => Some(termination.exit_code),
            _ => None,
        }
    }
}

/// When a container is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

impl RestartPolicy {
    pub(super) fn parse(text: Option<&str>) -> Self {
        match text {
            Some("Never") => Self::Never,
            Some("OnFailure") => Self::OnFailure,
            _ => Self::Always,
        }
    }

    fn restarts_after(self, success: bool) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => !success,
            Self::Never => false,
        }
    }
}

/// A container of a pod on this node.
#[derive(Debug)]
pub(super) struct ContainerHandle {
    state: Arc<Mutex<ContainerState>>,
    stop: watch::Sender<Option<Duration>>,
    task: Option<tokio::task::JoinHandle<()>>,
}

/// What a container's task needs.
pub(super) struct Surroundings {
    pub(super) shared: Arc<Shared>,
    pub(super) pod: Arc<Pod>,
    pub(super) address: Ipv4Addr,
    pub(super) mounts: Mounts,
    pub(super) folder: PathBuf,
    /// Told about every change of state.
    pub(super) changed: Arc<Notify>,
}

impl ContainerHandle {
    /// A container that has nothing behind it and runs for ever.
    pub(super) fn pretended() -> Self {
        Self::without_task(ContainerState::runs())
    }

    /// An init container that has nothing behind it and is done.
    pub(super) fn completed() -> Self {
        Self::without_task(ContainerState::ran())
    }

    fn without_task(state: ContainerState) -> Self {
        Self { state: Arc::new(Mutex::new(state)), stop: watch::Sender::new(None), task: None }
    }

    /// Runs a container's process in the background.
    pub(super) fn process(spec: &Container, policy: RestartPolicy, surroundings: Surroundings) -> Self {
        let mut handle = Self::without_task(ContainerState::waiting("ContainerCreating", ""));
        let runner = Runner {
            spec: spec.clone(),
            policy,
            state: Arc::clone(&handle.state),
            stop: handle.stop.subscribe(),
            surroundings,
        };
        handle.task = Some(tokio::spawn(runner.run()));
        handle
    }

    pub(super) fn state(&self) -> ContainerState {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks the process to end, and kills it after the grace period.
    pub(super) fn stop(&self, grace: Duration) {
        self.stop.send_replace(Some(grace));
    }

    pub(super) async fn ended(&mut self) {
        if let Some(task) = self.task.take() {
            // It only ends by itself; a panic would have been reported already.
            let _ = task.await;
        }
    }
}

impl Drop for ContainerHandle {
    fn drop(&mut self) {
        // Dropping the task drops the process, which kills it.
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

struct Runner {
    spec: Container,
    policy: RestartPolicy,
    state: Arc<Mutex<ContainerState>>,
    stop: watch::Receiver<Option<Duration>>,
    surroundings: Surroundings,
}

/// Takes a container out of the list of running ones, before its process is collected.
struct Registration {
    shared: Arc<Shared>,
    key: (String, String, String),
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.shared.running().remove(&self.key);
    }
}

impl Runner {
    async fn run(mut self) {
        let mut back_off = Duration::ZERO;
        loop {
            let begun = Instant::now();
            let restart = match self.start().await {
                Err(error) => {
                    self.update(|state| {
                        state.activity = Activity::Waiting {
                            reason: "CreateContainerConfigError".to_owned(),
                            message: format!("{error:#}"),
                        };
                    });
                    true
                }
                Ok((process, registration)) => {
                    let Some(success) = self.watch_over(process, registration).await else { return };
                    self.policy.restarts_after(success)
                }
            };
            if !restart {
                return;
            }
            if begun.elapsed() > STEADY {
                back_off = Duration::ZERO;
            }
            let stopped = tokio::select! {
                () = tokio::time::sleep(back_off) => false,
                _ = self.stop.changed() => true,
            };
            if stopped {
                return;
            }
            back_off = (back_off * 2).clamp(FIRST_BACK_OFF, LONGEST_BACK_OFF);
        }
    }

    async fn start(&self) -> Result<(Process, Registration)> {
        let surroundings = &self.surroundings;
        let (pod, shared) = (&surroundings.pod, &surroundings.shared);
        let kubeconfig = surroundings.folder.join(format!("{}.kubeconfig", self.spec.name));
        let invocation = environment::invocation(
            shared,
            pod,
            surroundings.address,
            &self.spec,
            &surroundings.mounts,
            &kubeconfig,
        )
        .await?;
        let restarts = self.lock().restarts;
        let log = surroundings.folder.join(format!("{}-{restarts}.log", self.spec.name));
        let name = format!("{}/{}", pod.name_any(), self.spec.name);
        let mut launch = Launch::new(&name, &invocation.program, log.clone());
        launch.arguments = invocation.arguments;
        if shared.disk_full.load(Ordering::Relaxed) {
            let program = std::mem::replace(&mut launch.program, "/bin/sh".into());
            let line = "ulimit -f 0; exec \"$0\" \"$@\" > /dev/full 2>&1";
            launch.arguments.splice(0..0, ["-c".into(), line.into(), program.into_os_string()]);
        }
        launch.environment = invocation.environment;
        launch.only_environment = true;
        launch.working_folder = Some(surroundings.folder.clone());
        let process = Process::start(&shared.state_folder, &launch)?;
        let namespace = pod.namespace().unwrap_or_default();
        let key = (namespace.clone(), pod.name_any(), self.spec.name.clone());
        let running = RunningContainer {
            namespace,
            pod: pod.name_any(),
            container: self.spec.name.clone(),
            pid: process.id(),
            log,
            address: shared.block.host_address(surroundings.address).unwrap_or(Ipv4Addr::LOCALHOST),
            restarts,
            ready: false,
        };
        shared.running().insert(key.clone(), running);
        Ok((process, Registration { shared: Arc::clone(shared), key }))
    }

    /// From the start of a process to its end. True for exit code 0, nothing when the container was to stop.
    async fn watch_over(&mut self, process: Process, registration: Registration) -> Option<bool> {
        let since = timestamp();
        let no_startup_probe = self.spec.startup_probe.is_none();
        self.update(|state| {
            state.activity = Activity::Running { since: since.clone() };
            state.started = no_startup_probe;
            state.ready = no_startup_probe && self.spec.readiness_probe.is_none();
        });
        let mut stop = self.stop.clone();
        let (status, stopped) = tokio::select! {
            status = process.wait() => (status, false),
            () = self.probe() => {
                process.terminate(self.grace_period()).await;
                (process.wait().await, false)
            }
            grace = until_stopped(&mut stop) => {
                self.before_stop(&process, grace).await;
                process.terminate(grace).await;
                (process.wait().await, true)
            }
        };
        drop(registration);
        process.kill();
        let termination = Termination {
            exit_code: exit_code(status),
            reason: if status.success() { "Completed" } else { "Error" },
            started: since,
            finished: timestamp(),
        };
        if !stopped {
            tokio::time::sleep(NOTICE).await;
        }
        let restart = !stopped && self.policy.restarts_after(status.success());
        self.update(|state| {
            state.started = false;
            state.ready = !restart && !stopped && status.success();
            if restart {
                state.restarts += 1;
                state.last = Some(termination);
                state.activity = Activity::Waiting {
                    reason: "CrashLoopBackOff".to_owned(),
                    message: "waiting before the next start".to_owned(),
                };
            } else {
                state.activity = Activity::Terminated(termination);
            }
        });
        (!stopped).then_some(status.success())
    }

    /// Probes for as long as the process is alive. Ends when it should be killed.
    async fn probe(&self) {
        if let Some(probe) = &self.spec.startup_probe
            && !self.succeeds_in_time(probe).await
        {
            return;
        }
        let no_readiness_probe = self.spec.readiness_probe.is_none();
        self.update(|state| {
            state.started = true;
            state.ready = no_readiness_probe;
        });
        self.set_listed_readiness(no_readiness_probe);
        let liveness = async {
            match &self.spec.liveness_probe {
                Some(probe) => self.until_not_alive(probe).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.readiness() => {}
            () = liveness => {}
        }
    }

    async fn attempt(&self, probe: &Probe) -> bool {
        let surroundings = &self.surroundings;
        let Some(host) = surroundings.shared.block.host_address(surroundings.address) else { return false };
        probe::attempt(probe, &self.spec, host).await.is_ok()
    }

    /// The startup probe: a first success, or as many failures as are allowed, counted in periods.
    async fn succeeds_in_time(&self, probe: &Probe) -> bool {
        let schedule = Schedule::of(probe);
        let limit = schedule.initial_delay + schedule.period * schedule.failures;
        tokio::time::timeout(limit, async {
            tokio::time::sleep(schedule.initial_delay).await;
            while !self.attempt(probe).await {
                tokio::time::sleep(EAGER_PERIOD.min(schedule.period)).await;
            }
        })
        .await
        .is_ok()
    }

    /// Never ends.
    async fn readiness(&self) {
        let Some(probe) = &self.spec.readiness_probe else { return std::future::pending().await };
        let schedule = Schedule::of(probe);
        tokio::time::sleep(schedule.initial_delay).await;
        let (mut ready, mut streak) = (false, 0);
        loop {
            let success = self.attempt(probe).await;
            streak = if success == ready { 0 } else { streak + 1 };
            let needed = if ready { schedule.failures } else { schedule.successes };
            if streak >= needed {
                (ready, streak) = (success, 0);
                self.update(|state| state.ready = ready);
                self.set_listed_readiness(ready);
            }
            tokio::time::sleep(if ready { schedule.period } else { EAGER_PERIOD.min(schedule.period) }).await;
        }
    }

    async fn until_not_alive(&self, probe: &Probe) {
        let schedule = Schedule::of(probe);
        tokio::time::sleep(schedule.initial_delay).await;
        let mut failures = 0;
        while failures < schedule.failures {
            failures = if self.attempt(probe).await { 0 } else { failures + 1 };
            tokio::time::sleep(schedule.period).await;
        }
    }

    /// The hook that delays SIGTERM. Others than `sleep` cannot work in an image without a shell.
    async fn before_stop(&self, process: &Process, grace: Duration) {
        let hook = self.spec.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref());
        if let Some(sleep) = hook.and_then(|hook| hook.sleep.as_ref()) {
            let pause = Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0)).min(grace);
            let _ = tokio::time::timeout(pause, process.wait()).await;
        }
        // A suspended process would not see the signal.
        process.signal(Signal::CONT);
    }

    fn grace_period(&self) -> Duration {
        let spec = self.surroundings.pod.spec.as_ref();
        let seconds = spec.and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(30);
        Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
    }

    fn lock(&self) -> MutexGuard<'_, ContainerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, change: impl FnOnce(&mut ContainerState)) {
        change(&mut self.lock());
        self.surroundings.changed.notify_one();
    }

    fn set_listed_readiness(&self, ready: bool) {
        let pod = &self.surroundings.pod;
        let key = (pod.namespace().unwrap_or_default(), pod.name_any(), self.spec.name.clone());
        if let Some(running) = self.surroundings.shared.running().get_mut(&key) {
            running.ready = ready;
        }
    }
}

async fn until_stopped(stop: &mut watch::Receiver<Option<Duration>>) -> Duration {
    stop.wait_for(Option::is_some).await.ok().and_then(|grace| *grace).unwrap_or_default()
}

/// The code that Kubernetes shows: 128 and the signal for a process that was killed.
fn exit_code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}
