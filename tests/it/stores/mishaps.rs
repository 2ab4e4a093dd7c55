//! One mishap at a time between a store and its client.

use super::*;

fn ranges(passed: &[Passed]) -> Vec<&str> {
    let ranges = passed.iter().map(|one| one.headers.get("range"));
    ranges
        .map(|range| range.map_or("-", String::as_str))
        .collect()
}

#[test]
fn a_body_that_is_cut_goes_on_at_its_byte() {
    let Some((_nginx, between, bytes)) = troubled(300_000) else {
        return;
    };
    let store = near(&between, &options(&[]));
    between.script([Mishap::Cut(100_000), Mishap::Reset, Mishap::Cut(50_000)]);
    assert!(get(&store, part(PACK, 10_000..290_000)).bytes() == bytes[10_000..290_000]);
    let passed = between.passed();
    assert_eq!(
        ranges(&passed),
        [
            "bytes=10000-289999",
            "bytes=110000-289999",
            "bytes=110000-289999",
            "bytes=160000-289999"
        ]
    );

    between.script([Mishap::Cut(250_000), Mishap::Whole]);
    assert!(
        get(&store, whole(PACK)).bytes() == bytes,
        "a small file is cut"
    );
    assert_eq!(ranges(&between.passed()), ["-", "bytes=250000-299999"]);
    between.script([Mishap::Chunked]);
    assert!(get(&store, whole(PACK)).bytes() == bytes);
    between.passed();
    between.script([Mishap::ShortRange, Mishap::ShortRange]);
    assert!(get(&store, part(PACK, 0..280_000)).bytes() == bytes[..280_000]);
    assert_eq!(
        ranges(&between.passed()),
        [
            "bytes=0-279999",
            "bytes=140000-279999",
            "bytes=210000-279999"
        ],
        "a server may answer with the first part of a range"
    );

    between.script([Mishap::Cut(1000)]);
    let fault = get(&store.once(), whole(PACK)).fault();
    assert_eq!(fault.kind, FaultKind::Temporary, "{fault}");
    assert_eq!(between.passed().len(), 1, "the caller repeats it");
    between.script([
        Mishap::Cut(0),
        Mishap::Cut(0),
        Mishap::Cut(0),
        Mishap::Cut(0),
    ]);
    let fault = get(&store, whole(PACK)).fault();
    assert_eq!(fault.kind, FaultKind::Temporary, "{fault}");
}

#[test]
fn an_object_that_changes_while_it_is_read_is_a_fault() {
    let Some((nginx, between, bytes)) = troubled(300_000) else {
        return;
    };
    let store = near(&between, &options(&[]));
    between.script([Mishap::Cut(100_000), Mishap::Late(Duration::from_millis(1))]);
    let mut reader = store.get(whole(PACK));
    let end = run(async {
        let mut changed = false;
        loop {
            match reader.next().await.expect("a last reply") {
                GetReply::Bytes(_) if !changed => {
                    write(&nginx.files().join(PACK), &bytes[1..]);
                    changed = true;
                }
                GetReply::Bytes(_) => {}
                end => break end,
            }
        }
    });
    let GetReply::Failed(fault) = end else {
        panic!("two states in one: {end:?}");
    };
    assert!(fault.text.contains("changed"), "{fault}");
}

