//! `cargo xtask demo`: the article from nothing to httpbin's answer, its commands word for word.

use std::env;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use sidecar_testkit::{Cluster, HelmVersion, Options, Tier, demo_images, why_not_possible};

use crate::image;

const POD_NAME: &str = "export POD_NAME=$(kubectl get pods --namespace default -l \
    \"app.kubernetes.io/name=httpbin,app.kubernetes.io/instance=httpbin\" -o jsonpath=\"{.items[0].metadata.name}\")";

/// `cargo xtask demo`
#[derive(Clone, Copy, Args)]
pub(crate) struct Arguments {
    /// Leave the cluster up until Ctrl-C, and say how to use it
    #[arg(long)]
    keep: bool,
    /// Which Helm installs the charts
    #[arg(long, value_name = "MAJOR", default_value = "4")]
    helm: Helm,
    /// Do without the real node, also as root
    #[arg(long)]
    fake_node: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Helm {
    #[value(name = "4")]
    Four,
    #[value(name = "3")]
    Three,
}

pub(crate) fn run(arguments: Arguments) -> Result<()> {
    let left_out = why_no_real_node(arguments);
    match &left_out {
        None => eprintln!("A throwaway Kubernetes with a real node, and the article's commands on it."),
        Some(reason) => eprintln!(
            "A throwaway Kubernetes, and the article's commands on it. Left out, because {reason}:\n\
             a real node. The injector runs as a process of this machine; httpbin's containers are admitted but do not run,\n\
             so nobody can be asked through the sidecar."
        ),
    }
    let options = match left_out {
        None => {
            let mut images = demo_images::ensure(&mut |line| eprintln!("{line}"))?;
            images.push(image::build_image()?);
            Options { images, ..Options::default() }
        }
        Some(_) => Options { injector: Some(image::build_binary()?), ..Options::default() },
    };
    let tier = if left_out.is_none() { Tier::Node } else { Tier::Charts };
    tokio::runtime::Runtime::new()?.block_on(show(tier, options, arguments))
}

/// Why there is none, as the end of a sentence with "because".
fn why_no_real_node(arguments: Arguments) -> Option<String> {
    if arguments.fake_node {
        return Some("--fake-node says so".to_owned());
    }
    why_not_possible().or_else(missing_program)
}

/// The demo's images are made of Debian packages.
pub(crate) fn missing_program() -> Option<String> {
    let folders = env::var_os("PATH")?;
    let is_there = env::split_paths(&folders).any(|folder| folder.join("mmdebstrap").exists());
    (!is_there).then(|| "the program mmdebstrap is missing (apt-get install mmdebstrap)".to_owned())
}

async fn show(tier: Tier, options: Options, arguments: Arguments) -> Result<()> {
    let started = Instant::now();
    eprintln!("\nStarting Kubernetes ...");
    let cluster = Cluster::start(tier, options).await?;
    eprintln!("Kubernetes is up after {:.1} s.", started.elapsed().as_secs_f64());
    let terminal = Terminal { cluster: &cluster, helm: arguments.helm.version() };
    let shown = article(&terminal, tier).await;
    if shown.is_ok() {
        eprintln!(
            "\nThe pod has the containers `httpbin curl`. {:.1} s from no cluster to here.",
            started.elapsed().as_secs_f64()
        );
    }
    if arguments.keep {
        let programs = cluster.programs_folder(arguments.helm.version()).await?;
        eprintln!(
            "\nThe cluster stays up until Ctrl-C. In another terminal:\n\n  export KUBECONFIG={}\n  export PATH={}:$PATH\n{}\n\nLogs and data: {}",
            cluster.kubeconfig().display(),
            programs.display(),
            what_works(tier, cluster.folder()),
            cluster.folder().display()
        );
        if let Err(error) = shown {
            eprintln!("\nerror: {error:#}");
        }
        // The cluster itself stops everything on SIGINT and SIGTERM.
        loop {
            tokio::time::sleep(Duration::from_hours(1)).await;
        }
    }
    eprintln!("Stopping ...");
    cluster.stop().await?;
    shown
}

/// What to type on such a cluster, and what not.
fn what_works(tier: Tier, folder: &Path) -> String {
    let see = "kubectl run mine --image=docker.io/yauritux/busybox-curl:latest --image-pull-policy=IfNotPresent \
               --labels=sidecar.me/inject=true -- sleep 1000\n  kubectl get pods";
    if tier == Tier::Node {
        return format!(
            "  {see}\n  kubectl logs --selector app.kubernetes.io/name=kubernetes-sidecar-injector --prefix --tail=-1\n\n\
             No image can be pulled; there are the ones of the demo. Service addresses do not work from inside pods, so `helm test` does not\n\
             either."
        );
    }
    format!(
        "  {see}\n  helm test kubernetes-sidecar-injector\n  cat {}/pods/default_kubernetes-sidecar-injector-*/*.log\n\n\
         Of all containers only the injector's run, and there is no kubelet: `kubectl logs` and `kubectl exec` do not work.",
        folder.display()
    )
}

/// The article, with a wait after each installation: a pod that is created before the injector serves starts without its sidecar.
async fn article(terminal: &Terminal<'_>, tier: Tier) -> Result<()> {
    let started = Instant::now();
    terminal
        .run(
            "helm install kubernetes-sidecar-injector charts/kubernetes-sidecar-injector/ \
             --values charts/kubernetes-sidecar-injector/values.yaml --namespace default",
        )
        .await?;
    terminal.run("kubectl rollout status deployment/kubernetes-sidecar-injector --namespace default --timeout=120s").await?;
    let ready = started.elapsed();
    terminal
        .run("helm install httpbin charts/httpbin/ --values charts/httpbin/values.yaml --namespace default")
        .await?;
    terminal.run("kubectl rollout status deployment/httpbin --namespace default --timeout=120s").await?;
    terminal.run("kubectl get pods --namespace default").await?;
    let names = terminal
        .run(&format!(
            "{POD_NAME}\nkubectl get pods $POD_NAME --namespace default -o jsonpath='{{.spec.containers[*].name}}'"
        ))
        .await?;
    ensure!(names == "httpbin curl", "the containers should be `httpbin curl`");
    eprintln!(
        "\nFrom `helm install`: {:.1} s until all replicas were ready, {:.1} s until a pod ran with its sidecar.",
        ready.as_secs_f64(),
        started.elapsed().as_secs_f64()
    );
    if tier == Tier::Node {
        let answer = terminal
            .run(&format!(
                "{POD_NAME}\nkubectl exec $POD_NAME -n default -c curl -- curl http://localhost/anything"
            ))
            .await?;
        let answer: serde_json::Value =
            serde_json::from_str(&answer).context("httpbin did not answer with JSON")?;
        ensure!(answer["url"] == "http://localhost/anything", "httpbin answered about another URL");
    }
    Ok(())
}

impl Helm {
    fn version(self) -> HelmVersion {
        match self {
            Helm::Four => HelmVersion::Four,
            Helm::Three => HelmVersion::Three,
        }
    }
}

/// Shows commands as if somebody typed them.
struct Terminal<'a> {
    cluster: &'a Cluster,
    helm: HelmVersion,
}

impl Terminal<'_> {
    async fn run(&self, line: &str) -> Result<String> {
        for line in line.lines() {
            println!("\n$ {line}");
        }
        let output = self.cluster.shell(self.helm, line).await?.checked()?;
        println!("{}", output.trim_end());
        Ok(output)
    }
}
