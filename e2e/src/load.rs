//! Pods that are created all the time through the API server, and what became of each.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use serde_json::json;
use sidecar_testkit::TemporaryNamespace;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::{Installation, container_names, labelled_pod, wait_for};

/// One after this time and another after this time again, whatever became of those before: 40 in a second.
const PACE: Duration = Duration::from_millis(25);
/// They are deleted this often, so that etcd stays small.
const SWEEP: Duration = Duration::from_secs(5);
/// Longer than the API server takes to give up.
const PATIENCE: Duration = Duration::from_secs(90);
/// So long after a loss another one is another trouble.
const CALM: Duration = Duration::from_millis(500);
/// What every pod of a load has, and nobody else.
const LABEL: &str = "load";

/// What became of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    /// It has its sidecar.
    Injected,
    /// It was created without.
    Missed,
    /// It was not created, for a reason that has to do with webhooks or with the pod.
    Refused(String),
    /// It was not created: there was no API server, or one that had trouble of its own.
    Unavailable(String),
}

impl Outcome {
    fn of(answer: Result<kube::Result<Pod>, tokio::time::error::Elapsed>) -> Self {
        let Ok(answer) = answer else { return Outcome::Unavailable("no answer".to_owned()) };
        match answer {
            Ok(pod) => {
                let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
                let is_injected = containers.into_iter().any(|container| container.name == "curl");
                if is_injected { Outcome::Injected } else { Outcome::Missed }
            }
            Err(kube::Error::Api(status)) => {
                // A 403 that comes from admission before it has read its configuration.
                let is_starting = status.message.contains("not yet ready to handle request");
                let is_own = matches!(status.code, 429 | 500..) && !status.message.contains("webhook");
                if is_own || is_starting {
                    Outcome::Unavailable(status.message)
                } else {
                    Outcome::Refused(status.message)
                }
            }
            Err(error) => Outcome::Unavailable(error.to_string()),
        }
    }
}

/// One pod's creation.
#[derive(Debug)]
struct Attempt {
    number: usize,
    started: Instant,
    ended: Instant,
    outcome: Outcome,
}

impl Attempt {
    /// Whether its namespace rather refuses pods than starts them without their sidecar.
    fn is_required(&self) -> bool {
        is_required(self.number)
    }

    fn is_loss(&self) -> bool {
        matches!(self.outcome, Outcome::Missed | Outcome::Refused(_))
    }
}

/// The namespaces take turns.
fn is_required(number: usize) -> bool {
    number % 2 == 1
}

fn pod_name(number: usize) -> String {
    format!("load-{number}")
}

/// The namespaces that pods are created in.
pub struct Places {
    /// Starts pods without their sidecar.
    pub open: TemporaryNamespace,
    /// Refuses them.
    pub required: TemporaryNamespace,
}

impl Places {
    async fn prepare(at: &Installation) -> Result<Self> {
        let open = at.cluster.temporary_namespace("open").await?;
        let required = at.cluster.temporary_namespace("required").await?;
        at.kubectl(&["label", "namespace", required.name(), "sidecar.me/required=true"]).await?;
        for namespace in [&open, &required] {
            wait_for("an injected pod", async || {
                let arguments = ["-n", namespace.name(), "--dry-run=server"];
                let output = at.try_create(&labelled_pod("probe"), &arguments).await?;
                let pod = serde_json::from_str(&output.stdout).unwrap_or_default();
                Ok(container_names(&pod) == "app curl")
            })
            .await?;
        }
        Ok(Self { open, required })
    }
}

/// Creates pods by turns in the two namespaces.
struct Creator {
    open: Api<Pod>,
    required: Api<Pod>,
}

impl Creator {
    fn new(client: &Client, places: &Places) -> Self {
        let pods = |namespace: &TemporaryNamespace| Api::namespaced(client.clone(), namespace.name());
        Self { open: pods(&places.open), required: pods(&places.required) }
    }

    async fn create(&self, number: usize) -> Attempt {
        let pods = if is_required(number) { &self.required } else { &self.open };
        let mut pod = labelled_pod(&pod_name(number));
        pod["metadata"]["labels"]["app"] = json!(LABEL);
        // It need not run: what is asked about is its creation.
        pod["spec"]["schedulingGates"] = json!([{"name": "sidecar.me/load"}]);
        let started = Instant::now();
        let outcome = match serde_json::from_value(pod) {
            Ok(pod) => {
                Outcome::of(tokio::time::timeout(PATIENCE, pods.create(&PostParams::default(), &pod)).await)
            }
            Err(error) => Outcome::Refused(error.to_string()),
        };
        Attempt { number, started, ended: Instant::now(), outcome }
    }

