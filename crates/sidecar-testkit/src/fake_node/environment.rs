//! Environment and arguments of a container, as the kubelet makes them, with paths and addresses of this machine.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::OsString,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::{
    core::v1::{Container, EnvVarSource, Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::{Api, ResourceExt, api::ListParams};

use super::{
    NODE_ADDRESS, Shared,
    volumes::{config_map, secret},
};

/// The image's entry point and default arguments.
const ENTRY_POINT: &str = "/sidecar-injector";
const DEFAULT_ARGUMENTS: [&str; 1] = ["serve"];
/// Where clients inside a pod look for the service account.
const ACCOUNT_FOLDER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Where the container's paths are on this machine, longest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Mounts(Vec<(String, PathBuf)>);

impl Mounts {
    pub(super) fn new(mut mounts: Vec<(String, PathBuf)>) -> Self {
        mounts.sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
        Self(mounts)
    }

    fn host_path(&self, path: &str) -> Option<PathBuf> {
        self.0.iter().find_map(|(mount, host)| {
            let rest = path.strip_prefix(mount.trim_end_matches('/'))?;
            match rest.strip_prefix('/') {
                Some(rest) => Some(host.join(rest)),
                None if rest.is_empty() => Some(host.clone()),
                None => None,
            }
        })
    }

    /// A value with the path in it replaced: `/path` or `--flag=/path`.
    fn rewrite(&self, value: &str) -> String {
        let (before, path) = match value.split_once('=') {
            Some((flag, path)) if flag.starts_with('-') => (Some(flag), path),
            _ => (None, value),
        };
        match (self.host_path(path), before) {
            (Some(host), Some(flag)) => format!("{flag}={}", host.display()),
            (Some(host), None) => host.display().to_string(),
            (None, _) => value.to_owned(),
        }
    }
}

/// What to run for a container.
#[derive(Debug)]
pub(super) struct Invocation {
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<OsString>,
    pub(super) environment: BTreeMap<String, OsString>,
}

/// Resolves everything that the pod says about how to run a container.
pub(super) async fn invocation(
    shared: &Shared,
    pod: &Pod,
    address: Ipv4Addr,
    container: &Container,
    mounts: &Mounts,
    kubeconfig: &Path,
) -> Result<Invocation> {
    let host = shared.block.host_address(address).context("not a pod address")?;
    let variables = variables(shared, pod, address, container).await?;
    let expand = |text: &str| mounts.rewrite(&expand(text, &variables));
    let mut words: Vec<String> = container.command.iter().flatten().map(|word| expand(word)).collect();
    let arguments = container.args.iter().flatten().map(|word| expand(word));
    if words.is_empty() {
        words.push(ENTRY_POINT.to_owned());
        if container.args.is_none() {
            words.extend(DEFAULT_ARGUMENTS.map(str::to_owned));
        }
    }
    words.extend(arguments);
    let binary = shared.injector.clone().context("the test bed was started without an injector binary")?;
    let program = match words.remove(0).as_str() {
        ENTRY_POINT | "sidecar-injector" => binary,
        other => bail!("exec: \"{other}\": the image holds {ENTRY_POINT} and nothing else"),
    };
    let mut environment: BTreeMap<String, OsString> =
        variables.iter().map(|(name, value)| (name.clone(), mounts.rewrite(value).into())).collect();
    environment.entry("HOSTNAME".into()).or_insert_with(|| pod.name_any().into());
    // All pods are one host here, and the container port is the same in each: every pod has an address of its own.
    environment.insert("BIND_ADDRESS".into(), host.to_string().into());
    if let Some(folder) = mounts.host_path(ACCOUNT_FOLDER) {
        // The folder's path inside a pod is fixed; on this machine a kubeconfig says where it is.
        write_kubeconfig(shared, &folder, kubeconfig)?;
        environment.entry("KUBECONFIG".into()).or_insert_with(|| kubeconfig.into());
    }
    // Where a coverage run wants its counts.
    if let Some(value) = std::env::var_os("LLVM_PROFILE_FILE") {
        environment.insert("LLVM_PROFILE_FILE".into(), value);
    }
    Ok(Invocation { program, arguments: words.into_iter().map(OsString::from).collect(), environment })
}

fn write_kubeconfig(shared: &Shared, account: &Path, path: &Path) -> Result<()> {
    let document = serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "pod",
        "clusters": [{"name": "pod", "cluster": {
            "server": format!("https://{}", shared.api_server), "certificate-authority": shared.authority}}],
        "users": [{"name": "pod", "user": {"tokenFile": account.join("token")}}],
        "contexts": [{"name": "pod", "context": {"cluster": "pod", "user": "pod"}}],
    });
    std::fs::write(path, document.to_string()).with_context(|| format!("cannot write {}", path.display()))
}

