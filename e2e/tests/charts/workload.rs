//! Where the pods run and who reaches them: the values that some clusters need.

use serde_json::{Value, json};
use sidecar_testkit::Program;

use crate::render::*;

fn pod_spec(objects: &[Value]) -> &Value {
    &of_kind(objects, "Deployment")["spec"]["template"]["spec"]
}

#[test]
fn everything_goes_into_the_other_namespace() {
    let objects = render(INJECTOR, INJECTOR, &[HELM_MODE, "--set=namespaceOverride=other,webhook.scope=All"]);
    for object in &objects {
        let namespace = &object["metadata"]["namespace"];
        assert!(namespace.is_null() || namespace == "other", "{object:#}");
    }
    assert_eq!(of_kind(&objects, "ClusterRoleBinding")["subjects"][0]["namespace"], "other");
    for webhook in all_webhooks(&objects) {
        assert_eq!(text(webhook, "/clientConfig/service/namespace"), "other");
    }
    let excluded = webhooks(&objects)[0]["namespaceSelector"]["matchExpressions"].to_string();
    assert!(excluded.contains("\"other\"") && !excluded.contains("\"default\""), "{excluded}");
    let folder = tempfile::tempdir().unwrap();
    write_certificates(folder.path(), &objects);
    verify(folder.path(), "kubernetes-sidecar-injector.other.svc");
}

#[test]
fn labels_and_annotations_are_on_every_object() {
    let arguments = [
        "--set=commonAnnotations.team=a,commonLabels.cost=b,webhook.labels.w=one,service.labels.s=two",
        "--set=serviceAccount.labels.t=three,service.annotations.team=mine,networkPolicy.enabled=true",
        "--set=autoscaling.enabled=true",
    ];
    let objects = render(INJECTOR, INJECTOR, &arguments);
    for object in &objects {
        let metadata = &object["metadata"];
        let team = if object["kind"] == "Service" { "mine" } else { "a" };
        assert_eq!(
            (&metadata["annotations"]["team"], &metadata["labels"]["cost"]),
            (&json!(team), &json!("b"))
        );
    }
    let pod = &of_kind(&objects, "Deployment")["spec"]["template"]["metadata"];
    assert!(pod["annotations"].get("team").is_none(), "one more annotation would roll the pods");
    assert_eq!(of_kind(&objects, "Service")["metadata"]["labels"]["s"], "two");
    assert_eq!(of_kind(&objects, "ServiceAccount")["metadata"]["labels"]["t"], "three");
    let webhooks = &of_kind(&objects, "MutatingWebhookConfiguration")["metadata"];
    assert_eq!(
        (&webhooks["labels"]["w"], &webhooks["annotations"]["admissions.enforcer/disabled"]),
        (&json!("one"), &json!("true"))
    );
}

#[test]
fn who_looks_for_missed_pods_knows_which_ones_are_asked_about() {
    let known = |arguments: &[&str]| {
        let objects = render(INJECTOR, INJECTOR, arguments);
        let container = &pod_spec(&objects)["containers"][0];
        env(container)
            .get("WEBHOOK_NAMESPACE_SELECTOR")
            .map(|value| serde_json::from_str::<Value>(value).unwrap())
    };
    assert_eq!(known(&[]), None);
    let selector = known(&["--set=webhook.namespaceSelector.matchLabels.team=a"]);
    assert_eq!(selector, Some(json!({"matchLabels": {"team": "a"}})));
    assert_eq!(known(&["--set=webhook.namespaceSelector.matchLabels.team=a,missedPods.mode=off"]), None);
}

#[test]
fn an_autoscaler_owns_the_number_of_pods() {
    let objects = render(INJECTOR, INJECTOR, &["--set=autoscaling.enabled=true,replicas=1"]);
    assert!(of_kind(&objects, "Deployment")["spec"].get("replicas").is_none(), "two owners of one field");
    let autoscaler = &of_kind(&objects, "HorizontalPodAutoscaler")["spec"];
    assert_eq!((&autoscaler["minReplicas"], &autoscaler["maxReplicas"]), (&json!(2), &json!(6)));
    assert_eq!(of_kind(&objects, "PodDisruptionBudget")["spec"]["minAvailable"], 1);
    let objects = render(INJECTOR, INJECTOR, &["--set=podDisruptionBudget.maxUnavailable=25%"]);
    let budget = &of_kind(&objects, "PodDisruptionBudget")["spec"];
    assert_eq!((&budget["maxUnavailable"], budget.get("minAvailable")), (&json!("25%"), None));
}

