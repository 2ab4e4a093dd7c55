//! An attacker at the switch without the group key interferes with deployments: he replays all
//! recordings, sends tens of thousands of changed or random datagrams, and saturates his port.
//! Deployments succeed, hosts use no extra memory, and no state remains.
//!
//! `MAKUO_SIEGE_SECONDS=60` sets the length of each attack in a row, and enables time limits: every
//! deployment within twice the time without an attack, and back to normal within ten seconds after
//! the end. `MAKUO_SIEGE_MBIT` is the rate of every port, 1000 by default.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::{
    Adversary, Beside, Host, Lab, Noise, Place, Stopwatch, pause, recording, until, write,
};
use makuo::id::{HostName, InstanceId, Nonce};
use makuo::wire::datagram::{Fragment, Front, write_fragment};
use makuo::wire::message::Hello;
use makuo::wire::query::Query;
use makuo::wire::{Message, VERSION};
use nix::sys::signal::Signal;

/// Target hosts of the deployments. One more host is gone.
const HOSTS: usize = 3;
/// Deployments without an attack, under attack, and afterwards; and in the short form.
const DEPLOYS: usize = 5;
const DEPLOYS_SHORT: usize = 3;
/// Largest allowed growth of a host's memory, in KiB.
const GROWTH: u64 = 20 << 10;
/// Changed and random datagrams of an attack.
const DATAGRAMS: u64 = 40_000;
/// Datagrams per second in the short form.
const PACE: u64 = 20_000;
/// Minimum number of distinct datagrams in a flood.
const POOL: u64 = 4096;
/// Number of past processes.
const PROCESSES: u64 = 30_000;
/// Minimum interval of measured deployments, since leftover work of one slows down the next.
const PAUSE: Duration = Duration::from_secs(2);
/// Time after an attack in which deployments may still be slow.
const RECOVERY: Duration = Duration::from_secs(10);
/// Largest UDP payload of an Ethernet frame.
const FULL: usize = 1472;
/// UDP, IPv4 and Ethernet headers.
const HEADERS: usize = 8 + 20 + 14;

/// Sealed datagrams.
type Recording = Vec<Vec<u8>>;
/// Generator of an attack's datagram number `n`.
type Attack = fn(&[Vec<u8>], u64, &mut fastrand::Rng) -> Vec<u8>;

/// Rate of an attack.
#[derive(Clone, Copy)]
enum Speed {
    /// Number of datagrams over the whole time.
    Count(u64),
    /// As many as the port permits.
    Full,
}

/// A successful deployment.
#[derive(Clone, Copy)]
struct Deploy {
    time: Duration,
    /// Bytes sent by its sender.
    sent: u64,
}

/// A finished attack: its datagrams, and their bytes on a cable.
struct Done {
    evil: Adversary,
    sent: u64,
    bytes: u64,
    lasted: Duration,
}

/// Hosts under siege.
struct Siege {
    lab: Lab,
    random: fastrand::Rng,
    nth: u64,
    /// Length of an attack, if times are measured.
    lasts: Option<Duration>,
}

/// Returns the length of an attack in the long form.
fn asked() -> Option<Duration> {
    let seconds = std::env::var("MAKUO_SIEGE_SECONDS").ok()?;
    Some(Duration::from_secs(
        seconds.parse().expect("MAKUO_SIEGE_SECONDS is a number"),
    ))
}

/// Limits the rate of the port of `place` towards the switch.
fn shape(place: &Place, interface: &str) {
    let mbit = std::env::var("MAKUO_SIEGE_MBIT").unwrap_or_else(|_| "1000".into());
    place.shell(&format!(
        "tc qdisc replace dev {interface} root tbf rate {mbit}mbit burst 64kb limit 1mb"
    ));
}

impl Siege {
    /// Makes hosts with an attacker at their switch.
    fn new() -> Option<(Self, Adversary)> {
        let mut lab = Lab::network(HOSTS + 1)?;
        let place = lab.plug();
        let evil = Adversary::at(&place)?;
        let switch = lab.switch().place();

        for (number, place) in (1..).zip(
            lab.hosts
                .iter()
                .map(|host| &host.place)
                .chain([&lab.admin, &place]),
        ) {
            shape(place, "eth0");
            shape(&switch, &format!("p{number}"));
        }

        let random = fastrand::Rng::with_seed(6);
        Some((
            Self {
                lab,
                random,
                nth: 0,
                lasts: asked(),
            },
            evil,
        ))
    }

