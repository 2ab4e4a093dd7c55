//! Tests of catching up: offers, requests, retries and claims without proof.

use std::net::IpAddr;

use super::super::test_fleet::{at, hello, table, www};
use super::*;
use crate::id::{HostName, Serial, SessionId};
use crate::manifest::Header;
use crate::manifest::header::tests::a_header;
use crate::units::WallTime;
use crate::wire::message::{Order, OrderKind, SignedOrder};

fn made(serial: u64, created: i64) -> Release {
    let serial = Serial(serial);
    let created = WallTime(created);
    Release::new(Header {
        tree: www(),
        serial,
        created,
        ..a_header()
    })
    .expect("legal")
}

fn release(serial: u64) -> Release {
    made(serial, 1)
}

fn id(serial: u64) -> ReleaseId {
    release(serial).id()
}

fn state(serial: u64, running: u64) -> TreeState {
    TreeState {
        serial: Serial(serial),
        release: Some(id(running)),
        running: Some(Serial(running)),
        tombstones: Some(Vec::new()),
        ..TreeState::nothing(www())
    }
}

/// Members 2.. with these current releases.
fn members(running: &[u64]) -> Table {
    table(running.iter().map(|serial| state(*serial, *serial)))
}

fn none() -> Tombstones {
    Tombstones::new(Vec::new(), 1)
}

fn missing() -> MissingReleases {
    MissingReleases::new([www()].into(), 1)
}

/// Returns the requests for releases; headers of releases in `real` arrive as soon as
/// requested.
fn poll_with(
    missing: &mut MissingReleases,
    ms: u64,
    own: &TreeState,
    table: &Table,
    stones: &Tombstones,
    real: &[Release],
) -> Vec<(SocketAddr, Pull)> {
    let asked = missing.poll(
        at(ms),
        std::slice::from_ref(own),
        InstanceId(1),
        table,
        stones,
        |_| false,
    );

    let (headers, offers): (Vec<_>, Vec<_>) = asked
        .into_iter()
        .partition(|(_, pull)| pull.header.is_some());

    for (_, pull) in headers {
        if let Some(release) = real.iter().find(|release| release.id() == pull.release)
            && missing.on_header(release)
        {
            missing.on_header_checked(at(ms), release.id(), true);
        }
    }

    offers
}

fn poll(
    missing: &mut MissingReleases,
    ms: u64,
    own: &TreeState,
    table: &Table,
) -> Vec<(SocketAddr, Pull)> {
    poll_with(missing, ms, own, table, &none(), &[release(6), release(7)])
}

#[test]
fn members_are_asked_in_turn_and_rounds_back_off() {
    let mut missing = missing();
    let table = members(&[7, 7, 6]);
    let own = state(5, 5);
    assert_eq!(
        poll(&mut missing, 0, &own, &table),
        [],
        "its sender may be about to offer it"
    );

    let mut asked = Vec::new();
    for ms in (0..60_000).step_by(100) {
        asked.extend(
            poll(&mut missing, ms, &own, &table)
                .into_iter()
                .map(|(to, pull)| (ms, to, pull.release)),
        );
    }

    // After both, the member with an older release is asked.
    let newest = asked.iter().position(|a| a.2 == id(6)).expect("asked");
    assert_eq!(newest, 2, "{asked:?}");
    asked.retain(|a| a.2 == id(7));
    let whom: BTreeSet<SocketAddr> = asked[..2].iter().map(|a| a.1).collect();
    assert_eq!(whom.len(), 2, "not the one that has an older release");
    let times: Vec<u64> = asked.iter().map(|a| a.0).collect();

    assert!(
        times[0] >= 1000 && times[1] - times[0] >= 3000 && times[2] - times[1] > 3000 + 3000,
        "{times:?}"
    );
    assert!((4..=10).contains(&asked.len()), "{times:?}");

    // The release arrived, by any route.
    assert_eq!(poll(&mut missing, 70_000, &state(7, 7), &table), []);
    assert_eq!(missing.timeout(), None);
}

