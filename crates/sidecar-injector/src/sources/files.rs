//! Definitions in files: read at the start, and again when anything in their folders changes.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use notify::RecursiveMode;
use sidecar_engine::definition::ReadOptions;
use tracing::warn;

use super::reading::{self, Document};
use super::store::{Part, Source, Store};
use crate::changes::{Changes, folder_of};
use crate::failure::Failure;
use crate::manifest::input::find_manifests;

/// How long it must have been quiet before files are read: an editor writes in several steps.
const SETTLE: Duration = Duration::from_millis(100);

/// How often the files are looked at without an event.
const LOOK: Duration = Duration::from_secs(2);

/// How often a look is begun again when the files change during it.
const ATTEMPTS: usize = 10;

/// Times of files are this coarse, on the coarsest file systems that are in use.
const COARSE: Duration = Duration::from_secs(2);

/// The files that definitions are read from.
#[derive(Debug)]
pub(crate) struct Files {
    given: Vec<Given>,
    /// By path, which is the order in which names are given away.
    known: BTreeMap<PathBuf, Known>,
    has_looked: bool,
    options: ReadOptions,
}

/// A path as the user gave it.
#[derive(Debug)]
struct Given {
    path: PathBuf,
    is_folder: bool,
}

/// A file as it was when it was last read.
#[derive(Debug)]
struct Known {
    stamp: Stamp,
    /// Whether it may have changed after it was read without having another stamp.
    is_young: bool,
    hash: u64,
    part: Part,
}

/// What differs after a file was changed; it costs one call to find out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Why the files could not be looked at; everything stays as it is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LookError {
    #[error("{0}")]
    Unreadable(String),
    #[error("the files changed all the time while they were read")]
    Restless,
}

/// The files there are, with what their metadata says.
type Listing = Vec<(PathBuf, Stamp)>;

impl Files {
    /// Reads the files and folders for the first time.
    pub(crate) fn read(paths: &[PathBuf], options: ReadOptions) -> Result<(Self, Vec<Part>), Failure> {
        let mut given = Vec::with_capacity(paths.len());
        for path in paths {
            let metadata = std::fs::metadata(path).map_err(|error| Failure::input(path.display(), error))?;
            given.push(Given { path: path.clone(), is_folder: metadata.is_dir() });
        }
        let mut files = Files { given, known: BTreeMap::new(), has_looked: false, options };
        let parts = files.look().map_err(|error| Failure::input("definitions", error))?;
        Ok((files, parts.unwrap_or_default()))
    }

    /// Keeps the store up to date, as long as it is polled.
    pub(crate) async fn follow(mut self, store: Arc<Store>) {
        let folders: Vec<_> = self.given.iter().map(Given::watched).collect();
        let mut changes = Changes::watch(&folders, SETTLE, LOOK);
        let mut said: Option<String> = None;
        loop {
            changes.next().await;
            let look = tokio::task::spawn_blocking(move || {
                let looked = self.look();
                (self, looked)
            });
            let Ok((files, looked)) = look.await else { return };
            self = files;
            let problem = looked.as_ref().err().map(ToString::to_string);
            if let Some(problem) = problem.as_ref().filter(|problem| said.as_ref() != Some(problem)) {
                warn!(event = "definitions_unreadable", problem, "keeping the definitions that were read");
            }
            said = problem;
            if let Ok(Some(parts)) = looked {
                store.update(Source::Files, &parts);
            }
        }
    }

