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
        (
            &in_shop,
            &[],
            "own",
            "without log: NamespaceUnknown: the labels of the namespace \"shop\" are not known: give the Namespace with \
             --namespace-file, or the name of another one with --namespace\n",
        ),
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

/// Regression: the Namespace stood next to its pods, and its labels were "not known".
#[test]
fn namespaces_among_the_manifests_are_known() {
    let folder = tempfile::tempdir().unwrap();
    let definitions = write(folder.path(), "definitions.yaml", DEFINITIONS);
    let in_shop = POD.replace("{name: web,", "{name: web, namespace: shop,");
    let pods = write(folder.path(), "pods.yaml", &format!("{in_shop}---\n{NAMESPACES}"));
    let files = ["inject", "-f", &pods, "--definitions", &definitions];
    let said = text(&run(&files).stderr);
    assert!(said.contains("Pod/web: injected log\n"), "{said}");
    let other = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {team: b}}\n";
    let other = write(folder.path(), "other.yaml", other);
    let said = text(&run(&[&files[..], &["--namespace-file", &other]].concat()).stderr);
    assert!(said.contains("without log: NamespaceNotSelected: "), "{said}");

    let output = run(&[&files[..], &["--namespace-file", &definitions]].concat());
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.ends_with("definitions.yaml: there is no Namespace in it\n"), "{said}");
    assert!(output.stdout.is_empty());
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
    let expected = "sidecar log: NamespaceUnknown: the labels of the namespace \"shop\" are not known: give the Namespace \
                    with --namespace-file\n";
    assert!(said.contains(expected) && said.contains("own: Injected"), "{said}");
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

/// Several definitions for one pod, each in a document; `spec` without `selector`, which is that of all pods.
fn definitions(specs: &[(&str, &str)]) -> String {
    let definition = |(name, spec): &(&str, &str)| {
        format!(
            "apiVersion: sidecar.me/v1alpha1\nkind: ClusterSidecarDefinition\nmetadata: {{name: {name}}}\nspec: {{selector: \
             {{podSelector: {{}}}}, {spec}}}\n"
        )
    };
    specs.iter().map(definition).collect::<Vec<_>>().join("---\n")
}

/// Lines up to the code of a reason.
fn without_details(said: &str) -> String {
    said.lines().fold(String::new(), |text, line| {
        text + &line.split(": ").take(3).collect::<Vec<_>>().join(": ") + "\n"
    })
}

const TAKEN: &str = "inject: {spec: {containers: [{name: app, image: other}]}}";
const LOG: &str = "inject: {spec: {containers: [{name: log, image: 'log:1'}]}}";

/// Regression: the manifest went to kubectl as it was, and a pod was there without what it must not be without.
#[test]
fn nothing_is_written_when_a_pod_would_be_denied() {
    let folder = tempfile::tempdir().unwrap();
    let required = format!("failurePolicy: Fail, {TAKEN}");
    let definitions =
        write(folder.path(), "definitions.yaml", &definitions(&[("log", LOG), ("own", &required)]));
    let free = POD.replace("{name: web,", "{name: free,").replace("name: app", "name: other");
    let pods = write(folder.path(), "pods.yaml", &format!("{free}---\n{POD}"));
    for format in [&[][..], &["-o", "patch"], &["-o", "json"]] {
        let output = run(&[&["inject", "-f", &pods, "--definitions", &definitions], format].concat());
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(1), String::new()));
        assert_eq!(
            without_details(&text(&output.stderr)),
            "\
Pod/free: injected log
Pod/free: injected own
Pod/web: denied, without log: PodDenied
Pod/web: denied, without own: ContainerNameConflict
nothing was written: the webhook would deny the pods of Pod/web
"
        );
    }
}

#[test]
fn an_object_that_got_something_is_not_called_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let pod = write(folder.path(), "pod.yaml", POD);
    let first = write(folder.path(), "first.yaml", &definitions(&[("log", LOG)]));
    let once = write(
        folder.path(),
        "once.yaml",
        &text(&run(&["inject", "-f", &pod, "--definitions", &first]).stdout),
    );
    let own = "inject: {spec: {containers: [{name: own, image: 'own:1'}]}}";
    let all = write(folder.path(), "all.yaml", &definitions(&[("log", LOG), ("own", own), ("taken", TAKEN)]));
    let said = text(&run(&["inject", "-f", &once, "--definitions", &all]).stderr);
    assert_eq!(
        without_details(&said),
        "\
Pod/web: has log: AlreadyPresent
Pod/web: injected own
Pod/web: without taken: ContainerNameConflict
"
    );
    let taken = write(folder.path(), "taken.yaml", &definitions(&[("taken", TAKEN)]));
    let said = text(&run(&["inject", "-f", &pod, "--definitions", &taken]).stderr);
    assert!(said.starts_with("Pod/web: unchanged, without taken: ContainerNameConflict: "), "{said}");
}