#[test]
fn pods_can_run_in_the_node_s_network() {
    let objects = render(INJECTOR, INJECTOR, &["--set=hostNetwork=true,containerPort=10260"]);
    let pod = pod_spec(&objects);
    assert_eq!((&pod["hostNetwork"], &pod["dnsPolicy"]), (&json!(true), &json!("ClusterFirstWithHostNet")));
    assert_eq!(pod_spec(&render(INJECTOR, INJECTOR, &["--set=hostUsers=false"]))["hostUsers"], false);
}

#[test]
fn the_api_server_can_be_given_a_url() {
    let url = "--set=webhook.url=https://injector.example.com:8443/";
    let objects = render(INJECTOR, INJECTOR, &[url]);
    let env = env(container(of_kind(&objects, "Deployment")));
    assert_eq!(env["CERTIFICATE_NAMES"], "injector.example.com");
    let objects = render(INJECTOR, INJECTOR, &[HELM_MODE, url]);
    let urls: Vec<_> =
        all_webhooks(&objects).iter().map(|webhook| text(webhook, "/clientConfig/url")).collect();
    assert_eq!(urls.len(), 5);
    assert!(urls[..4].iter().all(|url| *url == "https://injector.example.com:8443/mutation/pod"), "{urls:?}");
    assert_eq!(urls[4], "https://injector.example.com:8443/validation/definition");
    assert!(all_webhooks(&objects).iter().all(|webhook| webhook["clientConfig"].get("service").is_none()));
    let folder = tempfile::tempdir().unwrap();
    write_certificates(folder.path(), &objects);
    verify(folder.path(), "injector.example.com");
}

#[test]
fn open_shift_chooses_its_own_ids() {
    let ids = |arguments: &[&str]| {
        let objects = render(INJECTOR, INJECTOR, arguments);
        let contexts =
            [pod_spec(&objects), &of_kind(&objects, "Pod")["spec"]].map(|pod| pod["securityContext"].clone());
        assert_eq!(contexts[0], contexts[1]);
        assert_eq!(contexts[0]["runAsNonRoot"], true);
        ["runAsUser", "runAsGroup", "fsGroup"].map(|id| contexts[0].get(id).is_some())
    };
    let adapt = |how: &str| format!("--set=global.compatibility.openshift.adaptSecurityContext={how}");
    let open_shift = "--api-versions=security.openshift.io/v1";
    assert_eq!(ids(&[]), [true; 3]);
    assert_eq!(ids(&[open_shift]), [false; 3]);
    assert_eq!(ids(&[&adapt("force")]), [false; 3]);
    assert_eq!(ids(&[open_shift, &adapt("disabled")]), [true; 3]);
}

#[test]
fn global_values_give_way_to_the_chart_s_own() {
    let global = "--set=global.priorityClassName=g,global.nodeSelector.pool=g,global.tolerations[0].key=g";
    let pod = |more: &[&str]| pod_spec(&render(INJECTOR, INJECTOR, &[&[global], more].concat())).clone();
    let both = json!({"kubernetes.io/os": "linux", "pool": "g"});
    assert_eq!((&pod(&[])["nodeSelector"], &pod(&[])["priorityClassName"]), (&both, &json!("g")));
    let own = pod(&["--set=priorityClassName=o,nodeSelector.pool=o,tolerations[0].key=o"]);
    assert_eq!((&own["nodeSelector"]["pool"], &own["priorityClassName"]), (&json!("o"), &json!("o")));
    assert_eq!(own["tolerations"], json!([{"key": "o"}]));
}

