//! Definitions as objects of a real API server, watched by an injector that runs beside it: applied, changed, broken,
//! deleted, in effect within a second; and what the watches survive. The API server is enough: no pod has to run.

// A test may panic; clippy.toml says so for the test functions, this for their helpers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use serde_json::{Value, json};
use sidecar_testkit::{Cluster, Options, Tier};

/// An injector over plain HTTP, with an administrator's rights.
struct Injector {
    child: Child,
    address: String,
    log: Arc<Mutex<Vec<Value>>>,
}

impl Injector {
    fn start(kubeconfig: &Path, settings: &[(&str, &str)]) -> Self {
        let mut child = Command::new(e2e::injector_binary().unwrap())
            .arg("serve")
            .env("HTTP_PORT", "0")
            .env("KUBECONFIG", kubeconfig)
            .env("DEFINITION_RESOURCES", "true")
            .envs(settings.iter().copied())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (lines, stderr) = (log.clone(), child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lines.lock().unwrap().push(serde_json::from_str(&line).unwrap_or(Value::String(line)));
            }
        });
        let mut injector = Injector { child, address: String::new(), log };
        let serving = injector.wait_for_log("serving");
        serving["address"].as_str().unwrap().clone_into(&mut injector.address);
        injector
    }

    /// Stops it where it is, or lets it go on.
    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    fn logged(&self, event: &str) -> Vec<Value> {
        self.log.lock().unwrap().iter().filter(|line| line["event"] == event).cloned().collect()
    }

    fn wait_for_log(&self, event: &str) -> Value {
        self.wait_for_lines(event, 1).pop().unwrap()
    }

    /// At least so many. What is in effect is not yet in the log, which is written by a thread of its own.
    fn wait_for_lines(&self, event: &str, count: usize) -> Vec<Value> {
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline {
            let lines = self.logged(event);
            if lines.len() >= count {
                return lines;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("no {event} in the log, or not {count} times: {:?}", self.log.lock().unwrap());
    }

    fn call(&self, head: &str, body: &str) -> Value {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let length = body.len();
        write!(
            stream,
            "{head} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
             Connection: close\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
    }

    fn readiness(&self) -> Value {
        self.call("GET /health/readiness", "")["data"].clone()
    }

    /// The images that a labelled pod gets in a namespace.
    fn images(&self, namespace: &str) -> Vec<String> {
        let review = json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {
                "uid": "1", "kind": {"group": "", "version": "v1", "kind": "Pod"},
                "namespace": namespace, "operation": "CREATE", "object": e2e::labelled_pod("web"),
            },
        });
        let answer = self.call("POST /mutation/pod", &review.to_string());
        assert_eq!(answer["response"]["allowed"], true, "{answer}");
        let Some(patch) = answer["response"]["patch"].as_str() else { return Vec::new() };
        let patch = base64::engine::general_purpose::STANDARD.decode(patch).unwrap();
        let operations: Vec<Value> = serde_json::from_slice(&patch).unwrap();
        operations.iter().map(|operation| operation["value"]["image"].as_str().unwrap().to_owned()).collect()
    }

    /// How long it takes until pods of the namespace get these images.
    fn wait_for_images(&self, namespace: &str, expected: &[&str]) -> Duration {
        let started = Instant::now();
        loop {
            let images = self.images(namespace);
            if images == expected {
                return started.elapsed();
            }
            let waited = started.elapsed();
            assert!(
                waited < Duration::from_secs(30),
                "{images:?} instead of {expected:?}: {:?}",
                self.log.lock().unwrap()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn expect_images(&self, namespace: &str, expected: &[&str]) {
        let took = self.wait_for_images(namespace, expected);
        assert!(took < Duration::from_secs(1), "{expected:?} after {took:?}");
    }
}

impl Drop for Injector {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The kinds, without a schema: what is wrong with an object is for the injector to find.
fn kinds() -> Value {
    let kind = |kind: &str, scope: &str| {
        let plural = format!("{}s", kind.to_lowercase());
        json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.sidecar.me")},
            "spec": {
                "group": "sidecar.me", "scope": scope, "names": {"kind": kind, "plural": plural},
                "versions": [{
                    "name": "v1alpha1", "served": true, "storage": true,
                    "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
                }],
            },
        })
    };
    json!({"apiVersion": "v1", "kind": "List", "items":
        [kind("ClusterSidecarDefinition", "Cluster"), kind("SidecarDefinition", "Namespaced")]})
}

fn definition(kind: &str, name: &str, image: &str) -> Value {
    json!({
        "apiVersion": "sidecar.me/v1alpha1", "kind": kind, "metadata": {"name": name},
        "spec": {"inject": {"spec": {"containers": [{"name": name, "image": image}]}}},
    })
}

async fn apply(cluster: &Cluster, object: &Value, namespace: &str) {
    let arguments = ["apply", "--namespace", namespace, "-f", "-"];
    cluster.kubectl_with_input(&arguments, &object.to_string()).await.unwrap().checked().unwrap();
}

async fn kubectl(cluster: &Cluster, arguments: &[&str]) {
    cluster.kubectl(arguments).await.unwrap().checked().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_in_effect_within_a_second_and_watches_survive_what_happens() {
    let cluster = Cluster::start(Tier::Api, Options::default()).await.unwrap();
    let injector = Injector::start(cluster.kubeconfig(), &[]);

    without_the_kinds_it_is_ready(&injector);
    apply(&cluster, &kinds(), "default").await;
    applied_changed_broken_and_deleted(&cluster, &injector).await;
    namespaced_ones_stay_in_their_namespace(&cluster, &injector).await;
    labels_of_namespaces_are_followed(&cluster, &injector).await;
    an_api_server_that_was_away_is_listed_anew(&cluster, &injector).await;
    names_of_files_are_theirs(&cluster);
    kinds_that_are_removed_take_their_objects_along(&cluster, &injector).await;

    drop(injector);
    cluster.stop().await.unwrap();
}

fn without_the_kinds_it_is_ready(injector: &Injector) {
    injector.wait_for_log("ready");
    assert_eq!(injector.readiness()["status"], "ok");
    assert_eq!(injector.wait_for_lines("kind_absent", 2).len(), 2);
    assert!(injector.logged("watch_failed").is_empty());
    assert!(injector.images("default").is_empty());
}

async fn applied_changed_broken_and_deleted(cluster: &Cluster, injector: &Injector) {
    let kind = "ClusterSidecarDefinition";
    apply(cluster, &definition(kind, "log", "log:1"), "default").await;
    // The kinds are asked for every few seconds only, as long as they are not there.
    injector.wait_for_images("default", &["log:1"]);
    apply(cluster, &definition(kind, "log", "log:2"), "default").await;
    injector.expect_images("default", &["log:2"]);

    let mut broken = definition(kind, "log", "log:3");
    broken["spec"]["parameters"] = json!([{"name": "level", "type": "integer", "default": "high"}]);
    apply(cluster, &broken, "default").await;
    let invalid = injector.wait_for_log("definition_invalid");
    assert_eq!(
        (&invalid["definition"], &invalid["source"]),
        (&json!("log"), &json!("ClusterSidecarDefinition log"))
    );
    assert!(invalid["problems"].as_str().unwrap().starts_with("spec.parameters[0].default: "), "{invalid}");
    injector.expect_images("default", &["log:2"]);

    // An object that is nothing like a definition disturbs nobody.
    let odd =
        json!({"apiVersion": "sidecar.me/v1alpha1", "kind": kind, "metadata": {"name": "odd"}, "spec": 5});
    apply(cluster, &odd, "default").await;
    apply(cluster, &definition(kind, "log", "log:4"), "default").await;
    injector.expect_images("default", &["log:4"]);
    assert_eq!(injector.wait_for_lines("definition_invalid", 2).len(), 2);

    // Others write into an object's metadata all the time.
    let before = injector.logged("definitions_loaded").len();
    kubectl(cluster, &["annotate", kind, "log", "example.com/a=b"]).await;
    apply(cluster, &definition(kind, "second", "second:1"), "default").await;
    injector.expect_images("default", &["log:4", "second:1"]);
    kubectl(cluster, &["delete", kind, "log", "odd"]).await;
    injector.expect_images("default", &["second:1"]);
    assert_eq!(injector.wait_for_lines("definition_removed", 1)[0]["definition"], "log");
    kubectl(cluster, &["delete", kind, "second"]).await;
    injector.expect_images("default", &[]);
    injector.wait_for_lines("definitions_loaded", before + 1);
}

async fn namespaced_ones_stay_in_their_namespace(cluster: &Cluster, injector: &Injector) {
    let (one, two) = (
        cluster.temporary_namespace("one").await.unwrap(),
        cluster.temporary_namespace("two").await.unwrap(),
    );
    let kind = "SidecarDefinition";
    apply(cluster, &definition(kind, "log", "one:1"), one.name()).await;
    injector.wait_for_images(one.name(), &["one:1"]);
    apply(cluster, &definition(kind, "log", "two:1"), two.name()).await;
    injector.expect_images(two.name(), &["two:1"]);
    apply(cluster, &definition("ClusterSidecarDefinition", "log", "all:1"), "default").await;
    injector.expect_images("default", &["all:1"]);
    kubectl(cluster, &["delete", "ClusterSidecarDefinition", "log"]).await;
    injector.expect_images("default", &[]);
    injector.expect_images(one.name(), &["one:1"]);
    kubectl(cluster, &["delete", kind, "log", "--namespace", one.name()]).await;
    injector.expect_images(one.name(), &[]);
    injector.expect_images(two.name(), &["two:1"]);
}

async fn labels_of_namespaces_are_followed(cluster: &Cluster, injector: &Injector) {
    let namespace = cluster.temporary_namespace("team").await.unwrap();
    let mut selecting = definition("ClusterSidecarDefinition", "team", "team:1");
    selecting["spec"]["selector"] = json!({"namespaceSelector": {"matchLabels": {"team": "a"}}});
    apply(cluster, &selecting, "default").await;
    kubectl(cluster, &["label", "namespace", namespace.name(), "team=a"]).await;
    injector.expect_images(namespace.name(), &["team:1"]);
    injector.expect_images("default", &[]);
    kubectl(cluster, &["annotate", "namespace", namespace.name(), "sidecar.me/inject=false"]).await;
    injector.expect_images(namespace.name(), &[]);
    kubectl(cluster, &["annotate", "namespace", namespace.name(), "sidecar.me/inject-"]).await;
    kubectl(cluster, &["label", "namespace", namespace.name(), "team=b", "--overwrite"]).await;
    injector.expect_images(namespace.name(), &[]);
    kubectl(cluster, &["delete", "ClusterSidecarDefinition", "team"]).await;
    assert!(injector.logged("namespaces_unknown").is_empty());
}

/// While the API server is away everything is served as before; what changed meanwhile is found when it is back.
async fn an_api_server_that_was_away_is_listed_anew(cluster: &Cluster, injector: &Injector) {
    let kind = "ClusterSidecarDefinition";
    for name in ["kept", "deleted"] {
        apply(cluster, &definition(kind, name, &format!("{name}:1")), "default").await;
    }
    injector.expect_images("default", &["deleted:1", "kept:1"]);
    cluster.stop_api_server().await.unwrap();
    injector.wait_for_log("watch_failed");
    injector.expect_images("default", &["deleted:1", "kept:1"]);
    assert_eq!(injector.readiness()["status"], "ok");
    missing_what_happens(cluster, injector, &["delete", kind, "deleted"]).await;
    injector.wait_for_images("default", &["kept:1"]);
    injector.wait_for_log("watch_recovered");
    assert!(injector.logged("watch_failed").len() < 20, "{:?}", injector.logged("watch_failed"));
    apply(cluster, &definition(kind, "kept", "kept:2"), "default").await;
    injector.expect_images("default", &["kept:2"]);
}

/// Has something done while the injector cannot see it, and the API server forget how it came about.
async fn missing_what_happens(cluster: &Cluster, injector: &Injector, arguments: &[&str]) {
    // Without a connection in which the news would wait to be read.
    cluster.stop_api_server().await.unwrap();
    injector.signal("-STOP");
    cluster.start_api_server().await.unwrap();
    kubectl(cluster, arguments).await;
    cluster.stop_api_server().await.unwrap();
    cluster.start_api_server().await.unwrap();
    injector.signal("-CONT");
}

/// A second injector has the name from a file, and sees the same object as the first one.
fn names_of_files_are_theirs(cluster: &Cluster) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kept.yaml");
    std::fs::write(&file, definition("ClusterSidecarDefinition", "kept", "file:1").to_string()).unwrap();
    let injector = Injector::start(cluster.kubeconfig(), &[("DEFINITIONS", folder.path().to_str().unwrap())]);
    let invalid = injector.wait_for_log("definition_invalid");
    assert_eq!(invalid["source"], "ClusterSidecarDefinition kept");
    assert!(invalid["problems"].as_str().unwrap().contains("kept.yaml:1"), "{invalid}");
    injector.expect_images("default", &["file:1"]);
    std::fs::remove_file(file).unwrap();
    injector.expect_images("default", &["kept:2"]);
}

async fn kinds_that_are_removed_take_their_objects_along(cluster: &Cluster, injector: &Injector) {
    injector.expect_images("default", &["kept:2"]);
    missing_what_happens(cluster, injector, &["delete", "crd", "clustersidecardefinitions.sidecar.me"]).await;
    injector.wait_for_images("default", &[]);
    // Installed again it is as if it had never been away.
    apply(cluster, &kinds(), "default").await;
    kubectl(cluster, &["wait", "--for=condition=Established", "crd", "--all"]).await;
    apply(cluster, &definition("ClusterSidecarDefinition", "again", "again:1"), "default").await;
    injector.wait_for_images("default", &["again:1"]);
    assert_eq!(injector.readiness()["status"], "ok");
}
