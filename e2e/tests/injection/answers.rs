//! What the API server gets for pods that are created directly.

use anyhow::{Result, ensure};
use e2e::{Installation, container_names, expect_containers, labelled_pod, pod};
use serde_json::{Value, json};

pub(crate) async fn pods_are_injected_or_not_as_they_ask(at: &Installation) -> Result<()> {
    let namespace = at.cluster.temporary_namespace("answers").await?;
    for (name, labels, expected) in [
        ("true", json!({"sidecar.me/inject": "true"}), "app curl"),
        ("capital", json!({"sidecar.me/inject": "True"}), "app curl"),
        ("false", json!({"sidecar.me/inject": "false"}), "app"),
        ("other", json!({"sidecar.me/inject": "yes"}), "app"),
        ("none", json!({}), "app"),
    ] {
        let pod = at.create(&pod(name, &labels), &["-n", namespace.name()]).await?;
        expect_containers(&pod, expected)?;
    }
    let mut opted_out = labelled_pod("annotation");
    opted_out["metadata"]["annotations"] = json!({"sidecar.me/inject": "false"});
    expect_containers(&at.create(&opted_out, &["-n", namespace.name()]).await?, "app")?;
    // By name, whatever the label is but a refusal.
    for (name, labels, expected) in [
        ("by-name", json!({}), "app curl"),
        ("by-name-curl", json!({"sidecar.me/inject": "curl"}), "app curl"),
        ("by-name-empty", json!({"sidecar.me/inject": ""}), "app curl"),
        ("by-name-false", json!({"sidecar.me/inject": "false"}), "app"),
    ] {
        let mut asking = pod(name, &labels);
        asking["metadata"]["annotations"] = json!({"sidecar.me/inject": "curl"});
        expect_containers(&at.create(&asking, &["-n", namespace.name()]).await?, expected)?;
    }

    let stored = at.get(&["pod", "true", "-n", namespace.name()]).await?;
    let curl = &stored["spec"]["containers"][1];
    ensure!(
        curl["image"] == "yauritux/busybox-curl:latest" && curl["imagePullPolicy"] == "IfNotPresent",
        "{curl}"
    );
    ensure!(curl["command"] == json!(["/bin/sh", "-ec", "while :; do echo '.'; sleep 5 ; done"]), "{curl}");
    Ok(())
}

pub(crate) async fn dry_runs_and_server_side_apply_are_injected(at: &Installation) -> Result<()> {
    let namespace = at.cluster.temporary_namespace("apply").await?;
    let mut generated = labelled_pod("unused");
    generated["metadata"] = json!({"generateName": "made-", "labels": generated["metadata"]["labels"]});
    let dry = at.create(&generated, &["-n", namespace.name(), "--dry-run=server"]).await?;
    expect_containers(&dry, "app curl")?;
    expect_containers(&at.create(&generated, &["-n", namespace.name()]).await?, "app curl")?;

    for (name, arguments) in [("client", &["apply"][..]), ("server", &["apply", "--server-side"][..])] {
        let command = [arguments, &["-n", namespace.name(), "-o", "json", "-f", "-"]].concat();
        for round in 0..2 {
            let output = at.cluster.kubectl_with_input(&command, &labelled_pod(name).to_string()).await?;
            let pod: Value = serde_json::from_str(&output.checked()?)?;
            ensure!(container_names(&pod) == "app curl", "{name} {round}: {}", container_names(&pod));
        }
    }
    Ok(())
}

pub(crate) async fn taken_names_are_warned_about(at: &Installation) -> Result<()> {
    let namespace = at.cluster.temporary_namespace("taken").await?;
    let mut as_container = labelled_pod("as-container");
    as_container["spec"]["containers"] = json!([{"name": "curl", "image": "other"}]);
    let mut as_init = labelled_pod("as-init");
    as_init["spec"]["initContainers"] = json!([{"name": "curl", "image": "other"}]);
    for (taken, expected) in [(as_container, "curl"), (as_init, "app")] {
        let output = at.try_create(&taken, &["-n", namespace.name()]).await?;
        ensure!(output.stderr.contains("Warning: sidecar curl: ContainerNameConflict"), "{output}");
        expect_containers(&serde_json::from_str(&output.checked()?)?, expected)?;
    }
    Ok(())
}

