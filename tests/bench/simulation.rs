//! Cost of a transfer by hosts and loss, up to ten thousand hosts, on the simulated network: the
//! same figures on every machine.
//! `cargo bench --bench simulation [-- [--check | --write] [unicast] [HOSTS...] [LOSS%...] [Ng]]`
//!
//! `--check` fails if a figure differs from the table in `simulation.txt` or exceeds a bound;
//! `--write` rewrites that table. A case outside the table is checked against the bounds only. Ten
//! thousand hosts take 4 GB of memory and some 3.5 minutes of one core for each loss; a datagram to
//! all hosts is processed on one thread per core.
//!
//! `unicast` leaves only the cases without multicast, `Ng` sets their payload to N generations. A
//! thousand hosts get ten of them, 31 MB: few enough for 13 GB of memory and some four minutes of
//! one core, and so many that each relay has several turns and no single train shows.

use std::process::ExitCode;

use makuo::sim::goodput::measure;
use makuo::sim::unicast_cost::measure_unicast;

const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bench/simulation.txt");
const HOSTS: [usize; 5] = [3, 10, 100, 1000, 10_000];
const LOSSES: [f64; 4] = [0.0, 0.001, 0.01, 0.05];
/// Hosts without multicast, and generations of the payload.
const UNICAST_HOSTS: [(usize, usize); 3] = [(10, 8), (100, 8), (1000, 10)];
const UNICAST_LOSS: f64 = 0.01;

/// Rows measured so far.
struct Table {
    /// Rows as stored.
    expected: String,
    rows: String,
    checks: bool,
    wrong: usize,
}

impl Table {
    /// Takes the row of a transfer, with the bound that it breaks; `None` for one that failed.
    fn take(&mut self, case: &str, row: Option<(String, Option<String>)>) {
        let Some((row, broken)) = row else {
            println!("{case}: not every host is complete");
            self.wrong += 1;
            return;
        };

        println!("{row}");
        if let Some(bound) = broken {
            println!("       BROKEN: {bound}");
            self.wrong += 1;
        }

        // The row starts with the hosts and the loss, up to the first figure.
        let case = row.split_inclusive("lost").next().unwrap_or_default();
        let differs = |line: &str| line.starts_with(case) && line != row;
        if self.checks && self.expected.lines().any(differs) {
            println!("       DIFFERS from {TABLE}");
            self.wrong += 1;
        }

        self.rows += &format!("{row}\n");
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let is = |flag: &str| arguments.iter().any(|a| a == flag);
    let asked: Vec<usize> = arguments.iter().filter_map(|a| a.parse().ok()).collect();
    let losses: Vec<f64> = arguments
        .iter()
        .filter_map(|a| a.strip_suffix('%')?.parse().ok())
        .collect();

    let generations: Option<usize> = arguments
        .iter()
        .find_map(|a| a.strip_suffix('g')?.parse().ok());

    let is_asked = |hosts: usize, loss: f64| {
        let same = |asked: &f64| (asked / 100.0 - loss).abs() < 1e-9;
        (asked.is_empty() || asked.contains(&hosts))
            && (losses.is_empty() || losses.iter().any(same))
    };

    let mut table = Table {
        expected: std::fs::read_to_string(TABLE).unwrap_or_default(),
        rows: String::new(),
        checks: is("--check"),
        wrong: 0,
    };

    let cases = HOSTS.map(|hosts| LOSSES.map(|loss| (hosts, loss)));
    for (hosts, loss) in cases.into_iter().flatten().filter(|_| !is("unicast")) {
        if is_asked(hosts, loss) {
            let row = measure(hosts, loss);
            let peaks = row.map(|row| row.peaks()).unwrap_or_default();
            let case = format!("{hosts:>6} hosts {:>4.1} % lost", loss * 100.0);
            table.take(&case, row.map(|row| (row.to_string(), row.broken())));
            println!("       {peaks}");
        }
    }

    for (hosts, usual) in UNICAST_HOSTS {
        if is_asked(hosts, UNICAST_LOSS) {
            let row = measure_unicast(hosts, UNICAST_LOSS, generations.unwrap_or(usual));
            let messages = row.as_ref().map(|row| row.details());
            let case = format!(
                "unicast {hosts:>5} hosts {:>4.1} % lost",
                UNICAST_LOSS * 100.0
            );
            table.take(&case, row.map(|row| (row.to_string(), row.broken())));
            println!("       {}", messages.unwrap_or_default());
        }
    }

    if is("--write")
        && asked.is_empty()
        && losses.is_empty()
        && !is("unicast")
        && let Err(e) = std::fs::write(TABLE, &table.rows)
    {
        println!("{TABLE}: {e}");
        table.wrong += 1;
    }

    match is("--check") && table.wrong > 0 {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    }
}
