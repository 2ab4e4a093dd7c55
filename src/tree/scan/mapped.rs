//! Files that somebody may write to through a memory map.
//!
//! A store to a page that is dirty already changes no time of the file, so that no later scan would see it. A page that
//! was written back is protected: the next store to it sets the times. So what may be dirty is written back before it is
//! read. Filesystems in memory write nothing back, and keep the gap.

use std::fs::File;
use std::io;

use rustix::io::Errno;

use crate::manifest::Mtime;
use crate::tree::fs::stat::FileStat;

/// The kernel writes dirty pages back by itself after this many seconds: 30, and 5 until it looks, by default.
const WRITTEN_BACK: i64 = 90;

/// Whether a file that is as in `now` may have dirty pages.
///
/// The first store to a clean page sets the times: a file that did not change lately has none.
pub(super) fn may_be_dirty(now: &FileStat, started: Mtime) -> bool {
    now.ctime.secs >= started.secs.saturating_sub(WRITTEN_BACK)
}

/// Writes back what is dirty in `file`, which somebody may hold mapped; says whether it did. Who has a file mapped for
/// writing has it open for writing.
pub(super) fn write_back(file: &File) -> io::Result<bool> {
    match rustix::fs::fdatasync(file) {
        Ok(()) => Ok(true),
        // Nothing is written back here.
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

    /// Maps a file and stores what it is told, one byte a line.
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
    fn a_store_to_a_page_that_was_dirty_is_seen_by_the_next_scan() {
        const TMPFS: i64 = 0x0102_1994;
        let f = Fixture::new();
        let path = f.root.path().join("mapped");
        std::fs::write(&path, [b'0'; 4096]).expect("writable");
        if rustix::fs::fstatfs(&f.root).expect("there").f_type == TMPFS {
            return println!("skipped: pages in memory are never written back");
        }

        let mut python = Command::new("python3");
        python
            .args(["-c", WRITER])
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());

        let Ok(mut writer) = python.spawn() else {
            return println!("skipped: no python3 to map a file");
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
            // Longer than the kernel's clock stands still.
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
