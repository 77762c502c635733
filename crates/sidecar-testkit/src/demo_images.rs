//! The images of the article's demo on the real node, made on this machine: nothing is pulled.
//!
//! The programs in them are the real ones, from Debian's packages: curl and busybox, and httpbin under gunicorn. A tree of
//! packages is unpacked by `mmdebstrap`, what a container has no use for is left out, and [`crate::archive`] writes the image.
//! Each is made once and kept in the user's cache folder, under the hash of its recipe.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::archive::{Content, Entry, Image, ImageConfig, Layer, hexadecimal};

/// The pause image, for `pinned_images.sandbox` in containerd's configuration.
pub const PAUSE: &str = "localhost/pause:1";
/// The image of the article's sidecar.
pub const BUSYBOX_CURL: &str = "docker.io/yauritux/busybox-curl:latest";
/// The image of the article's application.
pub const HTTPBIN: &str = "docker.io/kennethreitz/httpbin:latest";

/// Debian release that the trees are made of. It does not follow the machine's own: one recipe is tested, not several.
const SUITE: &str = "bookworm";

/// What an administrator does on a machine that lacks something.
const INSTALL: &str = "apt-get install mmdebstrap debian-archive-keyring";

/// Search path of a shell in the images.
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Counts up when the code below makes something else of the same recipe.
const REVISION: u32 = 1;

const PAUSE_FILES: [(&str, &str); 2] = [
    ("go.mod", include_str!("../../../testbed/images/pause/go.mod")),
    ("main.go", include_str!("../../../testbed/images/pause/main.go")),
];

/// Left out of every tree: what belongs to package management, to this machine (name, resolver, mirrors) or to readers.
/// A `*` stands for one folder.
const LEFT_OUT: &[&str] = &[
    "dev",
    "etc/alternatives",
    "etc/apt",
    "etc/cron.daily",
    "etc/dpkg",
    "etc/fstab",
    "etc/hostname",
    "etc/logrotate.d",
    "etc/resolv.conf",
    "usr/lib/*/gconv",
    "usr/lib/valgrind",
    "usr/libexec/dpkg",
    "usr/share/applications",
    "usr/share/bash-completion",
    "usr/share/binfmts",
    "usr/share/bug",
    "usr/share/doc",
    "usr/share/doc-base",
    "usr/share/gcc",
    "usr/share/gdb",
    "usr/share/info",
    "usr/share/lintian",
    "usr/share/locale",
    "usr/share/man",
    "usr/share/pixmaps",
    "usr/share/zsh",
    "var/cache",
    "var/lib",
    "var/log",
];

/// How an image is made.
#[derive(Debug)]
struct Recipe {
    name: &'static str,
    /// Name of the archive in the cache.
    file: &'static str,
    /// On two cores with a mirror nearby; said to the user before he has to wait.
    expected_seconds: u32,
    content: Tree,
    user: &'static str,
    environment: &'static [(&'static str, &'static str)],
    command: &'static [&'static str],
    exposed_ports: &'static [u16],
    /// Paths without which the image would be of no use; looked for before it goes into the cache.
    programs: &'static [&'static str],
}

/// What the files of an image are made from.
#[derive(Debug)]
enum Tree {
    /// One static Go program.
    Pause { files: &'static [(&'static str, &'static str)] },
    /// Packages of [`SUITE`] with all that they depend on, unpacked without running their scripts.
    Packages {
        packages: &'static [&'static str],
        left_out: &'static [&'static str],
        /// Shell command for the unpacked tree in `$1`, run on this machine.
        hook: Option<&'static str>,
        /// Files that the scripts would have made.
        files: &'static [(&'static str, &'static str)],
    },
}

