//! The Kubernetes programs the test bed runs on: where each comes from, and how it is found or built.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::go_build::{self, GoToolchain};

/// One program of the test bed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Program {
    /// The store behind the API server.
    Etcd,
    /// The Kubernetes API server.
    KubeApiserver,
    /// The controllers: Deployments, garbage collection, service accounts and so on.
    KubeControllerManager,
    /// The Kubernetes command line.
    Kubectl,
    /// The node agent (real node only).
    Kubelet,
    /// Helm 4.
    Helm4,
    /// Helm 3.
    Helm3,
    /// The container runtime (real node only).
    Containerd,
    /// The process that containerd starts for each pod.
    ContainerdShim,
    /// The command line of containerd.
    Ctr,
    /// The program that makes containers out of namespaces and cgroups.
    Runc,
    /// Network plugin: a bridge and a pair of virtual devices for each pod.
    CniBridge,
    /// Network plugin: hands out addresses of a range.
    CniHostLocal,
    /// Network plugin: brings the loopback device up.
    CniLoopback,
}

impl Program {
    /// The file name, as other programs look it up on `PATH`.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::KubeApiserver => "kube-apiserver",
            Self::KubeControllerManager => "kube-controller-manager",
            Self::Kubectl => "kubectl",
            Self::Kubelet => "kubelet",
            Self::Helm4 | Self::Helm3 => "helm",
            Self::Containerd => "containerd",
            Self::ContainerdShim => "containerd-shim-runc-v2",
            Self::Ctr => "ctr",
            Self::Runc => "runc",
            Self::CniBridge => "bridge",
            Self::CniHostLocal => "host-local",
            Self::CniLoopback => "loopback",
        }
    }

    pub(crate) fn package(self) -> &'static str {
        match self {
            Self::Etcd => "go.etcd.io/etcd/server/v3",
            Self::KubeApiserver => "k8s.io/kubernetes/cmd/kube-apiserver",
            Self::KubeControllerManager => "k8s.io/kubernetes/cmd/kube-controller-manager",
            Self::Kubectl => "k8s.io/kubernetes/cmd/kubectl",
            Self::Kubelet => "k8s.io/kubernetes/cmd/kubelet",
            Self::Helm4 => "helm.sh/helm/v4/cmd/helm",
            Self::Helm3 => "helm.sh/helm/v3/cmd/helm",
            Self::Containerd => "github.com/containerd/containerd/v2/cmd/containerd",
            Self::ContainerdShim => "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
            Self::Ctr => "github.com/containerd/containerd/v2/cmd/ctr",
            Self::Runc => "github.com/opencontainers/runc",
            Self::CniBridge => "github.com/containernetworking/plugins/plugins/main/bridge",
            Self::CniHostLocal => "github.com/containernetworking/plugins/plugins/ipam/host-local",
            Self::CniLoopback => "github.com/containernetworking/plugins/plugins/main/loopback",
        }
    }

    pub(crate) fn module(self) -> Module {
        match self {
            Self::Etcd
            | Self::KubeApiserver
            | Self::KubeControllerManager
            | Self::Kubectl
            | Self::Kubelet => Module::ControlPlane,
            Self::Helm4 => Module::Helm4,
            Self::Helm3 => Module::Helm3,
            Self::Containerd | Self::ContainerdShim | Self::Ctr => Module::Containerd,
            Self::Runc => Module::Runc,
            Self::CniBridge | Self::CniHostLocal | Self::CniLoopback => Module::Cni,
        }
    }

    /// Seconds on two cores with empty caches, for the message before a build.
    pub(crate) fn build_seconds(self) -> u64 {
        match self {
            Self::KubeApiserver => 280,
            Self::KubeControllerManager => 90,
            Self::Helm4 => 120,
            Self::Containerd => 70,
            Self::Helm3 => 60,
            Self::Kubectl | Self::Kubelet => 20,
            Self::Runc => 11,
            Self::Etcd => 9,
            _ => 4,
        }
    }

    /// The name in a `KUBEBUILDER_ASSETS` folder. `helm` alone would not say which version it is.
    pub(crate) fn asset_name(self) -> &'static str {
        match self {
            Self::Helm4 => "helm4",
            Self::Helm3 => "helm3",
            other => other.file_name(),
        }
    }
}

