//! Container images written as archives that container programs load, without any of those programs.
//!
//! The format is the one of `docker save`: a tar of the layers, the configuration and `manifest.json`. It is read by
//! `docker load`, `podman load`, `ctr images import`, `kind load image-archive` and `k3d image import` alike.
//!
//! The same input gives the same bytes on every machine: entries are sorted, belong to user 0 and carry no time.

use std::collections::{BTreeMap, BTreeSet};
use std::env::consts::ARCH;
use std::fmt::Write as _;
use std::fs::{self, File, Permissions};
use std::io::{self, BufReader, BufWriter, Cursor, Read, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

/// The time of creation that images carry. Archives must not differ only because they were made at different times.
const CREATED: &str = "1970-01-01T00:00:00Z";

/// What a container of the image runs, and as whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// Program and leading arguments; what Kubernetes calls `command`.
    pub entrypoint: Vec<String>,
    /// Arguments behind the entrypoint; what Kubernetes calls `args`.
    pub command: Vec<String>,
    /// Environment, in the order in which it is written.
    pub environment: Vec<(String, String)>,
    /// `UID:GID`, numeric: names would need an `/etc/passwd` and do not satisfy `runAsNonRoot`. Empty for root.
    pub user: String,
    /// Labels of the image, among them the `org.opencontainers.image.` ones.
    pub labels: BTreeMap<String, String>,
    /// TCP ports that the program listens on.
    pub exposed_ports: BTreeSet<u16>,
}

/// Where the bytes of a file come from.
#[derive(Clone, Debug)]
pub enum Content {
    /// Bytes in memory.
    Bytes(Vec<u8>),
    /// A file of this machine, read when the archive is written.
    HostFile(PathBuf),
}

/// One entry of a layer.
#[derive(Clone, Debug)]
pub enum Entry {
    /// A directory with its permission bits.
    Directory {
        /// Permission bits.
        mode: u32,
    },
    /// A regular file.
    File {
        /// Permission bits.
        mode: u32,
        /// The file's bytes.
        content: Content,
    },
    /// A symbolic link.
    Symlink {
        /// What the link says, as it stands.
        target: String,
    },
}

/// A tree of files, by path in the image without the leading slash.
#[derive(Clone, Debug, Default)]
pub struct Layer {
    entries: BTreeMap<String, Entry>,
}

impl Layer {
    /// An empty tree.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts an entry at a path; one that is there already is replaced. Missing parents are made when the layer is written.
    pub fn insert(&mut self, path: &str, entry: Entry) -> Result<()> {
        self.entries.insert(image_path(path)?, entry);
        Ok(())
    }

    /// Puts a file with these bytes at a path.
    pub fn file(&mut self, path: &str, mode: u32, bytes: impl Into<Vec<u8>>) -> Result<()> {
        self.insert(path, Entry::File { mode, content: Content::Bytes(bytes.into()) })
    }

    /// Puts a copy of a file of this machine at a path.
    pub fn host_file(&mut self, path: &str, mode: u32, source: impl Into<PathBuf>) -> Result<()> {
        self.insert(path, Entry::File { mode, content: Content::HostFile(source.into()) })
    }