#[test]
fn a_member_that_brought_nothing_is_asked_last_at_the_next_step() {
    let mut missing = missing();
    let table = members(&[7, 7, 7]);
    let mut now = 0;
    let mut ask = |missing: &mut MissingReleases, own: &TreeState| loop {
        assert!(now < 200_000, "nobody is asked");
        now += 100;
        if let Some((to, _)) = poll(missing, now, own, &table).pop() {
            return to;
        }
    };

    // The first member lacks what this step needs; the second has it.
    let unhelpful = ask(&mut missing, &state(1, 1));
    let helpful = ask(&mut missing, &state(1, 1));
    assert_ne!(unhelpful, helpful);

    for step in 2..6 {
        assert_ne!(ask(&mut missing, &state(step, step)), unhelpful, "{step}");
    }

    // If the others bring nothing either, it is asked again.
    let asked: BTreeSet<_> = (0..3).map(|_| ask(&mut missing, &state(6, 6))).collect();
    assert!(asked.contains(&unhelpful), "{asked:?}");
    assert_eq!(asked.len(), 3);
}

#[test]
fn false_claims_do_not_delay_a_real_release() {
    let mut missing = missing();
    let mut table = members(&[7, 7]);
    let own = state(5, 5);
    let (mut asked, mut headers) = (Vec::new(), BTreeMap::<u64, usize>::new());
    for ms in (0..20_000u64).step_by(100) {
        // Every 500 ms two new members claim a newer release each, and one makes a false claim
        // about the real release.
        for n in if ms % 500 == 0 { 0..3 } else { 0..0 } {
            let claimed = 1000 + ms + n;
            let name = HostName::new(&format!("evil{claimed}")).expect("legal");
            let from =
                SocketAddr::from(([10, 9, (claimed / 200) as u8, (claimed % 200) as u8], 5000));
            let trees = match n {
                2 => vec![TreeState {
                    release: Some(id(7)),
                    ..state(claimed, claimed)
                }],
                _ => vec![state(claimed, claimed)],
            };
            table.on_hello(at(ms), from, InstanceId(claimed), hello(name, trees), true);
        }
        let all = missing.poll(
            at(ms),
            std::slice::from_ref(&own),
            InstanceId(1),
            &table,
            &none(),
            |_| false,
        );
        for (to, pull) in all {
            match pull.header {
                None => asked.push((ms, to, pull.release)),
                Some(_) => *headers.entry(ms / 1000).or_default() += 1,
            }
            // A forged header comes first, then the real one.
            if pull.header.is_some() && pull.release == id(7) && missing.on_header(&release(7)) {
                missing.on_header_checked(at(ms), id(7), false);
                assert!(missing.on_header(&release(7)) && !missing.on_header(&release(7)));
                missing.on_header_checked(at(ms), id(7), true);
            }
        }
    }

    assert!(
        asked.first().is_some_and(|(ms, ..)| *ms < 2000),
        "{asked:?}"
    );
    let true_ones = |(_, to, release): &(u64, SocketAddr, ReleaseId)| {
        *release == id(7) && matches!(to.ip(), IpAddr::V4(ip) if ip.octets()[1] == 0)
    };

    assert!(asked.iter().all(true_ones), "{asked:?}");
    assert!(
        headers
            .values()
            .all(|count| *count <= 2 * MAX_PENDING_HEADERS),
        "{headers:?}"
    );
}

#[test]
fn the_newest_verified_release_comes_first_and_the_next_after_failures() {
    let mut missing = missing();
    let table = members(&[8, 7, 7, 6]);
    let own = state(5, 5);
    let real = [release(6), release(7), release(8)];
    let mut asked = Vec::new();
    for ms in (0..30_000u64).step_by(50) {
        let offers = poll_with(&mut missing, ms, &own, &table, &none(), &real);
        asked.extend(offers.into_iter().map(|(_, pull)| (ms, pull.release)));
    }

    let releases: Vec<ReleaseId> = asked.iter().map(|(_, release)| *release).take(4).collect();
    assert_eq!(releases, [id(8), id(7), id(7), id(6)]);

    // The host waits for an offer before it asks another member.
    assert!(
        asked.windows(2).all(|pair| pair[1].0 >= pair[0].0 + 3000),
        "{asked:?}"
    );
}