    /// Records a deployment, an aborted one, a killed one and, last, a comparison. Then one host
    /// disappears without a goodbye, and the others are restarted.
    fn record(&mut self, evil: Adversary) -> (Adversary, Recording) {
        let lab = &self.lab;
        let recorder = recording(evil);
        write(&lab.site().join("page"), "recorded");
        lab.deploy(&[]).exits(0);
        write(&lab.site().join("big"), Noise::new(5).bytes(4 << 20));

        for kills in [false, true] {
            let mut running = lab.start(&["deploy", "--json", "www.toml", "--rate", "1MB"]);
            running.until_event("data", |event| event["event"] == "progress");
            pause(Duration::from_millis(300));
            if kills {
                running.kill();
            } else {
                running.signal(Signal::SIGINT);
                running.wait().exits(3);
            }
        }

        std::fs::remove_file(lab.site().join("big")).expect("there");
        write(&lab.site().join("page"), "compared");
        until("hosts that are free again", || {
            lab.diff(&["--checksum"]).code == 1
        });
        let (evil, mut recorded) = recorder.end();
        recorded.extend(beacons(&evil, lab.hosts.len()));

        self.lab.hosts.pop().expect("one more").kill();

        self.lab.hosts.iter_mut().for_each(Host::restart);
        (evil, recorded)
    }

    /// Deploys another page and some noise to all hosts.
    fn deploy(&mut self) -> Deploy {
        self.nth += 1;
        write(&self.lab.site().join("page"), format!("page {}", self.nth));
        write(
            &self.lab.site().join("noise"),
            Noise::new(self.nth).bytes(256 << 10),
        );
        let watch = Stopwatch::start();

        let ran = self.lab.deploy(&[]).exits(0);
        let time = watch.read();
        let result = ran.result();
        assert_eq!(
            result["targets"].as_u64(),
            Some(self.lab.hosts.len() as u64),
            "{ran}"
        );

        self.lab.all_same(&self.lab.site());
        Deploy {
            time,
            sent: result["bytes_sent"].as_u64().expect("a number"),
        }
    }

    /// Runs a series of deployments, one per `every`.
    fn deploys(&mut self, every: Duration) -> Vec<Deploy> {
        let count = if self.lasts.is_some() {
            DEPLOYS
        } else {
            DEPLOYS_SHORT
        };

        let each = (0..count).map(|_| {
            let deploy = self.deploy();
            pause(every.saturating_sub(deploy.time));
            deploy
        });
        each.collect()
    }

    /// Deploys without an attack.
    fn calm(&mut self) -> Vec<Deploy> {
        self.deploys(self.lasts.map_or(Duration::ZERO, |_| PAUSE))
    }

    /// Returns the memory of each host, in KiB.
    fn memory(&self) -> Vec<u64> {
        self.lab.hosts.iter().map(Host::memory).collect()
    }

    /// Makes years of a fleet's traffic, with a new process for every command and every restarted
    /// daemon.
    fn past(&mut self) -> Recording {
        let place = self.lab.plug();
        let mut member = Adversary::at(&place).expect("there is one already");
        member.take_key(&self.lab.group_key());
        (0..PROCESSES)
            .map(|n| member.datagram(InstanceId(n), &word(n)))
            .collect()
    }

