//! Changes by other processes in the directories of a tree, from the moment the tree is live until
//! its predecessor is gone.
//!
//! A name that was created and removed again leaves no trace in a directory, but inotify reports
//! both. Watches are set before any other process can reach the directories. Events are an aid
//! only: without watches, after lost events and after a crash, an untouched-looking name counts as
//! untouched.

use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init};

use super::root::Root;
use crate::manifest::TreePath;

/// Events requested for a directory.
const NAME_EVENTS: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::ONLYDIR);
/// Largest number of watched directories; other processes of this user need watches, too.
const MAX_WATCHED_DIRS: usize = 8192;
/// Bytes of events that one system call returns.
const EVENT_BUFFER_BYTES: usize = 16 << 10;

/// Names that other processes touched.
#[derive(Debug)]
pub(crate) struct DirWatch {
    inotify: OwnedFd,
    dirs: HashMap<i32, Option<TreePath>>,
    names: HashMap<Option<TreePath>, HashSet<CString>>,
}

impl DirWatch {
    /// Watches the directories `dirs` of `root` as far as they exist and the kernel permits.
    pub(crate) fn watch<'d>(
        root: &Root,
        dirs: impl Iterator<Item = &'d Option<TreePath>>,
    ) -> Option<Self> {
        let inotify = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok()?;
        let mut watched = HashMap::new();
        for path in dirs.take(MAX_WATCHED_DIRS) {
            let Ok(dir) = root.dir(path.as_ref()) else {
                continue;
            };
            match add_watch(
                &inotify,
                format!("/proc/self/fd/{}", dir.as_raw_fd()),
                NAME_EVENTS,
            ) {
                Ok(watch) => drop(watched.insert(watch, path.clone())),
                Err(e) => {
                    tracing::debug!("{} directories are watched, no more: {e}", watched.len());
                    break;
                }
            }
        }

        Some(Self {
            inotify,
            dirs: watched,
            names: HashMap::new(),
        })
    }

    /// Forgets all events so far: this process caused them.
    pub(crate) fn begin(&mut self) {
        self.read();
        self.names.clear();
    }

    /// Forgets events for the name in the directory `dir`: this process caused them.
    pub(crate) fn forget(&mut self, dir: Option<&TreePath>, name: &CStr) {
        self.read();
        if let Some(names) = self.names.get_mut(&dir.cloned()) {
            names.remove(name);
        }
    }

    /// Returns whether another process touched the name in the directory `dir`.
    pub(crate) fn touched(&mut self, dir: Option<&TreePath>, name: &CStr) -> bool {
        self.read();
        // Building the path below costs an allocation.
        !self.names.is_empty()
            && self
                .names
                .get(&dir.cloned())
                .is_some_and(|names| names.contains(name))
    }

    fn read(&mut self) {
        let mut buffer = [MaybeUninit::uninit(); EVENT_BUFFER_BYTES];
        let mut reader = Reader::new(&self.inotify, &mut buffer);

        loop {
            match reader.next() {
                Ok(event) => {
                    let dir = self.dirs.get(&event.wd());
                    if let Some((dir, name)) = dir
                        .zip(event.file_name())
                        .filter(|_| !event.events().contains(ReadFlags::IGNORED))
                    {
                        self.names
                            .entry(dir.clone())
                            .or_default()
                            .insert(name.to_owned());
                    }
                }
                Err(rustix::io::Errno::INTR) => {}
                // No further events.
                Err(_) => break,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_made_and_removed_is_heard_of() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("d")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        let path = Some(TreePath::new(b"d".as_slice()).unwrap());
        let gone = Some(TreePath::new(b"gone".as_slice()).unwrap());
        std::fs::write(dir.path().join("d/before"), "").unwrap();
        let mut heard = DirWatch::watch(&root, [None, path.clone(), gone].iter()).unwrap();

        std::fs::write(dir.path().join("d/own"), "").unwrap();
        heard.begin();
        for name in ["d/a", "b"] {
            std::fs::write(dir.path().join(name), "").unwrap();
            std::fs::remove_file(dir.path().join(name)).unwrap();
        }

        assert!(heard.touched(path.as_ref(), c"a") && heard.touched(None, c"b"));
        for (dir, name) in [
            (&path, c"own"),
            (&path, c"before"),
            (&path, c"b"),
            (&None, c"a"),
        ] {
            assert!(!heard.touched(dir.as_ref(), name), "{name:?}");
        }
    }
}
