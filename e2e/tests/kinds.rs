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
    they_explain_themselves(&kinds).await;
    good_definitions_are_taken_as_they_are(&kinds).await;
    bad_ones_are_refused_with_a_sentence(&kinds).await;
    the_list_shows_what_matters(&kinds).await;
    kinds.cluster.stop().await.unwrap();
}

async fn they_explain_themselves(kinds: &Kinds) {
    for (field, sentence) in [
        (
            "clustersidecardefinition.spec.placement",
            "Where the injected containers stand among the pod's own.",
        ),
        ("clustersidecardefinition.spec.placement", "{before: NAME} or {after: NAME}"),
        ("scd.spec.onConflict", "KeepPod: The pod's own stays"),
    ] {
        // kubectl breaks lines where it likes.
        let explained = kinds.kubectl(&["explain", field]).await;
        let explained = explained.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(explained.contains(sentence), "{field}: {explained}");
    }
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
            {"name": "ratio", "type": "number", "default": 0.5, "minimum": 0.25, "maximum": "1"},
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
        "order": 0, "onConflict": "Fail", "required": false, "failurePolicy": "Ignore", "missedPods": "Report",
    }));
    let object = definition("ClusterSidecarDefinition", "everything", &everything);
    kinds.create(&object.to_string(), false).await.unwrap();
    let kept = kinds.kubectl(&["get", "cscd", "everything", "-o", "json"]).await;
    let kept: Value = serde_json::from_str(&kept).unwrap();
    // Nothing pruned, nothing defaulted: what Git has and what the cluster has stay the same.
    assert_eq!(kept["spec"], everything);

    // What a rule asks about may be of any type: a whole part of a pod can be the value of one expression.
    for spec in [
        json!({"inject": {"spec": "${namespace.name == 'a' ? {'hostname': 'a'} : null}"}}),
        json!({"inject": {"metadata": "${null}"}}),
        json!({"patchContainers": [{"env": [{"name": "A", "value": "b"}]}]}),
    ] {
        kinds.create(&definition("ClusterSidecarDefinition", "a", &spec).to_string(), true).await.unwrap();
    }

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
    const CLUSTER: &str = "ClusterSidecarDefinition";
    const OWN: &str = "SidecarDefinition";
    const NOTHING: &str = "nothing is injected: set inject, patchContainers, or both";
    const BOUNDS: &str = "minimum and maximum are for parameters of the types integer, number and quantity";
    let long = "x".repeat(64);
    let parameter = |parameter: Value| spec(&json!({"parameters": [parameter]}));
    let selector = |selector: Value| spec(&json!({"selector": selector}));
    for (kind, name, spec, message) in [
        (CLUSTER, "false", spec(&json!({})), "the names true and false are values of sidecar.me/inject"),
        (OWN, "true", spec(&json!({})), "the names true and false are values of sidecar.me/inject"),
        (CLUSTER, &long, spec(&json!({})), "63 at most"),
        (OWN, "a.b", spec(&json!({})), "the name must be lower-case letters, digits and inner hyphens"),
        (CLUSTER, "a", json!({"inject": {}, "patchContainers": []}), NOTHING),
        (OWN, "a", json!({"order": 1}), NOTHING),
        (
            CLUSTER,
            "a",
            selector(json!({"byName": "Only", "podSelector": {}})),
            "byName: Only selects nobody, so it goes without podSelector",
        ),
        (
            OWN,
            "a",
            selector(json!({"namespaceSelector": {}})),
            "a SidecarDefinition is for the pods of its own namespace: it has no namespaceSelector",
        ),
        (
            CLUSTER,
            "a",
            selector(
                json!({"matchConditions": [{"name": "a", "expression": "true"}, {"name": "a", "expression": "true"}]}),
            ),
            "spec.selector.matchConditions[1]: Duplicate value",
        ),
        (
            CLUSTER,
            "a",
            spec(&json!({"parameters": [{"name": "a"}, {"name": "a"}]})),
            "spec.parameters[1]: Duplicate value",
        ),
        (CLUSTER, "a", parameter(json!({"name": "a-b"})), "letters, digits and _, a letter first"),
        (CLUSTER, "a", parameter(json!({"name": "a", "type": "text"})), "supported values: \"string\""),
        (
            CLUSTER,
            "a",
            parameter(json!({"name": "a", "type": "integer", "pattern": "1"})),
            "pattern is for parameters of the type string",
        ),
        // A parameter whose type is not said is a string.
        (CLUSTER, "a", parameter(json!({"name": "a", "minimum": 1})), BOUNDS),
        (CLUSTER, "a", parameter(json!({"name": "a", "type": "boolean", "maximum": true})), BOUNDS),
        (OWN, "a", parameter(json!({"name": "a", "type": "string", "maximum": "1Gi"})), BOUNDS),
        (CLUSTER, "a", spec(&json!({"ordre": 1})), "unknown field \"spec.ordre\""),
        (CLUSTER, "a", spec(&json!({"order": "first"})), "spec.order"),
        (CLUSTER, "a", spec(&json!({"onConflict": "Never"})), "supported values: \"Fail\""),
        (
            CLUSTER,
            "a",
            spec(&json!({"placement": {"container": "First"}})),
            "unknown field \"spec.placement.container\"",
        ),
    ] {
        let refused = kinds.create(&definition(kind, name, &spec).to_string(), true).await;
        let error = refused.expect_err(message);
        assert!(error.contains(message), "expected {message:?}:\n{error}");
    }
}

async fn the_list_shows_what_matters(kinds: &Kinds) {
    let header = |list: &str| list.lines().next().unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
    let list = kinds.kubectl(&["get", "cscd"]).await;
    assert_eq!(header(&list), "NAME REQUIRED FAILURE POLICY READY INJECTED AGE");
    let list = kinds.kubectl(&["get", "cscd", "-o", "wide"]).await;
    assert_eq!(header(&list), "NAME ORDER REQUIRED FAILURE POLICY READY INJECTED AGE");
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
    assert_eq!(
        list.split_whitespace().collect::<Vec<_>>()[..5],
        ["everything", "false", "Ignore", "True", "3"]
    );
}
