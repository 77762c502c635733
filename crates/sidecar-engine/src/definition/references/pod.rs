//! The pod YAML of a definition: names, references and what Kubernetes refuses.

use super::{At, Report};
use crate::definition::{FieldPath, ProblemCode};
use crate::parameter::plain;
use crate::quantity::Quantity;

/// What only native sidecars may have among the init containers.
const FOR_RUNNING: [&str; 4] = ["livenessProbe", "readinessProbe", "startupProbe", "lifecycle"];

/// What the injected pod YAML has, as far as it is settled.
struct Names<'j> {
    containers: Vec<&'j str>,
    /// Absent: some volumes have expressions for names.
    volumes: Option<Vec<&'j str>>,
}

pub(super) fn check(spec: &At<'_>, report: &mut Report<'_>) {
    let pod = spec.field("inject").and_then(|inject| inject.field("spec"));
    let names = pod.as_ref().map_or_else(Names::none, Names::of);
    if let Some(pod) = &pod {
        check_pod(pod, &names, report);
    }
    for patch in spec.items("patchContainers") {
        check_contents(&patch, &names, report);
        for list in ["names", "kinds"] {
            if patch.json.get(list).and_then(crate::json::Json::items).is_some_and(<[_]>::is_empty) {
                let message = "an empty list selects no container; leave it out to select all";
                report.add(ProblemCode::NeverMatches, &patch.path.field(list), message);
            }
        }
    }
    for list in ["containers", "initContainers"] {
        for (_, name) in spec.field("placement").map(|placement| placement.entries(list)).unwrap_or_default()
        {
            let Some(text) = name.text() else { continue };
            report.label(&name);
            if names.containers.contains(&text) {
                let message = format!(
                    "the definition injects {text:?} itself; it can be placed only beside the pod's own containers"
                );
                report.add(ProblemCode::DanglingReference, &name.path, message);
            }
        }
    }
}

impl<'j> Names<'j> {
    fn none() -> Self {
        Names { containers: Vec::new(), volumes: Some(Vec::new()) }
    }

    fn of(pod: &At<'j>) -> Self {
        let settled = |item: &At<'j>| item.field("name").and_then(|name| name.settled());
        let lists = ["containers", "initContainers"];
        let containers =
            lists.iter().flat_map(|list| pod.items(list)).filter_map(|at| settled(&at)).collect();
        let is_open = pod.field("volumes").is_some_and(|volumes| volumes.is_expression());
        let volumes = pod.items("volumes").iter().map(settled).collect::<Option<Vec<_>>>();
        Names { containers, volumes: volumes.filter(|_| !is_open) }
    }
}

fn check_pod(pod: &At<'_>, names: &Names<'_>, report: &mut Report<'_>) {
    if let Some(ephemeral) = pod.field("ephemeralContainers") {
        let message = "ephemeral containers cannot be injected, Kubernetes adds them to running pods only";
        report.add(ProblemCode::NotAllowed, &ephemeral.path, message);
    }
    let (ordinary, init) = (pod.items("containers"), pod.items("initContainers"));
    for container in ordinary.iter().chain(&init) {
        check_container(container, names, report);
    }
    let container_names: Vec<_> =
        ordinary.iter().chain(&init).filter_map(|container| container.field("name")).collect();
    report.unique(
        "container",
        container_names.iter().filter_map(|name| Some((name.settled()?.to_owned(), &name.path))),
    );
    for container in &init {
        check_init_container(container, report);
    }
    let volumes = pod.items("volumes");
    for name in volumes.iter().filter_map(|volume| volume.field("name")) {
        report.label(&name);
    }
    report.unique_field("volume", &volumes, "name");
}

fn check_container(container: &At<'_>, names: &Names<'_>, report: &mut Report<'_>) {
    if container.json.fields().is_none() {
        return;
    }
    if let Some(name) = container.field("name") {
        report.label(&name);
    }
    if container.field("image").is_none() {
        report.add(ProblemCode::MissingField, &container.path.field("image"), "a container needs an image");
    }
    if let Some(image) = container.field("image")
        && image.text().is_some_and(|text| text.trim().is_empty() || text.trim() != text)
    {
        report.add(ProblemCode::InvalidValue, &image.path, "an image has a name, without blanks around it");
    }
    check_contents(container, names, report);
}

/// Init containers run to their end before the pod does anything else; only native sidecars can be probed.
fn check_init_container(container: &At<'_>, report: &mut Report<'_>) {
    let policy = container.field("restartPolicy");
    if policy.is_some_and(|policy| policy.is_expression() || policy.text() == Some("Always")) {
        return;
    }
    for field in FOR_RUNNING.iter().filter_map(|field| container.field(field).map(|at| (field, at))) {
        let message = format!("an init container has no {}, unless it has restartPolicy: Always", field.0);
        report.add(ProblemCode::NotAllowed, &field.1.path, message);
    }
}

/// What containers and patches have in common.
fn check_contents(container: &At<'_>, names: &Names<'_>, report: &mut Report<'_>) {
    let env = container.items("env");
    report.unique_field("variable", &env, "name");
    for variable in &env {
        if let (Some(_), Some(source)) = (variable.field("value"), variable.field("valueFrom")) {
            let message = "a variable has a value or takes it from somewhere, not both";
            report.add(ProblemCode::NotAllowed, &source.path, message);
        }
    }
    check_ports(&container.items("ports"), report);
    if let Some(resources) = container.field("resources") {
        check_resources(&resources, report);
    }
    let mounts = container.items("volumeMounts");
    report.unique_field("mount at", &mounts, "mountPath");
    let devices = container.items("volumeDevices");
    report.unique_field("device at", &devices, "devicePath");
    let Some(volumes) = &names.volumes else { return };
    for name in mounts.iter().chain(&devices).filter_map(|mount| mount.field("name")) {
        if let Some(text) = name.settled().filter(|text| !volumes.contains(text)) {
            let message = format!("there is no volume {text:?} in inject.spec.volumes, add it there");
            report.dangling(&name.path, message, text, volumes);
        }
    }
}

fn check_resources(resources: &At<'_>, report: &mut Report<'_>) {
    let limits = resources.entries("limits");
    let quantity = |at: &At<'_>| Quantity::parse(&plain(at.json)).filter(|_| !at.is_expression());
    for (resource, request) in resources.entries("requests") {
        let limit = limits.iter().find(|(limited, _)| *limited == resource);
        let limit = limit.and_then(|(_, limit)| quantity(limit));
        if quantity(&request).zip(limit).is_some_and(|(request, limit)| request > limit) {
            let message = format!("requests more {resource} than its limit");
            report.add(ProblemCode::InvalidValue, &request.path, message);
        }
    }
}

fn check_ports(ports: &[At<'_>], report: &mut Report<'_>) {
    let key = |port: &At<'_>| {
        let number = port.field("containerPort").filter(|number| !number.is_expression())?;
        let protocol = port.field("protocol");
        let protocol = protocol.map_or(Some("TCP"), |protocol| protocol.settled())?;
        Some((format!("{}/{protocol}", number.json), number.path))
    };
    let keys: Vec<(String, FieldPath)> = ports.iter().filter_map(key).collect();
    report.unique("port", keys.iter().map(|(key, path)| (key.clone(), path)));
    report.unique_field("port", ports, "name");
}
