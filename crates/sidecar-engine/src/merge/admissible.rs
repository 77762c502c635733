//! What the API server would refuse about a pod, looked for in what a definition changes, before it is sent.
//!
//! A pod that is refused because of its sidecar is a pod that does not start because of us. The rules are those of
//! pkg/apis/core/v1/validation and of the admission plugins that run after webhooks.

use std::cell::OnceCell;
use std::collections::BTreeSet;

use super::draft::Blocked;
use crate::decision::Reason;
use crate::json::Json;
use crate::names;
use crate::parameter::plain;
use crate::quantity::Quantity;
use crate::render::Fragment;

/// All annotations together (apimachinery pkg/api/validation/objectmeta.go, `TotalAnnotationSizeLimitB`).
const ANNOTATIONS_SIZE: usize = 256 * 1024;

/// Looks at the pod as it would be, where the fragment has changed it. `promised` are names of volumes that it gets later.
pub(super) fn check(pod: &Json<'_>, fragment: &Fragment<'_>, promised: &[String]) -> Result<(), Blocked> {
    let refused = |problem: Option<String>| match problem {
        Some(problem) => Err(Blocked::new(Reason::WouldBeRejected, problem)),
        None => Ok(()),
    };
    let injected_metadata = fragment.pod.get("metadata");
    if let Some(metadata) = injected_metadata {
        refused(labels(metadata.get("labels")))?;
        if let Some(injected) = metadata.get("annotations") {
            let mut keys = injected.fields().into_iter().flatten().map(|(key, _)| key);
            let wrong = keys.find(|key| !names::is_key(&key.to_lowercase()));
            refused(wrong.map(|_| "a key cannot be that of an annotation".to_owned()))?;
            refused(annotations(pod))?;
        }
    }
    let Some(spec) = pod.get("spec") else { return Ok(()) };
    let injected = fragment.pod.get("spec");
    let volumes = Volumes { names: OnceCell::new(), spec, promised, fragment };
    // Whether it is the definition's own, or one of the pod's that is patched.
    let mut touched: Vec<(&str, String, bool)> = Vec::new();
    for list in ["containers", "initContainers"] {
        let items = injected.and_then(|spec| spec.get(list)).and_then(Json::items).unwrap_or_default();
        touched
            .extend(items.iter().filter_map(|item| Some((list, item.text_of("name")?.into_owned(), true))));
    }
    for patch in &fragment.patches {
        touched.push((patch.list, patch.container.clone(), false));
    }
    for (list, name, is_injected) in &touched {
        let items = spec.get(list).and_then(Json::items).unwrap_or_default();
        let found = items.iter().find(|item| item.text_of("name").as_deref() == Some(name));
        let Some(container) = found else { continue };
        refused(is_injected.then(|| image(container, name)).flatten())?;
        refused(self::container(container, list, name, &volumes))?;
    }
    if let Some(volumes) = injected.and_then(|spec| spec.get("volumes")) {
        for volume in volumes.items().unwrap_or_default() {
            refused(dns_label("volume", &volume.text_of("name").unwrap_or_default()))?;
        }
    }
    let has_ports = |container: &Json<'_>| container.field("ports").is_some();
    let injected_containers = injected.and_then(|spec| spec.get("containers")).and_then(Json::items);
    if injected_containers.unwrap_or_default().iter().any(has_ports)
        || fragment.patches.iter().any(|patch| has_ports(&patch.fields))
        || injected.is_some_and(|spec| spec.get("hostNetwork").is_some())
    {
        refused(host_ports(spec))?;
    }
    refused(pod_level_resources(spec))?;
    if injected.is_some_and(|spec| spec.get("dnsConfig").is_some() || spec.get("dnsPolicy").is_some()) {
        refused(name_resolution(spec))?;
    }
    let tolerations = injected.and_then(|spec| spec.get("tolerations")).and_then(Json::items);
    if tolerations.unwrap_or_default().iter().any(is_without_key) {
        refused(Some("a toleration without a key must have the operator Exists".to_owned()))?;
    }
    if injected.is_some_and(|injected| injected.get("securityContext").is_some()) {
        refused(profiles(spec).map(|problem| format!("the pod {problem}")))?;
    }
    if injected.is_some_and(|injected| injected.get("schedulingGates").is_some())
        && spec.get("nodeName").is_some()
    {
        refused(Some(
            "the pod is bound to a node already (spec.nodeName), scheduling gates cannot be added".to_owned(),
        ))?;
    }
    Ok(())
}

