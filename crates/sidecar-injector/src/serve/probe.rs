//! Asks the API server for a pod, as a dry run, and looks whether the question came by here: the whole way of a real pod, through
//! network policies, DNS, certificates and the webhook configuration, seen before users see that it is broken.
//!
//! The pod says what it is (`sidecar.me/probe`), and the engine answers with a change of that annotation instead of any definition. So
//! the probe works with whatever is loaded, the answer proves that a patch was applied, and it does not matter which replica gave it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kube::api::{DynamicObject, PostParams};
use kube::core::ApiResource;
use kube::{Api, Client};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use serde_json::json;
use sidecar_engine::{PROBE_ANSWER, PROBE_KEY, PROBE_QUESTION};
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use crate::cluster;

/// Until the Service knows a new pod.
const FIRST: Duration = Duration::from_secs(10);

/// Longer than the API server waits for any webhook.
const LIMIT: Duration = Duration::from_secs(35);

/// Seconds.
const DURATIONS: [f64; 9] = [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.0, 10.0];

/// What to ask, and how often.
#[derive(Debug, Clone)]
pub(crate) struct Probe {
    pub(crate) namespace: String,
    pub(crate) interval: Duration,
    /// Where the API server reaches us, for the hints.
    pub(crate) port: u16,
}

#[derive(Debug)]
pub(crate) struct Metrics {
    success: Gauge,
    last_success: Gauge,
    duration: Histogram,
}

impl Metrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Metrics {
            success: Gauge::default(),
            last_success: Gauge::default(),
            duration: Histogram::new(DURATIONS),
        };
        let help = "1 when the last pod that was asked for as a probe came back with the answer";
        registry.register("self_probe_success", help, metrics.success.clone());
        let help = "When that was last so, since 1970";
        registry.register("self_probe_last_success_timestamp_seconds", help, metrics.last_success.clone());
        let help = "How long the API server took for a probe";
        registry.register("self_probe_duration_seconds", help, metrics.duration.clone());
        metrics
    }
}

/// What is wrong, and where to look.
#[derive(Debug, PartialEq, Eq)]
struct Problem {
    problem: String,
    hint: String,
}

