//! Forged messages: a sender without the group key gets no data out of a host, a member with the
//! key cannot impersonate another, and endless messages fill neither memory nor log.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::{self, Adversary, Host, Lab, until, write};
use makuo::id::{HostName, InstanceId, Nonce, Serial, SessionId, TreeName};
use makuo::keys::HostKey;
use makuo::manifest::Release;
use makuo::wire::message::{Announce, DiffSummary, Hello, Pull, StageReport};
use makuo::wire::{HostStage, Message};
use nix::sys::signal::Signal;

/// Largest allowed growth of a host's memory under a flood, in KiB.
const GROWTH: u64 = 20 << 10;
/// Messages of a flood.
const FLOOD: u64 = 20_000;

/// Makes hosts and an attacker at their switch, all with the group key or all without.
fn lab(count: usize, keyed: bool, each: impl Fn(&mut Host)) -> Option<(Lab, Adversary)> {
    let mut lab = Lab::network_idle(count)?;
    if !keyed {
        lab.go_plain();
    }

    for host in &mut lab.hosts {
        each(host);
        host.start();
    }

    let place = lab.plug();
    let mut evil = Adversary::at(&place)?;
    if keyed {
        evil.take_key(&lab.group_key());
    }

    Some((lab, evil))
}

/// Discards all pending datagrams.
fn forget(evil: &mut Adversary) {
    while !evil.said().is_empty() {}
}

/// Records all messages during `work`.
fn listen<T>(
    mut evil: Adversary,
    work: impl FnOnce() -> T,
) -> (Adversary, Vec<(InstanceId, Message)>, T) {
    forget(&mut evil);
    let over = Arc::new(AtomicBool::new(false));
    let ends = Arc::clone(&over);
    let listening = std::thread::spawn(move || {
        let mut said = Vec::new();
        while !ends.load(Ordering::Relaxed) {
            said.extend(evil.said());
        }
        said.extend(evil.said());
        (evil, said)
    });
    let done = work();
    over.store(true, Ordering::Relaxed);
    let (evil, said) = listening.join().expect("no panic");

    (evil, said, done)
}

fn announcements(said: &[(InstanceId, Message)]) -> impl Iterator<Item = (InstanceId, &Announce)> {
    said.iter().filter_map(|(source, message)| match message {
        Message::Announce(announce) => Some((*source, announce)),
        _ => None,
    })
}

fn beacons(said: &[(InstanceId, Message)]) -> impl Iterator<Item = (InstanceId, &Hello)> {
    said.iter().filter_map(|(source, message)| match message {
        Message::Hello(hello) => Some((*source, hello)),
        _ => None,
    })
}

