//! How much memory it takes to watch many pods: of those that no definition is meant for, none. What it takes when all of them go without
//! is measured by a unit test, `missed::memory`: to look at them all takes a quarter of an hour.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::ops::Range;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sidecar_testkit::{Cluster, Options, Tier};

const PODS: usize = 50_000;

/// Of so many pods one is meant, where not all are.
const SHARE: usize = 10;

/// What etcd takes at once.
const BATCH: usize = 128;

/// How long the injector may be silent.
const PATIENCE: Duration = Duration::from_mins(3);

/// How many characters of a uid are a number here.
const NUMBER: usize = 8;

/// How much more memory an injector may have at most than at its start, in KiB: nearly twice what it takes. The metadata of all
/// pods would be ten times as much.
const LIMIT: u64 = 48 << 10;

/// etcd, by its gateway for HTTP.
struct Etcd((Ipv4Addr, u16));

impl Etcd {
    fn ask(&self, path: &str, question: &Value) -> Result<Value> {
        let mut stream = TcpStream::connect(self.0)?;
        let body = question.to_string();
        write!(stream, "POST {path} HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("not HTTP")?;
        ensure!(head.contains(" 200 "), "{answer}");
        Ok(serde_json::from_str(body)?)
    }

    /// An object as the API server has stored it.
    fn get(&self, key: &str) -> Result<Vec<u8>> {
        let answer = self.ask("/v3/kv/range", &json!({"key": STANDARD.encode(key)}))?;
        let value = answer["kvs"][0]["value"].as_str().with_context(|| format!("no {key}"))?;
        Ok(STANDARD.decode(value)?)
    }

    fn put(&self, entries: &[(String, Vec<u8>)]) -> Result<()> {
        let puts = entries.iter().map(|(key, value)| {
            json!({"requestPut": {"key": STANDARD.encode(key), "value": STANDARD.encode(value)}})
        });
        self.ask("/v3/kv/txn", &json!({"success": puts.collect::<Vec<_>>()})).map(drop)
    }
}

/// A pod, with as much metadata as pods have that a controller makes.
fn pod(name: &str, meant: &str) -> Value {
    let text = "a text of some length, as controllers and meshes and scanners leave it behind; ".repeat(4);
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": {
                "app.kubernetes.io/name": "web", "app.kubernetes.io/instance": "web", "pod-template-hash": "7695d9cf",
                "meant": meant,
            },
            "annotations": {"example.com/configuration": text, "sidecar.me/inject": ","},
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-7695d9cf", "controller": true,
                "uid": "11111111-2222-3333-4444-555555555555",
            }],
        },
        "spec": {"containers": [{"name": "app", "image": "app:1"}]},
    })
}

/// What the API server has stored of a pod, to be copied under other names.
struct Model {
    stored: Vec<u8>,
    /// Where its name and its uid stand.
    names: Vec<Range<usize>>,
    uids: Vec<Range<usize>>,
}

impl Model {
    /// Creates a pod by the API.
    async fn create(cluster: &Cluster, etcd: &Etcd, meant: &str) -> Result<Self> {
        let name = name(meant);
        let input = pod(&name, meant).to_string();
        let created = cluster.kubectl_with_input(&["create", "-f", "-", "-o", "json"], &input).await?;
        let created: Value = serde_json::from_str(&created.checked()?)?;
        let uid = created["metadata"]["uid"].as_str().context("no uid")?;
        let stored = etcd.get(&key(&name))?;
        let places = |text: &str| -> Vec<_> {
            let starts = 0..stored.len() - text.len();
            let ranges = starts.map(|start| start..start + text.len());
            ranges.filter(|range| stored[range.clone()] == *text.as_bytes()).collect()
        };
        let (names, uids) = (places(&name), places(&uid[..NUMBER]));
        ensure!(!names.is_empty() && uids.len() == 1, "{names:?} {uids:?}");
        Ok(Model { stored, names, uids })
    }

