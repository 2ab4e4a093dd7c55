//! Queries and answers come back; caps hold, and text from a host is made printable.

use proptest::prelude::*;

use super::super::Message;
use super::super::machine::*;
use super::*;
use crate::manifest::paused::MAX_BATCHES;

fn release(serial: u64) -> ReleaseReport {
    ReleaseReport {
        serial: Serial(serial),
        id: ReleaseId(BlockHash::of(&serial.to_be_bytes())),
        created: WallTime(1_801_418_400),
        key: Some("SHA256:nThbg6kXUpJWGl7E1IGOCspRomTxdCARLviKw6E5SY8".to_string()),
        entries: serial,
        bytes: serial << 20,
        running: serial == 7,
        content: (serial > 2).then(|| BlockHash::of(b"content")),
        part: serial % 2 == 1,
        message: ReleaseMessage::new("fix css").ok().filter(|_| serial > 4),
        pinned: serial == 3,
    }
}

fn tell(trees: Vec<TreeReport>, release: Option<ReleaseBytes>) -> Message {
    Message::Answer(QueryAnswer {
        number: 9,
        host: HostName::new("web1").expect("legal"),
        trees,
        release,
        labels: Some(Labels::parse_known("zone=a")),
        machine: None,
        followed: None,
        refusal: None,
    })
}

fn tree(text: &str, releases: u64) -> TreeReport {
    let shown = (releases > 3).then(|| ReleaseBytes {
        header: vec![1; 300],
        signature: vec![2; 90],
    });

    TreeReport {
        shown,
        tree: TreeName::new("www").expect("legal"),
        running: Some(Serial(7)),
        highest: Serial(8),
        work: Some(TreeActivity {
            word: "staging".into(),
            serial: Serial(9),
            sender: HostName::new("ci").expect("legal"),
            fetch: (releases > 1).then_some(FetchProgress { total: 9, left: 2 }),
        }),
        trouble: Some(Trouble {
            serial: Serial(8),
            age: 60,
            text: text.to_string(),
        }),
        releases: (0..releases).map(release).collect(),
        stale: (releases > 1).then_some(Stale {
            age: 90,
            max_age: 60,
        }),
        drifted: (releases > 2).then_some(Drifted {
            looks: 9,
            drifted: 2,
            repaired: 1,
            paths: Some(3),
        }),
        release: (releases > 1).then(|| release(7).id),
        tombstones: Some(vec![Tombstone {
            serial: Serial(8),
            release: release(8).id,
            revert: true,
        }]),
        sent: (releases > 3).then_some(Serial(9)),
        message: ReleaseMessage::new("fix css").ok().filter(|_| releases > 5),
        parts_only: releases == 4,
        parts: (releases > 6).then(|| {
            vec![PartRelease {
                serial: Serial(4),
                replaced: true,
            }]
        }),
        staged: None,
        held: None,
        unhealthy: Some(true).filter(|_| releases > 1),
        repository: (releases > 1).then(|| RepositoryTrouble {
            age: 9,
            text: text.to_string(),
        }),
        targets: (releases > 5).then(|| vec!["web*".to_string()]),
        base: (releases > 4).then(|| FullRelease {
            serial: Serial(3),
            content: BlockHash::of(b"whole"),
        }),
    }
}

proptest! {
    #[test]
    fn questions_come_back(
        number: u64,
        named: bool,
        serial in proptest::option::of(any::<u64>()),
    ) {
        let tree = named.then(|| TreeName::new("www").expect("legal"));
        let (serial, machine) = (serial.map(Serial), named.then_some(true));
        let padding = vec![0; if named { MAX_QUERY_PADDING } else { 0 }];
        let ask = Message::Query(Query { number, tree, serial, machine, order: None, padding });
        prop_assert_eq!(Message::decode(&ask.encode()), Ok(ask));
    }

    #[test]
    fn answers_come_back(
        text in "[a-z ]{0,200}",
        releases in 0..=MAX_ANSWER_RELEASES as u64,
        bytes in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..500)),
    ) {
        let bytes = bytes.map(|header| ReleaseBytes { signature: header.clone(), header });
        let told = tell(vec![tree(&text, releases), tree("", 0)], bytes);
        prop_assert_eq!(Message::decode(&told.encode()), Ok(told));
    }

    #[test]
    fn a_broken_answer_is_refused_without_panic(
        cut in 0..400usize,
        at in 0..400usize,
        byte: u8,
    ) {
        let mut bytes = tell(vec![tree("why", 3)], None).encode();
        bytes.truncate(bytes.len().saturating_sub(cut));
        if let Some(b) = bytes.get_mut(at) {
            *b = byte;
        }
        let _ = Message::decode(&bytes);
    }
}