/// Makes a report of the host `name` on its own state.
fn state(session: SessionId, number: u32, name: &str, stage: HostStage) -> StageReport {
    StageReport {
        session,
        number,
        name: HostName::new(name).expect("legal"),
        stage,
        text: None,
        summary: Some(DiffSummary {
            written: 1,
            drift: 7,
            ..DiffSummary::default()
        }),
        received: 0,
        serial: Serial(2),
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

#[test]
fn a_host_gives_its_tree_to_nobody_whom_it_cannot_tell_to_be_of_the_group() {
    for anyone in [false, true] {
        let opened = lab(1, false, |host| {
            host.catch_up = true;
            host.gives_anyone = anyone;
        });
        let Some((lab, mut evil)) = opened else {
            return;
        };
        write(&lab.site().join("secret"), "for root alone");
        let tree = TreeName::new("www").expect("legal");
        let said;
        (evil, said, _) = listen(evil, || lab.deploy(&[]).exits(0));
        let release = announcements(&said)
            .find_map(|(_, a)| Release::from_bytes(&a.header).ok())
            .expect("heard");
        let pull = Message::Pull(Pull {
            tree,
            release: release.id(),
            have: Serial(0),
            base: None,
            host: None,
            header: None,
            labels: None,
        });
        let offered =
            |evil: &mut Adversary| announcements(&evil.said()).any(|(_, a)| a.grant.is_some());

        if anyone {
            until("an offer to anybody", || {
                evil.say(InstanceId(77), &pull);
                offered(&mut evil)
            });
            continue;
        }
        assert!(
            lab.hosts[0]
                .log()
                .contains("given to no host that missed a release"),
            "{}",
            lab.hosts[0].log()
        );
        for _ in 0..5 {
            evil.say(InstanceId(77), &pull);
            // Long enough for an offer to be made and received.
            lab.makuo(&["members", "--json"]).exits(0);
            support::pause(std::time::Duration::from_millis(500));
            assert!(!offered(&mut evil), "the tree goes to somebody");
        }
    }
}

#[test]
fn a_member_of_the_group_does_not_say_committed_for_a_host_that_hangs() {
    let Some((lab, mut evil)) = lab(2, true, |_| {}) else {
        return;
    };

    write(&lab.site().join("page"), "old");
    let said;
    (evil, said, _) = listen(evil, || lab.deploy(&[]).exits(0));
    let (web2, _) = beacons(&said)
        .find(|(_, hello)| hello.name.as_str() == "web2")
        .expect("it answered");

    write(&lab.site().join("page"), "new");

    lab.hosts[1].signal(Signal::SIGSTOP);
    // For the sender, the stopped host has answered the solicit already.
    let answer = beacons(&said)
        .find(|(source, _)| *source == web2)
        .map(|(_, hello)| hello.clone())
        .expect("known");

    let over = Arc::new(AtomicBool::new(false));
    let lying = {
        let over = Arc::clone(&over);
        std::thread::spawn(move || {
            let (mut session, mut number) = (None, 0);
            while !over.load(Ordering::Relaxed) {
                for (_, message) in evil.said() {
                    match message {
                        Message::Solicit(nonce, _) => {
                            let echoes = nonce.map(|nonce| vec![nonce]);
                            evil.say(
                                web2,
                                &Message::Hello(Hello {
                                    echoes,
                                    ..answer.clone()
                                }),
                            );
                        }
                        Message::Announce(announce) => session = Some(announce.session),
                        _ => {}
                    }
                }
                let Some(session) = session else { continue };
                for stage in [
                    HostStage::Joined,
                    HostStage::Staging,
                    HostStage::Ready,
                    HostStage::Committed,
                ] {
                    number += 1;
                    evil.say(web2, &Message::State(state(session, number, "web2", stage)));
                }
            }
        })
    };

    let ran = lab.makuo(&[
        "deploy",
        "--json",
        "www.toml",
        "--timeout",
        "3s",
        "--expect",
        "2",
    ]);

    over.store(true, Ordering::Relaxed);
    lying.join().expect("no panic");
    lab.hosts[1].signal(Signal::SIGCONT);
    assert!(
        !ran.out
            .contains("\"host\":\"web2\",\"state\":\"committed\""),
        "{ran}"
    );

    assert_ne!(ran.code, 0, "{ran}");
    assert_eq!(support::read(&lab.hosts[1].tree().join("page")), b"old");

    // After the host's return, the next deployment reaches all hosts.
    lab.deploy(&[]).exits(0);
    lab.all_same(&lab.site());
}

/// A member with the group key that impersonates `host` with another identity key. Answers like
/// `hello`, under the same process if `hello` has an identity, and then sends all messages of a
/// host that commits.
struct Impostor {
    over: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Adversary>,
}

impl Impostor {
    fn begin(mut evil: Adversary, key: HostKey, source: InstanceId, hello: Hello) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&over);
        let name = hello.name.clone();
        let thread = std::thread::spawn(move || {
            let (mut session, mut number) = (None, 0);
            while !ends.load(Ordering::Relaxed) {
                for (_, message) in evil.said() {
                    match message {
                        Message::Solicit(nonce, _) => {
                            let echoes = nonce.map(|nonce| vec![nonce]);
                            evil.say(
                                source,
                                &Message::Hello(Hello {
                                    echoes,
                                    ..hello.clone()
                                }),
                            );
                        }
                        Message::Announce(announce) => session = Some(announce.session),
                        _ => {}
                    }
                }
                let Some(session) = session else { continue };
                for stage in [
                    HostStage::Joined,
                    HostStage::Staging,
                    HostStage::Ready,
                    HostStage::Committed,
                ] {
                    number += 1;
                    let state = state(session, number, name.as_str(), stage);
                    let state = StageReport {
                        identity: Some(key.identity()),
                        ..state
                    };
                    let signature = Some(key.sign(&state.statement(key.instance())).into());
                    evil.say(
                        key.instance(),
                        &Message::State(StageReport { signature, ..state }),
                    );
                }
            }
            evil
        });

        Self { over, thread }
    }

    fn end(self) -> Adversary {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().expect("no panic")
    }
}

