//! "Already there" means contained: every field that would be written is there with the same meaning.
//!
//! Between two calls for one pod the API server has defaulted, added to and re-encoded what was injected: token
//! mounts appear, `0.5` comes back as `500m`, empty lists and zero values are gone. None of that is a difference.

use serde_json::{Map, Value};

use crate::quantity::Quantity;
use crate::view::RawObject;

/// Whether the object that is there contains every wanted field.
pub(super) fn object(wanted: &Map<String, Value>, existing: &RawObject<'_>) -> bool {
    wanted.iter().all(|(key, wanted)| {
        // Only the fields that are wanted are decoded.
        let existing = existing.get(key).and_then(|raw| serde_json::from_str(raw.get()).ok());
        value(wanted, existing.as_ref(), Place::CONTAINER.field(key))
    })
}

/// What the place in a container says about comparing below it.
#[derive(Debug, Clone, Copy)]
struct Place<'k> {
    field: &'k str,
    /// Below `resources`: strings and numbers are quantities.
    quantities: bool,
    /// Below `securityContext`: an absent boolean or number is not the zero value but the pod's or the image's.
    inherits: bool,
}

impl<'k> Place<'k> {
    const CONTAINER: Place<'static> = Place { field: "", quantities: false, inherits: false };

    fn field(self, key: &'k str) -> Self {
        Place {
            field: key,
            quantities: self.quantities || matches!(key, "limits" | "requests" | "sizeLimit" | "divisor"),
            inherits: self.inherits || key == "securityContext",
        }
    }

    /// Whether the API server puts its default in the place of a zero value (pkg/apis/core/v1/defaults.go).
    fn has_default(self) -> bool {
        matches!(
            self.field,
            "imagePullPolicy"
                | "terminationMessagePath"
                | "terminationMessagePolicy"
                | "protocol"
                | "periodSeconds"
                | "timeoutSeconds"
                | "successThreshold"
                | "failureThreshold"
        )
    }

    /// The field by which Kubernetes tells the items of this list apart, for its default value see [`key_of`].
    fn keys(self) -> &'static [&'static str] {
        match self.field {
            "env" => &["name"],
            "ports" => &["containerPort", "protocol"],
            "volumeMounts" => &["mountPath"],
            "volumeDevices" => &["devicePath"],
            _ => &[],
        }
    }
}

fn value(wanted: &Value, existing: Option<&Value>, place: Place<'_>) -> bool {
    let Some(existing) = existing else { return is_dropped_when_encoded(wanted, place) };
    match (wanted, existing) {
        (Value::Object(wanted), Value::Object(existing)) => {
            wanted.iter().all(|(key, wanted)| value(wanted, existing.get(key), place.field(key)))
        }
        (Value::Array(wanted), Value::Array(existing)) => list(wanted, existing, place),
        (Value::String(_) | Value::Number(_), Value::String(_) | Value::Number(_)) if place.quantities => {
            wanted == existing || same_quantity(wanted, existing)
        }
        (Value::Number(wanted), Value::Number(existing)) => {
            let has_fraction = wanted.is_f64() || existing.is_f64();
            wanted == existing
                || (has_fraction && wanted.as_f64() == existing.as_f64())
                || (wanted.as_f64() == Some(0.0) && place.has_default())
        }
        (Value::String(wanted), Value::String(existing)) => same_text(wanted, existing, place),
        (wanted, existing) => {
            wanted == existing || (existing.is_null() && is_dropped_when_encoded(wanted, place))
        }
    }
}

fn list(wanted: &[Value], existing: &[Value], place: Place<'_>) -> bool {
    let keys = place.keys();
    if keys.is_empty() {
        // Commands, arguments and the like mean something as a whole.
        return wanted.len() == existing.len()
            && wanted.iter().zip(existing).all(|(wanted, existing)| value(wanted, Some(existing), place));
    }
    wanted.iter().all(|wanted| {
        // Of two with one key the last counts, as in a container's environment.
        let same = existing
            .iter()
            .rev()
            .find(|existing| keys.iter().all(|key| key_of(wanted, key) == key_of(existing, key)));
        same.is_some_and(|existing| value(wanted, Some(existing), place))
    })
}