#[test]
fn the_network_policy_lets_the_api_server_in_and_nothing_else_out() {
    let objects = render(INJECTOR, INJECTOR, &["--set=networkPolicy.enabled=true"]);
    let policy = &of_kind(&objects, "NetworkPolicy")["spec"];
    let deployment = of_kind(&objects, "Deployment");
    assert!(selects(&policy["podSelector"], &deployment["spec"]["template"]["metadata"]["labels"]));
    assert_eq!(policy["policyTypes"], json!(["Ingress", "Egress"]));
    assert_eq!(policy["ingress"][0], json!({"ports": [{"port": "https", "protocol": "TCP"}]}));
    assert_eq!(policy["ingress"][1]["from"], json!([{"namespaceSelector": {}}]));
    let ports = json!([{"port": 443, "protocol": "TCP"}, {"port": 6443, "protocol": "TCP"}]);
    assert_eq!(policy["egress"], json!([{"ports": ports}]));
    let silent = render(INJECTOR, INJECTOR, &["--set=networkPolicy.enabled=true,metrics.enabled=false"]);
    let ingress = of_kind(&silent, "NetworkPolicy")["spec"]["ingress"].as_array().unwrap().clone();
    assert_eq!(ingress.len(), 1, "nothing for metrics that there are none of");
    let from = "--set=networkPolicy.enabled=true,networkPolicy.webhookFrom[0].ipBlock.cidr=10.0.0.0/28";
    let objects = render(INJECTOR, INJECTOR, &[from]);
    let from = of_kind(&objects, "NetworkPolicy")["spec"]["ingress"][0]["from"].as_array().unwrap();
    assert_eq!(from[0], json!({"ipBlock": {"cidr": "10.0.0.0/28"}}));
    // Nobody else but the pod of `helm test`.
    assert_eq!((from.len(), keys(&from[1])), (2, vec!["podSelector"]));
    assert!(selects(&from[1]["podSelector"], &of_kind(&objects, "Pod")["metadata"]["labels"]));
    let injector = &of_kind(&objects, "Deployment")["spec"]["template"]["metadata"]["labels"];
    assert!(!selects(&from[1]["podSelector"], injector));
}

#[test]
fn callers_can_be_asked_for_a_certificate() {
    let objects = render(INJECTOR, INJECTOR, &[]);
    assert!(
        !env(container(of_kind(&objects, "Deployment"))).contains_key("CLIENT_CA_FILE"),
        "off by default"
    );
    let objects = render(
        INJECTOR,
        INJECTOR,
        &[
            "--set=webhook.clientVerification.configMap=front,webhook.clientVerification.key=client.pem",
            "--set=webhook.clientVerification.names={kube-apiserver,other}",
        ],
    );
    let container = container(of_kind(&objects, "Deployment"));
    let env = env(container);
    assert_eq!(env["CLIENT_CA_FILE"], "/etc/sidecar-injector/clients/client.pem");
    assert_eq!(env["CLIENT_NAMES"], "kube-apiserver,other");
    let mount = json!({"name": "clients", "mountPath": "/etc/sidecar-injector/clients", "readOnly": true});
    assert_eq!(container["volumeMounts"][1], mount, "a directory: what changes in it must arrive");
    let items = json!([{"key": "client.pem", "path": "client.pem"}]);
    let volume = json!({"name": "clients", "configMap": {"name": "front", "items": items}});
    assert_eq!(pod_spec(&objects)["volumes"][1], volume);
}

#[test]
fn extra_objects_are_filled_in() {
    let text = "--set-json=extraObjects=[{\"kind\":\"A\",\"of\":\"{{ .Release.Name }}\"},\"kind: B\\nof: {{ .Release.Namespace }}\"]";
    let objects = render(INJECTOR, INJECTOR, &[text]);
    assert_eq!(of_kind(&objects, "A")["of"], INJECTOR);
    assert_eq!(of_kind(&objects, "B")["of"], "default");
}

#[test]
fn volumes_containers_and_probes_can_be_added_to() {
    let objects = render(
        INJECTOR,
        INJECTOR,
        &[
            "--set=extraVolumes[0].name=ca,extraVolumes[0].configMap.name=ca,minReadySeconds=7",
            "--set=extraVolumeMounts[0].name=ca,extraVolumeMounts[0].mountPath=/ca,probes.liveness.timeoutSeconds=9",
            "--set=extraInitContainers[0].name=i,extraInitContainers[0].image=i:1,updateStrategy.rollingUpdate.maxSurge=50%",
        ],
    );
    let (spec, pod) = (&of_kind(&objects, "Deployment")["spec"], pod_spec(&objects));
    assert_eq!(pod["volumes"][1], json!({"name": "ca", "configMap": {"name": "ca"}}));
    let container = container(of_kind(&objects, "Deployment"));
    assert_eq!(container["volumeMounts"][1]["mountPath"], "/ca");
    assert_eq!(pod["initContainers"][0]["name"], "i");
    let liveness = &container["livenessProbe"];
    assert_eq!((&liveness["timeoutSeconds"], &liveness["periodSeconds"]), (&json!(9), &json!(10)));
    assert_eq!(
        (&spec["minReadySeconds"], &spec["strategy"]["rollingUpdate"]["maxSurge"]),
        (&json!(7), &json!("50%"))
    );
}