const ACCOUNTS: &[(&str, &str)] = &[
    ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"),
    ("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
    ("etc/nsswitch.conf", "hosts: files dns\n"),
];

const RECIPES: &[Recipe] = &[
    Recipe {
        name: PAUSE,
        file: "pause.tar",
        expected_seconds: 5,
        content: Tree::Pause { files: &PAUSE_FILES },
        user: "65535:65535",
        environment: &[],
        command: &["/pause"],
        exposed_ports: &[],
        programs: &["pause"],
    },
    Recipe {
        name: BUSYBOX_CURL,
        file: "busybox-curl.tar",
        expected_seconds: 10,
        content: Tree::Packages {
            packages: &["busybox-static", "ca-certificates", "curl", "netbase"],
            left_out: &[
                "etc/debconf.conf",
                "etc/ca-certificates",
                "etc/ssl/private",
                "usr/bin/c_rehash",
                "usr/bin/debconf*",
                "usr/bin/openssl",
                "usr/lib/ssl/misc",
                "usr/lib/*/engines-3",
                "usr/sbin/dpkg-*",
                "usr/sbin/update-ca-certificates",
                "usr/share/debconf",
                "usr/share/initramfs-tools",
                "usr/share/perl5",
            ],
            // The program is static, so that it runs outside its tree and without a chroot.
            hook: Some(
                r#"for applet in $("$1/bin/busybox" --list-full | grep /); do
                     [ -e "$1/$applet" ] || { mkdir -p "$1/${applet%/*}" && ln -s /bin/busybox "$1/$applet"; }
                   done"#,
            ),
            files: ACCOUNTS,
        },
        user: "",
        environment: &[("PATH", SEARCH_PATH)],
        command: &["/bin/sh"],
        exposed_ports: &[],
        programs: &[
            "bin/busybox",
            "bin/sh",
            "bin/sleep",
            "etc/ssl/certs/ca-certificates.crt",
            "usr/bin/curl",
        ],
    },
    Recipe {
        name: HTTPBIN,
        file: "httpbin.tar",
        expected_seconds: 15,
        content: Tree::Packages {
            packages: &["gunicorn", "netbase", "python3-gevent", "python3-httpbin", "python3-minimal"],
            left_out: &[
                "bin/tar",
                "lib/systemd",
                "usr/bin/dpkg*",
                "usr/bin/update-alternatives",
                "usr/lib/python3.11/distutils",
                "usr/lib/python3.11/lib2to3",
                "usr/lib/python3.11/pydoc_data",
                "usr/lib/python3.11/test",
                "usr/lib/python3/dist-packages/setuptools",
                "usr/lib/python3/dist-packages/zope/interface/tests",
                "usr/share/dpkg",
                "usr/share/javascript",
                "usr/share/polkit-1",
                "usr/share/vim",
            ],
            hook: None,
            files: ACCOUNTS,
        },
        user: "",
        // DEBUG is httpbin's own switch; of what it does here only the indented JSON shows, which is what the published image
        // prints too.
        environment: &[
            ("PATH", SEARCH_PATH),
            ("DEBUG", "1"),
            ("PYTHONDONTWRITEBYTECODE", "1"),
            ("PYTHONUNBUFFERED", "1"),
        ],
        command: &["python3", "-m", "gunicorn", "-b", "0.0.0.0:80", "-k", "gevent", "httpbin:app"],
        exposed_ports: &[80],
        programs: &["usr/bin/python3", "usr/lib/python3/dist-packages/httpbin/core.py"],
    },
];

/// The archives of the demo's images, in the order pause, busybox-curl, httpbin. Those that are not in the cache are made
/// first; `progress` is told what is being made and how long that takes.
pub fn ensure(progress: &mut dyn FnMut(&str)) -> Result<Vec<PathBuf>> {
    RECIPES.iter().map(|recipe| recipe.ensure(&cache_folder()?, progress)).collect()
}

impl Recipe {
    fn ensure(&self, cache: &Path, progress: &mut dyn FnMut(&str)) -> Result<PathBuf> {
        let folder = cache.join(self.key());
        let path = folder.join(self.file);
        if path.exists() {
            return Ok(path);
        }
        fs::create_dir_all(&folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        let lock = File::create(folder.join("lock"))?;
        if lock.try_lock().is_err() {
            progress(&format!("waiting for another process that makes the image {}", self.name));
            lock.lock()?;
        }
        // Whoever held the lock may have made it.
        if !path.exists() {
            let start = Instant::now();
            progress(&format!("making the image {} (once, about {} s)", self.name, self.expected_seconds));
            // A fixed name, so that what an interrupted run left behind goes away with the next one.
            let unfinished = folder.join("unfinished");
            if unfinished.exists() {
                fs::remove_dir_all(&unfinished)?;
            }
            fs::create_dir(&unfinished)?;
            let written = self.image(&unfinished)?.write(&unfinished.join(self.file))?;
            fs::rename(unfinished.join(self.file), &path)?;
            fs::remove_dir_all(&unfinished)?;
            progress(&format!(
                "made {}: {:.1} MB in {:.1} s",
                path.display(),
                megabytes(written.size),
                start.elapsed().as_secs_f64()
            ));
        }
        Ok(path)
    }

    /// Name of the folder in the cache: everything that decides the image's content is in it, except the packages' versions,
    /// which are whatever the release has on that day.
    fn key(&self) -> String {
        let text = format!("{REVISION} {} {SUITE} {LEFT_OUT:?} {self:?}", std::env::consts::ARCH);
        hexadecimal(&Sha256::digest(text)[..8])
    }

    fn image(&self, scratch: &Path) -> Result<Image> {
        let layer = match &self.content {
            Tree::Pause { files } => pause(files, scratch)?,
            Tree::Packages { packages, left_out, hook, files } => {
                let mut layer = unpack(packages, *hook, scratch)?;
                layer.take(|path| LEFT_OUT.iter().chain(*left_out).any(|pattern| is_under(path, pattern)));
                bundle_certificates(&mut layer)?;
                layer.insert("tmp", Entry::Directory { mode: 0o1777 })?;
                layer.insert("root", Entry::Directory { mode: 0o700 })?;
                for (path, text) in *files {
                    layer.file(path, 0o644, *text)?;
                }
                layer
            }
        };
        if let Some(missing) = self.programs.iter().find(|path| layer.get(path).is_none()) {
            bail!("the image {} came out without /{missing}", self.name);
        }
        let owned = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
        Ok(Image {
            name: self.name.to_owned(),
            config: ImageConfig {
                entrypoint: Vec::new(),
                command: owned(self.command),
                environment: self
                    .environment
                    .iter()
                    .map(|(name, value)| ((*name).into(), (*value).into()))
                    .collect(),
                user: self.user.to_owned(),
                labels: BTreeMap::new(),
                exposed_ports: self.exposed_ports.iter().copied().collect(),
            },
            layers: vec![layer],
        })
    }
}

/// `$XDG_CACHE_HOME` or `~/.cache`, which `cargo clean` does not touch.
fn cache_folder() -> Result<PathBuf> {
    let folder = env::var_os("XDG_CACHE_HOME").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let folder =
        folder.filter(|folder| folder.is_absolute()).or_else(|| Some(env::home_dir()?.join(".cache")));
    let folder = folder.context("neither XDG_CACHE_HOME nor HOME says where the cache folder is")?;
    Ok(folder.join("kubernetes-sidecar-injector/images"))
}

fn pause(files: &[(&str, &str)], scratch: &Path) -> Result<Layer> {
    for (name, text) in files {
        fs::write(scratch.join(name), text)?;
    }
    let program = scratch.join("pause");
    let mut command = Command::new("go");
    command.args(["build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o"]).arg(&program).arg(".");
    command.current_dir(scratch).env("CGO_ENABLED", "0").env("GOWORK", "off").env("GOFLAGS", "");
    command.env_remove("GOOS").env_remove("GOARCH");
    run(command, "The pause image needs Go, as the Kubernetes programs themselves do")?;
    let mut layer = Layer::new();
    // The program's folder goes away before the archive is written.
    layer.file("pause", 0o755, fs::read(program)?)?;
    Ok(layer)
}

/// Downloads the packages and what they depend on and unpacks them.
fn unpack(packages: &[&str], hook: Option<&str>, scratch: &Path) -> Result<Layer> {
    let tree = scratch.join("tree.tar");
    let mut command = Command::new("mmdebstrap");
    command.args(["--variant=extract", "--format=tar"]).arg(format!("--include={}", packages.join(",")));
    if let Some(hook) = hook {
        command.arg(format!("--extract-hook={hook}"));
    }
    command.arg(SUITE).arg(&tree).args(host_sources());
    run(command, &format!("The demo's images need mmdebstrap, run as root: {INSTALL}"))?;
    let mut layer = Layer::new();
    layer.add_tar(BufReader::new(File::open(&tree)?)).context("cannot read the tree that mmdebstrap made")?;
    Ok(layer)
}

/// The machine's own lists of package sources, so far as they name [`SUITE`]: whoever uses a mirror has said so there.
/// Without any, mmdebstrap takes Debian's.
fn host_sources() -> Vec<PathBuf> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    let mut parts: Vec<PathBuf> = fs::read_dir("/etc/apt/sources.list.d")
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.extension().is_some_and(|extension| extension == "list" || extension == "sources")
        })
        .collect();
    parts.sort();
    files.append(&mut parts);
    files.retain(|path| fs::read_to_string(path).is_ok_and(|text| names_suite(&text)));
    files
}

