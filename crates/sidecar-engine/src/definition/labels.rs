//! Kubernetes label selectors, evaluated on borrowed labels.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The label that Kubernetes puts on every namespace.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// `matchLabels` and `matchExpressions`, all of which must hold; empty: everything matches.
#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct LabelSelector {
    /// Labels with exactly these values.
    #[serde(default)]
    pub match_labels: BTreeMap<String, String>,
    /// Further conditions on labels.
    #[serde(default)]
    pub match_expressions: Vec<Requirement>,
}

/// One condition on one label.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// How its value is compared.
    pub operator: RequirementOperator,
    /// What it is compared with; empty for `Exists` and `DoesNotExist`.
    #[serde(default)]
    pub values: Vec<String>,
}

/// How a label is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum RequirementOperator {
    /// The label is there with one of the values.
    In,
    /// The label is absent, or has none of the values.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is absent.
    DoesNotExist,
}

impl LabelSelector {
    /// Whether labels match; `label` gives the value of a key.
    pub(crate) fn matches<'l>(&self, label: impl Fn(&str) -> Option<&'l str>) -> bool {
        self.match_labels.iter().all(|(key, value)| label(key) == Some(value.as_str()))
            && self.match_expressions.iter().all(|requirement| requirement.matches(label(&requirement.key)))
    }

    /// The first condition that does not hold, for people: `label app must be "web"`. Without the value that is there
    /// instead, which is whoever's labels they are.
    pub fn mismatch<'l>(&self, label: impl Fn(&str) -> Option<&'l str>) -> Option<String> {
        let mut labels = self.match_labels.iter();
        if let Some((key, value)) = labels.find(|(key, value)| label(key) != Some(value.as_str())) {
            return Some(format!("label {key} must be {value:?}"));
        }
        let mut requirements = self.match_expressions.iter();
        let failed = requirements.find(|requirement| !requirement.matches(label(&requirement.key)))?;
        let (key, values) = (&failed.key, failed.values.join(", "));
        Some(match failed.operator {
            RequirementOperator::In if failed.values.len() == 1 => format!("label {key} must be {values:?}"),
            RequirementOperator::In => format!("label {key} must be one of {values}"),
            RequirementOperator::NotIn => format!("label {key} must not be {values}"),
            RequirementOperator::Exists => format!("label {key} must be there"),
            RequirementOperator::DoesNotExist => format!("label {key} must not be there"),
        })
    }

    /// Whether nothing but a namespace's name decides, which is known also where its labels are not.
    pub(crate) fn needs_only_name(&self, name: Option<&str>) -> bool {
        let is_name = |key: &str| key == NAME_LABEL;
        // A name that does not fit settles it, whatever the other labels are.
        let excluded = self.match_labels.iter().any(|(key, value)| is_name(key) && name != Some(value))
            || self
                .match_expressions
                .iter()
                .any(|requirement| is_name(&requirement.key) && !requirement.matches(name));
        name.is_some() && (self.looks_only_at_names() || excluded)
    }

    /// Whether it looks at no label but the one with a namespace's name.
    pub(crate) fn looks_only_at_names(&self) -> bool {
        self.match_labels.keys().all(|key| key == NAME_LABEL)
            && self.match_expressions.iter().all(|requirement| requirement.key == NAME_LABEL)
    }
}

impl Requirement {
    fn matches(&self, value: Option<&str>) -> bool {
        let listed = |value: &str| self.values.iter().any(|wanted| wanted == value);
        match self.operator {
            RequirementOperator::In => value.is_some_and(listed),
            // As in Kubernetes (apimachinery pkg/labels): a missing label is in no list.
            RequirementOperator::NotIn => !value.is_some_and(listed),
            RequirementOperator::Exists => value.is_some(),
            RequirementOperator::DoesNotExist => value.is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selects(selector: &str, labels: &[(&str, &str)]) -> bool {
        let selector: LabelSelector = crate::yaml::parse(selector).unwrap();
        selector.matches(|key| labels.iter().find(|(name, _)| *name == key).map(|(_, value)| *value))
    }

    #[test]
    fn requirements_are_those_of_kubernetes() {
        assert!(selects("{}", &[]));
        assert!(selects("{matchLabels: {a: b}}", &[("a", "b"), ("c", "d")]));
        assert!(!selects("{matchLabels: {a: b}}", &[("a", "c")]));
        assert!(selects("{matchExpressions: [{key: a, operator: In, values: [b, c]}]}", &[("a", "c")]));
        assert!(!selects("{matchExpressions: [{key: a, operator: In, values: [b]}]}", &[]));
        assert!(selects("{matchExpressions: [{key: a, operator: NotIn, values: [b]}]}", &[]));
        assert!(!selects("{matchExpressions: [{key: a, operator: NotIn, values: [b]}]}", &[("a", "b")]));
        assert!(selects("{matchExpressions: [{key: a, operator: Exists}]}", &[("a", "")]));
        assert!(selects("{matchExpressions: [{key: a, operator: DoesNotExist}]}", &[("b", "")]));
    }
}
