//! What Prometheus would read: every metric of the documentation and no other, and that they count what happens.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::Request;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpStream;

use crate::client::{Connection, pod, request, review};
use crate::definitions::definition;
use crate::server::Server;

/// A scrape: the value of each series, under its name with its labels.
async fn scrape(server: &Server) -> (String, BTreeMap<String, f64>) {
    let address: SocketAddr =
        server.wait_for_log("serving_metrics")["address"].as_str().unwrap().parse().unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("/metrics").header("Host", address.to_string()).body(Empty::new()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert!(response.headers()["content-type"].to_str().unwrap().starts_with("application/openmetrics-text"));
    let text = String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap();
    assert!(text.ends_with("# EOF\n"), "{text}");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let values = lines.map(|line| {
        let (series, value) = line.rsplit_once(' ').unwrap();
        (series.to_owned(), value.parse().unwrap())
    });
    let values = values.collect();
    (text, values)
}

/// Name to type and names of labels, as scraped. Counters and the parts of histograms go by the name that one queries.
fn kinds(text: &str) -> BTreeMap<String, (String, Vec<String>)> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let found = types.map(|(family, kind)| {
        let (name, sample) = match kind {
            "counter" => (format!("{family}_total"), format!("{family}_total")),
            "histogram" => (family.to_owned(), format!("{family}_count")),
            _ => (family.to_owned(), family.to_owned()),
        };
        let sample = text
            .lines()
            .find(|line| line.strip_prefix(&sample).is_some_and(|rest| rest.starts_with([' ', '{'])))
            .unwrap_or_else(|| panic!("no sample of {name}"));
        let labels = sample.split_once('{').map_or("", |(_, labels)| labels);
        let labels = labels.split(',').filter_map(|label| Some(label.split_once('=')?.0.to_owned()));
        (name, (kind.to_owned(), labels.collect()))
    });
    found.collect()
}

/// The same of the table in the documentation.
fn documented() -> BTreeMap<String, (String, Vec<String>)> {
    let text = include_str!("../../../../docs/operations.md");
    let ticked = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let rows = text.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split('|').map(str::trim);
        let name = cells.next()?.trim_end_matches('`');
        let kind = cells.next().filter(|kind| ["counter", "gauge", "histogram"].contains(kind))?;
        Some((name.to_owned(), (kind.to_owned(), ticked(cells.next()?))))
    });
    rows.collect()
}

/// A cluster that nobody answers for, so that everything that speaks to one has metrics.
fn unreachable_cluster(folder: &std::path::Path) -> String {
    let path = folder.join("kubeconfig");
    std::fs::write(
        &path,
        "{apiVersion: v1, kind: Config, current-context: a, users: [{name: a, user: {}}],\n\
         contexts: [{name: a, context: {cluster: a, user: a}}],\n\
         clusters: [{name: a, cluster: {server: 'http://127.0.0.1:1'}}]}\n",
    )
    .unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn the_documentation_has_every_metric_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.yaml"), definition("a", "a:1")).unwrap();
    let server = Server::start(&[
        ("METRICS_PORT", "0"),
        ("DEFINITIONS", folder.path().to_str().unwrap()),
        ("DEFINITION_RESOURCES", "true"),
        ("EVENTS", "true"),
        ("MISSED_PODS", "report"),
        ("SELF_PROBE_NAMESPACE", "default"),
        ("KUBECONFIG", &unreachable_cluster(folder.path())),
    ]);
    let (text, values) = scrape(&server).await;
    let (scraped, documented) = (kinds(&text), documented());
    for (name, found) in &scraped {
        assert_eq!(documented.get(name), Some(found), "{name} in docs/operations.md");
    }
    // What only a cluster that answers shows; the tests that have one look at all.
    let elsewhere = ["certificate_rotations_total", "ca_bundle_writes_total", "ca_bundle_in_sync"];
    for name in documented.keys() {
        if elsewhere.iter().any(|metric| name.ends_with(metric)) {
            continue;
        }
        assert!(scraped.contains_key(name), "docs/operations.md has {name}, the server has not");
    }
    for reason in sidecar_engine::Reason::ALL {
        let series = format!("sidecar_injector_skips_total{{reason=\"{reason}\"}}");
        let expected = (reason != sidecar_engine::Reason::Injected).then_some(&0.0);
        assert_eq!(values.get(&series), expected, "{series}");
    }
    assert_eq!(values.get("sidecar_injector_cache_synced{kind=\"Namespace\"}"), Some(&0.0));
}

