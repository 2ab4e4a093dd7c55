//! The case with a small change in a large tree.

use std::path::Path;

use super::Settings;
use super::fabric::Line;
use super::fleet::Fleet;
use super::job::{LIMIT, Tool, repeat};
use super::material::{Material, small_name};
use super::peers::{self, Errand};
use super::row::{Check, Row, median};
use super::trouble::Trouble;
use crate::support::{Host, append};

/// Measures a deployment after one of ten thousand files has changed, without the scan.
pub fn one_change(settings: Settings) -> Vec<Row> {
    change("one-change", FILES, Line::default(), settings)
}

/// Measures the same without multicast.
pub fn one_change_by_unicast(settings: Settings) -> Vec<Row> {
    let files = if settings.small { 100 } else { FILES };
    change(
        "unicast-one-change",
        files,
        Line::default().unicast(),
        settings,
    )
}

/// Files of the tree.
const FILES: usize = 10_000;
/// Limit of the seconds without the scan.
const MOST: f64 = 0.150;

fn change(case: &'static str, files: usize, line: Line, settings: Settings) -> Vec<Row> {
    const HOSTS: usize = 5;
    let material = Material::small(7, files, 8192);
    let source = material.path();
    let changed = source.join(small_name(files / 2));
    let setup = Fleet::new(HOSTS, line).and_then(|fleet| {
        fleet.deploy(&source, "", &[], LIMIT)?;
        fleet.check(&source)?;
        Ok(fleet)
    });

    let (mut done, scans) = repeat(case, settings, || {
        let fleet = setup.as_ref().map_err(Trouble::clone)?;
        append(&changed, b"one line more\n");
        fleet.settle();
        let before = fleet.fabric.sent();
        let ran = fleet.deploy(&source, "", &[], LIMIT)?;
        let sent = fleet.fabric.sent().since(before);
        fleet.check(&source)?;
        let scanned = ran.events.iter().find(|(_, e)| e["event"] == "scanned");
        let scan = scanned
            .and_then(|(_, e)| e["seconds"].as_f64())
            .unwrap_or(0.0);
        Ok((ran.seconds, sent, scan))
    });

    if line.no_multicast {
        done.tool = Tool::Unicast;
    }

    let net: Vec<f64> = done
        .seconds
        .iter()
        .zip(&scans)
        .map(|(seconds, scan)| seconds - scan)
        .collect();

    let payload = std::fs::metadata(&changed).map_or(8192, |m| m.len());
    let mut row = Row::new(case, "1 file", HOSTS, &done, payload, None);
    if let (Some(net), Some(scan)) = (median(&net), median(&scans)) {
        row.what = format!("1 of {files} files, scan {scan:.3} s");
        row.require(Some(Check::under("s without scan", net, MOST)));
    }

    let mut rows = vec![row];
    if let (true, Ok(fleet)) = (settings.peers, &setup) {
        rows.push(rsync_change(case, fleet, &source, &changed, settings));
    }

    rows
}

/// Transfers the same change to the same trees with rsync.
fn rsync_change(
    case: &'static str,
    fleet: &Fleet,
    source: &Path,
    changed: &Path,
    settings: Settings,
) -> Row {
    let trees: Vec<_> = fleet.hosts.iter().map(Host::tree).collect();
    let (mut done, _) = repeat(&format!("{case}: rsync"), settings, || {
        append(changed, b"one line more\n");
        let dir = tempfile::tempdir()?;
        let errand = Errand {
            fabric: &fleet.fabric,
            source,
            trees: &trees,
            dir: dir.path(),
            mbit: None,
            limit: LIMIT,
        };
        let before = fleet.fabric.sent();
        let seconds = peers::rsync(&errand, &[])?;
        Ok((seconds, fleet.fabric.sent().since(before), ()))
    });

    done.tool = Tool::Rsync;
    let payload = std::fs::metadata(changed).map_or(8192, |m| m.len());
    Row::new(
        case,
        "the same, with its scan",
        fleet.hosts.len(),
        &done,
        payload,
        None,
    )
}