#[test]
fn other_bytes_than_the_range_are_a_fault() {
    let Some((nginx, between, bytes)) = troubled(300_000) else {
        return;
    };
    let store = near(&between, &options(&[]));
    for mishap in [Mishap::OtherRange, Mishap::ShortRange, Mishap::WrongHead] {
        between.script(vec![mishap.clone(); 4]);
        let fault = get(&store, part(PACK, 1000..2000)).fault();
        assert_eq!(fault.kind, FaultKind::NotARange, "{mishap:?}: {fault}");
        assert!(fault.text.contains("ranges"), "{fault}");
        between.script([mishap]);
        let found = get(&store, part(PACK, 1000..2000)).bytes();
        assert!(found == bytes[1000..2000], "the second answer is right");
    }

    between.script([Mishap::Whole]);
    assert!(get(&store, part(PACK, 1000..2000)).bytes() == bytes[1000..2000]);
    between.script(vec![Mishap::Gzip; 4]);
    let fault = get(&store, whole(PACK)).fault();
    assert_eq!(fault.kind, FaultKind::NotARange, "{fault}");
    assert!(fault.text.contains("gzip off"), "{fault}");
    between.script([Mishap::Huge]);
    let fault = get(&store, whole(PACK)).fault();
    assert_eq!(fault.kind, FaultKind::TooLarge, "{fault}");

    let large = std::fs::File::create(nginx.files().join("large")).expect("new");
    large.set_len(40 << 20).expect("space");
    between.script(vec![Mishap::Whole; 4]);
    let fault = get(&store, part("large", 1000..2000)).fault();
    assert_eq!(fault.kind, FaultKind::NotARange, "{fault}");
}

#[test]
fn a_busy_server_is_asked_again_as_it_wishes() {
    let Some((_nginx, between, bytes)) = troubled(1000) else {
        return;
    };
    let store = near(&between, &options(&[]));
    between.script([
        Mishap::Status(503, Some(0), "SlowDown"),
        Mishap::Status(500, None, "InternalError"),
    ]);
    assert!(get(&store, whole(PACK)).bytes() == bytes);
    assert_eq!(between.passed().len(), 3);

    between.script([Mishap::Status(503, Some(3600), "SlowDown")]);
    let fault = get(&store, whole(PACK)).fault();
    assert_eq!(fault.kind, FaultKind::Temporary);
    assert_eq!(fault.after, Some(Duration::from_secs(3600)));
    assert_eq!(between.passed().len(), 1, "an hour is for the caller");
    between.script([Mishap::Status(418, None, "")]);
    let fault = get(&store, whole(PACK)).fault();
    assert_eq!(fault.kind, FaultKind::Permanent);
    assert_eq!(between.passed().len(), 1);
}

#[test]
fn a_connection_that_is_stuck_is_given_up() {
    let Some((_nginx, between, bytes)) = troubled(500_000) else {
        return;
    };
    let impatient = StoreOptions {
        patience: Duration::from_millis(300),
        ..options(&[])
    };
    let store = near(&between, &impatient);
    between.script([Mishap::Stall(400_000), Mishap::Stall(0)]);
    assert!(get(&store, whole(PACK)).bytes() == bytes);
    assert_eq!(
        ranges(&between.passed()),
        ["-", "bytes=400000-499999", "bytes=400000-499999"]
    );

    between.script(vec![Mishap::Stall(0); 4]);
    let fault = get(&store, whole(PACK)).fault();
    assert_eq!(fault.kind, FaultKind::Temporary);
    assert!(fault.text.contains("nothing for"), "{fault}");
}

#[test]
fn a_put_whose_answer_is_lost_is_no_conflict() {
    let Some(moto) = moto() else { return };
    let between = Middleman::start(moto.address());
    let store = bucket(between.address(), &keys());
    // The first put with a condition also asks whether the store keeps any.
    stored(put(&store, "trees/a/head", b"x", PutCondition::Absent));
    between.passed();
    between.script([Mishap::LostAnswer]);
    stored(put(&store, HEAD, b"mine", PutCondition::Absent));
    assert_eq!(get(&store, whole(HEAD)).bytes(), b"mine");
    assert_eq!(between.passed().len(), 4, "twice stored, twice read");

    between.script([Mishap::LostAnswer]);
    let conflict = put(&store, HEAD, b"other", PutCondition::Absent);
    assert_eq!(conflict, PutReply::Conflict);
    between.script([Mishap::Status(501, None, "NotImplemented")]);
    let unable = put(&store, HEAD, b"other", PutCondition::Absent);
    assert_eq!(unable, PutReply::NoConditions);
    between.script([Mishap::Status(409, None, "ConditionalRequestConflict")]);
    stored(put(&store, "trees/b/head", b"x", PutCondition::Absent));
}
