//! Pods are made anew through their owners, slowly, one namespace after the other; nothing is deleted here.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::time::{Duration, SystemTime};

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, EvictParams, Patch, PatchParams};
use serde_json::json;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use super::Watchdog;
use super::pods::{PodKey, Pods, Without};
use super::watch::PATIENCE;

/// As `kubectl rollout restart` has one, in the pod template.
pub(super) const RESTARTED_AT: &str = "sidecar.me/restarted-at";

const FIELD_MANAGER: &str = "sidecar-injector-repair";

const NO_ANSWER: &str = "the API server does not answer";

/// An owner is not restarted again before this, whatever became of its pods.
const ONCE: Duration = Duration::from_hours(1);

/// A pod that may not be evicted now is asked about again after this.
const ASK_AGAIN: Duration = Duration::from_mins(1);

/// The next namespace has its turn when this one is done, or nothing more has happened in it for so long.
const TURN: Duration = Duration::from_mins(10);

/// What became of a repair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The owner makes all its pods anew.
    Restarted,
    /// The pod was evicted.
    Evicted,
    /// A disruption budget does not allow it now.
    Refused,
    /// Something else is in the way.
    Failed,
    /// The pod is younger than what would have injected it.
    Useless,
}

impl Outcome {
    pub(super) const ALL: [Outcome; 5] =
        [Outcome::Restarted, Outcome::Evicted, Outcome::Refused, Outcome::Failed, Outcome::Useless];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Outcome::Restarted => "restarted",
            Outcome::Evicted => "evicted",
            Outcome::Refused => "refused",
            Outcome::Failed => "failed",
            Outcome::Useless => "useless",
        }
    }
}

/// What is made anew at once.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Target {
    /// By its template; kind and name.
    Workload(&'static str, String),
    /// By eviction: its controller makes another one.
    Pod(String),
}

/// What was done lately.
#[derive(Debug)]
pub(super) struct Repairs {
    /// Since when pods are answered for.
    ready_since: SystemTime,
    /// Until when each is left alone.
    rest: HashMap<(String, Target), Instant>,
    /// Whose turn it is, and since when.
    namespace: Option<(String, Instant)>,
    useless: HashSet<PodKey>,
}

/// The time between two repairs.
pub(super) fn pause(per_minute: Option<u32>) -> Duration {
    Duration::from_mins(1) / per_minute.unwrap_or(1).max(1)
}

impl Repairs {
    pub(super) fn new(ready_since: SystemTime) -> Self {
        Repairs { ready_since, rest: HashMap::new(), namespace: None, useless: HashSet::new() }
    }

    /// One repair, if one is due.
    pub(super) async fn step(&mut self, watchdog: &Watchdog, pods: &Pods) {
        if watchdog.readiness.reason().is_some() {
            return;
        }
        let now = Instant::now();
        self.rest.retain(|_, until| *until > now);
        self.useless.retain(|key| pods.without().contains_key(key));
        let mut candidates: Vec<_> = pods
            .without()
            .iter()
            .filter(|(key, pod)| self.is_candidate(watchdog, **key, pod))
            .map(|(_, pod)| pod)
            .collect();
        candidates.sort_by_key(|pod| (&pod.namespace, &pod.name));
        let Some(namespace) = self.turn(&candidates, now) else { return };
        for pod in candidates.into_iter().filter(|pod| pod.namespace == namespace) {
            let Some(owner) = &pod.owner else { continue };
            let target = match timeout(PATIENCE, target(watchdog, pod, owner)).await {
                Ok(Ok(target)) => target,
                Ok(Err(error)) => {
                    watchdog.metrics.count(failed(pod, &pod.name, &error.to_string()));
                    return;
                }
                Err(_) => {
                    watchdog.metrics.count(failed(pod, &pod.name, NO_ANSWER));
                    return;
                }
            };
            let Some(target) = target else { continue };
            if self.rest.contains_key(&(namespace.clone(), target.clone())) {
                continue;
            }
            let outcome = timeout(PATIENCE, make_anew(watchdog, pod, &target)).await;
            let outcome = outcome.unwrap_or_else(|_| failed(pod, &target.to_string(), NO_ANSWER));
            watchdog.metrics.count(outcome);
            let rest = match outcome {
                Outcome::Restarted | Outcome::Evicted | Outcome::Useless => ONCE,
                Outcome::Refused | Outcome::Failed => ASK_AGAIN,
            };
            self.rest.insert((namespace.clone(), target), now + rest);
            if rest == ONCE {
                self.namespace = Some((namespace, now));
            }
            return;
        }
    }

