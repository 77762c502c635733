//! The status that the node writes for a pod: what controllers, `kubectl` and Helm look at.

use std::{collections::BTreeMap, net::Ipv4Addr};

use k8s_openapi::api::core::v1::{Container, Pod};
use serde_json::{Value, json};

use super::{
    NODE_ADDRESS,
    container::{Activity, ContainerState, Termination},
    timestamp,
};

/// A pod's phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Pending,
    Running,
    Succeeded,
    Failed,
}

impl Phase {
    fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
        }
    }

    pub(super) fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// The states of a pod's containers by name; one that is not there has not been started.
#[derive(Debug, Default)]
pub(super) struct Containers {
    pub(super) init: BTreeMap<String, ContainerState>,
    pub(super) main: BTreeMap<String, ContainerState>,
}

/// Whether an init container is a native sidecar.
pub(super) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

pub(super) fn phase(pod: &Pod, containers: &Containers) -> Phase {
    let Some(spec) = &pod.spec else { return Phase::Pending };
    let never = spec.restart_policy.as_deref() == Some("Never");
    let failed_init = spec.init_containers.iter().flatten().any(|container| {
        !is_sidecar(container)
            && containers
                .init
                .get(&container.name)
                .and_then(ContainerState::exit_code)
                .is_some_and(|code| code != 0)
    });
    if failed_init && never {
        return Phase::Failed;
    }
    let codes: Option<Vec<i32>> = spec
        .containers
        .iter()
        .map(|container| containers.main.get(&container.name).and_then(ContainerState::exit_code))
        .collect();
    match codes {
        Some(codes) if codes.iter().all(|&code| code == 0) => Phase::Succeeded,
        Some(_) => Phase::Failed,
        None if containers.main.len() == spec.containers.len() => Phase::Running,
        None => Phase::Pending,
    }
}

/// The whole status, as a strategic merge patch of the `status` subresource. `transitions` remembers since when each
/// condition has its value.
pub(super) fn patch(
    pod: &Pod,
    containers: &Containers,
    address: Ipv4Addr,
    started: &str,
    transitions: &mut BTreeMap<String, (bool, String)>,
) -> Value {
    let phase = phase(pod, containers);
    let spec = pod.spec.as_ref();
    let init = spec.and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default();
    let main = spec.map(|spec| spec.containers.as_slice()).unwrap_or_default();
    let initialized = init.iter().all(|container| {
        containers.init.get(&container.name).is_some_and(|state| {
            if is_sidecar(container) {
                state.started || phase.is_final()
            } else {
                state.exit_code() == Some(0)
            }
        })
    });
    let all_ready = phase == Phase::Running
        && main.iter().all(|container| containers.main.get(&container.name).is_some_and(|state| state.ready))
        && init
            .iter()
            .filter(|container| is_sidecar(container))
            .all(|container| containers.init.get(&container.name).is_some_and(|state| state.ready));
    let ready = all_ready && readiness_gates_pass(pod);
    let mut conditions = Vec::new();
    for (kind, value, reason) in [
        ("PodReadyToStartContainers", true, None),
        ("Initialized", initialized, Some("ContainersNotInitialized")),
        ("Ready", ready, Some("ContainersNotReady")),
        ("ContainersReady", all_ready, Some("ContainersNotReady")),
        ("PodScheduled", true, None),
    ] {
        let entry = transitions.entry(kind.to_owned()).or_insert_with(|| (value, timestamp()));
        if entry.0 != value {
            *entry = (value, timestamp());
        }
        let reason = match (phase, value) {
            (Phase::Succeeded, false) => Some("PodCompleted"),
            (Phase::Failed, false) => Some("PodFailed"),
            (_, false) => reason,
            (_, true) => None,
        };
        conditions.push(json!({
            "type": kind, "status": if value { "True" } else { "False" }, "reason": reason,
            "lastProbeTime": null, "lastTransitionTime": entry.1,
        }));
    }
    json!({"status": {
        "phase": phase.as_str(),
        "podIP": address,
        "podIPs": [{"ip": address}],
        "hostIP": NODE_ADDRESS,
        "hostIPs": [{"ip": NODE_ADDRESS}],
        "startTime": started,
        "conditions": conditions,
        "initContainerStatuses": statuses(init, &containers.init),
        "containerStatuses": statuses(main, &containers.main),
    }})
}

fn readiness_gates_pass(pod: &Pod) -> bool {
    let gates = pod.spec.as_ref().and_then(|spec| spec.readiness_gates.as_deref()).unwrap_or_default();
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    gates.iter().all(|gate| {
        conditions
            .iter()
            .any(|condition| condition.type_ == gate.condition_type && condition.status == "True")
    })
}

fn statuses(specs: &[Container], states: &BTreeMap<String, ContainerState>) -> Vec<Value> {
    let not_started = ContainerState::waiting("PodInitializing", "");
    specs
        .iter()
        .map(|spec| {
            let state = states.get(&spec.name).unwrap_or(&not_started);
            let current = match &state.activity {
                Activity::Waiting { reason, message } => {
                    json!({"waiting": {"reason": reason, "message": message}})
                }
                Activity::Running { since } => json!({"running": {"startedAt": since}}),
                Activity::Terminated(termination) => json!({"terminated": terminated(termination)}),
            };
            let last =
                state.last.as_ref().map_or_else(|| json!({}), |it| json!({"terminated": terminated(it)}));
            json!({
                "name": spec.name,
                "image": spec.image,
                "imageID": "",
                "ready": state.ready,
                "started": state.started,
                "restartCount": state.restarts,
                "state": current,
                "lastState": last,
            })
        })
        .collect()
}

fn terminated(termination: &Termination) -> Value {
    json!({
        "exitCode": termination.exit_code,
        "reason": termination.reason,
        "startedAt": termination.started,
        "finishedAt": termination.finished,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(code: i32) -> ContainerState {
        let now = timestamp();
        let termination =
            Termination { exit_code: code, reason: "Completed", started: now.clone(), finished: now };
        ContainerState { activity: Activity::Terminated(termination), ..ContainerState::waiting("", "") }
    }

    #[test]
    fn a_pod_that_ran_to_its_end_shows_how() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "a"},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "test"}]}}))
        .unwrap();
        for (code, expected) in [(0, Phase::Succeeded), (3, Phase::Failed)] {
            let containers = Containers {
                main: BTreeMap::from([("test".to_owned(), ended(code))]),
                ..Containers::default()
            };
            assert_eq!(phase(&pod, &containers), expected);
        }
        assert_eq!(phase(&pod, &Containers::default()), Phase::Pending);
    }

    #[test]
    fn a_readiness_gate_holds_back_ready_but_not_containers_ready() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "a"},
            "spec": {"containers": [{"name": "a"}], "readinessGates": [{"conditionType": "example.com/gate"}]}}))
        .unwrap();
        let running = ContainerState {
            activity: Activity::Running { since: timestamp() },
            ready: true,
            ..ContainerState::waiting("", "")
        };
        let containers =
            Containers { main: BTreeMap::from([("a".to_owned(), running)]), ..Containers::default() };
        let patch = patch(&pod, &containers, Ipv4Addr::LOCALHOST, "", &mut BTreeMap::new());
        let status = |kind: &str| {
            let conditions = patch["status"]["conditions"].as_array().unwrap();
            conditions.iter().find(|it| it["type"] == kind).unwrap()["status"].clone()
        };
        assert_eq!(status("ContainersReady"), "True");
        assert_eq!(status("Ready"), "False");
    }
}
