//! What the article promises, and what is selected by what.

use serde_json::{Value, json};

use crate::render::*;

#[test]
fn objects_and_names_are_the_article_s() {
    let objects = render(INJECTOR, INJECTOR, &[]);
    let mut found: Vec<(&str, &str)> =
        objects.iter().map(|o| (text(o, "/kind"), text(o, "/metadata/name"))).collect();
    found.retain(|(kind, _)| *kind != "Pod");
    found.sort_unstable();
    let of_definitions = ["clustersidecardefinitions.sidecar.me", "sidecardefinitions.sidecar.me"];
    let expected = [
        ("ClusterRole", INJECTOR),
        ("ClusterRole", "kubernetes-sidecar-injector-ca-bundle"),
        ("ClusterRole", "kubernetes-sidecar-injector-edit"),
        ("ClusterRole", "kubernetes-sidecar-injector-events"),
        ("ClusterRole", "kubernetes-sidecar-injector-view"),
        ("ClusterRoleBinding", INJECTOR),
        ("ClusterRoleBinding", "kubernetes-sidecar-injector-ca-bundle"),
        ("ClusterRoleBinding", "kubernetes-sidecar-injector-events"),
        ("ConfigMap", "kubernetes-sidecar-injector-definitions"),
        ("CustomResourceDefinition", of_definitions[0]),
        ("CustomResourceDefinition", of_definitions[1]),
        ("Deployment", INJECTOR),
        ("Lease", INJECTOR),
        ("MutatingWebhookConfiguration", INJECTOR),
        ("PodDisruptionBudget", INJECTOR),
        ("Role", INJECTOR),
        ("Role", "kubernetes-sidecar-injector-certificates"),
        ("RoleBinding", INJECTOR),
        ("RoleBinding", "kubernetes-sidecar-injector-certificates"),
        ("Secret", "kubernetes-sidecar-injector-certificates"),
        ("Service", INJECTOR),
        ("ServiceAccount", INJECTOR),
        ("ValidatingWebhookConfiguration", INJECTOR),
    ];
    assert_eq!(found, expected, "nothing else: no jobs, no hooks");
    assert!(of_kind(&objects, "Secret").get("data").is_none(), "what is in it is the injector's");
    let with_helm = render(INJECTOR, INJECTOR, &[HELM_MODE]);
    let secret = of_kind(&with_helm, "Secret");
    assert_eq!(text(secret, "/metadata/name"), INJECTOR);
    assert_eq!(keys(&secret["data"]), ["ca.crt", "tls-cert-file", "tls-private-key-file"]);
    let service = of_kind(&objects, "Service");
    assert_eq!(
        service["spec"]["ports"],
        json!([{"name": "https", "port": 443, "protocol": "TCP", "targetPort": "https"}])
    );
    for webhook in webhooks(&objects) {
        assert_eq!(
            webhook["clientConfig"],
            json!({"service": {"name": INJECTOR, "namespace": "default", "path": "/mutation/pod", "port": 443}})
        );
        let pods = json!([{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"], "scope": "Namespaced"}]);
        assert_eq!(webhook["rules"], pods);
        assert_eq!(webhook["admissionReviewVersions"], json!(["v1"]));
        assert_eq!(webhook["sideEffects"], "None");
    }
}

#[test]
fn the_process_listens_where_the_service_and_the_probes_call() {
    for (arguments, port) in [(vec![], 8443), (vec!["--set=containerPort=10250"], 10250)] {
        let objects = render(INJECTOR, INJECTOR, &arguments);
        let container = container(of_kind(&objects, "Deployment"));
        assert_eq!(
            container["ports"],
            json!([
                {"name": "https", "containerPort": port, "protocol": "TCP"},
                {"name": "metrics", "containerPort": 9090, "protocol": "TCP"},
            ])
        );
        let env = env(container);
        assert_eq!(env["HTTPS_PORT"], port.to_string());
        assert_eq!(env["HTTPS_ENABLED"], "true");
        assert_eq!(text(of_kind(&objects, "Service"), "/spec/ports/0/targetPort"), "https");
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            assert_eq!(container[probe]["httpGet"]["port"], "https", "{probe}");
            assert_eq!(container[probe]["httpGet"]["scheme"], "HTTPS", "{probe}");
        }
    }
}

#[test]
fn httpbin_asks_for_the_sidecar() {
    let objects = render(HTTPBIN, HTTPBIN, &[]);
    let deployment = of_kind(&objects, "Deployment");
    let selector = json!({"app.kubernetes.io/name": HTTPBIN, "app.kubernetes.io/instance": HTTPBIN});
    assert_eq!(deployment["spec"]["selector"]["matchLabels"], selector);
    assert_eq!(deployment["spec"]["template"]["metadata"]["labels"]["sidecar.me/inject"], "true");
    let container = container(deployment);
    assert_eq!(container["name"], HTTPBIN);
    assert_eq!(container["image"], "kennethreitz/httpbin:latest");
    assert_eq!(container["imagePullPolicy"], "IfNotPresent");
    assert_eq!(container["ports"][0]["containerPort"], 80);
}

#[test]
fn selectors_find_the_pods_and_never_use_the_inject_label() {
    let labels = ["--set=commonLabels.team=a", "--set=podLabels.tier=b"];
    for (chart, arguments) in [(INJECTOR, &labels[..]), (HTTPBIN, &[])] {
        let objects = render(chart, chart, arguments);
        let pod = &of_kind(&objects, "Deployment")["spec"]["template"]["metadata"]["labels"];
        let selecting: Vec<&Value> = objects
            .iter()
            .filter_map(|object| {
                object
                    .pointer("/spec/selector/matchLabels")
                    .or_else(|| object.pointer("/spec/selector").filter(|_| object["kind"] == "Service"))
            })
            .collect();
        assert!(selecting.len() >= 2, "{chart}: {selecting:?}");
        for selector in selecting {
            assert_eq!(keys(selector), ["app.kubernetes.io/instance", "app.kubernetes.io/name"], "{chart}");
            assert!(contains(pod, selector), "{chart}: {selector} does not select {pod}");
        }
    }
}

#[test]
fn test_pods_are_neither_selected_nor_injected() {
    for chart in [INJECTOR, HTTPBIN] {
        let objects = render(chart, chart, &[]);
        let pod = of_kind(&objects, "Pod");
        assert_eq!(
            pod["metadata"]["annotations"],
            json!({"helm.sh/hook": "test", "helm.sh/hook-delete-policy": "before-hook-creation,hook-succeeded"})
        );
        let labels = &pod["metadata"]["labels"];
        assert_eq!(labels["sidecar.me/inject"], "false", "{chart}");
        assert!(!contains(labels, &of_kind(&objects, "Service")["spec"]["selector"]), "{chart}");
        for object in objects.iter().filter(|object| object["kind"] != "Pod") {
            assert!(
                object.pointer("/metadata/annotations/helm.sh~1hook").is_none(),
                "{chart}: a hook that is no test"
            );
        }
    }
}

#[test]
fn the_test_pod_asks_what_the_api_server_asks() {
    for (release, service, variable) in [
        (INJECTOR, INJECTOR, "KUBERNETES_SIDECAR_INJECTOR"),
        ("a", "a-kubernetes-sidecar-injector", "A_KUBERNETES_SIDECAR_INJECTOR"),
    ] {
        let objects = render(INJECTOR, release, &[]);
        let pod = of_kind(&objects, "Pod");
        assert_eq!(pod["spec"]["enableServiceLinks"], true);
        let container = &pod["spec"]["containers"][0];
        assert_eq!(
            container["args"],
            json!([
                "check",
                "--url",
                format!("https://{service}.default.svc:443"),
                "--connect-to",
                format!("$({variable}_SERVICE_HOST):$({variable}_SERVICE_PORT)")
            ])
        );
        assert_eq!(env(container)["WEBHOOK_CONFIGURATION"], service);
        assert_eq!(pod["spec"]["serviceAccountName"], service, "which may read that configuration");

        let objects = render(INJECTOR, release, &[HELM_MODE]);
        let pod = of_kind(&objects, "Pod");
        assert_eq!(pod["spec"]["automountServiceAccountToken"], false);
        let bundle = text(webhooks(&objects)[0], "/clientConfig/caBundle");
        assert_eq!(env(&pod["spec"]["containers"][0])["CA_BUNDLE"], bundle);
    }
}

#[test]
fn a_pod_meets_at_most_one_webhook() {
    let namespaces = [
        json!({"kubernetes.io/metadata.name": "default"}),
        json!({"kubernetes.io/metadata.name": "any", "sidecar.me/required": "true"}),
        json!({"kubernetes.io/metadata.name": "any", "sidecar.me/required": "false"}),
        json!({"kubernetes.io/metadata.name": "any", "sidecar.me/injection": "enabled"}),
        json!({"kubernetes.io/metadata.name": "any", "sidecar.me/injection": "enabled", "sidecar.me/required": "true"}),
        json!({"kubernetes.io/metadata.name": "kube-system", "sidecar.me/required": "true"}),
        json!({"kubernetes.io/metadata.name": "kube-node-lease", "sidecar.me/injection": "enabled"}),
    ];
    let pods = [
        json!({}),
        json!({"sidecar.me/inject": "true"}),
        json!({"sidecar.me/inject": "True"}),
        json!({"sidecar.me/inject": "false"}),
        json!({"sidecar.me/inject": "False"}),
        // Neither asks by label nor opts out, so the annotation decides.
        json!({"sidecar.me/inject": "curl"}),
        json!({"sidecar.me/inject": "TRUE"}),
        json!({"sidecar.me/inject": ""}),
    ];
    let (open, closed) = ("injector.sidecar.me", "required.injector.sidecar.me");
    let (by_annotation, closed_by_annotation) =
        ("annotated.injector.sidecar.me", "annotated.required.injector.sidecar.me");
    let none = [None; 8];
    let all_open = [Some(open); 8];
    let all_closed = [Some(closed); 8];
    let asking = |by_label, by_annotation| {
        let (label, annotation) = (Some(by_label), Some(by_annotation));
        [annotation, label, label, None, None, annotation, annotation, annotation]
    };
    let asked = asking(open, by_annotation);
    let asked_closed = asking(closed, closed_by_annotation);
    for (scope, wanted) in [
        ("Requested", [asked, asked_closed, asked, asked, asked_closed, none, none]),
        ("Namespaces", [none, none, none, all_open, all_closed, none, none]),
        // The release's own namespace is left out.
        ("All", [none, all_closed, all_open, all_open, all_closed, none, none]),
    ] {
        let objects = render(INJECTOR, INJECTOR, &[&format!("--set=webhook.scope={scope}")]);
        for (namespace, wanted) in namespaces.iter().zip(wanted) {
            for (pod, wanted) in pods.iter().zip(wanted) {
                let met: Vec<_> = webhooks(&objects)
                    .into_iter()
                    .filter(|webhook| {
                        selects(&webhook["namespaceSelector"], namespace)
                            && selects(&webhook["objectSelector"], pod)
                            && !meets_nobody(webhook)
                    })
                    .map(|webhook| text(webhook, "/name"))
                    .collect();
                assert_eq!(met, wanted.into_iter().collect::<Vec<_>>(), "{scope}: {pod} in {namespace}");
            }
        }
        let own = &of_kind(&objects, "Deployment")["spec"]["template"]["metadata"]["labels"];
        let home = json!({"kubernetes.io/metadata.name": "default", "sidecar.me/injection": "enabled"});
        for webhook in webhooks(&objects) {
            assert!(
                !(selects(&webhook["namespaceSelector"], &home) && selects(&webhook["objectSelector"], own))
                    || meets_nobody(webhook),
                "{scope}: the injector would need itself to start"
            );
            // By no label of its own does a pod escape what nobody opts out of.
            assert_eq!(webhook.get("objectSelector").is_some(), scope == "Requested");
            assert!(text(webhook, "/matchConditions/0/expression").contains("kubernetes.io/config.mirror"));
            let asks = webhook["matchConditions"].to_string().contains("'sidecar.me/inject' in");
            let is_annotated = text(webhook, "/name").starts_with("annotated.");
            assert_eq!(asks || meets_nobody(webhook), is_annotated, "{scope}");
        }
    }
}

/// All names are there in every scope; those that a scope has no use for have a condition that is never true.
fn meets_nobody(webhook: &Value) -> bool {
    let conditions = webhook["matchConditions"].as_array().unwrap();
    conditions.iter().any(|condition| condition["expression"] == "false")
}

#[test]
fn webhook_values_reach_all_webhooks() {
    let policies = |arguments: &[&str]| {
        let objects = render(INJECTOR, INJECTOR, arguments);
        webhooks(&objects)
            .iter()
            .map(|webhook| text(webhook, "/failurePolicy").to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(policies(&[]), ["Ignore", "Fail", "Ignore", "Fail"]);
    assert_eq!(policies(&["--set=webhook.failurePolicy=Fail"]), ["Fail"; 4]);
    assert_eq!(policies(&["--set=webhook.requiredFailurePolicy=Ignore"]), ["Ignore"; 4]);
    assert_eq!(policies(&["--set=webhook.scope=All"]), ["Ignore", "Fail", "Ignore", "Fail"]);

    let objects = render(
        INJECTOR,
        INJECTOR,
        &[
            "--set=webhook.timeoutSeconds=3",
            "--set=webhook.excludedNamespaces={a,b}",
            "--set=webhook.namespaceSelector.matchLabels.team=x",
            "--set=webhook.namespaceSelector.matchExpressions[0].key=stage",
            "--set=webhook.namespaceSelector.matchExpressions[0].operator=Exists",
            "--set=webhook.matchConditions[0].name=x",
            "--set-string=webhook.matchConditions[0].expression=true",
        ],
    );
    for webhook in webhooks(&objects) {
        assert_eq!(webhook["timeoutSeconds"], 3);
        assert_eq!(webhook["reinvocationPolicy"], "IfNeeded");
        assert_eq!(webhook["matchPolicy"], "Equivalent");
        let by_annotation = text(webhook, "/name").starts_with("annotated.");
        assert_eq!(webhook["matchConditions"].as_array().unwrap().len(), if by_annotation { 3 } else { 2 });
        let selector = &webhook["namespaceSelector"];
        assert_eq!(selector["matchLabels"], json!({"team": "x"}));
        assert_eq!(selector["matchExpressions"][1]["values"], json!(["a", "b"]));
        assert_eq!(selector["matchExpressions"][2], json!({"key": "stage", "operator": "Exists"}));
    }
}
