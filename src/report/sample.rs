//! Outcomes and events for the tests of this room.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::id::{HostName, Serial, TreeName};
use crate::outcome::Stranger;
use crate::outcome::*;
use crate::units::{ByteSize, Rate};
use crate::wire::seal::OpenError;

const KEY: &str = "SHA256:nThbg6kXUpJWGl7E1IGOCspRomTxdCARLviKw6E5SY8";

/// A stream with a second handle that reads the written bytes.
#[derive(Clone, Default)]
pub struct SharedBuffer(Arc<Mutex<Vec<u8>>>);

impl SharedBuffer {
    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("not poisoned").clone()).expect("UTF-8")
    }
}

impl Write for SharedBuffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0
            .lock()
            .expect("not poisoned")
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Random numbers from the seed in this variable, or a new one; the seed is printed.
pub fn rng(variable: &str) -> fastrand::Rng {
    let seed = std::env::var(variable)
        .map_or_else(|_| fastrand::u64(..), |seed| seed.parse().expect("a seed"));
    println!("{variable}={seed}");
    fastrand::Rng::with_seed(seed)
}

pub fn host(name: &str) -> HostName {
    HostName::new(name).expect("legal")
}

fn tree() -> TreeName {
    TreeName::new("www").expect("legal")
}

fn result(name: &str, state: HostState, serial: u64, error: Option<&str>) -> HostResult {
    let mut result = HostResult {
        serial: (serial > 0).then_some(Serial(serial)),
        error: error.map(str::to_string),
        ..HostResult::new(host(name), state)
    };

    if state == HostState::Committed {
        result.files_written = 3;
        result.files_deleted = 1;
        result.bytes_received = ByteSize(1_204_000);
        result.took = Duration::from_millis(842);
    }

    result
}

fn outcome(purpose: Purpose, hosts: Vec<HostResult>) -> Outcome {
    Outcome {
        serial: Some(Serial(17)),
        fingerprint: Some(KEY.to_string()),
        hosts,
        bytes_release: ByteSize(34_100_000),
        bytes_sent: ByteSize(1_250_000),
        took: Duration::from_millis(1_204),
        ..Outcome::new(purpose, tree())
    }
}

pub fn deployed() -> Outcome {
    let hosts = vec![
        result("web1", HostState::Committed, 17, None),
        result("web2", HostState::Unchanged, 17, None),
        result("web10", HostState::Committed, 17, None),
    ];
    Outcome {
        repaired: 12,
        rate: Some(Rate(487_000_000)),
        ..outcome(Purpose::Deploy, hosts)
    }
    .settle()
}

pub fn refused() -> Outcome {
    let hosts = vec![
        result(
            "web1",
            HostState::Refused,
            16,
            Some("the key is not authorized for tree www"),
        ),
        result("web2", HostState::Aborted, 16, None),
    ];

    Outcome {
        error: Some("1 of 2 hosts refused, all are required".to_string()),
        hint: Some(
            "add the key to the authorized_keys of web1: tree=\"www\",deploy ssh-ed25519 ..."
                .to_string(),
        ),
        ..outcome(Purpose::Deploy, hosts)
    }
    .settle()
}

/// A fleet that refuses for one reason, but for a host that is full and one that is away.
pub fn refused_by_many() -> Outcome {
    let reason = "tree www: the key SHA256:nThbg6k is not authorized";
    let mut hosts: Vec<HostResult> = (1..=40)
        .map(|n| result(&format!("web{n}"), HostState::Refused, 16, Some(reason)))
        .collect();
    hosts[6] = result("web7", HostState::Failed, 16, Some("no space left"));
    hosts[11] = result("web12", HostState::Absent, 0, None);

    Outcome {
        error: Some("38 of 40 hosts refused, all are required".to_string()),
        ..outcome(Purpose::Deploy, hosts)
    }
    .settle()
}

pub fn mixed() -> Outcome {
    let hosts = vec![
        result("web1", HostState::Committed, 17, None),
        result(
            "web2",
            HostState::Failed,
            16,
            Some("no space left on /var/www"),
        ),
        result("web3", HostState::Absent, 0, None),
    ];
    outcome(Purpose::Deploy, hosts).settle()
}