/// Returns the host's key from its log, at its `start`th start.
fn host_key(host: &Host, start: usize) -> String {
    let mut log = String::new();
    until("a host that tells its key", || {
        log = host.log();
        log.matches("host key SHA256:").count() == start
    });
    let at = log.rfind("host key SHA256:").expect("told at the start") + "host key ".len();
    log[at..]
        .split_whitespace()
        .next()
        .expect("a fingerprint")
        .to_string()
}

#[test]
fn a_member_of_the_group_takes_no_silent_hosts_place_and_a_key_of_its_own_shows() {
    let Some((lab, mut evil)) = lab(2, true, |_| {}) else {
        return;
    };

    let deploy = |text: &str, more: &[&str]| {
        write(&lab.site().join("page"), text);
        let args = [
            "deploy",
            "--json",
            "www.toml",
            "--timeout",
            "3s",
            "--expect",
            "2",
        ];
        lab.makuo(&[&args, more].concat())
    };

    deploy("old", &[]).exits(0);
    // The answer that the host would give.
    let mut answer = None;
    until("an answer of web2", || {
        evil.say(InstanceId(5), &Message::Solicit(Some(Nonce(5)), None));
        let said = evil.said();
        let mut answers = beacons(&said)
            .filter(|(_, hello)| hello.name.as_str() == "web2" && hello.identity.is_some());
        answer = answers
            .next()
            .map(|(source, hello)| (source, hello.clone()));
        answer.is_some()
    });

    let ((web2, answer), key) = (answer.expect("just heard"), HostKey::new([7; 32], 7));
    let own = support::read(&lab.path("web2/disk/state/www/host_key"));
    let seed: [u8; 32] = own.try_into().expect("32 bytes");
    assert_eq!(
        HostKey::new(seed, 0)
            .identity()
            .public()
            .expect("sound")
            .fingerprint()
            .to_string(),
        host_key(&lab.hosts[1], 1)
    );

    lab.hosts[1].signal(Signal::SIGSTOP);

    // Impersonates a host that has answered: the sender waits for the real one.
    let impostor = Impostor::begin(evil, key.clone(), web2, answer.clone());
    let ran = deploy("new", &[]);
    evil = impostor.end();
    assert_ne!(ran.code, 0, "{ran}");

    assert_eq!(
        support::read(&lab.hosts[0].tree().join("page")),
        b"old",
        "{ran}"
    );

    // Impersonates a silent host: the operator is informed, and can exclude the impostor.
    let hello = Hello {
        identity: Some(key.identity()),
        ..answer
    };

    let impostor = Impostor::begin(evil, key.clone(), key.instance(), hello);
    let strict = deploy("newer", &["--strict-host-keys"]);
    let before = support::read(&lab.hosts[0].tree().join("page"));
    let ran = deploy("newest", &[]);
    impostor.end();
    lab.hosts[1].signal(Signal::SIGCONT);
    let shows = key
        .identity()
        .public()
        .expect("sound")
        .fingerprint()
        .to_string();

    for ran in [&strict, &ran] {
        for part in [
            "web2 (",
            &shows,
            &host_key(&lab.hosts[1], 1),
            "delete the line of web2",
        ] {
            assert!(
                format!("{}{}", ran.out, ran.err).contains(part),
                "{part}: {ran}"
            );
        }
    }

    assert_eq!((strict.code, before), (3, b"old".to_vec()), "{strict}");
    assert_eq!(ran.code, 0, "as a host that was installed again: {ran}");
}

