//! Tests of batches: their ends, the files held back, and that no change is lost.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

const PACE: Pace = Pace {
    settle: Duration::from_millis(500),
    max_delay: Duration::from_secs(5),
};

fn at(ms: u64) -> Moment {
    Moment(ms * 1_000_000)
}

fn path(text: &str) -> TreePath {
    TreePath::new(text.as_bytes()).expect("legal")
}

fn names(batch: Option<ChangeBatch>) -> (Vec<String>, Vec<String>) {
    let Some(ChangeBatch::Paths(batch)) = batch else {
        panic!("{batch:?}")
    };

    let hints = batch.hints();
    (
        hints.paths.iter().map(|p| p.to_string()).collect(),
        hints.held.iter().map(|p| p.to_string()).collect(),
    )
}

#[test]
fn a_batch_is_over_when_it_is_quiet() {
    let mut batcher = Batcher::new(PACE);
    assert_eq!((batcher.due(), batcher.take(at(1))), (None, None));
    batcher.touched(at(10), &path("a"));
    batcher.touched(at(400), &path("b/c"));
    assert_eq!(
        (batcher.due(), batcher.take(at(899))),
        (Some(at(900)), None)
    );
    assert_eq!(names(batcher.take(at(900))).0, ["a", "b/c"]);

    assert!(batcher.is_empty() && batcher.due().is_none() && batcher.take(at(5000)).is_none());
}

#[test]
fn without_a_quiet_time_the_ceiling_ends_it() {
    let mut batcher = Batcher::new(PACE);
    for ms in (0..6000).step_by(100) {
        batcher.touched(at(ms), &path("a"));
    }
    assert_eq!(batcher.due(), Some(at(5000)));
}

#[test]
fn the_top_is_meant_when_it_has_a_new_name() {
    let mut batcher = Batcher::new(PACE);
    for (name, is_top) in [("a/b", false), ("a", true)] {
        batcher.touched(at(0), &path(name));
        let Some(ChangeBatch::Paths(batch)) = batcher.take(at(500)) else {
            panic!("a batch")
        };
        assert_eq!(batch.top, is_top);
    }

    batcher.top(at(600));
    assert_eq!(
        batcher.take(at(1100)),
        Some(ChangeBatch::Paths(PathBatch {
            top: true,
            ..PathBatch::default()
        }))
    );
}

#[test]
fn a_file_that_is_written_keeps_the_batch_open_until_the_ceiling_and_stays_out_of_it() {
    let mut batcher = Batcher::new(PACE);
    batcher.touched(at(0), &path("page"));
    batcher.touched(at(10), &path("big"));

    for ms in (20..20_000).step_by(20) {
        batcher.wrote(at(ms), &path("big"));
        if ms == 5000 {
            let (paths, held) = names(batcher.take(at(ms)));
            assert_eq!(
                (paths, held),
                (vec!["page".to_string()], vec!["big".to_string()])
            );
        } else {
            assert_eq!(batcher.take(at(ms)), None, "{ms}");
        }
    }

    // Later changes do not wait for the same file again.
    batcher.touched(at(20_000), &path("page"));
    assert_eq!(names(batcher.take(at(20_500))).1, ["big"]);
    batcher.closed(at(21_000), &path("big"));

    assert_eq!(
        names(batcher.take(at(21_500))),
        (vec!["big".to_string()], vec![])
    );
}

#[test]
fn a_file_that_is_never_closed_is_sent_all_the_same() {
    let mut batcher = Batcher::new(PACE);
    batcher.wrote(at(0), &path("idle"));
    assert_eq!(batcher.due(), Some(at(15_000)));
    assert_eq!(batcher.take(at(15_000)), None);
    assert_eq!(names(batcher.take(at(15_500))).0, ["idle"]);
    let mut sent = Vec::new();

    for ms in (20_000..1_300_000).step_by(1000) {
        batcher.wrote(at(ms), &path("log"));
        sent.extend(batcher.take(at(ms)).map(|_| ms));
    }

    assert_eq!(sent, [621_000, 1_223_000]);
}

#[test]
fn it_is_asked_whether_a_file_is_open_once_after_its_writes() {
    let mut batcher = Batcher::new(PACE);
    batcher.wrote(at(0), &path("a"));
    assert_eq!(
        (batcher.open_check_at(), batcher.take_open_checks(at(199))),
        (Some(at(200)), vec![])
    );
    assert!(batcher.wrote_again(at(150), b"a"));
    assert_eq!(batcher.open_check_at(), Some(at(350)));
    assert_eq!(batcher.take_open_checks(at(350)), [path("a")]);
    assert_eq!(
        (batcher.open_check_at(), batcher.take_open_checks(at(5000))),
        (None, vec![])
    );

    // The file is open and written to all the time.
    assert!(batcher.wrote_again(at(6000), b"a"));
    assert_eq!(batcher.open_check_at(), Some(at(8000)));
    batcher.closed(at(6500), &path("a"));

    assert_eq!(batcher.open_check_at(), None);
}

