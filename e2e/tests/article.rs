//! The article, word for word, on a real node: containers run, and httpbin is asked through its sidecar.
//!
//! Needs root, and the image that `cargo xtask image` writes; `cargo xtask test` sees to both.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use e2e::{INSTALL_HTTPBIN, INSTALL_INJECTOR};
use serde_json::Value;
use sidecar_testkit::{Cluster, HelmVersion, Options, Tier, demo_images, repository_root, why_not_possible};

#[tokio::test(flavor = "multi_thread")]
async fn the_articles_commands_work_word_for_word_on_a_real_node() -> Result<()> {
    if let Some(reason) = why_not_possible() {
        bail!("there can be no real node here: {reason}");
    }
    let image = std::env::var_os("SIDECAR_INJECTOR_IMAGE").map_or_else(
        || repository_root().join("target/image/kubernetes-sidecar-injector.tar"),
        PathBuf::from,
    );
    ensure!(image.exists(), "there is no image {}: run `cargo xtask image` first", image.display());
    let mut images = demo_images::ensure(&mut |line| eprintln!("{line}"))?;
    images.push(image);
    let cluster = Cluster::start(Tier::Node, Options { images, ..Options::default() }).await?;
    for helm in [HelmVersion::Four, HelmVersion::Three] {
        let run = async |line: &str| cluster.shell(helm, line).await?.checked();
        let started = Instant::now();
        run(INSTALL_INJECTOR).await?;
        run("kubectl rollout status deployment/kubernetes-sidecar-injector --timeout=90s").await?;
        nothing_can_be_written_by_the_injector()?;
        run(INSTALL_HTTPBIN).await?;
        run("kubectl rollout status deployment/httpbin --timeout=90s").await?;
        let pod = "export POD_NAME=$(kubectl get pods --namespace default -l \
            \"app.kubernetes.io/name=httpbin,app.kubernetes.io/instance=httpbin\" -o jsonpath=\"{.items[0].metadata.name}\")";
        let names = run(&format!(
            "{pod}\nkubectl get pods $POD_NAME --namespace default -o jsonpath='{{.spec.containers[*].name}}'"
        ))
        .await?;
        ensure!(names == "httpbin curl", "{names}");
        eprintln!(
            "from `helm install` to a pod that runs with its sidecar: {:.1} s",
            started.elapsed().as_secs_f64()
        );
        let answer = run(&format!(
            "{pod}\nkubectl exec $POD_NAME -n default -c curl -- curl http://localhost/anything"
        ))
        .await?;
        let answer: Value =
            serde_json::from_str(&answer).with_context(|| format!("not httpbin's JSON: {answer}"))?;
        ensure!(answer["url"] == "http://localhost/anything" && answer["method"] == "GET", "{answer}");
        ensure!(
            answer["headers"]["User-Agent"].as_str().is_some_and(|agent| agent.starts_with("curl/")),
            "{answer}"
        );
        run("helm uninstall httpbin kubernetes-sidecar-injector --namespace default").await?;
        // The article's sidecar does not listen to SIGTERM; nobody has to wait the whole grace period for it.
        run("kubectl delete pods --all --namespace default --grace-period=1 --timeout=90s").await?;
    }
    cluster.stop().await
}

/// Each process of the image has a root that is mounted read-only.
fn nothing_can_be_written_by_the_injector() -> Result<()> {
    let mut roots = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let process = entry?.path();
        // What is no process, or is none any more, has no such files.
        let read = |file: &str| std::fs::read_to_string(process.join(file)).unwrap_or_default();
        if read("cmdline").starts_with("/sidecar-injector\0serve") {
            // Number, parent, device, what is mounted, where, how.
            let mounts = read("mountinfo");
            let root = mounts
                .lines()
                .map(|line| line.split(' ').collect::<Vec<_>>())
                .find(|mount| mount.get(4) == Some(&"/"));
            roots.extend(root.and_then(|mount| mount.get(5).map(|how| (*how).to_owned())));
        }
    }
    let are_read_only = roots.iter().all(|how| how.split(',').any(|option| option == "ro"));
    ensure!(roots.len() >= 2 && are_read_only, "roots of the injectors: {roots:?}");
    Ok(())
}
