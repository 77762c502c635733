//! As written → compiled: everything about a definition that can be settled before the first pod arrives.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::{
    API_VERSION, ByName, Definition, DefinitionSpec, FailurePolicy, Kind, LabelSelector, OnConflict,
    Placement,
};
use crate::error::DefinitionError;
use crate::yaml;

/// A definition that is ready to be applied: checked, and rendered as far as it does not depend on a pod.
#[derive(Debug)]
pub struct Compiled {
    pub(crate) name: String,
    pub(crate) order: i32,
    pub(crate) required: bool,
    pub(crate) failure_policy: FailurePolicy,
    /// Absent: the pod asks by label.
    pub(crate) pod_selector: Option<LabelSelector>,
    pub(crate) containers: Vec<ContainerFragment>,
}

/// One container to add.
#[derive(Debug)]
pub(crate) struct ContainerFragment {
    pub(crate) name: String,
    /// As JSON text, its fields in the order in which the author wrote them.
    pub(crate) text: Box<RawValue>,
    /// The same, for comparing.
    pub(crate) fields: Map<String, Value>,
}

impl Compiled {
    /// Reads one definition from YAML (or JSON) text and settles all that does not depend on a pod.
    ///
    /// # Errors
    /// The text is not YAML, has a field that a definition does not have, or asks for what this version cannot do.
    pub fn from_yaml(text: &str) -> Result<Self, DefinitionError> {
        let definition: Definition = yaml::parse(text)?;
        let written: Written = serde_json::from_str(&yaml::to_json(text)?)
            .map_err(|error| DefinitionError::invalid("spec", error.to_string()))?;
        Self::new(definition, written.spec.inject.spec.containers)
    }

    /// The definition's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn new(definition: Definition, texts: Vec<Box<RawValue>>) -> Result<Self, DefinitionError> {
        let Definition { api_version, kind, metadata, spec } = definition;
        if api_version != API_VERSION {
            return Err(DefinitionError::invalid(
                "apiVersion",
                format!("is {api_version:?}, must be {API_VERSION:?}"),
            ));
        }
        if kind == Kind::SidecarDefinition {
            return Err(DefinitionError::unsupported(
                "kind",
                "SidecarDefinition; use ClusterSidecarDefinition",
            ));
        }
        if metadata.namespace.is_some() {
            return Err(DefinitionError::invalid(
                "metadata.namespace",
                "a ClusterSidecarDefinition has none",
            ));
        }
        dns_label("metadata.name", &metadata.name)?;
        let DefinitionSpec {
            selector,
            parameters,
            inject,
            patch_containers,
            placement,
            order,
            on_conflict,
            required,
            failure_policy,
        } = spec;
        for (path, is_used) in [
            ("spec.selector.namespaceSelector", selector.namespace_selector.is_some()),
            ("spec.selector.matchConditions", !selector.match_conditions.is_empty()),
            ("spec.parameters", !parameters.is_empty()),
            ("spec.patchContainers", !patch_containers.is_empty()),
            ("spec.inject.metadata", inject.metadata.is_some()),
            ("spec.selector.byName", selector.by_name != ByName::Allowed),
            ("spec.placement", placement != Placement::default()),
            ("spec.onConflict", on_conflict != OnConflict::Fail),
        ] {
            if is_used {
                return Err(DefinitionError::unsupported(path, "this field"));
            }
        }
        if let Some((index, requirement)) = selector.pod_selector.as_ref().and_then(LabelSelector::malformed)
        {
            return Err(DefinitionError::invalid(
                format!("spec.selector.podSelector.matchExpressions[{index}].values"),
                format!("{:?} must have values or not, as its operator says", requirement.key),
            ));
        }
        let spec = inject.spec.map(|spec| spec.0.to_string()).unwrap_or_default();
        let mut spec: Map<String, Value> = serde_json::from_str(&spec).unwrap_or_default();
        let containers = spec.remove("containers").unwrap_or_default();
        if let Some(field) = spec.keys().next() {
            return Err(DefinitionError::unsupported(format!("spec.inject.spec.{field}"), "this field"));
        }
        Ok(Compiled {
            containers: container_fragments(containers, texts)?,
            name: metadata.name,
            order,
            required,
            failure_policy,
            pod_selector: selector.pod_selector,
        })
    }
}

fn container_fragments(
    containers: Value,
    texts: Vec<Box<RawValue>>,
) -> Result<Vec<ContainerFragment>, DefinitionError> {
    let path = "spec.inject.spec.containers";
    let Value::Array(containers) = containers else {
        return Err(DefinitionError::invalid(path, "must be a list of containers"));
    };
    if containers.is_empty() {
        return Err(DefinitionError::invalid(path, "has nothing to inject"));
    }
    let mut fragments: Vec<ContainerFragment> = Vec::with_capacity(containers.len());
    for (index, (container, text)) in containers.into_iter().zip(texts).enumerate() {
        let path = format!("{path}[{index}]");
        let Value::Object(fields) = container else {
            return Err(DefinitionError::invalid(path, "must be a container"));
        };
        let Some(Value::String(name)) = fields.get("name") else {
            return Err(DefinitionError::invalid(format!("{path}.name"), "is missing"));
        };
        dns_label(&format!("{path}.name"), name)?;
        if fragments.iter().any(|fragment| fragment.name == *name) {
            return Err(DefinitionError::invalid(format!("{path}.name"), format!("{name:?} is there twice")));
        }
        if !matches!(fields.get("image"), Some(Value::String(image)) if !image.trim().is_empty()) {
            return Err(DefinitionError::invalid(format!("{path}.image"), "is missing"));
        }
        // `$${` is a literal `${`; both belong to expressions, which are not there yet.
        if text.get().contains("${") {
            return Err(DefinitionError::unsupported(path, "an expression ${...}"));
        }
        fragments.push(ContainerFragment { name: name.clone(), text, fields });
    }
    Ok(fragments)
}

