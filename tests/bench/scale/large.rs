//! The case of one large file: memory must not grow with its size.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use super::measure::{self, peak};
use super::place::Ground;
use crate::network::fabric::Line;
use crate::network::fleet::Fleet;
use crate::network::job::{Done, MAKUO};
use crate::network::row::{Check, Row};
use crate::network::trouble::Trouble;
use crate::network::{Settings, say};
use crate::support::Noise;

/// Fills the sender's repair buffer and the host's queue to the disk: a smaller file would not
/// allow a fair comparison.
const SMALL: u64 = 100_000_000;
const MIDDLE: u64 = 1_000_000_000;
const LARGE: u64 = 10_000_000_000;
/// Bytes generated at once.
const PIECE: u64 = 8 << 20;
const LIMIT: Duration = Duration::from_secs(3600);
/// Largest allowed memory, relative to the small file.
const MOST: f64 = 1.10;

/// Seconds, and megabytes of the sender and the host.
type Figures = (f64, f64, f64);

pub fn large(ground: &Ground, _: Settings) -> Vec<Row> {
    // The source, the tree, and space for writes.
    let small = once(ground, SMALL);
    let mut rows = vec![row("one file of 100 MB", &small)];
    for (name, bytes) in [("one file of 1 GB", MIDDLE), ("one file of 10 GB", LARGE)] {
        let large = ground
            .needs(bytes * 2 + bytes / 4)
            .and_then(|()| once(ground, bytes));
        let mut row = row(name, &large);
        if let (Ok(small), Ok(large)) = (&small, large) {
            row.require(Some(Check::under(
                "sender's MB over 100 MB's",
                large.1 / small.1,
                MOST,
            )));
            row.require(Some(Check::under(
                "host's MB over 100 MB's",
                large.2 / small.2,
                MOST,
            )));
        }
        rows.push(row);
    }

    rows
}

fn once(ground: &Ground, bytes: u64) -> Result<Figures, Trouble> {
    let spot = ground.on_disk()?;
    let source = spot.path().join("source");
    std::fs::create_dir(&source)?;
    make(&source.join("image.bin"), bytes)?;
    let fleet = Fleet::at(spot.path().to_path_buf(), 1, Line::default())?;
    let cost = measure::makuo(&fleet, "deploy", &source, LIMIT)?;
    let peak = peak(&fleet.hosts[0])?;
    fleet.check(&source)?;
    say(&format!(
        "large: {} MB: {:.1} s, sender {:.1} MB, host {peak:.1} MB",
        bytes / 1_000_000,
        cost.seconds,
        cost.resident
    ));

    Ok((cost.seconds, cost.resident, peak))
}

fn row(what: &str, figures: &Result<Figures, Trouble>) -> Row {
    let (seconds, trouble) = match figures {
        Ok((seconds, ..)) => (vec![*seconds], None),
        Err(trouble) => (Vec::new(), Some(trouble.clone())),
    };

    let done = Done {
        tool: MAKUO,
        seconds,
        sent: Vec::new(),
        passed_on: Vec::new(),
        trouble,
    };

    let mut row = Row::new("large", what, 1, &done, 1, None);
    if let Ok((_, sender, host)) = figures {
        row.what += &format!(", {sender:.1} + {host:.1} MB resident");
    }

    row
}

/// Makes a file of distinct pieces: each begins with its number.
fn make(path: &Path, bytes: u64) -> Result<(), Trouble> {
    let mut file = File::create(path)?;
    let mut noise = Noise::new(15);
    let mut left = bytes;
    while left > 0 {
        let len = left.min(PIECE);
        file.write_all(&noise.bytes(len as usize))?;
        left -= len;
    }

    file.sync_all()?;
    Ok(())
}
