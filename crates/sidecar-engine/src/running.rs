//! What a pod that runs has of what its definitions would give it now.
//!
//! There is no mark on a pod that was injected. Whether it has its sidecars is seen as in a second call for it: all that
//! would be added is there already.

use std::borrow::Cow;

use crate::decision::{Decision, Reason};
use crate::definition::Compiled;
use crate::engine::Engine;
use crate::error::PodError;
use crate::json::{Fields, Json};
use crate::namespace::Namespace;
use crate::pod::{CONTAINER_LISTS, Pod};
use crate::select::{self, Detail};

/// How a pod stands to a definition that is meant for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing<'e> {
    /// The definition's name, with its namespace in front if it has one.
    pub definition: Cow<'e, str>,
    /// What the pod has of it.
    pub state: State,
    /// What a review would say now. [`Reason::Injected`]: nothing is in the way.
    pub reason: Reason,
    /// What in particular, where there is something to say.
    pub detail: Option<Cow<'static, str>>,
    /// Whether a pod that is made anew would have it, as far as can be seen.
    pub would_be_injected: bool,
    /// Whether the definition wants pods without it to be made anew.
    pub repairs: bool,
    /// Of the definition as it is now.
    pub fingerprint: u32,
}

/// What a pod has of a definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// All of it.
    Present,
    /// Nothing that could be told from the pod's own.
    Missing,
    /// A container of it, or something under its keys, and not as the definition is now.
    Outdated,
}

impl Engine {
    /// Whether a definition may be meant for a pod of which only this is known. What conditions say is not known then.
    pub fn may_concern(
        &self,
        labels: impl IntoIterator<Item = (String, String)>,
        annotations: impl IntoIterator<Item = (String, String)>,
        namespace: &Namespace,
    ) -> bool {
        let map = |entries: &mut dyn Iterator<Item = (String, String)>| -> Json<'static> {
            let fields: Fields<'static> =
                entries.map(|(key, value)| (key.into(), Json::text_from(value))).collect();
            Json::Object(fields)
        };
        let metadata = Json::Object(vec![
            ("labels".into(), map(&mut labels.into_iter())),
            ("annotations".into(), map(&mut annotations.into_iter())),
        ]);
        let json = Json::Object(vec![("metadata".into(), metadata)]);
        select::may_select(&self.candidates(), &Pod { json, ..Pod::default() }, namespace)
    }

    /// What a pod, given as JSON text, has of the definitions that are meant for it.
    ///
    /// # Errors
    /// The text is not a JSON object.
    pub fn standings(&self, pod: &str, namespace: &Namespace) -> Result<Vec<Standing<'_>>, PodError> {
        let pod = Pod::parse(pod)?;
        let injection = self.inject_pod(&pod, namespace, Detail::Relevant);
        Ok(injection.decisions.into_iter().filter_map(|decision| self.standing(decision, &pod)).collect())
    }

    fn standing<'e>(&'e self, decision: Decision<'e>, pod: &Pod<'_>) -> Option<Standing<'e>> {
        let definition = self.definition(&decision.definition);
        let has_containers = definition.map(|definition| has_container_of(pod, definition));
        let state = match decision.reason {
            Reason::AlreadyPresent => State::Present,
            // An older version had fewer parts than this one.
            Reason::Injected if has_containers == Some(Some(true)) => State::Outdated,
            Reason::ContainerNameConflict => State::Outdated,
            // Without containers nothing tells an older version's value from the pod's own.
            Reason::Conflict if has_containers != Some(Some(false)) => State::Outdated,
            Reason::Injected => State::Missing,
            _ if decision.is_missed() => State::Missing,
            _ => return None,
        };
        Some(Standing {
            definition: decision.definition,
            state,
            reason: decision.reason,
            detail: decision.detail,
            would_be_injected: decision.reason == Reason::Injected || state == State::Outdated,
            repairs: definition.is_some_and(Compiled::repairs_missed_pods),
            fingerprint: definition.map(|definition| definition.fingerprint).unwrap_or_default(),
        })
    }
}

