//! The case of a tree with a million small files: the cost of a deployment with no change, or with
//! one changed file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::measure::{self, Cost, middle, peak};
use super::place::{Ground, Spot};
use crate::network::fabric::Line;
use crate::network::fleet::Fleet;
use crate::network::job::{Done, MAKUO};
use crate::network::row::{Check, Row};
use crate::network::trouble::Trouble;
use crate::network::{Settings, say};
use crate::support::append;

/// Directories of the tree.
const DIRECTORIES: usize = 1000;
/// Time limit of the first deployment and of each later one.
const LIMIT: Duration = Duration::from_secs(3600);
/// Largest allowed processor time, relative to the walk.
const CPU: f64 = 1.5;
/// Largest number of bytes sent without a change, and with one changed file.
const SENT_NOTHING: f64 = 20e3;
const SENT_ONE: f64 = 300e3;
/// Largest time with one changed file, relative to the time without a change.
const LATER: f64 = 1.10;
/// Largest resident memory in megabytes.
const RESIDENT: f64 = 200.0;

/// The tree, and a host with a copy.
struct Stage {
    fleet: Fleet,
    source: PathBuf,
    first: Option<(Cost, f64)>,
    // Dropped after the fleet, which uses the directory.
    _spot: Spot,
}

/// Costs of repeated runs, and the reason for missing ones.
#[derive(Default)]
struct Series {
    costs: Vec<Cost>,
    trouble: Option<Trouble>,
}

pub fn million(ground: &Ground, settings: Settings) -> Vec<Row> {
    let mut stage = match Stage::set(ground) {
        Ok(stage) => stage,
        Err(trouble) => return vec![Series::failed(trouble).row("first deploy")],
    };

    let mut rows: Vec<Row> = stage
        .first
        .take()
        .map(|(cost, peak)| first_row(cost, peak))
        .into_iter()
        .collect();

    // Resets the memory peak of the first deployment.
    stage.fleet.hosts[0].restart();
    let (mut walks, mut deploys, mut diffs, mut changes) =
        <(Series, Series, Series, Series)>::default();

    // The first no-op warms the caches of both ends and does not count.
    let _ = stage.makuo("deploy");
    for run in 1..=settings.runs {
        walks.add("walk", run, || measure::walk(&stage.source));
        deploys.add("no-op deploy", run, || stage.makuo("deploy"));
        diffs.add("no-op diff", run, || stage.makuo("diff"));
        changes.add("one change", run, || {
            append(
                &stage.source.join(name(ground.files / 2, ground.files)),
                b"one line more\n",
            );
            stage.makuo("deploy")
        });
    }

    let walk = middle(&walks.costs, |c| c.cpu);
    let noop = middle(&deploys.costs, |c| c.seconds);
    rows.push(walks.row("walk with lstat"));
    rows.push(nothing(deploys, "no-op deploy", walk));
    rows.push(nothing(diffs, "no-op diff", walk));
    rows.push(one_change(changes, noop));

    if let (Some(row), Ok(peak)) = (rows.last_mut(), peak(&stage.fleet.hosts[0])) {
        row.require(Some(Check::under(
            "host's MB, no-ops and changes",
            peak,
            RESIDENT,
        )));
    }

    rows
}

impl Stage {
    fn set(ground: &Ground) -> Result<Self, Trouble> {
        let spot = ground.roomy()?;
        let source = spot.path().join("source");
        make(&source, ground.files)?;
        let fleet = Fleet::at(spot.path().to_path_buf(), 1, Line::default())?;
        let mut stage = Self {
            fleet,
            source,
            first: None,
            _spot: spot,
        };

        let cost = stage.makuo("deploy")?;
        stage.fleet.check(&stage.source)?;
        stage.first = Some((cost, peak(&stage.fleet.hosts[0])?));

        Ok(stage)
    }

    fn makuo(&self, verb: &str) -> Result<Cost, Trouble> {
        measure::makuo(&self.fleet, verb, &self.source, LIMIT)
    }
}

impl Series {
    fn failed(trouble: Trouble) -> Self {
        Self {
            costs: Vec::new(),
            trouble: Some(trouble),
        }
    }

