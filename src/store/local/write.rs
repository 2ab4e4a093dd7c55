//! Writes files of a repository: whole or not at all, under conditions, readable by everybody.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use rustix::io::Errno;

use super::{Directory, Done, etag_of, step};
use crate::repository::object::{Etag, ObjectPath, Put, PutCondition, PutReply, temporary_name};

/// Mode of files: the user of a web server reads them.
const FILE_MODE: u32 = 0o644;
/// Mode of directories.
const DIR_MODE: u32 = 0o755;

impl Directory {
    /// Stores an object.
    pub(super) fn store(&self, put: &Put) -> Done<PutReply> {
        let path = self.path(&put.object);
        let parent = path.parent().unwrap_or(&self.root).to_path_buf();
        self.make_parents(&put.object)?;
        let folder = step("open", &parent, File::open(&parent))?;
        if !put.object.is_immutable() {
            // A network file system without locks has one publisher, or the serial decides.
            let _ = flock(&folder, FlockOperation::LockExclusive);
        }

        let temporary = TemporaryFile::write(&path, &put.bytes)?;
        let moved = match &put.condition {
            PutCondition::Any => step("write", &path, std::fs::rename(&temporary.path, &path)),
            PutCondition::Unchanged(etag) => match current(&path)? == Some(etag.clone()) {
                true => step("write", &path, std::fs::rename(&temporary.path, &path)),
                false => return Ok(PutReply::Conflict),
            },
            PutCondition::Absent => match create(&temporary.path, &path) {
                Err(e) if e.kind() == ErrorKind::AlreadyExists => return Ok(PutReply::Conflict),
                created => step("create", &path, created),
            },
        };
        moved?;
        step("sync", &parent, folder.sync_all())?;
        let stored = temporary.file.metadata();
        let stored = step("look at", &path, stored)?;
        Ok(PutReply::Done {
            etag: etag_of(&stored),
        })
    }

    /// Makes the directories above an object. The root has to exist.
    fn make_parents(&self, object: &ObjectPath) -> Done<()> {
        let names: Vec<&str> = object.as_str().split('/').collect();
        let mut path = self.root.clone();
        for name in &names[..names.len().saturating_sub(1)] {
            path.push(name);
            match DirBuilder::new().mode(DIR_MODE).create(&path) {
                Err(e) if e.kind() == ErrorKind::AlreadyExists => continue,
                made => step("make", &path, made)?,
            }

            // The umask of this process does not decide who reads.
            let mode = Permissions::from_mode(DIR_MODE);
            step(
                "set the mode of",
                &path,
                std::fs::set_permissions(&path, mode),
            )?;
            let above = path.parent().unwrap_or(&self.root);
            let synced = File::open(above).and_then(|above| above.sync_all());
            step("sync", above, synced)?;
        }

        Ok(())
    }
}

/// The state of the object at `path`.
fn current(path: &Path) -> Done<Option<Etag>> {
    match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        found => step("look at", path, found).map(|found| etag_of(&found)),
    }
}

/// Gives a file its final name, if that is free.
fn create(temporary: &Path, path: &Path) -> io::Result<()> {
    let unable = |e: &io::Error| {
        let code = Errno::from_io_error(e);
        matches!(
            code,
            Some(Errno::PERM | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS)
        )
    };

    match std::fs::hard_link(temporary, path) {
        // File systems of USB disks have no links.
        Err(e) if unable(&e) => {
            let renamed = renameat_with(CWD, temporary, CWD, path, RenameFlags::NOREPLACE);
            match renamed.map_err(io::Error::from) {
                Err(e) if unable(&e) => match path.try_exists()? {
                    true => Err(ErrorKind::AlreadyExists.into()),
                    false => std::fs::rename(temporary, path),
                },
                renamed => renamed,
            }
        }
        linked => linked,
    }
}

/// Content under another name in the directory of its object. The name is one of an object, so
/// that gc deletes what a crash leaves behind.
struct TemporaryFile {
    path: PathBuf,
    file: File,
}

impl TemporaryFile {
    fn write(path: &Path, bytes: &[u8]) -> Done<Self> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = temporary_name(&format!("{name:.100}"), fastrand::u64(..));
        let path = path.with_file_name(name);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(FILE_MODE)
            .open(&path);
        let file = step("create", &path, file)?;
        let mut made = Self { path, file };
        made.fill(bytes)?;
        Ok(made)
    }

    fn fill(&mut self, bytes: &[u8]) -> Done<()> {
        let mode = Permissions::from_mode(FILE_MODE);
        // File systems without modes have one for all files.
        let _ = self.file.set_permissions(mode);
        step("write", &self.path, self.file.write_all(bytes))?;
        step("sync", &self.path, self.file.sync_all())
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        // After a rename it is not there any more.
        let _ = std::fs::remove_file(&self.path);
    }
}