#[test]
fn what_is_beyond_a_cap_is_refused() {
    let many = vec![tree("", 0); MAX_MESSAGE_TREES + 1];
    assert!(Message::decode(&tell(many, None).encode()).is_err());
    assert!(
        Message::decode(&tell(vec![tree("", MAX_ANSWER_RELEASES as u64 + 1)], None).encode())
            .is_err()
    );
    let long = ReleaseBytes {
        header: vec![0; MAX_HEADER_BYTES + 1],
        signature: Vec::new(),
    };

    assert!(Message::decode(&tell(Vec::new(), Some(long)).encode()).is_err());
    let largest = ReleaseBytes {
        header: vec![0; MAX_HEADER_BYTES],
        signature: vec![0; MAX_SIGNATURE_FIELD],
    };

    assert!(Message::decode(&tell(Vec::new(), Some(largest)).encode()).is_ok());

    let paused = |batches: usize| {
        let staged = StagedReport {
            serial: Serial(7),
            id: release(7).id,
            age: 1,
            left: None,
            paused: Some(PausedCommit {
                batches: vec!["1".into(); batches],
                require: "all".into(),
                revert: false,
                hosts: None,
            }),
        };
        let report = TreeReport {
            staged: Some(staged),
            ..tree("", 0)
        };
        Message::decode(&tell(vec![report], None).encode())
    };
    assert!(paused(MAX_BATCHES).is_ok());
    assert!(paused(MAX_BATCHES + 1).is_err());
}

#[test]
fn what_a_host_says_cannot_drive_a_terminal() {
    let mut evil = tree("no\x1b[31m way", 1);
    evil.work
        .iter_mut()
        .for_each(|w| w.word = "\x1b[2J".to_string());
    evil.releases[0].key = Some("\x07".to_string());
    let Ok(Message::Answer(back)) = Message::decode(&tell(vec![evil], None).encode()) else {
        panic!("decodes")
    };

    let tree = &back.trees[0];
    assert_eq!(
        tree.trouble.as_ref().map(|t| t.text.as_str()),
        Some("no\\u{1b}[31m way")
    );
    assert_eq!(
        tree.work.as_ref().map(|w| w.word.as_str()),
        Some("\\u{1b}[2J")
    );

    assert_eq!(tree.releases[0].key.as_deref(), Some("\\u{7}"));
}

fn machine(text: &str, links: usize, trees: usize) -> MachineReport {
    let link = LinkReport {
        interface: text.to_string(),
        mtu: 1500,
        recv_buffer: 16 << 20,
        port: 5001,
        multicast: true,
    };
    let place = TreePlace {
        tree: TreeName::new("www").expect("legal"),
        warning: Some(text.to_string()),
        filesystem: text.to_string(),
        free: 1,
        size: 2,
        free_inodes: None,
        read_only: false,
        exchange: Some(true),
        reflink: None,
    };

    MachineReport {
        clock: 1,
        links: vec![link; links],
        recv_limit: Some(212_992),
        keys: 1,
        trees: vec![place; trees],
    }
}

fn told(machine: MachineReport) -> Result<MachineReport, String> {
    let answer = Message::Answer(QueryAnswer {
        number: 9,
        host: HostName::new("web1").expect("legal"),
        trees: Vec::new(),
        release: None,
        labels: None,
        machine: Some(machine),
        followed: None,
        refusal: None,
    });
    match Message::decode(&answer.encode())? {
        Message::Answer(answer) => answer.machine.ok_or_else(|| "no machine".to_string()),
        other => Err(format!("{other:?}")),
    }
}

#[test]
fn a_machine_comes_back_within_its_caps_and_with_printable_names() {
    let whole = machine("eth0", MAX_REPORT_LINKS, MAX_REPORT_TREES);
    assert_eq!(told(whole.clone()), Ok(whole));
    assert!(told(machine("eth0", MAX_REPORT_LINKS + 1, 1)).is_err());
    assert!(told(machine("eth0", 1, MAX_REPORT_TREES + 1)).is_err());

    let evil = told(machine(&"\x1b".repeat(5_000), 1, 1)).expect("decodes");
    let shown = [
        &evil.links[0].interface,
        &evil.trees[0].filesystem,
        evil.trees[0].warning.as_ref().expect("kept"),
    ];
    for text in shown {
        let is_short = text.len() <= MAX_REPORT_WARNING * "\\u{1b}".len();
        assert!(is_short && !text.contains('\x1b'), "{text}");
    }
}

/// Answers of a makuo that does not know machines.
#[derive(Debug, PartialEq, Decode)]
struct EarlierQuery {
    #[n(0)]
    number: u64,
    #[n(1)]
    tree: Option<TreeName>,
    #[n(2)]
    serial: Option<Serial>,
}

#[test]
fn an_older_makuo_reads_a_question_about_the_machine() {
    #[derive(Debug, PartialEq, Decode)]
    enum Earlier {
        #[n(14)]
        Query(#[n(0)] EarlierQuery),
    }

    let ask = Message::Query(Query {
        number: 7,
        tree: None,
        serial: None,
        machine: Some(true),
        order: None,
        padding: Vec::new(),
    });
    let earlier = EarlierQuery {
        number: 7,
        tree: None,
        serial: None,
    };
    let read = minicbor::decode::<Earlier>(&ask.encode()).ok();
    assert_eq!(read, Some(Earlier::Query(earlier)));
}
