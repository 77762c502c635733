//! The command line as it is typed: what is on standard output, what on standard error, and the exit code.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod documented;
mod validate;

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

struct Run {
    code: i32,
    stdout: String,
    stderr: String,
}

fn run(arguments: &[&str], input: &str) -> Run {
    let mut child = Command::new(env!("CARGO_BIN_EXE_sidecar-injector"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that refuses its arguments does not read.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    Run {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

const DEPLOYMENT: &str = "\
# The shop.
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web # in front
spec:
  template:
    metadata:
      labels: {sidecar.me/inject: \"true\"}
    spec:
      containers:
        - image: web:1 # pinned
          name: web
";

const ADDED: &str = "        - name: curl
          image: yauritux/busybox-curl:latest
          imagePullPolicy: IfNotPresent
          command:
          - /bin/sh
          - -ec
          - while :; do echo '.'; sleep 5 ; done
";

const SERVICE: &str = "---\nkind:   Service  # spaced\napiVersion: v1\n...\n";

#[test]
fn inject_adds_to_what_asks_for_it_and_passes_the_rest_through() {
    let found = run(&["inject", "-f", "-"], &format!("{SERVICE}---\n{DEPLOYMENT}{SERVICE}"));
    assert_eq!(found.code, 0, "{}", found.stderr);
    assert_eq!(found.stdout, format!("{SERVICE}---\n{DEPLOYMENT}{ADDED}{SERVICE}"));
    assert_eq!(found.stderr, "Deployment/web: injected curl\n");
    let again = run(&["inject", "-f", "-"], &found.stdout);
    assert_eq!(again.stdout, found.stdout);
    assert!(
        again.stderr.contains("Deployment/web: unchanged, has curl: AlreadyPresent: everything that"),
        "{}",
        again.stderr
    );
}

#[test]
fn inject_prints_patches_and_other_formats_on_request() {
    let patch = run(&["inject", "-f", "-", "-o", "patch"], DEPLOYMENT).stdout;
    assert!(
        patch
            .starts_with(r#"[{"op":"add","path":"/spec/template/spec/containers/-","value":{"name":"curl","#),
        "{patch}"
    );
    assert_eq!(patch.lines().count(), 1);
    let json = run(&["inject", "-f", "-", "-o", "json"], &format!("{DEPLOYMENT}{SERVICE}")).stdout;
    let objects: Vec<serde_json::Value> =
        serde_json::Deserializer::from_str(&json).into_iter().map(Result::unwrap).collect();
    assert_eq!(objects[0]["spec"]["template"]["spec"]["containers"][1]["name"], "curl");
    assert_eq!(objects[1]["kind"], "Service");
    // Back again: the order of fields is that of the source.
    let yaml = run(&["inject", "-f", "-", "-o", "yaml"], &json).stdout;
    assert!(yaml.starts_with("apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\n"), "{yaml}");
    assert!(yaml.contains("\n---\nkind: Service\n"), "{yaml}");
}

#[test]
fn inject_reads_folders_lists_and_json() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("b.yaml", DEPLOYMENT);
    write(
        "a/list.json",
        r#"{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","labels":{"sidecar.me/inject":"true"}},"spec":{"containers":[{"name":"a"}]}}]}"#,
    );
    write("notes.txt", "not a manifest: [");
    let found = run(&["inject", "-f", &folder.path().display().to_string()], "");
    assert_eq!(found.code, 0, "{}", found.stderr);
    assert_eq!(found.stderr, "Pod/p: injected curl\nDeployment/web: injected curl\n");
    assert!(found.stdout.ends_with(&format!("\n---\n{DEPLOYMENT}{ADDED}")), "{}", found.stdout);
}

#[test]
fn bad_input_is_shown_where_it_is_and_nothing_is_written() {
    let found = run(&["inject", "-f", "-"], &format!("{DEPLOYMENT}---\na: 1\na: 2\n"));
    assert_eq!((found.code, found.stdout.as_str()), (3, ""));
    assert!(
        found.stderr.contains("error: duplicate mapping key: a")
            && found.stderr.contains("standard input:16:1"),
        "{}",
        found.stderr
    );
    let found = run(&["inject", "-f", "/no/such/file"], "");
    assert_eq!(found.code, 3);
    assert!(found.stderr.contains("/no/such/file: No such file"), "{}", found.stderr);
    assert_eq!(run(&["inject"], "").code, 2);
    assert_eq!(run(&["inject", "-f", "-", "-o", "toml"], "").code, 2);
}

#[test]
fn what_gets_nothing_keeps_its_line_ends_and_its_blanks() {
    for text in [
        "kind: Service\r\n---\r\na: 'b'  \r\n\r\n# end",
        "kind: Service",
        "kind: Service\n\n\n---\n",
        "{\"kind\": \"Service\"}\r\n\r\n",
    ] {
        assert_eq!(run(&["inject", "-f", "-"], text).stdout, text);
    }
}

#[test]
fn input_without_workloads_says_so() {
    let found = run(&["inject", "-f", "-"], SERVICE);
    assert_eq!((found.code, found.stdout.as_str()), (0, SERVICE));
    assert!(found.stderr.starts_with("nothing to inject into"), "{}", found.stderr);
}

#[test]
fn review_prints_the_webhooks_response() {
    let review = r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","kind":{"group":"","version":"v1","kind":"Pod"},
        "operation":"CREATE","object":{"metadata":{"labels":{"sidecar.me/inject":"true"}},"spec":{"containers":[{"name":"a"}]}}}}"#;
    let found = run(&["review", "-f", "-"], review);
    assert_eq!(found.code, 0, "{}", found.stderr);
    let response: serde_json::Value = serde_json::from_str(&found.stdout).unwrap();
    assert_eq!(response["response"]["patchType"], "JSONPatch");
    assert_eq!(found.stderr, "sidecar curl: Injected: the sidecar was added\n");
    let found = run(&["review", "-f", "-"], "{\"kind\": \"AdmissionReview\",\n oops}");
    assert_eq!((found.code, found.stdout.as_str()), (3, ""));
    assert!(found.stderr.contains("standard input:2:2"), "{}", found.stderr);
    // The reader of JSON says of YAML that it expects a value, which is true of everything.
    let found = run(&["review", "-f", "-"], "apiVersion: admission.k8s.io/v1\nkind: AdmissionReview\n");
    assert_eq!((found.code, found.stdout.as_str()), (3, ""));
    let drawn = "error: this is not JSON, and an AdmissionReview is\n --> standard input:1:1\n";
    assert!(found.stderr.starts_with(drawn), "{}", found.stderr);
}

#[test]
fn the_help_of_inject_names_every_kind() {
    let help = run(&["inject", "--help"], "").stdout;
    let said = run(&["inject", "-f", "-"], SERVICE).stderr;
    let (_, kinds) = said.trim().split_once(": no ").unwrap();
    for kind in kinds.split(", ").flat_map(|kinds| kinds.split(" or ")) {
        assert!(help.contains(kind), "{kind}: {help}");
    }
}

#[test]
fn what_the_machine_refuses_has_an_exit_code_of_its_own() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let found = run(&["serve", "--http-port", &address.port().to_string()], "");
    assert_eq!(found.code, 5, "{}", found.stderr);
    assert!(found.stderr.contains(&format!("cannot listen on {address}")), "{}", found.stderr);
}

/// The article's environment, each variable also a flag: names and defaults are promises.
#[test]
fn serve_has_the_articles_settings() {
    let help = run(&["serve", "--help"], "").stdout;
    for (flag, variable, default) in [
        ("--https-port ", "HTTPS_PORT", "8443"),
        ("--http-port ", "HTTP_PORT", "8010"),
        ("--tls-cert-file ", "TLS_CERT_FILE", "/var/run/secrets/certs/tls-cert-file"),
        ("--tls-private-key-file ", "TLS_PRIVATE_KEY_FILE", "/var/run/secrets/certs/tls-private-key-file"),
    ] {
        let (_, option) = help.split_once(flag).unwrap();
        let (option, _) = option.split_once("\n      --").unwrap();
        assert!(option.contains(&format!("[env: {variable}=")), "{option}");
        assert!(option.contains(&format!("[default: {default}]")), "{option}");
    }
    assert!(help.contains("[env: HTTPS_ENABLED="), "{help}");
}

#[test]
fn check_says_what_is_wrong() {
    let found = run(&["check", "--url", "http://a", "--ca-bundle", "x"], "");
    assert_eq!(found.code, 2);
    assert!(found.stderr.contains("must be https://"), "{}", found.stderr);
    let found = run(&["check", "--url", "https://a", "--ca-bundle", "AAAA"], "");
    assert_eq!(found.code, 2);
    assert!(found.stderr.contains("has no certificate"), "{}", found.stderr);
}

/// The manifests of this repository are real ones: nothing in them asks for a sidecar but httpbin.
#[test]
fn the_plain_manifest_passes_through_byte_for_byte() {
    let manifest =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/kubernetes-sidecar-injector.yaml");
    let found = run(&["inject", "-f", &manifest.display().to_string()], "");
    assert_eq!(found.stdout, std::fs::read_to_string(manifest).unwrap());
    assert!(found.stderr.contains("InjectorPod"), "{}", found.stderr);
}

#[test]
fn the_examples_show_what_the_documentation_says() {
    let example = |name: &str| {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name).display().to_string()
    };
    let found = run(&["inject", "-f", &example("deployment.yaml")], "");
    assert_eq!(found.stderr, "Deployment/web: injected curl\n");
    assert!(
        found.stdout.contains("# the pod asks, not the Deployment") && found.stdout.contains("- name: curl")
    );
    let found = run(&["review", "-f", &example("review.json")], "");
    assert_eq!(found.stderr, "sidecar curl: Injected: the sidecar was added\n");
}

/// Regression: the second object of a JSON source stood among YAML without a separator, and a symlink to a folder above was
/// followed for as long as the system let it.
#[test]
fn what_inject_writes_it_can_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let pod = |name: &str| {
        format!(
            r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{name}","labels":{{"sidecar.me/inject":"true"}}}},"spec":{{"containers":[{{"name":"a"}}]}}}}"#
        )
    };
    std::fs::write(folder.path().join("a.yaml"), "kind: Service").unwrap();
    std::fs::write(folder.path().join("b.json"), format!("{}\n{}", pod("one"), pod("two"))).unwrap();
    std::fs::write(folder.path().join("c.yaml"), format!("# comment\n{DEPLOYMENT}")).unwrap();
    std::os::unix::fs::symlink("..", folder.path().join("up")).unwrap();
    std::os::unix::fs::symlink(".", folder.path().join("..data")).unwrap();
    for format in [&["-o", "yaml"][..], &["-o", "json"], &[]] {
        let path = folder.path().display().to_string();
        let found = run(&[&["inject", "-f", &path], format].concat(), "");
        assert_eq!(found.code, 0, "{}", found.stderr);
        assert_eq!(found.stderr.lines().count(), 3, "{}", found.stderr);
        let again = run(&["inject", "-f", "-"], &found.stdout);
        assert_eq!(again.code, 0, "{}{}", again.stderr, found.stdout);
        assert_eq!(again.stdout, found.stdout);
        assert_eq!(again.stderr.matches("AlreadyPresent").count(), 3, "{}", again.stderr);
    }
}

