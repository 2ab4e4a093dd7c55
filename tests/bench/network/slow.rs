//! The case with one host on a much slower line.

use std::collections::BTreeSet;

use super::cases::line_time;
use super::fabric::{Line, Sent};
use super::fleet::{Fleet, staged};
use super::job::{LIMIT, repeat};
use super::material::Material;
use super::row::{Check, Row};
use super::trouble::Trouble;
use super::{PAYLOAD, Settings};

/// Measures the staging of four hosts while a fifth has a twenty-fifth of their rate.
pub fn slow(settings: Settings) -> Vec<Row> {
    const HOSTS: usize = 5;
    const SLOW: u32 = 20;
    let material = Material::noise(6, PAYLOAD);
    let bound = line_time(material.bytes, 500);
    let mut rows = Vec::new();

    for slow in [false, true] {
        let what = if slow {
            "staged beside a slow host"
        } else {
            "staged, none slow"
        };
        let (done, _) = repeat(&format!("slow: {what}"), settings, || {
            staged_but_last(&material, HOSTS, slow, SLOW)
        });
        rows.push(Row::new(
            "slow",
            what,
            HOSTS - 1,
            &done,
            material.bytes,
            Some(bound),
        ));
    }

    if let [without, with] = rows.as_mut_slice() {
        let medians = with.median().zip(without.median());
        with.require(
            medians.map(|(with, without)| Check::under("of none slow", with / without, 1.3)),
        );
    }

    rows
}

/// Returns the seconds until all hosts but the last are staged. With a slow host, the measurement
/// ends there.
fn staged_but_last(
    material: &Material,
    hosts: usize,
    slow: bool,
    mbit: u32,
) -> Result<(f64, Sent, ()), Trouble> {
    let fleet = Fleet::new(hosts, Line::HALF_GBIT)?;
    let last = fleet.hosts[hosts - 1].name.clone();
    if slow {
        fleet.fabric.slow_down(hosts - 1, mbit);
    }

    let source = material.path();
    let before = fleet.fabric.sent();
    let mut deploy = fleet.start(&source, "", &[], LIMIT)?;
    let mut names = BTreeSet::new();
    let mut seconds = None;

    while let Some((at, event)) = deploy.next()? {
        names.extend(
            staged(&event)
                .filter(|name| *name != last)
                .map(String::from),
        );
        if names.len() == hosts - 1 && seconds.is_none() {
            seconds = Some(at);
            if slow {
                break;
            }
        }
    }

    let sent = fleet.fabric.sent().since(before);
    let seconds = seconds
        .ok_or_else(|| Trouble::Failed(format!("ended with {} hosts staged", names.len())))?;

    if slow {
        deploy.interrupt();
        while deploy.next()?.is_some() {}
        drop(deploy);
        fleet.check_empty()?;
    } else {
        deploy.finish()?;
        fleet.check(&source)?;
    }

    Ok((seconds, sent, ()))
}