    /// All that the files hold now, if it is not what they held before.
    ///
    /// Never a mixture of before and after: what is read counts only if no file has changed meanwhile.
    fn look(&mut self) -> Result<Option<Vec<Part>>, LookError> {
        let mut listing = self.list()?;
        // At the start nothing is served that a writer could disturb.
        if self.has_looked {
            if self.is_known(&listing) {
                return Ok(None);
            }
            listing = self.wait_for_writers(listing)?;
        }
        for _ in 0..ATTEMPTS {
            let read = self.read_changed(&listing);
            let after = self.list()?;
            if after == listing
                && let Some(known) = read
            {
                let hashes = |known: &BTreeMap<PathBuf, Known>| {
                    known.iter().map(|(path, file)| (path.clone(), file.hash)).collect::<Vec<_>>()
                };
                let is_news = !self.has_looked || hashes(&known) != hashes(&self.known);
                self.known = known;
                self.has_looked = true;
                return Ok(is_news.then(|| self.known.values().map(|known| known.part.clone()).collect()));
            }
            listing = after;
        }
        Err(LookError::Restless)
    }

    fn is_known(&self, listing: &Listing) -> bool {
        listing.len() == self.known.len()
            && listing.iter().all(|(path, stamp)| {
                self.known.get(path).is_some_and(|known| known.stamp == *stamp && !known.is_young)
            })
    }

    /// A file that was written to this very moment is probably not complete.
    fn wait_for_writers(&self, mut listing: Listing) -> Result<Listing, LookError> {
        for _ in 0..ATTEMPTS {
            let changed = listing
                .iter()
                .filter(|(path, stamp)| self.known.get(path).is_none_or(|known| known.stamp != *stamp));
            let ages = changed.filter_map(|(_, stamp)| stamp.age());
            let Some(youngest) = ages.min().filter(|age| *age < SETTLE) else { break };
            std::thread::sleep(SETTLE.saturating_sub(youngest));
            listing = self.list()?;
        }
        Ok(listing)
    }

    /// Reads what is not as it was; nothing when a file has gone meanwhile.
    fn read_changed(&self, listing: &Listing) -> Option<BTreeMap<PathBuf, Known>> {
        let mut all = BTreeMap::new();
        for (path, stamp) in listing {
            let old = self.known.get(path);
            let name = path.display().to_string();
            let is_young = stamp.age().is_none_or(|age| age < COARSE);
            if let Some(old) = old.filter(|old| old.stamp == *stamp && !old.is_young) {
                all.insert(path.clone(), old.with(*stamp, false));
                continue;
            }
            let known = match std::fs::read(path) {
                Err(error) if error.kind() == ErrorKind::NotFound => return None,
                Err(error) => {
                    let problem = format!("cannot be read: {error}");
                    let hash = hash(problem.as_bytes());
                    let documents = || vec![Document::unreadable(&name, problem)];
                    Known::new(old, *stamp, is_young, hash, &name, documents)
                }
                Ok(bytes) => {
                    let documents = || reading::read_file(&name, &bytes, self.options);
                    Known::new(old, *stamp, is_young, hash(&bytes), &name, documents)
                }
            };
            all.insert(path.clone(), known);
        }
        Some(all)
    }

    fn list(&self) -> Result<Listing, LookError> {
        let mut listing = Vec::new();
        for given in &self.given {
            let mut paths = Vec::new();
            if given.is_folder {
                find_manifests(&given.path, &mut paths)
                    .map_err(|failure| LookError::Unreadable(failure.to_string()))?;
            } else {
                paths.push(given.path.clone());
            }
            for path in paths {
                match std::fs::metadata(&path) {
                    Ok(metadata) => listing.push((path, Stamp::new(&metadata))),
                    // Gone, unless it is only the way to it that is.
                    Err(error) if error.kind() == ErrorKind::NotFound && folder_of(&path).is_dir() => {}
                    Err(error) => {
                        return Err(LookError::Unreadable(format!("{}: {error}", path.display())));
                    }
                }
            }
        }
        listing.sort_by(|(a, _), (b, _)| a.cmp(b));
        listing.dedup_by(|(a, _), (b, _)| a == b);
        Ok(listing)
    }
}

impl Given {
    fn watched(&self) -> (PathBuf, RecursiveMode) {
        if self.is_folder {
            (self.path.clone(), RecursiveMode::Recursive)
        } else {
            (folder_of(&self.path), RecursiveMode::NonRecursive)
        }
    }
}

