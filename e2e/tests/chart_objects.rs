//! All that the charts can render, before a real API server: each object is checked against its own schema, unknown fields are errors,
//! and what no schema says (selectors, expressions, quantities) is checked as if it were created. Nothing is.

// A test may panic; clippy.toml says so for the test functions, this for their helpers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::json;
use sidecar_testkit::{Cluster, HelmVersion, Options, Tier, repository_root};

const INJECTOR: &str = "charts/kubernetes-sidecar-injector";
const HTTPBIN: &str = "charts/httpbin";

/// Kinds of others, which are not on this cluster: names and versions are checked, what is in them is not.
const FOREIGN: [(&str, &str, &str, &str); 5] = [
    ("cert-manager.io", "v1", "Certificate", "certificates"),
    ("cert-manager.io", "v1", "Issuer", "issuers"),
    ("monitoring.coreos.com", "v1", "ServiceMonitor", "servicemonitors"),
    ("monitoring.coreos.com", "v1", "PrometheusRule", "prometheusrules"),
    ("grafana.integreatly.org", "v1beta1", "GrafanaDashboard", "grafanadashboards"),
];

/// Values that render what others do not.
const COMBINATIONS: [&str; 17] = [
    "webhook.scope=Namespaces",
    "webhook.scope=All,webhook.failurePolicy=Fail",
    "definitionResources.watch=false,crds.install=false,serviceAccount.create=false,serviceAccount.name=mine",
    "serviceMonitor.enabled=true,prometheusRule.enabled=true,selfProbe.enabled=true,metrics.port=9091",
    "grafanaDashboard.enabled=true,grafanaDashboard.operator.enabled=true,grafanaDashboard.operator.folder=Kubernetes",
    "certificates.mode=helm",
    "certificates.mode=certManager",
    "certificates.mode=provided,certificates.provided.secretName=mine,certificates.provided.externalCaBundle=true",
    "webhook.clientVerification.configMap=clients,webhook.clientVerification.names[0]=kube-apiserver",
    "webhook.url=https://injector.example.com:8443,webhook.labels.a=b",
    "hostNetwork=true,containerPort=10260,dnsPolicy=Default",
    "hostUsers=false,minReadySeconds=3,updateStrategy.type=Recreate,updateStrategy.rollingUpdate=null",
    "autoscaling.enabled=true,podDisruptionBudget.maxUnavailable=50%",
    "networkPolicy.enabled=true,networkPolicy.webhookFrom[0].ipBlock.cidr=10.0.0.0/28,networkPolicy.extraEgress[0].ports[0].port=53",
    "demo.enabled=true,commonLabels.a=b,commonAnnotations.c=d,namespaceOverride=other",
    "extraVolumes[0].name=a,extraVolumes[0].emptyDir=null,extraVolumeMounts[0].name=a,extraVolumeMounts[0].mountPath=/a,\
     extraInitContainers[0].name=i,extraInitContainers[0].image=i:1,extraEnv[0].name=A,extraEnv[0].value=b,extraArgs[0]=--help",
    "service.ipFamilyPolicy=SingleStack,service.ipFamilies[0]=IPv4,service.trafficDistribution=PreferSameZone,\
     global.priorityClassName=system-cluster-critical,global.nodeSelector.a=b,global.tolerations[0].operator=Exists,priorityClassName=",
];

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_takes_all_that_the_charts_render() {
    // Never somebody else's: webhooks and kinds are in no namespace.
    let cluster = Cluster::start(Tier::Api, Options::default()).await.unwrap();
    for namespace in ["demo", "other"] {
        cluster.kubectl(&["create", "namespace", namespace]).await.unwrap().checked().unwrap();
    }
    for (group, version, kind, plural) in FOREIGN {
        let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        let definition = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.{group}")},
            "spec": {
                "group": group, "scope": "Namespaced", "names": {"kind": kind, "plural": plural},
                "versions": [{"name": version, "served": true, "storage": true, "schema": {"openAPIV3Schema": open}}],
            },
        });
        cluster
            .kubectl_with_input(&["create", "-f", "-"], &definition.to_string())
            .await
            .unwrap()
            .checked()
            .unwrap();
        let name = format!("crd/{plural}.{group}");
        cluster.kubectl(&["wait", "--for=condition=Established", &name]).await.unwrap().checked().unwrap();
    }
    let mut checked = 0;
    let mut profiles = vec![String::new()];
    for entry in std::fs::read_dir(repository_root().join(INJECTOR)).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.starts_with("values-") {
            profiles.push(format!("--values={INJECTOR}/{name}"));
        }
    }
    assert!(profiles.len() > 7, "{profiles:?}");
    for profile in &profiles {
        checked += check(&cluster, INJECTOR, profile).await;
    }
    for values in COMBINATIONS {
        checked += check(&cluster, INJECTOR, &format!("--set={values}")).await;
    }
    checked += check(&cluster, HTTPBIN, "").await;
    assert!(checked > 200, "only {checked} objects");

    let wrong = "--set-json=extraObjects=[{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"a\"},\"dat\":{}}]";
    let refused = apply(&cluster, INJECTOR, wrong).await.unwrap_err();
    assert!(refused.contains("unknown field \"dat\""), "it would notice: {refused}");
    cluster.stop().await.unwrap();
}

/// How many objects there were.
async fn check(cluster: &Cluster, chart: &str, argument: &str) -> usize {
    let applied =
        apply(cluster, chart, argument).await.unwrap_or_else(|error| panic!("{chart} {argument}:\n{error}"));
    let objects = applied.lines().filter(|line| line.ends_with("(server dry run)")).count();
    assert!(objects > 1, "{chart} {argument}: {applied}");
    objects
}

async fn apply(cluster: &Cluster, chart: &str, argument: &str) -> Result<String, String> {
    let mut template = vec!["template", "release", chart, "--namespace=default", "--kube-version=1.37.0"];
    template.extend((!argument.is_empty()).then_some(argument));
    let rendered = cluster.helm(HelmVersion::Four, &template).await.unwrap().checked().unwrap();
    let apply = ["apply", "--dry-run=server", "--validate=strict", "-f", "-"];
    let output = cluster.kubectl_with_input(&apply, &rendered).await.unwrap();
    output.checked().map_err(|error| format!("{error:#}"))
}
