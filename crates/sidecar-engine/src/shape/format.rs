//! What a value must look like, beyond its type. Kubernetes' schema says only that these are strings or numbers; the rules are
//! those of its validation (pkg/apis/core/validation) and of the API reference, written down by hand.

use std::net::IpAddr;

use Format::{
    Address, Any, ConfigKey, HeaderName, HostPath, Label, LabelKey, LabelValue, NotNegative, OneOf, PodField,
    Port, PortName, Relative, SearchDomain, Subdomain, Variable, Within,
};

use crate::json::Json;
use crate::names;
use crate::quantity::Quantity;

/// A rule for the scalars in a field: the value itself, the items of a list, the values of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Any,
    /// A value of a newer Kubernetes passes where its fields do. The empty one is listed where Kubernetes has a default for it.
    OneOf(&'static [&'static str]),
    /// A number from the first to the second.
    Within(i64, i64),
    /// A quantity.
    NotNegative,
    Label,
    Subdomain,
    LabelKey,
    LabelValue,
    PortName,
    /// The number of a port, or its name.
    Port,
    Address,
    SearchDomain,
    HeaderName,
    /// An environment variable.
    Variable,
    /// In a ConfigMap or a Secret.
    ConfigKey,
    /// What the downward API can give of a pod.
    PodField,
    /// A path below another one.
    Relative,
    HostPath,
}

/// Kubernetes' largest user, group, and number of seconds.
const MAXIMUM: i64 = i32::MAX as i64;
const COUNT: Format = Within(0, MAXIMUM);
const POSITIVE: Format = Within(1, MAXIMUM);
const PORT: Format = Within(1, 65535);
const MODE: Format = Within(0, 0o777);

