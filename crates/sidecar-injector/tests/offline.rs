//! Definitions and namespaces from files, for the commands that work without a cluster.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Command, Output};

const DEFINITIONS: &str = "\
apiVersion: sidecar.me/v1alpha1
kind: ClusterSidecarDefinition
metadata: {name: log}
spec:
  selector: {namespaceSelector: {matchLabels: {team: a}}}
  inject: {spec: {containers: [{name: log, image: 'log:1'}]}}
---
apiVersion: sidecar.me/v1alpha1
kind: SidecarDefinition
metadata: {name: own, namespace: shop}
spec:
  inject: {spec: {containers: [{name: own, image: 'own:1'}]}}
";

const NAMESPACES: &str = "\
{apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: a}}}]}
---
apiVersion: v1
kind: Namespace
metadata: {name: loud, labels: {team: b}}
---
apiVersion: v1
kind: Namespace
metadata: {name: quiet, labels: {team: a}, annotations: {sidecar.me/inject: 'false'}}
---
apiVersion: v1
kind: Service
metadata: {name: other, labels: {team: a}}
";

const POD: &str = "\
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {sidecar.me/inject: 'true'}}
spec: {containers: [{name: app, image: app}]}
";

fn write(folder: &Path, file: &str, text: &str) -> String {
    let path = folder.join(file);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sidecar-injector")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn pods_get_what_a_server_with_these_files_would_give_them() {
    let folder = tempfile::tempdir().unwrap();
    let definitions = write(folder.path(), "definitions.yaml", DEFINITIONS);
    let namespaces = write(folder.path(), "namespaces.yaml", NAMESPACES);
    let pod = write(folder.path(), "pod.yaml", POD);
    let in_shop =
        write(folder.path(), "in-shop.yaml", &POD.replace("{name: web,", "{name: web, namespace: shop,"));
    for (file, arguments, injected, reason) in [
        (&pod, &["--namespace-file", &namespaces, "-n", "loud"][..], "", "log: NamespaceNotSelected"),
        (&pod, &["--namespace-file", &namespaces, "--namespace", "shop"], "log own", "own"),
        (&in_shop, &["--namespace-file", &namespaces], "log own", "own"),
        (&in_shop, &["--namespace-file", &namespaces, "-n", "quiet"], "", "log: NamespaceOptedOut"),
        // Without the file, the labels are not known; the name is.
        (&in_shop, &[], "own", "log: NamespaceUnknown"),
        (&pod, &["-n", "other", "--namespace-file", &namespaces], "", "log: NamespaceUnknown"),
    ] {
        let all = [&["inject", "-f", file, "--definitions", &definitions, "-o", "patch"], arguments].concat();
        let output = run(&all);
        let (patch, said) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{said}");
        let names: Vec<_> = ["log", "own"]
            .into_iter()
            .filter(|name| patch.contains(&format!("\"image\":\"{name}:1\"")))
            .collect();
        assert_eq!(names.join(" "), injected, "{arguments:?}: {said}");
        assert!(said.contains(reason), "{arguments:?}: {said}");
    }
}

#[test]
fn a_review_is_answered_with_the_labels_of_its_namespace() {
    let folder = tempfile::tempdir().unwrap();
    let definitions = write(folder.path(), "definitions.yaml", DEFINITIONS);
    let namespaces = write(folder.path(), "namespaces.yaml", NAMESPACES);
    let review = write(
        folder.path(),
        "review.json",
        r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"1","namespace":"shop",
            "kind":{"group":"","version":"v1","kind":"Pod"},"operation":"CREATE",
            "object":{"metadata":{"labels":{"sidecar.me/inject":"true"}},"spec":{"containers":[{"name":"app"}]}}}}"#,
    );
    let files = ["review", "-f", &review, "--definitions", &definitions];
    let said = text(&run(&files).stderr);
    assert!(said.contains("sidecar log: NamespaceUnknown") && said.contains("own: Injected"), "{said}");
    let said = text(&run(&[&files[..], &["--namespace-file", &namespaces]].concat()).stderr);
    assert!(said.contains("sidecar log: Injected") && said.contains("own: Injected"), "{said}");
}

#[test]
fn with_a_bad_definition_nothing_is_written_and_all_that_is_wrong_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let pod = write(folder.path(), "pod.yaml", POD);
    let definitions = folder.path().join("definitions");
    std::fs::create_dir(&definitions).unwrap();
    write(&definitions, "a.yaml", DEFINITIONS);
    write(
        &definitions,
        "b.yaml",
        &DEFINITIONS.replace("metadata: {name: own, namespace: shop}", "metadata: {name: own}"),
    );
    write(&definitions, "c.json", "{");
    let output = run(&["inject", "-f", &pod, "--definitions", definitions.to_str().unwrap()]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(output.stdout.is_empty());
    for expected in [
        "error[NameTaken]: ",
        "a.yaml:3",
        "error[MissingField]: ",
        "b.yaml:10",
        "error[Syntax]: ",
        "c.json:1",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    let output = run(&["inject", "-f", &pod, "--definitions", "nowhere"]);
    assert_eq!(
        (output.status.code(), text(&output.stderr).contains("nowhere: No such file")),
        (Some(3), true)
    );
}