/// A folder of `testbed/`: a Go module that pins programs which are built together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Module {
    ControlPlane,
    Helm4,
    Helm3,
    Containerd,
    Runc,
    Cni,
}

impl Module {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ControlPlane => "controlplane",
            Self::Helm4 => "helm4",
            Self::Helm3 => "helm3",
            Self::Containerd => "containerd",
            Self::Runc => "runc",
            Self::Cni => "cni",
        }
    }

    pub(crate) fn folder(self) -> PathBuf {
        repository_root().join("testbed").join(self.name())
    }
}

/// The root of this repository.
pub fn repository_root() -> PathBuf {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_folder.ancestors().nth(2).unwrap_or(crate_folder).to_path_buf()
}

/// Programs that were found or built, and are ready to run.
#[derive(Clone, Debug, Default)]
pub struct Programs {
    paths: BTreeMap<Program, PathBuf>,
}

impl Programs {
    /// Finds the programs, in this order: `KUBEBUILDER_ASSETS`, the cache, `go build`. Blocks, for minutes when it
    /// has to build, and says on standard error what it is doing.
    pub fn ensure(wanted: &[Program]) -> Result<Self> {
        let mut programs = Self::default();
        programs.add(wanted)?;
        Ok(programs)
    }

    /// Finds more programs, as [`Programs::ensure`] does.
    pub fn add(&mut self, wanted: &[Program]) -> Result<()> {
        let assets = env::var_os("KUBEBUILDER_ASSETS").filter(|value| !value.is_empty()).map(PathBuf::from);
        let mut by_module: BTreeMap<Module, BTreeSet<Program>> = BTreeMap::new();
        for &program in wanted {
            if self.paths.contains_key(&program) {
                continue;
            }
            let asset = assets
                .as_deref()
                .map(|folder| folder.join(program.asset_name()))
                .filter(|path| path.is_file());
            match asset {
                Some(path) => {
                    self.paths.insert(program, path);
                }
                None => {
                    by_module.entry(program.module()).or_default().insert(program);
                }
            }
        }
        if by_module.is_empty() {
            return Ok(());
        }
        let cache = cache_folder()?;
        let toolchain = GoToolchain::find();
        for (module, programs) in by_module {
            let folder =
                go_build::ensure(&cache, toolchain.as_ref(), module, &programs).with_context(|| {
                    let names: Vec<_> = programs.iter().map(|program| program.file_name()).collect();
                    let assets = match &assets {
                        Some(folder) => format!("in KUBEBUILDER_ASSETS ({})", folder.display()),
                        None => "in KUBEBUILDER_ASSETS (not set)".to_owned(),
                    };
                    format!(
                        "the test bed needs {}; looked {assets} and in the cache {}",
                        names.join(", "),
                        cache.display()
                    )
                })?;
            for program in programs {
                self.paths.insert(program, folder.join(program.file_name()));
            }
        }
        Ok(())
    }

    /// Where a program is. Only for programs that were asked for.
    pub fn path(&self, program: Program) -> Result<&Path> {
        match self.paths.get(&program) {
            Some(path) => Ok(path),
            None => bail!("{} was not asked for when the test bed started", program.file_name()),
        }
    }
}

/// Not in the target folder: `cargo clean` shall not cost ten minutes of building.
pub(crate) fn cache_folder() -> Result<PathBuf> {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path: &PathBuf| path.is_absolute());
    let base = absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        .context("neither XDG_CACHE_HOME nor HOME is set: no folder to keep the test bed's programs in")?;
    Ok(base.join("kubernetes-sidecar-injector").join("testbed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_package_is_pinned_by_its_module() {
        let all = [
            Program::Etcd,
            Program::KubeApiserver,
            Program::KubeControllerManager,
            Program::Kubectl,
            Program::Kubelet,
            Program::Helm4,
            Program::Helm3,
            Program::Containerd,
            Program::ContainerdShim,
            Program::Ctr,
            Program::Runc,
            Program::CniBridge,
            Program::CniHostLocal,
            Program::CniLoopback,
        ];
        for program in all {
            let pins = std::fs::read_to_string(program.module().folder().join("go.mod")).unwrap();
            let pinned = pins.lines().any(|line| {
                line.trim() == program.package() || line.trim() == format!("tool {}", program.package())
            });
            assert!(pinned, "{program:?} is no tool of testbed/{}/go.mod", program.module().name());
        }
    }
}