    /// Deploys under an attack and afterwards.
    fn bears(
        &mut self,
        name: &str,
        evil: Adversary,
        calm: &[Deploy],
        recording: Recording,
        attack: Attack,
        speed: Speed,
    ) -> Adversary {
        let before = self.memory();
        let lasts = self.lasts.unwrap_or(Duration::from_secs(DATAGRAMS / PACE));
        let attacking = begin(evil, recording, self.random.clone(), attack, speed, lasts);
        let every = self
            .lasts
            .map_or(Duration::ZERO, |lasts| lasts / DEPLOYS as u32);
        pause(every / 10);

        let under = self.deploys(every);
        let during = self.memory();
        let Done {
            evil,
            sent,
            bytes,
            lasted,
        } = attacking.end();

        let watch = Stopwatch::start();

        let mut recovering = vec![self.deploy()];
        while self.lasts.is_some() && watch.read() < RECOVERY {
            pause(PAUSE);
            recovering.push(self.deploy());
        }

        let after = if self.lasts.is_some() {
            self.calm()
        } else {
            Vec::new()
        };

        let kept = self.memory();
        let members = self.lab.makuo(&["members", "--json"]).exits(0);
        assert_eq!(
            members.result()["members"].as_u64(),
            Some(self.lab.hosts.len() as u64),
            "{members}"
        );

        for host in &self.lab.hosts {
            assert!(!host.log().contains("defect"), "{}", host.log());
        }

        let rate = bytes as f64 * 8.0 / lasted.as_secs_f64() / 1e6;
        println!(
            "{name}: {sent} datagrams at {rate:.0} Mbit/s; memory in KiB {before:?} before, {during:?} during, {kept:?} after"
        );

        for (when, deploys) in [
            ("calm", calm),
            ("under attack", &under),
            ("recovering", &recovering),
            ("after", &after),
        ] {
            let each = deploys
                .iter()
                .map(|d| format!("{:.3} s {} bytes", d.time.as_secs_f64(), d.sent));
            println!("{name}: {when}: {}", each.collect::<Vec<_>>().join(", "));
        }

        for (before, kept) in before.iter().zip(&kept) {
            assert!(
                *kept < before + GROWTH,
                "{name}: {before} KiB before, {kept} KiB after"
            );
        }

        let bytes = |deploys: &[Deploy]| median(deploys.iter().map(|d| d.sent));
        assert!(
            bytes(&under) < 3 * bytes(calm),
            "{name}: {} bytes without, {} with",
            bytes(calm),
            bytes(&under)
        );

        if self.lasts.is_some() {
            let time = |deploys: &[Deploy]| median(deploys.iter().map(|d| d.time));
            let slowest = under.iter().map(|d| d.time).max().expect("some");
            let last = recovering.last().expect("one").time;
            let verdict = |is: bool| if is { "held" } else { "MISSED" };
            let ratio = |time: Duration| {
                time.as_secs_f64() / median(calm.iter().map(|d| d.time)).as_secs_f64()
            };
            println!(
                "{name}: under attack {:.2} in the median, {:.2} at most ({}); after it {:.2} ({})",
                ratio(time(&under)),
                ratio(slowest),
                verdict(ratio(slowest) <= 2.0),
                ratio(last.min(time(&after))),
                verdict(ratio(time(&after)) <= 1.25),
            );
        }

        evil
    }
}

fn median<T: Ord>(values: impl Iterator<Item = T>) -> T {
    let mut values: Vec<T> = values.collect();
    values.sort();
    let middle = values.len() / 2;
    values.swap_remove(middle)
}

/// Records beacons of `hosts` hosts.
fn beacons(evil: &Adversary, hosts: usize) -> Recording {
    let (mut heard, mut from) = (Vec::new(), std::collections::BTreeSet::new());
    until("beacons of all hosts", || {
        for (who, datagram) in evil.hear_from(100) {
            from.insert(who.ip());
            heard.push(datagram);
        }
        from.len() >= hosts
    });
    heard
}

/// Attacks the group and every recent sender of a datagram, until the end.
fn begin(
    evil: Adversary,
    recorded: Recording,
    mut random: fastrand::Rng,
    attack: Attack,
    speed: Speed,
    lasts: Duration,
) -> Beside<Done> {
    Beside::begin(move |over: &AtomicBool| {
        // At full speed, datagrams are prepared in advance: generation would take too long.
        let (least, pool) = match speed {
            Speed::Count(count) => (count, Vec::new()),
            Speed::Full => {
                let all = POOL.max(recorded.len() as u64);
                (
                    all,
                    (0..all)
                        .map(|n| attack(&recorded, n, &mut random))
                        .collect::<Vec<_>>(),
                )
            }
        };
        let (watch, mut speakers) = (Stopwatch::start(), VecDeque::<SocketAddr>::new());
        let (mut sent, mut bytes) = (0, 0);
        while !over.load(Ordering::Relaxed) || sent < least {
            for who in evil.speakers(64) {
                if !speakers.contains(&who) {
                    speakers.push_front(who);
                    speakers.truncate(8);
                }
            }
            for _ in 0..16 {
                let fresh = if pool.is_empty() {
                    attack(&recorded, sent, &mut random)
                } else {
                    Vec::new()
                };
                let datagram = pool
                    .get(sent as usize % pool.len().max(1))
                    .unwrap_or(&fresh);
                match speakers.get(random.usize(..2 * speakers.len() + 1)) {
                    Some(who) => evil.send_to(*who, datagram),
                    None => evil.send(datagram),
                }
                sent += 1;
                bytes += (datagram.len() + HEADERS) as u64;
            }
            if let Speed::Count(count) = speed {
                let due = lasts.mul_f64(sent as f64 / count as f64);
                pause(due.saturating_sub(watch.read()));
            }
        }
        Done {
            evil,
            sent,
            bytes,
            lasted: watch.read(),
        }
    })
}

fn any<'a>(recorded: &'a [Vec<u8>], random: &mut fastrand::Rng) -> &'a Vec<u8> {
    &recorded[random.usize(..recorded.len())]
}

/// Replays the whole recording in order, repeatedly.
fn recorded(recorded: &[Vec<u8>], n: u64, _: &mut fastrand::Rng) -> Vec<u8> {
    recorded[n as usize % recorded.len()].clone()
}