    /// Whether making the pod anew would help, and its definition wants it.
    fn is_candidate(&mut self, watchdog: &Watchdog, key: PodKey, pod: &Without) -> bool {
        // Who made it does not make another one, or makes it in its own time.
        let has_owner = pod.owner.as_ref().is_some_and(|owner| owner.kind != "Job");
        let was_restarted =
            pod.restarted.is_some_and(|at| SystemTime::now().duration_since(at).is_ok_and(|ago| ago < ONCE));
        let mut wanted = pod.found.iter().filter(|found| found.is_repairable).peekable();
        if !has_owner || wanted.peek().is_none() {
            return false;
        }
        let is_younger = |definition: &str| {
            let since = watchdog.definitions.served_since(definition);
            pod.created.is_some_and(|created| {
                created > self.ready_since && since.is_none_or(|since| created > since)
            })
        };
        let (mut helps, mut younger) = (false, None);
        for found in wanted {
            if is_younger(&found.definition) {
                younger = Some(&found.definition);
            } else {
                helps = true;
            }
        }
        if let (false, Some(definition)) = (helps, younger)
            && self.useless.insert(key)
        {
            watchdog.metrics.count(Outcome::Useless);
            warn!(
                event = "repair_useless",
                namespace = pod.namespace,
                pod = pod.name,
                definition,
                "it was made while the definition was served, another one would fare the same"
            );
        }
        helps && !was_restarted
    }

    /// The namespace in which something is done now.
    fn turn(&mut self, candidates: &[&Without], now: Instant) -> Option<String> {
        let has = |namespace: &str| candidates.iter().any(|pod| pod.namespace == namespace);
        match &self.namespace {
            Some((namespace, since)) if has(namespace) && now < *since + TURN => Some(namespace.clone()),
            before => {
                let namespaces = || candidates.iter().map(|pod| &pod.namespace);
                let after = before.as_ref().and_then(|(last, _)| namespaces().find(|next| *next > last));
                let next = after.or_else(|| namespaces().next())?.clone();
                self.namespace = Some((next.clone(), now));
                Some(next)
            }
        }
    }
}

/// What to make anew for a pod; nothing for what its owner will not make again.
async fn target(watchdog: &Watchdog, pod: &Without, owner: &OwnerReference) -> kube::Result<Option<Target>> {
    if owner.api_version != "apps/v1" {
        return Ok(Some(Target::Pod(pod.name.clone())));
    }
    let workload = |kind, name: &str| Some(Target::Workload(kind, name.to_owned()));
    Ok(match &*owner.kind {
        "StatefulSet" => workload("StatefulSet", &owner.name),
        "DaemonSet" => workload("DaemonSet", &owner.name),
        "ReplicaSet" => {
            let set = apps(watchdog, &pod.namespace, "ReplicaSet").get_opt(&owner.name).await?;
            // It is gone, and the pod is going.
            let Some(set) = set else { return Ok(None) };
            let owners = set.metadata.owner_references.unwrap_or_default();
            let deployment = owners.iter().find(|owner| {
                owner.controller == Some(true) && owner.kind == "Deployment" && owner.api_version == "apps/v1"
            });
            match deployment {
                Some(deployment) => workload("Deployment", &deployment.name),
                None => Some(Target::Pod(pod.name.clone())),
            }
        }
        _ => Some(Target::Pod(pod.name.clone())),
    })
}

async fn make_anew(watchdog: &Watchdog, pod: &Without, target: &Target) -> Outcome {
    let (outcome, result) = match target {
        Target::Workload(kind, name) => {
            let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
            let patch = json!({"spec": {"template": {"metadata": {"annotations": {RESTARTED_AT: now}}}}});
            let parameters =
                PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
            let api = apps(watchdog, &pod.namespace, kind);
            (Outcome::Restarted, api.patch(name, &parameters, &Patch::Merge(&patch)).await.map(drop))
        }
        Target::Pod(name) => {
            let api: Api<Pod> = Api::namespaced(watchdog.client.clone(), &pod.namespace);
            (Outcome::Evicted, api.evict(name, &EvictParams::default()).await.map(drop))
        }
    };
    let target = target.to_string();
    match result {
        Ok(()) => {
            info!(
                event = "pod_repaired",
                namespace = pod.namespace,
                pod = pod.name,
                target,
                result = outcome.as_str()
            );
            outcome
        }
        // The API server's words for a disruption budget.
        Err(kube::Error::Api(status)) if status.code == 429 => {
            info!(event = "repair_refused", namespace = pod.namespace, target, problem = status.message);
            Outcome::Refused
        }
        Err(error) => failed(pod, &target, &error.to_string()),
    }
}

fn failed(pod: &Without, target: &str, problem: &str) -> Outcome {
    warn!(event = "repair_failed", namespace = pod.namespace, target, problem);
    Outcome::Failed
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Workload(kind, name) => write!(formatter, "{kind}/{name}"),
            Target::Pod(name) => write!(formatter, "Pod/{name}"),
        }
    }
}

fn apps(watchdog: &Watchdog, namespace: &str, kind: &str) -> Api<DynamicObject> {
    let resource = ApiResource {
        group: "apps".to_owned(),
        version: "v1".to_owned(),
        api_version: "apps/v1".to_owned(),
        kind: kind.to_owned(),
        plural: format!("{}s", kind.to_lowercase()),
    };
    Api::namespaced_with(watchdog.client.clone(), namespace, &resource)
}
