//! Tests of the sender's table of hosts: names, addresses, restarts, keys and silence.

use std::time::Duration;

use super::*;
use crate::id::SessionId;
use crate::keys::HostKey;
use crate::wire::HostStage;
use crate::wire::message::OrderKind;

fn state(name: &str, stage: HostStage) -> StageReport {
    StageReport {
        session: SessionId(1),
        number: 1,
        name: HostName::new(name).expect("legal"),
        stage,
        text: None,
        summary: None,
        received: 0,
        serial: Serial(0),
        dropped: None,
        torn: None,
        identity: None,
        signature: None,
        nonce: None,
        targets: None,
        tags: None,
        keeps: None,
        held: None,
    }
}

fn rules(known: &KnownHosts, strict: bool) -> KeyRules {
    KeyRules {
        known: known.clone(),
        strict,
    }
}

/// Signs a state as the process of `key`.
fn signed(key: &HostKey, state: StageReport) -> StageReport {
    let state = StageReport {
        identity: Some(key.identity()),
        ..state
    };

    StageReport {
        signature: Some(key.sign(&state.statement(key.instance())).into()),
        ..state
    }
}

#[test]
fn nobody_speaks_for_a_host_from_elsewhere_while_it_speaks_itself() {
    let at = |host: u8| SocketAddr::from(([10, 0, 0, host], 5000));
    let after = |ms: u64| Moment(1) + Duration::from_millis(ms);
    let mut hosts = Hosts::default();
    let id = InstanceId(1);
    hosts.add(
        after(0),
        id,
        HostName::new("web1").expect("legal"),
        at(1),
        Serial(0),
    );

    assert!(
        hosts.on_sign_of_life(after(0), id, at(1))
            && !hosts.on_sign_of_life(after(1000), id, at(9))
    );
    assert!(
        hosts.on_sign_of_life(after(1900), id, at(1))
            && !hosts.on_sign_of_life(after(2500), id, at(9))
    );
    assert!(
        !hosts.on_sign_of_life(after(2500), InstanceId(2), at(1)),
        "an unknown instance"
    );

    // The host has another address now.
    assert!(
        hosts.on_sign_of_life(after(4000), id, at(2))
            && !hosts.on_sign_of_life(after(4100), id, at(1))
    );
}

#[test]
fn a_daemon_that_was_restarted_takes_the_place_of_its_old_self_and_of_nobody_else() {
    let at = |host: u8| SocketAddr::from(([10, 0, 0, host], 5000));
    let mut hosts = Hosts::default();
    let before = HostKey::new([1; 32], 1);
    let after = HostKey::new([1; 32], 2);
    let other = HostKey::new([2; 32], 1);

    let named = [
        (before.instance(), "web1", 1),
        (InstanceId(2), "web1", 2),
        (InstanceId(3), "web2", 1),
    ];

    for (instance, name, host) in named {
        hosts.add(
            Moment(1),
            instance,
            HostName::new(name).expect("legal"),
            at(host),
            Serial(0),
        );
    }

    let joins = |key: &HostKey, stage| StageReport {
        identity: Some(key.identity()),
        ..state("web1", stage)
    };

    let is_there = |hosts: &Hosts, key: &HostKey| hosts.get(key.instance()).is_some();
    let mut say = |key: &HostKey, said: StageReport| {
        hosts.on_state(Moment(2), key.instance(), at(1), said, false)
    };
    assert_eq!(say(&before, joins(&before, HostStage::Joined)), Some(true));

    // Another host under the same name is one more, whatever its signature.
    assert_eq!(
        say(&other, signed(&other, joins(&other, HostStage::Ready))),
        Some(true)
    );

    // The old instance goes once the new one has proven to be the same host.
    assert_eq!(say(&after, joins(&after, HostStage::Joined)), Some(true));
    assert_eq!(
        say(&after, joins(&after, HostStage::Ready)),
        None,
        "not signed"
    );

    assert!(is_there(&hosts, &before));
    let mut say = |key: &HostKey, said: StageReport| {
        hosts.on_state(Moment(3), key.instance(), at(1), said, false)
    };
    assert_eq!(
        say(&after, signed(&after, joins(&after, HostStage::Ready))),
        Some(true)
    );

    assert_eq!(
        say(&after, signed(&after, joins(&after, HostStage::Ready))),
        Some(false),
        "no change"
    );

    assert!(!is_there(&hosts, &before) && is_there(&hosts, &other) && is_there(&hosts, &after));
    assert_eq!(hosts.len(), 4);
}