    /// Deletes pods again and again. Never ends.
    async fn sweep(&self) {
        let ours = ListParams::default().labels(&format!("app={LABEL}"));
        loop {
            tokio::time::sleep(SWEEP).await;
            for pods in [&self.open, &self.required] {
                // The API server may be down on purpose.
                let how = DeleteParams::default();
                let _ = tokio::time::timeout(SWEEP, pods.delete_collection(&how, &ours)).await;
            }
        }
    }
}

/// Pods that are being created.
pub struct Load {
    /// Where they are created.
    pub places: Places,
    stop: watch::Sender<bool>,
    created: watch::Receiver<usize>,
    attempts: JoinHandle<Vec<Attempt>>,
    sweeper: Option<JoinHandle<()>>,
}

impl Load {
    /// Creates pods until [`Load::finish`], at an even pace that nothing slows down.
    ///
    /// # Errors
    /// Pods are not injected to begin with.
    pub async fn start(at: &Installation) -> Result<Self> {
        Self::start_with(at, true).await
    }

    /// The same, and no pod is deleted before the places are dropped.
    ///
    /// # Errors
    /// Pods are not injected to begin with.
    pub async fn start_keeping(at: &Installation) -> Result<Self> {
        Self::start_with(at, false).await
    }

    async fn start_with(at: &Installation, sweeps: bool) -> Result<Self> {
        let places = Places::prepare(at).await?;
        let creator = Arc::new(Creator::new(&at.cluster.client()?, &places));
        let sweeping = Arc::clone(&creator);
        let sweeper = sweeps.then(|| tokio::spawn(async move { sweeping.sweep().await }));
        let (stop, mut stopped) = watch::channel(false);
        let (counting, created) = watch::channel(0);
        let attempts = tokio::spawn(async move {
            let mut started = JoinSet::new();
            // Ticks that came late are made up for.
            let mut ticks = tokio::time::interval(PACE);
            for number in 0.. {
                tokio::select! {
                    _ = ticks.tick() => {
                        let creator = Arc::clone(&creator);
                        started.spawn(async move { creator.create(number).await });
                        counting.send_replace(number + 1);
                    }
                    _ = stopped.changed() => break,
                }
            }
            started.join_all().await
        });
        // Some pods before whatever comes.
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok(Self { places, stop, created, attempts, sweeper })
    }

    /// Creates so many pods, all at the same time, as a service account: it has its share of the API server's time, as the
    /// controllers have that create pods. An administrator has all of it at once.
    ///
    /// # Errors
    /// Pods are not injected to begin with.
    pub async fn burst(at: &Installation, name: &'static str, count: usize) -> Result<Report> {
        let places = Places::prepare(at).await?;
        let account = format!("{}:creator", places.open.name());
        for namespace in [places.open.name(), places.required.name()] {
            let binding = ["create", "rolebinding", "creator", "--clusterrole=edit", "-n", namespace];
            at.kubectl(&[&binding[..], &["--serviceaccount", &account]].concat()).await?;
        }
        let client = at.cluster.client_as(&format!("system:serviceaccount:{account}"))?;
        let creator = Arc::new(Creator::new(&client, &places));
        for pods in [&creator.open, &creator.required] {
            wait_for("the right to create pods", async || {
                let dry_run = PostParams { dry_run: true, ..PostParams::default() };
                Ok(pods.create(&dry_run, &serde_json::from_value(labelled_pod("probe"))?).await.is_ok())
            })
            .await?;
        }
        let mut started = JoinSet::new();
        for number in 0..count {
            let creator = Arc::clone(&creator);
            started.spawn(async move { creator.create(number).await });
        }
        Ok(Report::new(name, started.join_all().await))
    }

    /// Waits until the creation of so many pods has begun.
    pub async fn until_created(&self, count: usize) {
        let mut created = self.created.clone();
        // It counts as long as it creates.
        drop(created.wait_for(|created| *created >= count).await);
    }

    /// Stops, and waits until the last creation has been answered.
    ///
    /// # Errors
    /// The load itself broke down.
    pub async fn finish(self, name: &'static str) -> Result<Report> {
        Ok(self.finish_keeping(name).await?.0)
    }

