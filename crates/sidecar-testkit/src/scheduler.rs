//! Puts every pod on the one node there is. Selectors, taints, affinity and resources are not looked at.

use std::{collections::HashSet, pin::pin, time::Duration};

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::{Binding, Pod};
use kube::{
    Api, Client, ResourceExt,
    api::PostParams,
    runtime::watcher::{self, Event, watcher},
};
use serde_json::json;

/// Never ends.
pub(crate) async fn run(client: Client, node: &'static str) {
    let pods: Api<Pod> = Api::all(client.clone());
    let mut bound: HashSet<String> = HashSet::new();
    let mut events = pin!(watcher(pods, watcher::Config::default().fields("spec.nodeName=")));
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::InitApply(pod) | Event::Apply(pod)) => {
                if is_waiting(&pod) && pod.metadata.uid.clone().is_some_and(|uid| bound.insert(uid)) {
                    tokio::spawn(bind(client.clone(), pod, node));
                }
            }
            // A pod that got its node leaves this watch, too.
            Ok(Event::Delete(pod)) => {
                if let Some(uid) = &pod.metadata.uid {
                    bound.remove(uid);
                }
            }
            Ok(Event::Init | Event::InitDone) => {}
            // The API server may be down on purpose.
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

fn is_waiting(pod: &Pod) -> bool {
    let spec = pod.spec.as_ref();
    let gated = spec.and_then(|spec| spec.scheduling_gates.as_ref()).is_some_and(|gates| !gates.is_empty());
    !gated && pod.metadata.deletion_timestamp.is_none() && spec.is_some_and(|spec| spec.node_name.is_none())
}

async fn bind(client: Client, pod: Pod, node: &str) {
    let (name, namespace) = (pod.name_any(), pod.namespace().unwrap_or_default());
    let api: Api<Pod> = Api::namespaced(client, &namespace);
    let binding = json!({
        "metadata": {"name": name, "uid": pod.metadata.uid},
        "target": {"kind": "Node", "name": node},
    });
    let Ok(binding) = serde_json::from_value::<Binding>(binding) else { return };
    for _ in 0..20 {
        let answer: kube::Result<serde_json::Value> =
            api.create_subresource("binding", &name, &PostParams::default(), &binding).await;
        match answer {
            Ok(_) => return,
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => return,
            Err(_) => tokio::time::sleep(Duration::from_millis(300)).await,
        }
    }
}