pub fn nobody() -> Outcome {
    Outcome {
        bytes_sent: ByteSize(900),
        ..outcome(Purpose::Deploy, Vec::new())
    }
    .settle()
}

pub fn drifted() -> Outcome {
    let line = |itemized: &str, what, path: &[u8]| DriftLine {
        path: path.to_vec(),
        itemized: itemized.into(),
        what,
    };

    let many = vec![
        line(">f.st......", DriftKind::Content, b"css/site.css"),
        line("cL+++++++++", DriftKind::Missing, b"current"),
        line("*deleting", DriftKind::Extra, b"old\npage.html"),
        line(".f...p.....", DriftKind::Mode, b"run.sh"),
    ];

    let few = vec![line(">f.st......", DriftKind::Content, b"caf\xe9.txt")];
    let hosts = ["web1", "web2", "web3", "web4"]
        .map(|h| result(h, HostState::Diffed, 16, None))
        .to_vec();
    let drift = vec![
        DriftGroup::new(vec![host("web3")], few),
        DriftGroup {
            changed: 122,
            ..DriftGroup::new(vec![host("web1"), host("web2")], many)
        },
    ];

    Outcome {
        drift,
        ..outcome(Purpose::Diff, hosts)
    }
    .settle()
}

pub fn members() -> Vec<MemberInfo> {
    let member = |name: &str, address: &str, trees| MemberInfo {
        host: host(name),
        address: address.parse().expect("legal"),
        version: "0.1.0".to_string(),
        trees,
    };

    let www = MemberTree {
        tree: tree(),
        serial: Some(Serial(17)),
    };

    let docs = MemberTree {
        tree: TreeName::new("docs").expect("legal"),
        serial: None,
    };

    vec![
        member("web1", "10.0.0.2:5000", vec![www.clone(), docs]),
        member("database1", "[fd00::7]:5000", vec![www]),
    ]
}

pub fn around() -> Survey<Vec<MemberInfo>> {
    let stranger = |address: &str, kind| Stranger {
        address: address.parse().expect("legal"),
        kind,
    };

    let strangers = vec![
        stranger("10.0.0.9", OpenError::Plain),
        stranger("fd00::9", OpenError::Wrong),
    ];
    Survey {
        found: members(),
        strangers,
        silence: None,
    }
}

pub fn events() -> Vec<Event> {
    let change = |name: &str, state| {
        Event::Host(HostChange {
            host: host(name),
            address: None,
            state,
            error: None,
        })
    };

    let progress = |sent, ready| {
        Event::Progress(ProgressReport {
            phase: SessionPhase::Sending,
            sent: ByteSize(sent),
            total: ByteSize(1_204_000),
            rate: Rate(487_000_000),
            measured: None,
            left: None,
            elapsed: Duration::from_millis(100),
            repaired: 0,
            ready,
            targets: 3,
            waiting: 0,
            pending: Vec::new(),
        })
    };

    let line = DriftLine {
        path: b"css/site.css".to_vec(),
        itemized: ">f.st......".to_string(),
        what: DriftKind::Content,
    };

    let bytes = ByteSize(34_100_000);
    let hashed = ByteSize(2_000_000);
    vec![
        Event::Scanned(ScanSummary {
            entries: 1204,
            bytes,
            hashed,
            took: Duration::from_millis(310),
        }),
        Event::Released(MadeRelease {
            tree: tree(),
            serial: Serial(17),
            fingerprint: KEY.to_string(),
            rollback_to: None,
        }),
        Event::Member(members().remove(0)),
        change("web1", HostState::Joined),
        change("web2", HostState::Unchanged),
        Event::Change(PathDifference {
            hosts: vec![host("web1").into(), host("web10").into()],
            line,
        }),
        progress(130_000, 1),
        progress(131_000, 1),
        Event::Note("web10 is slow and will be served after the others".to_string()),
        progress(1_204_000, 3),
        change("web1", HostState::Committed),
    ]
}
