//! "Already there" means contained: every field that would be written is there with the same meaning.
//!
//! Between two calls for one pod the API server has defaulted, added to and re-encoded what was injected: token
//! mounts appear, `0.5` comes back as `500m`, empty lists and zero values are gone. None of that is a difference.

use crate::json::Json;
use crate::quantity::Quantity;

/// Whether the value that is there contains everything that is wanted; `field` is the name of the field that it is in.
pub(crate) fn value(wanted: &Json<'_>, existing: Option<&Json<'_>>, place: Place<'_>) -> bool {
    let existing = existing.map(Json::resolve);
    let Some(existing) = existing.as_deref().filter(|existing| !existing.is_null()) else {
        return is_dropped_when_encoded(wanted, place);
    };
    match (&*wanted.resolve(), existing) {
        (wanted @ Json::Object(_), existing) if place.field == "env" && !same_kind(wanted, existing) => false,
        (Json::Object(wanted), existing @ Json::Object(_)) => {
            wanted.iter().all(|(key, wanted)| value(wanted, existing.get(key), place.field(key)))
        }
        (Json::List(wanted), Json::List(existing)) => list(wanted, existing, place),
        (wanted @ (Json::Text(_) | Json::Number(_)), existing @ (Json::Text(_) | Json::Number(_)))
            if place.quantities =>
        {
            same_scalar(wanted, existing) || same_quantity(wanted, existing)
        }
        (wanted @ Json::Number(number), existing @ Json::Number(_)) => {
            same_scalar(wanted, existing) || (number.as_f64() == Some(0.0) && place.has_default())
        }
        (Json::Text(wanted), Json::Text(existing)) => same_text(wanted, existing, place),
        (wanted, existing) => same_scalar(wanted, existing),
    }
}

/// Whether two values mean the same: for items of sets, of which a narrower one is not there because a wider one is. What the
/// API server leaves out or writes in another way is no difference.
pub(crate) fn same(one: &Json<'_>, other: &Json<'_>, place: Place<'_>) -> bool {
    value(one, Some(other), place) && value(other, Some(one), place)
}

/// The first field of an object that is not contained, for messages.
pub(crate) fn first_difference<'w>(
    wanted: &'w Json<'_>,
    existing: &Json<'_>,
    place: Place<'_>,
) -> Option<&'w str> {
    let differs = |(key, wanted): &&(std::borrow::Cow<'w, str>, Json<'w>)| {
        !value(wanted, existing.resolve().get(key), place.field(key))
    };
    wanted.fields()?.iter().find(differs).map(|(key, _)| &**key)
}

/// What the place in a pod says about comparing below it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'k> {
    field: &'k str,
    /// Below `resources`: strings and numbers are quantities.
    quantities: bool,
    /// Below `securityContext`: an absent boolean or number is not the zero value but the pod's or the image's.
    inherits: bool,
}

impl Place<'_> {
    pub(crate) const TOP: Place<'static> = Place { field: "", quantities: false, inherits: false };

    pub(crate) fn field(self, key: &str) -> Place<'_> {
        Place {
            field: key,
            quantities: self.quantities
                || matches!(key, "limits" | "requests" | "overhead" | "sizeLimit" | "divisor"),
            inherits: self.inherits || key == "securityContext",
        }
    }

    /// The same place, independent of the text that its name is in.
    pub(crate) fn without_field(self) -> Place<'static> {
        Place { field: "", quantities: self.quantities, inherits: self.inherits }
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

    /// The fields by which Kubernetes tells the items of this list apart, for their default values see [`key_of`].
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

fn list(wanted: &[Json<'_>], existing: &[Json<'_>], place: Place<'_>) -> bool {
    let keys = place.keys();
    if keys.is_empty() {
        // Commands, arguments and the like mean something as a whole.
        return wanted.len() == existing.len()
            && wanted.iter().zip(existing).all(|(wanted, existing)| value(wanted, Some(existing), place));
    }
    wanted.iter().all(|wanted| {
        let same = find(existing, wanted, keys).and_then(|at| existing.get(at));
        same.is_some_and(|existing| value(wanted, Some(existing), place))
    })
}

/// Where the item with the keys of the wanted one is. Of two the last counts, as in a container's environment.
pub(crate) fn find(items: &[Json<'_>], wanted: &Json<'_>, keys: &[&str]) -> Option<usize> {
    items.iter().rposition(|item| keys.iter().all(|key| same_key(wanted, item, key)))
}

/// Whether two items have the same value of a key; an absent protocol is TCP.
fn same_key(one: &Json<'_>, other: &Json<'_>, key: &str) -> bool {
    fn of<'a>(item: &Json<'a>, key: &str) -> Option<Json<'a>> {
        item.field(key).filter(|value| !(key == "protocol" && value.text().as_deref() == Some("TCP")))
    }
    match (of(one, key), of(other, key)) {
        (Some(one), Some(other)) => same_scalar(&one.resolve(), &other.resolve()),
        (None, None) => true,
        _ => false,
    }
}

