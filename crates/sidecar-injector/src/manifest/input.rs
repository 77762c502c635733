//! Files, folders and standard input, as bytes with a name for messages.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// What was read from one place.
pub(crate) struct Source {
    /// For messages: the path as it was given, or `standard input`.
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

impl Source {
    /// The bytes as text, which manifests and definitions are, or what is wrong with them.
    pub(crate) fn text(&self) -> Result<&str, String> {
        std::str::from_utf8(&self.bytes).map_err(|error| format!("not UTF-8 (byte {})", error.valid_up_to()))
    }
}

/// Reads every place; folders with all that is below them, in the order of names.
pub(crate) fn read(places: &[PathBuf]) -> Result<Vec<Source>, Failure> {
    let mut sources = Vec::new();
    for place in places {
        if place.as_os_str() != "-" && place.is_dir() {
            let mut files = Vec::new();
            find_manifests(place, &mut files)?;
            if files.is_empty() {
                return Err(Failure::input(place.display(), "the folder has no .yaml, .yml or .json file"));
            }
            for file in files {
                sources.push(read_one(&file)?);
            }
        } else {
            sources.push(read_one(place)?);
        }
    }
    Ok(sources)
}

/// Reads one file, or standard input for `-`.
pub(crate) fn read_one(place: &Path) -> Result<Source, Failure> {
    if place.as_os_str() == "-" {
        let name = "standard input".to_owned();
        let mut bytes = Vec::new();
        std::io::stdin().lock().read_to_end(&mut bytes).map_err(|error| Failure::input(&name, error))?;
        return Ok(Source { name, bytes });
    }
    let bytes = std::fs::read(place).map_err(|error| Failure::input(place.display(), error))?;
    Ok(Source { name: place.display().to_string(), bytes })
}

pub(crate) fn find_manifests(folder: &Path, found: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::input(folder.display(), error);
    let mut entries =
        std::fs::read_dir(folder).map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        // What Kubernetes mounts and editors leave: `..data`, `.git`.
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = entry.path();
        // A symlink to a folder may lead back up; one to a file may not.
        if entry.file_type().map_err(failed)?.is_dir() {
            find_manifests(&path, found)?;
        } else if path.is_file()
            && path
                .extension()
                .is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|known| extension == *known))
        {
            found.push(path);
        }
    }
    Ok(())
}
