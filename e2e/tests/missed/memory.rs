//! How much memory it takes to watch many pods. Measured by hand:
//! `PODS=50000 cargo test --package e2e --test missed memory -- --ignored --nocapture`

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use e2e::labelled_pod;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};
use sidecar_testkit::{Cluster, Options, Tier};

/// Of every ten pods so many are what a definition is meant for, and have it.
const SHARES: [usize; 2] = [1, 10];

/// How long all that is looked at.
const LIMIT: Duration = Duration::from_mins(3);

/// An injector that reports; its log, line by line.
fn start(cluster: &Cluster) -> (Child, std::sync::mpsc::Receiver<Value>) {
    let mut child = Command::new(e2e::injector_binary().unwrap())
        .arg("serve")
        .envs([("HTTP_PORT", "0"), ("MISSED_PODS", "report"), ("LOG_FORMAT", "json")])
        .env("KUBECONFIG", cluster.kubeconfig())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = child.stderr.take().unwrap();
    let (lines, log) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            let _ = lines.send(serde_json::from_str(&line).unwrap_or_default());
        }
    });
    (child, log)
}

/// Resident memory now, and at most so far, in KiB.
fn memory(child: &Child) -> [u64; 2] {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    ["VmRSS:", "VmHWM:"].map(|field| {
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    })
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes, and asserts nothing"]
async fn watching_many_pods() {
    let wanted: usize = std::env::var("PODS").map_or(50_000, |pods| pods.parse().unwrap());
    let cluster = Cluster::start(Tier::Api, Options::default()).await.unwrap();
    for share in SHARES {
        let started = Instant::now();
        let mut tasks = Vec::new();
        for task in 0..24 {
            let pods: Api<Pod> = Api::namespaced(cluster.client().unwrap(), "default");
            tasks.push(tokio::spawn(async move {
                for number in (task..wanted).step_by(24) {
                    let is_meant = number % 10 < share;
                    // Those of the first share are there already.
                    if share > SHARES[0] && number % 10 < SHARES[0] {
                        continue;
                    }
                    let mut pod = labelled_pod(&format!("web-{share}-7695d9cf-{number:06}"));
                    if is_meant {
                        let curl = json!({
                            "name": "curl", "image": "yauritux/busybox-curl:latest", "imagePullPolicy": "IfNotPresent",
                            "command": ["/bin/sh", "-ec", "while :; do echo '.'; sleep 5 ; done"],
                        });
                        pod["spec"]["containers"].as_array_mut().unwrap().push(curl);
                    } else {
                        pod["metadata"]["labels"] = json!({"app": "web", "pod-template-hash": "7695d9cf"});
                    }
                    let pod: Pod = serde_json::from_value(pod).unwrap();
                    pods.create(&PostParams::default(), &pod).await.unwrap();
                }
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        eprintln!("{share} of ten: pods created in {:.0?}", started.elapsed());
        let (mut child, log) = start(&cluster);
        let before = loop {
            let line = log.recv_timeout(Duration::from_mins(1)).unwrap();
            if line["event"] == "serving" {
                break memory(&child);
            }
        };
        let started = Instant::now();
        // Looking takes a second for 50 of them; that it is not over yet takes more memory, not less.
        let looked_at = loop {
            match log.recv_timeout(LIMIT.saturating_sub(started.elapsed())) {
                Ok(line) if line["event"] == "missed_pods" => break line,
                Ok(_) => {}
                Err(_) => break Value::Null,
            }
        };
        let after = memory(&child);
        eprintln!(
            "{share} of ten: {} KiB at the start, {} KiB after {:.0?}, {} KiB at most: {looked_at}",
            before[0],
            after[0],
            started.elapsed(),
            after[1]
        );
        child.kill().unwrap();
        child.wait().unwrap();
    }
    cluster.stop().await.unwrap();
}
