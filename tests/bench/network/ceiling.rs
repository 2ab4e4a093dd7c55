//! The case with a rate limit, measured by packet capture.

use super::cases::line_time;
use super::fabric::{Line, Sent};
use super::fleet::Fleet;
use super::job::{LIMIT, repeat};
use super::material::Material;
use super::row::{Check, Row};
use super::trouble::Trouble;
use super::{PAYLOAD, Settings, say};
use crate::support::{Capture, Pace, Packet, pace};

/// Checks a rate limit far below the link's rate, over a tenth of a second and over a small queue.
pub fn ceiling(settings: Settings) -> Vec<Row> {
    let material = Material::noise(9, PAYLOAD);
    let each = [(300, "300Mbit"), (1000, "1Gbit")]
        .into_iter()
        .map(|(mbit, rate)| {
            let (done, seen) = repeat(&format!("ceiling {rate}"), settings, || {
                at_ceiling(&material, mbit, rate)
            });
            let bound = line_time(material.bytes, mbit);
            let mut row = Row::new("ceiling", rate, 2, &done, material.bytes, Some(bound));
            let worst = |of: fn(&Pace) -> f64| seen.iter().map(of).reduce(f64::max);
            row.require(
                worst(|p| p.window).map(|most| Check::under("100 ms over ceiling", most, 1.0)),
            );
            if mbit == 1000 {
                row.require(
                    worst(|p| p.backlog).map(|most| Check::under("backlog, bytes", most, QUEUE)),
                );
            }
            row
        });

    each.collect()
}

/// Bytes of the queue before a line at the limited rate, as in a small switch.
const QUEUE: f64 = 65_536.0;

fn at_ceiling(material: &Material, mbit: u32, rate: &str) -> Result<(f64, Sent, Pace), Trouble> {
    let fleet = Fleet::new(2, Line::default())?;
    let source = material.path();
    let start = |place| Capture::start(place).map_err(Trouble::Skipped);
    let (at_host, at_sender) = (start(&fleet.fabric.hosts[0])?, start(&fleet.fabric.sender)?);
    let before = fleet.fabric.sent();
    let ran = fleet.deploy(&source, "", &["--rate", rate], LIMIT)?;
    let sent = fleet.fabric.sent().since(before);

    fleet.check(&source)?;
    let heard: Vec<Packet> = at_host
        .finish()
        .into_iter()
        .filter(|p| !p.outgoing)
        .collect();

    let said: Vec<Packet> = at_sender
        .finish()
        .into_iter()
        .filter(|p| p.outgoing)
        .collect();

    let bytes: usize = heard.iter().map(Packet::wire).sum();
    if (bytes as u64) < material.bytes {
        return Err(Trouble::Skipped(format!(
            "the capture saw {bytes} bytes only"
        )));
    }

    let (host, sender) = (pace(&heard, mbit), pace(&said, mbit));
    let show = |p: Pace| {
        format!(
            "{:.4} of the ceiling over 100 ms, backlog {:.0}",
            p.window, p.backlog
        )
    };

    say(&format!(
        "ceiling {rate}: at a host {}; at the sender {}",
        show(host),
        show(sender)
    ));

    Ok((ran.seconds, sent, host))
}
