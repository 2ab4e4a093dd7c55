//! Headers come back, fit a datagram, and are refused beyond their caps.

use super::*;
use crate::block::BlockRef;
use crate::manifest::{Mode, Owner, Xattr};

pub(crate) fn a_header() -> Header {
    Header {
        format: FORMAT,
        tree: TreeName::new("www").expect("legal"),
        serial: Serial(12),
        created: WallTime(1_763_697_540),
        expires: None,
        intent: Intent::Deploy,
        scope: Vec::new(),
        targets: vec!["web*".into()],
        root: NodeRef {
            block: BlockRef::of(b"page"),
            nodes: 1,
            blocks: 3,
            entries: 4,
            bytes: 5,
        },
        rules: Rules::default(),
        top: None,
        again: None,
        session: None,
        sender: None,
        checksum: None,
        quick: None,
        message: None,
        paused: None,
    }
}

#[test]
fn a_header_comes_back_and_fits_a_datagram() {
    let release = Release::new(a_header()).expect("legal");
    assert!(release.bytes().len() < 300, "{}", release.bytes().len());
    let back = Release::from_bytes(release.bytes()).expect("legal");
    assert_eq!((back.header(), back.id()), (release.header(), release.id()));
    assert_eq!(release.to_string(), "www@12");
}

#[test]
fn the_top_is_signed_and_headers_without_it_are_read() {
    let xattrs = vec![Xattr {
        name: b"user.x".to_vec(),
        value: vec![0; 100],
    }];
    let owner = Owner {
        uid: 33,
        gid: 33,
        user: Some("www-data".into()),
        group: Some("www-data".into()),
    };

    let mtime = Mtime {
        secs: 1_763_697_540,
        nanos: 1,
    };

    let top = Top {
        mode: Mode::from_bits(0o2755),
        owner,
        mtime,
        xattrs,
    };

    let with = Release::new(Header {
        top: Some(top.clone()),
        ..a_header()
    })
    .expect("legal");

    assert_eq!(
        Release::from_bytes(with.bytes())
            .expect("legal")
            .header()
            .top,
        Some(top.clone())
    );

    let without = Release::new(a_header()).expect("legal");
    assert_ne!(with.id(), without.id());
    assert_eq!(
        without.bytes()[0],
        0x8a,
        "ten fields, as before there was an eleventh"
    );

    assert_eq!(Header::decode(without.bytes()).expect("legal").top, None);

    let late = Mtime {
        secs: 0,
        nanos: 1_000_000_000,
    };

    let big = vec![Xattr {
        name: b"user.x".to_vec(),
        value: vec![0; 17 << 10],
    }];
    let long = Owner {
        user: Some("x".repeat(256).into()),
        ..top.owner.clone()
    };

    for illegal in [
        Top {
            mtime: late,
            ..top.clone()
        },
        Top {
            xattrs: big,
            ..top.clone()
        },
        Top { owner: long, ..top },
    ] {
        let header = Header {
            top: Some(illegal),
            ..a_header()
        };
        assert!(matches!(
            Header::decode(&header.encode()),
            Err(HeaderError::Illegal(_))
        ));
    }
}

#[test]
fn a_newer_format_is_refused_as_such() {
    let bytes = Header {
        format: 7,
        ..a_header()
    }
    .encode();
    assert_eq!(Header::decode(&bytes), Err(HeaderError::Format(7)));
}

#[test]
fn absurd_totals_are_refused() {
    let mut header = a_header();
    header.root.entries = 1 << 60;
    assert!(matches!(
        Header::decode(&header.encode()),
        Err(HeaderError::Illegal(_))
    ));
    header = a_header();
    header.root.blocks = u64::MAX;

    assert!(matches!(
        Header::decode(&header.encode()),
        Err(HeaderError::Illegal(_))
    ));
}

#[test]
fn batches_with_pauses_are_signed_and_bounded() {
    let paused = |batches: usize, len: usize| {
        let header = Header {
            paused: Some(PausedCommit {
                batches: vec!["1".repeat(len); batches],
                require: "all".into(),
                revert: true,
                hosts: Some(5),
            }),
            ..a_header()
        };
        Header::decode(&header.encode()).map(|read| read == header)
    };

    assert_eq!(paused(64, 255), Ok(true));
    assert!(matches!(paused(65, 1), Err(HeaderError::Illegal(_))));
    assert!(matches!(paused(1, 256), Err(HeaderError::Illegal(_))));
}
