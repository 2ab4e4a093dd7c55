//! A repository in a directory: of a web server, on a USB disk, on a network file system. Files
//! appear whole or not at all, and everybody may read them.

mod read;
#[cfg(test)]
mod tests;
mod write;

use std::fs::Metadata;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub(super) use read::ObjectFileReader;

use super::url::StoreUrl;
use crate::repository::object::{
    Etag, FaultKind, ListedObject, ObjectPath, Put, PutReply, StoreFault,
};
use crate::units::WallTime;

/// Names on the longest path of an object.
const MAX_OBJECT_NAMES: usize = 4;

/// The directory of a repository.
#[derive(Debug)]
pub(super) struct Directory {
    root: PathBuf,
    sent: AtomicU64,
}

/// A failed step on a file.
struct FileFault {
    verb: &'static str,
    path: PathBuf,
    error: io::Error,
}

type Done<T> = Result<T, FileFault>;

/// Adds the step to its error.
fn step<T>(verb: &'static str, path: &Path, result: io::Result<T>) -> Done<T> {
    result.map_err(|error| FileFault {
        verb,
        path: path.to_path_buf(),
        error,
    })
}

impl FileFault {
    fn into_fault(self) -> StoreFault {
        let kind = match self.error.kind() {
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => FaultKind::Denied,
            _ => FaultKind::Permanent,
        };
        let hint = match self.error.kind() {
            ErrorKind::PermissionDenied => " (may this user write there?)",
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                " (free some space: `makuo repo gc` deletes old releases)"
            }
            _ => "",
        };

        let path = crate::units::printable_path(&self.path);
        StoreFault {
            kind,
            after: None,
            text: format!("cannot {} {path}: {}{hint}", self.verb, self.error),
        }
    }
}

/// Runs blocking work beside the loop of events.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreFault> + Send + 'static,
) -> Result<T, StoreFault> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.unwrap_or_else(|e| {
        let text = format!("work on the directory ended by a defect of makuo: {e}");
        Err(StoreFault::new(FaultKind::Permanent, &text))
    })
}

fn etag_of(file: &Metadata) -> Option<Etag> {
    let time = i128::from(file.mtime()) * 1_000_000_000 + i128::from(file.mtime_nsec());
    Etag::new(&format!("\"{:x}-{:x}-{:x}\"", time, file.len(), file.ino()))
}

impl Directory {
    /// The repository in `root`.
    pub fn new(root: PathBuf) -> Self {
        let sent = AtomicU64::new(0);
        Self { root, sent }
    }

    /// Bytes of all objects stored so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    fn path(&self, object: &ObjectPath) -> PathBuf {
        self.root.join(object.as_str())
    }

    /// The fault of a root that is missing: a disk that is not mounted looks like that.
    fn check_root(&self) -> Result<(), StoreFault> {
        let fault = match std::fs::metadata(&self.root) {
            Ok(found) if found.is_dir() => return Ok(()),
            Ok(_) => io::Error::from(ErrorKind::NotADirectory),
            Err(error) => error,
        };

        let place = StoreUrl::Directory(self.root.clone());
        let hint = match fault.kind() {
            ErrorKind::NotFound => format!(" (is the disk mounted? else: mkdir {place})"),
            _ => String::new(),
        };
        Err(StoreFault {
            kind: FaultKind::Permanent,
            after: None,
            text: format!("cannot use the directory {place}: {fault}{hint}"),
        })
    }

    /// Stores an object.
    pub async fn put(self: &Arc<Self>, put: &Put) -> PutReply {
        let bytes = put.bytes.len() as u64;
        let directory = Arc::clone(self);
        let put = put.clone();
        let stored = blocking(move || {
            directory.check_root()?;
            directory.store(&put).map_err(FileFault::into_fault)
        });
        let reply = stored.await.unwrap_or_else(PutReply::Failed);
        if let PutReply::Done { .. } = &reply {
            self.sent.fetch_add(bytes, Ordering::Relaxed);
        }
        reply
    }

    /// Hands every object to `each`.
    pub async fn list(
        self: &Arc<Self>,
        each: &mut (dyn FnMut(ListedObject) + Send),
    ) -> Result<(), StoreFault> {
        let mut open = vec![(self.root.clone(), String::new())];
        let directory = Arc::clone(self);
        blocking(move || directory.check_root()).await?;
        while let Some((path, name)) = open.pop() {
            let read = blocking(move || read_dir(&path, &name).map_err(FileFault::into_fault));
            let (objects, folders) = read.await?;
            objects.into_iter().for_each(&mut *each);
            open.extend(folders);
        }

        Ok(())
    }

    /// Deletes an object; one that does not exist is deleted.
    pub async fn delete(self: &Arc<Self>, object: &ObjectPath) -> Result<(), StoreFault> {
        let path = self.path(object);
        let directory = Arc::clone(self);
        blocking(move || {
            directory.check_root()?;
            match std::fs::remove_file(&path) {
                Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
                removed => step("delete", &path, removed).map_err(FileFault::into_fault),
            }
        })
        .await
    }
}

type Folders = Vec<(PathBuf, String)>;

/// Returns the objects in a directory and the directories in it. `name` is its own path.
fn read_dir(path: &Path, name: &str) -> Done<(Vec<ListedObject>, Folders)> {
    let mut objects = Vec::new();
    let mut folders = Vec::new();
    for entry in step("list", path, std::fs::read_dir(path))? {
        let entry = step("list", path, entry)?;
        let file = entry.file_name();
        let Some(object) = file.to_str().and_then(|file| match name {
            "" => ObjectPath::new(file),
            name => ObjectPath::new(&format!("{name}/{file}")),
        }) else {
            continue;
        };

        // A link leads to a part on another disk, and readers follow it: a list without that part
        // would let gc delete packs that its heads refer to.
        let place = entry.path();
        let Some(found) = look_at(&place)? else {
            continue;
        };
        if found.is_dir() && object.as_str().matches('/').count() + 1 < MAX_OBJECT_NAMES {
            folders.push((place, object.as_str().to_string()));
        } else if found.is_file() {
            objects.push(ListedObject {
                object,
                size: found.len(),
                stored: WallTime(found.mtime()),
            });
        }
    }

    Ok((objects, folders))
}

/// Returns what is at `place`; `None` if it is gone, since others delete, too. A link that leads
/// nowhere is a fault: its part of the repository is not there now.
fn look_at(place: &Path) -> Done<Option<Metadata>> {
    let is_gone = |found: &io::Result<Metadata>| {
        let error = found.as_ref().err().map(io::Error::kind);
        error == Some(ErrorKind::NotFound)
    };

    let found = std::fs::metadata(place);
    if !is_gone(&found) {
        return step("look at", place, found).map(Some);
    }
    let itself = std::fs::symlink_metadata(place);
    if is_gone(&itself) {
        return Ok(None);
    }

    let itself = step("look at", place, itself)?;
    if itself.is_symlink() {
        let why = "it is a link that leads nowhere: is its disk mounted? else delete the link";
        return step(
            "look at",
            place,
            Err(io::Error::new(ErrorKind::NotFound, why)),
        );
    }
    Ok(Some(itself))
}
