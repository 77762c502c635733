//! The messages by which `docs/troubleshooting.md` is indexed, provoked: what people search the page for is what is printed.

// A test may panic; clippy.toml says so for the test functions, this for their helpers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use e2e::{INSTALL_INJECTOR, Installation, labelled_pod, wait_for};
use serde_json::json;
use sidecar_testkit::{Cluster, EgressMode, HelmVersion, Options, Tier, repository_root};

/// What is installed, and where, as Helm wants it.
const CHART: &str = "kubernetes-sidecar-injector charts/kubernetes-sidecar-injector/ --namespace default";

/// Whether the page has this heading, and its text stands in what was printed; `…` stands for anything.
fn found(heading: &str, printed: &str) -> bool {
    let page = std::fs::read_to_string(repository_root().join("docs/troubleshooting.md")).unwrap();
    assert!(page.contains(&format!("\n### `{heading}`")), "no such entry: {heading}");
    let mut rest = printed;
    heading.split('…').all(|piece| match rest.split_once(piece) {
        Some((_, after)) => {
            rest = after;
            true
        }
        None => false,
    })
}

struct Troubles(Installation);

impl Troubles {
    /// A line that fails, with words that the page has.
    async fn fails(&self, line: &str, heading: &str) {
        let output = self.0.cluster.shell(HelmVersion::Four, line).await.unwrap();
        assert!(!output.success() && found(heading, &output.stderr), "{heading}: {output}");
    }

    /// A pod that must have its sidecar is refused, sooner or later with these words.
    async fn refuses(&self, heading: &str) {
        self.0.cluster.egress().unwrap().drop_connections();
        let mut last = String::new();
        let waited = wait_for(heading, async || {
            let arguments = ["-n", "required", "--dry-run=server"];
            last = self.0.try_create(&labelled_pod("a"), &arguments).await?.stderr;
            Ok(last.contains("webhook \"required.injector.sidecar.me\"") && found(heading, &last))
        });
        waited.await.unwrap_or_else(|error| panic!("{error}: {last}"));
    }

    /// A running replica says so in its log.
    async fn logs(&self, event: &str) {
        let waited = wait_for(event, async || {
            let running = self.0.cluster.fake_node()?.running();
            let mut logs =
                running.iter().filter_map(|container| std::fs::read_to_string(&container.log).ok());
            Ok(logs.any(|log| log.lines().any(|line| line.contains("WARN") && found(event, line))))
        });
        waited.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_printed_is_in_the_index() {
    let options = Options { injector: Some(e2e::injector_binary().unwrap()), ..Options::default() };
    let at = Troubles(Installation { cluster: Cluster::start(Tier::Charts, options).await.unwrap() });
    let kubectl = async |arguments: &[&str]| at.0.kubectl(arguments).await.unwrap();
    let definition = "kubectl apply -f examples/log-shipper/definition.yaml";
    at.fails(
        definition,
        "no matches for kind \"ClusterSidecarDefinition\" in version \"sidecar.me/v1alpha1\"",
    )
    .await;
    at.fails(&format!("helm install {CHART} --set replica=3"), "additional properties '…' not allowed").await;

    at.0.shell(INSTALL_INJECTOR).await.unwrap();
    at.0.wait_until_injecting().await.unwrap();
    let second = "helm install other charts/kubernetes-sidecar-injector/ --namespace default";
    at.fails(second, "exists and cannot be imported into the current release: invalid ownership metadata")
        .await;
    at.fails(&format!("helm install {CHART}"), "cannot reuse a name that is still in use").await;
    let upgrade = format!("helm upgrade {CHART} --reset-then-reuse-values --set");
    at.0.shell(&format!("{upgrade} certificates=null")).await.unwrap();
    at.fails(&format!("{upgrade} certificates=null"), "missing property '…'").await;
    // To what had the value; it has not any more.
    at.0.shell("helm rollback kubernetes-sidecar-injector --namespace default").await.unwrap();
    at.fails(&format!("{upgrade} replicas=2"), "missing property '…'").await;
    at.0.shell(&format!("{upgrade} certificates.mode=selfManaged")).await.unwrap();
    let create = |spec: &str| {
        let kind = "apiVersion: sidecar.me/v1alpha1\\nkind: SidecarDefinition\\nmetadata: {name: a}\\n";
        format!("printf '{kind}spec: {spec}' | kubectl create -f -")
    };
    let wrong = create("{inject: {spec: {nodeNme: a}}}");
    at.fails(&wrong, "admission webhook \"definitions.sidecar.me\" denied the request: …").await;
    at.fails(&create("{injct: {}}"), "strict decoding error: unknown field …").await;

    let unquoted = "kubectl create -f - <<< '{apiVersion: v1, kind: Pod, metadata: {name: a, labels: {sidecar.me/inject: true}}}'";
    at.fails(unquoted, "cannot unmarshal bool into Go struct field ObjectMeta.…labels of type string").await;
    // A value that asks for nothing: the cluster is silent, the command line is not.
    let mut pod = labelled_pod("a");
    pod["metadata"]["labels"]["sidecar.me/inject"] = json!("yes");
    let output = at.0.try_create(&pod, &["-n", "default", "--dry-run=server"]).await.unwrap();
    assert!(output.success() && output.stderr.is_empty() && !output.stdout.contains("curl"), "{output}");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), pod.to_string()).unwrap();
    let said = std::process::Command::new(e2e::injector_binary().unwrap())
        .args(["inject", "--filename"])
        .arg(file.path())
        .output()
        .unwrap();
    let said = String::from_utf8(said.stderr).unwrap();
    let hint = "the label sidecar.me/inject is \"yes\", it must be \"true\"";
    let page = std::fs::read_to_string(repository_root().join("docs/troubleshooting.md")).unwrap();
    assert!(said.contains(hint) && page.contains(hint), "{said}");

