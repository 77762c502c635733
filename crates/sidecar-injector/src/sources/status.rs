//! What the cluster's definitions say of themselves: conditions, and into how many pods they were injected.
//!
//! Every replica writes, and they do not fight. The conditions are the same whoever finds them, so who finds them written
//! already writes nothing; the number of pods is a sum, which a replica adds to only as nobody else has written meanwhile.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use kube::api::{DynamicObject, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Map, Value, json};
use sidecar_engine::Reviewed;
use sidecar_engine::definition::{DefinitionName, Kind, Problem};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tracing::warn;

use super::resources::resource;
use super::store::Store;
use crate::cluster;

/// Whose the fields are that are written here.
const FIELD_MANAGER: &str = "sidecar-injector-status";

/// How often a replica writes the number of pods of one definition, and puts right what others wrote.
const INTERVAL: Duration = Duration::from_secs(30);

/// How often it looks whether one of them is due.
const LOOK: Duration = Duration::from_secs(5);

/// The cluster's objects and the files that are in their way do not come in the same instant.
const SETTLE: Duration = Duration::from_millis(200);

/// An API server that takes longer to write one has better things to do, and the others are waiting.
const WRITE_TIME: Duration = Duration::from_secs(10);

/// So often somebody else may write in between; then it is left for the next time.
const ATTEMPTS: u32 = 4;

/// A definition can have many problems; the first ones will do.
const MESSAGE_LENGTH: usize = 4096;

/// The types of the conditions that are ours; all others stay as they are.
const READY: &str = "Ready";
const CONFLICTED: &str = "Conflicted";
/// By convention only there while something is wrong: tools that wait for Ready then stop waiting.
const STALLED: &str = "Stalled";

/// The definitions of the cluster, and what is to be written into them.
#[derive(Debug, Default)]
pub(crate) struct Statuses {
    seen: Mutex<HashMap<DefinitionName, Arc<Seen>>>,
    /// By shown name: pods that are not in a status yet.
    injected: Mutex<HashMap<String, u64>>,
    news: Notify,
}

/// What the watch says about a definition.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) generation: i64,
    /// As it is in the cluster.
    pub(super) status: Value,
    pub(super) problems: Option<Arc<[Problem]>>,
}

/// What a status is to say, but for times and numbers.
#[derive(Debug, Clone, PartialEq)]
struct Wanted {
    generation: i64,
    is_ready: bool,
    conditions: Vec<Condition>,
}

#[derive(Debug, Clone, PartialEq)]
struct Condition {
    kind: &'static str,
    holds: bool,
    reason: &'static str,
    message: String,
}

/// What this replica has done about a definition.
#[derive(Debug, Default)]
struct Record {
    wanted: Option<Wanted>,
    written: Option<Instant>,
    /// Whether a file had its name when it was looked at last.
    was_taken: bool,
}

impl Statuses {
    /// Counts the pod of a review. A dry run makes none.
    pub(crate) fn count(&self, reviewed: &Reviewed<'_>) {
        use sidecar_engine::Reason::Injected;
        if reviewed.dry_run || reviewed.denied {
            return;
        }
        for decision in reviewed.decisions.iter().filter(|decision| decision.reason == Injected) {
            let mut injected = lock(&self.injected);
            match injected.get_mut(&*decision.definition) {
                Some(pods) => *pods += 1,
                None => drop(injected.insert(decision.definition.to_string(), 1)),
            }
        }
    }

    /// Takes over all objects of a kind.
    pub(super) fn publish(&self, kind: Kind, objects: impl Iterator<Item = (DefinitionName, Arc<Seen>)>) {
        let mut seen = lock(&self.seen);
        let mut before: HashMap<_, _> = seen.extract_if(|name, _| name.kind == kind).collect();
        for (name, object) in objects {
            // What was injected before is not this generation's.
            if before.remove(&name).is_some_and(|before| before.generation != object.generation) {
                lock(&self.injected).remove(&name.shown());
            }
            seen.insert(name, object);
        }
        drop(seen);
        for name in before.into_keys() {
            lock(&self.injected).remove(&name.shown());
        }
        self.news.notify_one();
    }

