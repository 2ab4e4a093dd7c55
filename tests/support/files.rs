//! Files for releases.

use std::path::Path;
use std::process::Command;

use super::run::tool;

/// A generator of incompressible bytes, the same for the same seed.
pub struct Noise(fastrand::Rng);

impl Noise {
    pub fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.0.fill(&mut bytes);
        bytes
    }

    /// Writes `count` files of up to `max` bytes in a few directories.
    pub fn tree(&mut self, root: &Path, count: usize, max: usize) {
        for i in 0..count {
            let len = self.0.usize(0..max);
            let bytes = self.bytes(len);
            write(
                &root.join(format!("dir{}/sub{}/file{i}", i % 7, i % 3)),
                &bytes,
            );
        }
    }
}

/// Writes a file and creates its directories.
#[track_caller]
pub fn write(path: &Path, bytes: impl AsRef<[u8]>) {
    std::fs::create_dir_all(path.parent().expect("below a directory")).expect("writable");
    std::fs::write(path, bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

#[track_caller]
pub fn append(path: &Path, bytes: &[u8]) {
    let mut all = read(path);
    all.extend_from_slice(bytes);
    write(path, all);
}

#[track_caller]
pub fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Makes an exact copy of a tree.
#[track_caller]
pub fn copy(from: &Path, to: &Path) {
    tool(Command::new("cp").arg("-a").arg(from).arg(to));
}