/// The container's own variables over those of Services.
async fn variables(
    shared: &Shared,
    pod: &Pod,
    address: Ipv4Addr,
    container: &Container,
) -> Result<HashMap<String, String>> {
    let mut variables = service_variables(shared, pod).await?;
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        let data = if let Some(reference) = &source.config_map_ref {
            config_map(&shared.client, pod, &reference.name, reference.optional).await?
        } else if let Some(reference) = &source.secret_ref {
            secret(&shared.client, pod, &reference.name, reference.optional).await?
        } else {
            None
        };
        for (key, value) in data.into_iter().flatten() {
            variables.insert(format!("{prefix}{key}"), String::from_utf8_lossy(&value).into_owned());
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (Some(value), _) => Some(expand(value, &variables)),
            (None, Some(source)) => from_source(shared, pod, address, source)
                .await
                .with_context(|| format!("environment variable {}", variable.name))?,
            (None, None) => Some(String::new()),
        };
        if let Some(value) = value {
            variables.insert(variable.name.clone(), value);
        }
    }
    Ok(variables)
}

async fn from_source(
    shared: &Shared,
    pod: &Pod,
    address: Ipv4Addr,
    source: &EnvVarSource,
) -> Result<Option<String>> {
    if let Some(reference) = &source.field_ref {
        return field(pod, Some(address), &reference.field_path).map(Some);
    }
    let (data, key, optional) = if let Some(reference) = &source.secret_key_ref {
        let data = secret(&shared.client, pod, &reference.name, reference.optional).await?;
        (data, &reference.key, reference.optional)
    } else if let Some(reference) = &source.config_map_key_ref {
        let data = config_map(&shared.client, pod, &reference.name, reference.optional).await?;
        (data, &reference.key, reference.optional)
    } else {
        bail!("a source of this kind is not known to the fake node");
    };
    match data.and_then(|mut data| data.remove(key)) {
        Some(value) => Ok(Some(String::from_utf8_lossy(&value).into_owned())),
        None if optional == Some(true) => Ok(None),
        None => bail!("there is no key \"{key}\""),
    }
}

/// A field of the pod by its path, as in `fieldRef`.
pub(super) fn field(pod: &Pod, address: Option<Ipv4Addr>, path: &str) -> Result<String> {
    let spec = pod.spec.as_ref();
    let by_key = |map: Option<&BTreeMap<String, String>>, path: &str| {
        let key = path.split('\'').nth(1)?;
        Some(map.and_then(|map| map.get(key)).cloned().unwrap_or_default())
    };
    let all = |map: Option<&BTreeMap<String, String>>| {
        let lines: Vec<_> =
            map.into_iter().flatten().map(|(key, value)| format!("{key}={value:?}")).collect();
        lines.join("\n")
    };
    let value = match path {
        "metadata.name" => Some(pod.name_any()),
        "metadata.namespace" => pod.namespace(),
        "metadata.uid" => pod.metadata.uid.clone(),
        "metadata.labels" => Some(all(pod.metadata.labels.as_ref())),
        "metadata.annotations" => Some(all(pod.metadata.annotations.as_ref())),
        "spec.nodeName" => spec.and_then(|spec| spec.node_name.clone()),
        "spec.serviceAccountName" => spec.and_then(|spec| spec.service_account_name.clone()),
        "status.podIP" | "status.podIPs" => address.map(|address| address.to_string()),
        "status.hostIP" | "status.hostIPs" => Some(NODE_ADDRESS.to_string()),
        _ if path.starts_with("metadata.labels['") => by_key(pod.metadata.labels.as_ref(), path),
        _ if path.starts_with("metadata.annotations['") => by_key(pod.metadata.annotations.as_ref(), path),
        _ => None,
    };
    value.with_context(|| format!("field path \"{path}\" is not known to the fake node"))
}

