//! The chart's alerts and its dashboard, with Prometheus' own parser and rule engine: every query is one, asks for metrics that exist, and
//! every alert fires when it should and only then. That the metrics of the documentation are those of the server is tested with the server.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use sidecar_testkit::repository_root;

use crate::render::{INJECTOR, of_kind};

/// Whether promtool is there. Who insists on it says so, as `.ci/run` does.
fn has_promtool() -> bool {
    let found =
        Command::new("promtool").arg("--version").output().is_ok_and(|output| output.status.success());
    let is_required = std::env::var_os("SIDECAR_REQUIRE_PROMTOOL").is_some();
    assert!(found || !is_required, "promtool is missing");
    if !found {
        eprintln!("LEFT OUT: promtool is missing (Debian's package prometheus has it)");
    }
    found
}

fn promtool(folder: &Path, arguments: &[&str]) {
    let output = Command::new("promtool").args(arguments).current_dir(folder).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "promtool {arguments:?}: {out}{err}");
}

/// With all that is for Prometheus.
fn render(more: &[&str]) -> Vec<Value> {
    let all = [
        "--set=prometheusRule.enabled=true,serviceMonitor.enabled=true,grafanaDashboard.enabled=true",
        "--set=grafanaDashboard.operator.enabled=true,missedPods.mode=repair",
    ];
    crate::render::render(INJECTOR, INJECTOR, &[&all, more].concat())
}

/// All alerts that there are, with a place for their runbooks.
fn rules() -> Value {
    rules_with("webhook.timeoutSeconds=5")
}

fn rules_with(values: &str) -> Value {
    let runbooks = "--set=prometheusRule.runbookUrl=https://example.com/operations";
    let arguments = ["--set=selfProbe.enabled=true", runbooks, "--set", values];
    of_kind(&render(&arguments), "PrometheusRule")["spec"].clone()
}

fn alerts(rules: &Value) -> Vec<&Value> {
    rules["groups"][0]["rules"].as_array().unwrap().iter().collect()
}

fn dashboard() -> Value {
    let objects = render(&[]);
    let mut maps =
        objects.iter().filter_map(|object| object["data"]["kubernetes-sidecar-injector.json"].as_str());
    serde_json::from_str(maps.next().unwrap()).unwrap()
}

/// The queries of the dashboard to this kind of data source.
fn queries_to<'d>(dashboard: &'d Value, source: &str) -> Vec<&'d str> {
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    targets
        .filter(|target| target["datasource"]["type"] == source)
        .map(|target| target["expr"].as_str().unwrap())
        .collect()
}

/// Those to Prometheus, with what its variables are when all is to be seen.
fn dashboard_queries() -> Vec<String> {
    let dashboard = dashboard();
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let fill_in = |query: &str| {
        let query = query.replace("$__rate_interval", "5m");
        let all = variables.iter().filter_map(|variable| {
            Some((format!("${}", variable["name"].as_str()?), variable["allValue"].as_str()?))
        });
        all.fold(query, |query, (name, value)| query.replace(&name, value))
    };
    queries_to(&dashboard, "prometheus").into_iter().map(fill_in).collect()
}

/// Names and types of the table in the documentation.
fn documented() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(repository_root().join("docs/operations.md")).unwrap();
    let rows = text.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split('|').map(str::trim);
        let name = cells.next()?.trim_end_matches('`').to_owned();
        let kind = cells.next().filter(|kind| ["counter", "gauge", "histogram"].contains(kind))?;
        Some((name, kind.to_owned()))
    });
    rows.collect()
}

/// What others have: the API server's own, kube-state-metrics', and Prometheus' word about each target.
const OTHERS: [&str; 7] = [
    "apiserver_admission_match_condition_evaluation_errors_total",
    "apiserver_admission_match_condition_exclusions_total",
    "apiserver_admission_webhook_admission_duration_seconds_bucket",
    "apiserver_admission_webhook_fail_open_count",
    "apiserver_admission_webhook_rejection_count",
    "kube_pod_status_ready",
    "up",
];

