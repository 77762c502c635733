//! `cargo xtask image`: the container image as an archive, without a container daemon.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::Value;
use sidecar_testkit::archive::{Image, ImageConfig, Layer};

/// The one binary, and the package that it is built from.
const BINARY: &str = "sidecar-injector";
const NAME: &str = "kubernetes-sidecar-injector";
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What we promise users; a dependency that breaks it is a decision, not an accident.
const LIMIT: u64 = 15_000_000;

/// `cargo xtask image`
#[derive(Args)]
pub(crate) struct Arguments {
    /// Where to write the archive [default: target/image/kubernetes-sidecar-injector.tar]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(crate) fn run(arguments: Arguments) -> Result<()> {
    let binary = build_binary()?;
    let output = arguments.output.unwrap_or_else(default_output);
    let size = write_image(&binary, &output)?;
    let name = image_name();
    let file = output.display();
    let binary_size = fs::metadata(&binary)?.len();
    // What is printed on stdout is the result; how to go on is for people.
    println!("{file}");
    eprintln!(
        "
image    {name} for {architecture}, {size}
binary   {binary}, {binary_size}, static

Load it into
  kind        kind load image-archive {file}
  k3d         k3d image import {file}
  containerd  ctr --namespace k8s.io images import {file}
  docker      docker load --input {file}",
        architecture = sidecar_testkit::archive::architecture()?,
        size = megabytes(size),
        binary = binary.display(),
        binary_size = megabytes(binary_size),
    );
    Ok(())
}

/// Builds the static binary of the image and returns where it is. Cargo's own progress goes to stderr.
pub(crate) fn build_binary() -> Result<PathBuf> {
    ensure!(
        cfg!(target_os = "linux"),
        "the image holds a Linux binary; on this system build it with `docker build`"
    );
    let target = format!("{}-unknown-linux-gnu", env::consts::ARCH);
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(root())
        .args(["build", "--release", "--locked", "--target", &target, "--package", BINARY, "--bin", BINARY])
        .arg("--message-format=json-render-diagnostics")
        // Relocations that are packed (glibc 2.36) are 0.8 MB less of a program that can be loaded anywhere.
        .env("RUSTFLAGS", "-C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs")
        // It would win over RUSTFLAGS.
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    ensure!(output.status.success(), "cargo could not build {BINARY} ({})", output.status);
    // Cargo says itself where it put the binary: the target folder may be anywhere.
    let binary = executable(&output.stdout).context("cargo did not say where the binary is")?;

    let interpreter = interpreter(&mut File::open(&binary)?)
        .with_context(|| format!("cannot read {} as a program", binary.display()))?;
    ensure!(!interpreter, "{} is not static: it asks for a dynamic linker", binary.display());
    let help = Command::new(&binary).arg("--help").stdout(Stdio::null()).status();
    let help = help.with_context(|| format!("cannot start {}", binary.display()))?;
    ensure!(help.success(), "`{} --help` failed ({help})", binary.display());
    Ok(binary)
}

/// Builds the binary and the image, and returns the archive's path.
pub(crate) fn build_image() -> Result<PathBuf> {
    let output = default_output();
    write_image(&build_binary()?, &output)?;
    Ok(output)
}

/// Name and tag under which a cluster finds the image after it was loaded.
pub(crate) fn image_name() -> String {
    format!("{NAME}:{VERSION}")
}

fn write_image(binary: &Path, output: &Path) -> Result<u64> {
    let config = image_config();
    let dockerfile = fs::read_to_string(root().join("Dockerfile")).context("cannot read Dockerfile")?;
    check_dockerfile(&dockerfile, &config)?;
    let mut layer = Layer::new();
    layer.host_file(BINARY, 0o755, binary)?;
    let size = Image { name: image_name(), config, layers: vec![layer] }.write(output)?.size;
    if size > LIMIT {
        bail!(
            "the image is too large: {} where {} are allowed ({})",
            megabytes(size),
            megabytes(LIMIT),
            output.display()
        );
    }
    Ok(size)
}

