//! One pod that goes without its sidecar, seen in five places with the same reason: the warning at its creation, the Event, the metric,
//! the line of the log and the audit log. And that the probe of a cluster that is well comes back with its answer.

// A test may panic; clippy.toml says so for the test functions, this for their helpers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use e2e::{Installation, labelled_pod, wait_for};
use serde_json::{Value, json};
use sidecar_testkit::{Cluster, Options, Tier};

const MESSAGE: &str = "sidecar shipper: InvalidParameter: level: \"loud\" is not allowed: one of info, warn";

/// One definition with a parameter; the injector probes itself, and everything is scraped.
const INSTALL: &str = "helm install kubernetes-sidecar-injector charts/kubernetes-sidecar-injector/ --namespace default \
    --set selfProbe.enabled=true,selfProbe.interval=2s --set-json 'definitions={\"curl\":null,\"shipper\":{\
    \"parameters\":[{\"name\":\"level\",\"type\":\"string\",\"default\":\"info\",\"allowed\":[\"info\",\"warn\"]}],\
    \"inject\":{\"spec\":{\"containers\":[{\"name\":\"shipper\",\"image\":\"shipper:1\",\"args\":[\"${params.level}\"]}]}}}}'";

async fn events(at: &Installation, namespace: &str, reason: &str) -> Result<Vec<Value>> {
    let selector = format!("--field-selector=reason={reason}");
    let list = at.get(&["events.v1.events.k8s.io", "-n", namespace, &selector]).await?;
    Ok(list["items"].as_array().cloned().unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_without_its_sidecar_can_be_traced_in_five_places() {
    let folder = tempfile::tempdir().unwrap();
    let (policy, audit) = (folder.path().join("policy.yaml"), folder.path().join("audit.log"));
    let pods = json!({
        "apiVersion": "audit.k8s.io/v1", "kind": "Policy",
        "rules": [{"level": "Metadata", "resources": [{"group": "", "resources": ["pods"]}], "omitStages": ["RequestReceived"]}],
    });
    std::fs::write(&policy, pods.to_string()).unwrap();
    let options = Options {
        injector: Some(e2e::injector_binary().unwrap()),
        api_server_flags: vec![
            format!("--audit-policy-file={}", policy.display()),
            format!("--audit-log-path={}", audit.display()),
        ],
        ..Options::default()
    };
    let at = Installation { cluster: Cluster::start(Tier::Charts, options).await.unwrap() };
    at.shell(INSTALL).await.unwrap();
    at.wait_for_rollout().await.unwrap();

    // The probe: in itself, and as the sign that the API server asks us by now.
    wait_for("answered probe of both replicas", async || {
        Ok(at.scrape()?.get("sidecar_injector_self_probe_success").is_some_and(|sum| *sum > 1.5))
    })
    .await
    .unwrap();
    every_documented_metric_is_there(&at.scrape().unwrap());

    let namespace = at.cluster.temporary_namespace("trace").await.unwrap();
    let namespace = namespace.name();
    let skips = "sidecar_injector_skips_total{reason=\"InvalidParameter\"}";
    let before = at.scrape().unwrap()[skips];
    let mut pod = labelled_pod("quiet");
    pod["metadata"]["annotations"] = json!({"shipper.sidecar.me/level": "loud"});
    // A dry run of the same leaves no trace but the warning.
    let dry = at.try_create(&pod, &["-n", namespace, "--dry-run=server"]).await.unwrap();
    assert!(dry.stderr.contains(MESSAGE), "{dry}");

    // 1. The warning.
    let output = at.try_create(&pod, &["-n", namespace]).await.unwrap();
    assert!(output.stderr.contains(&format!("Warning: {MESSAGE}")), "{output}");
    let made: Value = serde_json::from_str(&output.checked().unwrap()).unwrap();
    e2e::expect_containers(&made, "app").unwrap();

    // 2. The Event.
    let mut found = Vec::new();
    wait_for("Event", async || {
        found = events(&at, namespace, "SidecarInjectionSkipped").await?;
        Ok(!found.is_empty())
    })
    .await
    .unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    let event = &found[0];
    assert_eq!((&event["type"], &event["note"]), (&json!("Warning"), &json!(MESSAGE)));
    assert_eq!(event["reportingController"], "sidecar.me/injector");
    assert_eq!((&event["regarding"]["kind"], &event["regarding"]["name"]), (&json!("Pod"), &json!("quiet")));

    // 3. The metric.
    let after = at.scrape().unwrap()[skips];
    assert!((after - before - 1.0).abs() < 0.5, "{before} {after}");

    // 4. The line of the log.
    let logged = at.logged_reviews(namespace, "quiet").unwrap();
    let real: Vec<_> = logged.iter().filter(|line| line["dry_run"] == false).collect();
    assert_eq!(real.len(), 1, "{logged:?}");
    assert_eq!((&real[0]["reasons"], &real[0]["messages"]), (&json!("InvalidParameter"), &json!(MESSAGE)));

    // 5. The audit log.
    let mut annotations = BTreeMap::new();
    wait_for("line of the audit log", async || {
        annotations = audited(&std::fs::read_to_string(&audit)?, namespace, "quiet");
        Ok(!annotations.is_empty())
    })
    .await
    .unwrap();
    let missed: Vec<_> =
        annotations.iter().filter(|(key, _)| key.starts_with("injector.sidecar.me/missed-")).collect();
    assert_eq!(missed.len(), 1, "{annotations:?}");
    assert_eq!(missed[0].1, MESSAGE);

    // Who is injected is told as well: the owner, and once for both calls that the API server makes for the pod.
    let set = json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "web"},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web", "sidecar.me/inject": "true"}},
                "spec": {"containers": [{"name": "app", "image": "app:1"}]},
            },
        },
    });
    let set = at.create(&set, &["-n", namespace]).await.unwrap();
    let web = at.pods(namespace, "app=web", 1).await.unwrap().remove(0);
    e2e::expect_containers(&web, "app shipper").unwrap();
    wait_for("Event on the owner", async || {
        found = events(&at, namespace, "SidecarInjected").await?;
        Ok(!found.is_empty())
    })
    .await
    .unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0]["note"], "added shipper");
    assert_eq!(found[0]["regarding"]["uid"], set["metadata"]["uid"]);
    let described = at.kubectl(&["describe", "replicaset", "web", "-n", namespace]).await.unwrap();
    assert!(described.contains("SidecarInjected"), "{described}");
    // A pod of a controller has no name yet when it is asked for.
    wait_for("line of the audit log", async || {
        annotations = audited(&std::fs::read_to_string(&audit)?, namespace, "");
        Ok(!annotations.is_empty())
    })
    .await
    .unwrap();
    let injected: Vec<_> =
        annotations.iter().filter(|(key, _)| key.starts_with("injector.sidecar.me/injected-")).collect();
    assert_eq!(injected.len(), 1, "{annotations:?}");
    assert_eq!(injected[0].1, "shipper");
    at.cluster.stop().await.unwrap();
}