#[test]
fn nobody_takes_the_place_of_a_host_that_answered_and_fell_silent() {
    let host = HostKey::new([1; 32], 1);
    let member = HostKey::new([2; 32], 1);
    let name = HostName::new("web1").expect("legal");
    let at = SocketAddr::from(([10, 0, 0, 1], 5000));

    for answered in [true, false] {
        let mut hosts = Hosts::default();
        hosts.add(Moment(1), host.instance(), name.clone(), at, Serial(0));
        // A process cannot show another's key, and shows only one.
        hosts.identify(host.instance(), Some(member.identity()));
        hosts.identify(host.instance(), answered.then(|| host.identity()));
        hosts.identify(host.instance(), Some(member.identity()));
        for stage in [HostStage::Joined, HostStage::Ready, HostStage::Committed] {
            let said = signed(&member, state("web1", stage));
            assert_eq!(
                hosts.on_state(Moment(2), member.instance(), at, said, false),
                Some(true)
            );
        }
        // An answer without a key, from an old version, leaves the host unknown.
        assert_eq!(hosts.get(host.instance()).is_some(), answered);
        let others = hosts.take_other_keys();
        assert_eq!(
            others.iter().filter(|(_, other)| other.both).count(),
            usize::from(answered),
            "{others:?}"
        );
    }
}

#[test]
fn a_host_has_the_name_that_it_signs_whoever_answered_for_it() {
    let host = HostKey::new([1; 32], 1);
    let name = |name: &str| HostName::new(name).expect("legal");
    let at = SocketAddr::from(([10, 0, 0, 1], 5000));
    let mut known = KnownHosts::default();
    known.insert(
        name("web3"),
        HostKey::new([3; 32], 1).identity().public().expect("sound"),
    );

    let mut hosts = Hosts::new(Moment(0), rules(&known, true));
    // A member answers with another's instance.
    hosts.add(Moment(1), host.instance(), name("web3"), at, Serial(0));
    let said = signed(&host, state("web1", HostStage::Ready));
    assert_eq!(
        hosts.on_state(Moment(2), host.instance(), at, said, false),
        Some(true)
    );

    let filed = hosts.get(host.instance()).expect("there");
    assert_eq!(
        (&filed.name, filed.is_excluded(), filed.key()),
        (&name("web1"), false, host.identity().public())
    );
    assert_eq!((hosts.len(), hosts.shown(filed).address), (1, None));

    assert_eq!(hosts.take_other_keys(), []);
}

#[test]
fn a_name_with_another_key_is_told_once_and_kept_out_where_that_is_asked_for() {
    let before = HostKey::new([1; 32], 1);
    let after = HostKey::new([2; 32], 1);
    let name = HostName::new("web1").expect("legal");
    let at = SocketAddr::from(([10, 0, 0, 1], 5000));
    let public = |key: &HostKey| key.identity().public().expect("sound");
    let mut known = KnownHosts::default();

    known.insert(name.clone(), public(&before));
    for (strict, first) in [
        (false, HostStage::Joined),
        (true, HostStage::Joined),
        (true, HostStage::Ready),
    ] {
        let mut hosts = Hosts::new(Moment(0), rules(&known, strict));
        let taken = (!strict).then_some(true);
        for stage in [first, HostStage::Ready, HostStage::Committed] {
            let said = signed(&after, state("web1", stage));
            let taken =
                taken.map(|_| hosts.get(after.instance()).and_then(|h| h.stage) != Some(stage));
            assert_eq!(
                hosts.on_state(Moment(2), after.instance(), at, said, false),
                taken,
                "{stage:?}"
            );
        }
        let other = OtherKey {
            name: name.clone(),
            address: at,
            shows: public(&after),
            had: public(&before),
            both: false,
        };
        assert_eq!(hosts.take_other_keys(), [(after.instance(), other)]);
        let host = hosts.get(after.instance()).expect("there");
        assert_eq!(
            (host.is_excluded(), host.is_lost(), host.is_good(false)),
            (strict, strict, !strict)
        );
        // The host itself, and a new one, are accepted. The quorum is taken of those.
        assert_eq!(hosts.voters(), 1);
        let said = signed(&before, state("web1", HostStage::Ready));
        assert_eq!(
            hosts.on_state(Moment(3), before.instance(), at, said, false),
            Some(true)
        );
        assert_eq!(
            (hosts.len(), hosts.voters()),
            (2, if strict { 1 } else { 2 })
        );
        // Known keys survive a restart of discovery, and nothing is reported twice.
        hosts.clear();
        assert_eq!(hosts.len(), 0);
        hosts.add(Moment(4), after.instance(), name.clone(), at, Serial(0));
        hosts.identify(after.instance(), Some(after.identity()));
        assert_eq!(
            hosts.get(after.instance()).map(|host| host.is_excluded()),
            Some(strict)
        );
        assert_eq!(hosts.take_other_keys(), []);
        let said = signed(&after, state("web2", HostStage::Ready));
        let mut hosts = Hosts::new(Moment(0), rules(&known, strict));
        assert_eq!(
            hosts.on_state(Moment(3), after.instance(), at, said, false),
            Some(true)
        );
        assert_eq!(hosts.take_other_keys(), []);
    }
}

