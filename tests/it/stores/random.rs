//! Random mishaps between a store and its client.

use super::*;

#[test]
fn random_mishaps_end_in_the_right_bytes_or_in_a_clear_fault() {
    let (seed, gets) = seed_and_rounds(150);
    let Some((_nginx, between, bytes)) = troubled(2_000_000) else {
        return;
    };
    let impatient = StoreOptions {
        patience: Duration::from_millis(400),
        ..options(&[])
    };
    let store = near(&between, &impatient);
    let mut random = fastrand::Rng::with_seed(seed);
    between.throw(seed, 40, mishaps(&mut random));

    let (mut right, mut wrong, mut faults) = (0usize, 0usize, BTreeMap::new());
    let work = async {
        for _ in 0..gets {
            let one = random_get(&mut random, bytes.len() as u64);
            let range = one.range.clone().unwrap_or(0..bytes.len() as u64);
            let wanted = &bytes[range.start as usize..range.end as usize];
            match get_later(&store, one).await {
                // The caller hashes: a wrong byte or a stale object is not seen here.
                Got::Whole(found, _) if found == wanted => right += 1,
                Got::Whole(found, _) if found.len() == wanted.len() => wrong += 1,
                Got::Failed(fault) => {
                    assert!(fault.text.contains(PACK), "{fault}");
                    *faults.entry(format!("{:?}", fault.kind)).or_insert(0usize) += 1;
                }
                other => panic!("MAKUO_STORE_SEED={seed}: {other:?}"),
            }
        }
    };
    let patience = crate::support::wait::LONG;
    run(async { tokio::time::timeout(patience, work).await }).expect("no get hangs");

    let sent: usize = between.passed().iter().map(|one| one.sent).sum();
    println!("{right} right, {wrong} with a wrong byte, faults {faults:?}; {sent} bytes sent");
    assert!(
        right > gets / 2,
        "MAKUO_STORE_SEED={seed}: {right} of {gets}"
    );
    assert!(
        faults.keys().all(|kind| kind != "Denied"),
        "MAKUO_STORE_SEED={seed}: {faults:?}"
    );
}

fn random_get(random: &mut fastrand::Rng, size: u64) -> Get {
    match random.u8(0..4) {
        0 => whole(PACK),
        _ => {
            let start = random.u64(0..size - 1);
            let most = (size - start).min(500_000);
            part(PACK, start..start + random.u64(1..=most))
        }
    }
}

fn mishaps(random: &mut fastrand::Rng) -> Vec<Mishap> {
    let mut mishaps = Mishap::all_sudden();
    mishaps.extend([
        Mishap::Status(429, None, ""),
        Mishap::Late(Duration::from_millis(50)),
        Mishap::Late(Duration::from_millis(50)),
    ]);
    mishaps.extend((0..6).map(|_| Mishap::Cut(random.usize(0..300_000))));
    mishaps.push(Mishap::Stall(random.usize(0..300_000)));
    mishaps
}

#[test]
fn one_publisher_is_never_in_conflict_with_itself() {
    let (seed, rounds) = seed_and_rounds(30);
    let Some(moto) = moto() else { return };
    let between = Middleman::start(moto.address());
    let (troubled, direct) = (
        bucket(between.address(), &keys()),
        bucket(moto.address(), &keys()),
    );
    let mishaps = vec![
        Mishap::Reset,
        Mishap::LostAnswer,
        Mishap::LostAnswer,
        Mishap::Cut(0),
        Mishap::Late(Duration::from_millis(20)),
        Mishap::Status(500, None, "InternalError"),
        Mishap::Status(503, Some(0), "SlowDown"),
        Mishap::Status(409, None, "ConditionalRequestConflict"),
    ];
    between.throw(seed, 35, mishaps);

    let (mut condition, mut done, mut failed) = (PutCondition::Absent, 0, 0);
    for round in 0..rounds {
        let bytes = format!("release {round}").into_bytes();
        match put(&troubled, HEAD, &bytes, condition.clone()) {
            PutReply::Done { etag } => {
                let found = get(&direct, whole(HEAD));
                assert_eq!(
                    found,
                    Got::Whole(bytes, etag.clone()),
                    "MAKUO_STORE_SEED={seed}"
                );
                condition = PutCondition::Unchanged(etag.expect("a tag"));
                done += 1;
            }
            PutReply::Failed(fault) => {
                assert_eq!(fault.kind, FaultKind::Temporary, "{fault}");
                condition = match get(&direct, whole(HEAD)) {
                    Got::Missing => PutCondition::Absent,
                    found => PutCondition::Unchanged(found.etag()),
                };
                failed += 1;
            }
            other => panic!("MAKUO_STORE_SEED={seed}, round {round}: {other:?}"),
        }
    }

    println!("{done} stored, {failed} failed");
    assert!(
        done > rounds / 2,
        "MAKUO_STORE_SEED={seed}: {done} of {rounds}"
    );
}

#[test]
fn many_gets_at_once_share_the_places_and_end() {
    let Some((_nginx, between, bytes)) = troubled(400_000) else {
        return;
    };
    let few = StoreOptions {
        parallel: 3,
        attempts: 10,
        ..options(&[])
    };
    let store = near(&between, &few);
    between.throw(
        5,
        60,
        vec![
            Mishap::Cut(1000),
            Mishap::Late(Duration::from_millis(20)),
            Mishap::Late(Duration::from_millis(20)),
            Mishap::Late(Duration::from_millis(20)),
        ],
    );
    run(async {
        let mut tasks = Vec::new();
        for number in 0..40u64 {
            let (store, start) = (store.clone(), number * 9000);
            let get = part(PACK, start..start + 20_000);
            tasks.push(tokio::spawn(async move {
                (start, get_later(&store, get).await)
            }));
        }
        for task in tasks {
            let (start, found) = task.await.expect("no panic");
            let start = start as usize;
            assert!(found.bytes() == bytes[start..start + 20_000], "{start}");
        }
    });
    assert!(
        (2..=3).contains(&between.most()),
        "{} at once",
        between.most()
    );
}