/// Changes a recorded datagram.
fn changed(recorded: &[Vec<u8>], _: u64, random: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = any(recorded, random).clone();
    let at = random.usize(..bytes.len());
    match random.u8(..9) {
        0 => bytes[at] ^= 1 << random.u8(..8),
        1 => (0..8).for_each(|_| bytes[random.usize(..at + 1)] = random.u8(..)),
        2 => bytes.truncate(at),
        3 => bytes.extend(std::iter::repeat_with(|| random.u8(..)).take(at)),
        4 => {
            let other = any(recorded, random);
            bytes.truncate(at);
            bytes.extend(other.iter().skip(at));
        }
        // Another counter, another process, another start of the process.
        5 => bytes[12..20].copy_from_slice(&random.u64(..).to_be_bytes()),
        6 => bytes[4..12].copy_from_slice(&random.u64(..).to_be_bytes()),
        7 => bytes
            .iter_mut()
            .rev()
            .take(4)
            .for_each(|b| *b = random.u8(..)),
        // Marked as not sealed.
        _ => bytes[3] &= 0x7f,
    }

    bytes
}

/// Makes noise of any length; every other datagram begins like a sealed one.
fn random(_: &[Vec<u8>], n: u64, random: &mut fastrand::Rng) -> Vec<u8> {
    let len = random.usize(..if n.is_multiple_of(64) { 9000 } else { FULL });
    noise(len, n.is_multiple_of(2), random)
}

fn noise(len: usize, looks_sealed: bool, random: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = vec![0; len];
    random.fill(&mut bytes);
    if looks_sealed && len > 4 {
        bytes[..4].copy_from_slice(&[b'm', b'k', VERSION, 0x81 + random.u8(..2)]);
    }
    bytes
}

/// Makes the smallest datagrams that a host tries to open.
fn small(_: &[Vec<u8>], _: u64, random: &mut fastrand::Rng) -> Vec<u8> {
    noise(48, true, random)
}

/// Makes full frames.
fn large(_: &[Vec<u8>], _: u64, random: &mut fastrand::Rng) -> Vec<u8> {
    noise(FULL, true, random)
}

/// Makes well-formed questions and beacons without a seal.
fn plain(_: &[Vec<u8>], n: u64, random: &mut fastrand::Rng) -> Vec<u8> {
    let (mut out, bytes) = (Vec::new(), word(n).encode());
    let front = Front {
        source: InstanceId(random.u64(..)),
        counter: n + 1,
    };

    write_fragment(
        &mut out,
        front,
        Fragment {
            message: n as u32,
            index: 0,
            count: 1,
            bytes: &bytes,
        },
    );

    out
}

/// Makes a message of a process to the group.
fn word(n: u64) -> Message {
    let hello = Hello {
        name: HostName::new(&format!("ghost{}", n % 1000)).expect("legal"),
        version: "1.0.0".into(),
        trees: Vec::new(),
        members: u32::MAX,
        heard: None,
        strangers: None,
        nonce: Some(Nonce(n)),
        echoes: None,
        identity: None,
        shown: None,
        labels: None,
    };

    match n % 3 {
        0 => Message::Hello(hello),
        1 => Message::Solicit(Some(Nonce(n)), None),
        _ => Message::Query(Query {
            number: n,
            tree: None,
            serial: None,
            machine: None,
            order: None,
            padding: Vec::new(),
        }),
    }
}

/// All attacks: names, generators and rates.
const ATTACKS: [(&str, Attack, Speed); 7] = [
    ("recordings", recorded, Speed::Full),
    ("processes", recorded, Speed::Full),
    ("changed", changed, Speed::Count(DATAGRAMS)),
    ("random", random, Speed::Count(DATAGRAMS)),
    ("small", small, Speed::Full),
    ("large", large, Speed::Full),
    ("plain", plain, Speed::Full),
];

#[test]
fn deploys_go_on_under_siege() {
    let Some((mut siege, evil)) = Siege::new() else {
        return;
    };

    let only = std::env::var("MAKUO_SIEGE_ONLY").ok();
    // Fills the host's memory of past releases before the measurement.
    siege.deploys(Duration::ZERO);
    let mut calm = siege.calm();
    let (mut evil, recorded) = siege.record(evil);

    for (name, attack, speed) in ATTACKS {
        if only.as_deref().is_some_and(|only| only != name) {
            continue;
        }
        let recording = if name == "processes" {
            siege.past()
        } else {
            recorded.clone()
        };
        evil = siege.bears(name, evil, &calm, recording, attack, speed);
        if siege.lasts.is_some() {
            calm = siege.calm();
        }
    }
}