#[test]
fn hosts_that_lack_the_same_release_ask_the_same_member() {
    let table = members(&[7; 9]);
    let first = |seed: u64| {
        let mut missing = MissingReleases::new([www()].into(), seed);
        let own = state(0, 0);
        let mut asked = (0..3000)
            .step_by(50)
            .flat_map(|ms| poll(&mut missing, ms, &own, &table));
        asked.next().expect("asked").0
    };

    assert_eq!(first(1), first(2));
}

#[test]
fn current_refused_and_unwanted_releases_are_not_requested() {
    let table = members(&[7]);
    let asked = |mut missing: MissingReleases, own: TreeState| {
        (0..4000)
            .step_by(100)
            .map(|ms| poll(&mut missing, ms, &own, &table).len())
            .sum::<usize>()
    };

    assert_eq!(asked(missing(), state(5, 5)), 1);
    assert_eq!(asked(missing(), state(7, 6)), 0, "it was taken back here");
    assert_eq!(
        asked(MissingReleases::new(BTreeSet::new(), 1), state(5, 5)),
        0,
        "it does not catch up"
    );

    let mut unfit = missing();
    unfit.mark_unfit(&www(), id(7));
    assert_eq!(asked(unfit, state(5, 5)), 0);
    assert_eq!(asked(missing(), state(7, 7)), 0);
    let mut repair = MissingReleases::new(BTreeSet::new(), 1);
    repair.repair(www());

    assert_eq!(asked(repair, state(7, 7)), 1);
}

#[test]
fn nothing_is_requested_while_a_session_works_on_the_tree() {
    let mut missing = missing();
    let table = members(&[7]);
    let own = state(5, 5);
    for ms in [0, 2000, 4000] {
        assert_eq!(
            missing.poll(
                at(ms),
                std::slice::from_ref(&own),
                InstanceId(1),
                &table,
                &none(),
                |_| true
            ),
            []
        );
    }

    assert_eq!(poll(&mut missing, 4500, &own, &table), []);
    assert_eq!(
        poll(&mut missing, 5000, &own, &table),
        [],
        "its header is shown"
    );

    assert_eq!(poll(&mut missing, 5300, &own, &table).len(), 1);
}

fn tombstone(serial: u64, kind: OrderKind) -> Tombstones {
    let tree = Some(www());
    let release = id(serial);
    let serial = Some(Serial(serial));
    let order = Order {
        session: SessionId(1),
        release,
        kind,
        up_to: None,
        tree,
        serial,
        hosts: None,
        except: None,
    };

    Tombstones::new(
        vec![SignedOrder {
            order: order.encode(),
            signature: Vec::new(),
            hosts: None,
        }],
        1,
    )
}

#[test]
fn a_reverted_release_is_not_requested_and_is_replaced_where_it_runs() {
    let asked = |own: TreeState, stones: Tombstones| {
        let mut missing = missing();
        let table = members(&[7, 6]);
        let mut asked = Vec::new();
        for ms in (0..30_000).step_by(500) {
            asked.extend(poll_with(
                &mut missing,
                ms,
                &own,
                &table,
                &stones,
                &[release(6), release(7)],
            ));
        }
        asked
            .into_iter()
            .map(|(_, pull)| pull.release)
            .collect::<BTreeSet<_>>()
    };

    for kind in [OrderKind::Abort, OrderKind::Revert] {
        assert_eq!(
            asked(state(5, 5), tombstone(7, kind)),
            [id(6)].into(),
            "{kind:?}"
        );
    }

    assert_eq!(
        asked(state(7, 7), tombstone(7, OrderKind::Revert)),
        [id(6)].into(),
        "what the others run"
    );

    assert_eq!(
        asked(state(7, 7), tombstone(7, OrderKind::Abort)),
        [].into(),
        "a canary keeps it"
    );
}

