//! Definitions filled in for one pod: fragments, ready to be merged into it.

use std::borrow::Cow;

use crate::decision::Reason;
use crate::definition::{ContainerKind, OnConflict, never_injected};
use crate::expression::Bindings;
use crate::json::Json;
use crate::merge::Blocked;
use crate::namespace::Namespace;
use crate::pod::Pod;
use crate::select::{Selected, Selection};
use crate::template::Failed;

/// A definition rendered for one pod.
#[derive(Debug)]
pub(crate) struct Fragment<'e> {
    /// What is merged into the pod: `metadata` and `spec`.
    pub(crate) pod: Json<'e>,
    /// What is merged into its own containers, in this order.
    pub(crate) patches: Vec<ContainerFragment<'e>>,
}

/// What one of the pod's own containers gets.
#[derive(Debug)]
pub(crate) struct ContainerFragment<'e> {
    /// The list that the container is in.
    pub(crate) list: &'static str,
    /// Its name.
    pub(crate) container: String,
    /// The fields of a container.
    pub(crate) fields: Json<'e>,
    pub(crate) on_conflict: OnConflict,
}

/// Renders the selected definitions; each by itself, so that one that fails does not touch the others.
pub(crate) fn render<'e>(
    selection: &Selection<'e>,
    pod: &Pod<'_>,
    namespace: &Namespace,
) -> Vec<Result<Fragment<'e>, Blocked>> {
    let selected = &selection.selected;
    let bindings = |selected: &'_ Selected<'e>| {
        // The pod as it was received: what a definition makes of it does not depend on the others.
        (&pod.json, &namespace.json, selected.parameters.share().into_owned())
    };
    let mut fragments: Vec<_> = selected
        .iter()
        .map(|selected| {
            let (pod, namespace, params) = bindings(selected);
            let bindings =
                Bindings { pod, namespace, params: &params, container: None, budget: &selected.budget };
            let pod = selected.definition.inject.render(&bindings).map_err(failed)?;
            if let Some(problem) = pod.get("metadata").and_then(never_injected) {
                return Err(Blocked::new(
                    Reason::ExpressionFailed,
                    format!("spec.inject.metadata: {problem}"),
                ));
            }
            Ok(Fragment { pod, patches: Vec::new() })
        })
        .collect();
    if selected.iter().all(|selected| selected.definition.patches.is_empty()) {
        return fragments;
    }
    let own = own_containers(pod, selection, &fragments);
    for (selected, fragment) in selected.iter().zip(&mut fragments) {
        let Ok(rendered) = fragment else { continue };
        let (pod, namespace, params) = bindings(selected);
        let mut patch = || -> Result<(), Failed> {
            for patch in &selected.definition.patches {
                for (list, kind, name, container) in &own {
                    if patch.is_for(*kind, name) {
                        let unpaid = |message: &str| Failed {
                            path: "spec.patchContainers".to_owned(),
                            message: message.to_owned(),
                        };
                        selected.budget.pay(patch.size).map_err(unpaid)?;
                        let bindings = Bindings {
                            pod,
                            namespace,
                            params: &params,
                            container: Some(container),
                            budget: &selected.budget,
                        };
                        rendered.patches.push(ContainerFragment {
                            list,
                            container: name.clone().into_owned(),
                            fields: patch.fields.render(&bindings)?,
                            on_conflict: patch.on_conflict,
                        });
                    }
                }
            }
            Ok(())
        };
        if let Err(problem) = patch() {
            *fragment = Err(failed(problem));
        }
    }
    fragments
}

type OwnContainer<'p, 'a> = (&'static str, ContainerKind, Cow<'p, str>, &'p Json<'a>);

/// The containers that the pod came with. A second call finds what the first one injected among the pod's; by name
/// those are not its own, whether the definition comes to the same result again or not.
fn own_containers<'p, 'a>(
    pod: &'p Pod<'a>,
    selection: &Selection<'_>,
    fragments: &[Result<Fragment<'_>, Blocked>],
) -> Vec<OwnContainer<'p, 'a>> {
    let candidates = selection.selected.iter().map(|selected| selected.definition);
    let written: Vec<&str> = candidates
        .chain(selection.declined.iter().copied())
        .flat_map(|definition| definition.containers.iter().map(String::as_str))
        .collect();
    let is_injected = |name: &str| {
        written.contains(&name)
            || fragments.iter().flatten().any(|fragment| {
                let spec = fragment.pod.get("spec");
                ["containers", "initContainers"].iter().any(|list| {
                    let items =
                        spec.and_then(|spec| spec.get(list)).and_then(Json::items).unwrap_or_default();
                    items.iter().any(|item| item.text_of("name").as_deref() == Some(name))
                })
            })
    };
    let mut own = Vec::new();
    for list in ["containers", "initContainers"] {
        for container in pod.containers(list) {
            let Some(name) = container.text_of("name") else { continue };
            let kind = match list {
                "containers" => ContainerKind::Container,
                _ if container.text_of("restartPolicy").as_deref() == Some("Always") => {
                    ContainerKind::NativeSidecar
                }
                _ => ContainerKind::InitContainer,
            };
            if !is_injected(&name) {
                own.push((list, kind, name, container));
            }
        }
    }
    own
}

fn failed(Failed { path, message }: Failed) -> Blocked {
    Blocked::new(Reason::ExpressionFailed, format!("{path}: {message}"))
}