/// Sources of others (editors, clouds) do not have a suite of Debian's name, and their keys need not be readable for us.
fn names_suite(sources: &str) -> bool {
    sources
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .flat_map(str::split_whitespace)
        .any(|word| word == SUITE)
}

/// Joins the certificates into the one file that curl reads; the package's script would have done it.
fn bundle_certificates(layer: &mut Layer) -> Result<()> {
    let certificates = layer.take(|path| path.starts_with("usr/share/ca-certificates/"));
    let mut bundle = Vec::new();
    for entry in certificates.into_values() {
        if let Entry::File { content: Content::Bytes(bytes), .. } = entry {
            bundle.extend(bytes);
        }
    }
    if !bundle.is_empty() {
        layer.file("etc/ssl/certs/ca-certificates.crt", 0o644, bundle)?;
    }
    Ok(())
}

/// Whether the path is the pattern or lies under it. A `*` stands for any characters within one name.
fn is_under(path: &str, pattern: &str) -> bool {
    let mut names = path.split('/');
    pattern.split('/').all(|pattern| {
        names.next().is_some_and(|name| match pattern.split_once('*') {
            Some((start, end)) => {
                name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end)
            }
            None => name == pattern,
        })
    })
}

/// Runs a program to its end without showing its output, unless it fails.
fn run(mut command: Command, hint: &str) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = match command.stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bail!("the program `{program}` is not on this machine. {hint}")
        }
        Err(error) => return Err(error).with_context(|| format!("cannot start `{program}`")),
    };
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(15)..].join("\n  ");
    bail!("`{program}` failed ({}); its last words:\n  {tail}\n{hint}", output.status)
}

