//! Handles files with possible writers through a memory map.
//!
//! A store to a dirty page changes no time of the file, so later scans would miss the store. After
//! a writeback the page is protected, and the next store sets the times. Possibly dirty pages are
//! therefore written back before the read. In-memory file systems have no writeback, so there the
//! gap remains.

use std::fs::File;
use std::io;

use rustix::io::Errno;

use crate::manifest::Mtime;
use crate::tree::fs::stat::FileStat;

/// Seconds after which the kernel has written back dirty pages on its own: by default 30, plus 5
/// between its checks.
const WRITTEN_BACK_SECS: i64 = 90;

/// Returns whether a file with stat `now` may have dirty pages.
///
/// The first store to a clean page sets the times: a file without a recent change has no dirty
/// pages.
pub(super) fn may_be_dirty(now: &FileStat, started: Mtime) -> bool {
    now.ctime.secs >= started.secs.saturating_sub(WRITTEN_BACK_SECS)
}

/// Writes back the dirty pages of `file`. Returns false where the file system has no writeback.
///
/// Callers may skip files without open writers: a writable mapping implies a file open for writing.
pub(super) fn write_back(file: &File) -> io::Result<bool> {
    match rustix::fs::fdatasync(file) {
        Ok(()) => Ok(true),
        // No writeback on this file system.
        Err(Errno::INVAL | Errno::ROFS | Errno::NOTSUP | Errno::NOSYS) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Command, Stdio};
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use crate::tree::ScanOptions;
    use crate::tree::scan::tests::Fixture;

    /// Maps a file and stores each byte received, one per line.
    const WRITER: &str = "
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
page = mmap.mmap(fd, 0)
os.close(fd)
for line in sys.stdin:
    page[0] = ord(line[0])
    print('stored', flush=True)
";

    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "files bear the times of the real clock"
    )]
    fn a_store_to_a_dirty_page_is_found_by_the_next_scan() {
        const TMPFS: i64 = 0x0102_1994;
        let f = Fixture::new();
        let path = f.root.path().join("mapped");
        std::fs::write(&path, [b'0'; 4096]).expect("writable");
        if rustix::fs::fstatfs(&f.root).expect("there").f_type == TMPFS {
            return crate::skip::skipped("pages in memory are never written back");
        }

        let mut python = Command::new("python3");
        python
            .args(["-c", WRITER])
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());

        let Ok(mut writer) = python.spawn() else {
            return crate::skip::skipped("no python3 to map a file");
        };

        let mut commands = writer.stdin.take().expect("piped");
        let mut answers = BufReader::new(writer.stdout.take().expect("piped"));
        let mut store = |byte: char| {
            commands
                .write_all(format!("{byte}\n").as_bytes())
                .expect("it reads");
            let mut line = String::new();
            answers.read_line(&mut line).expect("it answers");
            assert_eq!(line, "stored\n");
            // Longer than a tick of the kernel's clock.
            std::thread::sleep(Duration::from_millis(100));
        };

        let scan = |old: Option<&Arc<crate::tree::Index>>| {
            f.try_scan(&ScanOptions::new(SystemTime::now()), old)
                .expect("scanned")
        };

        let content = |scanned: &crate::tree::Scanned| {
            let entry = scanned
                .index
                .entries()
                .next()
                .expect("one")
                .expect("readable")
                .entry;
            (entry.kind, scanned.stats.hashed_files)
        };

        store('1');

        let first = scan(None);
        let mut old = Arc::clone(&first.index);
        let mut last = content(&first).0;
        for byte in "234".chars() {
            store(byte);
            let next = scan(Some(&old));
            let (now, hashed) = content(&next);
            assert!(now != last && hashed == 1, "{byte} was not seen");
            (old, last) = (Arc::clone(&next.index), now);
        }

        let quiet = scan(Some(&old));
        assert_eq!(content(&quiet), (last, 0));

        drop(commands);

        writer.wait().expect("my child");
    }
}
