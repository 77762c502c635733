//! Definitions as objects of the cluster: what is refused in whose words, and every example as it is stored. The kinds: `kinds.rs`.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use e2e::{Installation, injector_binary};
use serde_json::{Value, json};
use sidecar_engine::definition::Compiled;
use sidecar_engine::{Engine, Namespace, Reason};
use sidecar_testkit::repository_root;

pub(crate) async fn what_is_refused_is_said_in_the_words_of_the_command_line(
    at: &Installation,
) -> Result<()> {
    const WRONG: &str = "\
apiVersion: sidecar.me/v1alpha1
kind: ClusterSidecarDefinition
metadata: {name: wrong}
spec:
  parameters: [{name: level, default: info}]
  inject:
    spec:
      containers:
        - name: One_Two
          image: a
          volumeMount: []
        - name: b
          image: b
          args: ['${params.lvel}']
          volumeMounts: [{name: gone, mountPath: /gone}]
          ports: [{containerPort: http}]
";
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("wrong.yaml");
    std::fs::write(&file, WRONG)?;
    let output =
        Command::new(injector_binary()?).args(["validate", "-o", "json", "-f"]).arg(&file).output()?;
    ensure!(output.status.code() == Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    let problems: Vec<Value> = serde_json::from_slice(&output.stdout)?;
    ensure!(problems.len() == 5, "{problems:#?}");
    let applied = at.cluster.kubectl_with_input(&["apply", "-f", "-"], WRONG).await?;
    ensure!(applied.stderr.contains("definitions.sidecar.me"), "{applied}");
    for problem in &problems {
        let text = |field: &str| problem[field].as_str().unwrap_or_default();
        let suggestion = match text("suggestion") {
            "" => String::new(),
            suggestion => format!("; did you mean {suggestion:?}?"),
        };
        let line = format!("{}: {}{suggestion} [{}]", text("path"), text("message"), text("code"));
        ensure!(applied.stderr.contains(&line), "{line}\nis not in\n{applied}");
    }
    Ok(())
}

/// Applied, injected by the API server into the example's pod, and found complete in what it stores: defaults, token
/// mounts and all.
pub(crate) async fn every_example_is_injected(at: &Installation) -> Result<()> {
    let folder = repository_root().join("examples");
    let mut examples: Vec<_> =
        std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    examples.retain(|path| path.join("definition.yaml").exists());
    examples.sort();
    ensure!(examples.len() == 10, "{examples:?}");
    for example in examples {
        let outcome = is_injected(at, &example).await;
        let definition = example.join("definition.yaml").display().to_string();
        at.kubectl(&["delete", "--ignore-not-found", "-f", &definition]).await?;
        outcome.with_context(|| definition)?;
    }
    Ok(())
}

async fn is_injected(at: &Installation, example: &Path) -> Result<()> {
    let read = |name: &str| std::fs::read_to_string(example.join(name)).unwrap_or_default();
    let parse =
        |text: &str| -> Result<Value> { Ok(serde_json::from_str(&sidecar_engine::yaml::to_json(text)?)?) };
    let pod = parse(&read("pod.yaml"))?;
    let namespace = pod["metadata"]["namespace"].as_str().unwrap_or("default").to_owned();
    let labels = parse(&read("namespace.yaml")).unwrap_or_default()["metadata"]["labels"].clone();
    let object =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}});
    at.cluster.kubectl_with_input(&["apply", "-f", "-"], &object.to_string()).await?.checked()?;
    if let Some(account) = pod["spec"]["serviceAccountName"].as_str() {
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account, "namespace": namespace}});
        at.cluster.kubectl_with_input(&["apply", "-f", "-"], &account.to_string()).await?.checked()?;
    }
    let definition = read("definition.yaml");
    if !example.ends_with("curl") {
        // The article's is there already, by the chart's default.
        at.cluster.kubectl_with_input(&["apply", "-f", "-"], &definition).await?.checked()?;
    }
    let compiled = Compiled::from_yaml(&definition).map_err(|problems| anyhow::anyhow!("{problems:#?}"))?;
    let engine = Engine::new(vec![compiled.into()]);
    let known = labels.as_object().into_iter().flatten();
    let known = known.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()));
    let known = Namespace::new(&namespace, known, []);
    let first = engine.inject(&pod.to_string(), &known)?;
    ensure!(
        first.decisions.iter().all(|decision| decision.reason == Reason::Injected),
        "{:?}",
        first.decisions
    );
    // A definition needs a moment to arrive, and pods of these namespaces have to be asked about.
    e2e::wait_for("injected pod", async || {
        let output = at.try_create(&asking(&pod), &["-n", &namespace, "--dry-run=server"]).await?;
        let stored: Value = serde_json::from_str(&output.checked()?)?;
        let again = engine.inject(&stored.to_string(), &known)?;
        Ok(again.patch.is_empty()
            && again.decisions.iter().all(|decision| decision.reason == Reason::AlreadyPresent))
    })
    .await
}

/// The pod, so that the API server asks about it in the chart's default scope: by a label, or by an annotation that
/// names nothing.
fn asking(pod: &Value) -> Value {
    let mut pod = pod.clone();
    if pod["metadata"]["labels"]["sidecar.me/inject"].is_null()
        && pod["metadata"]["annotations"]["sidecar.me/inject"].is_null()
    {
        pod["metadata"]["annotations"]["sidecar.me/inject"] = json!(",");
    }
    pod
}