/// The names of metrics in a query: what stands in front of a selector, and what looks like one of ours wherever it stands.
fn metrics_in(query: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    // Every second piece is a text.
    for (index, piece) in query.split('"').enumerate() {
        if index % 2 == 1 {
            continue;
        }
        let mut rest = piece;
        while let Some(start) = rest.find(is_part) {
            rest = &rest[start..];
            let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            let is_ours =
                ["sidecar_injector_", "process_", "apiserver_"].iter().any(|prefix| word.starts_with(prefix));
            if after.starts_with('{') || is_ours {
                names.insert(word.to_owned());
            }
            rest = after;
        }
    }
    names
}

#[test]
fn every_query_asks_for_metrics_that_exist() {
    let documented = documented();
    let exists = |name: &str| {
        let parts = ["_bucket", "_sum", "_count"].iter().filter_map(|part| name.strip_suffix(part));
        OTHERS.contains(&name)
            || documented.get(name).is_some_and(|kind| kind != "histogram")
            || parts.into_iter().any(|name| documented.get(name).is_some_and(|kind| kind == "histogram"))
    };
    let rules = rules();
    let of_rules = alerts(&rules).into_iter().map(|rule| rule["expr"].as_str().unwrap().to_owned());
    let queries: Vec<_> = of_rules.chain(dashboard_queries()).collect();
    assert!(queries.len() > 40, "{}", queries.len());
    let mut all = BTreeSet::new();
    for query in &queries {
        let names = metrics_in(query);
        assert!(!names.is_empty(), "{query}");
        for name in &names {
            assert!(exists(name), "{name} in {query}");
        }
        all.extend(names);
    }
    assert!(!exists("sidecar_injector_nothing_total") && !exists("sidecar_injector_request_bytes"));
}

#[test]
fn every_metric_of_the_injector_is_on_the_dashboard() {
    let shown: BTreeSet<_> = dashboard_queries().iter().flat_map(|query| metrics_in(query)).collect();
    let is_shown = |name: &str| {
        ["", "_bucket", "_sum"].iter().any(|part| shown.contains(format!("{name}{part}").as_str()))
    };
    let ours = documented().into_keys().filter(|name| name.starts_with("sidecar_injector_"));
    let ours: Vec<_> = ours.collect();
    assert!(ours.len() > 25, "{ours:?}");
    let hidden: Vec<_> = ours.iter().filter(|name| !is_shown(name)).collect();
    assert!(hidden.is_empty(), "{hidden:?}");
}

#[test]
fn the_dashboard_s_variables_narrow_all_of_it_and_need_no_label() {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().unwrap();
    let numbers: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(numbers.len(), panels.len(), "a number for each panel");
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let variable = |name: &str| variables.iter().find(|variable| variable["name"] == name).unwrap();
    for source in ["prometheus", "loki"] {
        let name = if source == "loki" { "logs" } else { "datasource" };
        assert_eq!(
            (&variable(name)["type"], &variable(name)["query"]),
            (&json!("datasource"), &json!(source))
        );
        let queries = queries_to(&dashboard, source);
        assert!(!queries.is_empty(), "{source}");
        for query in queries {
            assert!(query.contains("cluster=~\"$cluster\""), "{query}");
            // The API server's own are in another namespace.
            assert!(query.contains("namespace=~\"$namespace\"") || query.contains("apiserver_"), "{query}");
            let by_definition = ["injections_total", "missing_injections", "outdated_injections"];
            if by_definition.iter().any(|name| query.contains(name)) {
                assert!(query.contains("definition=~\"$definition\""), "{query}");
            }
        }
    }
    // What Prometheus takes for a label that is not there.
    for name in ["cluster", "definition", "reason"] {
        assert_eq!(variable(name)["allValue"], ".*", "{name}");
    }
    for query in dashboard_queries() {
        assert!(!query.contains('$'), "a variable that there is not: {query}");
    }
    let log = queries_to(&dashboard, "loki");
    let objects = render(&[]);
    let container = &of_kind(&objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]["name"];
    assert!(log[0].contains(&format!("container={container}")), "{log:?}");
    assert_eq!(log[0].matches("$reason").count(), 2, "of reviews, and of pods that were missed: {log:?}");
}