    fn copy(&self, number: usize) -> (String, Vec<u8>) {
        let name = name(&number.to_string());
        let mut copy = self.stored.clone();
        for range in &self.names {
            copy[range.clone()].copy_from_slice(name.as_bytes());
        }
        for range in &self.uids {
            copy[range.clone()].copy_from_slice(format!("{number:0NUMBER$x}").as_bytes());
        }
        (key(&name), copy)
    }
}

fn name(end: &str) -> String {
    format!("web-7695d9cf-{end:0>5}")
}

fn key(name: &str) -> String {
    format!("/registry/pods/default/{name}")
}

/// Two pods by the API, and the others as copies of them.
async fn fill(cluster: &Cluster) -> Result<()> {
    let etcd = Etcd(cluster.etcd()?);
    let (meant, not_meant) =
        (Model::create(cluster, &etcd, "yes").await?, Model::create(cluster, &etcd, "not").await?);
    let model = |number: &usize| if number.is_multiple_of(SHARE) { &meant } else { &not_meant };
    // Those two are the first.
    let numbers: Vec<_> = (0..PODS).filter(|number| !matches!(number, 0 | 1)).collect();
    for batch in numbers.chunks(BATCH) {
        let copies: Vec<_> = batch.iter().map(|number| model(number).copy(*number)).collect();
        etcd.put(&copies)?;
    }
    Ok(())
}

/// Resident memory at most so far, in KiB.
fn peak(child: &Child) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// How much more an injector has at most than at its start, in KiB, when it has listed all pods; and how many it looks at.
fn measure(cluster: &Cluster, definitions: &Path) -> (u64, u64) {
    let mut child = Command::new(e2e::injector_binary().unwrap())
        .arg("serve")
        .envs([("HTTP_PORT", "0"), ("MISSED_PODS", "report"), ("LOG_FORMAT", "json")])
        .envs([("LOG_LEVEL", "sidecar_injector=debug"), ("WATCH_NAMESPACES", "true")])
        .env("DEFINITIONS", definitions)
        .env("KUBECONFIG", cluster.kubeconfig())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = child.stderr.take().unwrap();
    let (lines, log) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            let _ = lines.send(serde_json::from_str::<Value>(&line).unwrap_or_default());
        }
    });
    let wait = |event: &str| loop {
        let line = log.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no {event}"));
        if line["event"] == event {
            break line;
        }
    };
    wait("serving");
    let start = peak(&child);
    let concerned = wait("pods_listed")["concerned"].as_u64().unwrap();
    let end = peak(&child);
    child.kill().unwrap();
    child.wait().unwrap();
    (end - start, concerned)
}

#[tokio::test(flavor = "multi_thread")]
async fn of_pods_that_no_definition_is_meant_for_nothing_is_kept() {
    let cluster = Cluster::start(Tier::Api, Options::default()).await.unwrap();
    let started = Instant::now();
    fill(&cluster).await.unwrap();
    eprintln!("{PODS} pods in {:.1?}", started.elapsed());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("definition.yaml");
    for (selector, expected) in [("{matchLabels: {meant: 'yes'}}", PODS / SHARE), ("{}", PODS)] {
        let definition = format!(
            "apiVersion: sidecar.me/v1alpha1\nkind: ClusterSidecarDefinition\nmetadata: {{name: logs}}\n\
             spec:\n  selector: {{podSelector: {selector}}}\n  \
             inject: {{spec: {{containers: [{{name: logs, image: logs}}]}}}}\n"
        );
        std::fs::write(&file, definition).unwrap();
        let started = Instant::now();
        let (more, concerned) = measure(&cluster, &file);
        eprintln!("{concerned} concerned: {more} KiB more, after {:.1?}", started.elapsed());
        assert_eq!(usize::try_from(concerned).unwrap(), expected);
        assert!(more < LIMIT, "{more} KiB more with {concerned} of {PODS} pods");
    }
    cluster.stop().await.unwrap();
}
