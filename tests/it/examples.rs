//! The examples for continuous integration and new machines: every command in them is one that this
//! version takes, and the files that they write are accepted.

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Parser as _;
use makuo::cli::Cli;

use crate::support::{run, skipped, write};

/// Files with commands of makuo, and the fewest that each has.
const EXAMPLES: [(&str, usize); 4] = [
    ("packaging/examples/github.yml", 2),
    ("packaging/examples/gitlab.yml", 3),
    ("packaging/examples/cloud-init.yaml", 1),
    ("packaging/repository/cloud-init.yaml", 1),
];

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Returns the words of a line that runs makuo, as a shell or cloud-init splits it.
fn words(line: &str) -> Option<Vec<String>> {
    let line = line.trim().trim_start_matches("- ");
    let is_list = line.starts_with("[makuo,");
    let line = if is_list {
        line.trim_matches(['[', ']'])
    } else {
        line.split("||").next()?
    };
    line.starts_with("makuo").then_some(())?;

    let split = match is_list {
        true => line.split(", ").collect::<Vec<_>>(),
        false => line.split_whitespace().collect(),
    };
    let clean = |word: &str| word.trim_matches(['"', ',', ' ']).to_string();
    Some(split.into_iter().map(clean).collect())
}

#[test]
fn the_commands_of_the_examples_exist() {
    for (name, fewest) in EXAMPLES {
        let text = text(name);
        let commands: Vec<Vec<String>> = text.lines().filter_map(words).collect();
        assert!(commands.len() >= fewest, "{name}: {commands:?}");
        for command in commands {
            if let Err(e) = Cli::try_parse_from(&command) {
                panic!("{name}: {command:?}: {e}");
            }
        }
    }

    let misspelled = words("- makuo deploy --expekt 3 www.toml").expect("a command");
    assert!(Cli::try_parse_from(misspelled).is_err());
}

#[test]
fn the_examples_are_yaml() {
    let names = EXAMPLES.map(|(name, _)| path(name));
    let mut judge = Command::new("python3");
    judge
        .args([
            "-c",
            "import sys, yaml\nfor name in sys.argv[1:]: yaml.safe_load(open(name))",
        ])
        .args(names);
    let said = judge.output().map(|out| {
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        (out.status.success(), said)
    });
    match said {
        Ok((true, _)) => {}
        Ok((false, said)) if !said.contains("No module named 'yaml'") => panic!("{said}"),
        _ => skipped("no python3 with a parser of YAML"),
    }
}

#[test]
fn the_configuration_of_a_new_machine_is_accepted() {
    let text = text("packaging/examples/cloud-init.yaml");
    let begin = text.find("      [network]").expect("a configuration");
    let end = begin + text[begin..].find("  - path:").expect("the next file");
    let dir = tempfile::tempdir().expect("temp");
    let lines: Vec<&str> = text[begin..end].lines().map(str::trim_start).collect();
    let file = dir.path().join("makuo.toml");
    write(&file, lines.join("\n"));

    let mut check = Command::new(env!("CARGO_BIN_EXE_makuo"));
    run::tool(check.args(["check", "--elsewhere"]).arg(&file));
}
