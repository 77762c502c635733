//! What definitions say of themselves: true within a second, written by two replicas that do not fight.

use std::time::Duration;

use e2e::{Installation, labelled_pod, wait_for};
use serde_json::{Value, json};
use sidecar_testkit::HelmVersion;

fn definition(name: &str, label: &str) -> Value {
    json!({
        "apiVersion": "sidecar.me/v1alpha1", "kind": "ClusterSidecarDefinition", "metadata": {"name": name},
        "spec": {
            "selector": {"podSelector": {"matchLabels": {"sidecar.me/inject": "true", "status": label}}},
            "inject": {"spec": {"containers": [{"name": name, "image": "a:1"}]}},
        },
    })
}

async fn apply(at: &Installation, object: &Value) {
    at.cluster
        .kubectl_with_input(&["apply", "-f", "-"], &object.to_string())
        .await
        .unwrap()
        .checked()
        .unwrap();
}

async fn status(at: &Installation, name: &str) -> Value {
    at.get(&["clustersidecardefinition", name]).await.unwrap()["status"].clone()
}

fn condition<'s>(status: &'s Value, kind: &str) -> &'s Value {
    let conditions = status["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    conditions.iter().find(|condition| condition["type"] == kind).unwrap_or(&Value::Null)
}

/// What `kubectl get` shows in the columns Ready and Injected.
async fn row(at: &Installation, name: &str) -> String {
    let row = at.kubectl(&["get", "clustersidecardefinitions", name, "--no-headers"]).await.unwrap();
    let words: Vec<_> = row.split_whitespace().collect();
    words[words.len() - 3..words.len() - 1].join(" ")
}

#[tokio::test(flavor = "multi_thread")]
async fn definitions_say_whether_they_are_served_and_two_replicas_do_not_fight() {
    let at = Installation::start().await.unwrap();
    let good = definition("good", "good");
    apply(&at, &good).await;
    let wait = ["wait", "--for=condition=Ready", "--timeout=10s", "clustersidecardefinition/good"];
    at.kubectl(&wait).await.unwrap();
    assert_eq!(row(&at, "good").await, "True 0");

    for number in 0..5 {
        let mut pod = labelled_pod(&format!("counted-{number}"));
        pod["metadata"]["labels"]["status"] = "good".into();
        at.create(&pod, &["-n", "default"]).await.unwrap();
        at.create(&labelled_pod("not-counted"), &["-n", "default", "--dry-run=server"]).await.unwrap();
    }
    wait_for("the number of pods", async || Ok(status(&at, "good").await["injectedPods"] == 5))
        .await
        .unwrap();

    // Nobody writes without a reason.
    let version = async || {
        at.get(&["clustersidecardefinition", "good"]).await.unwrap()["metadata"]["resourceVersion"].clone()
    };
    let before = version().await;
    tokio::time::sleep(Duration::from_secs(35)).await;
    assert_eq!(version().await, before);

    // Wrong in a way that only the injector sees; nobody validates, so it is in the cluster.
    at.kubectl(&["delete", "validatingwebhookconfiguration", "kubernetes-sidecar-injector"]).await.unwrap();
    let mut bad = good.clone();
    bad["spec"]["inject"]["spec"]["containers"][0]["volumeMounts"] =
        json!([{"name": "gone", "mountPath": "/gone"}]);
    apply(&at, &bad).await;
    wait_for("a definition that is not ready", async || {
        let status = status(&at, "good").await;
        let ready = condition(&status, "Ready");
        Ok(ready["status"] == "False"
            && ready["reason"] == "DanglingReference"
            && status["observedGeneration"] == 2
            && condition(&status, "Stalled")["status"] == "True")
    })
    .await
    .unwrap();
    assert_eq!(row(&at, "good").await, "False 0");
    apply(&at, &good).await;
    wait_for("a definition that is ready again", async || {
        let status = status(&at, "good").await;
        Ok(condition(&status, "Ready")["status"] == "True" && condition(&status, "Stalled").is_null())
    })
    .await
    .unwrap();

    // A file of the chart has this name.
    apply(&at, &definition("curl", "other")).await;
    wait_for("a conflict", async || {
        let status = status(&at, "curl").await;
        Ok(condition(&status, "Conflicted")["status"] == "True"
            && condition(&status, "Ready")["reason"] == "NameTaken")
    })
    .await
    .unwrap();
    at.cluster
        .helm(HelmVersion::Four, &["uninstall", "kubernetes-sidecar-injector", "-n", "default"])
        .await
        .unwrap();
    at.cluster.stop().await.unwrap();
}