#[test]
fn hosts_that_come_no_further_hold_nobody_up_whatever_they_say() {
    let at = |host: u8| SocketAddr::from(([10, 0, 0, host], 5000));
    let after = |s: u64| Moment(1) + Duration::from_secs(s);
    let mut hosts = Hosts::default();
    let patience = Patience {
        silent: Duration::from_secs(5),
        stuck: Duration::from_secs(20),
    };

    let say = |hosts: &mut Hosts, id: u8, s: u64, number: u32, received: u64| {
        let state = StageReport {
            number,
            received,
            ..state(&format!("web{id}"), HostStage::Diffing)
        };
        hosts.on_state(after(s), InstanceId(id.into()), at(id), state, false)
    };

    let mut lost = 0;
    for s in 0..60u64 {
        // Each joins when the one before is lost, and all send signs of life for ever.
        (1..=3u8)
            .filter(|id| u64::from(*id) * 10 <= s + 10)
            .for_each(|id| {
                assert!(say(&mut hosts, id, s, s as u32, 0).is_some());
            });
        lost += hosts.expire(after(s), patience, OrderKind::Commit).len();
    }

    assert!(
        lost == 3 && hosts.iter().all(|(_, host)| host.is_settled(false)),
        "{lost} lost"
    );
    say(&mut hosts, 2, 61, 70, 4096);

    assert!(
        hosts.get(InstanceId(2)).is_some_and(|host| !host.is_lost()),
        "the host has progressed"
    );
}

#[test]
fn a_member_of_the_group_says_nothing_decisive_in_another_hosts_name() {
    let at = SocketAddr::from(([10, 0, 0, 1], 5000));
    let host = HostKey::new([1; 32], 1);
    let member = HostKey::new([2; 32], 9);
    let mut hosts = Hosts::default();
    let ready = signed(&host, state("web1", HostStage::Ready));
    assert_eq!(
        hosts.on_state(Moment(1), host.instance(), at, ready.clone(), false),
        Some(true)
    );

    let committed = || state("web1", HostStage::Committed);
    let forged = [
        // Without a signature, with that of another state, and with the member's own, as its
        // process or under its key.
        committed(),
        StageReport {
            identity: Some(host.identity()),
            ..committed()
        },
        StageReport {
            identity: ready.identity,
            signature: ready.signature,
            ..committed()
        },
        signed(&member, committed()),
        StageReport {
            identity: Some(host.identity()),
            ..signed(&member, committed())
        },
        // The host's own state, altered.
        StageReport {
            text: Some("and healthy".into()),
            ..signed(&host, committed())
        },
        StageReport {
            serial: Serial(9),
            ..signed(&host, committed())
        },
        StageReport {
            session: SessionId(2),
            ..signed(&host, committed())
        },
        StageReport {
            stage: HostStage::Reverted,
            ..signed(&host, committed())
        },
    ];

    for (nth, lie) in forged.into_iter().enumerate() {
        assert_eq!(
            hosts.on_state(Moment(2), host.instance(), at, lie, false),
            None,
            "{nth}"
        );
    }

    assert_eq!(
        hosts.get(host.instance()).and_then(|h| h.stage),
        Some(HostStage::Ready)
    );

    // An audit decides by the results of the comparison.
    let found = state("web1", HostStage::Staging);
    assert_eq!(
        hosts.on_state(Moment(3), member.instance(), at, found.clone(), true),
        None
    );
    assert_eq!(
        hosts.on_state(
            Moment(3),
            member.instance(),
            at,
            signed(&member, found),
            true
        ),
        Some(true)
    );

    let truth = signed(&host, committed());
    assert_eq!(
        hosts.on_state(Moment(4), host.instance(), at, truth, false),
        Some(true)
    );
}