/// Every code of a refusal that the documentation knows is a series, from the start.
#[tokio::test]
async fn every_documented_refusal_is_counted() {
    let server = Server::start(&[("METRICS_PORT", "0")]);
    let (_, values) = scrape(&server).await;
    let answers = include_str!("../../../../docs/answers.md");
    let rows = answers.lines().filter_map(|line| {
        let (status, rest) = line.strip_prefix("| ")?.split_once(" | ")?;
        status.starts_with('4').then(|| rest.split(" | ").next().unwrap_or_default())
    });
    let mut documented: Vec<_> = rows.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
    documented.sort_unstable();
    let prefix = "sidecar_injector_requests_refused_total{code=\"";
    let mut counted: Vec<_> =
        values.keys().filter_map(|series| series.strip_prefix(prefix)?.strip_suffix("\"}")).collect();
    counted.sort_unstable();
    assert_eq!(documented, counted);
}

#[tokio::test]
async fn what_happens_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let write = |file: &str, text: &str| std::fs::write(folder.path().join(file), text).unwrap();
    write("a.yaml", &definition("a", "a:1"));
    write("b.yaml", &definition("b", "b:1"));
    write("wrong.yaml", &definition("wrong", "w:1").replace("inject:", "injct:"));
    let server = Server::start(&[("METRICS_PORT", "0"), ("DEFINITIONS", folder.path().to_str().unwrap())]);
    let mut connection = Connection::http1(&server).await.unwrap();

    let mut taken = pod(Some("true"));
    taken["spec"]["initContainers"] = json!([{"name": "a", "image": "other"}]);
    let mut both_taken = taken.clone();
    both_taken["spec"]["initContainers"] = json!([{"name": "a", "image": "o"}, {"name": "b", "image": "o"}]);
    let mut dry = review(pod(Some("true")));
    dry["request"]["dryRun"] = json!(true);
    let mut update = review(pod(Some("true")));
    update["request"]["operation"] = json!("UPDATE");
    for body in [
        review(pod(Some("true"))),
        review(taken),
        review(both_taken),
        review(pod(None)),
        review(pod(Some("false"))),
        update,
        dry,
    ] {
        connection.review(&body).await.unwrap();
    }
    connection.review(&json!({"kind": "Pod"})).await.unwrap();
    connection.get("/nowhere").await.unwrap();
    connection.send(request("POST", "/mutation/pod", None, "{}")).await.unwrap();

    let (_, values) = scrape(&server).await;
    let value = |series: &str| values[&format!("sidecar_injector_{series}")];
    for (series, expected) in [
        ("admission_requests_total{outcome=\"injected\",dry_run=\"false\"}", 2.0),
        ("admission_requests_total{outcome=\"injected\",dry_run=\"true\"}", 1.0),
        ("admission_requests_total{outcome=\"skipped\",dry_run=\"false\"}", 1.0),
        ("admission_requests_total{outcome=\"unchanged\",dry_run=\"false\"}", 3.0),
        ("admission_requests_total{outcome=\"denied\",dry_run=\"false\"}", 0.0),
        ("admission_requests_total{outcome=\"error\",dry_run=\"false\"}", 1.0),
        ("injections_total{definition=\"a\"}", 1.0),
        ("injections_total{definition=\"b\"}", 2.0),
        ("skips_total{reason=\"ContainerNameConflict\"}", 3.0),
        ("skips_total{reason=\"NotCreate\"}", 1.0),
        ("requests_refused_total{code=\"ReviewKind\"}", 1.0),
        ("requests_refused_total{code=\"NotFound\"}", 1.0),
        ("requests_refused_total{code=\"UnsupportedMediaType\"}", 1.0),
        ("admission_duration_seconds_count{outcome=\"injected\"}", 3.0),
        ("admission_duration_seconds_count{outcome=\"unchanged\"}", 3.0),
        ("admission_duration_seconds_count{outcome=\"skipped\"}", 1.0),
        ("admission_duration_seconds_count{outcome=\"denied\"}", 0.0),
        ("admission_duration_seconds_count{outcome=\"error\"}", 1.0),
        // As much as a webhook may be given.
        ("admission_duration_seconds_bucket{le=\"30.0\",outcome=\"injected\"}", 3.0),
        ("request_bytes_count", 7.0),
        ("patch_bytes_count", 3.0),
        ("admission_in_flight", 0.0),
        ("definitions{state=\"ready\"}", 2.0),
        ("definitions{state=\"invalid\"}", 1.0),
        ("definition_reload_errors_total", 1.0),
    ] {
        assert!((value(series) - expected).abs() < f64::EPSILON, "{series}: {}", value(series));
    }

    // What was good and breaks is kept; what is gone has no series any more.
    write("a.yaml", &definition("a", "a:1").replace("inject:", "injct:"));
    std::fs::remove_file(folder.path().join("b.yaml")).unwrap();
    server.wait_for_log("definition_removed");
    let (_, values) = scrape(&server).await;
    let value = |series: &str| values.get(&format!("sidecar_injector_{series}")).copied();
    assert_eq!(value("definitions{state=\"kept\"}"), Some(1.0));
    assert_eq!(value("definitions{state=\"ready\"}"), Some(0.0));
    assert_eq!(value("injections_total{definition=\"a\"}"), Some(1.0));
    assert_eq!(value("injections_total{definition=\"b\"}"), None);
}
