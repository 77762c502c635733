//! Properties over generated pods and definitions, small enough that they often meet under one key.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use serde_json::{Value, json};
use sidecar_engine::definition::Compiled;
use sidecar_engine::{Engine, Injection, Namespace, Reason};

fn name() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "c", "d"])
}

fn some<T: std::fmt::Debug>(strategy: impl Strategy<Value = T>) -> impl Strategy<Value = Option<T>> {
    prop::option::weighted(0.4, strategy)
}

/// A list whose items have different keys, as the API server wants them.
fn keyed(key: &'static str, item: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
    prop::collection::vec(item, 1..4).prop_map(move |items| {
        let by_key: BTreeMap<String, Value> =
            items.into_iter().map(|item| (item[key].to_string(), item)).collect();
        by_key.into_values().collect()
    })
}

fn env() -> impl Strategy<Value = Value> {
    keyed("name", (name(), 0..2).prop_map(|(name, value)| json!({"name": name, "value": format!("{value}")})))
}

fn mounts() -> impl Strategy<Value = Value> {
    keyed(
        "mountPath",
        (name(), name()).prop_map(|(volume, path)| json!({"name": volume, "mountPath": format!("/{path}")})),
    )
}

fn ports() -> impl Strategy<Value = Value> {
    let port = (80..83, prop::bool::ANY).prop_map(|(port, udp)| {
        if udp { json!({"containerPort": port, "protocol": "UDP"}) } else { json!({"containerPort": port}) }
    });
    prop::collection::vec(port, 1..2).prop_map(Value::from)
}

fn object(fields: Vec<(&str, Option<Value>)>) -> Value {
    fields.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
}

fn container(is_of_pod: bool, name: impl Strategy<Value = &'static str> + 'static) -> BoxedStrategy<Value> {
    (name, 0..2, some(env()), some(mounts()), some(ports()), some(any::<i64>()), some(0..3))
        .prop_map(move |(name, image, env, mounts, ports, invented, user)| {
            object(vec![
                ("name", Some(json!(name))),
                // The pod's alone: what a definition has must be known.
                ("x-invented", invented.filter(|_| is_of_pod).map(|value| json!({"a/b~c": value}))),
                ("image", Some(json!(format!("i:{image}")))),
                ("env", env),
                ("volumeMounts", mounts),
                ("ports", ports),
                ("securityContext", user.map(|user| json!({"runAsUser": user}))),
            ])
        })
        .boxed()
}

fn volumes() -> impl Strategy<Value = Value> {
    let source = prop::sample::select(vec![json!({"emptyDir": {}}), json!({"configMap": {"name": "c"}})]);
    keyed(
        "name",
        (name(), source).prop_map(|(name, mut volume)| {
            volume["name"] = json!(name);
            volume
        }),
    )
}

fn set(field: &'static str) -> impl Strategy<Value = Value> {
    prop::collection::vec(name(), 1..3)
        .prop_map(move |names| names.into_iter().map(|name| json!({field: name})).collect())
}

fn map() -> impl Strategy<Value = Value> {
    prop::collection::btree_map(name(), prop::sample::select(vec!["1", "2"]), 1..3).prop_map(|map| json!(map))
}

/// The parts that pods and definitions have alike.
fn spec() -> BoxedStrategy<Value> {
    (
        some(volumes()),
        some(set("key")),
        some(map()),
        some(keyed("name", name().prop_map(|name| json!({"name": name})))),
        some(name()),
        some(set("conditionType")),
    )
        .prop_map(|(volumes, tolerations, selector, secrets, hostname, gates)| {
            object(vec![
                ("volumes", volumes),
                ("tolerations", tolerations),
                ("nodeSelector", selector),
                ("imagePullSecrets", secrets),
                ("hostname", hostname.map(Value::from)),
                ("readinessGates", gates),
            ])
        })
        .boxed()
}

fn pod() -> BoxedStrategy<Value> {
    let containers = keyed("name", container(true, prop::sample::select(vec!["app", "two", "a", "b"])));
    let inits = some(keyed("name", container(true, prop::sample::select(vec!["init", "c"]))));
    (containers, inits, spec(), some(map()), some(map()), some(any::<i64>()))
        .prop_map(|(containers, inits, mut spec, labels, annotations, invented)| {
            spec["containers"] = containers;
            if let Some(inits) = inits {
                spec["initContainers"] = inits;
            }
            spec["x-spec"] = json!({"kept": [1.5, null, {"~": "/"}]});
            let metadata = object(vec![
                ("labels", labels),
                ("annotations", annotations),
                ("x-m", invented.map(Value::from)),
            ]);
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "x-top": invented})
        })
        .boxed()
}

