//! The custom resource definitions as `deploy/crds.yaml` has them, on a real API server: what it makes of them, keeps and refuses while no
//! injector runs. What it says with one is in `injection/definitions.rs`.

// A test may panic; clippy.toml says so for the test functions, this for their helpers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::{Value, json};
use sidecar_testkit::{Cluster, Options, Tier, repository_root};

const MANIFEST: &str = "deploy/crds.yaml";
const NAMES: [&str; 2] = ["clustersidecardefinitions.sidecar.me", "sidecardefinitions.sidecar.me"];

struct Kinds {
    cluster: Cluster,
}

impl Kinds {
    /// A cluster of ours with the kinds, as the documentation installs them.
    async fn start() -> Self {
        // Never somebody else's: the kinds and all definitions would be touched.
        let kinds = Kinds { cluster: Cluster::start(Tier::Api, Options::default()).await.unwrap() };
        let manifest = repository_root().join(MANIFEST).display().to_string();
        // Also as people do who have no Helm: the annotation that this makes is limited to 256 KiB.
        let applied = kinds.kubectl(&["apply", "--validate=strict", "-f", &manifest]).await;
        assert_eq!(applied.matches(" created").count(), 2, "{applied}");
        for name in NAMES {
            let crd = format!("crd/{name}");
            kinds.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", &crd]).await;
            // The API server keeps a schema that is not structural, says so here, and then prunes nothing.
            let object: Value =
                serde_json::from_str(&kinds.kubectl(&["get", &crd, "-o", "json"]).await).unwrap();
            let conditions = object["status"]["conditions"].as_array().unwrap();
            assert!(
                conditions.iter().all(|condition| condition["type"] != "NonStructuralSchema"),
                "{object}"
            );
        }
        kinds
    }

    async fn kubectl(&self, arguments: &[&str]) -> String {
        self.cluster.kubectl(arguments).await.unwrap().checked().unwrap()
    }

    async fn create(&self, object: &str, dry_run: bool) -> Result<(), String> {
        let mut arguments = vec!["create", "--validate=strict", "-f", "-"];
        arguments.extend(dry_run.then_some("--dry-run=server"));
        let output = self.cluster.kubectl_with_input(&arguments, object).await.unwrap();
        output.checked().map(drop).map_err(|error| format!("{error:#}"))
    }

    /// Until the API server serves the kinds, and with the rules that it checks.
    async fn wait(&self) {
        let nothing = definition("ClusterSidecarDefinition", "probe", &json!({})).to_string();
        e2e::wait_for("refusal of an empty definition", async || {
            Ok(self.create(&nothing, true).await.is_err_and(|error| error.contains("nothing is injected")))
        })
        .await
        .unwrap();
    }
}

