//! The bare walk for comparisons: reads every directory and the metadata of every name, with one
//! thread per core, and does no other work.

use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Condvar, Mutex};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, openat, statat};
use rustix::io::Errno;

/// Bytes of names returned by one system call.
const NAMES: usize = 64 << 10;
const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Pending directories, as paths below the top, and the number of directories being read.
#[derive(Debug, Default)]
struct Open {
    waiting: Vec<CString>,
    at_work: usize,
}

/// Walks `tree` and prints the number of names.
pub fn run(tree: &Path) -> ExitCode {
    match walk(tree) {
        Ok(names) => {
            println!("{names}");
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("{}: {e}", tree.display());
            ExitCode::FAILURE
        }
    }
}

fn walk(tree: &Path) -> std::io::Result<u64> {
    let top = rustix::fs::open(tree, DIRECTORY.difference(OFlags::NOFOLLOW), Mode::empty())?;
    let open = Mutex::new(Open {
        waiting: vec![c".".to_owned()],
        at_work: 0,
    });
    let (more, threads) = (Condvar::new(), std::thread::available_parallelism()?.get());
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..threads)
            .map(|_| scope.spawn(|| work(&top, &open, &more)))
            .collect();
        all.into_iter()
            .map(|thread| thread.join().expect("it does not panic"))
            .sum()
    })
}

fn work(top: &OwnedFd, open: &Mutex<Open>, more: &Condvar) -> std::io::Result<u64> {
    let mut buffer = Vec::with_capacity(NAMES);
    let mut names = 0;
    loop {
        let mut all = open.lock().expect("nobody panics");
        let dir = loop {
            if let Some(dir) = all.waiting.pop() {
                break dir;
            }
            if all.at_work == 0 {
                more.notify_all();
                return Ok(names);
            }
            all = more.wait(all).expect("nobody panics");
        };
        all.at_work += 1;
        drop(all);
        let mut found = Vec::new();
        let read = read(top, &dir, &mut buffer, &mut found);
        let mut all = open.lock().expect("nobody panics");
        all.at_work -= 1;
        all.waiting.append(&mut found);
        drop(all);
        more.notify_all();
        names += read?;
    }
}

/// Reads one directory, and adds its subdirectories to `found`.
fn read(
    top: &OwnedFd,
    path: &CStr,
    buffer: &mut Vec<u8>,
    found: &mut Vec<CString>,
) -> Result<u64, Errno> {
    let dir = openat(top, path, DIRECTORY, Mode::empty())?;
    let mut names = 0;
    let mut entries = RawDir::new(&dir, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if [c".", c".."].contains(&name) {
            continue;
        }
        names += 1;
        let stat = statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let below = [path.to_bytes(), b"/", name.to_bytes()].concat();
            found.push(CString::new(below).expect("names have no NUL"));
        }
    }

    Ok(names)
}