/// Strings that others may have changed without changing what was wanted.
fn same_text(wanted: &str, existing: &str, place: Place<'_>) -> bool {
    match place.field {
        _ if wanted == existing => true,
        // The plugin AlwaysPullImages makes every policy `Always`.
        "imagePullPolicy" => wanted.is_empty() || existing == "Always",
        // Mirrors of registries put their name in front.
        "image" => {
            let short = |image: &str| image.strip_prefix("docker.io/").unwrap_or(image).to_owned();
            let (wanted, existing) = (short(wanted), short(existing));
            wanted == existing
                || existing.strip_suffix(wanted.as_str()).is_some_and(|mirror| mirror.ends_with('/'))
        }
        _ => wanted.is_empty() && place.has_default(),
    }
}

/// The value of a list key; an absent protocol is TCP.
fn key_of<'v>(item: &'v Value, key: &str) -> Option<&'v Value> {
    item.get(key).filter(|value| !(key == "protocol" && *value == "TCP"))
}

/// Whether the API server, which leaves empty and zero values out when it encodes a pod, would not show this value.
fn is_dropped_when_encoded(wanted: &Value, place: Place<'_>) -> bool {
    match wanted {
        Value::Null => true,
        Value::String(text) => text.is_empty() || (place.field == "protocol" && text == "TCP"),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(flag) => !flag && !place.inherits && place.field != "optional",
        Value::Number(number) => {
            number.as_f64() == Some(0.0) && !place.inherits && place.field != "terminationGracePeriodSeconds"
        }
    }
}