    /// The same; the places are left until they are dropped.
    ///
    /// # Errors
    /// The load itself broke down.
    pub async fn finish_keeping(self, name: &'static str) -> Result<(Report, Places)> {
        // And some after it.
        tokio::time::sleep(Duration::from_secs(1)).await;
        self.stop.send_replace(true);
        let attempts = self.attempts.await?;
        if let Some(sweeper) = self.sweeper {
            sweeper.abort();
        }
        Ok((Report::new(name, attempts), self.places))
    }
}

/// What became of all pods.
#[derive(Debug, Clone)]
pub struct Report {
    name: &'static str,
    /// Pods that were to be created.
    pub attempts: usize,
    /// Pods with their sidecar.
    pub injected: usize,
    /// Pods that were created without.
    pub missed: usize,
    /// Pods that were refused while there was an API server.
    pub refused: usize,
    /// Pods that were not created because the API server was not there.
    pub unavailable: usize,
    /// The longest time in which no pod got its sidecar, of both namespaces.
    pub gap: Duration,
    /// The longest time from the first loss to the last one of the same trouble.
    pub trouble: Duration,
    /// Pods that were created without, of the namespace that allows it.
    pub missed_names: BTreeSet<String>,
    /// Why pods were not created, and how many each time.
    pub messages: BTreeMap<String, usize>,
}

impl Report {
    fn new(name: &'static str, mut attempts: Vec<Attempt>) -> Self {
        attempts.sort_by_key(|attempt| attempt.started);
        let count = |wanted: fn(&Outcome) -> bool| attempts.iter().filter(|it| wanted(&it.outcome)).count();
        let gap = |is_required: bool| {
            let successes = attempts
                .iter()
                .filter(|it| it.is_required() == is_required && it.outcome == Outcome::Injected);
            let mut ends: Vec<_> = successes.map(|attempt| attempt.ended).collect();
            ends.sort();
            ends.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
        };
        let mut report = Report {
            name,
            attempts: attempts.len(),
            injected: count(|outcome| *outcome == Outcome::Injected),
            missed: count(|outcome| *outcome == Outcome::Missed),
            refused: count(|outcome| matches!(outcome, Outcome::Refused(_))),
            unavailable: count(|outcome| matches!(outcome, Outcome::Unavailable(_))),
            gap: gap(false).max(gap(true)),
            trouble: longest_trouble(attempts.iter().filter(|attempt| attempt.is_loss())),
            missed_names: attempts
                .iter()
                .filter(|attempt| attempt.outcome == Outcome::Missed)
                .map(|attempt| pod_name(attempt.number))
                .collect(),
            messages: BTreeMap::new(),
        };
        for attempt in attempts {
            if let Outcome::Refused(message) | Outcome::Unavailable(message) = attempt.outcome {
                *report.messages.entry(message).or_default() += 1;
            }
        }
        report
    }

    /// What was lost.
    #[must_use]
    pub fn lost(&self) -> usize {
        self.missed + self.refused
    }

    /// Fails if the injector cost a single pod, or a single pod its sidecar.
    ///
    /// # Errors
    /// With the numbers and the reasons.
    pub fn expect_nothing_lost(&self) -> Result<()> {
        if self.lost() > 0 || self.injected == 0 {
            bail!("pods were lost\n{}\n{self}\n{:#?}", Self::HEAD, self.messages);
        }
        Ok(())
    }

    /// The head of the table that reports are rows of.
    pub const HEAD: &str = "\
| Fault | Pods | With sidecar | Without | Refused | API server unavailable | Longest gap | Time to recover |
| --- | --- | --- | --- | --- | --- | --- | --- |";
}

/// Of losses in the order of their beginnings. What begins within [`CALM`] of another one's end is the same trouble.
fn longest_trouble<'a>(losses: impl Iterator<Item = &'a Attempt>) -> Duration {
    let mut longest = Duration::ZERO;
    let mut current: Option<(Instant, Instant)> = None;
    for loss in losses {
        let (start, end) = match current {
            Some((start, end)) if loss.started < end + CALM => (start, end.max(loss.ended)),
            _ => (loss.started, loss.ended),
        };
        current = Some((start, end));
        longest = longest.max(end - start);
    }
    longest
}

