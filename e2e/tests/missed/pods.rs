//! Pods that run without their sidecar: found, named, and repaired where their definition wants that.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use e2e::{Installation, container_names, wait_for};
use serde_json::{Value, json};

const DEPLOYMENT: &str = "deployment/kubernetes-sidecar-injector";
const LEASE: [&str; 3] = ["lease/kubernetes-sidecar-injector", "-n", "default"];

/// The API server asks about no pod with the label `vain`, which nobody but its author knows.
const NEVER_ASKED: &str = r#"{"name": "not-vain", "expression": "!has(object.metadata.labels) || !(\"vain\" in object.metadata.labels)"}"#;

/// Nor about those of namespaces with the label `private`.
const LEFT_OUT: &str = r#"{"matchExpressions": [{"key": "private", "operator": "DoesNotExist"}]}"#;

/// Of one container for the pods with a label `case` of its name, which ask for it as the chart's default scope wants.
fn definition(name: &str, image: &str, missed_pods: &str) -> Value {
    json!({
        "apiVersion": "sidecar.me/v1alpha1", "kind": "ClusterSidecarDefinition", "metadata": {"name": name},
        "spec": {
            "selector": {"podSelector": {"matchLabels": {"case": name}}},
            "inject": {"spec": {"containers": [{"name": name, "image": image}]}},
            "missedPods": missed_pods,
        },
    })
}

fn template(app: &str, case: &str) -> Value {
    json!({
        // By annotation, since the label would bring the article's sidecar too.
        "metadata": {"labels": {"app": app, "case": case}, "annotations": {"sidecar.me/inject": ","}},
        "spec": {"containers": [{"name": "app", "image": "app:1"}]},
    })
}

fn pod(name: &str, case: &str) -> Value {
    let mut pod = template(name, case);
    pod["apiVersion"] = "v1".into();
    pod["kind"] = "Pod".into();
    pod["metadata"]["name"] = name.into();
    pod
}

fn workload(kind: &str, name: &str, case: &str, replicas: u32) -> Value {
    let mut workload = json!({
        "apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": {"app": name}}, "template": template(name, case)},
    });
    if kind != "DaemonSet" {
        workload["spec"]["replicas"] = replicas.into();
    }
    workload
}

/// The injector with what this is about switched on, and a namespace.
struct Trial {
    at: Installation,
    namespace: String,
}

impl Trial {
    async fn start() -> Result<Self> {
        let at = Installation::start().await?;
        at.shell(&format!(
            "helm upgrade kubernetes-sidecar-injector charts/kubernetes-sidecar-injector/ --namespace default \
             --reuse-values --set missedPods.mode=repair,missedPods.maxRepairsPerMinute=60,shutdownDelaySeconds=1 \
             --set-json 'webhook.matchConditions=[{NEVER_ASKED}]' \
             --set-json 'webhook.namespaceSelector={LEFT_OUT}'"
        ))
        .await?;
        at.wait_until_injecting().await?;
        at.kubectl(&["create", "namespace", "missed"]).await?;
        Ok(Trial { at, namespace: "missed".to_owned() })
    }

    async fn apply(&self, object: &Value) -> Result<()> {
        self.apply_in(&self.namespace, object).await
    }

    async fn apply_in(&self, namespace: &str, object: &Value) -> Result<()> {
        let arguments = ["apply", "-n", namespace, "-f", "-"];
        self.at.cluster.kubectl_with_input(&arguments, &object.to_string()).await?.checked()?;
        Ok(())
    }

    async fn scale(&self, replicas: usize) -> Result<()> {
        self.at.kubectl(&["scale", DEPLOYMENT, "-n", "default", &format!("--replicas={replicas}")]).await?;
        wait_for("the injector's processes", async || {
            let ready = self.at.cluster.fake_node()?.running().iter().filter(|one| one.ready).count();
            Ok(ready == replicas && self.at.cluster.fake_node()?.running().len() == replicas)
        })
        .await
    }