#[test]
fn grafana_gets_the_same_dashboard_from_its_operator() {
    let json = dashboard();
    let rendered = |values: &str| crate::render::render(INJECTOR, INJECTOR, &["--set", values]);
    let objects = rendered(
        "grafanaDashboard.operator.enabled=true,grafanaDashboard.namespace=g,grafanaDashboard.operator.folder=F",
    );
    let of_operator = of_kind(&objects, "GrafanaDashboard");
    assert_eq!(of_operator["apiVersion"], "grafana.integreatly.org/v1beta1");
    assert_eq!(of_operator["metadata"]["namespace"], "g");
    let spec = &of_operator["spec"];
    assert_eq!(serde_json::from_str::<Value>(spec["json"].as_str().unwrap()).unwrap(), json);
    assert_eq!(spec["instanceSelector"], json!({"matchLabels": {"dashboards": "grafana"}}));
    assert_eq!((&spec["folder"], &spec["allowCrossNamespaceImport"]), (&json!("F"), &json!(true)));
    let is_map = |object: &Value| object["data"].get("kubernetes-sidecar-injector.json").is_some();
    assert!(!objects.iter().any(is_map), "one without the other");
    let objects = rendered("grafanaDashboard.enabled=true");
    assert!(objects.iter().any(is_map) && objects.iter().all(|object| object["kind"] != "GrafanaDashboard"));
}

#[test]
fn every_query_is_one() {
    if !has_promtool() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let recorded = dashboard_queries()
        .into_iter()
        .enumerate()
        .map(|(index, query)| json!({"record": format!("query_{index}"), "expr": query}));
    let dashboard = json!({"groups": [{"name": "dashboard", "rules": recorded.collect::<Vec<_>>()}]});
    std::fs::write(folder.path().join("dashboard.yaml"), dashboard.to_string()).unwrap();
    std::fs::write(folder.path().join("alerts.yaml"), rules().to_string()).unwrap();
    promtool(folder.path(), &["check", "rules", "dashboard.yaml", "alerts.yaml"]);
}

/// What is scraped of two replicas that are well, in promtool's notation, over two hours.
fn well() -> BTreeMap<String, String> {
    let us = "namespace=\"default\",job=\"kubernetes-sidecar-injector-metrics\"";
    let hook = "name=\"injector.sidecar.me\"";
    let mut series = BTreeMap::new();
    for (name, labels, values) in [
        ("up", "pod=\"a\"", "1x120"),
        ("up", "pod=\"b\"", "1x120"),
        ("sidecar_injector_self_probe_success", "pod=\"a\"", "1x120"),
        ("sidecar_injector_admission_duration_seconds_bucket", "le=\"0.001\"", "0+60x120"),
        ("sidecar_injector_admission_duration_seconds_bucket", "le=\"2.5\"", "0+60x120"),
        ("sidecar_injector_admission_duration_seconds_bucket", "le=\"5\"", "0+60x120"),
        ("sidecar_injector_admission_duration_seconds_bucket", "le=\"10\"", "0+60x120"),
        ("sidecar_injector_admission_duration_seconds_bucket", "le=\"30\"", "0+60x120"),
        ("sidecar_injector_admission_duration_seconds_bucket", "le=\"+Inf\"", "0+60x120"),
        ("sidecar_injector_admission_requests_total", "outcome=\"injected\"", "0+60x120"),
        ("sidecar_injector_admission_requests_total", "outcome=\"error\"", "0x120"),
        ("sidecar_injector_requests_refused_total", "code=\"Overloaded\"", "0x120"),
        ("sidecar_injector_certificate_not_after_timestamp_seconds", "role=\"leaf\"", "7776000x120"),
        ("sidecar_injector_ca_bundle_in_sync", "pod=\"a\"", "1x120"),
        ("sidecar_injector_ca_bundle_in_sync", "pod=\"b\"", "1x120"),
        ("sidecar_injector_definitions", "state=\"ready\"", "3x120"),
        ("sidecar_injector_definitions", "state=\"invalid\"", "0x120"),
        ("sidecar_injector_missing_injections", "definition=\"curl\",reason=\"NotInjected\"", "0x120"),
        ("sidecar_injector_missing_injections", "definition=\"curl\",reason=\"NotAsked\"", "0x120"),
        ("sidecar_injector_missing_injections", "definition=\"curl\",reason=\"Conflict\"", "0x120"),
        ("sidecar_injector_missed_pods_synced", "pod=\"a\"", "1x120"),
        ("sidecar_injector_missed_pods_synced", "pod=\"b\"", "0x120"),
        ("sidecar_injector_repairs_total", "result=\"failed\"", "0x120"),
        ("sidecar_injector_cache_synced", "kind=\"Namespace\",pod=\"a\"", "1x120"),
        ("sidecar_injector_cache_synced", "kind=\"Namespace\",pod=\"b\"", "1x120"),
        ("sidecar_injector_skips_total", "reason=\"Conflict\"", "0+1x120"),
        ("sidecar_injector_skips_total", "reason=\"AlreadyPresent\"", "0+60x120"),
    ] {
        series.insert(format!("{name}{{{us},{labels}}}"), values.to_owned());
    }
    for (name, labels) in [
        ("apiserver_admission_webhook_fail_open_count", hook.to_owned()),
        (
            "apiserver_admission_webhook_rejection_count",
            format!("{hook},error_type=\"calling_webhook_error\""),
        ),
        // Somebody else's webhook is none of our business.
        ("apiserver_admission_webhook_fail_open_count", "name=\"other.example.com\"".to_owned()),
    ] {
        let values = if labels.contains("other") { "0+9x120" } else { "0x120" };
        series.insert(format!("{name}{{{labels}}}"), values.to_owned());
    }
    series
}

