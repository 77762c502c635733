//! Volumes of a pod as folders of this machine, swapped as the kubelet swaps them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use k8s_openapi::{
    api::{
        authentication::v1::TokenRequest,
        core::v1::{
            ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, Secret, ServiceAccount,
            ServiceAccountTokenProjection, Volume,
        },
    },
    jiff::Timestamp,
};
use kube::{Api, Client, ResourceExt, api::PostParams};
use serde_json::json;

use super::environment::field;

/// The files of one volume: path, content, permissions.
type Files = BTreeMap<String, (Vec<u8>, u32)>;

/// The volumes that a pod's processes mount.
#[derive(Debug)]
pub(super) struct Volumes {
    folder: PathBuf,
    mounted: Vec<Volume>,
    written: BTreeMap<String, Files>,
    tokens: BTreeMap<(String, String), Token>,
}

#[derive(Debug)]
struct Token {
    value: String,
    renew: Instant,
}

impl Volumes {
    /// Looks only at the volumes in `names`: those that nobody mounts may be of kinds that we do not know.
    pub(super) fn new(folder: PathBuf, pod: &Pod, names: &BTreeSet<String>) -> Self {
        let all = pod.spec.as_ref().and_then(|spec| spec.volumes.clone()).unwrap_or_default();
        let mounted = all.into_iter().filter(|volume| names.contains(&volume.name)).collect();
        Self { folder, mounted, written: BTreeMap::new(), tokens: BTreeMap::new() }
    }

    /// Where a volume is on this machine.
    pub(super) fn host_path(&self, name: &str) -> PathBuf {
        let host =
            self.mounted.iter().find(|volume| volume.name == name).and_then(|it| it.host_path.as_ref());
        host.map_or_else(|| self.folder.join(name), |host| PathBuf::from(&host.path))
    }

    /// Writes what is missing or has changed.
    pub(super) async fn refresh(&mut self, client: &Client, pod: &Pod) -> Result<()> {
        for volume in self.mounted.clone() {
            let folder = self.folder.join(&volume.name);
            let files =
                self.files(client, pod, &volume).await.with_context(|| format!("volume {}", volume.name))?;
            let Some(files) = files else {
                fs::create_dir_all(&folder)?;
                continue;
            };
            if self.written.get(&volume.name) != Some(&files) {
                swap(&folder, &files).with_context(|| format!("cannot write {}", folder.display()))?;
                self.written.insert(volume.name.clone(), files);
            }
        }
        Ok(())
    }

    /// The files that a volume should have; none for one that starts empty and is the container's.
    async fn files(&mut self, client: &Client, pod: &Pod, volume: &Volume) -> Result<Option<Files>> {
        if volume.empty_dir.is_some() || volume.host_path.is_some() {
            return Ok(None);
        }
        let mut files = Files::new();
        if let Some(source) = &volume.secret {
            let name = source.secret_name.as_deref().unwrap_or_default();
            let data = secret(client, pod, name, source.optional).await?;
            add(&mut files, data.as_ref(), source.items.as_deref(), mode(source.default_mode), name)?;
        } else if let Some(source) = &volume.config_map {
            let data = config_map(client, pod, &source.name, source.optional).await?;
            add(&mut files, data.as_ref(), source.items.as_deref(), mode(source.default_mode), &source.name)?;
        } else if let Some(source) = &volume.downward_api {
            add_fields(&mut files, pod, source.items.as_deref(), mode(source.default_mode))?;
        } else if let Some(projected) = &volume.projected {
            let mode = mode(projected.default_mode);
            for source in projected.sources.iter().flatten() {
                if let Some(source) = &source.secret {
                    let data = secret(client, pod, &source.name, source.optional).await?;
                    add(&mut files, data.as_ref(), source.items.as_deref(), mode, &source.name)?;
                } else if let Some(source) = &source.config_map {
                    let data = config_map(client, pod, &source.name, source.optional).await?;
                    add(&mut files, data.as_ref(), source.items.as_deref(), mode, &source.name)?;
                } else if let Some(source) = &source.downward_api {
                    add_fields(&mut files, pod, source.items.as_deref(), mode)?;
                } else if let Some(source) = &source.service_account_token {
                    let token = self.token(client, pod, &volume.name, source).await?;
                    files.insert(source.path.clone(), (token.into_bytes(), mode));
                } else {
                    bail!("a projected source of this kind is not known to the fake node");
                }
            }
        } else {
            bail!("a volume of this kind is not known to the fake node");
        }
        Ok(Some(files))
    }

    /// A token of the pod's service account, bound to the pod, so that its rights are exactly those that the chart gives.
    async fn token(
        &mut self,
        client: &Client,
        pod: &Pod,
        volume: &str,
        source: &ServiceAccountTokenProjection,
    ) -> Result<String> {
        let key = (volume.to_owned(), source.path.clone());
        if let Some(token) = self.tokens.get(&key)
            && Instant::now() < token.renew
        {
            return Ok(token.value.clone());
        }
        let spec = pod.spec.as_ref();
        let account = spec.and_then(|spec| spec.service_account_name.as_deref()).unwrap_or("default");
        let request: TokenRequest = serde_json::from_value(json!({"metadata": {}, "spec": {
            "audiences": source.audience.iter().collect::<Vec<_>>(),
            "expirationSeconds": source.expiration_seconds.unwrap_or(3600),
            "boundObjectRef": {
                "apiVersion": "v1", "kind": "Pod", "name": pod.name_any(), "uid": pod.metadata.uid},
        }}))?;
        let accounts: Api<ServiceAccount> =
            Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
        let answer = accounts.create_token_request(account, &PostParams::default(), &request).await?;
        let status = answer.status.context("the answer has no token")?;
        let value = status.token.context("the answer has no token")?;
        let expires = status.expiration_timestamp.context("the token has no end")?;
        let seconds = expires.0.as_second() - Timestamp::now().as_second();
        let renew = Instant::now() + Duration::from_secs(u64::try_from(seconds).unwrap_or(0)) * 4 / 5;
        self.tokens.insert(key, Token { value: value.clone(), renew });
        Ok(value)
    }
}

