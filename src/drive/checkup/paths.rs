//! Measures both directions of the paths to hosts, and the largest datagrams that arrive.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::prober::{AskWay, Prober};
use crate::Result;
use crate::doctor::Tally;
use crate::id::InstanceId;
use crate::proto::Dest;
use crate::proto::datagram_size::{min_datagram, probe_sizes};
use crate::wire::count::ProbeCounts;

/// Datagrams of a direction.
const PROBES: u32 = 20;
/// Interval of these datagrams.
const PROBE_INTERVAL: Duration = Duration::from_millis(5);
/// Answers to the group that each host is asked for.
const BACK_PROBES: u32 = 5;
/// Largest number of hosts that are asked for answers to the group: each of these goes to all.
const MAX_BACK_HOSTS: usize = 16;
/// Copies of a datagram of each size.
const COPIES: u32 = 3;
/// Sizes of one round of the search between two sizes.
const ROUND_SIZES: usize = 8;
/// Rounds of that search: each makes the gap nine times smaller.
const SEARCH_ROUNDS: u8 = 3;

/// Ways of questions about few datagrams.
const BY_GROUP: AskWay = AskWay {
    by_group: true,
    switches: true,
};
const BY_HOST: AskWay = AskWay {
    by_group: false,
    switches: true,
};
/// Train to the group, then to single hosts.
const GROUP_TRAIN: u8 = 0;
const HOST_TRAIN: u8 = 1;
/// Trains of sizes.
const GROUP_SIZES: u8 = 2;
const HOST_SIZES: u8 = 3;
/// First train of the search between sizes, one for each round.
const GROUP_SEARCH: u8 = 8;
const HOST_SEARCH: u8 = 16;

/// MeasuredHosts with their addresses.
type MeasuredHosts = [(InstanceId, SocketAddr)];

/// Measures both directions, by multicast and by unicast apart.
pub(super) fn directions(prober: &mut Prober) -> Result<()> {
    let hosts = prober.hosts.answering();
    let size = min_datagram(prober.room());
    let multicast = prober.has_multicast();
    for number in 0..PROBES {
        if multicast {
            prober.probe(Dest::Multicast, size, GROUP_TRAIN, number);
        }
        for (_, address) in &hosts {
            prober.probe(Dest::Host(*address), size, HOST_TRAIN, number);
        }
        prober.pass(PROBE_INTERVAL)?;
    }

    let to_host = prober.collect(HOST_TRAIN, &hosts, BY_HOST)?;
    let to_group = match multicast {
        true => prober.collect(GROUP_TRAIN, &hosts, BY_GROUP)?,
        false => BTreeMap::new(),
    };
    for host in prober.hosts.iter_mut() {
        let tally = |counts: Option<&ProbeCounts>| {
            counts.map(|counts| Tally {
                sent: PROBES,
                arrived: counts.arrived,
            })
        };
        host.facts.to_host = tally(to_host.get(&host.source));
        host.facts.to_group = tally(to_group.get(&host.source));
        host.dropped = to_host.get(&host.source).map_or(0, |counts| counts.dropped);
    }

    match multicast {
        true => back(prober),
        false => Ok(()),
    }
}

/// Measures the way from hosts to the group.
fn back(prober: &mut Prober) -> Result<()> {
    let hosts: Vec<_> = prober
        .hosts
        .iter()
        .filter(|host| host.facts.counts)
        .map(|host| match host.is_cut_off() {
            true => (host.source, Dest::Multicast),
            false => (host.source, Dest::Host(host.facts.address)),
        })
        .take(MAX_BACK_HOSTS)
        .collect();

    let mut questions = Vec::new();
    for _ in 0..BACK_PROBES {
        for (source, dest) in &hosts {
            let question = prober.ask_counts(*dest, GROUP_TRAIN, Some(*source), true);
            questions.push((*source, question));
        }
        prober.pass(PROBE_INTERVAL * 4)?;
    }
    prober.pass(PROBE_INTERVAL * 20)?;

    for (source, _) in hosts {
        let mine = questions.iter().filter(|(asked, _)| *asked == source);
        let arrived = mine
            .filter(|(_, question)| {
                let answer = prober.answer(*question, source);
                answer.is_some_and(|counts| counts.by_group)
            })
            .count();
        if let Some(host) = prober.hosts.get_mut(source) {
            host.facts.from_group = Some(Tally {
                sent: BACK_PROBES,
                arrived: arrived as u32,
            });
        }
    }

    Ok(())
}

