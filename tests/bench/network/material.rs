//! Source trees, made once per case and left unchanged.

use std::path::{Path, PathBuf};

use super::text;
use crate::support::Noise;

/// A tree and the total size of its files.
pub struct Material {
    dir: tempfile::TempDir,
    pub bytes: u64,
    pub files: usize,
}

/// Bytes generated at once.
const PIECE: usize = 1 << 20;

impl Material {
    fn empty() -> Self {
        Self {
            dir: tempfile::tempdir().expect("a directory in memory"),
            bytes: 0,
            files: 0,
        }
    }

    /// Returns the path of the tree.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("source")
    }

    /// Makes one file of random bytes.
    pub fn noise(seed: u64, bytes: u64) -> Self {
        let mut made = Self::empty();
        let mut noise = Noise::new(seed);
        let mut all = Vec::with_capacity(bytes as usize);
        while (all.len() as u64) < bytes {
            let len = (bytes - all.len() as u64).min(PIECE as u64);
            all.extend(noise.bytes(len as usize));
        }

        made.write("image.bin", &all);
        made
    }

    /// Makes many files of one size, a hundred per directory.
    pub fn small(seed: u64, files: usize, size: usize) -> Self {
        let mut made = Self::empty();
        let mut noise = Noise::new(seed);
        for i in 0..files {
            let bytes = noise.bytes(size);
            made.write(&small_name(i), &bytes);
        }
        made
    }

    /// Makes pages and source files, `bytes` in total.
    pub fn text(seed: u64, bytes: u64) -> Self {
        let mut made = Self::empty();
        let mut writer = text::Writer::new(seed);
        while made.bytes < bytes {
            let document = writer.document();
            let name = format!(
                "{}/{:05}.{}",
                made.files / 100,
                made.files,
                document.extension
            );
            made.write(&name, document.text.as_bytes());
        }

        made
    }

    fn write(&mut self, name: &str, bytes: &[u8]) {
        crate::support::write(&self.path().join(name), bytes);
        self.bytes += bytes.len() as u64;
        self.files += 1;
    }
}

/// Returns the name of a file of [`Material::small`].
pub fn small_name(number: usize) -> String {
    format!("{:03}/{number:05}.dat", number / 100)
}

/// Fails with the changes by which rsync, with `flags`, would turn `there` into `here`.
pub fn judge(flags: &str, here: &Path, there: &Path) -> Result<(), String> {
    let mut command = std::process::Command::new("rsync");
    command
        .args(["-n", "-i", flags, "--delete"])
        .arg(here.join(""))
        .arg(there.join(""));
    let said = crate::support::run::try_tool(&mut command)?;

    match said.lines().next() {
        None => Ok(()),
        Some(first) => {
            let name = there.file_name().unwrap_or_default().to_string_lossy();
            Err(format!(
                "{name} differs in {} paths, as {first}",
                said.lines().count()
            ))
        }
    }
}
