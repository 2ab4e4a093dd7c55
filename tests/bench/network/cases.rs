//! The cases of whole transfers, and the list of all cases.

use super::fabric::Line;
use super::job::{ALL, Done, Job, MAKUO, Tool};
use super::material::Material;
use super::row::{Check, Row};
use super::{PAYLOAD, Settings, ceiling, change, page, repository, slow, stream, unicast};

/// A case: its name, the hosts of its largest network, the bytes per host, and its function.
struct Case {
    name: &'static str,
    hosts: u64,
    bytes: u64,
    run: fn(Settings) -> Vec<Row>,
}

const CASES: &[Case] = &[
    case("500mbit", 10, PAYLOAD, half_gbit),
    case("gbit", 10, PAYLOAD, gbit),
    case("free", 10, PAYLOAD, free),
    case("loss", 5, PAYLOAD, loss),
    case("small", 5, 82_000_000, small),
    case("slow", 5, PAYLOAD, slow::slow),
    case("text", 3, TEXT, text),
    case("one-change", 5, 82_000_000, change::one_change),
    case("tcp", 5, PAYLOAD, stream::tcp),
    case("ceiling", 2, PAYLOAD, ceiling::ceiling),
    case("page", 3, PAYLOAD, page::page),
    case("repository", 10, PAYLOAD, repository::repository),
    case(
        "unicast-200mbit",
        10,
        unicast::PAYLOAD,
        unicast::at_200_mbit,
    ),
    case("unicast-500mbit", 10, PAYLOAD, unicast::at_500_mbit),
    case("unicast-loss", 10, unicast::PAYLOAD, unicast::with_loss),
    case(
        "unicast-killed",
        10,
        unicast::PAYLOAD,
        unicast::relay_killed,
    ),
    case(
        "unicast-stopped",
        10,
        unicast::PAYLOAD,
        unicast::relay_stopped,
    ),
    case("unicast-slow", 10, unicast::PAYLOAD, unicast::relay_slow),
    case("unicast-segments", 10, unicast::PAYLOAD, unicast::segments),
    case(
        "unicast-one-change",
        5,
        82_000_000,
        change::one_change_by_unicast,
    ),
];

/// Name for all cases without multicast, and the beginning of their names.
const UNICAST: &str = "unicast";

const fn case(name: &'static str, hosts: u64, bytes: u64, run: fn(Settings) -> Vec<Row>) -> Case {
    Case {
        name,
        hosts,
        bytes,
        run,
    }
}

/// Bytes of the case with text.
const TEXT: u64 = 100_000_000;

/// Returns the names of all cases, in running order.
pub fn names() -> Vec<&'static str> {
    CASES.iter().map(|case| case.name).collect()
}

/// Returns the names that a command line can choose.
pub fn choices() -> Vec<&'static str> {
    names().into_iter().chain([UNICAST]).collect()
}

/// Returns the names of the cases that `choice` stands for.
pub fn named(choice: &str) -> Vec<&'static str> {
    let is_meant = |name: &&str| match choice {
        UNICAST => name.starts_with(UNICAST),
        _ => *name == choice,
    };
    names().into_iter().filter(is_meant).collect()
}

/// Returns the memory needed by the largest of the given cases.
pub fn memory(names: &[&str]) -> u64 {
    let chosen = CASES.iter().filter(|case| names.contains(&case.name));
    chosen
        .map(|case| (case.hosts + 2) * case.bytes)
        .max()
        .unwrap_or(0)
}

/// Runs one case.
pub fn run(name: &str, settings: Settings) -> Vec<Row> {
    CASES
        .iter()
        .find(|case| case.name == name)
        .map_or_else(Vec::new, |case| (case.run)(settings))
}

/// Returns the seconds that a line needs for `bytes` without headers.
pub fn line_time(bytes: u64, mbit: u32) -> f64 {
    bytes as f64 * 8.0 / (f64::from(mbit) * 1e6)
}

/// Returns ports with a rate, and hosts with a loss in per cent.
pub fn shaped(mbit: u32, loss: u32) -> Line {
    Line {
        mbit: Some(mbit),
        loss,
        no_multicast: false,
    }
}

/// Measures a transfer on a line with a rate: rows of all tools, with a limit on makuo's time
/// relative to the line's.
fn transfer(
    case: &'static str,
    what: &str,
    job: &Job,
    tools: &[Tool],
    most: Option<f64>,
    settings: Settings,
) -> Vec<Row> {
    let bound = job
        .line
        .mbit
        .map(|mbit| line_time(job.material.bytes, mbit));
    let title = format!("{case} {what}");
    let row = |done: &Done| {
        let mut row = Row::new(case, what, job.hosts, done, job.material.bytes, bound);
        if !row.is_peer() {
            row.require(
                row.ratio
                    .zip(most)
                    .map(|(ratio, most)| Check::under("time", ratio, most)),
            );
        }
        row
    };

    job.measure(title.trim_end(), tools, settings)
        .iter()
        .map(row)
        .collect()
}