/// What goes wrong first for somebody who is new to this.
#[test]
fn labels_in_the_wrong_place_or_form_are_pointed_out() {
    let outside = DEPLOYMENT
        .replace("  name: web # in front\n", "  name: web\n  labels: {sidecar.me/inject: \"true\"}\n");
    let outside =
        outside.replace("      labels: {sidecar.me/inject: \"true\"}\n", "      labels: {app: web}\n");
    let found = run(&["inject", "-f", "-"], &outside);
    assert!(found.stderr.contains("Deployment/web: hint: the label sidecar.me/inject belongs into the pod template (spec.template.metadata.labels)\n"), "{}", found.stderr);
    let unquoted = DEPLOYMENT.replace("\"true\"", "true");
    let found = run(&["inject", "-f", "-"], &unquoted);
    assert!(found.stderr.contains("quote them"), "{}", found.stderr);
    // Regression: an annotation without quotes was ignored in silence.
    let annotation = unquoted.replace("labels:", "annotations:");
    let found = run(&["inject", "-f", "-"], &annotation);
    let hint = "Deployment/web: hint: the annotation sidecar.me/inject is not a string, and the API server will refuse \
                it: quote it, sidecar.me/inject: \"true\"\n";
    assert!(found.stderr.contains(hint), "{}", found.stderr);
}

