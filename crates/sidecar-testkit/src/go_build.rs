//! Builds programs from a pinned Go module, once, into the cache.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::{
    archive::hexadecimal,
    programs::{Module, Program},
};

/// Kubernetes is only released with one line of Go; a newer one has broken `/openapi/v2` before.
const GO_LINE: &str = "go1.26";
/// What is taken instead of another line; Go downloads it by itself.
const GO_EXACT: &str = "go1.26.8";

/// The Go that builds.
#[derive(Clone, Debug)]
pub(crate) struct GoToolchain {
    version: String,
    /// The value of `GOTOOLCHAIN`.
    choice: &'static str,
}

impl GoToolchain {
    /// The installed Go, or none.
    pub(crate) fn find() -> Option<Self> {
        let output = Command::new("go")
            .args(["env", "GOVERSION"])
            .env("GOTOOLCHAIN", "local")
            .stdin(Stdio::null())
            .output()
            .ok()?;
        let installed = String::from_utf8(output.stdout).ok()?.trim().to_owned();
        if !output.status.success() || !installed.starts_with("go") {
            return None;
        }
        let same_line = installed.strip_prefix(GO_LINE).is_some_and(|rest| rest.starts_with('.'));
        Some(if same_line {
            Self { version: installed, choice: "auto" }
        } else {
            Self { version: GO_EXACT.to_owned(), choice: GO_EXACT }
        })
    }
}

/// The cache folder that holds the programs, after building those that are missing.
pub(crate) fn ensure(
    cache: &Path,
    toolchain: Option<&GoToolchain>,
    module: Module,
    programs: &BTreeSet<Program>,
) -> Result<PathBuf> {
    let pins = pins(module)?;
    let Some(toolchain) = toolchain else {
        return without_go(cache, module, &pins, programs);
    };
    let folder = cache.join(folder_name(module, &pins, &toolchain.version));
    let missing = || -> Vec<Program> { without_those_in(&folder, programs) };
    if missing().is_empty() {
        return Ok(folder);
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let lock = File::create(folder.join(".lock"))?;
    if lock.try_lock().is_err() {
        eprintln!("test bed: waiting for another process that builds {}", names(&missing()));
        lock.lock()?;
    }
    let missing = missing();
    if !missing.is_empty() {
        build(&folder, toolchain, module, &missing)?;
    }
    Ok(folder)
}

/// Binaries stay usable when Go is taken off the machine, whatever version built them.
fn without_go(cache: &Path, module: Module, pins: &str, programs: &BTreeSet<Program>) -> Result<PathBuf> {
    let prefix = folder_name(module, pins, "");
    let entries = fs::read_dir(cache).into_iter().flatten().flatten();
    for entry in entries {
        let same_pins = entry.file_name().to_str().is_some_and(|name| name.starts_with(&prefix));
        if same_pins && without_those_in(&entry.path(), programs).is_empty() {
            return Ok(entry.path());
        }
    }
    let assets: Vec<_> = programs.iter().map(|program| program.asset_name()).collect();
    bail!(
        "no `go` on PATH to build them with. Install {GO_LINE} (https://go.dev/dl), or set KUBEBUILDER_ASSETS to a \
         folder that holds {}",
        assets.join(", ")
    )
}

fn without_those_in(folder: &Path, programs: &BTreeSet<Program>) -> Vec<Program> {
    programs.iter().copied().filter(|program| !folder.join(program.file_name()).is_file()).collect()
}

fn names(programs: &[Program]) -> String {
    programs.iter().map(|program| program.file_name()).collect::<Vec<_>>().join(", ")
}

fn folder_name(module: Module, pins: &str, go_version: &str) -> String {
    let platform = format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH);
    format!("{}-{pins}-{platform}-{go_version}", module.name())
}

