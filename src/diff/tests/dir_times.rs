//! The mtime of directories.

use super::*;

#[test]
fn the_time_of_a_directory_counts_where_every_name_in_it_is_governed() {
    let late = |mut entry: Entry| {
        entry.mtime.secs += 5;
        entry
    };

    let paths = |plan: &Plan| {
        plan.changes
            .iter()
            .map(|change| change.path.to_string())
            .collect::<Vec<_>>()
    };

    let have = || {
        tree([
            dir("d"),
            dir("d/logs"),
            file("d/logs/a", "a"),
            dir("e"),
            file("e/b", "b"),
        ])
    };

    let touched = |content: &str| {
        tree([
            late(dir("d")),
            late(dir("d/logs")),
            file("d/logs/a", "a"),
            late(dir("e")),
            file("e/b", content),
        ])
    };

    let excluding = |pattern: &str| Rules {
        excludes: vec![Exclude::at_top(pattern)],
        ..deleting()
    };

    let none = filter(&[]);

    // Without a pattern, or with one for another directory, an mtime is a difference.
    let plan = run(&have(), &touched("b"), &deleting(), &none).expect("accepted");
    assert_eq!(paths(&plan), ["d", "d/logs", "e"]);
    let plan = run(&have(), &touched("b"), &excluding("/d/logs/*.log"), &none).expect("accepted");
    assert_eq!(paths(&plan), ["d", "e"]);

    let plan = run(&have(), &touched("b"), &deleting(), &filter(&["/e/own"])).expect("accepted");
    assert_eq!(paths(&plan), ["d", "d/logs"]);

    // A pattern for any directory leaves all mtimes alone, on either side of the comparison.
    for (have, want) in [(have(), touched("b")), (touched("b"), have())] {
        let plan = run(&have, &want, &excluding("*.log"), &none).expect("accepted");
        assert!(
            plan.is_clean() && plan.changes.is_empty(),
            "{:?}",
            shown(&plan)
        );
    }

    // A commit that writes a name sets the directory's mtime as well; other metadata always counts.
    let plan = run(&have(), &touched("new"), &excluding("*.log"), &none).expect("accepted");

    assert_eq!(paths(&plan), ["e", "e/b"]);
    let plan = run(
        &tree([dir("d"), dir("e"), file("e/b", "b")]),
        &touched("b"),
        &excluding("*.log"),
        &none,
    );

    assert_eq!(paths(&plan.expect("accepted")), ["d", "d/logs", "d/logs/a"]);
    let mut other = have();
    other.0.get_mut(&p("e")).expect("there").mode = Mode::from_bits(0o700);
    let plan = run(&other, &touched("b"), &excluding("*.log"), &none).expect("accepted");
    assert_eq!(paths(&plan), ["e"]);

    // Excluded paths that are deleted all the same are governed.
    let all = Rules {
        delete_excluded: true,
        ..excluding("*.log")
    };

    assert_eq!(
        paths(&run(&have(), &touched("b"), &all, &none).expect("accepted")).len(),
        3
    );
}

#[test]
fn a_further_name_finds_its_file_after_times_that_do_not_count() {
    let link = |path: &str, first: &str| entry(path, EntryKind::Hardlink(p(first)));
    let of = |secs: i64, mode: u32| {
        let mut all = tree([
            dir("a"),
            file("a/same", "same"),
            dir("b"),
            file("b/x", "x"),
            file("b/y", "y"),
            link("b/z", "b/x"),
            dir("c"),
            link("c/x", "b/x"),
            link("c/y", "b/y"),
        ]);
        for path in ["a", "b", "c"] {
            all.0.get_mut(&p(path)).expect("there").mtime.secs += secs;
        }
        for path in ["b/x", "b/y"] {
            all.0.get_mut(&p(path)).expect("there").mode = Mode::from_bits(mode);
        }
        all
    };

    let rules = Rules {
        excludes: vec![Exclude::at_top("*.log")],
        ..deleting()
    };
    let plan = run(&of(0, 0o644), &of(5, 0o600), &rules, &filter(&[])).expect("accepted");

    let first = |further: &FurtherName| {
        let file = plan.changes.iter().nth(further.first as usize);
        (
            further.path.to_string(),
            file.map(|change| change.path.to_string())
                .unwrap_or_default(),
        )
    };
    let found: Vec<_> = plan.further.iter().map(first).collect();
    let expected = [("b/z", "b/x"), ("c/x", "b/x"), ("c/y", "b/y")];
    assert_eq!(
        found,
        expected.map(|(name, file)| (name.into(), file.into()))
    );
}
