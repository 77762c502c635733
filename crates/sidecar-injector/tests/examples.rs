//! The examples, through the command line and as the webhook answers: the pod, and what is expected of it. In the file
//! `result.yaml` of each example is what `inject` prints, to the byte.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use base64::Engine as _;
use serde_json::{Value, json};

fn examples() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let mut examples: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    examples.retain(|path| path.join("definition.yaml").exists());
    examples.sort();
    assert_eq!(examples.len(), 10, "{examples:?}");
    examples
}

fn run(example: &Path, command: &str, input: &Path) -> Output {
    let mut run = Command::new(env!("CARGO_BIN_EXE_sidecar-injector"));
    run.arg(command).arg("--definitions").arg(example.join("definition.yaml"));
    let namespace = example.join("namespace.yaml");
    if namespace.exists() {
        run.arg("--namespace-file").arg(namespace);
    }
    run.arg("-f").arg(input).output().unwrap()
}

fn json_of(yaml: &str) -> Value {
    serde_json::from_str(&sidecar_engine::yaml::to_json(yaml).unwrap()).unwrap()
}

fn result_of(example: &Path) -> String {
    std::fs::read_to_string(example.join("result.yaml")).unwrap()
}

#[test]
fn the_command_line_prints_the_expected_result() {
    for example in examples() {
        let output = run(&example, "inject", &example.join("pod.yaml"));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !said.contains("written anew"), "{}: {said}", example.display());
        let printed = String::from_utf8(output.stdout).unwrap();
        assert_eq!(printed, result_of(&example), "{}", example.display());
    }
}

#[test]
fn the_result_needs_nothing_more() {
    for example in examples() {
        let output = run(&example, "inject", &example.join("result.yaml"));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("AlreadyPresent"), "{}: {said}", example.display());
        assert_eq!(String::from_utf8(output.stdout).unwrap(), result_of(&example), "{}", example.display());
    }
}

#[test]
fn the_webhook_s_patch_makes_the_same_pod() {
    for example in examples() {
        let mut pod = json_of(&std::fs::read_to_string(example.join("pod.yaml")).unwrap());
        let namespace = pod["metadata"]["namespace"].as_str().unwrap_or("default");
        let review = json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {
                "uid": "1", "kind": {"group": "", "version": "v1", "kind": "Pod"}, "operation": "CREATE",
                "namespace": namespace, "object": pod,
            },
        });
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("review.json");
        std::fs::write(&file, review.to_string()).unwrap();
        let output = run(&example, "review", &file);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        let patch = answer["response"]["patch"].as_str().unwrap();
        let patch = base64::engine::general_purpose::STANDARD.decode(patch).unwrap();
        let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
        json_patch::patch(&mut pod, &patch).unwrap();
        assert_eq!(pod, json_of(&result_of(&example)), "{}", example.display());
    }
}