fn mode(mode: Option<i32>) -> u32 {
    mode.and_then(|mode| u32::try_from(mode).ok()).unwrap_or(0o644)
}

/// The data of a Secret; nothing if it may be missing and is.
pub(super) async fn secret(
    client: &Client,
    pod: &Pod,
    name: &str,
    optional: Option<bool>,
) -> Result<Option<BTreeMap<String, Vec<u8>>>> {
    let api: Api<Secret> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    match api.get_opt(name).await? {
        Some(secret) => {
            Ok(Some(secret.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect()))
        }
        None if optional == Some(true) => Ok(None),
        None => bail!("secret \"{name}\" not found"),
    }
}

/// The data of a ConfigMap; nothing if it may be missing and is.
pub(super) async fn config_map(
    client: &Client,
    pod: &Pod,
    name: &str,
    optional: Option<bool>,
) -> Result<Option<BTreeMap<String, Vec<u8>>>> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    match api.get_opt(name).await? {
        Some(map) => {
            let text = map.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.into_bytes()));
            let binary = map.binary_data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0));
            Ok(Some(text.chain(binary).collect()))
        }
        None if optional == Some(true) => Ok(None),
        None => bail!("configmap \"{name}\" not found"),
    }
}

fn add(
    files: &mut Files,
    data: Option<&BTreeMap<String, Vec<u8>>>,
    items: Option<&[KeyToPath]>,
    mode: u32,
    name: &str,
) -> Result<()> {
    let Some(data) = data else { return Ok(()) };
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        files.extend(data.iter().map(|(key, value)| (key.clone(), (value.clone(), mode))));
        return Ok(());
    };
    for item in items {
        let value = data.get(&item.key).with_context(|| format!("{name} has no key \"{}\"", item.key))?;
        let mode = item.mode.and_then(|mode| u32::try_from(mode).ok()).unwrap_or(mode);
        files.insert(item.path.clone(), (value.clone(), mode));
    }
    Ok(())
}

fn add_fields(
    files: &mut Files,
    pod: &Pod,
    items: Option<&[DownwardAPIVolumeFile]>,
    mode: u32,
) -> Result<()> {
    for item in items.unwrap_or_default() {
        let reference = item.field_ref.as_ref().context("the fake node knows no resource fields")?;
        files.insert(item.path.clone(), (field(pod, None, &reference.field_path)?.into_bytes(), mode));
    }
    Ok(())
}

/// Puts a new version in place at once: files in a fresh folder, and `..data`, which all visible names go through, moved
/// over to it.
fn swap(volume: &Path, files: &Files) -> io::Result<()> {
    fs::create_dir_all(volume)?;
    let data = volume.join("..data");
    let old = fs::read_link(&data).ok();
    let version = format!("..{}", Timestamp::now().as_nanosecond());
    for (path, (content, mode)) in files {
        let file = volume.join(&version).join(path);
        if let Some(parent) = file.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&file, content)?;
        // Without the kubelet's group change the file must stay readable for the process, which is this user.
        fs::set_permissions(&file, fs::Permissions::from_mode(mode | 0o400))?;
    }
    fs::create_dir_all(volume.join(&version))?;
    let fresh = volume.join("..data_tmp");
    let _ = fs::remove_file(&fresh);
    symlink(&version, &fresh)?;
    fs::rename(&fresh, &data)?;
    let visible: BTreeSet<&str> = files.keys().map(|path| path.split('/').next().unwrap_or(path)).collect();
    for name in &visible {
        let link = volume.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new("..data").join(name), &link)?;
        }
    }
    for entry in fs::read_dir(volume)?.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if !name.starts_with("..") && !visible.contains(name) {
            fs::remove_file(entry.path())?;
        }
    }
    match old {
        Some(old) => fs::remove_dir_all(volume.join(old)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(entries: &[(&str, &str)]) -> Files {
        entries.iter().map(|(path, text)| ((*path).to_owned(), (text.as_bytes().to_vec(), 0o644))).collect()
    }

    #[test]
    fn a_volume_is_swapped_by_one_symlink() {
        let folder = tempfile::tempdir().unwrap();
        let volume = folder.path().join("certs");
        swap(&volume, &files(&[("tls.crt", "one"), ("sub/key", "two")])).unwrap();
        let before = fs::read_link(volume.join("..data")).unwrap();
        assert_eq!(fs::read_to_string(volume.join("tls.crt")).unwrap(), "one");
        assert_eq!(fs::read_to_string(volume.join("sub/key")).unwrap(), "two");

        swap(&volume, &files(&[("tls.crt", "three")])).unwrap();
        assert_eq!(fs::read_to_string(volume.join("tls.crt")).unwrap(), "three");
        assert!(!volume.join("sub").exists());
        assert!(!volume.join(before).exists());
        assert_eq!(fs::read_link(volume.join("tls.crt")).unwrap(), Path::new("..data/tls.crt"));
    }
}