fn half_gbit(settings: Settings) -> Vec<Row> {
    let material = Material::noise(500, PAYLOAD);
    let mut rows: Vec<Row> = Vec::new();
    let mut few = None;
    for hosts in [2, 5, 10] {
        let job = Job {
            material: &material,
            hosts,
            line: shaped(500, 0),
            flags: &[],
        };
        let mut more = transfer("500mbit", "", &job, &ALL, Some(1.15), settings);
        let mine = more.iter_mut().find(|row| !row.is_peer());
        if let Some(row) = mine {
            match hosts {
                2 => few = row.median(),
                10 => row.require(
                    row.median()
                        .zip(few)
                        .map(|(m, few)| Check::under("of 2 hosts", m / few, 1.04)),
                ),
                _ => {}
            }
        }
        rows.extend(more);
    }

    rows
}

fn gbit(settings: Settings) -> Vec<Row> {
    let material = Material::noise(1000, PAYLOAD);
    let each = [(5, 1.25), (10, 1.5)]
        .into_iter()
        .flat_map(|(hosts, most)| {
            let job = Job {
                material: &material,
                hosts,
                line: shaped(1000, 0),
                flags: &[],
            };
            transfer("gbit", "", &job, &ALL, Some(most), settings)
        });
    each.collect()
}

fn free(settings: Settings) -> Vec<Row> {
    let material = Material::noise(1, PAYLOAD);
    let each = [(3, 1.8), (10, 1.0)].into_iter().flat_map(|(hosts, most)| {
        let job = Job {
            material: &material,
            hosts,
            line: Line::default(),
            flags: &[],
        };
        let mut rows = transfer("free", "", &job, &ALL, None, settings);
        let rsync = rows
            .iter()
            .find(|row| row.tool == Tool::Rsync.name())
            .and_then(Row::median);
        for row in &mut rows {
            row.ratio = row.median().zip(rsync).map(|(m, rsync)| m / rsync);
            if !row.is_peer() {
                row.require(row.ratio.map(|ratio| Check::under("of rsync", ratio, most)));
            }
        }
        rows
    });

    each.collect()
}

fn loss(settings: Settings) -> Vec<Row> {
    let material = Material::noise(2, PAYLOAD);
    let each = [(1, 1.20, 1.06), (5, 1.40, 1.15)]
        .into_iter()
        .flat_map(|(percent, most, wire)| {
            let job = Job {
                material: &material,
                hosts: 5,
                line: shaped(500, percent),
                flags: &[],
            };
            let what = format!("{percent} % lost");
            let mut rows = transfer("loss", &what, &job, &ALL, Some(most), settings);
            for row in rows.iter_mut().filter(|row| !row.is_peer()) {
                row.require(
                    row.interface
                        .map(|sent| Check::under("interface's bytes", sent, wire)),
                );
            }
            rows
        });

    each.collect()
}

fn small(settings: Settings) -> Vec<Row> {
    let material = Material::small(3, 10_000, 8192);
    let job = Job {
        material: &material,
        hosts: 5,
        line: shaped(500, 0),
        flags: &[],
    };

    transfer("small", "10000 files", &job, &ALL, Some(1.5), settings)
}

fn text(settings: Settings) -> Vec<Row> {
    let material = Material::text(4, TEXT);
    let job = Job {
        material: &material,
        hosts: 3,
        line: shaped(100, 0),
        flags: &[],
    };

    let tools = [MAKUO, Tool::RsyncCompressed, Tool::Uftp, Tool::Udpcast];
    let mut rows = transfer("text", "text", &job, &tools, Some(0.5), settings);

    const COMPRESS: [Tool; 2] = [
        Tool::Makuo("[transfer]\ncompress = \"off\"\n"),
        Tool::Makuo("[transfer]\ncompress = \"auto\"\n"),
    ];

    let noise = Material::noise(5, TEXT);
    let job = Job {
        material: &noise,
        ..job
    };

    let mut both = transfer("text", "random", &job, &COMPRESS, None, settings);
    if let [off, auto] = both.as_mut_slice() {
        off.what = "random, compress off".into();
        auto.what = "random, compress auto".into();
        let medians = auto.median().zip(off.median());
        auto.require(medians.map(|(auto, off)| Check::under("of off", auto / off, 1.03)));
    }

    rows.extend(both);
    rows
}