impl Probe {
    /// Asks, as long as it is polled.
    pub(crate) async fn follow(self, client: Client, metrics: Metrics) {
        let resource = ApiResource {
            group: String::new(),
            version: "v1".to_owned(),
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            plural: "pods".to_owned(),
        };
        let api = Api::<DynamicObject>::namespaced_with(client, &self.namespace, &resource);
        let pod = pod(&resource);
        // Nothing has been said yet.
        let mut said: Option<Option<String>> = None;
        sleep(FIRST.min(self.interval)).await;
        loop {
            let began = Instant::now();
            let result = self.ask(&api, &pod).await;
            metrics.duration.observe(began.elapsed().as_secs_f64());
            metrics.success.set(i64::from(result.is_ok()));
            if result.is_ok() {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                metrics.last_success.set(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
            }
            // Once for each kind of trouble: the words of the problem may have the name of a pod in them, another one each time.
            let hint = result.as_ref().err().map(|problem| problem.hint.clone());
            if said.as_ref() != Some(&hint) {
                self.say(result);
                said = Some(hint);
            }
            sleep(jittered(self.interval)).await;
        }
    }

    fn say(&self, result: Result<(), Problem>) {
        let namespace = &self.namespace;
        match result {
            Ok(()) => info!(event = "self_probe_succeeded", namespace, "reviews arrive"),
            Err(Problem { problem, hint }) => {
                warn!(event = "self_probe_failed", namespace, problem, hint, "reviews do not arrive");
            }
        }
    }

    async fn ask(&self, api: &Api<DynamicObject>, pod: &DynamicObject) -> Result<(), Problem> {
        let parameters = PostParams { dry_run: true, ..PostParams::default() };
        let made = match timeout(LIMIT, api.create(&parameters, pod)).await {
            Ok(Ok(made)) => made,
            Ok(Err(kube::Error::Api(status))) => return Err(self.refused(&status.message)),
            Ok(Err(error)) => return Err(unreachable(cluster::problem(&error))),
            Err(_) => return Err(unreachable(format!("no answer in {} s", LIMIT.as_secs()))),
        };
        let answer = made.metadata.annotations.as_ref().and_then(|annotations| annotations.get(PROBE_KEY));
        if answer.is_some_and(|answer| answer == PROBE_ANSWER) {
            return Ok(());
        }
        Err(Problem {
            problem: "the pod came back as it was sent".to_owned(),
            hint: format!(
                "the API server did not ask (is there a webhook configuration, and does it select namespace {:?}?), or it got no \
                 answer and failed open: {}",
                self.namespace,
                self.usual_causes()
            ),
        })
    }

    /// The API server's own words, and what they mean mostly.
    fn refused(&self, message: &str) -> Problem {
        let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
        let hint = if !says(&["failed calling webhook"]) {
            if says(&["cannot create resource"]) {
                format!(
                    "the service account may not create pods in namespace {:?}, as a dry run neither",
                    self.namespace
                )
            } else {
                "something else refuses the pod of the probe: a quota, a policy, another webhook".to_owned()
            }
        } else if says(&["x509", "certificate"]) {
            "the caBundle of the webhook configuration does not fit the certificate that is served".to_owned()
        } else if says(&["no such host"]) {
            "the API server cannot resolve the Service's name: DNS, or the Service is gone".to_owned()
        } else if says(&["no endpoints available", "connection refused"]) {
            "no ready pod is behind the Service, or it points to another port".to_owned()
        } else {
            self.usual_causes()
        };
        Problem { problem: message.to_owned(), hint }
    }

    fn usual_causes(&self) -> String {
        format!(
            "look for a network policy, or a firewall of a private cluster, between the control plane and port {} of these pods, a \
             CNI that the control plane cannot reach pods through, and a caBundle that does not fit",
            self.port
        )
    }
}

fn unreachable(problem: String) -> Problem {
    let hint = "this pod cannot reach the API server: a network policy on what leaves it, DNS, or the API server is down";
    Problem { problem, hint: hint.to_owned() }
}

/// It is never stored, and never runs; still policies look at it, so it has all that Pod Security "restricted" and quotas want.
fn pod(resource: &ApiResource) -> DynamicObject {
    let mut pod = DynamicObject::new("", resource).data(json!({
        "spec": {
            "automountServiceAccountToken": false,
            "restartPolicy": "Never",
            "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "probe",
                "image": "registry.k8s.io/pause:3.10",
                "resources": {
                    "requests": {"cpu": "1m", "memory": "1Mi"},
                    "limits": {"cpu": "1m", "memory": "1Mi"},
                },
                "securityContext": {
                    "allowPrivilegeEscalation": false,
                    "capabilities": {"drop": ["ALL"]},
                    "readOnlyRootFilesystem": true,
                },
            }],
        },
    }));
    pod.metadata.name = None;
    pod.metadata.generate_name = Some("sidecar-injector-probe-".to_owned());
    // By the label the API server asks in every scope.
    pod.metadata.labels = Some([("sidecar.me/inject".to_owned(), "true".to_owned())].into());
    pod.metadata.annotations = Some([(PROBE_KEY.to_owned(), PROBE_QUESTION.to_owned())].into());
    pod
}

/// A tenth more or less, so that replicas that started together do not ask together for ever.
fn jittered(interval: Duration) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    interval * (900 + now.subsec_micros() % 200) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In the words of API servers.
    #[test]
    fn hints_name_what_is_usually_the_cause() {
        let probe = Probe { namespace: "default".to_owned(), interval: Duration::from_mins(1), port: 8443 };
        let failed = "Internal error occurred: failed calling webhook \"injector.sidecar.me\": failed to call webhook: Post \
                      \"https://i.default.svc:443/mutation/pod?timeout=5s\": ";
        for (message, hint) in [
            (format!("{failed}context deadline exceeded"), "port 8443"),
            (format!("{failed}tls: failed to verify certificate: x509: certificate signed by unknown authority"), "caBundle"),
            (format!("{failed}dial tcp 10.0.0.1:443: connect: connection refused"), "no ready pod"),
            (format!("{failed}dial tcp: lookup i.default.svc: no such host"), "DNS"),
            (
                "pods is forbidden: User \"system:serviceaccount:default:i\" cannot create resource \"pods\" in API group \"\" in \
                 the namespace \"default\""
                    .to_owned(),
                "service account",
            ),
            ("pods \"probe\" is forbidden: exceeded quota: q".to_owned(), "something else"),
        ] {
            let found = probe.refused(&message);
            assert!(found.hint.contains(hint), "{message}: {}", found.hint);
        }
    }

    #[test]
    fn a_jittered_interval_is_near() {
        let interval = Duration::from_mins(1);
        let jittered = jittered(interval);
        assert!(jittered >= interval * 9 / 10 && jittered <= interval * 11 / 10, "{jittered:?}");
    }
}
