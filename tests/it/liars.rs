//! An attacker who joins without a group key and forges accepted serials and running releases.
//! Unsigned claims must have no effect.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::support::{self, Adversary, Lab, write};
use makuo::id::{HostName, InstanceId, Serial, TreeName};
use makuo::manifest::Release;
use makuo::units::WallTime;
use makuo::wire::message::{Hello, TreeState};
use makuo::wire::query::{QueryAnswer, ReleaseBytes, ReleaseReport, TreeReport};
use makuo::wire::{Datagram, Message};

fn lab(hosts: usize) -> Option<(Lab, Adversary)> {
    let mut lab = Lab::plain_network(hosts)?;
    let place = lab.plug();
    Some((lab, Adversary::at(&place)?))
}

fn www() -> TreeName {
    TreeName::new("www").expect("legal")
}

/// A forged answer about the attacker's own state.
#[derive(Clone)]
struct Lie {
    name: String,
    serial: Serial,
    /// Claimed running release, with or without its signature.
    runs: Option<(Release, Option<Vec<u8>>)>,
}

impl Lie {
    fn hello(&self, echo: Option<makuo::id::Nonce>) -> Message {
        let runs = self.runs.as_ref().map(|(release, _)| release);
        let tree = TreeState {
            serial: self.serial,
            release: runs.map(Release::id),
            running: runs.map(|release| release.header().serial),
            ..TreeState::nothing(www())
        };

        Message::Hello(Hello {
            name: HostName::new(&self.name).expect("legal"),
            version: "1.0.0".into(),
            trees: vec![tree],
            members: 2,
            heard: Some(1472),
            strangers: None,
            nonce: None,
            echoes: echo.map(|nonce| vec![nonce]),
            identity: None,
            shown: None,
            labels: None,
        })
    }

    fn tell(&self, number: u64) -> Option<Message> {
        let (release, signature) = self.runs.as_ref()?;
        let header = release.header();
        let told = ReleaseReport {
            serial: header.serial,
            id: release.id(),
            created: WallTime(5),
            key: None,
            entries: 1,
            bytes: 1,
            running: true,
            content: None,
            part: false,
            message: None,
            pinned: false,
        };

        let shown = signature.clone().map(|signature| ReleaseBytes {
            header: release.bytes().to_vec(),
            signature,
        });
        let tree = TreeReport {
            tree: www(),
            running: Some(header.serial),
            highest: header.serial,
            work: None,
            trouble: None,
            releases: vec![told],
            stale: None,
            drifted: None,
            release: Some(release.id()),
            tombstones: None,
            sent: None,
            parts_only: false,
            base: None,
            shown,
            targets: None,
            parts: None,
            staged: None,
            held: None,
            unhealthy: None,
            repository: None,
            message: None,
        };

        let host = HostName::new(&self.name).expect("legal");
        Some(Message::Answer(QueryAnswer {
            number,
            host,
            trees: vec![tree],
            release: None,
            labels: None,
            machine: None,
            followed: None,
            refusal: None,
        }))
    }
}

/// Answers every question with forged reports until stopped.
struct Lying {
    over: Arc<AtomicBool>,
    thread: JoinHandle<Adversary>,
}