/// Strings that others may have changed without changing what was wanted.
fn same_text(wanted: &str, existing: &str, place: Place<'_>) -> bool {
    match place.field {
        _ if wanted == existing => true,
        // The plugin AlwaysPullImages makes every policy `Always`.
        "imagePullPolicy" => wanted.is_empty() || existing == "Always",
        // Mirrors of registries put their name in front.
        "image" => is_same_image(wanted, existing),
        _ => wanted.is_empty() && place.has_default(),
    }
}

/// Whether an image is the wanted one, or a mirror's.
pub(crate) fn is_same_image(wanted: &str, existing: &str) -> bool {
    let short = |image: &str| image.strip_prefix("docker.io/").unwrap_or(image).to_owned();
    let (wanted, existing) = (short(wanted), short(existing));
    wanted == existing || existing.strip_suffix(wanted.as_str()).is_some_and(|mirror| mirror.ends_with('/'))
}

/// Equality of what is neither list nor map; numbers by value.
fn same_scalar(one: &Json<'_>, other: &Json<'_>) -> bool {
    match (one, other) {
        (Json::Bool(one), Json::Bool(other)) => one == other,
        (Json::Text(one), Json::Text(other)) => one == other,
        (Json::Null, Json::Null) => true,
        (Json::Number(one), Json::Number(other)) => {
            one == other || ((one.is_f64() || other.is_f64()) && one.as_f64() == other.as_f64())
        }
        _ => false,
    }
}

/// Whether the API server, which leaves empty and zero values out when it encodes a pod, would not show this value.
fn is_dropped_when_encoded(wanted: &Json<'_>, place: Place<'_>) -> bool {
    match &*wanted.resolve() {
        Json::Null => true,
        Json::Text(text) => text.is_empty() || (place.field == "protocol" && text == "TCP"),
        Json::List(items) => items.is_empty(),
        // A map, or a struct that is always there; anywhere else `{}` says something, as in `emptyDir: {}`.
        Json::Object(fields) => {
            fields.is_empty()
                && matches!(
                    place.field,
                    "resources"
                        | "limits"
                        | "requests"
                        | "labels"
                        | "annotations"
                        | "nodeSelector"
                        | "matchLabels"
                        | "volumeAttributes"
                        | "options"
                )
        }
        Json::Bool(flag) => !flag && !place.inherits && place.field != "optional",
        // At once, and in no hurry.
        Json::Number(number) => {
            let is_said = matches!(place.field, "terminationGracePeriodSeconds" | "tolerationSeconds");
            number.as_f64() == Some(0.0) && !place.inherits && !is_said
        }
        Json::Raw(_) | Json::Shared(_) => false,
    }
}

/// Whether both variables have the same value of their own, where none is the empty one, or both take it from somewhere.
fn same_kind(wanted: &Json<'_>, existing: &Json<'_>) -> bool {
    let is_taken = |variable: &Json<'_>| variable.get("valueFrom").is_some();
    match (is_taken(wanted), is_taken(existing)) {
        (false, false) => {
            let value = |variable: &Json<'_>| variable.text_of("value").unwrap_or_default().into_owned();
            value(wanted) == value(existing)
        }
        (wanted, existing) => wanted == existing,
    }
}

fn same_quantity(wanted: &Json<'_>, existing: &Json<'_>) -> bool {
    let quantity = |value: &Json<'_>| match value {
        Json::Text(text) => Quantity::parse(text),
        other => Quantity::parse(&other.to_string()),
    };
    matches!((quantity(wanted), quantity(existing)), (Some(wanted), Some(existing)) if wanted == existing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contained(wanted: &str, existing: &str) -> bool {
        let wanted = crate::yaml::to_json(wanted).unwrap();
        let existing = crate::yaml::to_json(existing).unwrap();
        let existing = Json::read(&existing, &crate::json::Plan::Open).unwrap();
        value(&Json::parse(&wanted).unwrap(), Some(&existing), Place::TOP)
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
    fn an_empty_map_is_a_value_where_it_says_something() {
        assert!(!contained("{name: v, emptyDir: {}}", "{name: v, configMap: {name: c}}"));
        assert!(contained("{name: v, emptyDir: {}}", "{name: v, emptyDir: {}}"));
        assert!(contained("{resources: {}}", "{name: v}"));
        assert!(contained("{resources: {limits: {}}}", "{resources: {}}"));
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