#[test]
fn a_host_that_was_installed_again_comes_back_with_a_warning_until_a_person_accepts_it() {
    let Some((mut lab, _)) = lab(2, true, |_| {}) else {
        return;
    };

    write(&lab.site().join("page"), "old");
    let quiet = |ran: &support::Ran| !format!("{}{}", ran.out, ran.err).contains("host key");
    for _ in 0..2 {
        assert!(quiet(&lab.deploy(&["--strict-host-keys"]).exits(0)));
    }

    let before = host_key(&lab.hosts[1], 1);
    lab.hosts[1].stop();
    std::fs::remove_dir_all(lab.hosts[1].state()).expect("mine");
    lab.hosts[1].start();
    let after = host_key(&lab.hosts[1], 2);
    assert_ne!(before, after);

    write(&lab.site().join("page"), "new");

    for _ in 0..2 {
        let ran = lab.deploy(&[]).exits(0);
        assert!(
            [&before, &after]
                .iter()
                .all(|key| format!("{}{}", ran.out, ran.err).contains(*key)),
            "{ran}"
        );
    }

    lab.all_same(&lab.site());
    write(&lab.site().join("page"), "newer");
    let ran = lab.deploy(&["--strict-host-keys"]).exits(3);
    assert!(ran.host("web2").1.contains(&after), "{ran}");

    let known = std::fs::read_dir(lab.path(".cache/makuo/known_hosts"))
        .expect("there")
        .flatten();

    let known = known
        .map(|entry| entry.path())
        .find(|path| !path.ends_with(".lock"))
        .expect("a group");
    let text = std::fs::read_to_string(&known).expect("readable");
    let others: String = text
        .lines()
        .filter(|l| !l.starts_with("web2 "))
        .map(|l| format!("{l}\n"))
        .collect();

    assert_eq!(
        (text.lines().count(), others.lines().count()),
        (2, 1),
        "{text}"
    );

    std::fs::write(&known, others).expect("mine");
    for _ in 0..2 {
        assert!(quiet(&lab.deploy(&["--strict-host-keys"]).exits(0)));
    }

    lab.all_same(&lab.site());
}

#[test]
fn a_comparison_that_was_recorded_is_made_once() {
    let Some((lab, mut evil)) = lab(2, false, |_| {}) else {
        return;
    };

    write(&lab.site().join("page"), "old");
    lab.deploy(&[]).exits(0);

    // Hosts have all content for a comparison: no transfer is needed.
    let said;
    (evil, said, _) = listen(evil, || lab.diff(&[]).exits(0));
    let (source, question) = announcements(&said)
        .next()
        .map(|(s, a)| (s, a.clone()))
        .expect("heard");

    // The same question, in a session of its own, and with the costly comparison by checksum.
    let other = Announce {
        session: SessionId(4711),
        ..question.clone()
    };

    let costly = Announce {
        checksum: true,
        ..question.clone()
    };

    let compared = |said: &[(InstanceId, Message)]| {
        let goes_on = |stage: HostStage| !matches!(stage, HostStage::Joined | HostStage::Refused);
        said.iter()
            .any(|(_, m)| matches!(m, Message::State(s) if goes_on(s.stage)))
    };

    for announce in [&question, &other, &costly].into_iter().cycle().take(30) {
        evil.say(source, &Message::Announce(announce.clone()));
        support::pause(std::time::Duration::from_millis(20));
        let heard = evil.said();
        assert!(!compared(&heard), "{heard:?}");
    }

    // Its answers are short, and delay no other host.
    lab.deploy(&[]).exits(0);
    lab.all_same(&lab.site());

    lab.diff(&[]).exits(0);
}

#[test]
fn questions_for_a_list_of_differences_fill_no_memory_and_are_the_senders_alone() {
    let Some((lab, mut evil)) = lab(1, false, |_| {}) else {
        return;
    };

    write(&lab.site().join("page"), "old");
    lab.deploy(&[]).exits(0);
    for n in 0..3000 {
        write(
            &lab.hosts[0]
                .tree()
                .join(format!("a-file-with-a-name-of-some-length-{n}")),
            "",
        );
    }

    // The host has its list and a slow port. Its sender is there, but hears nothing, and so does not
    // request the list.
    lab.hosts[0]
        .place
        .shell("tc qdisc replace dev eth0 root tbf rate 20mbit burst 64kb limit 1mb");
    forget(&mut evil);
    let running = lab.start(&["diff", "--json", "www.toml", "--expect", "1"]);
    let mut heard = None;

    until("an announcement", || {
        heard = announcements(&evil.said())
            .next()
            .map(|(source, announce)| (source, announce.session));
        heard.is_some()
    });

    lab.admin.cut("input", "meta l4proto udp");
    let (source, session) = heard.expect("just heard");
    support::pause(std::time::Duration::from_secs(1));
    let before = lab.hosts[0].memory();
    let (mut most, mut parts) = (0, 0);

    for n in 0..FLOOD {
        evil.say(source, &Message::DriftAsk(session, n % 100));
        if n % 500 == 0 {
            most = most.max(lab.hosts[0].memory());
            parts += evil
                .said()
                .iter()
                .filter(|(_, m)| matches!(m, Message::DriftPart(_)))
                .count();
        }
    }

    assert!(
        most < before + GROWTH,
        "{before} KiB before, {most} KiB at most"
    );
    assert_eq!(parts, 0, "the list goes to somebody else than the sender");
    lab.admin.heal();
    running.wait().exits(1);

    lab.deploy(&[]).exits(0);
    lab.all_same(&lab.site());
}