/// The one description of what the image runs; the Dockerfile is held to it.
fn image_config() -> ImageConfig {
    let labels = [
        ("title", NAME),
        ("description", "Adds sidecar containers to Kubernetes pods"),
        ("version", VERSION),
        ("licenses", env!("CARGO_PKG_LICENSE")),
    ];
    ImageConfig {
        entrypoint: vec![format!("/{BINARY}")],
        command: vec!["serve".to_owned()],
        environment: Vec::new(),
        user: "65532:65532".to_owned(),
        labels: labels
            .into_iter()
            .map(|(key, value)| (format!("org.opencontainers.image.{key}"), value.to_owned()))
            .collect(),
        exposed_ports: BTreeSet::from([8443]),
    }
}

/// Fails if the last stage of the Dockerfile configures another image than ours.
fn check_dockerfile(dockerfile: &str, expected: &ImageConfig) -> Result<()> {
    let found = last_stage(dockerfile)?;
    ensure!(
        found == *expected,
        "Dockerfile and `cargo xtask image` disagree\n  Dockerfile: {found:?}\n  xtask:      {expected:?}"
    );
    Ok(())
}

/// What the last stage of a Dockerfile sets. Reads the plain forms that ours uses and refuses all others.
fn last_stage(dockerfile: &str) -> Result<ImageConfig> {
    let mut config = ImageConfig::default();
    let joined = dockerfile.replace("\\\n", " ");
    for line in joined.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (instruction, value) = line.split_once(' ').unwrap_or((line, ""));
        let value = value.trim();
        match instruction {
            "FROM" => config = ImageConfig::default(),
            "USER" => value.clone_into(&mut config.user),
            "EXPOSE" => {
                let port =
                    value.parse().with_context(|| format!("EXPOSE with more than one port: {value}"))?;
                config.exposed_ports.insert(port);
            }
            "ENTRYPOINT" => config.entrypoint = exec_form(value)?,
            "CMD" => config.command = exec_form(value)?,
            "LABEL" => config.labels.extend(labels(value)?),
            "ENV" => bail!("the image needs no environment, but the Dockerfile has ENV {value}"),
            _ => {}
        }
    }
    Ok(config)
}

fn exec_form(value: &str) -> Result<Vec<String>> {
    serde_json::from_str(value)
        .with_context(|| format!("not a list of strings, so that a shell would run it: {value}"))
}

fn labels(value: &str) -> Result<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    let mut rest = value.trim();
    while !rest.is_empty() {
        let label = rest.split_once("=\"").and_then(|(key, rest)| Some((key, rest.split_once('"')?)));
        let (key, (text, behind)) =
            label.with_context(|| format!("not of the form KEY=\"VALUE\": {rest}"))?;
        labels.insert(key.to_owned(), text.to_owned());
        rest = behind.trim_start();
    }
    Ok(labels)
}

/// The last executable that cargo's messages name.
fn executable(messages: &[u8]) -> Option<PathBuf> {
    let messages = messages.split(|byte| *byte == b'\n').rev();
    let mut messages = messages.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    messages.find_map(|message| Some(PathBuf::from(message.get("executable")?.as_str()?)))
}

/// Whether an ELF program (64 bits, little endian) asks for an interpreter, which is the dynamic linker. A scratch image has none.
fn interpreter(program: &mut (impl Read + Seek)) -> Result<bool> {
    const INTERPRETER: u32 = 3;
    let mut header = [0; 64];
    program.read_exact(&mut header)?;
    ensure!(header.starts_with(b"\x7fELF\x02\x01"), "no 64-bit little-endian ELF program");
    let table = u64::from_le_bytes(field(&header, 32)?);
    let entry_size = u16::from_le_bytes(field(&header, 54)?);
    let entries = u16::from_le_bytes(field(&header, 56)?);
    for index in 0..u64::from(entries) {
        program.seek(SeekFrom::Start(table + index * u64::from(entry_size)))?;
        let mut kind = [0; 4];
        program.read_exact(&mut kind)?;
        if u32::from_le_bytes(kind) == INTERPRETER {
            return Ok(true);
        }
    }
    Ok(false)
}

