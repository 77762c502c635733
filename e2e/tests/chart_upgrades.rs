//! What only a cluster can show of the charts: what `helm upgrade` keeps and changes, with both Helms, and that the documented
//! steps for a certificate of one's own do what they say. The API server is enough: no pod has to run.

// A test may panic; clippy.toml says so for the test functions, this for their helpers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::Value;
use sidecar_testkit::{Cluster, HelmVersion, Options, Tier, repository_root};

const CHART: &str = "charts/kubernetes-sidecar-injector";

#[tokio::test(flavor = "multi_thread")]
async fn upgrades_keep_the_certificate_and_rotations_overlap() {
    use HelmVersion::{Four, Three};
    let cluster = Cluster::from_environment(Tier::Api, Options::default()).await.unwrap();
    for (release, install, upgrade) in
        [("four", Four, Four), ("three", Three, Three), ("three-then-four", Three, Four)]
    {
        let namespace = cluster.temporary_namespace(release).await.unwrap();
        let release = Release { cluster: &cluster, name: release, namespace: namespace.name() };

        release.helm(install, "install", "").await;
        let first = release.state().await;
        assert_eq!(first.bundle, first.ca);
        for _ in 0..2 {
            release.helm(upgrade, "upgrade", "").await;
            assert_eq!(release.state().await, first, "{}: nothing changes, no pod rolls", release.name);
        }

        release.helm(upgrade, "upgrade", "first").await;
        let second = release.state().await;
        assert_ne!(second.certificate, first.certificate);
        assert_ne!(second.checksum, first.checksum, "the pods roll");
        assert_eq!(second.bundle, format!("{}{}", second.ca, first.ca), "both are trusted");
        for rotate in ["first", ""] {
            release.helm(upgrade, "upgrade", rotate).await;
            assert_eq!(release.state().await, second, "{}: rotated once", release.name);
        }

        release.helm(upgrade, "upgrade", "second").await;
        let third = release.state().await;
        assert_eq!(third.bundle, format!("{}{}", third.ca, second.ca), "the first is gone");

        // A damaged Secret is made good, and running pods stay trusted.
        let damage = format!(
            "{{\"data\":{{\"tls-private-key-file\":null}},\"metadata\":{{\"name\":\"{}\"}}}}",
            release.full()
        );
        release.kubectl(&["patch", "secret", &release.full(), "--patch", &damage]).await;
        release.helm(upgrade, "upgrade", "").await;
        let fourth = release.state().await;
        assert_ne!(fourth.certificate, third.certificate);
        assert_eq!(fourth.bundle, format!("{}{}", fourth.ca, third.ca));

        // What people do by hand must not stand in the way of server-side apply.
        release.kubectl(&["rollout", "restart", "deployment", &release.full()]).await;
        release.helm(upgrade, "upgrade", "third").await;
        cluster
            .helm(upgrade, &["uninstall", release.name, "--namespace", release.namespace])
            .await
            .unwrap()
            .checked()
            .unwrap();
        let left = release.kubectl(&["get", "secret,service,deployment", "-o", "name"]).await;
        assert!(!left.contains(&release.full()), "{left}");
        let kinds = release.kubectl(&["get", "crd", "-o", "name"]).await;
        assert_eq!(kinds.matches("definitions.sidecar.me").count(), 2, "they outlive the release: {kinds}");
    }
    cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_steps_work_word_for_word() {
    let cluster = Cluster::from_environment(Tier::Api, Options::default()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    for name in ["charts", "deploy"] {
        std::os::unix::fs::symlink(repository_root().join(name), folder.path().join(name)).unwrap();
    }
    let run = async |script: &str| {
        let script = format!("set -eu -o pipefail; cd {}\n{script}", folder.path().display());
        cluster.shell(HelmVersion::Four, &script).await.unwrap().checked().unwrap()
    };
    let page = std::fs::read_to_string(repository_root().join("docs/certificates.md")).unwrap();
    let (with_helm, without_helm) = page.split_once("\n## Without Helm\n").unwrap();
    let bundles = "kubectl get mutatingwebhookconfiguration,validatingwebhookconfiguration \
                   kubernetes-sidecar-injector -o jsonpath='{.items[*].webhooks[*].clientConfig.caBundle}'";
    // Two pairs for pods, one webhook for definitions.
    let ca_each_time = "ca=$(base64 < ca.crt | tr -d '\\n'); printf '%s %s %s %s %s' $ca $ca $ca $ca $ca";

    // That of a CA before.
    let old = rcgen::generate_simple_self_signed(vec!["old".to_owned()]).unwrap().cert.pem();
    std::fs::write(folder.path().join("old-ca.crt"), old).unwrap();
    for block in bash_blocks(with_helm) {
        run(block).await;
    }
    let wanted = run(ca_each_time).await;
    assert_eq!(run(bundles).await, wanted);
    run("helm uninstall kubernetes-sidecar-injector --namespace default").await;

    let blocks = bash_blocks(without_helm);
    let [apply] = blocks[..] else { panic!("one block: {blocks:?}") };
    run(apply).await;
    assert_eq!(run(bundles).await, "", "what is in it is the injector's");
    // No injector runs on this tier: this is what it does.
    let bundle = r#"{"webhooks": [{"name": "injector.sidecar.me", "clientConfig": {"caBundle": "YQ=="}}]}"#;
    run(&format!(
        "kubectl patch mutatingwebhookconfiguration kubernetes-sidecar-injector --patch '{bundle}'"
    ))
    .await;
    run(apply).await;
    assert_eq!(run(bundles).await.trim(), "YQ==", "applied again, the file leaves the field alone");
    run("kubectl delete -f deploy/kubernetes-sidecar-injector.yaml").await;
    cluster.stop().await.unwrap();
}

fn bash_blocks(page: &str) -> Vec<&str> {
    // Those in lists are indented, which does not matter to bash.
    page.split("```bash\n")
        .skip(1)
        .filter_map(|rest| rest.split_once("```").map(|(block, _)| block))
        .collect()
}

struct Release<'a> {
    cluster: &'a Cluster,
    name: &'a str,
    namespace: &'a str,
}

#[derive(Debug, PartialEq)]
struct State {
    ca: String,
    certificate: String,
    bundle: String,
    checksum: String,
    generation: i64,
}

impl Release<'_> {
    fn full(&self) -> String {
        format!("{}-kubernetes-sidecar-injector", self.name)
    }

    async fn helm(&self, version: HelmVersion, verb: &str, rotate: &str) {
        // Cluster-wide webhooks shall not meet other tests' pods.
        let own = format!(
            "webhook.namespaceSelector.matchLabels.kubernetes\\.io/metadata\\.name={}",
            self.namespace
        );
        let rotate = format!("certificates.helm.rotate={rotate}");
        // The kinds belong to one release of a cluster, and stay when it goes.
        let kinds = format!("crds.install={}", self.name == "four");
        let sets = ["--set", &own, "--set", &rotate, "--set", &kinds, "--set", "certificates.mode=helm"];
        let arguments = [&[verb, self.name, CHART, "--namespace", self.namespace][..], &sets].concat();
        self.cluster.helm(version, &arguments).await.unwrap().checked().unwrap();
    }

    async fn kubectl(&self, arguments: &[&str]) -> String {
        let all = [&["--namespace", self.namespace], arguments].concat();
        self.cluster.kubectl(&all).await.unwrap().checked().unwrap()
    }

    async fn get(&self, kind: &str) -> Value {
        serde_json::from_str(&self.kubectl(&["get", kind, &self.full(), "-o", "json"]).await).unwrap()
    }

    async fn state(&self) -> State {
        let secret = self.get("secret").await;
        let deployment = self.get("deployment").await;
        let webhooks = self.get("mutatingwebhookconfiguration").await;
        let webhooks = webhooks["webhooks"].as_array().unwrap();
        assert_eq!(webhooks[0]["clientConfig"], webhooks[1]["clientConfig"]);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        State {
            ca: decoded(&secret["data"]["ca.crt"]),
            certificate: decoded(&secret["data"]["tls-cert-file"]),
            bundle: decoded(&webhooks[0]["clientConfig"]["caBundle"]),
            checksum: text(
                &deployment["spec"]["template"]["metadata"]["annotations"]["checksum/certificate"],
            ),
            generation: deployment["metadata"]["generation"].as_i64().unwrap(),
        }
    }
}

fn decoded(value: &Value) -> String {
    let bytes: k8s_openapi::ByteString = serde_json::from_value(value.clone()).unwrap();
    String::from_utf8(bytes.0).unwrap()
}
