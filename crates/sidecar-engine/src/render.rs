//! Definitions filled in for one pod: fragments, ready to be merged into it.

use std::borrow::Cow;

use crate::decision::Reason;
use crate::definition::{Compiled, ContainerKind, OnConflict, Written, never_injected};
use crate::expression::Bindings;
use crate::json::Json;
use crate::merge::{self, Blocked};
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
                for OwnContainer { list, kind, name, json: container, injected } in &own {
                    // Nobody who writes in a namespace takes something from what the cluster requires.
                    let is_shielded = match injected {
                        Some(By::Cluster) => true,
                        Some(By::Namespace) => !selected.definition.required,
                        None => false,
                    };
                    if !is_shielded && patch.is_for(*kind, name) {
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

/// A container of the pod.
struct OwnContainer<'p, 'a> {
    list: &'static str,
    kind: ContainerKind,
    name: Cow<'p, str>,
    json: &'p Json<'a>,
    /// Whose definition injects it, if it is not the pod's own.
    injected: Option<By>,
}

/// Who wrote a definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Cluster,
    Namespace,
}

impl By {
    fn of(definition: &Compiled) -> Self {
        if definition.namespace.is_some() { By::Namespace } else { By::Cluster }
    }
}

/// The pod's containers. A second call finds among them what the first one injected, by name and image, whether the
/// definition comes to the same result again or not.
fn own_containers<'p, 'a>(
    pod: &'p Pod<'a>,
    selection: &Selection<'_>,
    fragments: &[Result<Fragment<'_>, Blocked>],
) -> Vec<OwnContainer<'p, 'a>> {
    let mut candidates: Vec<(By, Cow<'_, str>, Option<Cow<'_, str>>)> = Vec::new();
    let selected = selection.selected.iter().map(|selected| selected.definition);
    for (definition, fragment) in selected.clone().zip(fragments) {
        let spec = fragment.as_ref().ok().and_then(|fragment| fragment.pod.get("spec"));
        for list in ["containers", "initContainers"] {
            let items = spec.and_then(|spec| spec.get(list)).and_then(Json::items).unwrap_or_default();
            // What is replaced becomes the definition's, whatever it was.
            let is_kept = definition.on_conflict != OnConflict::Replace;
            let image = |item: &'_ Json<'_>| item.text_of("image").filter(|_| is_kept).map(Cow::into_owned);
            let named = items.iter().filter_map(|item| {
                Some((By::of(definition), item.text_of("name")?, image(item).map(Cow::Owned)))
            });
            candidates.extend(named);
        }
    }
    // What cannot be rendered for this pod is known as far as it is written out.
    let failed = selected.zip(fragments).filter(|(_, fragment)| fragment.is_err());
    for definition in failed.map(|(definition, _)| definition).chain(selection.declined.iter().copied()) {
        for Written { name, image } in &definition.containers {
            candidates.push((By::of(definition), Cow::Borrowed(name), image.as_deref().map(Cow::Borrowed)));
        }
    }
    let injected_by = |name: &str, image: &str| {
        let same = candidates.iter().filter(|(_, candidate, wanted)| {
            candidate == name && wanted.as_ref().is_none_or(|wanted| merge::is_same_image(wanted, image))
        });
        let by: Vec<_> = same.map(|(by, ..)| *by).collect();
        by.iter().copied().find(|by| *by == By::Cluster).or(by.first().copied())
    };
    let mut own = Vec::new();
    for list in ["containers", "initContainers"] {
        for json in pod.containers(list) {
            let Some(name) = json.text_of("name") else { continue };
            let kind = match list {
                "containers" => ContainerKind::Container,
                _ if json.text_of("restartPolicy").as_deref() == Some("Always") => {
                    ContainerKind::NativeSidecar
                }
                _ => ContainerKind::InitContainer,
            };
            let injected = injected_by(&name, &json.text_of("image").unwrap_or_default());
            own.push(OwnContainer { list, kind, name, json, injected });
        }
    }
    own
}

fn failed(Failed { path, message }: Failed) -> Blocked {
    Blocked::new(Reason::ExpressionFailed, format!("{path}: {message}"))
}