/// Regression: each of these was ignored in silence.
#[test]
fn what_does_nothing_where_it_stands_is_pointed_out() {
    let outside = |field: &str, entry: &str| {
        DEPLOYMENT.replace("  name: web # in front\n", &format!("  name: web\n  {field}: {{{entry}}}\n"))
    };
    let inside = |entry: &str| DEPLOYMENT.replace("      labels:", &format!("      {entry}\n      labels:"));
    let label = |entry: &str| DEPLOYMENT.replace("{sidecar.me/inject: \"true\"}", &format!("{{{entry}}}"));
    let job = DEPLOYMENT.replace("apps/v1", "batch/v1").replace("Deployment", "CronJob").replace(
        "  template:\n    metadata:\n      labels: {sidecar.me/inject: \"true\"}\n    spec:\n      containers:\n        - image: web:1 # pinned\n          name: web\n",
        "  jobTemplate: {spec: {template: {spec: {containers: [{name: web}]}}}}\n",
    );
    let job = job.replace("  name: web # in front\n", "  annotations: {curl.sidecar.me/a: b}\n");
    for (text, hints) in [
        (
            outside("annotations", "sidecar.me/inject: curl"),
            &[
                "the annotation sidecar.me/inject belongs into the pod template (spec.template.metadata.annotations)",
            ][..],
        ),
        (
            outside("annotations", "curl.sidecar.me/level: a"),
            &[
                "the annotation curl.sidecar.me/level belongs into the pod template (spec.template.metadata.annotations)",
            ],
        ),
        (
            job,
            &[
                "the annotation curl.sidecar.me/a belongs into the pod template (spec.jobTemplate.spec.template.metadata.annotations)",
            ],
        ),
        (
            outside("labels", "curl.sidecar.me/level: a"),
            &["the label curl.sidecar.me/level does nothing: parameters are annotations of the pod"],
        ),
        (
            label("curl.sidecar.me/level: a"),
            &["the label curl.sidecar.me/level does nothing: parameters are annotations of the pod"],
        ),
        (
            inside("annotations: {crul.sidecar.me/level: a}"),
            &[
                "the annotation crul.sidecar.me/level does nothing: no definition is called \"crul\", there is curl",
            ],
        ),
        (
            label("sidecar.me/inject: \"no\""),
            &["the label sidecar.me/inject is \"no\", and only \"true\" and \"false\" mean something there"],
        ),
        (
            label("sidecar.me/inject: \"\""),
            &["the label sidecar.me/inject is \"\", and only \"true\" and \"false\" mean something there"],
        ),
        (
            label("sidecar.me/inject: FALSE, a: b").replace("FALSE", "\"FALSE\""),
            &[
                "the label sidecar.me/inject is \"FALSE\", and only \"true\" and \"false\" mean something there",
            ],
        ),
        (label("sidecar.me/inject: \"False\""), &[]),
        (label("sidecar.me/inject: \"True\""), &[]),
        (outside("annotations", "sidecar.me/other: a, example.com/x: y"), &[]),
        (
            inside("annotations: {sidecar.me/inject: curl}").replace(
                "  name: web # in front\n",
                "  name: web\n  annotations: {sidecar.me/inject: curl}\n",
            ),
            &[],
        ),
    ] {
        let found = run(&["inject", "-f", "-"], &text);
        let said: Vec<_> =
            found.stderr.lines().filter_map(|line| Some(line.split_once(": hint: ")?.1)).collect();
        assert_eq!(said, hints, "{}", found.stderr);
    }
}