/// A hash over everything that decides what the binaries are, the Go version aside.
fn pins(module: Module) -> Result<String> {
    let mut hash = Sha256::new();
    for file in ["go.mod", "go.sum"] {
        let path = module.folder().join(file);
        hash.update(fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
        hash.update([0]);
    }
    for argument in arguments(module)? {
        hash.update(argument);
        hash.update([0]);
    }
    Ok(hexadecimal(&hash.finalize()[..6]))
}

/// Arguments of `go` that are the same for all programs of a module.
fn arguments(module: Module) -> Result<Vec<String>> {
    let mut linker = "-s -w".to_owned();
    // Without these the programs call themselves v0.0.0: charts' `kubeVersion` and kubectl's skew check need the real one.
    match module {
        Module::ControlPlane => {
            let version = required_version(module, "k8s.io/kubernetes")?;
            let mut parts = version.trim_start_matches('v').split('.');
            let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            for (name, value) in [("gitVersion", version.as_str()), ("gitMajor", major), ("gitMinor", minor)]
            {
                linker = format!("{linker} -X k8s.io/component-base/version.{name}={value}");
            }
        }
        Module::Helm4 | Module::Helm3 => {
            let path = if module == Module::Helm4 { "helm.sh/helm/v4" } else { "helm.sh/helm/v3" };
            let version = required_version(module, path)?;
            linker = format!("{linker} -X {path}/internal/version.version={version}");
        }
        Module::Containerd | Module::Runc | Module::Cni => {}
    }
    let mut arguments: Vec<String> =
        ["build", "-trimpath", "-buildvcs=false", "-ldflags", linker.as_str()].map(str::to_owned).into();
    if module == Module::Runc {
        // The kubelet asks for a seccomp filter for every pod; a runc that knows none starts nothing.
        arguments.extend(["-tags".to_owned(), "seccomp".to_owned()]);
    }
    Ok(arguments)
}

fn required_version(module: Module, path: &str) -> Result<String> {
    let file = module.folder().join("go.mod");
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    text.lines()
        .map(|line| line.trim().trim_start_matches("require ").trim())
        .find_map(|line| line.strip_prefix(path)?.strip_prefix(' ')?.split_whitespace().next())
        .map(str::to_owned)
        .with_context(|| format!("{} does not require {path}", file.display()))
}

/// Why runc, which is the only one that is not plain Go, can neither be found nor built; nothing if it can.
pub(crate) fn why_no_runc(cache: &Path) -> Option<String> {
    let found = pins(Module::Runc)
        .is_ok_and(|pins| without_go(cache, Module::Runc, &pins, &BTreeSet::from([Program::Runc])).is_ok());
    if found {
        return None;
    }
    let works = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    if !works("cc", &["--version"]) {
        return Some("runc needs a C compiler to be built".to_owned());
    }
    if !works("pkg-config", &["--exists", "libseccomp"]) {
        let packages = "packages pkg-config and libseccomp-dev on Debian and Ubuntu";
        return Some(format!("runc needs pkg-config and the headers of libseccomp to be built ({packages})"));
    }
    None
}

fn build(folder: &Path, toolchain: &GoToolchain, module: Module, programs: &[Program]) -> Result<()> {
    let seconds: u64 = programs.iter().map(|program| program.build_seconds()).sum();
    eprintln!(
        "test bed: building {} from testbed/{} (once; up to {} on two cores, less with a warm Go cache; kept in {})",
        names(programs),
        module.name(),
        minutes(seconds),
        folder.display()
    );
    let started = Instant::now();
    // We hold the folder's lock, so whatever an interrupted build left here is nobody's.
    let unfinished = folder.join(".unfinished");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished)?;
    }
    fs::create_dir_all(&unfinished)?;
    // One command builds side by side, but names each program after its package: not right for etcd ("server", "v3").
    let (odd, plain): (Vec<Program>, Vec<Program>) =
        programs.iter().copied().partition(|program| !program.package().ends_with(program.file_name()));
    for program in odd {
        let target = unfinished.join(program.file_name());
        go(toolchain, module, target.as_os_str(), &[program], started)?;
    }
    if !plain.is_empty() {
        let mut target = unfinished.clone().into_os_string();
        target.push("/");
        go(toolchain, module, &target, &plain, started)?;
    }
    for program in programs {
        fs::rename(unfinished.join(program.file_name()), folder.join(program.file_name()))
            .with_context(|| format!("go build did not make {}", program.file_name()))?;
    }
    fs::remove_dir_all(&unfinished)?;
    eprintln!("test bed: built {} in {}", names(programs), minutes(started.elapsed().as_secs()));
    Ok(())
}

fn go(
    toolchain: &GoToolchain,
    module: Module,
    target: &OsStr,
    programs: &[Program],
    started: Instant,
) -> Result<()> {
    let mut command = Command::new("go");
    command.args(arguments(module)?);
    if available_memory_gib().is_some_and(|gib| gib < 6) {
        // The largest compile step takes 2.7 GB, and Go runs one for each core.
        command.args(["-p", "1"]);
    }
    command.arg("-o").arg(target).args(programs.iter().map(|program| program.package()));
    command
        .current_dir(module.folder())
        .env("GOTOOLCHAIN", toolchain.choice)
        .env("CGO_ENABLED", if module == Module::Runc { "1" } else { "0" })
        .env("GOWORK", "off")
        .env("GOFLAGS", "-mod=readonly")
        .env_remove("GOOS")
        .env_remove("GOARCH")
        .stdin(Stdio::null());
    let mut child = command.spawn().context("cannot run go")?;
    let mut said = started;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if said.elapsed() > Duration::from_mins(1) {
            said = Instant::now();
            eprintln!(
                "test bed: still building {} ({})",
                names(programs),
                minutes(started.elapsed().as_secs())
            );
        }
        thread::sleep(Duration::from_millis(100));
    };
    if !status.success() {
        bail!("`go build` of {} failed: {status}", names(programs));
    }
    Ok(())
}

fn available_memory_gib() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib / (1024 * 1024))
}

fn minutes(seconds: u64) -> String {
    if seconds < 60 { format!("{seconds} s") } else { format!("{} min {} s", seconds / 60, seconds % 60) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_are_told_their_version() {
        let linker = arguments(Module::ControlPlane).unwrap().join(" ");
        assert!(linker.contains("version.gitVersion=v1."), "{linker}");
        assert!(linker.contains("version.gitMinor=3"), "{linker}");
        assert!(arguments(Module::Helm4).unwrap().join(" ").contains("version.version=v4."));
    }

    #[test]
    fn without_go_the_message_says_what_to_install() {
        let cache = tempfile::tempdir().unwrap();
        let wanted = BTreeSet::from([Program::Kubectl]);
        let error = ensure(cache.path(), None, Module::ControlPlane, &wanted).unwrap_err().to_string();
        assert!(error.contains("go.dev/dl") && error.contains("KUBEBUILDER_ASSETS"), "{error}");
    }

    #[test]
    fn a_cached_program_needs_no_go() {
        let cache = tempfile::tempdir().unwrap();
        let pins = pins(Module::Helm3).unwrap();
        let folder = cache.path().join(folder_name(Module::Helm3, &pins, "go1.26.3"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("helm"), "").unwrap();
        let found = ensure(cache.path(), None, Module::Helm3, &BTreeSet::from([Program::Helm3])).unwrap();
        assert_eq!(found, folder);
    }
}
