//! As written → compiled: everything about a definition that can be settled before the first pod arrives.

use std::borrow::Cow;

use super::{
    ByName, ContainerKind, ContainerPatch, Definition, DefinitionName, DefinitionSpec, End, FailurePolicy,
    FieldPath, Kind, LabelSelector, MissedPods, OnConflict, Placement, Position, Problem, ProblemCode,
    ReadOptions, Selector, Untyped,
};
use crate::expression::{Bindings, Budget, Expression, Scope};
use crate::json::Json;
use crate::parameter::Parameters;
use crate::shape::Slot;
use crate::template::{self, Template};

/// A definition that is ready to be applied.
#[derive(Debug)]
pub struct Compiled {
    pub(crate) name: String,
    /// Only of a `SidecarDefinition`.
    pub(crate) namespace: Option<String>,
    pub(crate) order: i32,
    pub(crate) required: bool,
    pub(crate) failure_policy: FailurePolicy,
    pub(crate) on_conflict: OnConflict,
    missed_pods: MissedPods,
    pub(crate) fingerprint: u32,
    pub(crate) selector: CompiledSelector,
    pub(crate) parameters: Parameters,
    /// A pod with what is to be merged into it: `metadata` and `spec`.
    pub(crate) inject: Template,
    /// The containers in it, as far as they are written out.
    pub(crate) containers: Vec<Written>,
    pub(crate) patches: Vec<CompiledPatch>,
    pub(crate) placement: Placement,
}

#[derive(Debug)]
pub(crate) struct CompiledSelector {
    pub(crate) namespaces: Option<LabelSelector>,
    /// Absent: the pod asks by label.
    pub(crate) pods: Option<LabelSelector>,
    pub(crate) conditions: Vec<(String, Expression)>,
    pub(crate) by_name: ByName,
    pub(crate) include_host_network: bool,
    pub(crate) include_windows: bool,
}

/// The name of a container, and its image where no expression makes it.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) name: String,
    pub(crate) image: Option<String>,
}

/// What some of the pod's own containers get.
#[derive(Debug)]
pub(crate) struct CompiledPatch {
    names: Vec<NamePattern>,
    kinds: Vec<ContainerKind>,
    pub(crate) on_conflict: OnConflict,
    /// A container with what is to be merged into it.
    pub(crate) fields: Template,
    /// How many values that are.
    pub(crate) size: usize,
}

/// A name in which `*` stands for any characters.
#[derive(Debug)]
struct NamePattern(String);

impl Compiled {
    /// Reads and compiles the one definition in YAML (or JSON) text.
    ///
    /// # Errors
    /// All that is wrong with it, in the order of the text.
    pub fn from_yaml(text: &str) -> Result<Self, Vec<Problem>> {
        let mut documents = super::read(text, &ReadOptions::default()).into_iter();
        let one = match (documents.next(), documents.next()) {
            (Some(document), None) => Ok(document),
            (None, _) => Err("there is no definition in it".to_owned()),
            (Some(_), Some(second)) => Err(format!("there is a second document, on line {}", second.line)),
        };
        let one =
            one.map_err(|problem| vec![Problem::new(ProblemCode::Syntax, FieldPath::default(), problem)])?;
        one.compile(text)
    }

