//! What a pod goes without, and in which words that is said.
//!
//! Names and values that are the pod's own are cut here: whoever makes pods must not fill the log or the memory with them.

use std::borrow::Cow;
use std::time::SystemTime;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use sidecar_engine::{Namespaces as _, Reason, Standing, State};

use super::Watchdog;
use super::mark::Mark;
use super::pods::{Found, Owner, Pods, Waiting, Without, key, lacking};
use crate::serve::logs::{printable, short};

/// The reason where nothing in the pod or the definition is in the way.
pub(super) const NOT_INJECTED: &str = "NotInjected";

/// What is read of a pod beside what the engine reads.
#[derive(Deserialize)]
struct Head {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Spec {
    restart_policy: Option<String>,
}

impl Spec {
    /// Whether whoever made the pod keeps one running. Of what is to come to an end, nobody may make another one.
    fn is_kept_up(&self) -> bool {
        self.restart_policy.as_deref().is_none_or(|policy| policy == "Always")
    }
}

#[derive(Deserialize, Default)]
struct Status {
    #[serde(default)]
    phase: String,
}

impl Watchdog {
    /// Takes down what a pod, as the API server sends it, goes without.
    pub(super) fn judge(&self, pods: &mut Pods, waiting: &Waiting, text: &str) {
        // First: what changes meanwhile makes it old.
        let basis = pods.basis(self.namespaces.version(&waiting.namespace));
        let known = self.namespaces.get(&waiting.namespace);
        let namespace = self.namespace(&waiting.namespace);
        let loaded = self.definitions.current();
        let read = serde_json::from_str::<Head>(text).map_err(|error| error.to_string()).and_then(|head| {
            let standings = loaded.engine.standings(text, &namespace);
            Ok((head, standings.map_err(|error| error.to_string())?))
        });
        let (head, standings) = match read {
            Ok(read) => read,
            Err(problem) => {
                // Errors may quote what the pod says.
                pods.say_unreadable(waiting, &printable(&problem));
                return pods.is_fine(waiting.key);
            }
        };
        let is_over = matches!(&*head.status.phase, "Succeeded" | "Failed");
        let is_another = key(&head.metadata) != Some(waiting.key);
        if is_over || is_another || head.metadata.deletion_timestamp.is_some() {
            return pods.is_fine(waiting.key);
        }
        let asked = &self.settings.asked;
        let is_unknown = self.settings.knows_namespaces && known.is_none();
        let not_asked = asked.remedy(&head.metadata, known.as_deref()).map(|remedy| ("NotAsked", remedy));
        let unknown = Reason::NamespaceUnknown;
        let obstacle = not_asked.or_else(|| {
            (is_unknown && asked.needs_namespaces()).then(|| (unknown.code(), unknown.explanation().into()))
        });
        let without = standings.into_iter().filter(|standing| standing.state != State::Present);
        let may_be_repaired = head.spec.is_kept_up() && !is_unknown;
        let (found, messages): (Vec<_>, Vec<_>) =
            without.map(|standing| found(standing, obstacle.as_ref(), may_be_repaired)).unzip();
        if found.is_empty() {
            return pods.is_fine(waiting.key);
        }
        let time = |time: k8s_openapi::jiff::Timestamp| SystemTime::from(time);
        let annotations = head.metadata.annotations.unwrap_or_default();
        let owners = head.metadata.owner_references.unwrap_or_default();
        let owner = owners.iter().find(|owner| owner.controller == Some(true));
        let pod = Without {
            namespace: waiting.namespace.clone(),
            name: waiting.name.clone(),
            owner: owner.map(Owner::new),
            created: head.metadata.creation_timestamp.map(|created| time(created.0)),
            mark: Mark::of(&annotations),
            lacking: lacking(&found),
            found: found.into(),
            basis,
            is_untold: false,
        };
        if let (Some(text), Some(events)) = (pods.goes_without(waiting.key, pod, &messages), &self.events) {
            let pod = (&*waiting.name, head.metadata.uid);
            if !events.missing(&waiting.namespace, pod, owner, &text) {
                pods.is_untold(waiting.key);
            }
        }
    }
}

/// What a pod goes without of a definition, and what is to be said about it. `obstacle` is why the API server may not ask about the pod:
/// a reason and its explanation.
fn found(
    standing: Standing<'_>,
    obstacle: Option<&(&'static str, Cow<'_, str>)>,
    may_be_repaired: bool,
) -> (Found, String) {
    let Standing { definition, state, reason, detail, would_be_injected, repairs, fingerprint } = standing;
    let obstacle = obstacle.filter(|_| would_be_injected);
    let (reason, message) = match (obstacle, state, reason) {
        (Some((reason, explanation)), State::Missing, _) => (*reason, Cow::Borrowed(&**explanation)),
        (None, State::Missing, Reason::Injected) => (
            NOT_INJECTED,
            "nothing in the pod or the definition is in the way: the definition is younger than the pod, or the API server got no answer when it was made".into(),
        ),
        (_, State::Outdated, _) => (
            "Outdated",
            match detail {
                Some(detail) => {
                    format!("the pod has something else than the definition says now: {detail}").into()
                }
                None => "the pod has something else than the definition says now".into(),
            },
        ),
        (_, _, reason) => (reason.code(), detail.unwrap_or(Cow::Borrowed(reason.explanation()))),
    };
    let is_repairable = repairs && may_be_repaired && would_be_injected && obstacle.is_none();
    let found = Found { definition: short(&definition).into(), state, reason, is_repairable, fingerprint };
    (found, printable(&message))
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::{Arc, Mutex};

    use clap::Parser as _;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
    use kube::Client;
    use prometheus_client::registry::Registry;
    use serde_json::{Value, json};
    use tokio::sync::watch as channel;

    use super::super::Settings;
    use super::super::pods::hash;
    use super::*;
    use crate::Arguments;
    use crate::arguments::{Command, WebhookScope};
    use crate::sources::Sources;

    /// One with these definitions, who reaches no API server. Its client wants a runtime.
    pub(in super::super) fn watchdog(definitions: &str) -> Watchdog {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("definitions.yaml");
        std::fs::write(&file, definitions).unwrap();
        let file = file.to_str().unwrap();
        let line = ["sidecar-injector", "serve", "--missed-pods", "repair", "--definitions", file];
        let Command::Serve(arguments) = Arguments::parse_from(line).command else { panic!("{line:?}") };
        let loading = Sources::new(&arguments).load(None).unwrap();
        let url = "http://127.0.0.1:9".parse().unwrap();
        Watchdog {
            client: Client::try_from(kube::Config::new(url)).unwrap(),
            definitions: loading.definitions.clone(),
            namespaces: loading.namespaces.clone(),
            readiness: loading.readiness.clone(),
            certificate: None,
            leading: channel::Sender::new(true).subscribe(),
            settings: Settings::new(&arguments.missed, false).unwrap().unwrap(),
            metrics: Settings::metrics(&mut Registry::default()),
            events: None,
        }
    }

    const DEFINITION: &str = "
apiVersion: sidecar.me/v1alpha1
kind: ClusterSidecarDefinition
metadata: {name: logs}
spec:
  selector: {podSelector: {}}
  missedPods: Repair
  parameters: [{name: level, default: info, allowed: [info, debug]}]
  inject: {spec: {containers: [{name: logs, image: 'logs:1', args: ['${params.level}']}]}}
";

    /// What is remembered of a pod with these, and what the log says about it.
    fn judged(annotations: &Value, spec: &Value) -> (Pods, String) {
        let metadata = json!({"name": "web", "namespace": "shop", "uid": "web", "annotations": annotations});
        judged_text(&json!({"metadata": metadata, "spec": spec}).to_string())
    }

    fn waiting() -> Waiting {
        Waiting { key: hash("web"), namespace: "shop".into(), name: "web".into(), awaited: None }
    }

    fn judged_text(text: &str) -> (Pods, String) {
        let mut pods = Pods::default();
        let log = Arc::new(Mutex::new(Vec::new()));
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().json().with_writer(move || Log(writer.clone())).finish();
        tracing::subscriber::with_default(subscriber, || {
            watchdog(DEFINITION).judge(&mut pods, &waiting(), text);
        });
        let log = String::from_utf8(log.lock().unwrap().clone()).unwrap();
        (pods, log)
    }

    struct Log(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn what_a_pod_says_fills_neither_the_log_nor_the_memory() {
        let long = "x\n\"".repeat(200 << 10);
        let spec = json!({"containers": [{"name": "app", "image": "app:1"}]});
        for (annotation, reason) in
            [("sidecar.me/inject", "UnknownDefinition"), ("logs.sidecar.me/level", "InvalidParameter")]
        {
            let (pods, log) = judged(&json!({annotation: long}), &spec);
            let found =
                pods.without()[&hash("web")].found.iter().find(|found| found.reason == reason).unwrap();
            assert!(found.definition.chars().count() <= 253, "{annotation}");
            assert!(log.contains(reason) && log.len() < 4096, "{} bytes", log.len());
        }
    }

    #[tokio::test]
    async fn a_pod_that_cannot_be_read_is_named() {
        for text in ["[]", r#"{"metadata": {"name": "web", "uid": 1}}"#] {
            let (pods, log) = judged_text(text);
            assert!(pods.without().is_empty());
            assert!(log.contains("pod_unreadable") && log.contains("\"pod\":\"web\""), "{log}");
        }
    }

    #[tokio::test]
    async fn what_is_to_come_to_an_end_is_only_reported() {
        for (policy, expected) in [
            (Value::Null, true),
            ("Always".into(), true),
            ("OnFailure".into(), false),
            ("Never".into(), false),
        ] {
            let spec = json!({"containers": [{"name": "app", "image": "app:1"}], "restartPolicy": policy});
            let (pods, _) = judged(&json!({}), &spec);
            assert_eq!(pods.without()[&hash("web")].lacking.is_some(), expected, "{policy}");
        }
    }

    #[tokio::test]
    async fn what_is_not_known_of_a_namespace_is_no_reason_to_make_pods_anew() {
        let metadata = json!({"name": "web", "namespace": "shop", "uid": "web"});
        let text = json!({"metadata": metadata, "spec": {"containers": [{"name": "app", "image": "app:1"}]}});
        for (scope, knows_namespaces, reason, is_repairable) in [
            (WebhookScope::All, false, NOT_INJECTED, true),
            (WebhookScope::All, true, NOT_INJECTED, false),
            (WebhookScope::Namespaces, true, "NamespaceUnknown", false),
            (WebhookScope::Requested, true, "NotAsked", false),
        ] {
            let mut watchdog = watchdog(DEFINITION);
            watchdog.settings.knows_namespaces = knows_namespaces;
            watchdog.settings.asked.scope = Some(scope);
            let mut pods = Pods::default();
            watchdog.judge(&mut pods, &waiting(), &text.to_string());
            let [found] = &*pods.without()[&hash("web")].found else { panic!("{scope:?}") };
            assert_eq!((found.reason, found.is_repairable), (reason, is_repairable), "{scope:?}");
        }
    }

    #[test]
    fn an_owner_has_a_name_of_the_usual_length_whatever_a_pod_says() {
        let long = "x".repeat(200 << 10);
        let reference = OwnerReference { kind: long.clone(), name: long, ..OwnerReference::default() };
        assert!(Owner::new(&reference).to_string().len() <= 2 * 253 + 1);
    }
}
