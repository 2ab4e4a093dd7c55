//! Scope, protection, and limits on deletions.

use super::*;

#[test]
fn deletions_are_limited_by_the_stricter_of_release_and_host() {
    let have = tree([
        dir("d"),
        file("d/1", "1"),
        file("d/2", "2"),
        file("d/3", "3"),
    ]);

    let want = tree([dir("d"), file("d/1", "1")]);
    let none = filter(&[]);
    let try_limits = |release: Limit, host: Limit| {
        let rules = Rules {
            delete_max: release,
            ..deleting()
        };
        let host = HostRules {
            max_delete: host,
            reports_limits: false,
            ..self::host(&none)
        };
        diff(&have, &Release(want.clone()), &rules, &[], &host).map(|plan| plan.summary.deleted)
    };

    assert!(matches!(try_limits(Limit::Share(5000), Limit::NONE), Ok(2)));
    assert!(matches!(
        try_limits(Limit::Count(2), Limit::Count(2)),
        Ok(2)
    ));
    let refused = try_limits(Limit::NONE, Limit::Count(1)).map_err(|e| e.to_string());
    assert_eq!(
        refused,
        Err("2 of 4 paths would be deleted, the host allows 1".to_string())
    );

    let refused = try_limits(Limit::Share(4900), Limit::NONE).map_err(|e| e.to_string());
    assert_eq!(
        refused,
        Err("2 of 4 paths would be deleted, the release allows 49%".to_string())
    );
}

#[test]
fn what_a_replaced_directory_holds_counts_as_deleted_and_may_not_be_protected() {
    let have = tree([dir("d"), file("d/1", "1"), file("d/2", "2")]);
    let want = tree([file("d", "file")]);
    let plan = run(&have, &want, &deleting(), &filter(&[])).expect("accepted");
    assert_eq!(plan.summary.deleted, 2);
    let refused = run(&have, &want, &deleting(), &filter(&["/d/2"]));
    assert!(matches!(
        refused,
        Err(Refusal::ReplacesProtected { at, path }) if at == p("d") && path == p("d/2")
    ));

    let keep = Rules {
        delete_extras: false,
        ..deleting()
    };

    assert!(matches!(
        run(&have, &want, &keep, &filter(&[])),
        Err(Refusal::NotEmpty { .. })
    ));
}

#[test]
fn directories_around_what_is_protected_stay() {
    let have = tree([
        dir("a"),
        dir("a/b"),
        file("a/b/keep", "k"),
        file("a/b/gone", "g"),
        file("a/z", "z"),
        dir("e"),
    ]);

    let plan = run(&have, &tree([]), &deleting(), &filter(&["keep"])).expect("accepted");
    let expected = [
        "*keeping    a",
        "*keeping    a/b",
        "*deleting   a/b/gone",
        "*deleting   a/z",
        "*deleting   e",
    ];

    assert_eq!(shown(&plan), expected);
}

#[test]
fn an_empty_release_is_refused_unless_it_says_so() {
    let have = tree([file("a", "1")]);
    let rules = Rules {
        allow_empty: false,
        ..deleting()
    };

    assert!(matches!(
        run(&have, &tree([]), &rules, &filter(&[])),
        Err(Refusal::Empty)
    ));
    assert!(run(&have, &tree([]), &deleting(), &filter(&[])).is_ok());
}

#[test]
fn the_scope_is_the_limit_of_everything() {
    let have = tree([
        dir("in"),
        file("in/old", "o"),
        dir("out"),
        file("out/x", "x"),
    ]);

    let mut top = dir("in");
    top.mode = Mode::from_bits(0o700);
    let want = tree([top, dir("in/deep"), file("in/deep/new", "n")]);
    let none = filter(&[]);
    let host = host(&none);

    let scoped =
        |scope: &[TreePath]| diff(&have, &Release(want.clone()), &deleting(), scope, &host);
    let plan = scoped(&[p("in/deep")]).expect("accepted");
    assert_eq!(
        shown(&plan),
        ["cd+++++++++ in/deep", ">f+++++++++ in/deep/new"]
    );

    let plan = scoped(&[p("in")]).expect("accepted");
    assert_eq!(plan.summary.deleted, 1);
    assert!(matches!(scoped(&[p("out")]), Err(Refusal::OutOfScope(_))));
}

#[test]
fn what_is_protected_above_the_scope_is_protected_in_it() {
    let have = tree([
        dir("up"),
        dir("up/in"),
        file("up/in/keep", "k"),
        file("up/in/same", "s"),
    ]);

    let protect = filter(&["/up/"]);
    let host = host(&protect);

    for want in [
        tree([
            dir("up"),
            dir("up/in"),
            file("up/in/new", "n"),
            file("up/in/same", "t"),
        ]),
        tree([]),
    ] {
        let plan =
            diff(&have, &Release(want), &deleting(), &[p("up/in")], &host).expect("accepted");
        assert!(plan.changes.is_empty(), "{:?}", shown(&plan));
    }
}
