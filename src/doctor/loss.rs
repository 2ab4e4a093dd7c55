//! Verdict on losses at rising rates: of the path, of the host's receive buffer, or of a path that
//! carries less; and on late and repeated datagrams.

use super::facts::{Burst, HostFacts, Tally};
use crate::outcome::{Check, Finding, Severity};
use crate::units::Rate;

/// Highest rate that each network carries.
const GENTLE: Rate = Rate(100_000_000);
/// Lost share from which a path is worth a look.
const LOSSY: f64 = 0.005;
/// Lost share from which deploys take far longer.
const BROKEN: f64 = 0.2;
/// Share of late datagrams that is worth a look.
const LATE: f64 = 0.01;
/// Share of repeated datagrams that is worth a look.
const REPEATED: f64 = 0.002;

/// Judges the trains to a host.
pub fn judge(host: &HostFacts) -> Vec<Finding> {
    let bursts: Vec<&Burst> = host.bursts.iter().filter(|b| b.tally.sent > 0).collect();
    let rated: Vec<&Burst> = bursts
        .iter()
        .copied()
        .filter(|b| b.rate.is_some())
        .collect();
    // A path on which nothing arrives is another matter.
    if rated.is_empty() || rated.iter().all(|burst| burst.tally.is_cut()) {
        return Vec::new();
    }

    let mut findings = vec![losses(&rated)];
    findings.extend(disorder(&bursts));
    findings
        .into_iter()
        .map(|finding| finding.of(&host.host))
        .collect()
}

fn losses(rated: &[&Burst]) -> Finding {
    let rates = shown_rates(rated);
    let lossy: Vec<&Burst> = rated
        .iter()
        .copied()
        .filter(|burst| burst.tally.share() >= LOSSY)
        .collect();
    let Some(first) = lossy.first() else {
        let what = format!("next to nothing is lost at {rates}");
        return Finding::new(Check::Loss, Severity::Ok, what);
    };

    let gentle = sum(rated.iter().copied().filter(|b| b.rate <= Some(GENTLE)));
    let all = sum(rated.iter().copied());
    let dropped: u64 = lossy.iter().map(|burst| burst.dropped).sum();
    let first_rate = first.rate.map_or(String::new(), |rate| rate.to_string());

    if dropped > 0 {
        let what = format!(
            "{} of {} datagrams are lost, from {first_rate} on, and its receive buffer lost \
             {dropped} packets meanwhile: the buffer, not the network",
            all.lost(),
            all.sent
        );
        let todo = "raise net.core.rmem_max there and restart makuo; if it is large, the machine \
                    is too busy to read";
        return Finding::new(Check::Loss, Severity::Warn, what).todo(todo);
    }

    if gentle.share() >= LOSSY {
        let level = match gentle.share() >= BROKEN {
            true => Severity::Fail,
            false => Severity::Warn,
        };
        let what = format!(
            "{} of {} datagrams ({:.1} %) are lost on the way at {rates}, and none in its receive \
             buffer: the network",
            all.lost(),
            all.sent,
            100.0 * all.share()
        );
        let todo = "look for errors of cable, port, duplex or Wi-Fi (ip -s link; ethtool -S) at \
                    both ends, and for a rule that drops some; a deploy repairs what is lost, and \
                    takes longer";
        return Finding::new(Check::Loss, level, what).todo(todo);
    }

    let carried = rated.iter().filter(|b| b.tally.share() < LOSSY);
    let carried = carried.filter_map(|b| b.rate).max();
    let carried = carried.map_or(String::new(), |rate| format!("no loss at {rate}, and "));
    let what = format!(
        "{carried}{:.1} % at {first_rate}: the path carries less than that",
        100.0 * first.tally.share()
    );
    Finding::new(Check::Loss, Severity::Ok, what)
}

fn disorder(bursts: &[&Burst]) -> Vec<Finding> {
    let arrived: u32 = bursts.iter().map(|burst| burst.tally.arrived).sum();
    let late: u32 = bursts.iter().map(|burst| burst.late).sum();
    let repeated: u32 = bursts.iter().map(|burst| burst.repeated).sum();
    let share = |count: u32| f64::from(count) / f64::from(arrived.max(1));

    let mut findings = Vec::new();
    if share(late) >= LATE {
        let what = format!("{late} of {arrived} datagrams arrive after a later one");
        let todo = "is there a bond or several paths that split one stream (balance-rr)? Order \
                    matters little to makuo, and much to TCP";
        findings.push(Finding::new(Check::Loss, Severity::Warn, what).todo(todo));
    }
    if share(repeated) >= REPEATED {
        let what = format!("{repeated} of {arrived} datagrams arrive more than once");
        let todo = "is there a loop, or two bridges between the same networks?";
        findings.push(Finding::new(Check::Loss, Severity::Warn, what).todo(todo));
    }

    findings
}

