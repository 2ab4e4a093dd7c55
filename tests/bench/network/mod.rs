//! The runner: selection of cases, isolation, and the final table.

mod cases;
mod ceiling;
mod change;
pub mod fabric;
pub mod fleet;
pub mod inside;
pub mod job;
pub mod material;
mod page;
mod peers;
mod repository;
pub mod row;
mod slow;
mod stream;
mod text;
pub mod timed;
pub mod trouble;
mod unicast;

use std::process::ExitCode;

use clap::Parser;

use row::Row;

/// Size of the file of random data in most cases.
const PAYLOAD: u64 = 256_000_000;

/// Measures makuo on a network of namespaces, beside rsync, uftp and udpcast.
#[derive(Debug, Parser)]
#[command(name = "cargo bench --bench network --")]
pub struct Args {
    /// Cases to run, in this order; unicast is all that begin with it [default: all]
    #[arg(value_name = "CASE", value_parser = clap::builder::PossibleValuesParser::new(cases::choices()))]
    cases: Vec<String>,
    /// Runs per tool; the median counts
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// Only makuo
    #[arg(long)]
    no_peers: bool,
    /// A few MB at 20 Mbit and few hosts in the cases of unicast: shows that they run
    #[arg(long)]
    small: bool,
    /// One JSON object a row instead of the table
    #[arg(long)]
    json: bool,
    /// Flag added by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Settings for all cases.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    pub runs: usize,
    pub peers: bool,
    /// Whether the cases of unicast only show that they run.
    pub small: bool,
}

pub fn main() -> ExitCode {
    let args = Args::parse();
    if !args.bench {
        println!("skipped: this measures for minutes; run it with cargo bench --bench network");
        return ExitCode::SUCCESS;
    }

    match inside::enter() {
        inside::Entered::Here => run(&args),
        inside::Entered::Over(code) => ExitCode::from(code),
        inside::Entered::Impossible(why) => {
            println!("skipped: {why}");
            ExitCode::SUCCESS
        }
    }
}

fn run(args: &Args) -> ExitCode {
    let settings = Settings {
        runs: args.runs as usize,
        peers: !args.no_peers,
        small: args.small,
    };

    let names = if args.cases.is_empty() {
        cases::names()
    } else {
        args.cases
            .iter()
            .flat_map(|name| cases::named(name))
            .collect()
    };

    if !settings.small {
        inside::warm(cases::memory(&names));
    }

    let mut rows: Vec<Row> = Vec::new();
    for name in names {
        for row in cases::run(name, settings) {
            if args.json {
                println!("{}", row.json());
            }
            rows.push(row);
        }
    }

    if !args.json {
        print!("{}", row::table(&rows));
    }

    ExitCode::from(u8::from(rows.iter().any(Row::is_wrong)))
}

/// Prints progress on standard error.
pub fn say(what: &str) {
    eprintln!("{what}");
}