    /// Reason by reason, what was said about the pods whose name begins so.
    fn said(&self, pod: &str) -> Result<Vec<String>> {
        let lines = self.at.logged("pod_missed")?;
        let about =
            lines.iter().filter(|line| line["pod"].as_str().is_some_and(|name| name.starts_with(pod)));
        Ok(about.map(|line| format!("{} {}", text(line, "definition"), text(line, "reason"))).collect())
    }

    async fn wait_until_said(&self, pod: &str, expected: &str) -> Result<()> {
        wait_for(&format!("{pod}: {expected}"), async || {
            Ok(self.said(pod)?.iter().any(|said| said == expected))
        })
        .await
    }

    /// The sum of a metric over all replicas.
    fn metric(&self, name: &str, label: &str) -> Result<f64> {
        let series = format!("sidecar_injector_{name}{{{label}}}");
        let all = self.at.scrape()?;
        all.get(&series).copied().with_context(|| format!("no {series} in {all:?}"))
    }

    async fn wait_for_metric(&self, name: &str, label: &str, expected: f64) -> Result<()> {
        wait_for(&format!("{name} {label} of {expected}"), async || {
            // A reason that there was not so far has no series.
            Ok(self.metric(name, label).is_ok_and(|value| (value - expected).abs() < 0.5))
        })
        .await
    }

    async fn wait_for_missing(&self, definition: &str, reason: &str, expected: f64) -> Result<()> {
        let labels = format!("definition=\"{definition}\",reason=\"{reason}\"");
        self.wait_for_metric("missing_injections", &labels, expected).await
    }

    async fn pods(&self, app: &str) -> Result<Vec<Value>> {
        self.pods_in(&self.namespace, app).await
    }