fn sum<'a>(bursts: impl Iterator<Item = &'a Burst>) -> Tally {
    bursts.fold(Tally::default(), |sum, burst| Tally {
        sent: sum.sent + burst.tally.sent,
        arrived: sum.arrived + burst.tally.arrived,
    })
}

fn shown_rates(rated: &[&Burst]) -> String {
    let rates: Vec<String> = rated
        .iter()
        .filter_map(|burst| Some(burst.rate?.to_string()))
        .collect();
    match rates.split_last() {
        Some((last, before)) if !before.is_empty() => format!("{} and {last}", before.join(", ")),
        _ => rates.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::super::facts::testing::{burst, host};
    use super::*;

    /// A train at `mbit` that loses a share of 10,000 datagrams.
    fn lossy(mbit: u64, share: f64) -> Burst {
        let rate = Some(Rate(mbit * 1_000_000));
        let sent = burst(rate, 10_000);
        Burst {
            tally: Tally {
                sent: 10_000,
                arrived: 10_000 - (share * 10_000.0) as u32,
            },
            ..sent
        }
    }

    fn judged(bursts: Vec<Burst>) -> Finding {
        let found = judge(&HostFacts {
            bursts,
            ..host("web1")
        });
        assert_eq!(found.len(), 1, "{found:?}");
        found[0].clone()
    }

    #[test]
    fn a_path_that_loses_at_each_rate_is_told_with_its_share() {
        let found = judged([10, 100, 500].map(|mbit| lossy(mbit, 0.03)).into());
        assert_eq!(found.level, Severity::Warn);
        assert!(
            found.what.contains("900 of 30000 datagrams (3.0 %)"),
            "{found:?}"
        );
        assert!(found.what.contains("the network"), "{found:?}");
        let found = judged([10, 100].map(|mbit| lossy(mbit, 0.5)).into());
        assert_eq!(found.level, Severity::Fail);
    }

    #[test]
    fn a_receive_buffer_is_told_from_the_network() {
        let full = Burst {
            dropped: 40,
            ..lossy(500, 0.2)
        };
        let found = judged(vec![lossy(10, 0.0), full]);
        assert_eq!(found.level, Severity::Warn);
        assert!(
            found.what.contains("the buffer, not the network"),
            "{found:?}"
        );
        assert!(found.todo.expect("something").contains("net.core.rmem_max"));
    }

    #[test]
    fn a_slower_path_is_no_fault() {
        let found = judged(vec![lossy(10, 0.0), lossy(100, 0.0), lossy(500, 0.4)]);
        assert_eq!(found.level, Severity::Ok);
        assert!(found.what.contains("40.0 % at"), "{found:?}");
        assert!(found.what.contains("carries less"), "{found:?}");
    }

    #[test]
    fn a_good_path_and_one_without_a_measurement() {
        assert_eq!(
            judged(vec![lossy(10, 0.0), lossy(100, 0.001)]).level,
            Severity::Ok
        );
        // As fast as possible, losses are no fault.
        let rush = Burst {
            rate: None,
            ..lossy(500, 0.9)
        };
        assert_eq!(judged(vec![lossy(10, 0.0), rush]).level, Severity::Ok);
        for bursts in [Vec::new(), vec![rush], vec![lossy(10, 1.0)]] {
            let host = HostFacts {
                bursts,
                ..host("web1")
            };
            assert_eq!(judge(&host), []);
        }
    }

    #[test]
    fn disorder_is_told() {
        let late = Burst {
            late: 500,
            ..lossy(100, 0.0)
        };
        let twice = Burst {
            repeated: 100,
            ..lossy(500, 0.0)
        };
        let found = judge(&HostFacts {
            bursts: vec![late, twice],
            ..host("web1")
        });
        let levels: Vec<Severity> = found.iter().map(|finding| finding.level).collect();
        assert_eq!(levels, [Severity::Ok, Severity::Warn, Severity::Warn]);
    }
}