    /// The pods that are to be counted in a status. Reviews count by name: what is counted while a file has that name, or before it
    /// was noticed that the file is gone, is not the object's, and forgotten.
    fn pods(&self, name: &DefinitionName, is_served: bool, was_taken: bool) -> Option<u64> {
        let mut injected = lock(&self.injected);
        if is_served && !was_taken {
            return injected.get(&name.shown()).copied();
        }
        injected.remove(&name.shown());
        None
    }

    /// Keeps what the cluster's definitions say up to date, as long as it is polled.
    pub(super) async fn follow(&self, client: Client, store: Arc<Store>) {
        let mut records: HashMap<DefinitionName, Record> = HashMap::new();
        let mut said = None;
        loop {
            if timeout(LOOK, self.news.notified()).await.is_ok() {
                sleep(SETTLE).await;
            }
            let seen = lock(&self.seen).clone();
            records.retain(|name, _| seen.contains_key(name));
            for (name, seen) in &seen {
                let taken_by = store.taken_by_a_file(name);
                let wanted = Wanted::new(seen, taken_by.as_deref());
                let record = records.entry(name.clone()).or_default();
                let was_taken = std::mem::replace(&mut record.was_taken, taken_by.is_some());
                let pods = self.pods(name, wanted.is_ready, was_taken);
                if !record.is_due(&wanted, seen, pods) {
                    continue;
                }
                match write_in_time(&client, name, &wanted, pods.unwrap_or_default()).await {
                    Ok(false) => {}
                    Ok(true) => {
                        if let (Some(pods), Some(left)) = (pods, lock(&self.injected).get_mut(&name.shown()))
                        {
                            *left = left.saturating_sub(pods);
                        }
                    }
                    Err(problem) => {
                        if said.as_ref() != Some(&problem) {
                            warn!(event = "status_not_written", definition = name.shown(), problem);
                            said = Some(problem);
                        }
                    }
                }
                record.wanted = Some(wanted);
                record.written = Some(Instant::now());
            }
        }
    }
}

impl Record {
    /// What we have found out is written at once; what others have made of it, and the number of pods, in its time.
    fn is_due(&mut self, wanted: &Wanted, seen: &Seen, pods: Option<u64>) -> bool {
        let differs = !wanted.is_said_by(&seen.status);
        if self.wanted.as_ref() != Some(wanted) {
            if differs {
                return true;
            }
            self.wanted = Some(wanted.clone());
        }
        let is_time = self.written.is_none_or(|written| written.elapsed() >= INTERVAL);
        is_time && (differs || pods.is_some_and(|pods| pods > 0))
    }
}

/// The same as [`write`], unless it takes too long.
async fn write_in_time(
    client: &Client,
    name: &DefinitionName,
    wanted: &Wanted,
    pods: u64,
) -> Result<bool, String> {
    match timeout(WRITE_TIME, write(client, name, wanted, pods)).await {
        Ok(result) => result.map_err(|error| cluster::problem(&error)),
        Err(_) => Err(format!("no answer in {} s", WRITE_TIME.as_secs())),
    }
}

/// Reads a definition, and writes its status unless somebody has written it meanwhile: then both again. Whether the pods
/// are counted in it.
async fn write(client: &Client, name: &DefinitionName, wanted: &Wanted, pods: u64) -> kube::Result<bool> {
    let resource = resource(name.kind);
    let api: Api<DynamicObject> = match &name.namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    for _ in 0..ATTEMPTS {
        let Some(object) = api.get_opt(&name.name).await? else { return Ok(false) };
        // The watch will bring what there is now.
        if object.metadata.generation != Some(wanted.generation) {
            return Ok(false);
        }
        let before = object.data.get("status").unwrap_or(&Value::Null);
        let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let after = wanted.status(before, pods, &now);
        if *before == after {
            return Ok(true);
        }
        let version = object.metadata.resource_version;
        let patch = json!({"metadata": {"resourceVersion": version}, "status": after});
        match api.patch_status(&name.name, &parameters, &Patch::Merge(&patch)).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            result => return result.map(|_| true),
        }
    }
    Ok(false)
}

