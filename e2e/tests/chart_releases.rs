//! The chart as releases that live, with pods that run: the demo, Argo CD's way of applying it again and again, and upgrades from the
//! previous release and back while pods are created all the time.

// A test may panic; clippy.toml says so for the test functions, this for their helpers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use e2e::load::Load;
use e2e::{Installation, container_names, injector_binary, wait_for};
use sidecar_testkit::{Cluster, CommandOutput, HelmVersion, Options, Tier, repository_root};

const RELEASE: &str = "kubernetes-sidecar-injector";
const CHART: &str = "charts/kubernetes-sidecar-injector";
/// The commit whose chart was the previous release. It is taken from the history, so that nothing has to be stored.
const PREVIOUS: &str = "6896e13";

#[tokio::test(flavor = "multi_thread")]
async fn releases_that_helm_3_made_live() {
    releases_live(HelmVersion::Three).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn releases_that_helm_4_made_live() {
    releases_live(HelmVersion::Four).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gitops_tool_has_no_diff_and_no_conflict() {
    let at = start().await.unwrap();
    apply_again_and_again(&at).await.unwrap();
    at.cluster.stop().await.unwrap();
}

/// Never on somebody else's cluster: the kinds come and go.
async fn start() -> Result<Installation> {
    let options = Options { injector: Some(injector_binary()?), ..Options::default() };
    Ok(Installation { cluster: Cluster::start(Tier::Charts, options).await? })
}

async fn releases_live(install: HelmVersion) -> Result<()> {
    let at = start().await?;
    the_demo_s_first_pod_has_its_sidecar(&at, install).await?;
    if let Some(previous) = previous_chart()? {
        let previous = previous.path().join(CHART).display().to_string();
        for change in CHANGES.iter().filter(|change| change.install == install) {
            let outcome = no_pod_is_lost_when_releases_change(&at, &previous, change).await;
            outcome.context(change.name)?;
        }
    }
    at.cluster.stop().await
}

async fn helm(at: &Installation, version: HelmVersion, arguments: &[&str]) -> Result<String> {
    at.cluster.helm(version, &[arguments, &["--namespace=default"]].concat()).await?.checked()
}

/// The kinds outlive a release, and belong to whoever made them.
async fn remove(at: &Installation, version: HelmVersion) -> Result<()> {
    helm(at, version, &["uninstall", RELEASE, "--wait"]).await?;
    at.kubectl(&["delete", "-f", "deploy/crds.yaml"]).await?;
    at.pods("default", &format!("app.kubernetes.io/name={RELEASE}"), 0).await.map(drop)
}

/// Without `--wait`, and although Helm makes the Deployment before the injector serves, Helm 3 even before its webhooks.
async fn the_demo_s_first_pod_has_its_sidecar(at: &Installation, version: HelmVersion) -> Result<()> {
    helm(at, version, &["install", RELEASE, CHART, "--set=demo.enabled=true,shutdownDelaySeconds=0"]).await?;
    let pods = at.pods("demo", "app=demo", 1).await?;
    ensure!(container_names(&pods[0]) == "app curl", "{:#}", pods[0]);
    at.kubectl(&["wait", "--for=condition=Available", "--timeout=60s", "-n=demo", "deployment/demo"]).await?;
    let list = at.kubectl(&["get", "pods", "-n", "demo", "--no-headers"]).await?;
    ensure!(list.lines().count() == 1 && list.contains("2/2"), "{list}");
    remove(at, version).await?;
    wait_for("namespace less", async || {
        Ok(at.kubectl(&["get", "namespace", "demo", "--ignore-not-found"]).await?.is_empty())
    })
    .await
}

async fn apply_again_and_again(at: &Installation) -> Result<()> {
    let render = async || {
        let values = format!("--values={CHART}/values-gitops.yaml");
        let arguments = ["template", "an-application", CHART, &values, "--no-hooks", "--kube-version=1.37.0"];
        helm(at, HelmVersion::Four, &arguments).await
    };
    let rendered = render().await?;
    ensure!(rendered == render().await?, "two renders");
    let kubectl = async |verb: &str| -> Result<CommandOutput> {
        let arguments = [verb, "--server-side", "--field-manager=argocd-controller", "-f", "-"];
        at.cluster.kubectl_with_input(&arguments, &rendered).await
    };
    kubectl("apply").await?.checked()?;
    at.wait_until_injecting().await?;
    // It runs, and does what it does, before the tool comes round again; and somebody restarts it by hand.
    at.kubectl(&["rollout", "restart", &format!("deployment/{RELEASE}"), "-n", "default"]).await?;
    at.wait_for_rollout().await?;
    for _ in 0..2 {
        let applied = kubectl("apply").await?;
        ensure!(applied.success(), "a conflict: {applied:?}");
        // It fails when there is a difference, and prints it.
        let diff = kubectl("diff").await?;
        ensure!(diff.success() && diff.stdout.is_empty(), "{diff:?}");
    }
    at.wait_until_injecting().await?;
    at.cluster.kubectl_with_input(&["delete", "--wait", "-f", "-"], &rendered).await?.checked()?;
    at.pods("default", &format!("app.kubernetes.io/name={RELEASE}"), 0).await.map(drop)
}

/// Who installs the previous release, who upgrades it, and how.
struct Change {
    name: &'static str,
    install: HelmVersion,
    upgrade: HelmVersion,
    /// Who makes the certificates afterwards. Before, it was Helm.
    mode: &'static str,
    flags: &'static [&'static str],
}

/// Two owners of one field are an error.
const STRICT: &[&str] = &["--server-side=true", "--force-conflicts=false"];

const CHANGES: [Change; 6] = [
    Change {
        name: "Helm 3",
        install: HelmVersion::Three,
        upgrade: HelmVersion::Three,
        mode: "selfManaged",
        flags: &[],
    },
    Change {
        name: "Helm 4",
        install: HelmVersion::Four,
        upgrade: HelmVersion::Four,
        mode: "selfManaged",
        flags: STRICT,
    },
    Change {
        name: "Helm 3, then 4",
        install: HelmVersion::Three,
        upgrade: HelmVersion::Four,
        mode: "selfManaged",
        flags: &[],
    },
    Change {
        name: "Helm 3, then 4 with server-side apply",
        install: HelmVersion::Three,
        upgrade: HelmVersion::Four,
        mode: "selfManaged",
        flags: STRICT,
    },
    Change {
        name: "Helm 3, certificates of Helm's",
        install: HelmVersion::Three,
        upgrade: HelmVersion::Three,
        mode: "helm",
        flags: &[],
    },
    Change {
        name: "Helm 4, certificates of Helm's",
        install: HelmVersion::Four,
        upgrade: HelmVersion::Four,
        mode: "helm",
        flags: STRICT,
    },
];

async fn no_pod_is_lost_when_releases_change(at: &Installation, previous: &str, how: &Change) -> Result<()> {
    let delay = |seconds: u32| format!("--set=shutdownDelaySeconds={seconds}");
    helm(at, how.install, &["install", RELEASE, previous, &delay(3)]).await?;
    at.wait_until_injecting().await?;
    let mut load = Load::start(at).await?;
    // Something of the pods is another each time, or there would be nothing to survive.
    let upgrade = async |number: &str, seconds: u32| {
        let other = format!("--set=podAnnotations.number=_{number},certificates.mode={}", how.mode);
        let values = [RELEASE, CHART, &delay(seconds), &other];
        helm(at, how.upgrade, &[&["upgrade"], &values[..], how.flags].concat()).await?;
        at.wait_for_rollout().await
    };
    let back: &[&str] = &["rollback", RELEASE, "1"];
    // Who upgrades does not wait until the last of the old pods has left.
    upgrade("1", 3).await?;
    if how.mode == "helm" {
        helm(at, how.upgrade, &[back, how.flags].concat()).await?;
        at.wait_for_rollout().await?;
    } else {
        // Its own pods leave when no pod is created.
        upgrade("2", 0).await?;
        old_pods_have_left(at).await?;
        lost_nothing(load, how.name).await?;
        // The release of before brings its CA with it, which is not the one that the pods have: not under load, and by force.
        let is_four = how.upgrade == HelmVersion::Four;
        let force: &[&str] = if is_four { &["--server-side=true", "--force-conflicts"] } else { &[] };
        helm(at, how.upgrade, &[back, force].concat()).await?;
        at.wait_for_rollout().await?;
        old_pods_have_left(at).await?;
        at.wait_until_injecting().await?;
        load = Load::start(at).await?;
    }
    upgrade("3", 0).await?;
    old_pods_have_left(at).await?;
    lost_nothing(load, how.name).await?;
    remove(at, how.upgrade).await
}

async fn lost_nothing(load: Load, name: &'static str) -> Result<()> {
    let report = load.finish(name).await?;
    eprintln!("{report}");
    report.expect_nothing_lost()
}

async fn old_pods_have_left(at: &Installation) -> Result<()> {
    wait_for("pods that have left", async || {
        Ok(at.cluster.fake_node()?.running().iter().filter(|one| one.namespace == "default").count() == 2)
    })
    .await
}

/// The chart of the previous release, as Git has it; a shallow clone does not.
///
/// # Errors
/// A clone with all its history has it not.
fn previous_chart() -> Result<Option<tempfile::TempDir>> {
    let git =
        |arguments: &[&str]| Command::new("git").current_dir(repository_root()).args(arguments).output();
    let commit = format!("{PREVIOUS}^{{commit}}");
    if !git(&["cat-file", "-e", &commit])?.status.success() {
        let is_shallow = git(&["rev-parse", "--is-shallow-repository"])?.stdout.starts_with(b"true");
        ensure!(is_shallow, "there is no commit {PREVIOUS} to upgrade from");
        e2e::leave_out(&format!(
            "upgrades from the previous release ({PREVIOUS}), which is not in this clone: git fetch --unshallow"
        ));
        return Ok(None);
    }
    let folder = tempfile::tempdir()?;
    let archive = folder.path().join("chart.tar").display().to_string();
    let written = git(&["archive", "--output", &archive, PREVIOUS, CHART])?;
    ensure!(written.status.success(), "git archive: {}", String::from_utf8_lossy(&written.stderr));
    let unpacked = Command::new("tar").current_dir(folder.path()).args(["-xf", &archive]).output()?;
    ensure!(unpacked.status.success(), "tar: {}", String::from_utf8_lossy(&unpacked.stderr));
    Ok(Some(folder))
}