/// Type, field, rule.
pub(crate) const FORMATS: [(&str, &str, Format); 78] = [
    ("AppArmorProfile", "type", OneOf(&["Localhost", "RuntimeDefault", "Unconfined"])),
    ("Container", "imagePullPolicy", OneOf(&["", "Always", "IfNotPresent", "Never"])),
    ("Container", "restartPolicy", OneOf(&["Always", "OnFailure", "Never"])),
    ("Container", "terminationMessagePolicy", OneOf(&["", "File", "FallbackToLogsOnError"])),
    ("ContainerPort", "protocol", OneOf(&["", "TCP", "UDP", "SCTP"])),
    ("HTTPGetAction", "scheme", OneOf(&["", "HTTP", "HTTPS"])),
    (
        "HostPathVolumeSource",
        "type",
        OneOf(&[
            "",
            "DirectoryOrCreate",
            "Directory",
            "FileOrCreate",
            "File",
            "Socket",
            "CharDevice",
            "BlockDevice",
        ]),
    ),
    ("LabelSelectorRequirement", "operator", OneOf(&["In", "NotIn", "Exists", "DoesNotExist"])),
    ("NodeSelectorRequirement", "operator", OneOf(&["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"])),
    ("PodSecurityContext", "fsGroupChangePolicy", OneOf(&["Always", "OnRootMismatch"])),
    ("PodSecurityContext", "supplementalGroupsPolicy", OneOf(&["Merge", "Strict"])),
    ("PodSpec", "dnsPolicy", OneOf(&["", "ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"])),
    ("PodSpec", "preemptionPolicy", OneOf(&["PreemptLowerPriority", "Never"])),
    ("PodSpec", "restartPolicy", OneOf(&["", "Always", "OnFailure", "Never"])),
    ("SeccompProfile", "type", OneOf(&["Localhost", "RuntimeDefault", "Unconfined"])),
    ("SecurityContext", "procMount", OneOf(&["Default", "Unmasked"])),
    ("Toleration", "effect", OneOf(&["", "NoSchedule", "PreferNoSchedule", "NoExecute"])),
    ("Toleration", "operator", OneOf(&["", "Exists", "Equal", "Lt", "Gt"])),
    ("TopologySpreadConstraint", "whenUnsatisfiable", OneOf(&["DoNotSchedule", "ScheduleAnyway"])),
    ("VolumeMount", "mountPropagation", OneOf(&["None", "HostToContainer", "Bidirectional"])),
    ("ConfigMapEnvSource", "name", Subdomain),
    ("ConfigMapKeySelector", "key", ConfigKey),
    ("ConfigMapKeySelector", "name", Subdomain),
    ("ConfigMapVolumeSource", "defaultMode", MODE),
    ("ContainerPort", "containerPort", PORT),
    ("ContainerPort", "hostPort", Within(0, 65535)),
    ("ContainerPort", "name", PortName),
    ("ContainerResizePolicy", "restartPolicy", OneOf(&["NotRequired", "RestartContainer"])),
    ("DownwardAPIVolumeFile", "mode", MODE),
    ("DownwardAPIVolumeFile", "path", Relative),
    ("DownwardAPIVolumeSource", "defaultMode", MODE),
    ("EmptyDirVolumeSource", "sizeLimit", NotNegative),
    ("EnvVar", "name", Variable),
    ("GRPCAction", "port", PORT),
    ("HTTPGetAction", "port", Port),
    ("HTTPHeader", "name", HeaderName),
    ("HostAlias", "hostnames", Subdomain),
    ("HostAlias", "ip", Address),
    ("HostPathVolumeSource", "path", HostPath),
    ("KeyToPath", "mode", MODE),
    ("KeyToPath", "path", Relative),
    ("ObjectFieldSelector", "fieldPath", PodField),
    ("PodDNSConfig", "nameservers", Address),
    ("PodDNSConfig", "searches", SearchDomain),
    ("PodSecurityContext", "fsGroup", COUNT),
    ("PodSecurityContext", "runAsGroup", COUNT),
    ("PodSecurityContext", "runAsUser", COUNT),
    ("PodSecurityContext", "supplementalGroups", COUNT),
    ("PodSpec", "activeDeadlineSeconds", POSITIVE),
    ("PodSpec", "hostname", Label),
    ("PodSpec", "nodeName", Subdomain),
    ("PodSpec", "nodeSelector", LabelValue),
    ("PodSpec", "overhead", NotNegative),
    ("PodSpec", "priorityClassName", Subdomain),
    ("PodSpec", "runtimeClassName", Subdomain),
    ("PodSpec", "serviceAccountName", Subdomain),
    ("PodSpec", "subdomain", Label),
    ("Probe", "failureThreshold", COUNT),
    ("Probe", "initialDelaySeconds", COUNT),
    ("Probe", "periodSeconds", COUNT),
    ("Probe", "successThreshold", COUNT),
    ("Probe", "terminationGracePeriodSeconds", Within(1, i64::MAX)),
    ("Probe", "timeoutSeconds", COUNT),
    ("ProjectedVolumeSource", "defaultMode", MODE),
    ("ResourceRequirements", "limits", NotNegative),
    ("ResourceRequirements", "requests", NotNegative),
    ("SecretEnvSource", "name", Subdomain),
    ("SecretKeySelector", "key", ConfigKey),
    ("SecretKeySelector", "name", Subdomain),
    ("SecretVolumeSource", "defaultMode", MODE),
    ("SecurityContext", "runAsGroup", COUNT),
    ("SecurityContext", "runAsUser", COUNT),
    ("SleepAction", "seconds", Within(0, i64::MAX)),
    ("TCPSocketAction", "port", Port),
    ("Toleration", "key", LabelKey),
    ("TopologySpreadConstraint", "maxSkew", POSITIVE),
    ("TopologySpreadConstraint", "minDomains", POSITIVE),
    ("VolumeMount", "subPath", Relative),
];

/// What the downward API can give, beside single labels and annotations.
const POD_FIELDS: [&str; 11] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "metadata.labels",
    "metadata.annotations",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

impl Format {
    /// The rule for a field.
    pub(crate) fn of(type_name: &str, field: &str) -> Self {
        let found = FORMATS.iter().find(|(of_type, name, _)| *of_type == type_name && *name == field);
        found.map_or(Any, |(_, _, format)| *format)
    }

    /// Whether a scalar keeps the rule. What has another type is not looked at, and neither is an empty string, but for lists
    /// of words: it is Kubernetes' absent.
    pub(crate) fn allows(self, json: &Json<'_>) -> bool {
        match (self, json) {
            (Within(least, greatest), Json::Number(number)) => {
                number.as_i64().is_some_and(|number| (least..=greatest).contains(&number))
            }
            (Port, Json::Number(number)) => {
                number.as_i64().is_some_and(|number| (1..=65535).contains(&number))
            }
            (NotNegative, Json::Text(_) | Json::Number(_)) => Quantity::parse(&crate::parameter::plain(json))
                .is_none_or(|quantity| quantity >= Quantity::ZERO),
            (OneOf(values), Json::Text(text)) => values.contains(&&**text),
            (_, Json::Text(text)) => text.is_empty() || self.allows_text(text),
            _ => true,
        }
    }

