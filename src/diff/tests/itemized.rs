//! Changes as a person reads them.

use super::*;

#[test]
fn changes_read_as_rsync_prints_them() {
    let with = |e: Entry, f: &dyn Fn(&mut Entry)| {
        let mut e = e;
        f(&mut e);
        e
    };

    let have = tree([
        dir("dir"),
        file("grown", "a"),
        file("gone", "x"),
        dir("kind"),
        entry("link", EntryKind::Symlink(b"old".to_vec())),
        file("mode", "m"),
        file("owner", "m"),
        file("silent", "a"),
        file("time", "t"),
        entry("timed-link", EntryKind::Symlink(b"x".to_vec())),
    ]);

    let want = tree([
        with(dir("dir"), &|e| e.mtime.secs = 8),
        with(file("grown", "ab"), &|e| e.mtime.secs = 8),
        file("kind", "now a file"),
        entry("link", EntryKind::Symlink(b"new".to_vec())),
        with(file("mode", "m"), &|e| e.mode = Mode::from_bits(0o600)),
        with(file("owner", "m"), &|e| {
            e.owner = Arc::new(Owner::nameless(5, 6))
        }),
        dir("new"),
        entry("new-dev", EntryKind::CharDevice(1, 3)),
        file("new-file", "n"),
        entry("new-hard", EntryKind::Hardlink(p("new-file"))),
        entry("new-link", EntryKind::Symlink(b"x".to_vec())),
        entry("new-pipe", EntryKind::Fifo),
        file("silent", "b"),
        with(file("time", "t"), &|e| e.mtime.secs = 8),
        with(
            entry("timed-link", EntryKind::Symlink(b"x".to_vec())),
            &|e| e.mtime.secs = 9,
        ),
    ]);

    let plan = run(&have, &want, &deleting(), &filter(&[])).expect("accepted");
    let expected = [
        ".d..t...... dir",
        "*deleting   gone",
        ">f.st...... grown",
        ">f+++++++++ kind",
        "cLc........ link",
        ".f...p..... mode",
        "cd+++++++++ new",
        "cD+++++++++ new-dev",
        ">f+++++++++ new-file",
        "hf+++++++++ new-hard",
        "cL+++++++++ new-link",
        "cS+++++++++ new-pipe",
        ".f....og... owner",
        ">fc........ silent",
        ".f..t...... time",
        ".L..t...... timed-link",
    ];

    assert_eq!(shown(&plan), expected);
}
