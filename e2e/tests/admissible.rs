//! No pod is refused because of us: whatever a parameter's or an expression's value is, the API server takes the pod that
//! the engine makes, or the engine leaves it alone.

// A test may panic; clippy.toml says so for the test functions, this for their helpers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fmt::Write as _;

use serde_json::{Value, json};
use sidecar_engine::definition::Compiled;
use sidecar_engine::{Engine, Namespace, apply_all};
use sidecar_testkit::{Cluster, Options, Tier};

/// Parts of a container and of a pod's spec, with `@` where the value stands.
const IN_CONTAINER: [&str; 40] = [
    r#""image": "@""#,
    r#""imagePullPolicy": "@""#,
    r#""workingDir": "@""#,
    r#""tty": "@""#,
    r#""args": "@""#,
    r#""args": ["@"]"#,
    r#""command": ["@"]"#,
    r#""env": "@""#,
    r#""env": [{"name": "A", "value": "@"}]"#,
    r#""env": [{"name": "@", "value": "a"}]"#,
    r#""env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "@"}}}]"#,
    r#""env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "@", "key": "a"}}}]"#,
    r#""env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "a", "key": "@"}}}]"#,
    r#""envFrom": [{"configMapRef": {"name": "@"}}]"#,
    r#""envFrom": [{"prefix": "@", "configMapRef": {"name": "a"}}]"#,
    r#""ports": [{"containerPort": "@"}]"#,
    r#""ports": [{"containerPort": 80, "name": "@"}]"#,
    r#""ports": [{"containerPort": 80, "protocol": "@"}]"#,
    r#""ports": [{"containerPort": 80, "hostPort": "@"}]"#,
    r#""resources": {"limits": {"cpu": "@"}}"#,
    r#""resources": {"requests": {"memory": "@"}}"#,
    r#""resources": {"requests": {"cpu": "@"}, "limits": {"cpu": "1"}}"#,
    r#""volumeMounts": [{"name": "v", "mountPath": "@"}]"#,
    r#""volumeMounts": [{"name": "@", "mountPath": "/v"}]"#,
    r#""volumeMounts": [{"name": "v", "mountPath": "/v", "subPath": "@"}]"#,
    r#""volumeMounts": [{"name": "v", "mountPath": "/v", "readOnly": "@"}]"#,
    r#""securityContext": {"runAsUser": "@"}"#,
    r#""securityContext": {"privileged": "@"}"#,
    r#""securityContext": {"capabilities": {"add": ["@"]}}"#,
    r#""securityContext": {"seccompProfile": {"type": "@"}}"#,
    r#""livenessProbe": {"httpGet": {"port": "@"}}"#,
    r#""livenessProbe": {"httpGet": {"port": 80, "path": "@"}}"#,
    r#""livenessProbe": {"httpGet": {"port": 80, "httpHeaders": [{"name": "@", "value": "a"}]}}"#,
    r#""livenessProbe": {"httpGet": {"port": 80, "httpHeaders": [{"name": "A", "value": "@"}]}}"#,
    r#""livenessProbe": {"exec": {"command": ["@"]}}"#,
    r#""livenessProbe": {"grpc": {"port": "@"}}"#,
    r#""livenessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": "@"}"#,
    r#""readinessProbe": {"tcpSocket": {"port": 80}, "successThreshold": "@"}"#,
    r#""lifecycle": {"preStop": {"sleep": {"seconds": "@"}}}"#,
    r#""terminationMessagePath": "@""#,
];

const IN_SPEC: [&str; 28] = [
    r#""containers": [{"name": "@", "image": "i"}]"#,
    r#""initContainers": [{"name": "s", "image": "i", "restartPolicy": "@"}]"#,
    r#""hostname": "@""#,
    r#""subdomain": "@""#,
    r#""terminationGracePeriodSeconds": "@""#,
    r#""activeDeadlineSeconds": "@""#,
    r#""shareProcessNamespace": "@""#,
    r#""serviceAccountName": "@""#,
    r#""schedulerName": "@""#,
    r#""dnsPolicy": "@""#,
    r#""nodeSelector": {"a": "@"}"#,
    r#""imagePullSecrets": [{"name": "@"}]"#,
    r#""hostAliases": [{"ip": "@", "hostnames": ["a"]}]"#,
    r#""hostAliases": [{"ip": "10.0.0.1", "hostnames": ["@"]}]"#,
    r#""tolerations": [{"key": "@", "operator": "Exists"}]"#,
    r#""tolerations": [{"key": "a", "operator": "@"}]"#,
    r#""tolerations": [{"key": "a", "effect": "@"}]"#,
    r#""tolerations": [{"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": "@"}]"#,
    r#""dnsConfig": {"nameservers": ["@"]}"#,
    r#""dnsConfig": {"searches": ["@"]}"#,
    r#""topologySpreadConstraints": [{"maxSkew": "@", "topologyKey": "a", "whenUnsatisfiable": "DoNotSchedule"}]"#,
    r#""topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "@", "whenUnsatisfiable": "DoNotSchedule"}]"#,
    r#""securityContext": {"fsGroup": "@"}"#,
    r#""volumes": [{"name": "@", "emptyDir": {}}]"#,
    r#""volumes": [{"name": "w", "configMap": {"name": "@"}}]"#,
    r#""volumes": [{"name": "w", "configMap": {"name": "c", "defaultMode": "@"}}]"#,
    r#""volumes": [{"name": "w", "emptyDir": {"sizeLimit": "@"}}]"#,
    r#""volumes": [{"name": "w", "hostPath": {"path": "@", "type": "Directory"}}]"#,
];