impl Lying {
    fn begin(mut evil: Adversary, lies: Vec<Lie>) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            while !seen.load(Ordering::Relaxed) {
                for (who, datagram) in evil.hear_from(64) {
                    let Ok(Datagram::Control(_, piece)) = Datagram::parse(&datagram) else {
                        continue;
                    };
                    for (nth, lie) in (7000..).zip(&lies) {
                        let answer = match Message::decode(piece.bytes) {
                            Ok(Message::Solicit(nonce, _)) => Some(lie.hello(nonce)),
                            Ok(Message::Query(ask)) => lie.tell(ask.number),
                            _ => None,
                        };
                        answer
                            .into_iter()
                            .for_each(|answer| evil.say_to(who, InstanceId(nth), &answer));
                    }
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

/// Returns the currently deployed release with its signature, as announced.
fn heard_release(lab: &Lab, mut evil: Adversary) -> (Adversary, Release, Vec<u8>) {
    let over = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&over);
    let recorder = std::thread::spawn(move || {
        let heard = evil.record(|| seen.load(Ordering::Relaxed));
        let messages = evil.messages(&heard);
        (evil, messages)
    });

    lab.deploy(&[]).exits(0);
    over.store(true, Ordering::Relaxed);
    let (evil, messages) = recorder.join().expect("no panic");
    let found = messages.into_iter().find_map(|(_, message)| match message {
        Message::Announce(a) => Some((Release::from_bytes(&a.header).ok()?, a.signature)),
        _ => None,
    });

    let (release, signature) = found.expect("an announcement was heard");
    (evil, release, signature)
}

#[test]
fn nobody_uses_up_serials_and_a_new_host_takes_what_follows() {
    let Some((mut lab, mut evil)) = lab(3) else {
        return;
    };

    // The host is away during the attack, and has no release yet.
    lab.hosts[2].stop();
    let new = lab.hosts.pop().expect("three");
    lab.spec(&format!("{}[commit]\nrequire = 2\n", support::DELETE));
    write(&lab.site().join("page"), "1");
    lab.deploy(&[]).exits(0);
    let far = (1 << 32) - 1;

    for (nth, claims) in (2..).zip([
        vec![far],
        vec![u64::MAX],
        vec![u64::MAX; 2],
        vec![1 << 40; 2],
    ]) {
        let name = |n: usize| format!("web0{n}");
        let lies = claims.iter().enumerate();
        let lies = lies
            .map(|(n, serial)| Lie {
                name: name(n),
                serial: Serial(*serial),
                runs: None,
            })
            .collect();
        let lying = Lying::begin(evil, lies);
        write(&lab.site().join("page"), nth.to_string());
        // The forged hosts never become ready: the others suffice.
        let ran = lab.deploy(&["--timeout", "2s"]);
        assert_eq!(ran.result()["serial"].as_u64(), Some(nth), "{ran}");
        lab.all_same(&lab.site());
        evil = lying.end();
    }

    lab.spec(support::DELETE);
    lab.hosts.push(new);
    lab.hosts[2].start();
    write(&lab.site().join("page"), "after");
    let ran = lab.deploy(&[]).exits(0);
    assert_eq!(ran.result()["serial"].as_u64(), Some(6), "{ran}");

    lab.all_same(&lab.site());
}

#[test]
fn what_hosts_say_to_run_steers_no_rollback() {
    let Some((lab, evil)) = lab(3) else { return };
    let mut deployed = Vec::new();
    let mut evil = evil;
    for n in 1..=3 {
        write(&lab.site().join("page"), n.to_string());
        let (back, release, signature) = heard_release(&lab, evil);
        evil = back;
        deployed.push((release, signature));
        support::copy(&lab.site(), &lab.path(&format!("r{n}")));
    }

    let five = |shows: bool| -> Vec<Lie> {
        let (release, signature) = &deployed[1];
        let runs = Some((release.clone(), shows.then(|| signature.clone())));
        (0..5)
            .map(|n| Lie {
                name: format!("web9{n}"),
                serial: Serial(2),
                runs: runs.clone(),
            })
            .collect()
    };

    // With the signed header of the claimed release, they count as five hosts that disagree: the
    // operator has to decide.
    let lying = Lying::begin(evil, five(true));
    lab.makuo(&["rollback", "www", "--timeout", "2s"])
        .exits(3)
        .says(&["hosts run different releases", "--to"]);
    lab.all_same(&lab.path("r3"));
    evil = lying.end();

    // Without the signature, the claims are ignored.
    let lying = Lying::begin(evil, five(false));
    let ran = lab.makuo(&["rollback", "www", "-n", "--timeout", "2s"]);
    assert!(
        format!("{ran}").contains("back from www@3 to www@2"),
        "{ran}"
    );

    lying.end();
    lab.makuo(&["rollback", "www"])
        .exits(0)
        .says(&["back from www@3 to www@2"]);

    lab.all_same(&lab.path("r2"));
}