/// The ServiceAccount plugin mounts a token into the sidecar after us, and `IfNeeded` calls us again.
pub(crate) async fn the_second_call_for_a_pod_changes_nothing(at: &Installation) -> Result<()> {
    let namespace = at.cluster.temporary_namespace("second").await?;
    let pod = at.create(&labelled_pod("twice"), &["-n", namespace.name()]).await?;
    expect_containers(&pod, "app curl")?;
    let mounts = &pod["spec"]["containers"][1]["volumeMounts"];
    ensure!(mounts[0]["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount", "{mounts}");
    let mut reasons = Vec::new();
    e2e::wait_for("two logged reviews", async || {
        let reviews = at.logged_reviews(namespace.name(), "twice")?;
        reasons =
            reviews.iter().map(|review| review["reasons"].as_str().unwrap_or_default().to_owned()).collect();
        Ok(reasons.len() == 2)
    })
    .await?;
    reasons.sort();
    ensure!(reasons == ["AlreadyPresent", "Injected"], "{reasons:?}");
    Ok(())
}

pub(crate) async fn large_pods_with_odd_fields_are_injected(at: &Installation) -> Result<()> {
    let namespace = at.cluster.temporary_namespace("large").await?;
    let mut large = labelled_pod("large");
    let environment: Vec<_> = (0..3_000)
        .map(|n| json!({"name": format!("V_{n}"), "value": format!("größe ~1/ 日本語 {}", "x".repeat(300))}))
        .collect();
    large["spec"]["containers"][0]["env"] = environment.into();
    large["metadata"]["annotations"] =
        json!({"example.com/a.b_c": "~0 ~1 /", "example.com/text": "\u{7f}\n\t\"\\"});
    ensure!(large.to_string().len() > 1_000_000);
    let injected = at.create(&large, &["-n", namespace.name(), "--dry-run=server"]).await?;
    expect_containers(&injected, "app curl")?;
    ensure!(injected["spec"]["containers"][0]["env"] == large["spec"]["containers"][0]["env"]);
    ensure!(injected["metadata"]["annotations"] == large["metadata"]["annotations"]);
    Ok(())
}

/// Two oracles in one: what the command line makes of a manifest is what the API server makes of it with our webhook,
/// and kubectl applies our patch to the same effect.
pub(crate) async fn webhook_and_command_line_inject_alike(at: &Installation) -> Result<()> {
    let namespace = at.cluster.temporary_namespace("alike").await?;
    let folder = tempfile::tempdir()?;
    for (name, spec) in [
        ("plain", json!({"containers": [{"name": "app", "image": "app:1"}]})),
        ("two", json!({"containers": [{"name": "b", "image": "b"}, {"name": "a", "image": "a"}]})),
        (
            "init",
            json!({"containers": [{"name": "app", "image": "a"}], "initContainers": [{"name": "i", "image": "i"}]}),
        ),
        ("taken", json!({"containers": [{"name": "curl", "image": "other"}]})),
        ("host", json!({"containers": [{"name": "app", "image": "a"}], "hostNetwork": true})),
        ("windows", json!({"containers": [{"name": "app", "image": "a"}], "os": {"name": "windows"}})),
    ] {
        let mut before = labelled_pod(name);
        before["spec"] = spec;
        let by_webhook = at.create(&before, &["-n", namespace.name(), "--dry-run=server"]).await?;

        let file = folder.path().join(name);
        std::fs::write(&file, before.to_string())?;
        let (binary, file) = (e2e::injector_binary()?, file.display().to_string());
        let injected = at.shell(&format!("{} inject -f {file}", binary.display())).await?;
        let patch = at.shell(&format!("{} inject -f {file} -o patch", binary.display())).await?;
        let injected: Value = serde_json::from_str(&injected)?;
        if patch.is_empty() {
            ensure!(injected == before, "{name}");
        } else {
            let patched = at
                .kubectl(&["patch", "--local", "-f", &file, "--type=json", "-p", patch.trim(), "-o", "json"])
                .await?;
            ensure!(serde_json::from_str::<Value>(&patched)? == injected, "{name}: {patched}");
        }
        // A namespace that the webhook does not look at: what is in the manifest is what is created.
        let by_command = at.create(&injected, &["-n", "kube-system", "--dry-run=server"]).await?;
        ensure!(container_names(&by_command) == container_names(&by_webhook), "{name}");
        ensure!(without_tokens(&by_command) == without_tokens(&by_webhook), "{name}");
    }
    Ok(())
}

/// A pod's containers without the token mount, whose volume has a random name.
fn without_tokens(pod: &Value) -> Value {
    let mut containers = pod["spec"]["containers"].clone();
    for container in containers.as_array_mut().into_iter().flatten() {
        container["volumeMounts"] = Value::Null;
    }
    containers
}

pub(crate) async fn excluded_namespaces_and_the_injector_itself_are_left_alone(
    at: &Installation,
) -> Result<()> {
    let pod = at.create(&labelled_pod("excluded"), &["-n", "kube-system", "--dry-run=server"]).await?;
    expect_containers(&pod, "app")?;
    for pod in at.pods("default", "app.kubernetes.io/name=kubernetes-sidecar-injector", 2).await? {
        expect_containers(&pod, "kubernetes-sidecar-injector")?;
    }
    // Not even when somebody labels them: the API server must not need the injector to start the injector.
    let mut mirror = labelled_pod("mirror");
    mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "0123"});
    let namespace = at.cluster.temporary_namespace("mirror").await?;
    let output = at.try_create(&mirror, &["-n", namespace.name(), "--dry-run=server"]).await?;
    ensure!(!output.stdout.contains("\"curl\""), "{output}");
    Ok(())
}