#[test]
fn what_others_say_keeps_to_its_line_in_output_and_log() {
    let opened = lab(1, false, |host| {
        host.catch_up = true;
        host.gives_anyone = true;
    });
    let Some((lab, mut evil)) = opened else {
        return;
    };

    write(&lab.site().join("page"), "old");
    let said;
    (evil, said, _) = listen(evil, || lab.deploy(&[]).exits(0));
    let (_, hello) = beacons(&said).next().expect("a beacon");
    let hello = Hello {
        name: HostName::new("evil").expect("legal"),
        members: 2,
        ..hello.clone()
    };

    let release = announcements(&said)
        .find_map(|(_, a)| Release::from_bytes(&a.header).ok())
        .expect("heard");
    let lie = "no\n2026-11-28T23:59:59.000000Z ERROR kernel: root login\nweb1 committed\nwww@9: all is well";
    let lies = move |evil: &mut Adversary, session, n: u32| {
        let text = Some(format!("{lie} {n}"));
        // The process that answered joins first: without a signature, other reports have no effect.
        let stage = if n.is_multiple_of(2) {
            HostStage::Refused
        } else {
            HostStage::Joined
        };
        let process = InstanceId(1 + u64::from(n / 2 % 16));
        evil.say(
            process,
            &Message::State(StageReport {
                text,
                ..state(session, n, "evil", stage)
            }),
        );
    };

    // In the output of a deployment, and in its error.
    let over = Arc::new(AtomicBool::new(false));

    let lying = {
        let over = Arc::clone(&over);
        std::thread::spawn(move || {
            let (mut session, mut n) = (None, 0);
            while !over.load(Ordering::Relaxed) {
                for (_, message) in evil.said() {
                    match message {
                        Message::Solicit(nonce, _) => {
                            let echoes = nonce.map(|nonce| vec![nonce]);
                            evil.say(
                                InstanceId(1),
                                &Message::Hello(Hello {
                                    echoes,
                                    ..hello.clone()
                                }),
                            );
                        }
                        Message::Announce(announce) => session = Some(announce.session),
                        _ => {}
                    }
                }
                if let Some(session) = session {
                    n += 1;
                    lies(&mut evil, session, n);
                }
            }
            (evil, lies)
        })
    };

    write(&lab.site().join("page"), "new");
    let ran = lab.makuo(&["deploy", "-v", "www.toml", "--timeout", "2s"]);
    over.store(true, Ordering::Relaxed);
    let (mut evil, lies) = lying.join().expect("no panic");
    let told = format!("{}{}", ran.out, ran.err);
    assert!(told.contains("root login"), "the words were heard: {ran}");

    for line in told
        .lines()
        .filter(|l| l.contains("root login") || l.contains("all is well"))
    {
        assert!(line.starts_with("  | "), "{line:?} of\n{ran}");
    }

    // In the log of a host that offers its release, within limits.
    let (log, before) = (lab.hosts[0].log().len(), lab.hosts[0].memory());

    let pull = Pull {
        tree: TreeName::new("www").expect("legal"),
        release: release.id(),
        have: Serial(0),
        base: None,
        host: None,
        header: None,
        labels: None,
    };

    let mut session = None;
    until("an offer", || {
        evil.say(InstanceId(3), &Message::Pull(pull.clone()));
        let said = evil.said();
        session = announcements(&said)
            .find(|(_, a)| a.grant.is_some())
            .map(|(_, a)| a.session);
        session.is_some()
    });

    (0..FLOOD as u32).for_each(|n| lies(&mut evil, session.expect("just heard"), n));
    lab.makuo(&["members", "--json"]).exits(0);
    let log = lab.hosts[0].log()[log..].to_string();
    assert!(
        log.lines().count() < 60,
        "{} lines: {log}",
        log.lines().count()
    );

    assert!(
        log.lines()
            .all(|line| !line.starts_with("2026-11-28T23:59:59") && !line.starts_with("web1")),
        "{log}"
    );

    let after = lab.hosts[0].memory();
    assert!(
        after < before + GROWTH,
        "{before} KiB before, {after} KiB after"
    );
}
