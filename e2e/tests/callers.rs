//! An API server that shows a client certificate, as `docs/operations.md` has it configured, and an injector that answers nobody else.

// A test may panic; clippy.toml says so for the test functions, this for their helpers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::process::Command;

use e2e::{Installation, labelled_pod, wait_for};
use sidecar_testkit::{Cluster, Options, Tier, repository_root};

/// Where the page has its files.
const FOLDER: &str = "/etc/kubernetes/webhooks";

/// The page's code of one language, with its files in another folder.
fn blocks(language: &str, folder: &Path) -> Vec<String> {
    let page = std::fs::read_to_string(repository_root().join("docs/operations.md")).unwrap();
    let (_, section) = page.split_once("\n## Only the API server\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let fence = format!("```{language}\n");
    let blocks = section.split(&fence).skip(1).map(|rest| rest.split_once("```").unwrap().0);
    blocks.map(|block| block.replace(FOLDER, folder.to_str().unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_is_answered_and_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let [script] = blocks("bash", folder).try_into().unwrap();
    let made = Command::new("bash").args(["-ec", &script]).current_dir(folder).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let files = blocks("yaml", folder);
    assert_eq!(files.len(), 2);
    for text in &files {
        std::fs::write(text.lines().next().unwrap().trim_start_matches("# "), text).unwrap();
    }
    let options = Options {
        injector: Some(e2e::injector_binary().unwrap()),
        api_server_flags: vec![format!(
            "--admission-control-config-file={}",
            folder.join("admission.yaml").display()
        )],
        ..Options::default()
    };
    let at = Installation { cluster: Cluster::start(Tier::Charts, options).await.unwrap() };
    let [install] = blocks("sh", folder).try_into().unwrap();
    at.shell(&install).await.unwrap();
    // With the certificate reviews are answered.
    at.wait_until_injecting().await.unwrap();
    let wrong = "apiVersion: sidecar.me/v1alpha1\nkind: SidecarDefinition\nmetadata: {name: a}\nspec: {inject: {spec: {nodeNme: a}}}";
    let refused =
        at.cluster.kubectl_with_input(&["create", "-n", "default", "-f", "-"], wrong).await.unwrap();
    let refused = refused.checked().unwrap_err().to_string();
    assert!(refused.contains("denied the request"), "{refused}");

    // Without it they are not, and `helm test` is content to hear so.
    let tested = at.shell("helm test kubernetes-sidecar-injector --namespace default").await.unwrap();
    assert!(tested.contains("Succeeded"), "{tested}");
    let address = at.cluster.fake_node().unwrap().running()[0].address;
    let asked = Command::new(e2e::injector_binary().unwrap())
        .args(["check", "--url", "https://kubernetes-sidecar-injector.default.svc"])
        .args(["--connect-to", &format!("{address}:8443")])
        .args(["--webhook-configuration", "kubernetes-sidecar-injector"])
        .env("KUBECONFIG", at.cluster.kubeconfig())
        .output()
        .unwrap();
    let said = String::from_utf8(asked.stderr).unwrap();
    assert!(said.contains("answers reviews of callers with a client certificate alone"), "{said}");

    // Nor to an API server whose certificate has another name.
    at.shell(&install.replace("{kube-apiserver}", "{somebody}")).await.unwrap();
    let namespace = at.cluster.temporary_namespace("callers").await.unwrap();
    let name = format!("namespace/{}", namespace.name());
    at.kubectl(&["label", &name, "sidecar.me/required=true"]).await.unwrap();
    let mut refused = String::new();
    wait_for("refused pod", async || {
        let arguments = ["-n", namespace.name(), "--dry-run=server"];
        refused = at.try_create(&labelled_pod("a"), &arguments).await?.stderr;
        Ok(!refused.is_empty())
    })
    .await
    .unwrap();
    let words = "failed calling webhook \"required.injector.sidecar.me\": failed to call webhook: unknown";
    assert!(refused.contains(words), "{refused}");
    drop(namespace);
    at.cluster.stop().await.unwrap();
}