impl Wanted {
    fn new(seen: &Seen, taken_by: Option<&str>) -> Self {
        let condition = |kind, holds, reason, message| Condition { kind, holds, reason, message };
        let wrong = if let Some(problems) = &seen.problems {
            let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
            let code = problems.first().map_or("Invalid", |problem| problem.code.code());
            Some((code, lines.join("\n").chars().take(MESSAGE_LENGTH).collect()))
        } else {
            taken_by.map(|place| {
                ("NameTaken", format!("{place} has this name too, and files come first at every start"))
            })
        };
        let mut conditions = vec![match &wrong {
            None => condition(READY, true, "Served", "pods that it selects get it".to_owned()),
            Some((reason, message)) => condition(READY, false, reason, String::clone(message)),
        }];
        conditions.push(match taken_by {
            None => condition(CONFLICTED, false, "NameFree", "no file has this name".to_owned()),
            Some(place) => condition(CONFLICTED, true, "NameTaken", format!("{place} has this name too")),
        });
        let is_ready = wrong.is_none();
        if let Some((reason, message)) = wrong {
            conditions.push(condition(STALLED, true, reason, message));
        }
        Wanted { generation: seen.generation, is_ready, conditions }
    }

    /// Whether there is nothing to add but pods.
    fn is_said_by(&self, status: &Value) -> bool {
        *status == self.status(status, 0, "")
    }

    /// A status that says this and was that before.
    fn status(&self, before: &Value, pods: u64, now: &str) -> Value {
        let mut status = before.as_object().cloned().unwrap_or_default();
        let is_same_generation =
            status.get("observedGeneration").and_then(Value::as_i64) == Some(self.generation);
        let counted = status.get("injectedPods").and_then(Value::as_u64).filter(|_| is_same_generation);
        status.insert("injectedPods".to_owned(), (counted.unwrap_or_default() + pods).into());
        if !is_same_generation || !status.contains_key("since") {
            status.insert("since".to_owned(), now.into());
        }
        status.insert("observedGeneration".to_owned(), self.generation.into());
        let before = status.remove("conditions");
        let before = before.as_ref().and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let is_ours = |condition: &&Value| {
            [READY, CONFLICTED, STALLED].iter().any(|kind| condition.get("type") == Some(&json!(kind)))
        };
        let mut conditions: Vec<Value> =
            self.conditions.iter().map(|condition| condition.written(before, self.generation, now)).collect();
        conditions.extend(before.iter().filter(|condition| !is_ours(condition)).cloned());
        status.insert("conditions".to_owned(), conditions.into());
        status.into()
    }
}

