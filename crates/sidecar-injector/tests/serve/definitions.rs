//! Definitions in files: loaded, changed, broken and deleted while reviews are answered all the time.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hyper::StatusCode;
use serde_json::Value;

use crate::client::{Connection, patch, pod, review};
use crate::server::{Server, wait_until};

/// A definition of one container for labelled pods.
pub(crate) fn definition(name: &str, image: &str) -> String {
    format!(
        "apiVersion: sidecar.me/v1alpha1\nkind: ClusterSidecarDefinition\nmetadata: {{name: {name}}}\n\
         spec:\n  inject:\n    spec:\n      containers:\n        - {{name: {name}, image: \"{image}\"}}\n"
    )
}

fn serve(definitions: &Path) -> Server {
    Server::start(&[("DEFINITIONS", definitions.to_str().unwrap())])
}

fn write(folder: &Path, file: &str, text: &str) {
    std::fs::write(folder.join(file), text).unwrap();
}

/// The images that a labelled pod gets, in their order.
async fn images(connection: &mut Connection) -> Vec<String> {
    let answer = connection.review(&review(pod(Some("true")))).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    images_of(&answer.json())
}

fn images_of(answer: &Value) -> Vec<String> {
    assert_eq!(answer["response"]["allowed"], true, "{answer}");
    let mut injected = pod(Some("true"));
    if let Some(patch) = patch(answer) {
        json_patch::patch(&mut injected, &patch).unwrap();
    }
    let containers = injected["spec"]["containers"].as_array().unwrap();
    containers[1..].iter().map(|container| container["image"].as_str().unwrap().to_owned()).collect()
}

/// Events say that something has changed, and a look every two seconds whatever they missed. So the quickest of several changes is quicker,
/// also on a machine that does other things as well.
fn expect_events(took: &[Duration]) {
    assert!(took.iter().any(|took| *took < Duration::from_secs(1)), "{took:?}");
}