fn definition(index: usize) -> BoxedStrategy<Value> {
    let injected = some(keyed("name", container(false, name())));
    let inits = some(keyed("name", container(false, prop::sample::select(vec!["e", "c"]))));
    let patch = some((some(env()), some(mounts()), some(ports()), some(0..3)));
    let policy = prop::sample::select(vec!["Fail", "KeepPod", "Replace"]);
    let place = prop::sample::select(vec![
        json!("First"),
        json!("Last"),
        json!({"before": "app"}),
        json!({"after": "init"}),
    ]);
    (injected, inits, spec(), some(map()), patch, policy, place, -1..2).prop_map(
        move |(containers, inits, mut spec, annotations, patch, policy, place, order)| {
            if let Some(containers) = &containers {
                spec["containers"] = containers.clone();
            }
            if let Some(inits) = &inits {
                spec["initContainers"] = inits.clone();
            }
            spec["terminationGracePeriodSeconds"] = json!(60);
            // A mount without its volume would be refused when the definition is loaded.
            if json!([containers, inits, patch.as_ref().map(|patch| &patch.1)]).to_string().contains("mountPath") {
                let named = |name: &str, volume: &Value| volume["name"] == name;
                let mut volumes = spec["volumes"].as_array().cloned().unwrap_or_default();
                for name in ["a", "b", "c", "d"] {
                    if !volumes.iter().any(|volume| named(name, volume)) {
                        volumes.push(json!({"name": name, "emptyDir": {}}));
                    }
                }
                spec["volumes"] = json!(volumes);
            }
            let patches: Vec<_> = patch
                .map(|(env, mounts, ports, user)| {
                    object(vec![
                        ("env", env),
                        ("volumeMounts", mounts),
                        ("ports", ports),
                        ("securityContext", user.map(|user| json!({"runAsUser": user}))),
                    ])
                })
                .into_iter()
                .collect();
            json!({
                "apiVersion": "sidecar.me/v1alpha1", "kind": "ClusterSidecarDefinition", "metadata": {"name": format!("d{index}")},
                "spec": {
                    "selector": {"podSelector": {}}, "onConflict": policy, "order": order,
                    "placement": {"containers": place, "initContainers": place},
                    "inject": {"metadata": object(vec![("annotations", annotations)]), "spec": spec},
                    "patchContainers": patches,
                },
            })
        },
    )
    .boxed()
}

fn definitions() -> impl Strategy<Value = Vec<Value>> {
    prop_oneof![
        definition(0).prop_map(|one| vec![one]),
        (definition(0), definition(1)).prop_map(|(one, other)| vec![one, other]),
        (definition(0), definition(1), definition(2)).prop_map(|(one, two, three)| vec![one, two, three]),
    ]
}

/// Definitions that are refused when they are loaded (one name in two lists, say) are of no interest here; there must not be many.
fn engine(definitions: &[Value]) -> Option<Engine> {
    static COUNTS: [AtomicUsize; 2] = [AtomicUsize::new(0), AtomicUsize::new(0)];
    let found = compile(definitions);
    let [all, refused] = &COUNTS;
    let all = all.fetch_add(1, Ordering::Relaxed);
    let refused = refused.fetch_add(usize::from(found.is_none()), Ordering::Relaxed);
    assert!(all < 100 || refused * 2 < all, "{refused} of {all} were refused");
    found
}

fn compile(definitions: &[Value]) -> Option<Engine> {
    let compiled: Option<Vec<_>> =
        definitions.iter().map(|definition| Compiled::from_yaml(&definition.to_string()).ok()).collect();
    compiled.map(|compiled| Engine::new(compiled.into_iter().map(Arc::new).collect()))
}

fn inject<'e>(engine: &'e Engine, pod: &Value) -> Injection<'e> {
    engine.inject(&pod.to_string(), &Namespace::new("default", [], [])).unwrap()
}

/// By a library that is not ours.
fn apply(pod: &Value, injection: &Injection<'_>) -> Value {
    let mut after = pod.clone();
    let patch: json_patch::Patch = serde_json::from_str(&injection.patch.to_json("")).unwrap();
    json_patch::patch(&mut after, &patch).unwrap();
    after
}

fn reasons(injection: &Injection<'_>) -> Vec<(String, Reason)> {
    injection.decisions.iter().map(|decision| (decision.definition.to_string(), decision.reason)).collect()
}