/// The annotations of the request that made a pod.
fn audited(log: &str, namespace: &str, name: &str) -> BTreeMap<String, String> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let made = lines.filter(|line| {
        let object = &line["objectRef"];
        let is_dry = line["requestURI"].as_str().is_some_and(|uri| uri.contains("dryRun"));
        line["verb"] == "create"
            && object["namespace"] == namespace
            && object["name"].as_str().unwrap_or_default() == name
            && !is_dry
            && object.get("subresource").is_none()
    });
    let annotations = made.filter_map(|line| line["annotations"].as_object().cloned()).flatten();
    annotations.filter_map(|(key, value)| Some((key, value.as_str()?.to_owned()))).collect()
}

/// Here, where the server has all that it can have.
fn every_documented_metric_is_there(scraped: &BTreeMap<String, f64>) {
    let page =
        std::fs::read_to_string(sidecar_testkit::repository_root().join("docs/operations.md")).unwrap();
    let documented: BTreeSet<_> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .filter(|name| name.starts_with("sidecar_injector_") || name.starts_with("process_"))
        .collect();
    let names: BTreeSet<_> =
        scraped.keys().map(|series| series.split('{').next().unwrap_or_default()).collect();
    for name in documented {
        let is_there = names.contains(name) || names.contains(format!("{name}_count").as_str());
        assert!(is_there, "docs/operations.md has {name}, the server has not");
    }
}