fn is_without_key(toleration: &Json<'_>) -> bool {
    toleration.text_of("key").unwrap_or_default().is_empty()
        && toleration.text_of("operator").as_deref() != Some("Exists")
}

/// The names of the pod's volumes, read when the first mount asks for them. Volumes that cannot be read have any name.
struct Volumes<'s, 'a> {
    names: OnceCell<Option<BTreeSet<String>>>,
    spec: &'s Json<'a>,
    promised: &'s [String],
    fragment: &'s Fragment<'s>,
}

impl Volumes<'_, '_> {
    fn has(&self, name: &str) -> bool {
        let read = || match self.spec.field("volumes") {
            None => Some(BTreeSet::new()),
            Some(volumes) => volumes.resolve().items().map(|items| {
                let names = items.iter().filter_map(|item| Some(item.field("name")?.text()?.into_owned()));
                names.collect()
            }),
        };
        self.names.get_or_init(read).as_ref().is_none_or(|names| names.contains(name))
            || self.promised.iter().any(|promised| promised == name)
    }

    /// Whether the fragment mounts it: mounts of the pod's own are for others to judge, who may know of more volumes.
    fn is_wanted(&self, name: &str) -> bool {
        let spec = self.fragment.pod.get("spec");
        let lists = ["containers", "initContainers"].into_iter();
        let injected = lists.filter_map(|list| spec?.get(list)?.items()).flatten();
        let mounts = |container: &Json<'_>, list: &str| {
            let mounts = container.field(list);
            let mounts = mounts.as_ref().map(Json::resolve);
            let items = mounts.as_ref().and_then(|mounts| mounts.items()).unwrap_or_default();
            items.iter().any(|item| {
                item.field("name").and_then(|name| Some(name.text()?.into_owned())).as_deref() == Some(name)
            })
        };
        injected
            .chain(self.fragment.patches.iter().map(|patch| &patch.fields))
            .any(|container| mounts(container, "volumeMounts") || mounts(container, "volumeDevices"))
    }
}

fn container(container: &Json<'_>, list: &str, name: &str, volumes: &Volumes<'_, '_>) -> Option<String> {
    let container = container.resolve();
    let problem = dns_label("container", name);
    let problem = problem.or_else(|| mounts(&container, name, volumes));
    let problem = problem.or_else(|| ports(&container, name));
    let problem = problem.or_else(|| resources(&container, name));
    let problem = problem.or_else(|| hooks(&container, name, volumes.spec));
    let problem =
        problem.or_else(|| profiles(&container).map(|problem| format!("container {name:?} {problem}")));
    problem.or_else(|| {
        let is_ordinary =
            list == "initContainers" && container.text_of("restartPolicy").as_deref() != Some("Always");
        let fields = ["livenessProbe", "readinessProbe", "startupProbe", "lifecycle"];
        let field = fields.into_iter().find(|field| is_ordinary && container.get(field).is_some())?;
        Some(format!("init container {name:?} cannot have a {field}"))
    })
}

/// A name as RFC 1123 wants it.
fn dns_label(what: &str, name: &str) -> Option<String> {
    (!names::is_label(name)).then(|| {
        format!("the name of a {what} must be lower-case letters, digits and inner hyphens, 63 at most")
    })
}

/// An image must be there; what is around its name makes it another one.
fn image(container: &Json<'_>, name: &str) -> Option<String> {
    let image = container.field("image");
    let image = image.as_ref().and_then(Json::text).unwrap_or_default();
    if image.is_empty() {
        return Some(format!("container {name:?} has no image"));
    }
    (image.trim() != image).then(|| format!("container {name:?} has blanks around its image"))
}

/// Mounts of volumes that are there, each path once, devices included.
fn mounts(container: &Json<'_>, name: &str, volumes: &Volumes<'_, '_>) -> Option<String> {
    let mut paths = BTreeSet::new();
    for (list, key) in [("volumeMounts", "mountPath"), ("volumeDevices", "devicePath")] {
        let Some(items) = container.field(list) else { continue };
        let items = items.resolve();
        for (index, item) in items.items().unwrap_or_default().iter().enumerate() {
            let volume =
                item.field("name").and_then(|name| Some(name.text()?.into_owned())).unwrap_or_default();
            if !volumes.has(&volume) && volumes.is_wanted(&volume) {
                return Some(format!(
                    "container {name:?} mounts a volume that is not there ({list}[{index}])"
                ));
            }
            let propagation = item.field("mountPropagation");
            if propagation.is_some_and(|how| how.text().as_deref() == Some("Bidirectional"))
                && !is_privileged(container)
            {
                return Some(format!(
                    "container {name:?} has a mountPropagation Bidirectional, which only privileged ones can have"
                ));
            }
            let path = item.field(key).and_then(|path| Some(path.text()?.into_owned())).unwrap_or_default();
            if !paths.insert(path) {
                return Some(format!("container {name:?} mounts two things at one path ({list}[{index}])"));
            }
        }
    }
    None
}

