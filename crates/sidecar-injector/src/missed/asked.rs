//! Which pods the API server asks about, as far as the chart's webhooks say it by selectors. Their conditions are not known here.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use sidecar_engine::Namespace;
use sidecar_engine::definition::LabelSelector;

use crate::arguments::WebhookScope;

const KEY: &str = "sidecar.me/inject";

/// What is known of the webhooks.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) scope: Option<WebhookScope>,
    /// Further conditions on namespaces.
    pub(super) namespaces: Option<LabelSelector>,
    /// The injector's own, which the webhooks of the wide scopes leave out.
    pub(super) own_namespace: Option<String>,
}

impl Asked {
    /// Whether it takes the labels of namespaces to know.
    pub(super) fn needs_namespaces(&self) -> bool {
        self.scope == Some(WebhookScope::Namespaces)
            || self.namespaces.as_ref().is_some_and(|selector| {
                !(selector.match_labels.is_empty() && selector.match_expressions.is_empty())
            })
    }

    /// Whether it is the injector's own namespace, and nobody asks about that.
    pub(super) fn leaves_out(&self, namespace: &str) -> bool {
        matches!(self.scope, Some(WebhookScope::Namespaces | WebhookScope::All))
            && self.own_namespace.as_deref() == Some(namespace)
    }

    /// Where the API server does not ask about such a pod: what would change that. Of a namespace that is not known nothing is said.
    pub(super) fn remedy(
        &self,
        pod: &ObjectMeta,
        namespace: Option<&Namespace>,
    ) -> Option<Cow<'static, str>> {
        let mismatch = namespace
            .zip(self.namespaces.as_ref())
            .and_then(|(namespace, selector)| selector.mismatch(|key| namespace.label(key)));
        if let Some(mismatch) = mismatch {
            return Some(Cow::Owned(format!(
                "the API server does not ask about pods of this namespace: change its labels, or webhook.namespaceSelector ({mismatch})"
            )));
        }
        let is_in_injection = namespace.map(|known| known.label("sidecar.me/injection") == Some("enabled"));
        match self.scope? {
            WebhookScope::All => None,
            WebhookScope::Namespaces => (is_in_injection == Some(false)).then_some(Cow::Borrowed(
                "the API server does not ask about pods of this namespace: label it sidecar.me/injection=enabled, or set webhook.scope to All",
            )),
            WebhookScope::Requested => (!is_requested(pod)).then_some(Cow::Borrowed(if is_in_injection == Some(true) {
                "the API server does not ask about pods without the label or annotation sidecar.me/inject: with webhook.scope Namespaces or All it would"
            } else {
                "the API server does not ask about pods without the label or annotation sidecar.me/inject: with webhook.scope All it would"
            })),
        }
    }
}

fn is_requested(pod: &ObjectMeta) -> bool {
    match pod.labels.as_ref().and_then(|labels| labels.get(KEY)).map(String::as_str) {
        Some("true" | "True") => true,
        Some("false" | "False") => false,
        _ => pod.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(KEY)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(scope: WebhookScope, selector: &str) -> Asked {
        let namespaces = serde_json::from_str(selector).unwrap();
        Asked { scope: Some(scope), namespaces: Some(namespaces), own_namespace: Some("own".to_owned()) }
    }

    fn namespace(labels: &[(&str, &str)]) -> Namespace {
        let owned = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Namespace::new("shop", owned, [])
    }

    fn pod(labels: &[(&str, &str)], annotations: &[(&str, &str)]) -> ObjectMeta {
        let owned = |entries: &[(&str, &str)]| {
            entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        ObjectMeta {
            labels: Some(owned(labels)),
            annotations: Some(owned(annotations)),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn the_scope_decides_by_namespace_or_by_what_the_pod_says() {
        let (plain, labelled) = (namespace(&[]), namespace(&[("sidecar.me/injection", "enabled")]));
        let is_asked = |scope, pod: &ObjectMeta, namespace: &Namespace| {
            asked(scope, "{}").remedy(pod, Some(namespace)).is_none()
        };
        let silent = pod(&[], &[]);
        assert!(is_asked(WebhookScope::All, &silent, &plain));
        assert!(is_asked(WebhookScope::Namespaces, &silent, &labelled));
        assert!(!is_asked(WebhookScope::Namespaces, &pod(&[(KEY, "true")], &[]), &plain));
        for (labels, annotations, expected) in [
            (&[][..], &[][..], false),
            (&[(KEY, "True")], &[], true),
            (&[(KEY, "false")], &[(KEY, "logs")], false),
            (&[(KEY, "other")], &[(KEY, "logs")], true),
        ] {
            let pod = pod(labels, annotations);
            assert_eq!(is_asked(WebhookScope::Requested, &pod, &labelled), expected, "{labels:?}");
        }
    }

    #[test]
    fn of_a_namespace_that_is_not_known_nothing_is_said() {
        let selector = r#"{"matchLabels": {"team": "a"}}"#;
        for scope in [WebhookScope::Namespaces, WebhookScope::All] {
            assert_eq!(asked(scope, selector).remedy(&pod(&[], &[]), None), None, "{scope:?}");
        }
        let remedy = asked(WebhookScope::Requested, selector).remedy(&pod(&[], &[]), None).unwrap();
        assert!(remedy.contains("with webhook.scope All it would"), "{remedy}");
        assert!(asked(WebhookScope::Namespaces, "{}").needs_namespaces());
        assert!(asked(WebhookScope::All, selector).needs_namespaces());
        assert!(!asked(WebhookScope::Requested, "{}").needs_namespaces());
    }

    #[test]
    fn a_namespace_that_the_webhooks_do_not_select_is_named_with_what_would_change_that() {
        let asked = asked(WebhookScope::All, r#"{"matchLabels": {"team": "a"}}"#);
        let pod = pod(&[(KEY, "true")], &[]);
        assert_eq!(asked.remedy(&pod, Some(&namespace(&[("team", "a")]))), None);
        let remedy = asked.remedy(&pod, Some(&namespace(&[("team", "b")]))).unwrap();
        assert!(remedy.contains(r#"webhook.namespaceSelector (label team must be "a")"#), "{remedy}");
        assert!(asked.leaves_out("own") && !asked.leaves_out("shop"));
    }
}
