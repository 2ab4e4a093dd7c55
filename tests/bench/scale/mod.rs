//! The runner: selection of cases, places of their trees, and the final table.

mod first;
mod large;
mod measure;
mod million;
mod piece;
mod place;
mod walk;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use crate::network::row::{self, Row};
use crate::network::{Settings, inside};
use place::Ground;

/// Measures makuo on large trees and small changes.
#[derive(Debug, Parser)]
#[command(name = "cargo bench --bench scale --")]
struct Args {
    /// Cases to run, in this order [default: all]
    #[arg(value_name = "CASE", value_parser = clap::builder::PossibleValuesParser::new(names()))]
    cases: Vec<String>,
    /// Runs per measurement; the median counts
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// Files of the case `million`
    #[arg(long, value_name = "N", default_value = "1000000", value_parser = clap::value_parser!(u64).range(1..))]
    files: u64,
    /// Directory for the trees of the case `million` [default: in memory]
    #[arg(long, value_name = "DIR", env = "MAKUO_BENCH_DIR")]
    dir: Option<PathBuf>,
    /// Keep the trees in that directory for the next run
    #[arg(long, requires = "dir")]
    keep: bool,
    /// A directory on a disk, for the cases that need one [default: target]
    #[arg(long, value_name = "DIR", env = "MAKUO_BENCH_DISK")]
    disk: Option<PathBuf>,
    /// One JSON object a row instead of the table
    #[arg(long)]
    json: bool,
    /// Flag added by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

/// A case: its name and its function.
type Case = (&'static str, fn(&Ground, Settings) -> Vec<Row>);

const CASES: [Case; 5] = [
    ("million", million::million),
    ("first", first::first),
    ("insert", piece::insert),
    ("rename", piece::rename),
    ("large", large::large),
];

fn names() -> [&'static str; 5] {
    CASES.map(|(name, _)| name)
}

pub fn main() -> ExitCode {
    if let Some(code) = measure::served() {
        return code;
    }

    let args = Args::parse();
    if !args.bench {
        println!("skipped: this measures for minutes; run it with cargo bench --bench scale");
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
        peers: false,
        small: false,
    };

    let target = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/target"));
    let ground = Ground {
        files: args.files as usize,
        dir: args.dir.clone(),
        keep: args.keep,
        disk: args.disk.clone().unwrap_or_else(target),
    };

    let is_asked = |name: &str| args.cases.is_empty() || args.cases.iter().any(|case| case == name);
    let mut rows: Vec<Row> = Vec::new();
    for (_, case) in CASES.iter().filter(|(name, _)| is_asked(name)) {
        for row in case(&ground, settings) {
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