/// What annotations say, right and wrong.
const VALUES: [&str; 26] = [
    "",
    " ",
    "a",
    "A_B",
    "a b",
    "a.b",
    "-1",
    "0",
    "1",
    "80",
    "70000",
    "99999999999",
    "1.5",
    "true",
    "100m",
    "64Mi",
    "-5Mi",
    "1e3",
    "TCP",
    "Always",
    "/a",
    "../a",
    "Exists",
    "metadata.name",
    "10.0.0.2",
    "Localhost",
];

fn engine(fragment: &str) -> Engine {
    let fragment = fragment.replace('@', "${pod.metadata.annotations.v}");
    let definition = format!(
        r#"{{"apiVersion": "sidecar.me/v1alpha1", "kind": "ClusterSidecarDefinition", "metadata": {{"name": "d"}},
            "spec": {{"selector": {{"podSelector": {{}}}}, "inject": {fragment}}}}}"#
    );
    let compiled =
        Compiled::from_yaml(&definition).unwrap_or_else(|problems| panic!("{definition}: {problems:?}"));
    Engine::new(vec![compiled.into()])
}

#[tokio::test(flavor = "multi_thread")]
async fn no_value_of_an_annotation_has_a_pod_refused() {
    let in_container = IN_CONTAINER.iter().map(|part| {
        let image = if part.starts_with("\"image\"") { "" } else { r#""image": "i","# };
        format!(
            r#"{{"spec": {{"containers": [{{"name": "s", {image} {part}}}], "volumes": [{{"name": "v", "emptyDir": {{}}}}]}}}}"#
        )
    });
    let in_spec = IN_SPEC.iter().map(|part| format!(r#"{{"spec": {{{part}}}}}"#));
    let in_metadata =
        [r#"{"metadata": {"labels": {"a": "@"}}}"#, r#"{"metadata": {"annotations": {"a": "@"}}}"#];
    let fragments = in_container.chain(in_spec).chain(in_metadata.map(str::to_owned));

    let mut pods: Vec<Value> = Vec::new();
    let mut said: Vec<String> = Vec::new();
    for fragment in fragments {
        let engine = engine(&fragment);
        for value in VALUES {
            let pod = json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": format!("p{}", pods.len()), "annotations": {"v": value}},
                "spec": {"containers": [{"name": "app", "image": "a"}]},
            });
            let injection = engine.inject(&pod.to_string(), &Namespace::new("default", [], [])).unwrap();
            if !injection.patch.is_empty() {
                let pod = apply_all(&pod.to_string(), &[(String::new(), injection.patch)]).unwrap();
                pods.push(serde_json::from_str(&pod).unwrap());
                said.push(format!("{fragment} with {value:?}"));
            }
        }
    }

    let cluster = Cluster::start(Tier::Api, Options::default()).await.unwrap();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": pods}).to_string();
    let arguments = ["create", "--dry-run=server", "--validate=false", "-f", "-"];
    let output = cluster.kubectl_with_input(&arguments, &list).await.unwrap();
    cluster.stop().await.unwrap();
    let mut refused = String::new();
    for line in output.stderr.lines().filter(|line| !line.starts_with("Warning:")) {
        let number =
            line.split_once("\"p").and_then(|(_, rest)| rest.split('"').next()?.parse::<usize>().ok());
        let which = number.and_then(|number| said.get(number)).map_or("?", String::as_str);
        writeln!(refused, "{which}\n    {line}").unwrap();
    }
    assert!(refused.is_empty(), "{refused}");
    let taken = output.stdout.matches(" created").count();
    assert!(taken == pods.len() && taken > 600, "{taken} of {}", pods.len());
}