/// `<SERVICE>_SERVICE_HOST` and `_PORT`, for Services of the pod's namespace and the API server. There is nothing at a cluster
/// IP here, so each names the process behind the Service instead, if it has one.
async fn service_variables(shared: &Shared, pod: &Pod) -> Result<HashMap<String, String>> {
    let mut variables = HashMap::new();
    variables.insert("KUBERNETES_SERVICE_HOST".to_owned(), shared.api_server.ip().to_string());
    for name in ["KUBERNETES_SERVICE_PORT", "KUBERNETES_SERVICE_PORT_HTTPS"] {
        variables.insert(name.to_owned(), shared.api_server.port().to_string());
    }
    if pod.spec.as_ref().and_then(|spec| spec.enable_service_links) == Some(false) {
        return Ok(variables);
    }
    let namespace = pod.namespace().unwrap_or_default();
    let services: Api<Service> = Api::namespaced(shared.client.clone(), &namespace);
    let slices: Api<EndpointSlice> = Api::namespaced(shared.client.clone(), &namespace);
    let slices = slices.list(&ListParams::default()).await?.items;
    for service in services.list(&ListParams::default()).await?.items {
        let name = service.name_any();
        let prefix = name.to_uppercase().replace('-', "_");
        let Some(spec) = service.spec.as_ref() else { continue };
        if prefix == "KUBERNETES" || spec.cluster_ip.as_deref().is_none_or(|ip| ip.is_empty() || ip == "None")
        {
            continue;
        }
        for (index, service_port) in spec.ports.iter().flatten().enumerate() {
            let (host, port) = endpoint(shared, &slices, &name, service_port.name.as_deref())
                .unwrap_or_else(|| (spec.cluster_ip.clone().unwrap_or_default(), service_port.port));
            if index == 0 {
                variables.insert(format!("{prefix}_SERVICE_HOST"), host);
                variables.insert(format!("{prefix}_SERVICE_PORT"), port.to_string());
            }
            if let Some(port_name) = &service_port.name {
                let port_name = port_name.to_uppercase().replace('-', "_");
                variables.insert(format!("{prefix}_SERVICE_PORT_{port_name}"), port.to_string());
            }
        }
    }
    Ok(variables)
}

/// Address on this machine and target port of a ready endpoint of a Service.
fn endpoint(
    shared: &Shared,
    slices: &[EndpointSlice],
    service: &str,
    port_name: Option<&str>,
) -> Option<(String, i32)> {
    slices
        .iter()
        .filter(|slice| slice.labels().get("kubernetes.io/service-name").is_some_and(|it| it == service))
        .find_map(|slice| {
            let port = slice
                .ports
                .iter()
                .flatten()
                .find(|port| port.name.as_deref().unwrap_or_default() == port_name.unwrap_or_default())?;
            let ready = slice
                .endpoints
                .iter()
                .flatten()
                .find(|endpoint| endpoint.conditions.as_ref().and_then(|it| it.ready).unwrap_or(true))?;
            let pod: Ipv4Addr = ready.addresses.first()?.parse().ok()?;
            Some((shared.block.host_address(pod)?.to_string(), port.port?))
        })
}

/// `$(NAME)` as Kubernetes expands it: unknown names stay as they are, `$$(NAME)` is the way to write `$(NAME)`.
fn expand(text: &str, variables: &HashMap<String, String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(position) = rest.find('$') {
        out.push_str(&rest[..position]);
        rest = &rest[position..];
        if let Some(after) = rest.strip_prefix("$$") {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix("$(").and_then(|inner| inner.split_once(')')) {
            match variables.get(name) {
                Some(value) => out.push_str(value),
                None => out.push_str(&rest[..name.len() + 3]),
            }
            rest = after;
        } else {
            out.push('$');
            rest = &rest[1..];
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_expanded_as_kubernetes_does() {
        let variables = HashMap::from([("NAME".to_owned(), "value".to_owned())]);
        for (text, expected) in [
            ("a $(NAME) b", "a value b"),
            ("$(OTHER)", "$(OTHER)"),
            ("$$(NAME)", "$(NAME)"),
            ("$NAME $( $", "$NAME $( $"),
        ] {
            assert_eq!(expand(text, &variables), expected);
        }
    }

    #[test]
    fn paths_of_mounts_become_paths_of_this_machine() {
        let mounts = Mounts::new(vec![
            ("/etc".into(), "/host/etc".into()),
            ("/etc/certs/".into(), "/host/certs".into()),
        ]);
        for (value, expected) in [
            ("/etc/certs/tls.crt", "/host/certs/tls.crt"),
            ("/etc/certs", "/host/certs"),
            ("/etc/certsx", "/host/etc/certsx"),
            ("--file=/etc/a", "--file=/host/etc/a"),
            ("A=/etc/a", "A=/etc/a"),
            ("/var/x", "/var/x"),
        ] {
            assert_eq!(mounts.rewrite(value), expected);
        }
    }

    #[test]
    fn fields_of_the_pod() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "a", "namespace": "b", "labels": {"x/y": "z"}}}))
        .unwrap();
        let address = Some(Ipv4Addr::new(10, 244, 0, 7));
        assert_eq!(field(&pod, address, "metadata.namespace").unwrap(), "b");
        assert_eq!(field(&pod, address, "metadata.labels['x/y']").unwrap(), "z");
        assert_eq!(field(&pod, address, "status.podIP").unwrap(), "10.244.0.7");
        assert!(field(&pod, address, "spec.hostname").is_err());
    }
}
