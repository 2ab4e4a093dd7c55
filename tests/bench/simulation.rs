//! Cost of a transfer by hosts and loss, up to ten thousand hosts, on the simulated network: the
//! same figures on every machine.
//! `cargo bench --bench simulation [-- [--check | --write] [HOSTS...] [LOSS%...]]`
//!
//! `--check` fails if a figure differs from the table in `simulation.txt` or exceeds a bound;
//! `--write` rewrites that table. A case outside the table is checked against the bounds only. Ten
//! thousand hosts take 4 GB of memory and some 3.5 minutes of one core for each loss; a datagram to
//! all hosts is processed on one thread per core.

use std::process::ExitCode;

use makuo::sim::goodput::measure;

const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bench/simulation.txt");
const HOSTS: [usize; 5] = [3, 10, 100, 1000, 10_000];
const LOSSES: [f64; 4] = [0.0, 0.001, 0.01, 0.05];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let is = |flag: &str| arguments.iter().any(|a| a == flag);
    let asked: Vec<usize> = arguments.iter().filter_map(|a| a.parse().ok()).collect();
    let losses: Vec<f64> = arguments
        .iter()
        .filter_map(|a| a.strip_suffix('%')?.parse().ok())
        .collect();

    let is_asked = |loss: f64| {
        losses.is_empty()
            || losses
                .iter()
                .any(|asked| (asked / 100.0 - loss).abs() < 1e-9)
    };

    let expected = std::fs::read_to_string(TABLE).unwrap_or_default();
    let (mut table, mut wrong) = (String::new(), 0);
    for hosts in HOSTS
        .into_iter()
        .filter(|h| asked.is_empty() || asked.contains(h))
    {
        for loss in LOSSES.into_iter().filter(|loss| is_asked(*loss)) {
            let Some(row) = measure(hosts, loss) else {
                println!(
                    "{hosts:>6} hosts {:>4.1} % lost: not every host is complete",
                    loss * 100.0
                );
                wrong += 1;
                continue;
            };
            println!("{row}\n       {}", row.peaks());
            if let Some(bound) = row.broken() {
                println!("       BROKEN: {bound}");
                wrong += 1;
            }
            // The row starts with the hosts and the loss, up to the first figure.
            let figures = row.to_string();
            let case = figures.split_inclusive("lost").next().unwrap_or_default();
            if is("--check")
                && expected
                    .lines()
                    .any(|line| line.starts_with(case) && line != figures)
            {
                println!("       DIFFERS from {TABLE}");
                wrong += 1;
            }
            table += &format!("{row}\n");
        }
    }

    if is("--write")
        && asked.is_empty()
        && losses.is_empty()
        && let Err(e) = std::fs::write(TABLE, table)
    {
        println!("{TABLE}: {e}");
        wrong += 1;
    }

    if is("--check") && wrong > 0 {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}