/// What stands before must stand after, in the same order: items of a list perhaps with others between them, values of
/// a map unchanged. `replaced` says that values may differ, because an author wants them to.
fn survives(before: &Value, after: &Value, replaced: bool) -> Result<(), String> {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            for (key, value) in before {
                let found = after.get(key).ok_or_else(|| format!("{key} is gone"))?;
                // Fifty is the one default that the definitions here change.
                survives(value, found, replaced)?;
            }
            Ok(())
        }
        (Value::Array(before), Value::Array(after)) => {
            let mut rest = after.iter();
            for item in before {
                let same = |candidate: &&Value| {
                    let keys = ["name", "mountPath", "containerPort", "key", "conditionType"];
                    let key = keys.iter().find(|key| {
                        item.get(**key).is_some() && item.get("mountPath").is_none() || **key == "mountPath"
                    });
                    match key {
                        Some(key) => {
                            item.get(*key) == candidate.get(*key)
                                && item.get("protocol") == candidate.get("protocol")
                        }
                        None => item == *candidate,
                    }
                };
                let found =
                    rest.find(same).ok_or_else(|| format!("{item} is gone or has moved in {after:?}"))?;
                survives(item, found, replaced)?;
            }
            Ok(())
        }
        _ if before == after || replaced => Ok(()),
        _ => Err(format!("{before} has become {after}")),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn injecting_twice_is_injecting_once(definitions in definitions(), pod in pod()) {
        let Some(engine) = engine(&definitions) else { return Ok(()) };
        let first = inject(&engine, &pod);
        let after = apply(&pod, &first);
        let second = inject(&engine, &after);
        prop_assert!(second.patch.is_empty(), "{} and then {}", first.patch.to_json(""), second.patch.to_json(""));
        for (one, other) in reasons(&first).into_iter().zip(reasons(&second)) {
            let expected = if one.1 == Reason::Injected { Reason::AlreadyPresent } else { one.1 };
            // What one definition has added can make the other's complaint another one, but never no complaint.
            let still_missed = one.1 != Reason::Injected && one.1 != Reason::AlreadyPresent && other.1 != Reason::Injected;
            prop_assert!(other.1 == expected || still_missed, "{one:?} and then {other:?}");
        }
    }

    #[test]
    fn the_order_in_which_definitions_are_loaded_does_not_matter(definitions in definitions(), pod in pod()) {
        let mut reversed = definitions.clone();
        reversed.reverse();
        let (Some(one), Some(other)) = (engine(&definitions), engine(&reversed)) else { return Ok(()) };
        prop_assert_eq!(inject(&one, &pod).patch.to_json(""), inject(&other, &pod).patch.to_json(""));
        prop_assert_eq!(inject(&one, &pod).patch.to_json(""), inject(&one, &pod).patch.to_json(""), "deterministic");
    }

    #[test]
    fn what_the_pod_has_survives_in_its_order(definitions in definitions(), pod in pod()) {
        let Some(engine) = engine(&definitions) else { return Ok(()) };
        let injection = inject(&engine, &pod);
        let after = apply(&pod, &injection);
        let replaces = definitions.iter().any(|definition| definition["spec"]["onConflict"] == "Replace");
        if replaces {
            // Whole items are replaced then; outside them everything has to be there still.
            prop_assert_eq!(&after["x-top"], &pod["x-top"]);
            prop_assert_eq!(&after["spec"]["x-spec"], &pod["spec"]["x-spec"]);
            prop_assert_eq!(after["metadata"].get("labels"), pod["metadata"].get("labels"));
        } else {
            let survived = survives(&pod, &after, false);
            prop_assert!(survived.is_ok(), "{survived:?} with {}", injection.patch.to_json(""));
        }
    }

    #[test]
    fn a_definition_is_applied_wholly_or_not_at_all(definition in definition(0), pod in pod()) {
        let Some(engine) = engine(std::slice::from_ref(&definition)) else { return Ok(()) };
        let injection = inject(&engine, &pod);
        let applied = injection.decisions[0].reason == Reason::Injected;
        prop_assert_eq!(applied, !injection.patch.is_empty());
        if applied {
            let after = apply(&pod, &injection);
            let names = |list: &str| -> Vec<Value> {
                after["spec"][list].as_array().into_iter().flatten().map(|container| container["name"].clone()).collect()
            };
            let all = [names("containers"), names("initContainers")].concat();
            for list in ["containers", "initContainers"] {
                for container in definition["spec"]["inject"]["spec"][list].as_array().into_iter().flatten() {
                    prop_assert!(all.contains(&container["name"]), "{} is missing", container["name"]);
                }
            }
            for mount in ["containers", "initContainers"].iter().flat_map(|list| after["spec"][list].as_array().into_iter().flatten()) {
                let own = |name: &Value| !definition.to_string().contains(&name.to_string());
                for used in mount["volumeMounts"].as_array().into_iter().flatten() {
                    let there = after["spec"]["volumes"].as_array().into_iter().flatten().any(|volume| volume["name"] == used["name"]);
                    prop_assert!(there || own(&used["name"]) || pod.to_string().contains(&used.to_string()), "{used} has no volume");
                }
            }
        }
    }

    #[test]
    fn the_patch_does_not_grow_with_the_pod(definitions in definitions(), pod in pod(), size in 1_usize..200) {
        let Some(engine) = engine(&definitions) else { return Ok(()) };
        let mut large = pod.clone();
        large["spec"]["x-large"] = (0..size).map(|index| json!({"n": index})).collect();
        large["spec"]["containers"][0]["x-large"] = json!("x".repeat(size * 10));
        prop_assert_eq!(inject(&engine, &pod).patch.to_json(""), inject(&engine, &large).patch.to_json(""));
    }
}
