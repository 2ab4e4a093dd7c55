//! Hard links, and the files that they lead to.

use super::*;

#[test]
fn links_follow_their_file_when_it_is_made_anew() {
    let link = |path: &str, first: &str| entry(path, EntryKind::Hardlink(p(first)));
    let have = tree([file("a", "1"), link("b", "a"), file("c", "1")]);
    let same = tree([file("a", "1"), link("b", "a"), link("c", "a")]);
    let plan = run(&have, &same, &deleting(), &filter(&[])).expect("accepted");
    assert_eq!(shown(&plan), ["hf          c"]);
    let newer = tree([file("a", "22"), link("b", "a"), file("c", "1")]);
    let plan = run(&have, &newer, &deleting(), &filter(&[])).expect("accepted");
    assert_eq!(shown(&plan), [">f.s....... a", "hf          b"]);
    let split = tree([file("a", "1"), file("b", "1"), file("c", "1")]);
    let plan = run(&have, &split, &deleting(), &filter(&[])).expect("accepted");
    assert_eq!(plan.changes.len(), 1);
    assert!(plan.wants.is_empty() && plan.reuse.len() == 1);
    let refused = run(&tree([]), &same, &deleting(), &filter(&["/a"]));

    assert!(matches!(refused, Err(Refusal::LinkOutside { .. })));
}

#[test]
fn a_link_that_leads_to_no_file_of_the_release_is_refused() {
    let link = |path: &str, first: &str| entry(path, EntryKind::Hardlink(p(first)));
    let fifo = entry("p", EntryKind::Fifo);
    let whole = tree([file("a", "1"), link("b", "a"), fifo.clone(), link("q", "p")]);
    run(&tree([]), &whole, &deleting(), &filter(&[])).expect("accepted");
    let broken = [
        tree([link("b", "a")]),
        tree([file("a", "1"), link("b", "a"), link("c", "b")]),
        tree([entry("a", EntryKind::Directory), link("b", "a")]),
        tree([file("a", "1"), link("b", "a"), link("q", "p")]),
    ];

    for want in broken {
        for have in [tree([]), whole.clone()] {
            let refused = run(&have, &want, &deleting(), &filter(&[]))
                .map(drop)
                .expect_err("refused");
            assert!(matches!(refused, Refusal::LinkNowhere { .. }), "{refused}");
        }
    }
}
