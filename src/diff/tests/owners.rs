//! Owners in the numbers of the host.

use super::*;

#[test]
fn owners_are_resolved_or_refused() {
    let mut want = file("a", "1");
    want.owner = Arc::new(Owner {
        uid: 1,
        gid: 1,
        user: Some("nobody-here".into()),
        group: Some("www".into()),
    });

    let want = tree([want]);
    let refused = run(&tree([]), &want, &deleting(), &filter(&[]))
        .map_err(|e| e.to_string())
        .map(drop);
    assert_eq!(
        refused,
        Err("a: this host has no user \"nobody-here\"".to_string())
    );

    let numeric = Rules {
        unknown_owner: UnknownOwner::Numeric,
        ..deleting()
    };

    let plan = run(&tree([]), &want, &numeric, &filter(&[])).expect("accepted");
    assert_eq!(
        plan.changes.get(0).owner,
        LocalOwner {
            uid: Some(1),
            gid: Some(103)
        }
    );

    let ignored = Rules {
        set_user: false,
        set_group: false,
        ..deleting()
    };

    let plan = run(&tree([]), &want, &ignored, &filter(&[])).expect("accepted");
    assert_eq!(plan.changes.get(0).owner, LocalOwner::default());
}

#[test]
fn an_owner_that_stands_for_none_or_cannot_be_looked_up_is_never_set() {
    let numeric = Rules {
        unknown_owner: UnknownOwner::Numeric,
        ..deleting()
    };

    let mut want = file("a", "x");
    for (user, what) in [
        (None, "4294967295"),
        (Some("nobody-here"), "nobody-here"),
        (Some("no-answer"), "answer"),
    ] {
        want.owner = Arc::new(Owner {
            uid: u32::MAX,
            gid: 1,
            user: user.map(Into::into),
            group: None,
        });
        let refused = run(
            &Memory::default(),
            &tree([want.clone()]),
            &numeric,
            &filter(&[]),
        )
        .map(drop)
        .unwrap_err();
        assert!(refused.to_string().contains(what), "{refused}");
    }
}
