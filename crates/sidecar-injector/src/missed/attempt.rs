//! One try to make a pod anew, and what is said of it: in the log, and in an Event on whoever makes it.

use std::time::{Duration, SystemTime};

use tracing::{info, warn};

use super::Watchdog;
use super::mark::{Lacking, Mark};
use super::pods::{Key, Owner, Without};
use super::workload::{self, Hindrance, Target};
use crate::cluster;

/// What became of a repair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The owner makes all its pods anew.
    Restarted,
    /// The pod was evicted.
    Evicted,
    /// A disruption budget does not allow it now, or it would change nothing.
    Refused,
    /// Something else is in the way.
    Failed,
    /// It was tried for exactly this, and did not help.
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

/// A pod that is to be made anew.
#[derive(Debug)]
pub(super) struct Candidate<'p> {
    pub(super) key: Key,
    pub(super) owner_key: Key,
    pub(super) owner: &'p Owner,
    pub(super) lacking: Lacking,
    pub(super) pod: &'p Without,
}

/// How a try went.
#[derive(Debug)]
pub(super) enum Attempt {
    /// Nothing is there any more, or somebody else is at it.
    Nothing,
    /// The owner was restarted, for which it has so long.
    UnderWay(Duration),
    Done(Outcome),
    /// The owner is to be asked later.
    Later,
}

impl<'p> Candidate<'p> {
    /// None, for what nobody makes again, or nobody wants made again.
    pub(super) fn new(key: Key, pod: &'p Without) -> Option<Self> {
        let owner = pod.owner.as_ref()?;
        Some(Candidate { key, owner_key: owner.key, owner, lacking: pod.lacking?, pod })
    }

    pub(super) async fn make_anew(&self, watchdog: &Watchdog, time: SystemTime) -> Attempt {
        let Without { namespace, name, .. } = self.pod;
        match Target::of(&watchdog.client, namespace, name, self.owner).await {
            Ok(None) => Attempt::Nothing,
            Ok(Some(target)) => self.make_target_anew(watchdog, &target, time).await,
            Err(error) => self.failed(&cluster::problem(&error)),
        }
    }

    async fn make_target_anew(&self, watchdog: &Watchdog, target: &Target, time: SystemTime) -> Attempt {
        let (client, namespace) = (&watchdog.client, &self.pod.namespace);
        let (outcome, owner, result) = match target {
            Target::Pod(name) => {
                let owner = match workload::controller(client, namespace, name).await {
                    Ok(Some(owner)) => owner,
                    Ok(None) => return Attempt::Nothing,
                    Err(error) => return self.failed(&cluster::problem(&error)),
                };
                (Outcome::Evicted, owner, workload::evict(client, namespace, name).await)
            }
            Target::Workload(kind, name) => {
                let workload = match workload::read(client, namespace, kind, name).await {
                    Ok(Some(workload)) => workload,
                    Ok(None) => return Attempt::Nothing,
                    Err(error) => return self.failed(&cluster::problem(&error)),
                };
                match workload::hindrance(&workload.data, self.pod.mark.as_ref(), self.lacking, time) {
                    Some(Hindrance::UnderWay(time)) => return Attempt::UnderWay(time),
                    Some(Hindrance::Needs(problem)) => {
                        self.refused(target, problem);
                        return Attempt::Later;
                    }
                    None => {}
                }
                let mark = Mark::new(self.lacking, time);
                let result = workload::restart(client, namespace, kind, &workload, &mark).await;
                (Outcome::Restarted, workload::reference(kind, name, &workload), result)
            }
        };
        match result {
            Ok(()) => {
                info!(
                    event = "pod_repaired",
                    namespace = self.pod.namespace,
                    pod = self.pod.name,
                    target = target.to_string(),
                    result = outcome.as_str()
                );
                if let Some(events) = &watchdog.events {
                    events.repaired(namespace, &owner, self.told(outcome));
                }
                Attempt::Done(outcome)
            }
            // Somebody has changed it since it was read.
            Err(kube::Error::Api(status)) if status.code == 409 => Attempt::Nothing,
            // The API server's words for a disruption budget.
            Err(kube::Error::Api(status)) if status.code == 429 => {
                self.refused(target, &status.message);
                Attempt::Done(Outcome::Refused)
            }
            Err(error) => self.failed(&cluster::problem(&error)),
        }
    }