pub(crate) async fn quotas_and_limit_ranges_see_the_sidecar(at: &Installation) -> Result<()> {
    let namespace = at.cluster.temporary_namespace("quota").await?;
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "quota"},
        "spec": {"hard": {"requests.cpu": "1", "pods": "10"}}});
    at.create(&quota, &["-n", namespace.name()]).await?;
    let mut pod = labelled_pod("counted");
    pod["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "100m"}});
    // The article's sidecar asks for nothing, so a quota on CPU refuses it; the reason names the container.
    e2e::wait_for("refusal by the quota", async || {
        let output = at.try_create(&pod, &["-n", namespace.name(), "--dry-run=server"]).await?;
        Ok(output.stderr.contains("must specify requests.cpu for: curl"))
    })
    .await?;
    // A LimitRange gives it a request in the second round of admission.
    let limits = json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "limits"},
        "spec": {"limits": [{"type": "Container", "defaultRequest": {"cpu": "50m"}}]}});
    at.create(&limits, &["-n", namespace.name()]).await?;
    let mut counted = Value::Null;
    e2e::wait_for("a pod within the quota", async || {
        let output = at.try_create(&pod, &["-n", namespace.name()]).await?;
        counted = serde_json::from_str(&output.stdout).unwrap_or_default();
        Ok(output.success())
    })
    .await?;
    expect_containers(&counted, "app curl")?;
    ensure!(counted["spec"]["containers"][1]["resources"]["requests"]["cpu"] == "50m", "{counted}");
    Ok(())
}

/// The article's container says nothing about its security, so Pod Security `restricted` refuses it. Nothing is hidden:
/// the refusal names it. The injector itself meets the level.
pub(crate) async fn restricted_namespaces_run_the_injector_and_refuse_the_articles_sidecar(
    at: &Installation,
) -> Result<()> {
    let namespace = at.cluster.temporary_namespace("restricted").await?;
    at.kubectl(&["label", "namespace", namespace.name(), "pod-security.kubernetes.io/enforce=restricted"])
        .await?;
    let mut restricted = pod("good", &json!({}));
    restricted["spec"]["securityContext"] =
        json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}});
    restricted["spec"]["containers"][0]["securityContext"] =
        json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    expect_containers(&at.create(&restricted, &["-n", namespace.name()]).await?, "app")?;
    restricted["metadata"] = json!({"name": "labelled", "labels": {"sidecar.me/inject": "true"}});
    let output = at.try_create(&restricted, &["-n", namespace.name()]).await?;
    ensure!(
        !output.success()
            && output.stderr.contains("violates PodSecurity")
            && output.stderr.contains("\"curl\""),
        "{output}"
    );

    let manifest = at
        .shell(&format!(
            "helm template own charts/kubernetes-sidecar-injector --namespace {} --show-only templates/deployment.yaml",
            namespace.name()
        ))
        .await?;
    let output = at
        .cluster
        .kubectl_with_input(&["apply", "-n", namespace.name(), "--dry-run=server", "-f", "-"], &manifest)
        .await?;
    ensure!(output.success() && !output.stderr.contains("would violate PodSecurity"), "{output}");
    Ok(())
}
