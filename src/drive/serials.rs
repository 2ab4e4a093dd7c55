//! The highest serial that this sender has used for each tree, beside its indexes: hosts that have a release may be absent
//! when the next one is made, and two releases of one serial are two that nobody can tell apart by number.
//!
//! **On disk.** `serials/TREE` in the cache: the number and a line break, replaced by a rename while `serials/.lock` is
//! held. It is there before the release is announced.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::id::{Serial, TreeName};

/// A remembered serial that is so far above all that hosts accepted is of no use: somebody may have pretended to have such
/// a release, and hosts refuse what is too far above what they have.
const MAX_GAP: u64 = 1 << 20;

/// The next serial of `tree`, of whose releases hosts have accepted `highest`: above that and all that was used from here.
/// It counts as used from now on.
pub(super) fn take(cache: &Path, tree: &TreeName, highest: Serial) -> io::Result<Serial> {
    let dir = cache.join("serials");
    std::fs::create_dir_all(&dir)?;
    let lock = File::options().create(true).truncate(false).write(true).open(dir.join(".lock"))?;
    flock(&lock, FlockOperation::LockExclusive)?;
    let path = dir.join(tree.as_str());
    let used = read(&path)?.filter(|used| used.0.saturating_sub(highest.0) <= MAX_GAP);
    let next = used.unwrap_or_default().max(highest).next();
    write(&path, next)?;
    File::open(&dir)?.sync_all()?;
    Ok(next)
}

fn read(path: &Path) -> io::Result<Option<Serial>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text.trim_end().parse().ok().map(Serial)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn write(path: &Path, serial: Serial) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push("~");
    let temporary = PathBuf::from(temporary);
    let mut file = File::create(&temporary)?;
    file.write_all(format!("{serial}\n").as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_serial_is_used_twice_whoever_is_absent() {
        let dir = tempfile::tempdir().expect("a directory");
        let tree = |name: &str| TreeName::new(name).expect("legal");
        let next = |name: &str, highest| take(dir.path(), &tree(name), Serial(highest)).expect("writable").0;
        assert_eq!([next("www", 0), next("www", 0), next("www", 5), next("www", 1)], [1, 2, 6, 7]);
        assert_eq!(next("docs", 0), 1);
        // Two at once.
        let mut taken: Vec<u64> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| [next("www", 1), next("www", 1)])).collect();
            threads.into_iter().flat_map(|t| t.join().expect("no panic")).collect()
        });
        taken.sort_unstable();
        assert_eq!(taken, (8..16).collect::<Vec<_>>());
        // What a liar made of it is forgotten with him; a file that is damaged counts as none.
        assert_eq!([next("www", 1 << 40), next("www", 15)], [(1 << 40) + 1, 16]);
        std::fs::write(dir.path().join("serials/www"), "no number").expect("writable");
        assert_eq!(next("www", 3), 4);
    }
}
