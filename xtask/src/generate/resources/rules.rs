//! What the API server checks by itself, with a sentence for each rule: the plainest mistakes are refused also while no injector runs.
//! Everything else is the injector's to say.

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// Adds the rules of a kind to the schema of its objects, and the limits without which the API server cannot bound what rules cost.
pub(super) fn add(object: &mut Value, is_namespaced: bool) -> Result<()> {
    limit(object)?;
    rules(
        object,
        "",
        &[
            rule(
                "self.metadata.name.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$')",
                "the name must be lower-case letters, digits and inner hyphens, 63 at most: it stands in annotations of pods",
            ),
            rule(
                "self.metadata.name != 'true' && self.metadata.name != 'false'",
                "the names true and false are values of sidecar.me/inject",
            ),
        ],
    )?;
    // The fields of `inject`, and `minimum` and `maximum` below, have no type that a structural schema could name. For such a field a rule
    // does not compile; behind `dyn` it is looked for when the rule runs.
    rules(
        object,
        "/properties/spec",
        &[rule(
            "has(self.inject) && (has(dyn(self.inject).metadata) || has(dyn(self.inject).spec)) \
             || has(self.patchContainers) && self.patchContainers.size() > 0",
            "nothing is injected: set inject, patchContainers, or both",
        )],
    )?;
    let mut of_selector = vec![rule(
        "!(has(self.byName) && self.byName == 'Only' && has(self.podSelector))",
        "byName: Only selects nobody, so it goes without podSelector",
    )];
    if is_namespaced {
        of_selector.push(rule(
            "!has(self.namespaceSelector)",
            "a SidecarDefinition is for the pods of its own namespace: it has no namespaceSelector",
        ));
    }
    rules(object, "/properties/spec/properties/selector", &of_selector)?;
    rules(
        object,
        "/properties/spec/properties/parameters/items",
        &[
            rule(
                "self.name.matches('^[A-Za-z][A-Za-z0-9_]*$')",
                "the name of a parameter is letters, digits and _, a letter first: it stands in expressions",
            ),
            rule(
                "!has(self.pattern) || !has(self.type) || self.type == 'string'",
                "pattern is for parameters of the type string",
            ),
            rule(
                "!(has(dyn(self).minimum) || has(dyn(self).maximum)) \
                 || has(self.type) && self.type in ['integer', 'number', 'quantity']",
                "minimum and maximum are for parameters of the types integer, number and quantity",
            ),
        ],
    )
}

fn rule(expression: &str, message: &str) -> Value {
    json!({"rule": expression, "message": message})
}

fn rules(object: &mut Value, pointer: &str, rules: &[Value]) -> Result<()> {
    let place = object.pointer_mut(pointer).with_context(|| format!("the schema has no {pointer}"))?;
    place["x-kubernetes-validations"] = json!(rules);
    Ok(())
}

/// Also the keys by which lists are merged.
fn limit(object: &mut Value) -> Result<()> {
    let by_name =
        json!({"maxItems": 64, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]});
    for (pointer, limits) in [
        ("parameters", by_name.clone()),
        ("parameters/items/properties/name", json!({"maxLength": 63})),
        ("parameters/items/properties/pattern", json!({"maxLength": 1024})),
        ("patchContainers", json!({"maxItems": 64})),
        ("selector/properties/matchConditions", by_name),
        ("selector/properties/matchConditions/items/properties/name", json!({"maxLength": 63})),
        ("selector/properties/matchConditions/items/properties/expression", json!({"maxLength": 4096})),
    ] {
        let pointer = format!("/properties/spec/properties/{pointer}");
        let place = object.pointer_mut(&pointer).with_context(|| format!("the schema has no {pointer}"))?;
        for (key, value) in limits.as_object().into_iter().flatten() {
            place[key] = value.clone();
        }
    }
    Ok(())
}