fn definition(kind: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "sidecar.me/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

/// A definition that does something, and has these fields too.
fn spec(more: &Value) -> Value {
    let mut spec = json!({"inject": {"spec": {"hostname": "h"}}});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    spec
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_keeps_definitions_as_they_are_and_refuses_wrong_ones() {
    let kinds = Kinds::start().await;
    kinds.wait().await;
    good_definitions_are_taken_as_they_are(&kinds).await;
    bad_ones_are_refused_with_a_sentence(&kinds).await;
    the_list_shows_what_matters(&kinds).await;
    kinds.cluster.stop().await.unwrap();
}

async fn good_definitions_are_taken_as_they_are(kinds: &Kinds) {
    // All that a definition can have; what is embedded has fields and expressions that no schema of ours names.
    let everything = spec(&json!({
        "selector": {
            "namespaceSelector": {"matchLabels": {"team": "payments"}},
            "podSelector": {"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]},
            "matchConditions": [{
                "name": "not-a-job",
                "expression": "!has(pod.metadata.ownerReferences) || pod.metadata.ownerReferences.all(o, o.kind != 'Job')",
            }],
        },
        "parameters": [
            {"name": "level", "type": "string", "default": "info", "allowed": ["debug", "info", "warn"]},
            {"name": "workers", "type": "integer", "default": 2, "minimum": 1, "maximum": 8},
            {"name": "memory", "type": "quantity", "default": "64Mi", "maximum": "1Gi"},
            {"name": "ratio", "type": "number", "default": 0.5},
        ],
        "inject": {
            "metadata": {"annotations": {"logs.example.com/shipped": "true"}},
            "spec": {
                "initContainers": [{
                    "name": "log-shipper", "restartPolicy": "Always", "image": "fluent/fluent-bit:3.2",
                    "args": ["--level=${params.level}", "--app=${pod.metadata.labels['app']}"],
                    "ports": [{"containerPort": "${params.workers}"}],
                    "volumeMounts": [{"name": "logs", "mountPath": "/logs"}],
                }],
                "volumes": [{"name": "logs", "emptyDir": {}}],
            },
        },
        "patchContainers": [{"names": ["*"], "env": [{"name": "LOG_DIR", "value": "/logs"}]}],
        "placement": {"initContainers": "First", "containers": {"before": "app"}},
        "order": 0, "onConflict": "Fail", "required": false, "failurePolicy": "Ignore",
    }));
    let object = definition("ClusterSidecarDefinition", "everything", &everything);
    kinds.create(&object.to_string(), false).await.unwrap();
    let kept = kinds.kubectl(&["get", "cscd", "everything", "-o", "json"]).await;
    let kept: Value = serde_json::from_str(&kept).unwrap();
    // Nothing pruned, nothing defaulted: what Git has and what the cluster has stay the same.
    assert_eq!(kept["spec"], everything);

    let namespaced = definition("SidecarDefinition", "mine", &spec(&json!({"required": true})));
    kinds.create(&namespaced.to_string(), false).await.unwrap();

    // One of them is for the pods of this namespace.
    kinds.kubectl(&["create", "namespace", "shop"]).await;
    let mut examples = 0;
    for folder in std::fs::read_dir(repository_root().join("examples")).unwrap() {
        let path = folder.unwrap().path().join("definition.yaml");
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        kinds.create(&text, true).await.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        examples += 1;
    }
    assert!(examples >= 10, "{examples}");
}

async fn bad_ones_are_refused_with_a_sentence(kinds: &Kinds) {
    let long = "x".repeat(64);
    let parameter = |parameter: Value| spec(&json!({"parameters": [parameter]}));
    let selector = |selector: Value| spec(&json!({"selector": selector}));
    for (name, spec, message) in [
        ("false", spec(&json!({})), "the names true and false are values of sidecar.me/inject"),
        (&long, spec(&json!({})), "63 at most"),
        (
            "a",
            selector(
                json!({"matchConditions": [{"name": "a", "expression": "true"}, {"name": "a", "expression": "true"}]}),
            ),
            "spec.selector.matchConditions[1]: Duplicate value",
        ),
        ("a", parameter(json!({"name": "a-b"})), "letters, digits and _, a letter first"),
        ("a", parameter(json!({"name": "a", "type": "text"})), "supported values: \"string\""),
        ("a", spec(&json!({"ordre": 1})), "unknown field \"spec.ordre\""),
        ("a", spec(&json!({"order": "first"})), "spec.order"),
    ] {
        let refused =
            kinds.create(&definition("ClusterSidecarDefinition", name, &spec).to_string(), true).await;
        let error = refused.expect_err(message);
        assert!(error.contains(message), "expected {message:?}:\n{error}");
    }
}

async fn the_list_shows_what_matters(kinds: &Kinds) {
    let header = |list: &str| list.lines().next().unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
    let list = kinds.kubectl(&["get", "cscd"]).await;
    assert_eq!(header(&list), "NAME REQUIRED FAILURE POLICY READY AGE");
    let list = kinds.kubectl(&["get", "cscd", "-o", "wide"]).await;
    assert_eq!(header(&list), "NAME ORDER REQUIRED FAILURE POLICY READY AGE");
    let both = kinds.kubectl(&["get", "sidecar", "--all-namespaces", "-o", "name"]).await;
    assert!(both.contains("/everything") && both.contains("/mine"), "the category: {both}");

    // The report of the injector is a subresource of its own: who may write it need not be able to write definitions.
    let status = json!({"status": {
        "observedGeneration": 1, "injectedPods": 3,
        "conditions": [{"type": "Ready", "status": "True", "reason": "Served", "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
    }});
    let patch =
        ["patch", "cscd", "everything", "--subresource=status", "--type=merge", "-p", &status.to_string()];
    kinds.kubectl(&patch).await;
    let list = kinds.kubectl(&["get", "cscd", "everything", "--no-headers"]).await;
    assert_eq!(list.split_whitespace().collect::<Vec<_>>()[..4], ["everything", "false", "Ignore", "True"]);
}