    /// Settles all that does not depend on a pod. What the reader of definitions has checked is not checked again.
    ///
    /// # Errors
    /// All that is wrong with the definition.
    pub fn new(definition: Definition) -> Result<Self, Vec<Problem>> {
        let Definition { api_version: _, kind, metadata, spec, fingerprint } = definition;
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
            missed_pods,
        } = spec;
        let mut problems = Vec::new();
        let parameters =
            Parameters::compile(&metadata.name, parameters, &FieldPath::of("spec.parameters"), &mut problems);
        let scope = Scope { parameters: parameters.defaults(), container: false };
        let selector = CompiledSelector::new(selector, &scope, &mut problems);
        let path = FieldPath::of("spec.inject");
        let containers = written(inject.spec.as_ref());
        let inject = Template::compile(
            pod_of(inject.metadata, inject.spec),
            &path,
            Slot::pod(),
            &scope,
            &mut problems,
        );
        let path = FieldPath::of("spec.patchContainers");
        let scope = Scope { container: true, ..scope };
        let compile =
            |(index, patch)| CompiledPatch::new(patch, on_conflict, &path.item(index), &scope, &mut problems);
        let patches = patch_containers.into_iter().enumerate().map(compile).collect();
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Compiled {
            namespace: metadata.namespace.filter(|_| kind == Kind::SidecarDefinition),
            name: metadata.name,
            order,
            required,
            failure_policy,
            on_conflict,
            missed_pods,
            fingerprint,
            selector,
            parameters,
            inject,
            containers,
            patches,
            placement,
        })
    }

    /// The definition's name, with its namespace in front if it has one: `team-a/proxy`.
    pub fn shown_name(&self) -> Cow<'_, str> {
        match &self.namespace {
            None => Cow::Borrowed(&self.name),
            Some(namespace) => Cow::Owned(format!("{namespace}/{}", self.name)),
        }
    }

    /// What it is known by.
    pub fn full_name(&self) -> DefinitionName {
        let kind = match self.namespace {
            None => Kind::ClusterSidecarDefinition,
            Some(_) => Kind::SidecarDefinition,
        };
        DefinitionName { kind, namespace: self.namespace.clone(), name: self.name.clone() }
    }

    /// Whether it can only be applied where more is known of a pod's namespace than its name.
    pub fn needs_namespace_labels(&self) -> bool {
        self.selector.namespaces.as_ref().is_some_and(|selector| !selector.looks_only_at_names())
    }

    /// Whether one of its conditions looks at containers, and may come to another result when there are more of them.
    pub(crate) fn looks_at_containers(&self) -> bool {
        self.selector.conditions.iter().any(|(_, condition)| condition.source().contains("ontainers"))
    }

    /// Whether a pod that it cannot be applied to is denied.
    pub(crate) fn fails_closed(&self) -> bool {
        self.failure_policy == FailurePolicy::Fail
    }

    /// Whether pods that run without it, or with an older version of it, are to be made anew.
    pub fn repairs_missed_pods(&self) -> bool {
        self.missed_pods == MissedPods::Repair
    }

    /// The first match condition that is false, or what is wrong with one. Conditions select; a pod that asks by name
    /// is selected already.
    pub(crate) fn conditions_hold(
        &self,
        bindings: &Bindings<'_>,
        is_asked: bool,
    ) -> Result<Option<&str>, String> {
        if is_asked && self.selector.by_name != ByName::Refused {
            return Ok(None);
        }
        for (name, condition) in &self.selector.conditions {
            let holds = condition.evaluate_bool(bindings);
            if !holds.map_err(|problem| format!("match condition {name:?}: {problem}"))? {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }
}

impl CompiledSelector {
    fn new(selector: Selector, scope: &Scope<'_>, problems: &mut Vec<Problem>) -> Self {
        let path = FieldPath::of("spec.selector.matchConditions");
        let mut conditions = Vec::with_capacity(selector.match_conditions.len());
        for (index, condition) in selector.match_conditions.into_iter().enumerate() {
            let path = path.item(index).field("expression");
            match Expression::compile(&condition.expression, scope) {
                Ok(expression) => {
                    if let Err(problem) = attempt(&expression, scope) {
                        problems.push(Problem::new(ProblemCode::InvalidExpression, path, problem));
                    }
                    conditions.push((condition.name, expression));
                }
                Err(_) if condition.expression.trim_start().starts_with("${") => {
                    let message = "a match condition is an expression already, write it without ${ and }";
                    problems.push(Problem::new(ProblemCode::InvalidExpression, path, message));
                }
                Err(found) => {
                    problems.extend(found.into_iter().map(|problem| template::invalid(&path, problem)));
                }
            }
        }
        CompiledSelector {
            namespaces: selector.namespace_selector,
            pods: selector.pod_selector,
            conditions,
            by_name: selector.by_name,
            include_host_network: selector.include_host_network,
            include_windows: selector.include_windows,
        }
    }
}

impl CompiledPatch {
    fn new(
        patch: ContainerPatch,
        on_conflict: OnConflict,
        path: &FieldPath,
        scope: &Scope<'_>,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let fields = Template::compile(patch.fields.0, path, Slot::container(), scope, problems);
        CompiledPatch {
            names: patch.names.into_iter().map(NamePattern).collect(),
            kinds: patch.kinds,
            on_conflict: patch.on_conflict.unwrap_or(on_conflict),
            size: fields.size(),
            fields,
        }
    }

    /// Whether it is for a container of this kind and name.
    pub(crate) fn is_for(&self, kind: ContainerKind, name: &str) -> bool {
        self.kinds.contains(&kind) && self.names.iter().any(|pattern| pattern.matches(name))
    }
}

impl NamePattern {
    fn matches(&self, name: &str) -> bool {
        let Some((first, rest)) = self.0.split_once('*') else { return self.0 == name };
        let Some(mut name) = name.strip_prefix(first) else { return false };
        let mut parts = rest.split('*').peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                return name.ends_with(part);
            }
            let Some((_, after)) = name.split_once(part) else { return false };
            name = after;
        }
        true
    }
}

impl Placement {
    /// Where the containers of a list stand; `Unset` is last.
    pub(crate) fn of(&self, list: &str) -> &Position {
        const LAST: &Position = &Position::End(End::Last);
        match list {
            "containers" => &self.containers,
            "initContainers" => &self.init_containers,
            _ => LAST,
        }
    }
}

/// Tries a condition that needs no pod.
fn attempt(condition: &Expression, scope: &Scope<'_>) -> Result<(), String> {
    if !condition.is_settled {
        return Ok(());
    }
    condition.evaluate_bool(&Bindings::settled(scope, &Budget::default())).map(drop)
}

fn written(spec: Option<&Untyped>) -> Vec<Written> {
    let lists = ["containers", "initContainers"].into_iter().filter_map(|list| spec?.0.get(list)?.items());
    let container = |container: &Json<'_>| {
        let image = container.text_of("image").filter(|image| !image.contains("${"));
        Some(Written { name: container.text_of("name")?.into_owned(), image: image.map(Cow::into_owned) })
    };
    lists.flatten().filter_map(container).collect()
}

fn pod_of(metadata: Option<Untyped>, spec: Option<Untyped>) -> Json<'static> {
    let parts = [("metadata", metadata), ("spec", spec)];
    let present = parts.into_iter().filter_map(|(key, part)| Some((Cow::Borrowed(key), part?.0)));
    Json::Object(present.collect())
}

#[cfg(test)]
mod tests {
    use super::NamePattern;

    #[test]
    fn a_star_stands_for_any_characters() {
        for (pattern, name, matches) in [
            ("app", "app", true),
            ("app", "app2", false),
            ("*", "", true),
            ("*", "app", true),
            ("app-*", "app-1", true),
            ("app-*", "app", false),
            ("*-proxy", "a-proxy", true),
            ("*-proxy", "a-proxy-b", false),
            ("a*b*c", "abc", true),
            ("a*b*c", "a1b2c", true),
            ("a*b*c", "acb", false),
            ("a*a", "a", false),
        ] {
            assert_eq!(NamePattern(pattern.to_owned()).matches(name), matches, "{pattern} {name}");
        }
    }
}
