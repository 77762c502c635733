//! The commands by which `docs/operations.md` has the injector installed, upgraded and removed, one after the other as they stand there.

// A test may panic; clippy.toml says so for the test functions, this for their helpers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use e2e::Installation;
use sidecar_testkit::{Cluster, Options, Tier, repository_root};

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_commands_install_and_remove_everything() {
    let page = std::fs::read_to_string(repository_root().join("docs/operations.md")).unwrap();
    let (_, section) = page.split_once("\n## Install, upgrade, uninstall\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let blocks: Vec<&str> =
        section.split("```sh\n").skip(1).map(|rest| rest.split_once("```").unwrap().0).collect();
    assert_eq!(blocks.len(), 8);
    let options = Options { injector: Some(e2e::injector_binary().unwrap()), ..Options::default() };
    let at = Installation { cluster: Cluster::start(Tier::Charts, options).await.unwrap() };
    for block in blocks {
        at.shell(&format!("set -eo pipefail\n{block}")).await.unwrap();
        if block.contains("rollout status") {
            at.wait_until_injecting().await.unwrap();
        }
        if block.starts_with("kubectl delete") {
            let kinds = "mutatingwebhookconfigurations,validatingwebhookconfigurations,crds,clusterroles,clusterrolebindings";
            let everywhere = at.kubectl(&["get", kinds, "-o", "name"]).await.unwrap();
            let here =
                at.kubectl(&["get", "all,secrets,configmaps,leases,roles,serviceaccounts", "-o", "name"]);
            let left = format!("{everywhere}{}", here.await.unwrap());
            // Pods serve on for a moment.
            let left: Vec<_> =
                left.lines().filter(|line| line.contains("sidecar") && !line.starts_with("pod/")).collect();
            assert!(left.is_empty(), "after {block}: {left:?}");
        }
    }
    at.cluster.stop().await.unwrap();
}
