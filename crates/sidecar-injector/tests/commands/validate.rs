//! `validate`: every mistake, drawn for people or listed for programs.

use crate::{DEPLOYMENT, run};

const DEFINITION: &str = "\
apiVersion: sidecar.me/v1alpha1
kind: ClusterSidecarDefinition
metadata: {name: shipper}
spec:
  inject:
    spec:
      containers: [{name: shipper, image: shipper:1}]
";

#[test]
fn validate_draws_every_error_and_counts() {
    let good = run(&["validate", "-f", "-"], DEFINITION);
    assert_eq!((good.code, good.stdout.as_str(), good.stderr.as_str()), (0, "", "1 definition, no errors\n"));

    let bad = DEFINITION.replace("image:", "imagee:").replace("shipper}", "shipper2}");
    let found = run(&["validate", "-f", "-"], &format!("{DEFINITION}---\n{bad}---\na: [\n"));
    assert_eq!(found.code, 1);
    assert_eq!(found.stdout, "");
    let expected = "\
error[UnknownField]: unknown field \"imagee\"
  --> standard input:15:36
   |
15 |       containers: [{name: shipper, imagee: shipper:1}]
   |                                    ^^^^^^
   |
   = help: did you mean \"image\"?
   = note: field spec.inject.spec.containers[0].imagee
";
    assert!(found.stderr.contains(expected), "{}", found.stderr);
    assert!(found.stderr.contains("error[Syntax]"), "{}", found.stderr);
    assert!(found.stderr.ends_with("\n3 definitions, 2 with 2 errors\n"), "{}", found.stderr);
}

/// Regression: where the parser stumbles is not where the author can mend it.
#[test]
fn tabs_and_expressions_without_quotes_are_explained() {
    let tab = format!("{DEFINITION}---\nkind: Service\nspec:\n  a: 1\n\tb: 2\n");
    let drawn = "\
error: a tab in the indentation
  --> standard input:12:1
   |
12 |     b: 2
   | ^^^^
   |
   = help: indent with spaces";
    let found = run(&["inject", "-f", "-"], &tab);
    assert_eq!((found.code, found.stderr.trim_end()), (3, drawn));
    let found = run(&["validate", "-f", "-"], &tab);
    let drawn = drawn.replace("error", "error[Syntax]");
    assert_eq!(found.code, 1);
    assert!(found.stderr.starts_with(&drawn), "{}", found.stderr);
    let bare = DEFINITION
        .replace("spec:\n      containers", "spec:\n      nodeName: ${true ? 'a' : 'b'}\n      containers");
    let found = run(&["validate", "-f", "-"], &bare);
    assert!(found.stderr.contains("help: put quotes around an expression"), "{}", found.stderr);
}

/// Regression: nothing was said, and nothing was injected.
#[test]
fn a_file_without_definitions_is_pointed_out() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty.yaml");
    std::fs::write(&empty, "# soon\n---\n").unwrap();
    let empty = empty.to_str().unwrap();
    let line = format!("{empty}: there are no definitions in it\n");
    let found = run(&["validate", "-f", empty], "");
    assert_eq!((found.code, found.stderr), (0, format!("{line}0 definitions, no errors\n")));
    let found = run(&["inject", "-f", "-", "--definitions", empty], DEPLOYMENT);
    assert_eq!((found.code, found.stdout.as_str(), found.stderr.as_str()), (0, DEPLOYMENT, &*line));
    let review = include_str!("../../../../examples/review.json");
    let found = run(&["review", "-f", "-", "--definitions", empty], review);
    assert_eq!((found.code, found.stderr), (0, line));
}

/// Regression: one file that is no text hid what was wrong with all others.
#[test]
fn a_file_that_is_no_text_hides_nothing() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.yaml"), b"a: \xff\n").unwrap();
    std::fs::write(folder.path().join("b.yaml"), DEFINITION.replace("image:", "imagee:")).unwrap();
    let path = folder.path().to_str().unwrap();
    let found = run(&["validate", "-f", path], "");
    assert_eq!(found.code, 3, "{}", found.stderr);
    assert!(found.stderr.starts_with(&format!("error[Syntax]: not UTF-8 (byte 3)\n--> {path}/a.yaml\n")));
    assert!(found.stderr.contains("error[UnknownField]"), "{}", found.stderr);
    assert!(found.stderr.ends_with("\n2 definitions, 2 with 2 errors\n"), "{}", found.stderr);
    let found = run(&["validate", "-f", path, "-o", "json"], "");
    let errors: serde_json::Value = serde_json::from_str(&found.stdout).unwrap();
    assert_eq!(
        (found.code, &errors[0]["code"], &errors[1]["code"]),
        (3, &"Syntax".into(), &"UnknownField".into())
    );
    assert!(errors[0]["file"].as_str().unwrap().ends_with("a.yaml"));
    let found = run(&["inject", "-f", "-", "--definitions", path], DEPLOYMENT);
    assert_eq!((found.code, found.stdout.as_str()), (3, ""));
    assert!(found.stderr.contains("error[UnknownField]"), "{}", found.stderr);
}

#[test]
fn validate_names_both_places_of_a_name_that_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["a.yaml", "b.yaml"] {
        std::fs::write(folder.path().join(file), DEFINITION).unwrap();
    }
    let found = run(&["validate", "-f", folder.path().to_str().unwrap()], "");
    assert_eq!(found.code, 1);
    assert!(
        found.stderr.contains("error[NameTaken]: there is a ClusterSidecarDefinition shipper already"),
        "{}",
        found.stderr
    );
    assert!(found.stderr.contains("a.yaml:3:18") && found.stderr.contains("b.yaml:3:18"), "{}", found.stderr);
    // The same name in other namespaces, and of the other kind, is another definition.
    let namespaced = |namespace: &str| {
        DEFINITION
            .replace("Cluster", "")
            .replace("{name: shipper}", &format!("{{name: shipper, namespace: {namespace}}}"))
    };
    let text = [DEFINITION.to_owned(), namespaced("a"), namespaced("b")].join("---\n");
    let found = run(&["validate", "-f", "-"], &text);
    assert_eq!((found.code, found.stderr.as_str()), (0, "3 definitions, no errors\n"));
}

#[test]
fn validate_prints_errors_for_programs() {
    let bad = DEFINITION.replace("image:", "imagee:");
    let found = run(&["validate", "-f", "-", "-o", "json"], &bad);
    assert_eq!(found.code, 1);
    let errors: serde_json::Value = serde_json::from_str(&found.stdout).unwrap();
    assert_eq!(
        errors,
        serde_json::json!([{
            "file": "standard input",
            "line": 7,
            "column": 36,
            "code": "UnknownField",
            "path": "spec.inject.spec.containers[0].imagee",
            "message": "unknown field \"imagee\"",
            "suggestion": "image",
            "help": null,
        }])
    );
    let lenient = run(&["validate", "-f", "-", "--allow-unknown-pod-fields"], &bad);
    assert!(lenient.stderr.contains("a container needs an image"), "{}", lenient.stderr);
    let none = run(&["validate", "-f", "-", "-o", "json"], DEFINITION);
    assert_eq!((none.code, none.stdout.as_str()), (0, "[]\n"));
    assert_eq!(run(&["validate", "-f", "/nowhere.yaml"], "").code, 3);
    assert_eq!(run(&["validate"], "").code, 2);
}