/// What differs from being well (parts of the names of series, and their values), and what fires then.
type Case<'c> = (&'c [(&'c str, &'c str)], &'c [&'c str]);

/// [`well`], but for these.
fn series(changes: &[(&str, &str)]) -> Vec<Value> {
    let mut series = well();
    for (parts, values) in changes {
        let mut found = 0;
        for (name, value) in &mut series {
            if parts.split(' ').all(|part| name.contains(part)) {
                (*values).clone_into(value);
                found += 1;
            }
        }
        assert!(found > 0, "{parts}");
    }
    series.iter().map(|(series, values)| json!({"series": series, "values": values})).collect()
}

/// Has promtool's word that these fire, and no others.
fn fire(rules: &Value, cases: &[Case<'_>]) {
    let tests = cases.iter().map(|(changes, firing)| {
        let expected: Vec<_> = firing
            .iter()
            .map(|alert| json!({"labels": format!("{{alertname=\"{alert}\"}}"), "value": 1}))
            .collect();
        json!({
            "name": format!("{changes:?}"),
            "interval": "1m",
            "input_series": series(changes),
            "promql_expr_test": [{
                "expr": "max by (alertname) (ALERTS{alertstate=\"firing\"})",
                "eval_time": "110m",
                "exp_samples": expected,
            }],
        })
    });
    test(rules, &tests.collect::<Vec<_>>());
}

fn test(rules: &Value, tests: &[Value]) {
    let tests = json!({"rule_files": ["alerts.yaml"], "evaluation_interval": "1m", "tests": tests});
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("alerts.yaml"), rules.to_string()).unwrap();
    std::fs::write(folder.path().join("tests.yaml"), tests.to_string()).unwrap();
    promtool(folder.path(), &["test", "rules", "tests.yaml"]);
}