    fn allows_text(self, text: &str) -> bool {
        let has_parent = || text.split('/').any(|part| part == "..");
        match self {
            Any | OneOf(_) | Within(..) | NotNegative => true,
            Label => names::is_label(text),
            Subdomain => names::is_subdomain(text),
            LabelKey => names::is_key(text),
            LabelValue => names::is_label_value(text),
            PortName | Port => names::is_port_name(text),
            // API servers before 1.36 take `010.0.0.1`.
            Address => without_zeros(text).parse::<IpAddr>().is_ok(),
            // A dot at the end, and words that begin with an underscore.
            SearchDomain => {
                text == "." || names::is_subdomain(&text.strip_suffix('.').unwrap_or(text).replace('_', "x"))
            }
            HeaderName => text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'),
            Variable => text.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'='),
            ConfigKey => {
                let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
                text.len() <= 253 && text.bytes().all(inner) && text != "." && !text.starts_with("..")
            }
            PodField => {
                let key = |map: &str| text.strip_prefix(map)?.strip_prefix("['")?.strip_suffix("']");
                let key = key("metadata.labels").or_else(|| key("metadata.annotations"));
                // The old name of `spec.nodeName`.
                text == "spec.host"
                    || POD_FIELDS.contains(&text)
                    || key.is_some_and(|key| names::is_key(&key.to_lowercase()))
            }
            Relative => !text.starts_with('/') && !has_parent(),
            HostPath => !has_parent(),
        }
    }

    /// The rule, for messages: `must be …`.
    pub(crate) fn described(self) -> String {
        match self {
            Any => "must be anything".to_owned(),
            OneOf(values) => {
                let values: Vec<_> = values.iter().filter(|value| !value.is_empty()).copied().collect();
                format!("must be one of {}", values.join(", "))
            }
            Within(least, i64::MAX) => format!("must be at least {least}"),
            Within(least, MAXIMUM) => format!("must be at least {least} and at most {MAXIMUM}"),
            MODE => "must be within 0 and 0777, in octal digits".to_owned(),
            Within(least, greatest) => format!("must be within {least} and {greatest}"),
            NotNegative => "must not be negative".to_owned(),
            Label => "must be lower-case letters, digits and inner hyphens, at most 63".to_owned(),
            Subdomain => "must be lower-case letters, digits and inner hyphens and dots".to_owned(),
            LabelKey => "must be a key as labels have it".to_owned(),
            LabelValue => "must be a value as labels have it".to_owned(),
            PortName => {
                "must be at most 15 lower-case letters, digits and single inner hyphens, a letter among them"
                    .to_owned()
            }
            Port => "must be a port within 1 and 65535, or the name of one".to_owned(),
            Address => "must be an IP address".to_owned(),
            SearchDomain => "must be a domain".to_owned(),
            HeaderName => "must be letters, digits and hyphens".to_owned(),
            Variable => "must be printable ASCII without \"=\"".to_owned(),
            ConfigKey => "must be letters, digits, \"-\", \"_\" and \".\"".to_owned(),
            PodField => format!(
                "must be one of {}, or metadata.labels['KEY'], metadata.annotations['KEY']",
                POD_FIELDS.join(", ")
            ),
            Relative => "must be a relative path without \"..\"".to_owned(),
            HostPath => "must be a path without \"..\"".to_owned(),
        }
    }

    /// What was probably meant.
    pub(crate) fn suggestion(self, text: &str) -> Option<String> {
        match self {
            OneOf(values) => crate::suggestion::nearest(text, values.iter().copied()).map(str::to_owned),
            Label | Subdomain => names::nearest_label(text),
            PortName | Port => names::nearest_label(text).filter(|label| names::is_port_name(label)),
            PodField => crate::suggestion::nearest(text, POD_FIELDS).map(str::to_owned),
            _ => None,
        }
    }
}

fn without_zeros(address: &str) -> String {
    let number = |part: &str| {
        let rest = part.trim_start_matches('0');
        if rest.is_empty() && !part.is_empty() { "0".to_owned() } else { rest.to_owned() }
    };
    if address.contains(':') {
        return address.to_owned();
    }
    address.split('.').map(number).collect::<Vec<_>>().join(".")
}