#[test]
fn a_file_that_is_rewritten_all_the_time_is_late_by_the_ceiling_at_most() {
    let mut batcher = Batcher::new(PACE);
    let mut sent = Vec::new();
    for ms in (0..20_000).step_by(50) {
        match ms % 300 {
            0 => batcher.wrote(at(ms), &path("page")),
            100 => batcher.closed(at(ms), &path("page")),
            _ => {}
        }
        sent.extend(batcher.take(at(ms)).map(|_| ms));
    }

    assert_eq!(sent.len(), 3, "{sent:?}");
}

#[test]
fn a_name_that_goes_is_written_no_more() {
    let mut batcher = Batcher::new(PACE);
    batcher.wrote(at(0), &path("dir/sub/part"));
    batcher.wrote(at(0), &path("dirt"));
    batcher.gone(at(1), &path("dir"));
    let (paths, held) = names(batcher.take(at(5000)));

    assert_eq!(
        (paths, held),
        (vec!["dir".to_string()], vec!["dirt".to_string()])
    );
}

#[test]
fn everything_takes_the_place_of_paths() {
    let mut batcher = Batcher::new(PACE);
    batcher.touched(at(0), &path("a"));
    batcher.everything(at(1), RescanCause::Asked);
    batcher.everything(at(2), RescanCause::Missed);
    batcher.touched(at(3), &path("b"));
    assert_eq!(
        batcher.take(at(503)),
        Some(ChangeBatch::Everything(RescanCause::Asked))
    );
    assert!(batcher.is_empty());
    for i in 0..=MAX_PATHS {
        batcher.touched(at(600), &path(&format!("f{i}")));
    }

    assert_eq!(
        batcher.take(at(1100)),
        Some(ChangeBatch::Everything(RescanCause::Missed))
    );
}

#[derive(Debug, Clone)]
enum Step {
    Touch(u8),
    Write(u8),
    Close(u8),
    Gone(u8),
    Everything,
    Wait(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0u8..6).prop_map(Step::Touch),
        (0u8..6).prop_map(Step::Write),
        (0u8..6).prop_map(Step::Close),
        (0u8..6).prop_map(Step::Gone),
        Just(Step::Everything),
        (0u16..3000).prop_map(Step::Wait),
        (0u16..60).prop_map(Step::Wait),
    ]
}

proptest! {
    #[test]
    fn nothing_is_lost_nothing_waits_past_the_ceiling_and_held_files_stay_out(
        steps in proptest::collection::vec(step(), 1..120)
    ) {
        let name = |n: u8| path(&format!("d{}/f{n}", n % 2));
        let mut batcher = Batcher::new(PACE);
        let mut now = at(0);

        // Paths owed to a batch, each with the time of its change.
        let mut owed: HashMap<TreePath, Moment> = HashMap::new();
        let mut written: HashSet<TreePath> = HashSet::new();
        let check = |batch: ChangeBatch,
                     now: Moment,
                     owed: &mut HashMap<TreePath, Moment>,
                     written: &HashSet<TreePath>| {
            match batch {
                ChangeBatch::Everything(_) => owed.clear(),
                ChangeBatch::Paths(batch) => {
                    prop_assert!(batch.paths.is_disjoint(&batch.held));
                    prop_assert!(batch.held.is_subset(written));
                    prop_assert!(batch.top || !batch.paths.is_empty());
                    owed.retain(|path, _| !batch.paths.contains(path));
                    let late = owed.iter().find(|(p, since)| {
                        !written.contains(*p) && **since + PACE.max_delay < now
                    });
                    prop_assert!(late.is_none(), "{late:?} at {now:?}");
                }
            }
            Ok(())
        };

        for step in steps {
            match step {
                Step::Touch(n) => {
                    batcher.touched(now, &name(n));
                    owed.entry(name(n)).or_insert(now);
                }
                Step::Write(n) => {
                    batcher.wrote(now, &name(n));
                    written.insert(name(n));
                    owed.insert(name(n), now);
                }
                Step::Close(n) => {
                    batcher.closed(now, &name(n));
                    written.remove(&name(n));
                    owed.insert(name(n), now);
                }
                Step::Gone(n) => {
                    batcher.gone(now, &name(n));
                    written.remove(&name(n));
                    owed.insert(name(n), now);
                }
                Step::Everything => batcher.everything(now, RescanCause::Missed),
                Step::Wait(ms) => {
                    let until = now + Duration::from_millis(u64::from(ms));
                    while let Some(due) = batcher.due().filter(|due| *due <= until) {
                        now = now.max(due);
                        if let Some(batch) = batcher.take(now) {
                            check(batch, now, &mut owed, &written)?
                        }
                    }
                    now = until;
                }
            }
            prop_assert!(owed.is_empty() || batcher.due().is_some());
        }

        // In the end every path comes, closed or not.
        while let Some(due) = batcher.due() {
            now = now.max(due);
            if let Some(batch) = batcher.take(now) { check(batch, now, &mut owed, &written)? }
        }

        prop_assert!(owed.is_empty() && batcher.is_empty(), "{owed:?}");
    }
}
