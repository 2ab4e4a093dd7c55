//! Tests of the wording of progress.

use super::*;
use crate::id::{HostName, NamedHost};
use crate::report::sample;
use crate::units::{ByteSize, Rate};

/// Progress of a session that sends to five hosts.
pub fn sample() -> ProgressReport {
    ProgressReport {
        phase: SessionPhase::Sending,
        sent: ByteSize(133_000_000),
        total: ByteSize(256_000_000),
        rate: Rate(500_000_000),
        measured: Some(Rate(412_000_000)),
        left: Some(Duration::from_millis(2_400)),
        elapsed: Duration::from_secs(12),
        repaired: 341,
        ready: 3,
        targets: 5,
        waiting: 2,
        pending: vec![
            pending("web3", HostState::Staging, Some(61), 0),
            pending("database10", HostState::Joined, None, 12),
        ],
    }
}

fn pending(name: &str, state: HostState, percent: Option<u8>, since: u64) -> PendingHost {
    PendingHost {
        host: NamedHost::from(HostName::new(name).expect("legal")),
        state,
        percent,
        since: Duration::from_secs(since),
        why: None,
    }
}

fn many(count: usize) -> ProgressReport {
    let names = (1..=count.min(8)).map(|n| format!("web{n}"));
    ProgressReport {
        ready: 0,
        targets: count,
        waiting: count,
        pending: names
            .map(|name| pending(&name, HostState::Staging, Some(7), 0))
            .collect(),
        ..sample()
    }
}

const SIZES: [(usize, usize); 4] = [(160, 50), (80, 24), (40, 24), (20, 6)];

#[test]
fn rows_of_a_session_that_sends() {
    let shown = SIZES.map(|(columns, height)| {
        let size = Size {
            columns,
            rows: height,
        };
        format!("{columns}x{height}\n{}\n", rows(&sample(), size).join("\n"))
    });
    insta::assert_snapshot!(shown.join("\n"));
}

#[test]
fn rows_of_each_phase() {
    let (batch, of) = (2, 3);
    let entries = 12_345;
    let bytes = ByteSize(1_200_000_000);
    let checking = PendingHost {
        why: Some("exit status 22\nmore".to_string()),
        ..pending("web3", HostState::Checking, None, 8)
    };
    let phases = [
        SessionPhase::Scanning { entries: 0, bytes },
        SessionPhase::Scanning { entries, bytes },
        SessionPhase::Discovering,
        SessionPhase::Comparing,
        SessionPhase::Sending,
        SessionPhase::Staging,
        SessionPhase::Preparing,
        SessionPhase::Committing { batch: 1, of: 1 },
        SessionPhase::Committing { batch, of },
        SessionPhase::Checking { batch, of },
        SessionPhase::Reverting,
        SessionPhase::Aborting,
        SessionPhase::Publishing,
    ];
    let size = Size {
        columns: 78,
        rows: 24,
    };
    let shown = phases.map(|phase| {
        let progress = ProgressReport {
            phase,
            waiting: 1,
            pending: vec![checking.clone()],
            ..sample()
        };
        format!(
            "{}\n{}\n",
            rows(&progress, size).join("\n"),
            line(&progress)
        )
    });
    insta::assert_snapshot!(shown.join("\n"));
}

#[test]
fn many_hosts_take_few_rows() {
    for count in [1, 5, 6, 50, 500] {
        for (columns, height) in SIZES {
            let size = Size {
                columns,
                rows: height,
            };
            let rows = rows(&many(count), size);
            assert!(rows.len() <= 7 && rows.len() <= height, "{rows:?}");
        }
    }
    insta::assert_snapshot!(
        rows(
            &many(500),
            Size {
                columns: 80,
                rows: 24
            }
        )
        .join("\n")
    );
}

#[test]
fn no_row_is_wider_than_the_terminal() {
    let mut rng = sample::rng("MAKUO_FRAMES_SEED");

    for _ in 0..2_000 {
        let mut progress = many(rng.usize(0..600));
        progress.sent = ByteSize(rng.u64(..));
        progress.total = ByteSize(rng.u64(..));
        progress.left = rng.bool().then(|| Duration::from_nanos(rng.u64(..)));
        progress.elapsed = Duration::from_nanos(rng.u64(..));
        progress.repaired = rng.u64(..);
        for host in &mut progress.pending {
            host.why = Some("größe 大きさ ".repeat(rng.usize(0..20)));
            host.percent = rng.bool().then(|| rng.u8(0..=100));
        }
        let size = Size {
            columns: rng.usize(1..200),
            rows: rng.usize(1..60),
        };

        for row in rows(&progress, size) {
            assert!(width(&row) <= size.columns, "{size:?}: {row:?}");
            assert!(!row.contains(char::is_control), "{row:?}");
        }
        assert!(!line(&progress).contains('\n'));
    }
}