#[test]
fn a_document_without_a_kind_is_pointed_out() {
    let text = DEPLOYMENT.replace("kind: Deployment\n", "");
    let found = run(&["inject", "-f", "-"], &format!("# first\n---\n{SERVICE}---\n{text}"));
    assert_eq!((found.code, found.stdout.ends_with(&text)), (0, true));
    assert!(
        found.stderr.starts_with("standard input: document 2 has no kind\nnothing to inject into"),
        "{}",
        found.stderr
    );
}

/// Regression: one was injected into, and refused by the API server afterwards; of the other nothing was said.
#[test]
fn a_kind_of_another_version_is_pointed_out() {
    let text = DEPLOYMENT.replace("apps/v1", "v1");
    let found = run(&["inject", "-f", "-"], &format!("{SERVICE}---\n{text}---\napiVersion: v1\nkind: pod\n"));
    assert_eq!(found.code, 0);
    let expected = "\
standard input: document 2 is a Deployment of v1, which has no pods here; Deployment is of apps/v1
standard input: document 3 is a pod, did you mean Pod?
nothing to inject into: ";
    assert!(found.stderr.starts_with(expected), "{}", found.stderr);
}

/// Regression: a word that is no level was taken for a module's name, and nothing was logged at all.
#[test]
fn a_level_that_is_none_is_refused() {
    let found = run(&["serve", "--log-level", "warning"], "");
    assert_eq!(found.code, 2);
    assert!(found.stderr.contains("the levels are"), "{}", found.stderr);
}

#[test]
fn labels_that_come_near_are_named() {
    for (labels, hint) in [
        ("{sidecar.me/inject: enabled}", "is \"enabled\", it must be \"true\""),
        ("{app: web}", "has no label sidecar.me/inject"),
    ] {
        let found = run(&["inject", "-f", "-"], &DEPLOYMENT.replace("{sidecar.me/inject: \"true\"}", labels));
        assert!(found.stderr.contains(hint), "{}", found.stderr);
    }
}