async fn wait_for_images(server: &Server, expected: &[&str]) -> Duration {
    let mut connection = Connection::http1(server).await.unwrap();
    let started = Instant::now();
    while images(&mut connection).await != expected {
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", server.log.lock().unwrap());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    started.elapsed()
}

/// Regression: a document that had never been good was said to keep its last good version, because another one of its file
/// was good.
#[tokio::test]
async fn only_what_was_good_is_said_to_be_kept() {
    let folder = tempfile::tempdir().unwrap();
    let good = definition("shipper", "shipper:1");
    write(folder.path(), "a.yaml", &format!("{good}---\na: [\n"));
    let server = serve(folder.path());
    let line = server.wait_for_log("definition_invalid");
    assert_eq!((&line["message"], &line["definition"]), (&"not served".into(), &"".into()), "{line}");
    wait_for_images(&server, &["shipper:1"]).await;
    // The name is in what cannot be read, now.
    write(folder.path(), "a.yaml", &good.replace("kind:", "kind: ["));
    wait_until(|| server.logged("definition_invalid").len() == 2).await;
    let last = &server.logged("definition_invalid")[1];
    assert_eq!(last["message"], "keeping the last good version", "{last}");
    wait_for_images(&server, &["shipper:1"]).await;
}

/// As the kubelet does with a ConfigMap: a new folder, and a symlink that is renamed to point to it.
fn swap(folder: &Path, generation: &str, files: &[(&str, String)]) {
    let data = folder.join(format!("..{generation}"));
    std::fs::create_dir(&data).unwrap();
    for (file, text) in files {
        write(&data, file, text);
    }
    let old = std::fs::read_link(folder.join("..data")).ok();
    std::os::unix::fs::symlink(format!("..{generation}"), folder.join("..data_tmp")).unwrap();
    std::fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    for (file, _) in files {
        if folder.join(file).symlink_metadata().is_err() {
            std::os::unix::fs::symlink(format!("..data/{file}"), folder.join(file)).unwrap();
        }
    }
    if let Some(old) = old {
        std::fs::remove_dir_all(folder.join(old)).unwrap();
    }
}

/// Reviews without a pause, each of which must give one of these lists of images.
struct Load {
    stop: Arc<AtomicBool>,
    calls: Arc<AtomicUsize>,
    callers: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn start(server: &Arc<Server>, allowed: fn(&[String]) -> bool) -> Self {
        let mut load = Load { stop: Arc::default(), calls: Arc::default(), callers: Vec::new() };
        for _ in 0..4 {
            let (server, stop, calls) = (server.clone(), load.stop.clone(), load.calls.clone());
            load.callers.push(tokio::spawn(async move {
                let mut connection = Connection::http1(&server).await.unwrap();
                while !stop.load(Ordering::Relaxed) {
                    let images = images(&mut connection).await;
                    assert!(allowed(&images), "{images:?}");
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            }));
        }
        load
    }

    /// How many reviews were answered, all of them well.
    async fn stop(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        for caller in self.callers {
            caller.await.unwrap();
        }
        self.calls.load(Ordering::Relaxed)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_config_map_is_swapped_under_load_without_a_failed_or_a_mixed_answer() {
    let folder = tempfile::tempdir().unwrap();
    let generation = |version: &str| {
        [
            ("first.yaml", definition("first", &format!("image:{version}"))),
            ("second.yaml", definition("second", &format!("image:{version}"))),
        ]
    };
    swap(folder.path(), "1", &generation("1"));
    let server = Arc::new(serve(folder.path()));
    // Both of one generation, or the first alone where the second was deleted.
    let load = Load::start(&server, |images| match images {
        [first, second] => first == second,
        [alone] => alone == "image:deleted",
        _ => false,
    });
    let mut took = Vec::new();
    for version in ["2", "3", "4", "5"] {
        swap(folder.path(), version, &generation(version));
        let image = format!("image:{version}");
        took.push(wait_for_images(&server, &[&image, &image]).await);
    }
    expect_events(&took);
    assert!(server.logged("definition_invalid").is_empty() && server.logged("definition_removed").is_empty());
    wait_until(|| server.logged("definitions_loaded").len() == 5).await;

    swap(folder.path(), "deleted", &generation("deleted")[..1]);
    wait_for_images(&server, &["image:deleted"]).await;
    assert_eq!(server.wait_for_log("definition_removed")["definition"], "second");
    swap(folder.path(), "6", &generation("6"));
    wait_for_images(&server, &["image:6", "image:6"]).await;
    assert!(load.stop().await > 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_edited_in_place_is_never_served_half_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let generation = |version: u32| definition("first", &format!("image:{version}"));
    write(folder.path(), "first.yaml", &generation(1));
    let server = Arc::new(serve(folder.path()));
    let load = Load::start(&server, |images| images.len() == 1 && images[0].starts_with("image:"));
    let mut took = Vec::new();
    for version in 2..6 {
        // In two steps, as a program does that writes more than its buffer holds.
        let text = generation(version);
        let (start, end) = text.split_at(text.len() / 2);
        let mut file = std::fs::File::create(folder.path().join("first.yaml")).unwrap();
        std::io::Write::write_all(&mut file, start.as_bytes()).unwrap();
        tokio::time::sleep(Duration::from_millis(30)).await;
        std::io::Write::write_all(&mut file, end.as_bytes()).unwrap();
        took.push(wait_for_images(&server, &[&format!("image:{version}")]).await);
    }
    expect_events(&took);
    assert!(load.stop().await > 100);
    assert!(server.logged("definition_invalid").is_empty());
}

#[tokio::test]
async fn what_is_deleted_stops_and_what_is_broken_goes_on_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a.yaml", &definition("a", "a:1"));
    write(folder.path(), "b.yml", &definition("b", "b:1"));
    write(folder.path(), ".hidden.yaml", &definition("hidden", "hidden:1"));
    write(folder.path(), "notes.txt", "no definition");
    let server = serve(folder.path());
    wait_for_images(&server, &["a:1", "b:1"]).await;
    assert_eq!(server.logged("serving")[0]["definitions"], "a,b");

    // Broken where its name can still be read, then not even YAML: said each time, and served as before.
    write(folder.path(), "a.yaml", &definition("a", "a:2").replace("v1alpha1", "v9"));
    let invalid = server.wait_for_log("definition_invalid");
    assert_eq!(invalid["definition"], "a");
    assert!(invalid["source"].as_str().unwrap().ends_with("a.yaml:1"), "{invalid}");
    assert!(invalid["problems"].as_str().unwrap().starts_with("apiVersion: "), "{invalid}");
    write(folder.path(), "a.yaml", "a: [");
    wait_until(|| server.logged("definition_invalid").len() == 2).await;
    wait_for_images(&server, &["a:1", "b:1"]).await;
    // Neighbours are changed all the same.
    write(folder.path(), "b.yml", &definition("b", "b:2"));
    wait_for_images(&server, &["a:1", "b:2"]).await;
    assert_eq!(server.logged("definition_invalid").len(), 2, "said once, not at every look");
    write(folder.path(), "a.yaml", &definition("a", "a:3"));
    wait_for_images(&server, &["a:3", "b:2"]).await;

    std::fs::remove_file(folder.path().join("b.yml")).unwrap();
    wait_for_images(&server, &["a:3"]).await;
    assert_eq!(server.wait_for_log("definition_removed")["definition"], "b");
    std::fs::remove_file(folder.path().join("a.yaml")).unwrap();
    wait_for_images(&server, &[]).await;

    // A folder that is gone says nothing about what was in it.
    write(folder.path(), "a.yaml", &definition("a", "a:4"));
    wait_for_images(&server, &["a:4"]).await;
    std::fs::rename(folder.path(), folder.path().with_extension("elsewhere")).unwrap();
    let problem = server.wait_for_log("definitions_unreadable");
    wait_for_images(&server, &["a:4"]).await;
    std::fs::rename(folder.path().with_extension("elsewhere"), folder.path()).unwrap();
    write(folder.path(), "a.yaml", &definition("a", "a:5"));
    wait_for_images(&server, &["a:5"]).await;
    assert!(problem["problem"].as_str().unwrap().contains("No such file"), "{problem}");
}

#[tokio::test]
async fn a_name_in_two_files_is_served_from_the_one_that_had_it() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "b.yaml", &definition("log", "first:1"));
    let server = serve(folder.path());
    write(folder.path(), "a.yaml", &format!("# comment\n---\n{}", definition("log", "second:1")));
    let invalid = server.wait_for_log("definition_invalid");
    let (source, problems) = (invalid["source"].as_str().unwrap(), invalid["problems"].as_str().unwrap());
    assert!(source.ends_with("a.yaml:3"), "{source}");
    assert!(problems.contains("b.yaml:1") && problems.ends_with("[NameTaken]"), "{problems}");
    wait_for_images(&server, &["first:1"]).await;
    write(folder.path(), "a.yaml", &definition("log", "second:2"));
    write(folder.path(), "b.yaml", &definition("log", "first:2"));
    wait_for_images(&server, &["first:2"]).await;
    std::fs::remove_file(folder.path().join("b.yaml")).unwrap();
    wait_for_images(&server, &["second:2"]).await;
}

#[tokio::test]
async fn a_definition_that_moves_and_breaks_on_the_way_goes_on_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a.yaml", &definition("log", "log:1"));
    let server = serve(folder.path());
    write(folder.path(), "b.yaml", &definition("log", "log:2").replace("v1alpha1", "v9"));
    std::fs::remove_file(folder.path().join("a.yaml")).unwrap();
    server.wait_for_log("definition_invalid");
    wait_for_images(&server, &["log:1"]).await;
    assert!(server.logged("definition_removed").is_empty());
}

#[tokio::test]
async fn a_bad_definition_at_the_start_keeps_no_other_from_being_served() {
    let folder = tempfile::tempdir().unwrap();
    let bad = definition("bad", "bad:1").replace("v1alpha1", "v9");
    write(folder.path(), "all.yaml", &format!("{bad}---\n{}", definition("good", "good:1")));
    write(folder.path(), "garbage.json", "{");
    let server = serve(folder.path());
    wait_for_images(&server, &["good:1"]).await;
    let invalid = server.logged("definition_invalid");
    assert_eq!(invalid.len(), 2, "{invalid:?}");
    assert_eq!(server.logged("serving")[0]["definitions"], "good");
}

#[tokio::test]
async fn without_definitions_it_is_the_articles_and_an_empty_folder_has_none() {
    for (settings, expected) in [
        (&[][..], &["yauritux/busybox-curl:latest"][..]),
        (&[("DEFINITIONS", "")], &["yauritux/busybox-curl:latest"]),
    ] {
        let server = Server::start(settings);
        wait_for_images(&server, expected).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let server = serve(folder.path());
    wait_for_images(&server, &[]).await;
    write(folder.path(), "a.yaml", &definition("a", "a:1"));
    wait_for_images(&server, &["a:1"]).await;
}

#[tokio::test]
async fn several_paths_and_a_change_that_no_event_shows() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(one.path(), "a.yaml", &definition("a", "a:1"));
    write(two.path(), "b.yaml", &definition("b", "b:1"));
    // What is linked to lies in a folder that is not watched.
    let link = one.path().join("link.yaml");
    std::os::unix::fs::symlink(two.path().join("b.yaml"), &link).unwrap();
    let paths = format!("{}:{}", one.path().join("a.yaml").display(), link.display());
    let server = Server::start(&[("DEFINITIONS", &paths)]);
    wait_for_images(&server, &["a:1", "b:1"]).await;
    write(two.path(), "b.yaml", &definition("b", "b:2"));
    let took = wait_for_images(&server, &["a:1", "b:2"]).await;
    assert!(took < Duration::from_secs(4), "{took:?}");
}

#[tokio::test]
async fn excluded_namespaces_are_left_alone() {
    let server = Server::start(&[("EXCLUDED_NAMESPACES", "default,other")]);
    wait_for_images(&server, &[]).await;
    for none_of_these in ["other", ""] {
        let server = Server::start(&[("EXCLUDED_NAMESPACES", none_of_these)]);
        wait_for_images(&server, &["yauritux/busybox-curl:latest"]).await;
    }
}

#[tokio::test]
async fn a_definition_that_needs_labels_nobody_watches_is_warned_about() {
    let folder = tempfile::tempdir().unwrap();
    let selects = |selector: &str| {
        definition("a", "a:1").replace(
            "spec:\n  inject",
            &format!("spec:\n  selector: {{namespaceSelector: {selector}}}\n  inject"),
        )
    };
    write(folder.path(), "a.yaml", &selects("{matchLabels: {team: a}}"));
    let server = serve(folder.path());
    assert_eq!(server.wait_for_log("namespaces_unknown")["definition"], "a");
    write(folder.path(), "a.yaml", &selects("{matchLabels: {kubernetes.io/metadata.name: default}}"));
    wait_for_images(&server, &["a:1"]).await;
    assert_eq!(server.logged("namespaces_unknown").len(), 1);
}

#[test]
fn a_path_that_is_not_there_at_the_start_is_an_error() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_sidecar-injector"))
        .args(["serve", "--http-port", "0", "--definitions", "nowhere/definitions"])
        .output()
        .unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{message}");
    assert!(message.contains("nowhere/definitions: No such file"), "{message}");
}

