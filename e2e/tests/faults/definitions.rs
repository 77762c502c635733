//! Definitions that are applied, changed, broken and deleted under load.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use e2e::load::Load;
use e2e::{Installation, wait_for};
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

use crate::{record, short_or_long};

const VALIDATION: [&str; 2] = ["validatingwebhookconfiguration", "kubernetes-sidecar-injector"];

/// Good ones come and go, broken ones are refused, and those that got past the check disable nothing but themselves.
pub(crate) async fn definitions_come_and_go(at: &Installation) -> Result<()> {
    exempt_unchecked(at, true).await?;
    let load = Load::start(at).await?;
    let churned = churn(at, Duration::from_secs(short_or_long(15, 120))).await;
    let report = record(load.finish("Definitions, good and broken, applied and deleted all the time").await?);
    exempt_unchecked(at, false).await?;
    churned?;
    report.expect_nothing_lost()
}

async fn churn(at: &Installation, time: Duration) -> Result<()> {
    let kind = GroupVersionKind::gvk("sidecar.me", "v1alpha1", "ClusterSidecarDefinition");
    let resource = ApiResource::from_gvk(&kind);
    let definitions: Api<DynamicObject> = Api::all_with(at.cluster.client()?, &resource);
    let apply = async |object: &Value| {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        definitions.patch(name, &PatchParams::apply("faults").force(), &Patch::Apply(object)).await
    };
    let started = Instant::now();
    let mut refused = 0;
    for round in 0.. {
        let (good, broken) = (format!("${{'{round}'}}"), format!("${{nothing.of('{round}'"));
        apply(&definition("good", "checked", &good)).await?;
        apply(&definition("broken", "unchecked", if round % 2 == 0 { &broken } else { &good })).await?;
        if apply(&definition("refused", "checked", &broken)).await.is_err() {
            refused += 1;
        }
        for name in ["good", "broken"] {
            tokio::time::sleep(Duration::from_millis(100)).await;
            definitions.delete(name, &DeleteParams::default()).await?;
        }
        if started.elapsed() > time {
            ensure!(refused == round + 1, "{refused} of {} broken definitions were refused", round + 1);
            break;
        }
    }
    Ok(())
}

/// For every pod of the load.
fn definition(name: &str, check: &str, value: &str) -> Value {
    let annotation = format!("faults.example.com/{name}");
    json!({
        "apiVersion": "sidecar.me/v1alpha1", "kind": "ClusterSidecarDefinition",
        "metadata": {"name": name, "labels": {"check": check}},
        "spec": {"selector": {"podSelector": {"matchLabels": {"app": "load"}}},
                 "inject": {"metadata": {"annotations": {annotation: value}}}}})
}

/// Keeps definitions labelled `check: unchecked` from the webhook that would refuse broken ones.
async fn exempt_unchecked(at: &Installation, exempt: bool) -> Result<()> {
    let configuration = at.get(&VALIDATION).await?;
    let webhooks = configuration["webhooks"].as_array().map_or(0, Vec::len);
    let expressions = if exempt {
        json!([{"key": "check", "operator": "NotIn", "values": ["unchecked"]}])
    } else {
        json!([])
    };
    let operation = |number| json!({"op": "add", "path": format!("/webhooks/{number}/objectSelector"), "value": {"matchExpressions": expressions}});
    let patch = (0..webhooks).map(operation).collect::<Value>().to_string();
    at.kubectl(&[&["patch"], &VALIDATION[..], &["--type=json", "-p", &patch]].concat()).await?;
    if exempt {
        // Once the API server has seen it.
        let object = definition("unchecked", "unchecked", "${nothing.of(").to_string();
        let apply = ["apply", "--dry-run=server", "-f", "-"];
        wait_for("a definition that nobody checks", async || {
            Ok(at.cluster.kubectl_with_input(&apply, &object).await?.success())
        })
        .await?;
    }
    Ok(())
}