    /// For who looks at the owner. The same for all of its pods, so that they are one Event.
    fn told(&self, outcome: Outcome) -> String {
        let definitions = self.definitions(", ");
        match outcome {
            Outcome::Evicted => {
                format!(
                    "a pod of it was evicted, since it did not have sidecar {definitions} as it is defined now"
                )
            }
            _ => format!(
                "restarted, since a pod of it does not have sidecar {definitions} as it is defined now"
            ),
        }
    }

    fn definitions(&self, separator: &str) -> String {
        let definitions: Vec<_> = self.pod.wanted().map(|found| &*found.definition).collect();
        definitions.join(separator)
    }

    fn refused(&self, target: &Target, problem: &str) {
        let namespace = &*self.pod.namespace;
        info!(event = "repair_refused", namespace, target = target.to_string(), problem);
    }

    pub(super) fn failed(&self, problem: &str) -> Attempt {
        let Without { namespace, name, .. } = self.pod;
        let owner = self.owner.to_string();
        warn!(event = "repair_failed", namespace, pod = name, owner, problem);
        Attempt::Done(Outcome::Failed)
    }

    pub(super) fn say_useless(&self) {
        let Without { namespace, name, .. } = self.pod;
        warn!(
            event = "repair_useless",
            namespace,
            pod = name,
            owner = self.owner.to_string(),
            definitions = self.definitions(","),
            "it was made anew for this and goes without it all the same: see why the API server does not ask about it, or gets no answer"
        );
    }
}

impl Attempt {
    /// What is counted.
    pub(super) fn outcome(&self) -> Option<Outcome> {
        match self {
            Attempt::Nothing | Attempt::UnderWay(_) => None,
            Attempt::Later => Some(Outcome::Refused),
            Attempt::Done(outcome) => Some(*outcome),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::extract::Request;
    use axum::http::Method;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
    use kube::Client;
    use prometheus_client::registry::Registry;
    use serde_json::{Value, json};
    use sidecar_engine::State;

    use super::super::judge::tests::watchdog;
    use super::super::pods::{Found, lacking};
    use super::*;
    use crate::serve::events;

    fn pod(owner: &str) -> Without {
        let found = [("logs", true), ("proxy", true), ("reported", false)];
        let found = found.map(|(definition, is_repairable)| Found {
            definition: definition.into(),
            state: State::Missing,
            reason: "NotInjected",
            is_repairable,
            fingerprint: 1,
        });
        let owner = OwnerReference {
            api_version: "apps/v1".to_owned(),
            kind: owner.to_owned(),
            name: "web".to_owned(),
            ..OwnerReference::default()
        };
        Without {
            namespace: "shop".into(),
            name: "web-1".into(),
            owner: Some(Owner::new(&owner)),
            created: None,
            mark: None,
            lacking: lacking(&found),
            found: found.into(),
            basis: 1,
            is_untold: false,
        }
    }

    /// What an API server answers that has the pod `web-1` with this owner, and `web`, which nobody owns.
    fn answer(owner: &Value, request: &Request) -> String {
        let name = request.uri().path().rsplit('/').next().unwrap().to_owned();
        let object = match (request.method(), &*name) {
            (&Method::POST, _) => json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}),
            (_, "web-1") => json!({"metadata": {"name": name, "ownerReferences": [owner]}}),
            _ => json!({"metadata": {"name": name, "uid": "uid-of-web"}}),
        };
        object.to_string()
    }

    #[tokio::test]
    async fn whoever_makes_pods_anew_has_an_event_that_says_for_what() {
        for (kind, controls, expected) in [
            (
                "StatefulSet",
                true,
                Some("restarted, since a pod of it does not have sidecar logs, proxy as it is defined now"),
            ),
            (
                "ReplicaSet",
                true,
                Some(
                    "a pod of it was evicted, since it did not have sidecar logs, proxy as it is defined now",
                ),
            ),
            // It would not be made again.
            ("ReplicaSet", false, None),
        ] {
            let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "uid-of-web", "controller": controls});
            let server = Router::new().fallback(async move |request: Request| answer(&owner, &request));
            let (events, mut writer) = events::queue(&mut Registry::default());
            let mut watchdog = watchdog("");
            watchdog.client = Client::new(server, "default");
            watchdog.events = Some(events);
            let pod = pod(kind);
            let attempt = Candidate::new(1, &pod).unwrap().make_anew(&watchdog, SystemTime::now()).await;
            assert_eq!(attempt.outcome().is_some(), expected.is_some(), "{attempt:?}");
            let event = writer.next_missing_shown();
            let about = format!("shop apps/v1 {kind}/web uid-of-web Normal SidecarRepaired: ");
            assert_eq!(event, expected.map(|text| format!("{about}{text}")));
        }
    }
}
