//! Measures losses at rising rates: trains of datagrams to the group, or to hosts one by one where
//! the group does not reach.

use std::net::SocketAddr;
use std::time::Duration;

use super::prober::{AskWay, Prober};
use crate::Result;
use crate::doctor::{Burst, Tally};
use crate::id::InstanceId;
use crate::proto::Dest;
use crate::proto::datagram_size::min_datagram;
use crate::units::{Moment, Rate};

/// Rates of the trains; the last is as fast as possible.
const RATES: [Option<Rate>; 4] = [
    Some(Rate(10_000_000)),
    Some(Rate(100_000_000)),
    Some(Rate(500_000_000)),
    None,
];
/// Time of each train.
const BURST_TIME: Duration = Duration::from_millis(200);
/// Bytes of the fastest train: half of the receive buffer of a host.
const RUSH_BYTES: usize = 8 << 20;
/// Datagrams queued at a time.
const RUSH_STEP: u32 = 32;
/// Interval of paced sends.
const PACE_INTERVAL: Duration = Duration::from_millis(1);
/// Time for hosts to read the train, and to count their losses.
const SETTLE_TIME: Duration = Duration::from_millis(60);
/// Largest number of hosts that get trains of their own, unless there is only one.
const MAX_ALONE: usize = 4;
/// First train to the group, and to hosts.
const GROUP_BURSTS: u8 = 32;
const HOST_BURSTS: u8 = 40;

/// Hosts with their addresses.
type BurstTargets = [(InstanceId, SocketAddr)];

/// Sends the trains.
pub(super) fn run(prober: &mut Prober, is_only_host: bool) -> Result<()> {
    let counting = |prober: &Prober, hears: bool| -> Vec<(InstanceId, SocketAddr)> {
        let hosts = prober.hosts.iter().filter(|host| host.facts.counts);
        hosts
            .filter(|host| host.hears_group() == hears && (hears || !host.is_cut_off()))
            .map(|host| (host.source, host.facts.address))
            .collect()
    };

    let together = counting(prober, true);
    if !together.is_empty() {
        for (rate, train) in RATES.into_iter().zip(GROUP_BURSTS..) {
            burst(prober, (Dest::Multicast, train), rate, &together)?;
        }
    }

    let alone = counting(prober, false);
    for target in alone.into_iter().take(MAX_ALONE) {
        let rates = match is_only_host {
            true => &RATES[..],
            false => &RATES[..2],
        };
        for (rate, train) in rates.iter().zip(HOST_BURSTS..) {
            burst(prober, (Dest::Host(target.1), train), *rate, &[target])?;
        }
    }

    Ok(())
}

fn burst(
    prober: &mut Prober,
    (dest, train): (Dest, u8),
    rate: Option<Rate>,
    targets: &BurstTargets,
) -> Result<()> {
    let size = size_for(prober, targets);
    let sent = match rate {
        Some(rate) => paced(prober, (dest, train), size, rate)?,
        None => rush(prober, (dest, train), size)?,
    };
    prober.pass(SETTLE_TIME)?;

    let way = AskWay {
        by_group: dest == Dest::Multicast,
        switches: false,
    };
    let counts = prober.collect(train, targets, way)?;
    for (source, counts) in counts {
        let Some(host) = prober.hosts.get_mut(source) else {
            continue;
        };
        let before = std::mem::replace(&mut host.dropped, counts.dropped);
        host.facts.bursts.push(Burst {
            rate,
            tally: Tally {
                sent,
                arrived: counts.arrived.min(sent),
            },
            repeated: counts.repeated,
            late: counts.late,
            dropped: counts.dropped.saturating_sub(before),
        });
    }

    Ok(())
}

/// The largest datagram before the seal that arrives at each target, as a deploy sends it.
fn size_for(prober: &Prober, targets: &BurstTargets) -> usize {
    let room = prober.room();
    let hosts = prober.hosts.iter();
    let wanted = hosts.filter(|host| targets.iter().any(|(id, _)| *id == host.source));
    let sizes = wanted.flat_map(|host| [host.facts.sizes.by_group, host.facts.sizes.by_host]);
    let smallest = sizes.flatten().min().unwrap_or(0);
    smallest
        .saturating_sub(room)
        .clamp(min_datagram(room), prober.datagram())
}

/// Sends at a rate; returns the number of datagrams.
fn paced(prober: &mut Prober, way: (Dest, u8), size: usize, rate: Rate) -> Result<u32> {
    let began = prober.now();
    let each = (size + prober.room()) as u64;
    let due = |now: Moment| {
        let elapsed = now.since(began).min(BURST_TIME);
        u32::try_from(rate.bytes_in(elapsed) / each).unwrap_or(u32::MAX)
    };

    let total = due(began + BURST_TIME);
    let mut sent = 0;
    while sent < total {
        let now = prober.now();
        for number in sent..due(now) {
            prober.probe(way.0, size, way.1, number);
        }
        sent = due(now);
        prober.turn_in_trains(now + PACE_INTERVAL)?;
    }

    Ok(sent)
}

/// Sends as fast as possible; returns the number of datagrams.
fn rush(prober: &mut Prober, way: (Dest, u8), size: usize) -> Result<u32> {
    let began = prober.now();
    let total = u32::try_from(RUSH_BYTES / size.max(1)).unwrap_or(u32::MAX);
    let mut sent = 0;
    while sent < total && prober.now().since(began) < BURST_TIME {
        for number in sent..sent + RUSH_STEP {
            prober.probe(way.0, size, way.1, number);
        }
        sent += RUSH_STEP;
        while !prober.control.is_empty() {
            prober.turn_in_trains(prober.now())?;
        }
    }

    Ok(sent)
}