/// A row of a table in Markdown.
impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { name, attempts, injected, missed, refused, unavailable, .. } = self;
        let (gap, trouble) = (self.gap.as_secs_f64(), self.trouble.as_secs_f64());
        write!(
            formatter,
            "| {name} | {attempts} | {injected} | {missed} | {refused} | {unavailable} | {gap:.1} s | {trouble:.1} s |"
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn outcome(pod: &Value) -> Outcome {
        Outcome::of(Ok(Ok(serde_json::from_value(pod.clone()).unwrap())))
    }

    fn error(code: u16, message: &str) -> Outcome {
        let status = json!({"status": "Failure", "code": code, "message": message, "reason": ""});
        Outcome::of(Ok(Err(kube::Error::Api(serde_json::from_value(status).unwrap()))))
    }

    #[test]
    fn losses_are_told_from_an_api_server_that_is_not_there() {
        let mut pod = labelled_pod("a");
        assert_eq!(outcome(&pod), Outcome::Missed);
        pod["spec"]["containers"] = json!([{"name": "app"}, {"name": "curl"}]);
        assert_eq!(outcome(&pod), Outcome::Injected);
        let refusals = [
            (500, "failed calling webhook \"x\": EOF"),
            (403, "admission webhook \"x\" denied"),
            (422, "invalid"),
        ];
        for (code, message) in refusals {
            assert_eq!(error(code, message), Outcome::Refused(message.to_owned()));
        }
        let silences = [
            (503, "shutting down"),
            (429, "too many"),
            (403, "pods \"a\" is forbidden: not yet ready to handle request"),
        ];
        for (code, message) in silences {
            assert_eq!(error(code, message), Outcome::Unavailable(message.to_owned()));
        }
    }

    /// Creations in one of the two namespaces, each of which takes a second that begins at the one given.
    fn report(attempts: Vec<(bool, u64, Outcome)>) -> Report {
        let start = Instant::now();
        let attempts = attempts.into_iter().enumerate().map(|(index, (is_required, second, outcome))| {
            let started = start + Duration::from_secs(second);
            let number = index * 2 + usize::from(is_required);
            Attempt { number, started, ended: started + Duration::from_secs(1), outcome }
        });
        Report::new("a fault", attempts.collect())
    }

    #[test]
    fn the_longest_gap_is_that_of_one_namespace() {
        let report = report(vec![
            (false, 9, Outcome::Injected),
            (false, 1, Outcome::Injected),
            (false, 5, Outcome::Missed),
            (true, 3, Outcome::Injected),
            (true, 7, Outcome::Refused("x".to_owned())),
        ]);
        assert_eq!(report.to_string(), "| a fault | 5 | 3 | 1 | 1 | 0 | 8.0 s | 1.0 s |");
        assert_eq!(report.missed_names, ["load-4".to_owned()].into());
        assert!(report.expect_nothing_lost().is_err());
    }

    #[test]
    fn losses_with_calm_between_them_are_not_one_trouble() {
        let missed = |second| (false, second, Outcome::Missed);
        let report = report(vec![missed(20), missed(1), missed(2), missed(3), missed(9)]);
        assert_eq!(report.trouble, Duration::from_secs(3));
    }

    /// The page has no row of a trial that there is not, and every trial that there is.
    #[test]
    fn the_documentation_has_a_row_of_every_trial() {
        let root = sidecar_testkit::repository_root();
        let page = std::fs::read_to_string(root.join("docs/operations.md")).unwrap();
        let (_, table) = page.split_once(Report::HEAD).expect("the head of the table");
        let rows: Vec<_> = table.trim_start().lines().map_while(|line| line.strip_prefix("| ")).collect();
        let rows: Vec<_> = rows.iter().filter_map(|row| Some(row.split_once(" | ")?.0)).collect();
        let folder = std::fs::read_dir(root.join("e2e/tests/faults")).unwrap();
        let trials: String =
            folder.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()).collect();
        for row in &rows {
            assert!(trials.contains(&format!("\"{row}\"")), "{row}");
        }
        for recorded in trials.split("record(").skip(1) {
            let Some((_, recorded)) = recorded.split_once('"') else { continue };
            let name = recorded.split('"').next().unwrap_or_default();
            // What is no name is the message of a check that follows.
            let is_name =
                name.starts_with(|letter: char| letter.is_uppercase() || letter == '`' || letter == '1');
            assert!(!is_name || rows.contains(&name), "{name}");
        }
    }
}
