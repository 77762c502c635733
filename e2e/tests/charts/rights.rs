//! What the chart lets the injector do is what `docs/security.md` says, whatever the values are.

use std::collections::BTreeSet;

use e2e::rights::{EVERYWHERE, OWN_NAMESPACE, Right, documented, expected, values};
use serde_json::Value;
use sidecar_testkit::repository_root;

use crate::render::*;

/// Values that bring rights, with their settings; the first brings none.
const SWITCHES: [(&str, &[&str]); 7] = [
    ("certificates.mode", &["certManager", "helm", "selfManaged"]),
    ("definitionResources.validation.enabled", &["false", "true"]),
    ("definitionResources.watch", &["false", "true"]),
    ("definitionStatus.enabled", &["false", "true"]),
    ("events.enabled", &["false", "true"]),
    ("missedPods.mode", &["off", "report", "repair"]),
    ("selfProbe.enabled", &["false", "true"]),
];

#[test]
fn the_table_of_rights_is_what_is_rendered() {
    let rows = documented().unwrap();
    assert_eq!(values(&rows), SWITCHES.iter().map(|(value, _)| *value).collect::<BTreeSet<_>>());
    let defaults =
        std::fs::read_to_string(repository_root().join("charts").join(INJECTOR).join("values.yaml"));
    let defaults: Value = serde_saphyr::from_str(&defaults.unwrap()).unwrap();
    let bare: Vec<(&str, &str)> = SWITCHES.iter().map(|(value, settings)| (*value, settings[0])).collect();
    let mut cases: Vec<Vec<(&str, &str)>> = vec![Vec::new()];
    for (value, settings) in SWITCHES {
        for setting in settings {
            // With all others as they are by default, and with none of them.
            cases.push(vec![(value, setting)]);
            let alone = bare.iter().map(|&(other, none)| match (other, *setting) {
                _ if other == value => (other, *setting),
                // Refused without.
                ("definitionResources.watch", "repair") => (other, "true"),
                _ => (other, none),
            });
            cases.push(alone.collect());
        }
    }
    for case in cases {
        let given = |value: &str| {
            case.iter().find(|(other, _)| *other == value).map(|(_, setting)| (*setting).to_owned())
        };
        let wanted = expected(&rows, |value| given(value).unwrap_or_else(|| setting(&defaults, value)));
        let mut arguments = vec!["--set=selfProbe.namespace=probe".to_owned()];
        arguments.extend(case.iter().map(|(value, setting)| format!("--set={value}={setting}")));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let granted = granted(&render(INJECTOR, INJECTOR, &arguments));
        let excess: Vec<_> = granted.difference(&wanted).collect();
        let missing: Vec<_> = wanted.difference(&granted).collect();
        assert!(
            excess.is_empty() && missing.is_empty(),
            "{case:?}: not in the table: {excess:?}; only there: {missing:?}"
        );
    }
}

fn setting(values: &Value, name: &str) -> String {
    let value =
        values.pointer(&format!("/{}", name.replace('.', "/"))).unwrap_or_else(|| panic!("no value {name}"));
    value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)
}

/// What is bound to the injector's service account.
fn granted(objects: &[Value]) -> BTreeSet<Right> {
    let mut rights = BTreeSet::new();
    for binding in objects.iter().filter(|object| text(object, "/kind").ends_with("RoleBinding")) {
        for subject in binding["subjects"].as_array().unwrap() {
            assert_eq!((&subject["kind"], &subject["name"]), (&"ServiceAccount".into(), &INJECTOR.into()));
        }
        let place = match binding["metadata"]["namespace"].as_str() {
            None => EVERYWHERE,
            Some("default") => OWN_NAMESPACE,
            Some("probe") => "selfProbe.namespace",
            Some(other) => panic!("{other}"),
        };
        let role = objects
            .iter()
            .find(|object| {
                object["kind"] == binding["roleRef"]["kind"]
                    && object["metadata"]["name"] == binding["roleRef"]["name"]
                    && object["metadata"]["namespace"] == binding["metadata"]["namespace"]
            })
            .unwrap_or_else(|| panic!("no role for {binding}"));
        for rule in role["rules"].as_array().unwrap() {
            let list = |field: &str| -> Vec<String> {
                let texts = rule[field].as_array().into_iter().flatten();
                texts.map(|text| text.as_str().unwrap().to_owned()).collect()
            };
            let mut names = list("resourceNames");
            if names.is_empty() {
                names.push("any".to_owned());
            }
            for group in list("apiGroups") {
                for resource in list("resources") {
                    let objects = with_group(&resource, &group);
                    for name in &names {
                        for verb in list("verbs") {
                            rights.insert(Right {
                                place: place.to_owned(),
                                objects: objects.clone(),
                                name: name.clone(),
                                verb,
                            });
                        }
                    }
                }
            }
        }
    }
    rights
}

/// As kubectl writes it.
fn with_group(resource: &str, group: &str) -> String {
    let dotted = if group.is_empty() { String::new() } else { format!(".{group}") };
    match resource.split_once('/') {
        None => format!("{resource}{dotted}"),
        Some((kind, part)) => format!("{kind}{dotted}/{part}"),
    }
}