#[test]
fn of_two_releases_with_one_serial_the_later_one_is_requested() {
    let asked = |ours: i64, theirs: i64| {
        let mut missing = missing();
        let mut table = Table::default();
        let theirs = made(7, theirs);
        let name = HostName::new("web2").expect("legal");
        let created = Some(theirs.header().created);
        let trees = vec![TreeState {
            release: Some(theirs.id()),
            created,
            ..state(7, 7)
        }];
        let hello = hello(name, trees);
        table.on_hello(
            at(0),
            ([10, 0, 0, 2], 5000).into(),
            InstanceId(2),
            hello,
            true,
        );
        let own = TreeState {
            created: Some(WallTime(ours)),
            ..state(7, 7)
        };
        let real = std::slice::from_ref(&theirs);
        let polls = (0..4000).step_by(100);
        polls
            .map(|ms| poll_with(&mut missing, ms, &own, &table, &none(), real).len())
            .sum::<usize>()
    };

    assert_eq!((asked(1, 2), asked(4, 3)), (1, 0));
    assert_eq!(asked(5, 5), usize::from(made(7, 5).id() > id(7)));
}

#[test]
fn an_unhealthy_host_is_not_asked() {
    let mut missing = missing();
    let mut table = Table::default();
    let name = HostName::new("web2").expect("legal");
    let trees = vec![TreeState {
        unhealthy: Some(true),
        ..state(7, 7)
    }];
    let hello = hello(name, trees);

    table.on_hello(
        at(0),
        ([10, 0, 0, 2], 5000).into(),
        InstanceId(2),
        hello,
        true,
    );

    assert!(
        (0..6000)
            .step_by(100)
            .all(|ms| poll(&mut missing, ms, &state(5, 5), &table).is_empty())
    );
}

/// Attempts at a release in 300 s by a host that fails with each, with the times in milliseconds.
fn attempts_in_vain(seed: u64) -> Vec<u64> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut missing = MissingReleases::new([www()].into(), seed);
    let running: Vec<u64> = (0..rng.usize(1..40)).map(|_| 7).collect();
    let table = members(&running);
    let own = state(5, 5);
    let candidate = Candidate::of(&release(7));
    let mut tried: Vec<u64> = Vec::new();

    for ms in (0..300_000).step_by(100) {
        let asks = !poll(&mut missing, ms, &own, &table).is_empty();
        // Members offer it unasked as well: another host asked, or found it in a repository.
        let is_offered = asks || rng.u8(..20) == 0;
        if is_offered && missing.wants(at(ms), &own, &candidate, &none()) {
            tried.push(ms);
            let pause = failure_pause(tried.len() as u32);
            missing.rest(at(ms), www(), candidate.release, pause);
            let due = missing.timeout().expect("it is tried again");
            assert!(due <= at(ms) + pause, "seed {seed}");
        }
    }
    tried
}

#[test]
fn a_release_that_fails_here_is_tried_ever_less_often_however_many_offer_it() {
    for seed in 0..50 {
        let tried = attempts_in_vain(seed);
        let pauses: Vec<u64> = tried.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let least = (1..).map(|n| failure_pause(n).as_millis() as u64);
        assert!(
            pauses
                .iter()
                .zip(least)
                .all(|(pause, least)| *pause >= least),
            "seed {seed}: {pauses:?}"
        );
        // Pauses of 5, 10, 20, 40, 80 and 120 s follow each other.
        assert!((5..=7).contains(&tried.len()), "seed {seed}: {tried:?}");
    }
}

#[test]
fn a_repair_and_another_release_do_not_wait_for_one_that_failed() {
    let mut missing = missing();
    let own = state(5, 5);
    let wants = |missing: &MissingReleases, serial| {
        missing.wants(at(1), &own, &Candidate::of(&release(serial)), &none())
    };
    missing.rest(at(0), www(), id(7), failure_pause(1));
    assert!(!wants(&missing, 7) && wants(&missing, 6) && wants(&missing, 8));

    missing.rest(at(0), www(), id(5), failure_pause(1));
    missing.repair(www());
    assert!(wants(&missing, 5));
}