/// RFC 1123 label, as Kubernetes wants names of containers.
fn dns_label(path: &str, name: &str) -> Result<(), DefinitionError> {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_label = name.len() <= 63
        && name.bytes().all(|byte| inner(byte) || byte == b'-')
        && name.bytes().next().is_some_and(inner)
        && name.bytes().last().is_some_and(inner);
    if is_label {
        return Ok(());
    }
    Err(DefinitionError::invalid(
        path,
        format!("{name:?} must be lower-case letters, digits and inner hyphens, 63 at most"),
    ))
}

/// The same text again, for the order of fields that a `Map` does not keep.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Written {
    spec: WrittenSpec,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WrittenSpec {
    inject: WrittenTemplate,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WrittenTemplate {
    spec: WrittenPodSpec,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WrittenPodSpec {
    containers: Vec<Box<RawValue>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        Compiled::from_yaml(text).unwrap_err().to_string()
    }

    #[test]
    fn the_builtin_definition_keeps_the_order_of_its_fields() {
        let compiled = Compiled::from_yaml(super::super::BUILTIN_CURL).unwrap();
        assert_eq!(compiled.name(), "curl");
        assert_eq!(
            compiled.containers[0].text.get(),
            r#"{"name":"curl","image":"yauritux/busybox-curl:latest","imagePullPolicy":"IfNotPresent","command":["/bin/sh","-ec","while :; do echo '.'; sleep 5 ; done"]}"#
        );
    }

    #[test]
    fn what_cannot_be_applied_is_refused_by_name() {
        let definition = |spec: &str| {
            format!(
                "apiVersion: sidecar.me/v1alpha1\nkind: ClusterSidecarDefinition\nmetadata: {{name: a}}\nspec:\n  {spec}"
            )
        };
        for (spec, path) in [
            ("parameters: [{name: a}]", "spec.parameters"),
            ("placement: {containers: First}", "spec.placement"),
            ("onConflict: Replace", "spec.onConflict"),
            ("inject: {spec: {volumes: []}}", "spec.inject.spec.volumes"),
            ("inject: {spec: {}}", "spec.inject.spec.containers"),
            ("inject: {spec: {containers: [{name: a, image: b}], volumes: []}}", "spec.inject.spec.volumes"),
            ("inject: {spec: {containers: [{name: a}]}}", "spec.inject.spec.containers[0].image"),
            ("inject: {spec: {containers: [{name: A, image: b}]}}", "spec.inject.spec.containers[0].name"),
            ("inject: {spec: {containers: [{name: a, image: '${x}'}]}}", "spec.inject.spec.containers[0]"),
            (
                "selector: {podSelector: {matchExpressions: [{key: a, operator: In}]}}",
                "matchExpressions[0].values",
            ),
        ] {
            let message = error(&definition(spec));
            assert!(message.contains(path), "{spec}: {message}");
        }
    }

    #[test]
    fn names_are_dns_labels() {
        let problem = |name: &str| dns_label("metadata.name", name).err();
        for name in ["a", "0", "a-1", "1--a", &"x".repeat(63)] {
            assert_eq!(problem(name), None, "{name}");
        }
        for name in ["", "-", "-a", "a-", "A", "a.b", "a_b", "ä", &"x".repeat(64)] {
            assert!(problem(name).is_some(), "{name}");
        }
    }

    #[test]
    fn every_error_has_a_code() {
        let head = "apiVersion: sidecar.me/v1alpha1\nkind: ClusterSidecarDefinition\nmetadata: {name: a}\n";
        for (spec, code) in [
            ("spec: [", "DefinitionText"),
            ("specs: {}", "DefinitionText"),
            ("spec: {}", "DefinitionInvalid"),
            ("spec: {onConflict: KeepPod}", "DefinitionUnsupported"),
        ] {
            assert_eq!(Compiled::from_yaml(&format!("{head}{spec}\n")).unwrap_err().code(), code, "{spec}");
        }
    }

    #[test]
    fn a_misspelt_field_is_shown_where_it_stands() {
        let message = error(
            "apiVersion: sidecar.me/v1alpha1\nkind: ClusterSidecarDefinition\nmetadata: {name: a}\nspec:\n  injects: {}\n",
        );
        assert!(message.contains("injects") && message.contains('5'), "{message}");
    }
}
