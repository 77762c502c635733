//! Pods that controllers make, and the article's charts.

use anyhow::{Result, ensure};
use e2e::{INSTALL_HTTPBIN, Installation, expect_containers};
use serde_json::{Value, json};
use sidecar_testkit::HelmVersion;

pub(crate) async fn pods_of_every_controller_are_injected(at: &Installation) -> Result<()> {
    let namespace = at.cluster.temporary_namespace("workloads").await?;
    let namespace = namespace.name();
    let template = |app: &str, restart: &str| {
        json!({
            "metadata": {"labels": {"app": app, "sidecar.me/inject": "true"}},
            "spec": {"restartPolicy": restart, "containers": [{"name": "app", "image": "app:1"}]},
        })
    };
    let object = |version: &str, kind: &str, name: &str, spec: Value| json!({"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec});
    let selector = |app: &str| json!({"matchLabels": {"app": app}});
    let always = |app: &str| template(app, "Always");
    let workloads = [
        (
            2,
            object(
                "apps/v1",
                "Deployment",
                "deployment",
                json!({"replicas": 2, "selector": selector("deployment"), "template": always("deployment")}),
            ),
        ),
        (
            1,
            object(
                "apps/v1",
                "StatefulSet",
                "stateful",
                json!({"serviceName": "stateful", "selector": selector("stateful"), "template": always("stateful")}),
            ),
        ),
        (
            1,
            object(
                "apps/v1",
                "DaemonSet",
                "daemon",
                json!({"selector": selector("daemon"), "template": always("daemon")}),
            ),
        ),
        (
            1,
            object(
                "apps/v1",
                "ReplicaSet",
                "replica",
                json!({"selector": selector("replica"), "template": always("replica")}),
            ),
        ),
        (1, object("batch/v1", "Job", "job", json!({"template": template("job", "Never")}))),
        (
            1,
            object(
                "batch/v1",
                "CronJob",
                "cron",
                json!({"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": template("cron", "Never")}}}),
            ),
        ),
    ];
    for (_, workload) in &workloads {
        at.create(workload, &["-n", namespace]).await?;
    }
    at.kubectl(&["create", "job", "from-cron", "--from=cronjob/cron", "-n", namespace]).await?;
    for (pods, workload) in &workloads {
        let app = workload["metadata"]["name"].as_str().unwrap_or_default();
        // On a cluster of several nodes a DaemonSet has several pods; ours has one.
        let pods = if app == "daemon" && at.cluster.is_external() { continue } else { *pods };
        for pod in at.pods(namespace, &format!("app={app}"), pods).await? {
            expect_containers(&pod, "app curl")?;
            // Regression: a patch from a typed pod loses what owners select by.
            ensure!(pod["metadata"]["ownerReferences"][0]["name"].is_string(), "{pod}");
        }
    }
    Ok(())
}

/// The article's second command word for word, and its selector.
pub(crate) async fn httpbin_has_its_sidecar_with_both_helms(at: &Installation) -> Result<()> {
    for helm in [HelmVersion::Four, HelmVersion::Three] {
        at.cluster.shell(helm, INSTALL_HTTPBIN).await?.checked()?;
        let pods = at
            .pods("default", "app.kubernetes.io/name=httpbin,app.kubernetes.io/instance=httpbin", 1)
            .await?;
        expect_containers(&pods[0], "httpbin curl")?;
        let names = at
            .cluster
            .shell(
                helm,
                "export POD_NAME=$(kubectl get pods --namespace default -l \
                 \"app.kubernetes.io/name=httpbin,app.kubernetes.io/instance=httpbin\" -o jsonpath=\"{.items[0].metadata.name}\")
                 kubectl get pods $POD_NAME --namespace default -o jsonpath='{.spec.containers[*].name}'",
            )
            .await?
            .checked()?;
        ensure!(names == "httpbin curl", "{names}");
        // Regression: the inject label was part of the Deployment's selector, which cannot be changed.
        let deployment = at.get(&["deployment", "httpbin", "-n", "default"]).await?;
        ensure!(
            deployment["spec"]["selector"]["matchLabels"].get("sidecar.me/inject").is_none(),
            "{deployment}"
        );
        at.cluster.shell(helm, "helm uninstall httpbin --namespace default --wait").await?.checked()?;
        at.pods("default", "app.kubernetes.io/instance=httpbin", 0).await?;
    }
    Ok(())
}

pub(crate) async fn helm_test_passes(at: &Installation) -> Result<()> {
    for helm in [HelmVersion::Four, HelmVersion::Three] {
        let output = at
            .cluster
            .shell(helm, "helm test kubernetes-sidecar-injector --namespace default")
            .await?
            .checked()?;
        ensure!(output.contains("Succeeded"), "{output}");
    }
    Ok(())
}