    /// Adds what a tar holds. Owners and times are dropped, device files are left out (the container runtime makes its own),
    /// and a hard link becomes a file of its own.
    pub fn add_tar(&mut self, tar: impl Read) -> Result<()> {
        let mut archive = tar::Archive::new(tar);
        for entry in archive.entries()? {
            let mut entry = entry?;
            let path = utf8(&entry.path()?)?;
            let path = path.trim_start_matches("./").trim_matches('/').to_owned();
            if path.is_empty() {
                continue;
            }
            let mode = entry.header().mode()? & 0o7777;
            match entry.header().entry_type() {
                EntryType::Directory => self.insert(&path, Entry::Directory { mode })?,
                EntryType::Symlink => {
                    let target = utf8(&link_target(&entry, &path)?)?;
                    self.insert(&path, Entry::Symlink { target })?;
                }
                EntryType::Link => {
                    let target = image_path(&utf8(&link_target(&entry, &path)?)?)?;
                    let original = self.entries.get(&target).cloned();
                    let original =
                        original.with_context(|| format!("{path} links to {target}, which is not there"))?;
                    self.insert(&path, original)?;
                }
                kind if kind.is_file() => {
                    let mut bytes = Vec::new();
                    entry.read_to_end(&mut bytes)?;
                    self.file(&path, mode, bytes)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Takes out every entry whose path satisfies the condition, and hands them back.
    pub fn take(&mut self, mut condition: impl FnMut(&str) -> bool) -> BTreeMap<String, Entry> {
        self.entries.extract_if(.., |path, _| condition(path)).collect()
    }

    /// What is at a path.
    pub fn get(&self, path: &str) -> Option<&Entry> {
        self.entries.get(path.trim_matches('/'))
    }

    /// Writes the layer as a tar and returns its digest.
    fn write(&self, output: impl Write) -> Result<String> {
        let mut builder = Builder::new(HashingWriter { output, hash: Sha256::new() });
        let mut written = BTreeSet::new();
        for (path, entry) in &self.entries {
            // Extractors would make missing parents themselves, each with permissions to its own taste.
            for (slash, _) in path.match_indices('/') {
                let parent = &path[..slash];
                if !self.entries.contains_key(parent) && written.insert(parent) {
                    append(&mut builder, EntryType::Directory, 0o755, parent, 0, io::empty())?;
                }
            }
            match entry {
                Entry::Directory { mode } => {
                    append(&mut builder, EntryType::Directory, *mode, path, 0, io::empty())?;
                }
                Entry::File { mode, content: Content::Bytes(bytes) } => {
                    append(
                        &mut builder,
                        EntryType::Regular,
                        *mode,
                        path,
                        bytes.len() as u64,
                        bytes.as_slice(),
                    )?;
                }
                Entry::File { mode, content: Content::HostFile(source) } => {
                    let file =
                        File::open(source).with_context(|| format!("cannot read {}", source.display()))?;
                    let size = file.metadata()?.len();
                    append(&mut builder, EntryType::Regular, *mode, path, size, BufReader::new(file))?;
                }
                Entry::Symlink { target } => {
                    let mut header = header(EntryType::Symlink, 0o777, 0);
                    builder.append_link(&mut header, path, target)?;
                }
            }
        }
        let mut writer = builder.into_inner()?;
        writer.flush()?;
        Ok(hexadecimal(&writer.hash.finalize()))
    }
}

/// An image: its name, what it runs and its layers, lowest first.
#[derive(Clone, Debug)]
pub struct Image {
    /// Name with tag, for example `docker.io/library/busybox:latest`.
    pub name: String,
    /// What a container of the image runs.
    pub config: ImageConfig,
    /// The trees of files, lowest first.
    pub layers: Vec<Layer>,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Digest of the configuration, which container programs show as the image's identifier (`sha256:…`).
    pub identifier: String,
    /// Size of the archive in bytes.
    pub size: u64,
}

impl Image {
    /// Writes the archive. It appears under its name only when it is complete.
    pub fn write(&self, path: &Path) -> Result<Written> {
        self.write_archive(path)
            .with_context(|| format!("cannot write the image {} to {}", self.name, path.display()))
    }

    fn write_archive(&self, path: &Path) -> Result<Written> {
        let Some((_, tag)) = self.name.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')) else {
            bail!("the name has no tag, so that a cluster would look for `latest`");
        };
        if tag.is_empty() {
            bail!("the tag is empty");
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;

        let mut layers = Vec::new();
        for layer in &self.layers {
            // A tar entry begins with its size, so the layer is finished before its first byte goes into the archive.
            let mut file = tempfile::tempfile_in(folder)?;
            let digest = layer.write(BufWriter::new(&mut file))?;
            let size = file.stream_position()?;
            file.rewind()?;
            layers.push((digest, size, file));
        }

        let digests: Vec<&str> = layers.iter().map(|(digest, ..)| digest.as_str()).collect();
        let config = self.config_json(&digests)?;
        let identifier = hexadecimal(&Sha256::digest(&config));
        let config_name = format!("{identifier}.json");
        let manifest = json!([{
            "Config": config_name,
            "RepoTags": [self.name],
            "Layers": digests.iter().map(|digest| layer_name(digest)).collect::<Vec<_>>(),
        }]);
        let manifest = serde_json::to_vec(&manifest)?;

        let mut temporary =
            tempfile::Builder::new().permissions(Permissions::from_mode(0o644)).tempfile_in(folder)?;
        let mut builder = Builder::new(BufWriter::new(temporary.as_file_mut()));
        for (name, bytes) in [("manifest.json", &manifest), (config_name.as_str(), &config)] {
            append(&mut builder, EntryType::Regular, 0o644, name, bytes.len() as u64, Cursor::new(bytes))?;
        }
        let mut seen = BTreeSet::new();
        for (digest, size, file) in &layers {
            if seen.insert(digest) {
                append(
                    &mut builder,
                    EntryType::Regular,
                    0o644,
                    &layer_name(digest),
                    *size,
                    BufReader::new(file),
                )?;
            }
        }
        builder.into_inner()?.flush()?;
        let size = temporary.as_file().metadata()?.len();
        temporary.persist(path)?;
        Ok(Written { identifier: format!("sha256:{identifier}"), size })
    }

    fn config_json(&self, layer_digests: &[&str]) -> Result<Vec<u8>> {
        let config = &self.config;
        let mut run = json!({
            "Entrypoint": config.entrypoint,
            "Cmd": config.command,
            "Env": config.environment.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>(),
            "Labels": config.labels,
            "ExposedPorts": config.exposed_ports.iter().map(|port| (format!("{port}/tcp"), json!({}))).collect::<BTreeMap<_, _>>(),
            "User": config.user,
            "WorkingDir": "/",
        });
        if let Some(run) = run.as_object_mut() {
            // Docker reads an empty list as an override that says nothing; an absent one is what it writes itself.
            run.retain(|_, value| !is_empty(value));
        }
        let history: Vec<Value> = layer_digests.iter().map(|_| json!({"created": CREATED})).collect();
        let json = json!({
            "architecture": architecture()?,
            "os": "linux",
            "created": CREATED,
            "config": run,
            "rootfs": {
                "type": "layers",
                "diff_ids": layer_digests.iter().map(|digest| format!("sha256:{digest}")).collect::<Vec<_>>(),
            },
            "history": history,
        });
        Ok(serde_json::to_vec(&json)?)
    }
}

/// This machine's architecture, as images name it.
pub fn architecture() -> Result<&'static str> {
    Ok(match ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "riscv64" => "riscv64",
        "s390x" => "s390x",
        other => bail!("no image architecture is known for {other}"),
    })
}

/// Path and name of a layer inside the archive, the ones that `docker save` gave it before it also wrote an OCI layout.
fn layer_name(digest: &str) -> String {
    format!("{digest}/layer.tar")
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

/// The path without slashes at its ends. Paths that could leave the image are refused.
fn image_path(path: &str) -> Result<String> {
    let path = path.trim_start_matches("./").trim_matches('/');
    if path.is_empty() || path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        bail!("`{path}` is no path inside an image");
    }
    Ok(path.to_owned())
}

fn link_target<R: Read>(entry: &tar::Entry<'_, R>, path: &str) -> Result<PathBuf> {
    Ok(entry.link_name()?.with_context(|| format!("the link {path} has no target"))?.into_owned())
}

fn utf8(path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).with_context(|| format!("{} is not UTF-8", path.display()))
}

/// A header that says nothing about the machine or the moment.
fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn append(
    builder: &mut Builder<impl Write>,
    kind: EntryType,
    mode: u32,
    path: &str,
    size: u64,
    bytes: impl Read,
) -> io::Result<()> {
    builder.append_data(&mut header(kind, mode, size), path, bytes)
}

/// Digests as they are written.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Passes bytes on and takes their digest on the way, so that a layer is read only once.
struct HashingWriter<W> {
    output: W,
    hash: Sha256,
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.output.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Image {
        let mut layer = Layer::new();
        layer.file("/usr/bin/program", 0o755, *b"#!/bin/sh\n").unwrap();
        layer.insert("/tmp", Entry::Directory { mode: 0o1777 }).unwrap();
        layer.insert("bin/sh", Entry::Symlink { target: "/bin/busybox".to_owned() }).unwrap();
        layer.host_file("manifest", 0o644, concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).unwrap();
        layer.file(&format!("{}/end", "long/".repeat(60).trim_end_matches('/')), 0o600, *b"x").unwrap();
        Image {
            name: "docker.io/example/program:1".to_owned(),
            config: ImageConfig {
                entrypoint: vec!["/usr/bin/program".to_owned()],
                command: vec!["serve".to_owned()],
                environment: vec![("PATH".to_owned(), "/usr/bin".to_owned())],
                user: "65532:65532".to_owned(),
                labels: BTreeMap::from([("org.opencontainers.image.version".to_owned(), "1".to_owned())]),
                exposed_ports: BTreeSet::from([8443]),
            },
            layers: vec![layer, Layer::new()],
        }
    }