    fn add(&mut self, what: &str, run: usize, measure: impl FnOnce() -> Result<Cost, Trouble>) {
        if self.trouble.is_some() {
            return;
        }

        match measure() {
            Ok(cost) => {
                say(&format!("million: {what}, run {run}: {cost:?}"));
                self.costs.push(cost);
            }
            Err(trouble) => {
                say(&format!("million: {what}, run {run}: {}", trouble.text()));
                self.trouble = Some(trouble);
            }
        }
    }

    fn row(&self, what: &str) -> Row {
        let seconds = self.costs.iter().map(|c| c.seconds).collect();
        let done = Done {
            tool: MAKUO,
            seconds,
            sent: Vec::new(),
            passed_on: Vec::new(),
            trouble: self.trouble.clone(),
        };

        let cpu = middle(&self.costs, |c| c.cpu).unwrap_or(0.0);
        let mut row = Row::new(
            "million",
            &format!("{what}, CPU {cpu:.2} s"),
            1,
            &done,
            1,
            None,
        );

        if what.starts_with("walk") {
            row.tool = "walk";
        }

        row
    }
}

fn first_row(cost: Cost, peak: f64) -> Row {
    let (sender, host) = (cost.cpu, cost.host_cpu);
    let mut row = Series {
        costs: vec![cost.clone()],
        trouble: None,
    }
    .row("first or kept deploy");
    row.what += &format!(" + {host:.2} s, {:.2} s in all", sender + host);
    row.require(Some(Check::under("sender's MB", cost.resident, RESIDENT)));
    row.require(Some(Check::under("host's MB", peak, RESIDENT)));

    row
}

fn nothing(series: Series, what: &str, walk: Option<f64>) -> Row {
    let mut row = series.row(what);
    let scan = middle(&series.costs, |c| c.scan).unwrap_or(0.0);
    row.what += &format!(", scan {scan:.2} s");
    let over = |of| {
        middle(&series.costs, of)
            .zip(walk)
            .map(|(cpu, walk)| cpu / walk)
    };

    row.require(over(|c| c.cpu).map(|v| Check::under("sender's CPU over walk", v, CPU)));
    row.require(over(|c| c.host_cpu).map(|v| Check::under("host's CPU over walk", v, CPU)));
    row.require(
        middle(&series.costs, |c| c.sent).map(|v| Check::under("bytes sent", v, SENT_NOTHING)),
    );
    row.require(
        middle(&series.costs, |c| c.resident).map(|v| Check::under("sender's MB", v, RESIDENT)),
    );

    row
}

fn one_change(series: Series, noop: Option<f64>) -> Row {
    let mut row = series.row("one file changed");
    let later = middle(&series.costs, |c| c.seconds)
        .zip(noop)
        .map(|(seconds, noop)| seconds / noop);
    row.require(middle(&series.costs, |c| c.sent).map(|v| Check::under("bytes sent", v, SENT_ONE)));
    row.require(later.map(|v| Check::under("time over no-op", v, LATER)));
    row.require(
        middle(&series.costs, |c| c.resident).map(|v| Check::under("sender's MB", v, RESIDENT)),
    );

    row
}

/// Returns the name of a file of the tree.
fn name(number: usize, files: usize) -> String {
    let each = files.div_ceil(DIRECTORIES);
    format!("d{:04}/f{:07}.txt", number / each, number)
}

/// Makes the tree, unless an earlier run has completed one; the completion marker is written last.
fn make(source: &Path, files: usize) -> Result<(), Trouble> {
    let made = source.with_extension("made");
    if made.exists() {
        return Ok(());
    }

    say(&format!(
        "million: making {files} files in {}",
        source.display()
    ));
    let each = files.div_ceil(DIRECTORIES);

    for first in (0..files).step_by(each) {
        if let Some(dir) = source.join(name(first, files)).parent() {
            std::fs::create_dir_all(dir)?;
        }
        for number in first..files.min(first + each) {
            std::fs::write(
                source.join(name(number, files)),
                format!("file {number} of {files}, as small as it is\n"),
            )?;
        }
    }

    std::fs::write(made, "")?;
    Ok(())
}