fn same_quantity(wanted: &Value, existing: &Value) -> bool {
    let quantity = |value: &Value| match value {
        Value::String(text) => Quantity::parse(text),
        other => Quantity::parse(&other.to_string()),
    };
    matches!((quantity(wanted), quantity(existing)), (Some(wanted), Some(existing)) if wanted == existing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::Node;

    fn contained(wanted: &str, existing: &str) -> bool {
        let wanted = crate::yaml::to_json(wanted).unwrap();
        let existing = crate::yaml::to_json(existing).unwrap();
        let Ok(Node::Present(existing)) = serde_json::from_str(&existing) else { panic!("an object") };
        object(&serde_json::from_str(&wanted).unwrap(), &existing)
    }

    #[test]
    fn what_others_add_does_not_matter() {
        assert!(contained(
            "{name: a, image: b}",
            "{name: a, image: b, terminationMessagePath: /dev/termination-log}"
        ));
        assert!(contained(
            "{volumeMounts: [{name: a, mountPath: /a}]}",
            "{volumeMounts: [{name: t, mountPath: /var/run/secrets}, {name: a, mountPath: /a, recursiveReadOnly: Disabled}]}"
        ));
        assert!(!contained("{name: a, image: b}", "{name: a, image: c}"));
        assert!(!contained("{command: [a]}", "{command: [a, b]}"));
        assert!(!contained("{command: [a]}", "{}"));
    }

    #[test]
    fn lists_with_keys_are_compared_item_by_item() {
        for (list, item) in [
            ("env", "{name: a, value: b}"),
            ("ports", "{containerPort: 1}"),
            ("volumeMounts", "{name: a, mountPath: /a}"),
            ("volumeDevices", "{name: a, devicePath: /a}"),
        ] {
            let other = "{name: o, value: o, containerPort: 2, mountPath: /o, devicePath: /o}";
            let wanted = format!("{{{list}: [{item}]}}");
            assert!(contained(&wanted, &format!("{{{list}: [{other}, {item}]}}")), "{list}");
            assert!(!contained(&wanted, &format!("{{{list}: [{other}]}}")), "{list}");
        }
    }

    #[test]
    fn numbers_and_booleans_are_compared_by_value() {
        for (wanted, existing, same) in [
            ("1", "1", true),
            ("1", "1.0", true),
            ("1.0", "1", true),
            ("1", "2", false),
            ("1.5", "2.5", false),
            ("1.5", "1", false),
            // One number to anybody who counts in floating point.
            ("9007199254740993", "9007199254740992", false),
            ("true", "true", true),
            ("true", "false", false),
            ("true", "null", false),
            ("false", "null", true),
            ("true", "'true'", false),
        ] {
            assert_eq!(
                contained(&format!("{{x: {wanted}}}"), &format!("{{x: {existing}}}")),
                same,
                "{wanted} {existing}"
            );
        }
    }

    #[test]
    fn quantities_are_compared_by_value() {
        assert!(contained(
            "{resources: {limits: {cpu: 0.5, memory: 1024Mi}}}",
            "{resources: {limits: {cpu: 500m, memory: 1Gi}}}"
        ));
        assert!(!contained("{resources: {limits: {cpu: 0.5}}}", "{resources: {limits: {cpu: 600m}}}"));
    }

    #[test]
    fn an_absent_protocol_is_tcp() {
        assert!(contained("{ports: [{containerPort: 53}]}", "{ports: [{containerPort: 53, protocol: TCP}]}"));
        assert!(contained("{ports: [{containerPort: 53, protocol: TCP}]}", "{ports: [{containerPort: 53}]}"));
        assert!(!contained(
            "{ports: [{containerPort: 53, protocol: UDP}]}",
            "{ports: [{containerPort: 53}]}"
        ));
        assert!(!contained(
            "{ports: [{containerPort: 53}]}",
            "{ports: [{containerPort: 53, protocol: UDP}]}"
        ));
    }

    #[test]
    fn defaults_in_the_place_of_zero_values_are_no_difference() {
        assert!(contained("{imagePullPolicy: ''}", "{imagePullPolicy: Always}"));
        assert!(contained("{terminationMessagePath: ''}", "{terminationMessagePath: /dev/termination-log}"));
        assert!(contained("{livenessProbe: {periodSeconds: 0}}", "{livenessProbe: {periodSeconds: 10}}"));
        assert!(!contained("{livenessProbe: {periodSeconds: 5}}", "{livenessProbe: {periodSeconds: 10}}"));
        assert!(!contained("{env: [{name: A, value: ''}]}", "{env: [{name: A, value: b}]}"));
    }

    #[test]
    fn what_admission_plugins_and_registry_mirrors_rewrite_is_no_difference() {
        assert!(contained("{imagePullPolicy: IfNotPresent}", "{imagePullPolicy: Always}"));
        assert!(!contained("{imagePullPolicy: Always}", "{imagePullPolicy: Never}"));
        assert!(contained("{image: a/b:1}", "{image: 'mirror.example.com/cache/a/b:1'}"));
        assert!(contained("{image: 'docker.io/a/b:1'}", "{image: 'a/b:1'}"));
        assert!(!contained("{image: a/b:1}", "{image: 'a/b:2'}"));
        assert!(!contained("{image: b:1}", "{image: 'example.com/ab:1'}"));
    }

    #[test]
    fn the_last_of_two_variables_of_one_name_counts() {
        assert!(contained(
            "{env: [{name: A, value: b}]}",
            "{env: [{name: A, value: a}, {name: A, value: b}]}"
        ));
        assert!(!contained(
            "{env: [{name: A, value: a}]}",
            "{env: [{name: A, value: a}, {name: A, value: b}]}"
        ));
    }

    #[test]
    fn zero_values_that_the_api_server_leaves_out_are_no_difference() {
        assert!(contained(
            "{stdin: false, args: [], workingDir: '', env: [{name: A, value: ''}]}",
            "{env: [{name: A}]}"
        ));
        assert!(contained(
            "{livenessProbe: {initialDelaySeconds: 0}}",
            "{livenessProbe: {periodSeconds: 10}}"
        ));
        assert!(!contained("{securityContext: {runAsNonRoot: false}}", "{securityContext: {}}"));
        assert!(!contained("{securityContext: {runAsUser: 0}}", "{securityContext: {}}"));
        assert!(!contained("{tty: true}", "{}"));
        assert!(!contained("{env: [{name: A, value: TCP}]}", "{env: [{name: A}]}"));
    }
}
