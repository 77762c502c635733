//! How each field of a pod is merged: one table, the same that docs/definitions.md shows.
//!
//! The keys of lists are those of server-side apply (`+listMapKey` in kubernetes/api core/v1/types.go), where the lists
//! have any; lists without keys that mean a set are merged as one. A field that is not in the table is one value.

use crate::json::Json;

/// How one field is merged with what the pod has there. What is absent is always added.
#[derive(Debug)]
pub(crate) enum Rule {
    /// One value: the same, or a conflict.
    Value,
    /// One value, which Kubernetes sets when nobody does. Its default (as JSON) counts as absent.
    Defaulted(&'static str),
    /// One value; admission plugins have worked out others from it, which are cleared when it changes.
    Clears(&'static [&'static str]),
    /// A map: field by field. Those that are not named are values.
    Fields(&'static [(&'static str, Rule)]),
    /// A map whose entries are never replaced, because controllers select by them.
    Labels,
    /// A list with keys: an item with new keys is appended; with known keys it is merged by its own rule.
    Keyed(&'static [&'static str], &'static Rule),
    /// A list in which order does not matter: what is not there is appended.
    Set,
    /// Containers: by name, which must be free in all three lists, and at the place that the definition says.
    Containers,
}

impl Rule {
    /// Whether a value has nothing in it to be merged: expressions that gave `null` have left all of it out.
    pub(super) fn is_empty(&self, wanted: &Json<'_>) -> bool {
        match self {
            Rule::Fields(_) | Rule::Labels => wanted.fields().is_some_and(|fields| {
                fields.iter().all(|(key, value)| value.is_null() || self.of(key).is_empty(value))
            }),
            Rule::Keyed(..) | Rule::Set => wanted.items().is_some_and(<[_]>::is_empty),
            _ => false,
        }
    }

    /// The rule for a field of a map.
    pub(crate) fn of(&self, field: &str) -> &Rule {
        match self {
            Rule::Fields(fields) => {
                fields.iter().find(|(name, _)| *name == field).map_or(&Rule::Value, |(_, rule)| rule)
            }
            _ => &Rule::Value,
        }
    }
}

use Rule::{Clears, Containers, Defaulted, Fields, Keyed, Labels, Set, Value};

const MAP: Rule = Fields(&[]);

const RESOURCES: Rule = Fields(&[("limits", MAP), ("requests", MAP), ("claims", Keyed(&["name"], &Value))]);

/// A pod, as far as anything can be injected into it.
pub(crate) static POD: Rule = Fields(&[
    ("metadata", Fields(&[("labels", Labels), ("annotations", MAP)])),
    (
        "spec",
        Fields(&[
            ("containers", Containers),
            ("initContainers", Containers),
            ("volumes", Keyed(&["name"], &Value)),
            ("imagePullSecrets", Keyed(&["name"], &Value)),
            ("hostAliases", Keyed(&["ip"], &Fields(&[("hostnames", Set)]))),
            ("topologySpreadConstraints", Keyed(&["topologyKey", "whenUnsatisfiable"], &Value)),
            ("schedulingGates", Keyed(&["name"], &Value)),
            ("resourceClaims", Keyed(&["name"], &Value)),
            ("evictionResponders", Keyed(&["name"], &Value)),
            ("tolerations", Set),
            ("readinessGates", Set),
            ("nodeSelector", MAP),
            ("overhead", MAP),
            (
                "dnsConfig",
                Fields(&[("nameservers", Set), ("searches", Set), ("options", Keyed(&["name"], &Value))]),
            ),
            (
                "affinity",
                Fields(&[
                    // Required node terms are alternatives: another one would let the pod run where it must not.
                    ("nodeAffinity", Fields(&[("preferredDuringSchedulingIgnoredDuringExecution", Set)])),
                    ("podAffinity", POD_AFFINITY),
                    ("podAntiAffinity", POD_AFFINITY),
                ]),
            ),
            (
                "securityContext",
                Fields(&[("supplementalGroups", Set), ("sysctls", Keyed(&["name"], &Value))]),
            ),
            ("resources", RESOURCES),
            ("restartPolicy", Defaulted("\"Always\"")),
            ("dnsPolicy", Defaulted("\"ClusterFirst\"")),
            ("schedulerName", Defaulted("\"default-scheduler\"")),
            ("terminationGracePeriodSeconds", Defaulted("30")),
            ("enableServiceLinks", Defaulted("true")),
            ("serviceAccountName", Defaulted("\"default\"")),
            // Set by the plugins Priority and RuntimeClass before us, and refused by them when they do not fit
            // (plugin/pkg/admission/priority, plugin/pkg/admission/runtimeclass).
            ("priorityClassName", Clears(&["priority", "preemptionPolicy"])),
            ("runtimeClassName", Clears(&["overhead"])),
        ]),
    ),
]);

/// Required terms must all hold: another one narrows, which is what its author wants.
const POD_AFFINITY: Rule = Fields(&[
    ("requiredDuringSchedulingIgnoredDuringExecution", Set),
    ("preferredDuringSchedulingIgnoredDuringExecution", Set),
]);

/// One of the pod's own containers.
pub(crate) static CONTAINER: Rule = Fields(&[
    ("env", Keyed(&["name"], &Value)),
    ("envFrom", Set),
    ("volumeMounts", Keyed(&["mountPath"], &Value)),
    ("volumeDevices", Keyed(&["devicePath"], &Value)),
    ("ports", Keyed(&["containerPort", "protocol"], &Value)),
    ("resources", RESOURCES),
    ("resizePolicy", Keyed(&["resourceName"], &Value)),
    ("securityContext", Fields(&[("capabilities", Fields(&[("add", Set), ("drop", Set)]))])),
    ("lifecycle", MAP),
    ("terminationMessagePath", Defaulted("\"/dev/termination-log\"")),
    ("terminationMessagePolicy", Defaulted("\"File\"")),
]);

#[cfg(test)]
mod tests {
    use super::*;

    /// Each field of the table, with the word that the documentation must use for it.
    fn collect(rule: &'static Rule, rows: &mut Vec<(&'static str, Vec<&'static str>)>) {
        let Fields(fields) = rule else { return };
        for (name, rule) in *fields {
            let words = match rule {
                Keyed(keys, _) => keys.to_vec(),
                Set => vec!["set"],
                Defaulted(_) => vec!["default counts as absent"],
                Clears(fields) => fields.to_vec(),
                Containers => vec!["`name`"],
                Value | Labels | Fields(_) => vec![],
            };
            rows.push((name, words));
            collect(rule, rows);
        }
    }

    #[test]
    fn the_documentation_has_the_same_table() {
        let page = include_str!("../../../../docs/definitions.md");
        let (_, table) = page.split_once("## How things are merged").unwrap();
        let (table, _) = table.split_once("`onConflict` says").unwrap();
        let mut rows = Vec::new();
        collect(&POD, &mut rows);
        collect(&CONTAINER, &mut rows);
        for (field, words) in rows {
            // Long names of affinity are told in words.
            if matches!(field, "metadata" | "spec") || field.contains("DuringScheduling") {
                continue;
            }
            // `capabilities.add` stands in one word.
            let of_field = |line: &&str| {
                line.contains(&format!("`{field}`"))
                    || line.contains(&format!(".{field}`"))
                    || line.contains(&format!("`{field}."))
            };
            let described =
                table.lines().filter(of_field).any(|line| words.iter().all(|word| line.contains(word)));
            assert!(described, "{field} with {words:?}");
        }
    }
}