    fn read(path: &Path) -> BTreeMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(File::open(path).unwrap());
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            (entry.path().unwrap().to_str().unwrap().to_owned(), bytes)
        });
        entries.collect()
    }

    #[test]
    fn archive_is_consistent() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/image.tar");
        let written = example().write(&path).unwrap();
        let files = read(&path);

        let manifest: Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
        assert_eq!(manifest[0]["RepoTags"], json!(["docker.io/example/program:1"]));
        let config = &files[manifest[0]["Config"].as_str().unwrap()];
        assert_eq!(written.identifier, format!("sha256:{}", hexadecimal(&Sha256::digest(config))));
        assert_eq!(manifest[0]["Config"], json!(format!("{}.json", hexadecimal(&Sha256::digest(config)))));
        assert_eq!(written.size, path.metadata().unwrap().len());
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o644);

        let config: Value = serde_json::from_slice(config).unwrap();
        assert_eq!(config["os"], "linux");
        assert_eq!(config["architecture"], architecture().unwrap());
        assert_eq!(
            config["config"],
            json!({
                "Entrypoint": ["/usr/bin/program"], "Cmd": ["serve"], "Env": ["PATH=/usr/bin"], "User": "65532:65532",
                "Labels": {"org.opencontainers.image.version": "1"}, "ExposedPorts": {"8443/tcp": {}}, "WorkingDir": "/",
            })
        );
        let layers = manifest[0]["Layers"].as_array().unwrap();
        assert_eq!(layers.len(), 2);
        for (index, layer) in layers.iter().enumerate() {
            let digest = hexadecimal(&Sha256::digest(&files[layer.as_str().unwrap()]));
            assert_eq!(config["rootfs"]["diff_ids"][index], format!("sha256:{digest}"));
        }
    }

    #[test]
    fn layer_holds_what_was_put_in() {
        let mut bytes = Vec::new();
        example().layers[0].write(&mut bytes).unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let mut paths = Vec::new();
        for entry in archive.entries().unwrap() {
            let entry = entry.unwrap();
            let header = entry.header();
            assert_eq!((header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap()), (0, 0, 0));
            let path = entry.path().unwrap().to_str().unwrap().to_owned();
            match path.as_str() {
                "usr" | "usr/bin" | "usr/bin/program" => assert_eq!(header.mode().unwrap(), 0o755),
                "tmp" => assert_eq!(header.mode().unwrap(), 0o1777),
                "bin/sh" => assert_eq!(entry.link_name().unwrap().unwrap(), Path::new("/bin/busybox")),
                _ => {}
            }
            paths.push(path);
        }
        assert!(paths.iter().any(|path| path.len() > 300 && path.ends_with("/end")), "long paths survive");
        for (index, path) in paths.iter().enumerate() {
            if let Some((parent, _)) = path.rsplit_once('/') {
                assert!(
                    paths[..index].iter().any(|earlier| earlier == parent),
                    "{parent} comes before {path}"
                );
            }
            assert!(!paths[..index].contains(path), "{path} is there once");
        }
    }

    #[test]
    fn writing_twice_gives_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("first.tar"), folder.path().join("second.tar"));
        example().write(&first).unwrap();
        example().write(&second).unwrap();
        assert!(fs::read(first).unwrap() == fs::read(second).unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "no temporary file stays");
    }

    #[test]
    fn a_tree_goes_through_a_tar_unchanged() {
        let mut builder = Builder::new(Vec::new());
        append(&mut builder, EntryType::Directory, 0o755, "./", 0, io::empty()).unwrap();
        append(&mut builder, EntryType::Regular, 0o4755, "./bin/one", 3, &b"one"[..]).unwrap();
        builder.append_link(&mut header(EntryType::Link, 0o755, 0), "./bin/two", "./bin/one").unwrap();
        append(&mut builder, EntryType::Char, 0o666, "./dev/null", 0, io::empty()).unwrap();
        let mut layer = Layer::new();
        layer.add_tar(builder.into_inner().unwrap().as_slice()).unwrap();

        for path in ["/bin/one", "bin/two"] {
            let Some(Entry::File { mode: 0o4755, content: Content::Bytes(bytes) }) = layer.get(path) else {
                panic!("{path}: {:?}", layer.get(path));
            };
            assert_eq!(bytes, b"one");
        }
        assert!(layer.get("dev/null").is_none());
        assert_eq!(layer.take(|path| path.ends_with("one")).len(), 1);
        assert!(layer.get("bin/one").is_none());
    }

    #[test]
    fn bad_names_and_paths_are_refused() {
        for path in ["", "/", "../etc/passwd", "a//b", "a/./b"] {
            assert!(Layer::new().file(path, 0o644, *b"").is_err(), "{path}");
        }
        let folder = tempfile::tempdir().unwrap();
        for name in ["program", "registry:5000/program", "program:"] {
            let image = Image { name: name.to_owned(), ..example() };
            assert!(image.write(&folder.path().join("image.tar")).is_err(), "{name}");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