impl Condition {
    /// As it is written among those that were there; the time is when its status last changed.
    fn written(&self, before: &[Value], generation: i64, now: &str) -> Value {
        let status = if self.holds { "True" } else { "False" };
        let old = before.iter().find(|condition| condition.get("type") == Some(&json!(self.kind)));
        let since = old
            .filter(|old| old.get("status") == Some(&json!(status)))
            .and_then(|old| old.get("lastTransitionTime"))
            .cloned();
        let fields = [
            ("type", json!(self.kind)),
            ("status", json!(status)),
            ("reason", json!(self.reason)),
            ("message", json!(self.message)),
            ("observedGeneration", json!(generation)),
            ("lastTransitionTime", since.unwrap_or_else(|| json!(now))),
        ];
        Value::Object(fields.map(|(key, value)| (key.to_owned(), value)).into_iter().collect::<Map<_, _>>())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sidecar_engine::definition::{FieldPath, ProblemCode};

    fn seen(generation: i64, problem: Option<&str>) -> Seen {
        let problem =
            problem.map(|text| Problem::new(ProblemCode::WrongType, FieldPath::of("spec.order"), text));
        Seen { generation, status: Value::Null, problems: problem.map(|problem| [problem].into()) }
    }

    #[test]
    fn a_second_replica_finds_nothing_to_write() {
        let wanted = Wanted::new(&seen(1, None), None);
        let status = wanted.status(&Value::Null, 3, "then");
        assert_eq!(status["injectedPods"], 3);
        assert_eq!(wanted.status(&status, 0, "now"), status);
        assert!(wanted.is_said_by(&status) && !wanted.is_said_by(&Value::Null));
        assert_eq!(wanted.status(&status, 2, "now")["injectedPods"], 5);
    }

    #[test]
    fn a_new_generation_counts_from_zero_and_conditions_keep_their_time() {
        let first = Wanted::new(&seen(1, None), None).status(&Value::Null, 3, "then");
        let second = Wanted::new(&seen(2, None), None).status(&first, 0, "now");
        assert_eq!((&second["injectedPods"], &second["since"]), (&json!(0), &json!("now")));
        assert_eq!(second["conditions"][0]["lastTransitionTime"], "then");
        assert_eq!(second["conditions"][0]["observedGeneration"], 2);
        let broken = Wanted::new(&seen(3, Some("must be an integer")), None).status(&second, 0, "later");
        let ready = &broken["conditions"][0];
        assert_eq!((&ready["status"], &ready["reason"]), (&json!("False"), &json!("WrongType")));
        assert_eq!(ready["lastTransitionTime"], "later");
        assert_eq!(broken["conditions"][2]["type"], "Stalled");
        let mended = Wanted::new(&seen(4, None), None).status(&broken, 0, "last");
        assert_eq!(mended["conditions"].as_array().unwrap().len(), 2, "{mended}");
    }

    #[test]
    fn the_conditions_of_others_stay() {
        let theirs = json!({"type": "Approved", "status": "True"});
        let status = json!({"conditions": [theirs]});
        let status = Wanted::new(&seen(1, None), Some("a.yaml:1")).status(&status, 0, "now");
        let conditions = status["conditions"].as_array().unwrap();
        assert!(conditions.contains(&theirs), "{status}");
        let kinds: Vec<_> =
            conditions.iter().map(|condition| (&condition["type"], &condition["status"])).collect();
        assert!(kinds.contains(&(&json!("Conflicted"), &json!("True"))), "{status}");
        assert!(kinds.contains(&(&json!("Ready"), &json!("False"))), "{status}");
    }

    #[test]
    fn what_is_new_is_written_at_once_and_what_others_wrote_in_its_time() {
        let old = seen(1, None);
        let wanted = Wanted::new(&old, None);
        let mut record = Record::default();
        assert!(record.is_due(&wanted, &old, None));
        record = Record { wanted: Some(wanted.clone()), written: Some(Instant::now()), was_taken: false };
        assert!(!record.is_due(&wanted, &old, Some(1)));
        let new = seen(2, None);
        assert!(record.is_due(&Wanted::new(&new, None), &new, None));
    }

    fn name() -> DefinitionName {
        DefinitionName { kind: Kind::ClusterSidecarDefinition, namespace: None, name: "log".to_owned() }
    }

    /// Regression: pods that had got a file's definition were counted for the object of its name when the file was gone.
    #[test]
    fn pods_of_a_file_are_not_counted_for_the_object_of_its_name() {
        let statuses = Statuses::default();
        let counted = |is_served, was_taken| {
            *lock(&statuses.injected).entry("log".to_owned()).or_default() += 1;
            statuses.pods(&name(), is_served, was_taken)
        };
        assert_eq!(counted(true, false), Some(1));
        assert_eq!(counted(true, false), Some(2));
        assert_eq!(counted(false, true), None);
        assert_eq!(counted(true, true), None, "the file is gone, but was not when this was counted");
        assert_eq!(counted(true, false), Some(1));
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_does_not_answer_is_waited_for_no_longer_than_need_be() {
        let never = axum::Router::new().fallback(std::future::pending::<()>);
        let client = Client::new(never, "default");
        let wanted = Wanted::new(&seen(1, None), None);
        let written = timeout(WRITE_TIME * 2, write_in_time(&client, &name(), &wanted, 0)).await;
        assert_eq!(written.unwrap(), Err("no answer in 10 s".to_owned()));
    }
}