/// Regression: it was recorded and shown to nobody.
#[test]
fn what_was_kept_or_replaced_is_said_without_its_value() {
    let folder = tempfile::tempdir().unwrap();
    let spec = "patchContainers: [{env: [{name: A, value: theirs}]}], \
                inject: {spec: {volumes: [{name: data, emptyDir: {}}], terminationGracePeriodSeconds: 5}}";
    let pod = POD.replace(
        "image: app}]",
        "image: app, env: [{name: A, value: secret}]}], volumes: [{name: data, hostPath: {path: /}}]",
    );
    let review = format!(
        r#"{{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{{"uid":"1","namespace":"shop",
            "kind":{{"group":"","version":"v1","kind":"Pod"}},"operation":"CREATE","object":{}}}}}"#,
        sidecar_engine::yaml::to_json(&pod).unwrap()
    );
    let pod = write(folder.path(), "pod.yaml", &pod);
    let review = write(folder.path(), "review.json", &review);
    for (policy, verb, result) in [("KeepPod", "kept", " as it was"), ("Replace", "replaced", "")] {
        let spec = format!("onConflict: {policy}, {spec}");
        let definitions = write(folder.path(), "definitions.yaml", &definitions(&[("log", &spec)]));
        let said = text(&run(&["inject", "-f", &pod, "--definitions", &definitions]).stderr);
        let lines = ["spec.volumes[data]", "spec.containers[app].env[A]"];
        let expected_lines = lines.map(|path| format!("Pod/web: {verb} {path}{result} (log)\n")).concat();
        assert_eq!(said, format!("Pod/web: injected log\n{expected_lines}"));
        let output = run(&["review", "-f", &review, "--definitions", &definitions]);
        let expected_lines = lines.map(|path| format!("sidecar log: {verb} {path}{result}\n")).concat();
        assert_eq!(
            text(&output.stderr),
            format!("sidecar log: Injected: the sidecar was added\n{expected_lines}")
        );
        // A warning is for who goes without something; this the author has asked for.
        assert!(!text(&output.stdout).contains("warnings"));
    }
}

/// Regression: the volumes that the controller of a StatefulSet adds to its pods were missed in the template.
#[test]
fn the_volumes_of_claims_are_there() {
    let folder = tempfile::tempdir().unwrap();
    let shared = "inject: {spec: {containers: [{name: log, image: l, volumeMounts: \
                  '${pod.spec.containers[0].volumeMounts}'}]}}, patchContainers: [{env: [{name: A, value: a}]}]";
    let own = "patchContainers: [{env: [{name: B, value: b}]}]";
    let definitions =
        write(folder.path(), "definitions.yaml", &definitions(&[("shared", shared), ("own", own)]));
    let mounts = "volumeMounts: [{name: data, mountPath: /data}]";
    let set = format!(
        "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {{name: db}}\nspec:\n  template: {{spec: {{containers: [{{name: app, \
         image: a, {mounts}}}]}}}}\n  volumeClaimTemplates: [{{metadata: {{name: data}}}}]\n"
    );
    let with_claims = write(folder.path(), "set.yaml", &set);
    let said = text(&run(&["inject", "-f", &with_claims, "--definitions", &definitions]).stderr);
    assert_eq!(said, "StatefulSet/db: injected own\nStatefulSet/db: injected shared\n");
    // A mount of the definition's, of a volume that nobody has, is still one; those of the pod are not ours to judge.
    let without = write(folder.path(), "without.yaml", &set.replace("{name: data}}]", "{name: other}}]"));
    let said = text(&run(&["inject", "-f", &without, "--definitions", &definitions]).stderr);
    assert_eq!(
        without_details(&said),
        "StatefulSet/db: injected own\nStatefulSet/db: without shared: WouldBeRejected\n"
    );
}

/// Regression: an author found out from the API server, which asks twice and shows only what comes of it.
#[test]
fn what_the_second_call_would_do_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let pod = write(folder.path(), "pod.yaml", POD);
    let counted =
        "inject: {spec: {containers: [{name: log, image: 'log:${string(pod.spec.containers.size())}'}]}}";
    let grows = "patchContainers: [{env: [{name: 'N${string(pod.spec.containers.size())}', value: a}]}]";
    let other = "order: 1, inject: {spec: {volumes: [{name: v, emptyDir: {}}]}}";
    let hint = "Pod/web: hint: the API server asks a second time about a pod, and then";
    for (specs, expected) in [
        (
            &[("log", counted), ("other", other)][..],
            format!("{hint} log: ContainerNameConflict: the pod has a different container"),
        ),
        (
            &[("log", LOG), ("grows", grows)],
            format!("{hint} grows: Injected: added spec.containers[app].env[N2]\n"),
        ),
        (&[("log", LOG), ("other", other)], String::new()),
        // What is missed the first time has been said already.
        (&[("log", LOG), ("taken", TAKEN)], String::new()),
    ] {
        let definitions = write(folder.path(), "definitions.yaml", &definitions(specs));
        let said = text(&run(&["inject", "-f", &pod, "--definitions", &definitions]).stderr);
        assert!(said.contains(&expected), "{said}");
        assert_eq!(said.matches("hint").count(), usize::from(!expected.is_empty()), "{said}");
    }
    let required = format!("failurePolicy: Fail, {counted}");
    let definitions =
        write(folder.path(), "definitions.yaml", &definitions(&[("log", &required), ("other", other)]));
    let output = run(&["inject", "-f", &pod, "--definitions", &definitions]);
    let said = text(&output.stderr);
    assert!(said.contains(&format!("{hint} log: ContainerNameConflict: ")), "{said}");
    assert!(said.ends_with(", and the pod is denied\n") && said.matches("hint").count() == 1, "{said}");
    assert_eq!(output.status.code(), Some(0));
}
