//! The charts as dependencies of somebody else's chart.

use std::fs;

use sidecar_testkit::{Program, repository_root};

use crate::render::*;

const PARENT: &str = "\
apiVersion: v2
name: parent
version: 1.0.0
dependencies:
  - {name: kubernetes-sidecar-injector, version: '*', condition: kubernetes-sidecar-injector.enabled}
  - {name: httpbin, version: '*', condition: httpbin.enabled}
";

/// What other charts of the parent share is no misspelt value.
const VALUES: &str = "\
global: {imageRegistry: mirror.example.com, anything: {of: theirs}}
kubernetes-sidecar-injector: {enabled: true, replicas: 3}
httpbin: {enabled: false}
";

#[test]
fn a_parent_chart_switches_them_on_and_off() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("charts")).unwrap();
    fs::write(folder.path().join("Chart.yaml"), PARENT).unwrap();
    fs::write(folder.path().join("values.yaml"), VALUES).unwrap();
    for chart in [INJECTOR, HTTPBIN] {
        let target = repository_root().join("charts").join(chart);
        std::os::unix::fs::symlink(target, folder.path().join("charts").join(chart)).unwrap();
    }
    let path = folder.path().display().to_string();
    let template = |more: &[&str]| {
        let arguments = [&["template", "umbrella", &path, "--kube-version=1.37.0"], more].concat();
        arguments.into_iter().map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    // Helm 4 does not heed null in the parent's own values.yaml, only in what its user gives.
    let without_example = "--set=kubernetes-sidecar-injector.definitions.curl=null";
    for program in [Program::Helm4, Program::Helm3] {
        let objects = parse(&helm(program, &template(&[without_example])).unwrap());
        let deployments: Vec<_> = objects.iter().filter(|object| object["kind"] == "Deployment").collect();
        assert_eq!(deployments.len(), 1, "httpbin is off");
        assert_eq!(text(deployments[0], "/metadata/name"), "umbrella-kubernetes-sidecar-injector");
        assert_eq!(deployments[0]["spec"]["replicas"], 3);
        assert_eq!(
            of_kind(&objects, "ConfigMap")["data"],
            serde_json::json!({}),
            "null takes the example away"
        );
        let image = text(container(deployments[0]), "/image");
        assert_eq!(image, "mirror.example.com/kubernetes-sidecar-injector:0.1.0");

        let other = ["--set=kubernetes-sidecar-injector.enabled=false,httpbin.enabled=true"];
        let objects = parse(&helm(program, &template(&other)).unwrap());
        assert!(objects.iter().all(|object| object["kind"] != "MutatingWebhookConfiguration"));
        assert_eq!(text(of_kind(&objects, "Deployment"), "/metadata/name"), "umbrella-httpbin");

        let misspelt = ["--set=kubernetes-sidecar-injector.replica=1"];
        let refused = helm(program, &template(&misspelt)).unwrap_err();
        assert!(refused.contains("replica"), "still an error below a parent: {refused}");
    }
}