#[allow(clippy::cast_precision_loss, reason = "shown with one decimal")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        assert!(is_under("usr/lib/x86_64-linux-gnu/gconv/a.so", "usr/lib/*/gconv"));
        assert!(is_under("usr/bin/dpkg-deb", "usr/bin/dpkg*"));
        assert!(is_under("dev", "dev"));
        assert!(!is_under("developer", "dev"));
        assert!(!is_under("usr", "usr/share"));
        assert!(!is_under("usr/lib/gconv", "usr/lib/*/gconv"));
    }

    #[test]
    fn only_sources_of_the_suite_are_used() {
        assert!(names_suite("Types: deb\nURIs: http://mirror.example\nSuites: bookworm bookworm-updates\n"));
        assert!(names_suite("deb http://mirror.example bookworm main"));
        assert!(!names_suite(
            "# deb http://mirror.example bookworm main\ndeb http://cloud.example sdk-bookworm main"
        ));
    }

    #[test]
    fn keys_differ_and_stay() {
        let keys: BTreeSet<String> = RECIPES.iter().map(Recipe::key).collect();
        assert_eq!(keys.len(), RECIPES.len());
        assert_eq!(RECIPES[0].key(), RECIPES[0].key());
    }

    #[test]
    fn what_is_in_the_cache_is_not_made_again() {
        let cache = tempfile::tempdir().unwrap();
        let folder = cache.path().join(RECIPES[1].key());
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(RECIPES[1].file), "made before").unwrap();
        let path = RECIPES[1].ensure(cache.path(), &mut |line| panic!("{line}")).unwrap();
        assert_eq!(fs::read_to_string(path).unwrap(), "made before");
    }

    #[test]
    fn certificates_become_one_file() {
        let mut layer = Layer::new();
        layer.file("usr/share/ca-certificates/mozilla/b.crt", 0o644, *b"B\n").unwrap();
        layer.file("usr/share/ca-certificates/mozilla/a.crt", 0o644, *b"A\n").unwrap();
        bundle_certificates(&mut layer).unwrap();
        let Some(Entry::File { content: Content::Bytes(bytes), .. }) =
            layer.get("etc/ssl/certs/ca-certificates.crt")
        else {
            panic!("no bundle");
        };
        assert_eq!(bytes, b"A\nB\n");
        assert!(layer.get("usr/share/ca-certificates/mozilla/a.crt").is_none());
    }

    #[test]
    fn a_missing_program_is_named_with_what_to_do() {
        let error = run(Command::new("no-such-program-here"), "Install it so.").unwrap_err().to_string();
        assert!(error.contains("no-such-program-here") && error.contains("Install it so."), "{error}");
    }
}