#[test]
fn every_alert_fires_when_it_should_and_only_then() {
    if !has_promtool() {
        return;
    }
    let cases: [Case<'_>; 24] = [
        (&[], &[]),
        (&[("up{", "0x120")], &["SidecarInjectorDown"]),
        (&[("up{ pod=\"b\"", "0x120")], &["SidecarInjectorSingleReplica"]),
        (&[("fail_open_count{name=\"injector", "0+1x120")], &["SidecarInjectorFailOpen"]),
        (&[("rejection_count", "0+1x120")], &["SidecarInjectorCallErrors"]),
        (&[("self_probe_success", "1x60 0x60")], &["SidecarInjectorSelfProbeFailing"]),
        // One probe that fails wakes nobody.
        (&[("self_probe_success", "1x108 0 1x20")], &[]),
        (&[("le=\"0.001\"", "0x120")], &["SidecarInjectorLatencyHigh"]),
        (
            &[("le=\"0.001\"", "0x120"), ("le=\"2.5\"", "0x120")],
            &["SidecarInjectorLatencyCritical", "SidecarInjectorLatencyHigh"],
        ),
        (&[("outcome=\"error\"", "0+2x120")], &["SidecarInjectorErrors"]),
        (&[("Overloaded", "0+2x120")], &["SidecarInjectorOverloaded"]),
        (&[("not_after", "864000x120")], &["SidecarInjectorCertificateExpiring"]),
        (
            &[("not_after", "43200x120")],
            &["SidecarInjectorCertificateExpires", "SidecarInjectorCertificateExpiring"],
        ),
        (&[("in_sync", "1x60 0x60")], &["SidecarInjectorCaBundleMismatch"]),
        // One of two that is wrong is half of all calls.
        (&[("in_sync pod=\"b\"", "1x60 0x60")], &["SidecarInjectorCaBundleMismatch"]),
        (&[("state=\"invalid\"", "1x120")], &["SidecarInjectorDefinitionInvalid"]),
        (&[("missing_injections NotInjected", "0x60 3x60")], &["SidecarInjectorMissingSidecars"]),
        (&[("missing_injections NotAsked", "0x60 3x60")], &["SidecarInjectorMissingSidecars"]),
        (&[("missed_pods_synced", "0x120")], &["SidecarInjectorMissedPodsNotWatched"]),
        // Another replica takes over, and lists all pods first.
        (&[("missed_pods_synced pod=\"a\"", "1x98 0x20")], &[]),
        (&[("result=\"failed\"", "0+1x120")], &["SidecarInjectorRepairsFailing"]),
        (&[("cache_synced", "0x120")], &["SidecarInjectorNotSynced"]),
        (&[("cache_synced pod=\"b\"", "0x120")], &["SidecarInjectorNotSynced"]),
        (&[("skips_total Conflict", "0+1x60 61+60x60")], &["SidecarInjectorSkipSurge"]),
    ];
    let rules = rules();
    let known: BTreeSet<_> = alerts(&rules).into_iter().map(|rule| rule["alert"].as_str().unwrap()).collect();
    let tried: BTreeSet<_> = cases.iter().flat_map(|(_, firing)| firing.iter().copied()).collect();
    assert_eq!(known, tried);
    fire(&rules, &cases);
}

/// However long the API server waits: the longest time is as long as the widest bucket.
#[test]
fn slow_reviews_are_noticed_with_the_longest_timeout() {
    if !has_promtool() {
        return;
    }
    let slow = ["0.001", "2.5", "5", "10"].map(|bound| (format!("le=\"{bound}\""), "0x120"));
    let slow: Vec<_> = slow.iter().map(|(bound, values)| (bound.as_str(), *values)).collect();
    let cases: [Case<'_>; 3] = [
        (&[], &[]),
        (&slow[..3], &["SidecarInjectorLatencyHigh"]),
        (&slow, &["SidecarInjectorLatencyCritical", "SidecarInjectorLatencyHigh"]),
    ];
    fire(&rules_with("webhook.timeoutSeconds=30"), &cases);
}

/// Restarting what would come back without its sidecar costs, and helps nobody.
#[test]
fn what_to_do_about_missing_sidecars_fits_the_reason() {
    if !has_promtool() {
        return;
    }
    let rules = rules_with("prometheusRule.runbookUrl=");
    let missing = alerts(&rules).into_iter().find(|rule| rule["alert"] == "SidecarInjectorMissingSidecars");
    let summary = &missing.unwrap()["annotations"]["summary"];
    let tests = [
        (
            "NotInjected",
            "Nothing in the pod or the definition is in the way: restart their owners (kubectl rollout restart), or let the injector do it (missedPods.mode \
             repair).",
        ),
        (
            "NotAsked",
            "The API server does not ask about such pods: set the label that the log names, or webhook.scope.",
        ),
        ("Conflict", "A restart alone changes nothing: first put right what the log says."),
    ]
    .map(|(reason, remedy)| {
        let description = format!(
            "3 pods are without curl: {reason}. The log names them (pod_missed), and so do Events (SidecarMissing). {remedy}"
        );
        json!({
            "interval": "1m",
            "input_series": series(&[(&format!("missing_injections {reason}"), "0x60 3x60")]),
            "alert_rule_test": [{
                "eval_time": "110m",
                "alertname": "SidecarInjectorMissingSidecars",
                "exp_alerts": [{
                    "exp_labels": {"severity": "warning", "definition": "curl", "reason": reason},
                    "exp_annotations": {"summary": summary, "description": description},
                }],
            }],
        })
    });
    test(&rules, &tests);
}

