//! The case of a first deployment of many small files, compared with a copy on the same disk.

use std::path::Path;
use std::process::Command;

use super::place::Ground;
use crate::network::fabric::Line;
use crate::network::fleet::Fleet;
use crate::network::job::{Done, LIMIT, MAKUO};
use crate::network::material::small_name;
use crate::network::row::{Check, Row, median};
use crate::network::trouble::Trouble;
use crate::network::{Settings, say, timed};
use crate::support::run::try_tool;
use crate::support::{Noise, write};

const FILES: usize = 10_000;
const SIZE: usize = 8192;
/// Largest allowed time, relative to a copy.
const MOST: f64 = 2.0;

pub fn first(ground: &Ground, settings: Settings) -> Vec<Row> {
    let (mut copies, mut deploys) = (Vec::new(), Vec::new());
    let trouble = measure(ground, settings, &mut copies, &mut deploys).err();
    let row = |what: &str, tool, seconds: &[f64], trouble: Option<Trouble>| {
        let done = Done {
            tool: MAKUO,
            seconds: seconds.to_vec(),
            sent: Vec::new(),
            passed_on: Vec::new(),
            trouble,
        };
        let mut row = Row::new("first", what, 1, &done, 1, None);
        row.tool = tool;
        row
    };

    let mut makuo = row("10000 files of 8 KB", "makuo", &deploys, trouble);
    let ratio = median(&deploys)
        .zip(median(&copies))
        .map(|(deploy, copy)| deploy / copy);
    makuo.require(ratio.map(|ratio| Check::under("time over the copy", ratio, MOST)));

    vec![row("the same", "cp -a; sync", &copies, None), makuo]
}

fn measure(
    ground: &Ground,
    settings: Settings,
    copies: &mut Vec<f64>,
    deploys: &mut Vec<f64>,
) -> Result<(), Trouble> {
    let spot = ground.on_disk()?;
    let source = spot.path().join("source");
    let mut noise = Noise::new(11);
    for number in 0..FILES {
        write(&source.join(small_name(number)), noise.bytes(SIZE));
    }

    for run in 1..=settings.runs {
        let copy = spot.path().join("copy");
        sync(spot.path())?;
        let watch = timed::stopwatch();
        try_tool(Command::new("cp").arg("-a").arg(&source).arg(&copy))?;
        sync(spot.path())?;
        copies.push(watch());
        std::fs::remove_dir_all(&copy)?;

        let home = spot.path().join("fleet");
        std::fs::create_dir(&home)?;
        let fleet = Fleet::at(home.clone(), 1, Line::default())?;
        sync(spot.path())?;
        deploys.push(fleet.deploy(&source, "", &[], LIMIT)?.seconds);
        fleet.check(&source)?;
        drop(fleet);
        std::fs::remove_dir_all(&home)?;
        say(&format!(
            "first, run {run}: cp {:.3} s, makuo {:.3} s",
            copies[run - 1],
            deploys[run - 1]
        ));
    }

    Ok(())
}

/// Flushes earlier writes, so that no tool pays for them.
fn sync(dir: &Path) -> Result<(), Trouble> {
    try_tool(Command::new("sync").arg("-f").arg(dir))?;
    Ok(())
}