    // Refused with the sidecar, for what the sidecar is.
    kubectl(&["create", "namespace", "restricted"]).await;
    kubectl(&["label", "namespace", "restricted", "pod-security.kubernetes.io/enforce=restricted"]).await;
    let mut pod = labelled_pod("a");
    pod["spec"]["securityContext"] =
        json!({"runAsNonRoot": true, "runAsUser": 1, "seccompProfile": {"type": "RuntimeDefault"}});
    pod["spec"]["containers"][0]["securityContext"] =
        json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    let output = at.0.try_create(&pod, &["-n", "restricted"]).await.unwrap();
    assert!(
        found("violates PodSecurity \"restricted:latest\": …(container \"curl\" …", &output.stderr),
        "{output}"
    );

    kubectl(&["create", "namespace", "required"]).await;
    kubectl(&["label", "namespace", "required", "sidecar.me/required=true"]).await;
    let taken = "{failurePolicy: Fail, inject: {spec: {containers: [{name: app, image: other}]}}}";
    at.0.shell(&format!("{} -n required", create(taken))).await.unwrap();
    at.refuses("denied the request: sidecar …").await;
    kubectl(&["delete", "sidecardefinition", "a", "-n", "required"]).await;
    let egress = at.0.cluster.egress().unwrap();
    egress.set_mode(EgressMode::Silence);
    at.refuses("context deadline exceeded").await;
    egress.set_mode(EgressMode::Pass);
    egress.drop_connections();

    // Somebody overwrites the caBundle, and the right to put it back is gone.
    kubectl(&["delete", "clusterrolebinding", "kubernetes-sidecar-injector-ca-bundle"]).await;
    let authority = rcgen::generate_simple_self_signed(vec!["other".to_owned()]).unwrap().cert.pem();
    let bundle = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, authority);
    let replace = |index: u32| json!({"op": "replace", "path": format!("/webhooks/{index}/clientConfig/caBundle"), "value": bundle});
    let patch = json!([replace(0), replace(1), replace(2), replace(3)]).to_string();
    let object = "mutatingwebhookconfiguration/kubernetes-sidecar-injector";
    kubectl(&["patch", object, "--type=json", "--patch", &patch]).await;
    at.logs("ca_bundle_not_written").await;
    at.refuses("x509: certificate signed by unknown authority").await;
    at.0.shell(&format!("helm upgrade {CHART}")).await.unwrap();
    at.0.wait_until_injecting().await.unwrap();

    kubectl(&["delete", "secret", "kubernetes-sidecar-injector-certificates", "-n", "default"]).await;
    at.logs("certificates_not_shared").await;
    at.0.shell(&format!("helm upgrade {CHART}")).await.unwrap();

    let conflicts = "Apply failed with … conflicts: conflicts with \"sidecar-injector\"";
    let other_mode = format!("helm upgrade {CHART} --set certificates.mode=helm");
    at.fails(&other_mode, conflicts).await;
    at.0.shell("helm rollback kubernetes-sidecar-injector --namespace default").await.unwrap();
    at.0.wait_until_injecting().await.unwrap();
    at.fails(&other_mode, conflicts).await;
    at.0.shell(&format!("{other_mode} --force-conflicts")).await.unwrap();
    at.0.wait_until_injecting().await.unwrap();

    kubectl(&["scale", "deployment/kubernetes-sidecar-injector", "-n", "default", "--replicas=0"]).await;
    at.refuses("no endpoints available for service \"kubernetes-sidecar-injector\"").await;
    kubectl(&["delete", "service", "kubernetes-sidecar-injector", "-n", "default"]).await;
    at.refuses("service \"kubernetes-sidecar-injector\" not found").await;

    kubectl(&["delete", "clusterrolebinding", "kubernetes-sidecar-injector"]).await;
    kubectl(&["scale", "deployment/kubernetes-sidecar-injector", "-n", "default", "--replicas=1"]).await;
    at.logs("watch_failed").await;
    at.0.cluster.stop().await.unwrap();
}