fn is_privileged(container: &Json<'_>) -> bool {
    let context = container.field("securityContext");
    context.and_then(|context| context.field("privileged")?.resolve().flag()) == Some(true)
}

/// Names of ports, each once in a container.
fn ports(container: &Json<'_>, name: &str) -> Option<String> {
    let ports = container.field("ports")?;
    let ports = ports.resolve();
    let mut names = BTreeSet::new();
    for (index, port) in ports.items().unwrap_or_default().iter().enumerate() {
        let Some(port_name) = port.field("name").and_then(|name| Some(name.text()?.into_owned())) else {
            continue;
        };
        if !names.insert(port_name) {
            return Some(format!("container {name:?} has two ports of one name (ports[{index}])"));
        }
    }
    None
}

/// Requests within their limits (pkg/apis/core/validation, `ValidateContainerResourceRequirements`). A parameter that
/// raises the one easily passes the other.
fn resources(container: &Json<'_>, name: &str) -> Option<String> {
    let resources = container.field("resources")?;
    let (requests, limits) = (resources.field("requests")?, resources.field("limits")?);
    for (resource, request) in requests.resolve().fields()? {
        let Some(limit) = limits.field(resource) else { continue };
        let quantity = |json: &Json<'_>| Quantity::parse(&plain(json));
        if quantity(request).zip(quantity(&limit)).is_some_and(|(request, limit)| request > limit) {
            return Some(format!("container {name:?} would request more {resource} than its limit"));
        }
    }
    None
}

/// Kubernetes' default of `terminationGracePeriodSeconds`.
const GRACE_PERIOD: i64 = 30;

/// No hook sleeps longer than the pod has time to end (pkg/apis/core/validation, `validateSleepAction`).
fn hooks(container: &Json<'_>, name: &str, spec: &Json<'_>) -> Option<String> {
    let number = |json: Json<'_>| match json.resolve().as_ref() {
        Json::Number(number) => number.as_i64(),
        _ => None,
    };
    let lifecycle = container.field("lifecycle")?;
    for hook in ["postStart", "preStop"] {
        let sleep = lifecycle.field(hook).and_then(|hook| hook.field("sleep")?.field("seconds"));
        let grace = spec.field("terminationGracePeriodSeconds").and_then(number).unwrap_or(GRACE_PERIOD);
        if let Some(seconds) = sleep.and_then(number).filter(|seconds| *seconds > grace) {
            let when = if hook == "preStop" { "before it stops" } else { "after its start" };
            return Some(format!(
                "container {name:?} would sleep for {seconds} s {when}, the pod has {grace} s (terminationGracePeriodSeconds)"
            ));
        }
    }
    None
}

/// A profile of the node has a name, and no other one has (pkg/apis/core/validation, `validateSeccompProfileField`).
fn profiles(owner: &Json<'_>) -> Option<String> {
    let context = owner.field("securityContext")?;
    ["seccompProfile", "appArmorProfile"].into_iter().find_map(|field| {
        let profile = context.field(field)?;
        let is_local = profile.field("type").is_some_and(|kind| kind.text().as_deref() == Some("Localhost"));
        let has_name = profile.field("localhostProfile").is_some();
        (is_local != has_name)
            .then(|| format!("has a {field} that needs localhostProfile with type Localhost, and only there"))
    })
}

/// Ports of the node: each once among the ordinary containers. On the node's network every port is one of the node.
fn host_ports(spec: &Json<'_>) -> Option<String> {
    let is_on_host = spec.get("hostNetwork").and_then(Json::flag) == Some(true);
    let mut taken = BTreeSet::new();
    for container in spec.get("containers").and_then(Json::items).unwrap_or_default() {
        let Some(ports) = container.field("ports") else { continue };
        for port in ports.resolve().items().unwrap_or_default() {
            let number = |key: &str| port.field(key).map(|port| port.to_string()).filter(|port| port != "0");
            let (host_port, own) = (number("hostPort"), number("containerPort"));
            if is_on_host && host_port.is_some() && host_port != own {
                return Some("on the node's network a hostPort must be the containerPort".to_owned());
            }
            let Some(host_port) = host_port.or(own.filter(|_| is_on_host)) else { continue };
            let of = |key: &str, default: &str| {
                let value = port.field(key).and_then(|value| Some(value.text()?.into_owned()));
                value.unwrap_or_else(|| default.to_owned())
            };
            if !taken.insert((of("hostIP", ""), of("protocol", "TCP"), host_port.clone())) {
                return Some(format!("two containers want the node's port {host_port}"));
            }
        }
    }
    None
}