#[test]
fn the_demo_is_a_namespace_with_a_pod_that_asks() {
    let deployments = |objects: &[Value]| {
        objects.iter().filter(|object| object["kind"] == "Deployment").cloned().collect::<Vec<_>>()
    };
    assert_eq!(deployments(&render(INJECTOR, INJECTOR, &[])).len(), 1, "off by default");
    let objects = render(INJECTOR, INJECTOR, &["--set=demo.enabled=true,demo.namespace=show"]);
    assert_eq!(text(of_kind(&objects, "Namespace"), "/metadata/name"), "show");
    let demo = deployments(&objects).into_iter().find(|object| object["metadata"]["name"] == "demo").unwrap();
    assert_eq!((&demo["metadata"]["namespace"], &demo["spec"]["replicas"]), (&json!("show"), &json!(1)));
    assert_eq!(demo["spec"]["template"]["metadata"]["labels"]["sidecar.me/inject"], "true");
    // It needs no rights and has none.
    assert_eq!(demo["spec"]["template"]["spec"]["automountServiceAccountToken"], false);
}

/// Each right has somebody who needs it, and goes with him.
#[test]
fn events_and_the_self_probe_bring_their_rights_and_nothing_more() {
    let rules = |arguments: &[&str], kind: &str, name: &str| {
        let objects = render(INJECTOR, INJECTOR, arguments);
        let role = objects.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
        role.map(|role| (role["metadata"]["namespace"].clone(), role["rules"].clone()))
    };
    let events = "kubernetes-sidecar-injector-events";
    let (_, found) = rules(&[], "ClusterRole", events).unwrap();
    assert_eq!(
        found,
        json!([{"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]}])
    );
    assert!(rules(&["--set=events.enabled=false"], "ClusterRole", events).is_none());

    let probe = "kubernetes-sidecar-injector-self-probe";
    assert!(rules(&[], "Role", probe).is_none());
    let arguments = ["--set=selfProbe.enabled=true,selfProbe.namespace=probe"];
    let (namespace, found) = rules(&arguments, "Role", probe).unwrap();
    assert_eq!(namespace, "probe");
    assert_eq!(found, json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["create"]}]));
    let objects = render(INJECTOR, INJECTOR, &arguments);
    let env = env(container(of_kind(&objects, "Deployment")));
    assert_eq!((env["SELF_PROBE_NAMESPACE"], env["SELF_PROBE_INTERVAL"]), ("probe", "60s"));
}

#[test]
fn a_probe_that_could_only_fail_and_metrics_that_nobody_serves_are_refused() {
    for (settings, says) in [
        ("selfProbe.enabled=true,webhook.scope=All", "name another in selfProbe.namespace"),
        (
            "selfProbe.enabled=true,webhook.scope=All,namespaceOverride=other",
            "name another in selfProbe.namespace",
        ),
        ("selfProbe.enabled=true,selfProbe.namespace=kube-system", "nothing is injected in \"kube-system\""),
        ("serviceMonitor.enabled=true,metrics.enabled=false", "serviceMonitor needs metrics.enabled"),
        ("prometheusRule.enabled=true,metrics.enabled=false", "prometheusRule needs metrics.enabled"),
        ("metrics.port=8443", "a port can be listened on once"),
    ] {
        let set = format!("--set={settings}");
        let refused = helm(Program::Helm4, &template(INJECTOR, INJECTOR, &[&set])).unwrap_err();
        assert!(refused.contains(says), "{settings}: {refused}");
    }
    for other in ["selfProbe.namespace=probe", "selfProbe.namespace=default,namespaceOverride=other"] {
        let set = format!("--set=selfProbe.enabled=true,webhook.scope=All,{other}");
        helm(Program::Helm4, &template(INJECTOR, INJECTOR, &[&set])).unwrap();
    }
}