/// Measures the largest datagrams that arrive.
pub(super) fn sizes(prober: &mut Prober) -> Result<()> {
    let counting = prober.hosts.iter().filter(|host| host.facts.counts);
    let hosts: Vec<_> = counting
        .map(|host| (host.source, host.facts.address))
        .collect();
    let room = prober.room();
    let ladder: Vec<usize> = probe_sizes(prober.datagram(), room).collect();

    let groups: Vec<Dest> = match prober.has_multicast() {
        true => vec![Dest::Multicast],
        false => Vec::new(),
    };
    let by_group = match groups.is_empty() {
        true => BTreeMap::new(),
        false => largest(prober, (&groups, GROUP_SIZES), &ladder, &hosts)?,
    };
    let alone: Vec<Dest> = hosts.iter().map(|(_, at)| Dest::Host(*at)).collect();
    let by_host = largest(prober, (&alone, HOST_SIZES), &ladder, &hosts)?;

    for host in prober.hosts.iter_mut() {
        let sealed = |size: &usize| *size + room;
        let found = |sizes: &BTreeMap<InstanceId, usize>| sizes.get(&host.source).map(sealed);
        host.facts.sizes.by_group = found(&by_group).filter(|_| host.hears_group());
        host.facts.sizes.by_host = found(&by_host).filter(|_| !host.is_cut_off());
    }

    for (source, address) in hosts {
        let Some(host) = prober.hosts.get_mut(source) else {
            continue;
        };
        let way = match (host.facts.sizes.by_host, host.facts.sizes.by_group) {
            (Some(size), _) => Some((Dest::Host(address), HOST_SEARCH, size)),
            (None, Some(size)) => Some((Dest::Multicast, GROUP_SEARCH, size)),
            (None, None) => None,
        };
        if let Some((dest, train, rung)) = way.filter(|(_, _, size)| *size > room) {
            let found = search(
                prober,
                (dest, train),
                (rung - room, &ladder),
                (source, address),
            )?;
            let sizes = prober
                .hosts
                .get_mut(source)
                .map(|host| &mut host.facts.sizes);
            // Both ways have one path, if they ended at the same size of the ladder.
            for size in sizes
                .into_iter()
                .flat_map(|s| [&mut s.by_group, &mut s.by_host])
            {
                if *size == Some(rung) {
                    *size = Some(found + room);
                }
            }
        }
    }

    Ok(())
}

/// Sends datagrams of each size, and returns the largest that arrived at each host.
fn largest(
    prober: &mut Prober,
    (dests, train): (&[Dest], u8),
    sizes: &[usize],
    hosts: &MeasuredHosts,
) -> Result<BTreeMap<InstanceId, usize>> {
    let mut number = 0;
    for _ in 0..COPIES {
        for size in sizes {
            for dest in dests {
                prober.probe(*dest, *size, train, number);
            }
            number += 1;
        }
        prober.pass(PROBE_INTERVAL)?;
    }

    let way = match dests {
        [Dest::Multicast] => BY_GROUP,
        _ => BY_HOST,
    };
    let counts = prober.collect(train, hosts, way)?;
    let sizes = counts.into_iter();
    Ok(sizes
        .map(|(id, counts)| (id, usize::from(counts.largest)))
        .collect())
}

/// Searches between a size that arrives at a host and the next one of the ladder that does not.
fn search(
    prober: &mut Prober,
    (dest, train): (Dest, u8),
    (rung, ladder): (usize, &[usize]),
    host: (InstanceId, SocketAddr),
) -> Result<usize> {
    let mut low = rung;
    let above = ladder.iter().filter(|size| **size > rung).min();
    let Some(mut high) = above.copied() else {
        return Ok(rung);
    };

    for round in 0..SEARCH_ROUNDS {
        let step = ((high - low) / (ROUND_SIZES + 1)).max(1);
        let sizes: Vec<usize> = (1..=ROUND_SIZES)
            .map(|n| low + n * step)
            .filter(|size| *size < high)
            .collect();
        if sizes.is_empty() {
            break;
        }

        let found = largest(prober, (&[dest], train + round), &sizes, &[host])?;
        let arrived = found.get(&host.0).copied().unwrap_or(0);
        high = sizes
            .iter()
            .copied()
            .find(|size| *size > arrived)
            .unwrap_or(high);
        low = low.max(arrived);
    }

    Ok(low)
}