#[tokio::test]
async fn a_cluster_that_does_not_answer_keeps_the_server_from_being_ready_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a.yaml", &definition("a", "a:1"));
    write(
        folder.path(),
        "kubeconfig",
        "{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c, user: u}}], \
         clusters: [{name: c, cluster: {server: \"http://127.0.0.1:1\"}}], users: [{name: u, user: {}}]}",
    );
    let kubeconfig = folder.path().join("kubeconfig");
    let server = Server::start(&[
        ("DEFINITIONS", folder.path().to_str().unwrap()),
        ("DEFINITION_RESOURCES", "true"),
        ("KUBECONFIG", kubeconfig.to_str().unwrap()),
    ]);
    server.wait_for_log("watch_failed");
    wait_for_images(&server, &["a:1"]).await;
    let mut connection = Connection::http1(&server).await.unwrap();
    let answer = connection.get("/health/readiness").await.unwrap();
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    let reason = answer.json()["data"]["reason"].as_str().unwrap().to_owned();
    assert_eq!(reason, "not loaded yet: ClusterSidecarDefinition, SidecarDefinition, Namespace");
    assert_eq!(connection.get("/health/liveness").await.unwrap().status, StatusCode::OK);
    // Once for each watch, however often it is tried again.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(server.logged("watch_failed").len(), 3);
}