/// The link in an alert leads to its runbook.
#[test]
fn every_alert_has_a_runbook_and_no_other() {
    let text = std::fs::read_to_string(repository_root().join("docs/operations.md")).unwrap();
    let headings: BTreeSet<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("### SidecarInjector"))
        .map(str::to_lowercase)
        .collect();
    let rules = rules();
    let linked: BTreeSet<_> = alerts(&rules)
        .into_iter()
        .map(|rule| {
            let url = rule["annotations"]["runbook_url"].as_str().unwrap();
            url.strip_prefix("https://example.com/operations#sidecarinjector").unwrap().to_owned()
        })
        .collect();
    assert_eq!(linked, headings);
}

/// Whoever is woken has no repository at hand, and mostly no page that a link could lead to.
#[test]
fn every_alert_says_what_to_do_without_a_link() {
    for mode in ["selfManaged", "certManager", "helm"] {
        let objects = render(&["--set=selfProbe.enabled=true", &format!("--set=certificates.mode={mode}")]);
        for alert in alerts(&of_kind(&objects, "PrometheusRule")["spec"]) {
            let annotations = &alert["annotations"];
            assert!(annotations.get("runbook_url").is_none(), "{alert}");
            let description = annotations["description"].as_str().unwrap();
            // What happened, and what to do.
            assert!(description.matches(". ").count() > 0 && description.ends_with('.'), "{description}");
            // What Go prints about arguments that do not fit.
            assert!(!description.contains("%!"), "{description}");
        }
    }
}

/// By the number of pods that there are at least, whoever says it.
#[test]
fn one_replica_is_no_alert_where_one_is_wanted() {
    let is_there = |values: &str| {
        let objects = render(&["--set", values]);
        let rules = of_kind(&objects, "PrometheusRule")["spec"].clone();
        alerts(&rules).iter().any(|rule| rule["alert"] == "SidecarInjectorSingleReplica")
    };
    assert!(is_there("replicas=2") && !is_there("replicas=1"));
    assert!(is_there("replicas=1,autoscaling.enabled=true,autoscaling.minReplicas=2"));
    assert!(!is_there("replicas=3,autoscaling.enabled=true,autoscaling.minReplicas=1"));
}

/// The Service of the metrics is found by the monitor, and not taken for the one that the API server calls.
#[test]
fn the_monitor_selects_the_service_of_the_metrics_alone() {
    let objects = render(&[]);
    let selector = &of_kind(&objects, "ServiceMonitor")["spec"]["selector"]["matchLabels"];
    let is_selected = |service: &Value| {
        let labels = &service["metadata"]["labels"];
        selector.as_object().unwrap().iter().all(|(key, value)| labels.get(key) == Some(value))
    };
    let services: Vec<_> = objects.iter().filter(|object| object["kind"] == "Service").collect();
    assert_eq!(services.len(), 2);
    let selected: Vec<_> = services.into_iter().filter(|service| is_selected(service)).collect();
    assert_eq!(selected.len(), 1);
    // By this name the alerts find what it scrapes.
    assert_eq!(selected[0]["metadata"]["name"], "kubernetes-sidecar-injector-metrics");
    assert_eq!(selected[0]["spec"]["ports"][0]["targetPort"], "metrics");
    let deployment = of_kind(&objects, "Deployment");
    let ports = deployment["spec"]["template"]["spec"]["containers"][0]["ports"].as_array().unwrap();
    assert!(ports.iter().any(|port| port["name"] == "metrics"), "{ports:?}");
}