fn field<const SIZE: usize>(header: &[u8], offset: usize) -> io::Result<[u8; SIZE]> {
    let bytes = header.get(offset..offset + SIZE).and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

fn default_output() -> PathBuf {
    root().join("target/image").join(format!("{NAME}.tar"))
}

fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_owned()
}

fn megabytes(bytes: u64) -> String {
    format!("{}.{} MB", bytes / 1_000_000, bytes % 1_000_000 / 100_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dockerfile() -> String {
        fs::read_to_string(root().join("Dockerfile")).unwrap()
    }

    #[test]
    fn dockerfile_makes_the_same_image() {
        check_dockerfile(&dockerfile(), &image_config()).unwrap();
    }

    #[test]
    fn differences_in_the_dockerfile_are_found() {
        for (here, there) in [
            ("USER 65532:65532", "USER root"),
            ("EXPOSE 8443", "EXPOSE 443"),
            ("ENTRYPOINT [\"/sidecar-injector\"]", "ENTRYPOINT /sidecar-injector"),
            ("CMD [\"serve\"]", "CMD [\"serve\", \"--insecure\"]"),
            ("image.version=\"", "image.version=\"9"),
            ("EXPOSE 8443", "EXPOSE 8443\nENV A=b"),
            ("CMD [\"serve\"]", "CMD [\"serve\"]\nFROM scratch"),
        ] {
            let changed = dockerfile().replacen(here, there, 1);
            assert_ne!(changed, dockerfile(), "{here}");
            assert!(check_dockerfile(&changed, &image_config()).is_err(), "{there}");
        }
    }

    #[test]
    fn dockerfile_builds_with_the_pinned_toolchain() {
        let toolchain = fs::read_to_string(root().join("rust-toolchain.toml")).unwrap();
        let version = toolchain.split_once("channel = \"").unwrap().1.split_once('"').unwrap().0;
        assert!(dockerfile().contains(&format!("FROM rust:{version}-bookworm AS build")), "{version}");
    }

    /// A folder of the workspace that `.dockerignore` leaves out would only be missed where there is a daemon.
    #[test]
    fn build_context_has_every_member_of_the_workspace() {
        let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
        let members = manifest.split_once("\nmembers = [").unwrap().1.split_once(']').unwrap().0;
        let ignore = fs::read_to_string(root().join(".dockerignore")).unwrap();
        for member in members.split(',') {
            let folder = member.trim().trim_matches('"').trim_end_matches("/*");
            assert!(ignore.lines().any(|line| line.strip_prefix('!') == Some(folder)), "{folder}");
        }
    }

    #[test]
    fn dynamic_programs_are_found_out() {
        // The test program is linked as cargo links by default.
        let dynamic = cfg!(not(target_feature = "crt-static"));
        assert_eq!(interpreter(&mut File::open(env::current_exe().unwrap()).unwrap()).unwrap(), dynamic);
        assert!(interpreter(&mut io::Cursor::new(b"#!/bin/sh\n".repeat(20))).is_err());
    }

    #[test]
    fn binary_is_taken_from_what_cargo_says() {
        let messages = b"{\"reason\":\"compiler-artifact\",\"executable\":null}\n\
            {\"reason\":\"compiler-artifact\",\"executable\":\"/t/sidecar-injector\"}\n\
            {\"reason\":\"build-finished\",\"success\":true}\n";
        assert_eq!(executable(messages), Some(PathBuf::from("/t/sidecar-injector")));
    }
}
