//! Tests of admission: repeated audits, and floods of unsigned offers.

use std::path::Path;
use std::sync::Mutex;
use std::sync::mpsc::channel;

use super::super::disk::Disk;
use super::super::managed::open_tree;
use super::*;
use crate::config::TreeConfig;
use crate::id::{HostName, Serial};
use crate::keys::AuthorizedKeys;
use crate::manifest::Header;
use crate::manifest::header::tests::a_header;
use crate::net::Poller;
use crate::proto::receiver::{DiskRequest, ScanMode};

fn release(serial: u64, intent: Intent, created: i64) -> Release {
    let header = Header {
        serial: Serial(serial),
        intent,
        created: WallTime(created),
        ..a_header()
    };
    Release::new(header).expect("legal")
}

#[test]
fn a_comparison_is_made_once_and_remembered_for_as_long_as_it_would_be_answered() {
    let mut audits = Audits::default();
    let now = WallTime(1_000_000);
    let audit = release(1, Intent::Audit, now.0);
    assert!(audits.check(&audit, now).is_ok());
    audits.admitted(&audit);
    assert!(
        audits
            .check(&audit, now)
            .is_err_and(|denied| !denied.proven)
    );

    assert!(
        audits
            .check(&release(1, Intent::Audit, now.0 + 1), now)
            .is_ok(),
        "another question"
    );

    let deploy = release(2, Intent::Deploy, now.0);
    audits.admitted(&deploy);
    assert!(audits.check(&deploy, now).is_ok(), "serials see to it");
}

#[test]
fn the_memory_of_comparisons_is_bounded_and_makes_room_again() {
    let mut audits = Audits::default();
    let now = WallTime(1_000_000);
    let next = |n: usize, at: i64| release(n as u64, Intent::Audit, at);
    for n in 0..MAX_AUDITS + 10 {
        let audit = next(n, now.0);
        if audits.check(&audit, now).is_ok() {
            audits.admitted(&audit);
        }
    }

    assert_eq!(audits.made.len(), MAX_AUDITS);
    let later = WallTime(now.0 + 3601);
    let audit = next(0, later.0);
    assert!(audits.check(&audit, later).is_ok());
    audits.admitted(&audit);

    assert_eq!(audits.made.len(), 1);
}

/// Counts the threads of this process that work for trees or sessions.
fn workers() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task")
        .expect("a process")
        .flatten();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names
        .filter(|name| name.starts_with("session") || name.starts_with("tree "))
        .count()
}

#[test]
fn offers_that_nobody_signed_take_no_thread_while_their_tree_is_busy() {
    const OFFERS: u64 = 3000;
    let dir = tempfile::tempdir().expect("a directory");
    let name = TreeName::new("www").expect("legal");
    let path = dir.path().join("www");
    std::fs::create_dir(&path).expect("new");
    let managed = open_tree(&TreeConfig::new(name.clone(), path), None).expect("opens");
    let host = LocalHost {
        name: HostName::new("web1").expect("legal"),
        trees: [(name.clone(), managed)].into_iter().collect(),
        keys: Mutex::new(Arc::new(AuthorizedKeys::none(Path::new("authorized_keys")))),
        labels: Mutex::default(),
        own_key: Default::default(),
        figures: Default::default(),
    };

    let (reply_to, replies) = channel();
    let waker = Poller::new().expect("a poller").waker();
    let mut disk = Disk::new(Arc::new(host), reply_to, waker).expect("starts");
    let (hold, held) = channel::<()>();
    assert!(disk.after_others(
        &name,
        Box::new(move |_, _, _| assert!(held.recv().is_err()))
    ));

    let before = workers();
    let mut most = 0;

    for session in 0..OFFERS {
        let release = release(session + 1, Intent::Deploy, 1_000_000);
        let look = ScanMode::default();
        let signature = Arc::from(vec![b'x'; 83]);
        let sender = HostName::new("evil").expect("legal");
        let offer = OfferedRelease {
            staged: false,
            release,
            signature,
            look,
            sender,
            grant: None,
        };
        disk.request(DiskRequest::Open(SessionId(session), offer));
        most = most.max(workers());
    }

    let refused = replies.iter().take(OFFERS as usize);
    let refused = refused
        .filter(|r| matches!(r, DiskReply::Opened(_, Err(denied)) if !denied.proven))
        .count();
    assert_eq!(refused as u64, OFFERS, "each has its answer");

    // Other tests of this process have trees as well.
    assert!(
        most < before + 64,
        "{before} threads before, {most} at most"
    );

    drop(hold);
}