/// Whether the pod has a container of a name that the definition has, if it has any.
fn has_container_of(pod: &Pod<'_>, definition: &Compiled) -> Option<bool> {
    let is_there = |name: &str| {
        CONTAINER_LISTS.iter().any(|list| {
            pod.containers(list).iter().any(|container| container.text_of("name").as_deref() == Some(name))
        })
    };
    (!definition.containers.is_empty())
        .then(|| definition.containers.iter().any(|container| is_there(&container.name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    const PLAIN: &str = "apiVersion: sidecar.me/v1alpha1\nkind: ClusterSidecarDefinition\nmetadata: {name: logs}\n\
        spec:\n  missedPods: Repair\n  inject:\n    spec:\n      volumes: [{name: logs, emptyDir: {}}]\n      \
        containers: [{name: logs, image: 'logs:2', volumeMounts: [{name: logs, mountPath: /logs}]}]\n";
    const LABELS: [(&str, &str); 1] = [("sidecar.me/inject", "true")];

    fn engine(texts: &[&str]) -> Engine {
        Engine::new(texts.iter().map(|text| Arc::new(Compiled::from_yaml(text).unwrap())).collect())
    }

    fn pod(more: &str) -> String {
        format!(
            r#"{{"metadata":{{"labels":{{"sidecar.me/inject":"true"}}}},"spec":{{{more}"containers":[{{"name":"app"}}{}]}}}}"#,
            if more.is_empty() {
                ""
            } else {
                r#",{"name":"logs","image":"logs:2","imagePullPolicy":"IfNotPresent"}"#
            }
        )
    }

    fn state(engine: &Engine, pod: &str) -> Vec<(State, Reason)> {
        let standings = engine.standings(pod, &Namespace::unknown("default")).unwrap();
        standings.iter().map(|standing| (standing.state, standing.reason)).collect()
    }

    #[test]
    fn a_pod_has_all_of_it_nothing_or_an_older_version() {
        let engine = engine(&[PLAIN]);
        assert_eq!(state(&engine, &pod("")), [(State::Missing, Reason::Injected)]);
        // The mount is missing in its container.
        let old = pod(r#""volumes":[{"name":"logs","emptyDir":{}}],"#);
        assert_eq!(state(&engine, &old), [(State::Outdated, Reason::ContainerNameConflict)]);
        let whole = old.replace(
            r#""image":"logs:2""#,
            r#""image":"logs:2","volumeMounts":[{"name":"logs","mountPath":"/logs"}]"#,
        );
        assert_eq!(state(&engine, &whole), [(State::Present, Reason::AlreadyPresent)]);
        let without_volume = whole.replace(r#""volumes":[{"name":"logs","emptyDir":{}}],"#, "");
        assert_eq!(state(&engine, &without_volume), [(State::Outdated, Reason::Injected)]);
        assert_eq!(state(&engine, r#"{"spec":{"containers":[{"name":"app"}]}}"#), []);
    }

    #[test]
    fn a_fingerprint_is_of_what_the_author_wrote() {
        let fingerprint = |text: &str| {
            let engine = engine(&[text]);
            let standings = engine.standings(&pod(""), &Namespace::unknown("default")).unwrap();
            standings[0].fingerprint
        };
        // Whatever compiles it, and whenever: it is written into objects.
        assert_eq!(fingerprint(PLAIN), 0xb09d_895c);
        let labelled = PLAIN.replace("metadata: {name", "metadata: {labels: {a: b}, name");
        assert_eq!(fingerprint(&labelled), fingerprint(PLAIN));
        assert_ne!(fingerprint(&PLAIN.replace("logs:2", "logs:3")), fingerprint(PLAIN));
    }

    #[test]
    fn a_definition_without_containers_is_outdated_where_its_keys_have_other_values() {
        let engine = engine(&[
            "apiVersion: sidecar.me/v1alpha1\nkind: ClusterSidecarDefinition\nmetadata: {name: a}\n\
            spec:\n  inject: {spec: {hostname: b}}\n",
        ]);
        assert_eq!(state(&engine, &pod("")), [(State::Missing, Reason::Injected)]);
        let old = pod(r#""hostname":"a","#);
        assert_eq!(state(&engine, &old), [(State::Outdated, Reason::Conflict)]);
    }

    #[test]
    fn what_metadata_rules_out_concerns_nobody() {
        let owned = |entries: &[(&str, &str)]| -> Vec<_> {
            entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let by_namespace = PLAIN.replace("name: logs}\nspec:\n", "name: other}\nspec:\n  selector: {namespaceSelector: {matchLabels: {team: a}}, podSelector: {}}\n");
        let engine = engine(&[PLAIN, &by_namespace]);
        let concerns = |labels: &[(&str, &str)], annotations: &[(&str, &str)], namespace: &Namespace| {
            engine.may_concern(owned(labels), owned(annotations), namespace)
        };
        let team = |team: &str| Namespace::new("default", owned(&[("team", team)]), []);
        assert!(concerns(&LABELS, &[], &team("b")) && !concerns(&[], &[], &team("b")));
        assert!(concerns(&[], &[], &team("a")) && concerns(&[], &[], &Namespace::unknown("default")));
        assert!(!concerns(&[("sidecar.me/inject", "false")], &[], &team("a")));
        assert!(!concerns(&LABELS, &[], &Namespace::new("kube-system", [], [])));
        assert!(!concerns(&LABELS, &[("kubernetes.io/config.mirror", "x")], &team("a")));
        assert!(concerns(&[], &[("sidecar.me/inject", "logs")], &team("b")));
        // It asked, and goes without.
        assert!(concerns(&[], &[("sidecar.me/inject", "nonsense")], &team("b")));
    }
}
