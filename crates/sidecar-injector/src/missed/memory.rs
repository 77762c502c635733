//! How much memory it takes when all of 50,000 pods go without their sidecar: for all of them it is remembered what is to be said and done.

use std::env;
use std::process::Command;
use std::time::SystemTime;

use k8s_openapi::api::core::v1::Pod;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::judge::tests::watchdog;
use super::pods::Pods;
use super::repair::Repairs;

/// Without optimization it takes half a minute to look at all of them, in which other tests wait for the processor: then a fifth.
const SHARE: usize = if cfg!(debug_assertions) { 5 } else { 1 };

const PODS: usize = 50_000 / SHARE;

/// So many pods have one owner.
const SIBLINGS: usize = 3;

/// In KiB: nearly twice what it takes, and a third of what a replica may have.
const LIMIT: u64 = 48 << 10;

/// Set for a process that measures itself: others run beside a test, and have memory, too.
const MEASURES: &str = "MEASURES_MISSED_PODS";

const DEFINITION: &str = "
apiVersion: sidecar.me/v1alpha1
kind: ClusterSidecarDefinition
metadata: {name: log-shipper}
spec:
  selector: {podSelector: {}}
  missedPods: Repair
  inject: {spec: {containers: [{name: log-shipper, image: 'logs:1'}]}}
";

fn metadata(number: usize) -> Value {
    let owner = format!("storefront-web-{:08x}", number / SIBLINGS);
    json!({
        "name": format!("{owner}-{number:05}"),
        "namespace": format!("department-{:03}", number % 500),
        "uid": format!("{number:08}-2222-3333-4444-555555555555"),
        "creationTimestamp": "2026-11-24T10:00:00Z",
        "labels": {"app.kubernetes.io/name": "web", "pod-template-hash": "7695d9cf"},
        "ownerReferences": [{
            "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": owner, "uid": owner, "controller": true,
        }],
    })
}

/// A line of what the kernel says about this process, in KiB.
fn memory(line: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|text| text.strip_prefix(line)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

fn measure() {
    let watchdog = watchdog(DEFINITION);
    let mut pods = Pods::default();
    let start = memory("VmRSS:");
    watchdog.take_in(&mut pods, Event::Init);
    for number in 0..PODS {
        let metadata = serde_json::from_value(metadata(number)).unwrap();
        let pod = PartialObjectMeta::<Pod> { metadata, ..PartialObjectMeta::default() };
        watchdog.take_in(&mut pods, Event::InitApply(pod));
    }
    watchdog.take_in(&mut pods, Event::InitDone);
    let listed = memory("VmHWM:");
    let mut number = 0;
    while let Some(waiting) = pods.next() {
        let containers = json!([{"name": "app", "image": "app:1"}]);
        let pod = json!({"metadata": metadata(number), "spec": {"containers": containers}});
        watchdog.judge(&mut pods, &waiting, &pod.to_string());
        pods.settle();
        number += 1;
    }
    let (candidates, _) =
        Repairs::default().candidates(&pods, |_| true, Instant::now(), SystemTime::UNIX_EPOCH);
    assert_eq!((pods.without().len(), candidates.len()), (PODS, PODS));
    let of_all = |peak| (peak - start) * u64::try_from(SHARE).unwrap();
    let (listed, more) = (of_all(listed), of_all(memory("VmHWM:")));
    eprintln!("{listed} KiB more when listed, {more} KiB more when all go without");
    assert!(more < LIMIT, "{more} KiB more");
}

#[tokio::test]
async fn fifty_thousand_pods_that_go_without_leave_room_for_reviews() {
    if env::var_os(MEASURES).is_some() {
        return measure();
    }
    let this = "missed::memory::fifty_thousand_pods_that_go_without_leave_room_for_reviews";
    let mut command = Command::new(env::current_exe().unwrap());
    let output = command.args([this, "--exact", "--nocapture"]).env(MEASURES, "yes").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    eprintln!("{said}");
    assert!(output.status.success() && said.contains("when all go without"), "{said}");
}
