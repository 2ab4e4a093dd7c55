//! Tests of the polling of files.

use super::*;

fn path(text: &str) -> TreePath {
    TreePath::new(text.as_bytes()).expect("legal")
}

/// Directory whose files the test polls.
struct Dir(tempfile::TempDir);

impl Dir {
    fn at(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn stat(&self, path: &TreePath) -> Option<FileStat> {
        let name = std::ffi::CString::new(path.as_bytes()).expect("no NUL");
        let open = std::fs::File::open(self.0.path()).expect("there");
        FileStat::at(std::os::fd::AsFd::as_fd(&open), &name).ok()
    }

    /// Polls the files, with `open` as the answer for each, and returns the changes.
    fn look(
        &self,
        polled: &mut PolledFiles,
        open: Option<bool>,
    ) -> Vec<(Vec<TreePath>, bool, bool)> {
        let changed = polled.poll(Moment::default(), |path| self.stat(path), |_| open);
        changed
            .into_iter()
            .map(|changed| (changed.paths, changed.is_open, changed.is_changed))
            .collect()
    }
}

#[test]
fn what_is_written_through_another_name_is_found() {
    let dir = Dir(tempfile::tempdir().expect("a directory"));
    std::fs::write(dir.at("both"), "1").expect("mine");
    std::fs::hard_link(dir.at("both"), dir.at("out")).expect("mine");
    std::fs::write(dir.at("within"), "1").expect("mine");
    std::fs::hard_link(dir.at("within"), dir.at("within2")).expect("mine");
    let mut polled = PolledFiles::default();
    for name in ["both", "within", "within2"].map(path) {
        polled.add(&name, &dir.stat(&name).expect("there"));
    }

    let closed = Some(false);
    assert_eq!(polled.unwatched(), Some((1, &path("both"))));
    assert_eq!(dir.look(&mut polled, closed), []);
    std::fs::write(dir.at("out"), "22").expect("mine");
    assert_eq!(
        dir.look(&mut polled, closed),
        [(vec![path("both")], false, true)]
    );

    assert_eq!(dir.look(&mut polled, closed), []);
    std::fs::write(dir.at("both"), "333").expect("mine");
    polled.seen(&dir.stat(&path("both")).expect("there"));
    assert_eq!(dir.look(&mut polled, closed), [], "it is known");
    std::fs::remove_file(dir.at("both")).expect("mine");
    dir.look(&mut polled, closed);

    assert_eq!(
        (
            polled.unwatched(),
            polled.files.len(),
            polled.has(&path("both"))
        ),
        (None, 1, false)
    );
}

#[test]
fn a_file_stays_in_mind_while_it_is_open_by_a_name_that_is_gone() {
    let dir = Dir(tempfile::tempdir().expect("a directory"));
    let is = |open, other| [(vec![path("stays")], open, other)];
    std::fs::write(dir.at("stays"), "1").expect("mine");
    std::fs::hard_link(dir.at("stays"), dir.at("goes")).expect("mine");
    let mut polled = PolledFiles::default();
    polled.add(&path("stays"), &dir.stat(&path("stays")).expect("there"));
    std::fs::remove_file(dir.at("goes")).expect("mine");

    assert_eq!(dir.look(&mut polled, Some(true)), is(true, true));
    assert_eq!(dir.look(&mut polled, Some(true)), []);
    std::fs::write(dir.at("stays"), "22").expect("mine");
    assert_eq!(dir.look(&mut polled, Some(true)), is(true, true));
    assert_eq!(
        dir.look(&mut polled, Some(false)),
        is(false, false),
        "it was closed"
    );

    assert!(polled.is_empty() && !polled.has(&path("stays")));

    // A file written and closed between two polls.
    std::fs::write(dir.at("stays"), "333").expect("mine");
    let stat = dir.stat(&path("stays")).expect("there");
    polled.expose(
        Moment::default(),
        &Exposed {
            path: path("stays"),
            stat,
            is_open: true,
        },
    );

    std::fs::write(dir.at("stays"), "4444").expect("mine");
    assert_eq!(dir.look(&mut polled, Some(false)), is(false, true));
    assert!(polled.is_empty());

    // With an unknown open state: open for a while, and kept across watchers.
    polled.expose(
        Moment::default(),
        &Exposed {
            path: path("stays"),
            stat,
            is_open: true,
        },
    );

    let mut later = PolledFiles::default();
    later.keep_open_files(polled);
    assert_eq!(dir.look(&mut later, None), is(true, true));
    let stat = |path: &TreePath| dir.stat(path);
    assert_eq!(
        later
            .poll(Moment::default() + MAY_BE_OPEN, stat, |_| None)
            .len(),
        1
    );

    assert!(later.is_empty());
}

#[test]
fn of_many_it_is_the_next_ones_turn() {
    let mut polled = PolledFiles::default();
    let dir = tempfile::tempdir().expect("a directory");
    let one = FileStat::of(std::fs::File::open(dir.path()).expect("there")).expect("a stat");
    let stat = |ino: u64| FileStat {
        id: FileId { dev: 1, ino },
        nlink: 2,
        ..one
    };

    let count = 2 * MAX_POLLED_AT_ONCE as u64 + 10;
    (0..count).for_each(|ino| polled.add(&path(&ino.to_string()), &stat(ino)));
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..3 {
        let mut now = 0;
        let look = |path: &TreePath| {
            let ino = path.to_string().parse().expect("a number");
            seen.insert(ino);
            now += 1;
            Some(stat(ino))
        };
        polled.poll(Moment::default(), look, |_| Some(false));
        assert_eq!(now, MAX_POLLED_AT_ONCE);
    }

    assert_eq!(seen.len() as u64, count);
}
