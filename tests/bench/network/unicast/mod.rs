//! The cases without multicast: each host passes its share of the payload on to all others.

mod relays;
mod segments;

use super::cases::{line_time, shaped};
use super::job::{Done, Job, MAKUO, Tool};
use super::material::Material;
use super::row::{Check, Row};
use super::{PAYLOAD as LARGE, Settings};

pub use relays::{relay_killed, relay_slow, relay_stopped};
pub use segments::segments;

/// Size of the file of random data in most of these cases.
pub const PAYLOAD: u64 = 128_000_000;
/// Rate at which the two cores are not the limit.
const MBIT: u32 = 200;
/// Limits of the bytes sent over those of the payload: by the sender, and by any host.
const MOST_SENT: f64 = 1.12;
const MOST_PASSED_ON: f64 = 1.05;

/// Rate and payload of a case.
#[derive(Debug, Clone, Copy)]
struct Scale {
    mbit: u32,
    bytes: u64,
    most_hosts: usize,
}

impl Scale {
    /// Takes the given values, or small ones on request.
    fn new(mbit: u32, bytes: u64, settings: Settings) -> Self {
        if settings.small {
            return Self {
                mbit: 20,
                bytes: 4_000_000,
                most_hosts: 3,
            };
        }

        Self {
            mbit,
            bytes,
            most_hosts: usize::MAX,
        }
    }

    fn hosts(self, hosts: usize) -> usize {
        hosts.min(self.most_hosts)
    }

    /// Returns the numbers of hosts of a transfer.
    fn fleets(self) -> Vec<usize> {
        let mut fleets = [2, 5, 10].map(|hosts| self.hosts(hosts)).to_vec();
        fleets.dedup();
        fleets
    }

    /// Returns the seconds that the payload takes on the line, without headers.
    fn bound(self) -> f64 {
        line_time(self.bytes, self.mbit)
    }
}

/// A transfer without multicast, beside others on the same lines.
struct Transfer<'a> {
    case: &'static str,
    what: &'a str,
    scale: Scale,
    /// Loss of every host in per cent.
    loss: u32,
    material: &'a Material,
    tools: &'a [Tool],
}

impl Transfer<'_> {
    /// Measures all tools with this number of hosts.
    fn measure(&self, hosts: usize, settings: Settings) -> Vec<Row> {
        let job = Job {
            material: self.material,
            hosts,
            line: shaped(self.scale.mbit, self.loss),
            flags: &[],
        };

        let bound = Some(self.scale.bound());
        let row =
            |done: &Done| Row::new(self.case, self.what, hosts, done, self.scale.bytes, bound);
        let title = format!("{} {}", self.case, self.what);
        let all = job.measure(title.trim_end(), self.tools, settings);
        all.iter().map(row).collect()
    }
}

/// Measures fleets of several sizes at a rate that the processors can follow.
pub fn at_200_mbit(settings: Settings) -> Vec<Row> {
    let scale = Scale::new(MBIT, PAYLOAD, settings);
    let transfer = Transfer {
        case: "unicast-200mbit",
        what: "",
        scale,
        loss: 0,
        material: &Material::noise(11, scale.bytes),
        tools: &[Tool::Unicast, Tool::Rsync],
    };

    let mut few = None;
    let each = scale.fleets().into_iter().flat_map(|hosts| {
        let mut rows = transfer.measure(hosts, settings);
        if let Some(row) = row_of(&mut rows, Tool::Unicast) {
            require_time(row, 1.2);
            require_bytes(row);
            match hosts {
                2 => few = row.median(),
                10 => require_share(row, "of 2 hosts", few, 1.08),
                _ => {}
            }
        }

        rows
    });

    each.collect()
}

/// Measures fleets of several sizes beside multicast.
pub fn at_500_mbit(settings: Settings) -> Vec<Row> {
    let scale = Scale::new(500, LARGE, settings);
    let transfer = Transfer {
        case: "unicast-500mbit",
        what: "",
        scale,
        loss: 0,
        material: &Material::noise(12, scale.bytes),
        tools: &[Tool::Unicast, MAKUO, Tool::Rsync],
    };

    let each = scale.fleets().into_iter().flat_map(|hosts| {
        let mut rows = transfer.measure(hosts, settings);
        let mut median = |tool| row_of(&mut rows, tool).and_then(|row| row.median());
        let (multicast, rsync) = (median(MAKUO), median(Tool::Rsync));

        if let Some(row) = row_of(&mut rows, Tool::Unicast) {
            require_share(row, "of multicast", multicast, 1.3);
            require_share(row, "of rsync", rsync, most_of_rsync(hosts));
            require_bytes(row);
        }

        rows
    });

    each.collect()
}

/// Measures a fleet whose hosts and sender lose packets.
pub fn with_loss(settings: Settings) -> Vec<Row> {
    let scale = Scale::new(MBIT, PAYLOAD, settings);
    let material = Material::noise(13, scale.bytes);
    let each = [(1, 1.3), (5, 1.5)].into_iter().flat_map(|(loss, most)| {
        let transfer = Transfer {
            case: "unicast-loss",
            what: &format!("{loss} % lost"),
            scale,
            loss,
            material: &material,
            tools: &[Tool::Unicast, Tool::Rsync],
        };

        let mut rows = transfer.measure(scale.hosts(10), settings);
        if let Some(row) = row_of(&mut rows, Tool::Unicast) {
            require_time(row, most);
        }

        rows
    });

    each.collect()
}

/// Returns the largest share of rsync's time, which is that of the payload once for each host.
fn most_of_rsync(hosts: usize) -> f64 {
    (2.0 / hosts as f64).min(0.75)
}

fn row_of(rows: &mut [Row], tool: Tool) -> Option<&mut Row> {
    rows.iter_mut().find(|row| row.tool == tool.name())
}

/// Limits the time over that of the payload on the line.
fn require_time(row: &mut Row, most: f64) {
    row.require(row.ratio.map(|ratio| Check::under("time", ratio, most)));
}

/// Limits the time over that of others.
fn require_share(row: &mut Row, of: &'static str, others: Option<f64>, most: f64) {
    let both = row.median().zip(others);
    row.require(both.map(|(mine, others)| Check::under(of, mine / others, most)));
}

/// Limits the bytes that leave the interfaces of the sender and of any host.
fn require_bytes(row: &mut Row) {
    let sender = row
        .interface
        .map(|sent| Check::under("sender's bytes", sent, MOST_SENT));
    let host = row
        .passed_on
        .map(|sent| Check::under("a host's bytes", sent, MOST_PASSED_ON));
    row.require(sender);
    row.require(host);
}