    async fn pods_in(&self, namespace: &str, app: &str) -> Result<Vec<Value>> {
        let list = self.at.get(&["pods", "-n", namespace, "-l", &format!("app={app}")]).await?;
        let mut pods = list["items"].as_array().cloned().unwrap_or_default();
        pods.retain(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        Ok(pods)
    }

    /// Waits until all of an owner's pods have these containers.
    async fn wait_for_containers(&self, namespace: &str, app: &str, expected: &str) -> Result<()> {
        wait_for(&format!("pods of {app} with {expected}"), async || {
            let pods = self.pods_in(namespace, app).await?;
            Ok(!pods.is_empty() && pods.iter().all(|pod| container_names(pod) == expected))
        })
        .await
    }

    /// The pod template of what is restarted in vain.
    async fn vain(&self) -> Result<Value> {
        Ok(self.at.get(&["deployment", "vain", "-n", &self.namespace]).await?["spec"]["template"].take())
    }

    async fn holder(&self) -> Result<String> {
        let lease = self.at.get(&LEASE).await?;
        Ok(lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned())
    }
}

fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value[field].as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_without_their_sidecar_are_named_and_repaired_where_that_is_wanted() {
    let trial = Trial::start().await.unwrap();
    let outcome = run(&trial).await;
    if outcome.is_err() {
        for event in [
            "leading",
            "lease_failed",
            "pod_missed",
            "missed_pods",
            "pod_repaired",
            "repair_failed",
            "repair_useless",
        ] {
            eprintln!("{:#?}", trial.at.logged(event).unwrap());
        }
    }
    outcome.unwrap();
    trial.at.cluster.stop().await.unwrap();
}

async fn run(trial: &Trial) -> Result<()> {
    made_while_nobody_answers(trial).await?;
    they_are_named(trial).await?;
    they_are_repaired(trial).await?;
    what_would_change_nothing_is_left_alone(trial).await?;
    made_while_the_leader_lived(trial).await?;
    made_where_nobody_asks(trial).await?;
    older_versions_are_named(trial).await?;
    another_replica_goes_on(trial).await
}

async fn made_while_nobody_answers(trial: &Trial) -> Result<()> {
    trial.apply(&definition("repaired", "a:1", "Repair")).await?;
    trial.apply(&definition("reported", "a:1", "Report")).await?;
    trial.scale(0).await?;
    let mut manual = workload("StatefulSet", "manual", "repaired", 1);
    manual["spec"]["updateStrategy"] = json!({"type": "OnDelete"});
    let mut vain = workload("Deployment", "vain", "repaired", 1);
    vain["spec"]["template"]["metadata"]["labels"]["vain"] = "yes".into();
    for object in [
        pod("bare", "repaired"),
        pod("over", "repaired"),
        workload("Deployment", "web", "repaired", 1),
        workload("ReplicaSet", "set", "repaired", 2),
        workload("ReplicaSet", "guarded", "repaired", 1),
        workload("StatefulSet", "state", "repaired", 1),
        workload("DaemonSet", "daemon", "repaired", 1),
        workload("Deployment", "left", "reported", 1),
        manual,
        vain,
        json!({
            "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "guarded"},
            "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "guarded"}}},
        }),
    ] {
        trial.apply(&object).await?;
    }
    let mut unasked = pod("unasked", "reported");
    unasked["metadata"]["annotations"] = json!({});
    trial.apply(&unasked).await?;
    let ones = ["bare", "over", "web", "guarded", "state", "daemon", "left", "manual", "vain"];
    for (app, count) in ones.map(|app| (app, 1)).into_iter().chain([("set", 2)]) {
        wait_for(&format!("{count} pods of {app}"), async || {
            let pods = trial.pods(app).await?;
            Ok(pods.len() == count && pods.iter().all(|pod| pod["status"]["phase"] == "Running"))
        })
        .await?;
    }
    let over = ["patch", "pod", "over", "-n", "missed", "--subresource=status", "--type=merge", "-p"];
    trial.at.kubectl(&[&over[..], &[r#"{"status":{"phase":"Succeeded"}}"#]].concat()).await?;
    trial.scale(2).await
}

async fn they_are_named(trial: &Trial) -> Result<()> {
    for app in ["bare", "web", "set", "guarded", "state", "daemon", "manual", "vain"] {
        trial.wait_until_said(app, "repaired NotInjected").await?;
    }
    trial.wait_until_said("left", "reported NotInjected").await?;
    trial.wait_until_said("unasked", "reported NotAsked").await?;
    ensure!(trial.said("over")?.is_empty(), "what is over needs no sidecar");
    trial.wait_for_missing("reported", "NotInjected", 1.0).await?;
    trial.wait_for_missing("reported", "NotAsked", 1.0).await?;
    trial.metric("missing_injections", "definition=\"curl\",reason=\"NotInjected\"")?;
    // One of two looks.
    ensure!(trial.at.scrape()?.get("sidecar_injector_missed_pods_synced") == Some(&1.0));
    wait_for("an Event", async || {
        let of_pod = ["-n", "missed", "--field-selector", "regarding.name=bare,reason=SidecarMissing"];
        let events = trial.at.get(&[&["events.events.k8s.io"], &of_pod[..]].concat()).await?;
        Ok(events["items"][0]["note"].as_str().is_some_and(|note| note.contains("repaired: NotInjected")))
    })
    .await?;
    wait_for("a summary", async || Ok(!trial.at.logged("missed_pods")?.is_empty())).await
}

async fn they_are_repaired(trial: &Trial) -> Result<()> {
    wait_for("a restarted Deployment", async || {
        let pods = trial.pods("web").await?;
        Ok(pods.len() == 1 && container_names(&pods[0]) == "app repaired")
    })
    .await?;
    let web = trial.at.get(&["deployment", "web", "-n", "missed"]).await?;
    let annotations = &web["spec"]["template"]["metadata"]["annotations"];
    for mark in ["restarted-at", "restarted-for"] {
        ensure!(annotations[format!("sidecar.me/{mark}")].is_string(), "{annotations}");
    }
    for app in ["state", "daemon"] {
        trial.wait_for_containers("missed", app, "app repaired").await?;
    }
    wait_for("new pods of the ReplicaSet", async || {
        let pods = trial.pods("set").await?;
        Ok(pods.len() == 2 && pods.iter().all(|pod| container_names(pod) == "app repaired"))
    })
    .await?;
    wait_for("a refusal", async || {
        Ok(trial
            .at
            .logged("repair_refused")?
            .iter()
            .any(|line| text(line, "target").starts_with("Pod/guarded")))
    })
    .await?;
    // It was tried, and is not tried again.
    trial.wait_for_metric("repairs_total", "result=\"useless\"", 1.0).await?;
    let useless = trial.at.logged("repair_useless")?;
    ensure!(useless.len() == 1 && text(&useless[0], "owner").starts_with("ReplicaSet/vain"), "{useless:?}");
    // What is not fine, and stays: bare, guarded, manual, and the vain one.
    trial.wait_for_missing("repaired", "NotInjected", 4.0).await?;
    for app in ["bare", "guarded", "left", "unasked", "manual", "vain"] {
        let pods = trial.pods(app).await?;
        ensure!(pods.len() == 1 && container_names(&pods[0]) == "app", "{app}: {pods:?}");
    }
    let repaired: Vec<_> = trial.at.logged("pod_repaired")?;
    let targets: BTreeSet<_> = repaired.iter().map(|line| text(line, "target")).collect();
    let workloads = ["DaemonSet/daemon", "Deployment/vain", "Deployment/web", "StatefulSet/state"];
    ensure!(repaired.len() == 6 && workloads.iter().all(|one| targets.contains(one)), "{repaired:?}");
    trial.wait_for_metric("repairs_total", "result=\"evicted\"", 2.0).await?;
    for (owner, expected) in [
        (
            "web",
            "Deployment/web restarted, since a pod of it does not have sidecar repaired as it is defined now",
        ),
        (
            "set",
            "ReplicaSet/set a pod of it was evicted, since it did not have sidecar repaired as it is defined now",
        ),
    ] {
        wait_for(expected, async || {
            let selector = format!("regarding.name={owner},reason=SidecarRepaired");
            let of_owner = ["-n", "missed", "--field-selector", &selector];
            let events = trial.at.get(&[&["events.events.k8s.io"], &of_owner[..]].concat()).await?;
            let event = &events["items"][0];
            Ok(format!("{}/{owner} {}", text(&event["regarding"], "kind"), text(event, "note")) == expected)
        })
        .await?;
    }
    // What kubectl describe looks for.
    let described = trial.at.kubectl(&["describe", "deployment", "web", "-n", "missed"]).await?;
    ensure!(described.contains("SidecarRepaired"), "{described}");
    Ok(())
}

async fn what_would_change_nothing_is_left_alone(trial: &Trial) -> Result<()> {
    let refused = trial.at.logged("repair_refused")?;
    let manual: Vec<_> = refused.iter().filter(|line| text(line, "target") == "StatefulSet/manual").collect();
    ensure!(manual.len() == 1 && text(manual[0], "problem").contains("OnDelete"), "{refused:?}");
    let manual = trial.at.get(&["statefulset", "manual", "-n", "missed"]).await?;
    ensure!(manual["metadata"]["generation"] == 1, "{manual}");
    Ok(())
}

/// Whatever else was there meanwhile: who was missed is made anew.
async fn made_while_the_leader_lived(trial: &Trial) -> Result<()> {
    let dry_run = async |expected: &str| {
        wait_for(expected, async || {
            let pod = trial.at.create(&pod("asked", "repaired"), &["-n", "late", "--dry-run=server"]).await?;
            Ok(container_names(&pod) == expected)
        })
        .await
    };
    trial.at.kubectl(&["create", "namespace", "late"]).await?;
    trial.at.kubectl(&["label", "namespace", "late", "sidecar.me/inject=false"]).await?;
    dry_run("app").await?;
    trial.apply_in("late", &workload("Deployment", "late", "repaired", 1)).await?;
    trial.wait_for_containers("late", "late", "app").await?;
    trial.at.kubectl(&["label", "namespace", "late", "sidecar.me/inject-"]).await?;
    dry_run("app repaired").await?;
    trial.wait_for_containers("late", "late", "app repaired").await
}

async fn made_where_nobody_asks(trial: &Trial) -> Result<()> {
    trial.at.kubectl(&["create", "namespace", "private"]).await?;
    trial.at.kubectl(&["label", "namespace", "private", "private=yes"]).await?;
    trial.apply_in("private", &workload("Deployment", "secluded", "repaired", 1)).await?;
    trial.wait_until_said("secluded", "repaired NotAsked").await?;
    let lines = trial.at.logged("pod_missed")?;
    let line = lines.iter().find(|line| text(line, "pod").starts_with("secluded"));
    ensure!(
        line.is_some_and(|line| text(line, "message").contains("label private must not be there")),
        "{line:?}"
    );
    Ok(())
}

async fn older_versions_are_named(trial: &Trial) -> Result<()> {
    trial.apply(&pod("fresh", "reported")).await?;
    ensure!(container_names(&trial.pods("fresh").await?[0]) == "app reported");
    trial.apply(&pod("early", "younger")).await?;
    trial.wait_for_metric("outdated_injections", "definition=\"reported\"", 0.0).await?;
    ensure!(trial.said("fresh")?.is_empty() && trial.said("early")?.is_empty());
    trial.apply(&definition("reported", "a:2", "Report")).await?;
    trial.apply(&definition("younger", "a:1", "Repair")).await?;
    trial.wait_until_said("fresh", "reported Outdated").await?;
    trial.wait_until_said("early", "younger NotInjected").await?;
    trial.wait_for_metric("outdated_injections", "definition=\"reported\"", 1.0).await?;
    // Said once, however often it is looked at.
    ensure!(trial.said("left")? == ["reported NotInjected"], "{:?}", trial.said("left")?);
    trial.at.kubectl(&["delete", "pod", "fresh", "-n", "missed", "--grace-period=0", "--force"]).await?;
    trial.wait_for_metric("outdated_injections", "definition=\"reported\"", 0.0).await
}

async fn another_replica_goes_on(trial: &Trial) -> Result<()> {
    let of = |holder: &str| holder.split_once('_').map(|(pod, _)| pod.to_owned()).unwrap_or_default();
    let vain = trial.vain().await?;
    let first = trial.holder().await?;
    trial.at.cluster.fake_node()?.kill("default", &of(&first))?;
    wait_for("another leader", async || {
        let holder = trial.holder().await?;
        Ok(!holder.is_empty() && holder != first)
    })
    .await?;
    trial.wait_for_missing("younger", "NotInjected", 1.0).await?;
    // What was tried in vain stands in the template, for whoever looks next.
    trial.wait_for_metric("repairs_total", "result=\"useless\"", 1.0).await?;
    ensure!(trial.vain().await? == vain, "it was restarted for the same again");
    // Who leaves lets another one lead; nobody has to wait until the Lease runs out.
    let second = trial.holder().await?;
    trial.at.kubectl(&["delete", "pod", &of(&second), "-n", "default"]).await?;
    wait_for("the next leader", async || {
        let holder = trial.holder().await?;
        Ok(!holder.is_empty() && holder != second)
    })
    .await?;
    // An upgrade renders the Lease without what is in it.
    let before = trial.holder().await?;
    trial
        .at
        .shell("helm upgrade kubernetes-sidecar-injector charts/kubernetes-sidecar-injector/ --namespace default --reuse-values --set commonLabels.upgraded=yes")
        .await?;
    let lease = trial.at.get(&LEASE).await?;
    ensure!(lease["metadata"]["labels"]["upgraded"] == "yes", "{lease}");
    ensure!(!text(&lease["spec"], "holderIdentity").is_empty(), "{before}: {lease}");
    Ok(())
}