fn labels(labels: Option<&Json<'_>>) -> Option<String> {
    for (key, value) in labels?.fields()? {
        let Some(value) = value.text() else { return Some(format!("the label {key} is not a string")) };
        if !names::is_key(key) {
            return Some("a key cannot be that of a label".to_owned());
        }
        if !names::is_label_value(&value) {
            return Some(format!(
                "the value of the label {key} must be letters, digits, \"-\", \"_\" and \".\", 63 at most"
            ));
        }
    }
    None
}

fn annotations(pod: &Json<'_>) -> Option<String> {
    let annotations = pod.get("metadata")?.field("annotations")?;
    let annotations = annotations.resolve();
    let size = |(key, value): &(std::borrow::Cow<'_, str>, Json<'_>)| {
        key.len() + value.text().map_or(0, |text| text.len())
    };
    if let Some((key, _)) =
        annotations.fields()?.iter().find(|(_, value)| value.text().is_none() && !value.is_null())
    {
        return Some(format!("the annotation {key} is not a string"));
    }
    let total: usize = annotations.fields()?.iter().map(size).sum();
    (total > ANNOTATIONS_SIZE)
        .then(|| format!("the annotations would have {total} bytes, {ANNOTATIONS_SIZE} are allowed"))
}

/// Where the pod sets its resources as a whole, its containers must fit in (pkg/apis/core/validation,
/// `validatePodResources`): what they request together, as the scheduler counts, and each ordinary container's limit.
fn pod_level_resources(spec: &Json<'_>) -> Option<String> {
    let pod = spec.field("resources")?;
    let quantity = |of: &Json<'_>, kind: &str, resource: &str| {
        Quantity::parse(&plain(&of.field(kind)?.field(resource)?))
    };
    for resource in ["cpu", "memory"] {
        let (request, limit) = (quantity(&pod, "requests", resource), quantity(&pod, "limits", resource));
        // Native sidecars stay; an ordinary init container runs beside those that were started before it, and ends.
        let (mut sum, mut greatest) = (Quantity::ZERO, Quantity::ZERO);
        for list in ["initContainers", "containers"] {
            for container in spec.get(list).and_then(Json::items).unwrap_or_default() {
                let restarts = container.field("restartPolicy");
                let is_sidecar = restarts.is_some_and(|policy| policy.text().as_deref() == Some("Always"));
                let Some(resources) = container.field("resources") else { continue };
                let own_limit = quantity(&resources, "limits", resource);
                if let (Some(own), Some(limit)) = (own_limit, limit)
                    && list == "containers"
                    && own > limit
                {
                    return Some(format!("a container's {resource} limit would be above the pod's"));
                }
                // Limits without requests become requests when the pod is stored.
                let Some(own) = quantity(&resources, "requests", resource).or(own_limit) else { continue };
                let beside = sum.plus(own)?;
                greatest = greatest.max(beside);
                if list == "containers" || is_sidecar {
                    sum = beside;
                }
            }
        }
        if let Some(request) = request
            && greatest > request
        {
            return Some(format!(
                "the containers' {resource} requests would be above the pod's ({resource} in spec.resources.requests)"
            ));
        }
    }
    None
}

/// How many servers and search domains a resolver takes (pkg/apis/core/validation, `validatePodDNSConfig`), and that there
/// is one where the cluster's is not used.
fn name_resolution(spec: &Json<'_>) -> Option<String> {
    let config = spec.field("dnsConfig");
    let count = |list: &str| {
        let items = config.as_ref().and_then(|config| config.field(list));
        items.as_ref().map(Json::resolve).and_then(|items| items.items().map(<[_]>::len)).unwrap_or_default()
    };
    for (list, limit) in [("nameservers", 3), ("searches", 32)] {
        let count = count(list);
        if count > limit {
            return Some(format!("the pod would have {count} {list} in dnsConfig, {limit} are allowed"));
        }
    }
    let is_none = spec.field("dnsPolicy").is_some_and(|policy| policy.text().as_deref() == Some("None"));
    (is_none && count("nameservers") == 0)
        .then(|| "the pod would have the dnsPolicy None and no nameservers in dnsConfig".to_owned())
}