impl Known {
    /// What was read before is kept when the contents are the same.
    fn new(
        old: Option<&Known>,
        stamp: Stamp,
        is_young: bool,
        hash: u64,
        name: &str,
        documents: impl FnOnce() -> Vec<Document>,
    ) -> Self {
        if let Some(old) = old.filter(|old| old.hash == hash) {
            return old.with(stamp, is_young);
        }
        let part = Part { origin: name.into(), documents: documents().into() };
        Known { stamp, is_young, hash, part }
    }

    fn with(&self, stamp: Stamp, is_young: bool) -> Self {
        Known { stamp, is_young, hash: self.hash, part: self.part.clone() }
    }
}

impl Stamp {
    fn new(metadata: &std::fs::Metadata) -> Self {
        Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// How long ago the file was written to; nothing when that is in the future.
    fn age(&self) -> Option<Duration> {
        let (seconds, nanoseconds) = self.changed.max(self.modified);
        let since_epoch = Duration::new(seconds.try_into().ok()?, nanoseconds.try_into().ok()?);
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH + since_epoch).ok()
    }
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// The files of one generation define `a-GENERATION`, `b-GENERATION` and so on.
    fn write_generation(folder: &Path, generation: usize) {
        let data = folder.join(format!("..{generation}"));
        std::fs::create_dir(&data).unwrap();
        for file in 'a'..='z' {
            let definition = format!(
                "{{apiVersion: sidecar.me/v1alpha1, kind: ClusterSidecarDefinition, \
                 metadata: {{name: {file}-{generation}}}, spec: {{}}}}"
            );
            std::fs::write(data.join(format!("{file}.yaml")), definition).unwrap();
        }
    }

    fn swap(folder: &Path, generation: usize) {
        std::os::unix::fs::symlink(format!("..{generation}"), folder.join("..data_tmp")).unwrap();
        std::fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    }

    #[test]
    fn what_is_read_is_never_of_two_generations() {
        let folder = tempfile::tempdir().unwrap();
        // So many that none comes back during a look, however slow, for its files would look as if they had not changed.
        for generation in 0..64 {
            write_generation(folder.path(), generation);
        }
        swap(folder.path(), 0);
        for file in 'a'..='z' {
            let link = folder.path().join(format!("{file}.yaml"));
            std::os::unix::fs::symlink(format!("..data/{file}.yaml"), link).unwrap();
        }
        // Files that were written just now would be waited for.
        std::thread::sleep(2 * SETTLE);
        let started = std::time::Instant::now();
        let (mut files, _) = Files::read(&[folder.path().to_owned()], ReadOptions::default()).unwrap();
        let reading = started.elapsed();
        let stop = Arc::new(AtomicBool::new(false));
        let swapping = std::thread::spawn({
            let (stop, folder) = (stop.clone(), folder.path().to_owned());
            move || {
                let swaps = (0..64).cycle().zip([1, 2, 3, 8].into_iter().cycle());
                for (generation, halves) in swaps.take_while(|_| !stop.load(Ordering::Relaxed)) {
                    swap(&folder, generation);
                    // About as long as reading takes on this machine, so that it happens in the middle of it, and now and then
                    // long enough for a look that is not disturbed.
                    std::thread::sleep(reading * halves / 2);
                }
            }
        });
        // Most looks are disturbed.
        let (started, mut read) = (std::time::Instant::now(), 0);
        while read < 30 && started.elapsed() < Duration::from_secs(20) {
            let Ok(Some(parts)) = files.look() else { continue };
            let names = parts.iter().flat_map(|part| part.documents.iter()).map(|document| {
                let name = document.name.as_ref().unwrap();
                name.name.split_once('-').unwrap().1.to_owned()
            });
            let mut generations: Vec<_> = names.collect();
            assert_eq!(generations.len(), 26);
            generations.dedup();
            assert_eq!(generations.len(), 1, "{generations:?}");
            read += 1;
        }
        stop.store(true, Ordering::Relaxed);
        swapping.join().unwrap();
        assert!(read > 0);
    }
}
