//! Location of the trees of a run: in memory or on a disk, temporary or persistent.

use std::path::{Path, PathBuf};

use crate::network::trouble::Trouble;

/// The requested locations.
#[derive(Debug)]
pub struct Ground {
    /// Files of the case `million`.
    pub files: usize,
    /// Directory of its trees, if not in memory.
    pub dir: Option<PathBuf>,
    /// Keeps the trees after the run.
    pub keep: bool,
    /// A directory on a disk.
    pub disk: PathBuf,
}

/// A directory that is removed on drop, unless kept.
#[derive(Debug)]
pub struct Spot {
    path: PathBuf,
    _dir: Option<tempfile::TempDir>,
}

/// Name prefix of directories on a disk.
const PREFIX: &str = "makuo-bench-";

impl Ground {
    /// Makes a directory for many files.
    pub fn roomy(&self) -> Result<Spot, Trouble> {
        match &self.dir {
            None => Ok(Spot::of(tempfile::tempdir()?)),
            Some(dir) if self.keep => {
                let path = dir.join(format!("makuo-bench-{}-files", self.files));
                std::fs::create_dir_all(&path)?;
                Ok(Spot { path, _dir: None })
            }
            Some(dir) => below(dir),
        }
    }

    /// Makes a directory on the disk.
    pub fn on_disk(&self) -> Result<Spot, Trouble> {
        below(&self.disk)
    }

    /// Fails unless the disk has `bytes` of free space.
    pub fn needs(&self, bytes: u64) -> Result<(), Trouble> {
        std::fs::create_dir_all(&self.disk)?;
        let stat = rustix::fs::statvfs(&self.disk).map_err(std::io::Error::from)?;
        let free = stat.f_bavail * stat.f_frsize;
        if free < bytes {
            let (needed, free) = (bytes / 1_000_000_000, free / 1_000_000_000);
            return Err(Trouble::Skipped(format!(
                "it needs {needed} GB in {}, {free} GB are free",
                self.disk.display()
            )));
        }

        Ok(())
    }
}

impl Spot {
    fn of(dir: tempfile::TempDir) -> Self {
        Self {
            path: dir.path().to_path_buf(),
            _dir: Some(dir),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn below(dir: &Path) -> Result<Spot, Trouble> {
    std::fs::create_dir_all(dir)?;
    let dir = std::fs::canonicalize(dir)?;
    Ok(Spot::of(
        tempfile::Builder::new().prefix(PREFIX).tempdir_in(dir)?,
    ))
}
