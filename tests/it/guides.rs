//! Runs the commands of README and of every guide, in their order, on machines of a lab. Every
//! `sh` block runs as it stands, unless a mark says how; see tests/support/document.rs.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::machines::built_source;
use crate::support::run::try_tool;
use crate::support::{Block, Document, Machines, pause, skipped};

/// The most of all `sh` blocks that may be skipped, in percent.
const MAX_SKIPPED_PERCENT: usize = 25;
/// How often a block with the mark `retry` runs, with a pause in between.
const TRIES: usize = 150;
const PAUSE: std::time::Duration = std::time::Duration::from_millis(200);

fn path(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    match name {
        "README.md" => root.join(name),
        _ => root.join("packaging/guide").join(name),
    }
}

fn document(name: &str) -> Document {
    Document::parse(&std::fs::read_to_string(path(name)).expect("readable"))
}

/// Runs the commands of a document, and before them those of the one that it begins after.
fn run(name: &str) -> Option<Machines> {
    let asked = document(name);
    let before = asked.word("begins after:").map(document);
    let first = before.as_ref().unwrap_or(&asked);
    let named = first.word("machines:").expect("names of machines");
    let names: Vec<&str> = named.split(' ').collect();
    let mut machines = match Machines::start(&names, built_source) {
        Ok(machines) => machines,
        Err(why) => {
            skipped(&why);
            return None;
        }
    };

    machines.run(names[0], "cd makuo");
    let blocks = before.iter().flat_map(install).chain(asked.runs());
    let mut said = String::new();
    for block in blocks.filter(|block| !is_skipped(block)) {
        for (word, verb) in [("crash ", "crash"), ("boot ", "boot")] {
            if let Some(machine) = block.word(word) {
                let (code, said) = machines.run(machine, &format!("systemctl {verb}"));
                assert_eq!(code, 0, "{name}:{}: {verb}:\n{said}", block.line);
            }
        }

        let at = format!("{name}:{}", block.line);
        match block.kind.as_str() {
            "sh" => said = run_block(&mut machines, names[0], block, &at),
            "text" => shows(&said, &block.text, &at),
            _ => {}
        }
    }

    Some(machines)
}

/// Returns whether a test cannot run a block. The mark `ci:test` is that of the test command itself.
fn is_skipped(block: &Block) -> bool {
    block.word("skip:").is_some() || block.word("ci:test").is_some()
}

/// Returns the blocks of a document's first part: all before the heading of its everyday commands.
fn install(document: &Document) -> &[Block] {
    let text = std::fs::read_to_string(path("README.md")).expect("readable");
    let mut lines = (1..).zip(text.lines());
    let end = lines.find(|(_, line)| line.starts_with("## Everyday"));
    let (end, _) = end.expect("a heading");
    let count = document
        .blocks
        .iter()
        .filter(|block| block.line < end)
        .count();
    &document.blocks[..count]
}

fn run_block(machines: &mut Machines, first: &str, block: &Block, at: &str) -> String {
    let machine = block.word("on ").unwrap_or(first);
    let wanted: i32 = block
        .word("exit ")
        .map_or(0, |code| code.parse().expect("a number"));
    let tries = if block.marks.iter().any(|mark| mark == "retry") {
        TRIES
    } else {
        1
    };

    let mut last = (0, String::new());
    for number in 0..tries {
        if number > 0 {
            pause(PAUSE);
        }
        last = machines.run(machine, &block.text);
        if last.0 == wanted {
            return last.1;
        }
    }

    let (code, said) = last;
    panic!(
        "{at}: on {machine}: exit code {code}, not {wanted}:\n{}---\n{said}",
        block.text
    );
}

/// Fails unless the output has the lines of `text`, in their order. `...` stands for any text, and
/// columns may differ in width.
fn shows(said: &str, text: &str, at: &str) {
    let squeeze = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut lines = said.lines().map(squeeze);
    for wanted in text.lines().map(squeeze) {
        let found = lines.any(|line| is_like(&line, &wanted));
        assert!(found, "{at}: no line {wanted:?} in\n{said}");
    }
}

fn is_like(line: &str, wanted: &str) -> bool {
    let parts: Vec<&str> = wanted.split("...").collect();
    let Some((first, others)) = parts.split_first() else {
        return false;
    };
    let Some(mut rest) = line.strip_prefix(first) else {
        return false;
    };
    for part in others {
        match rest.find(part) {
            Some(start) => rest = &rest[start + part.len()..],
            None => return false,
        }
    }

    rest.is_empty() || wanted.ends_with("...")
}

#[test]
fn a_shape_is_told_from_another() {
    assert!(is_like(
        "web1 committed www@1 0.2 s",
        "web1 committed www@1 ..."
    ));
    assert!(is_like("a 12 b", "a ... b") && is_like("a", "a"));
    assert!(!is_like("a 12 c", "a ... b") && !is_like("ab", "a") && !is_like("b", "a"));
}

#[test]
fn the_readme_leads_from_nothing_to_three_hosts() {
    run("README.md");
}

#[test]
fn first_fleet() {
    run("first-fleet.md");
}

#[test]
fn canaries_health_rollback() {
    run("canaries-health-rollback.md");
}

#[test]
fn live_trees() {
    run("live-trees.md");
}

#[test]
fn repository() {
    run("repository.md");
}

#[test]
fn security() {
    run("security.md");
}

#[test]
fn monitoring() {
    run("monitoring.md");
}

#[test]
fn clouds_and_sites() {
    run("clouds-and-sites.md");
}

#[test]
fn coming_from() {
    run("coming-from.md");
}

#[test]
fn when_things_go_wrong() {
    run("when-things-go-wrong.md");
}

/// After take-over and return, every line that the service wrote on either server is in the tree or
/// in the copy that the guide keeps, and a change is released once.
#[test]
fn pairs_lose_no_write_and_make_no_loop() {
    let Some(mut machines) = run("pairs.md") else {
        return;
    };
    let mut on = |machine: &str, script: &str| -> String {
        let (code, said) = machines.run(machine, script);
        assert_eq!(code, 0, "on {machine}: {script}\n{said}");
        let lines = said.lines().filter(|line| !line.starts_with('+'));
        lines.map(|line| format!("{line}\n")).collect()
    };

    on("north", "systemctl stop app@shop app@wiki");
    on("south", "systemctl stop app@shop app@wiki");
    let kept = on("north", "cat /srv/shop/log /srv/shop.before-*/log");
    let kept: std::collections::HashSet<&str> = kept.lines().collect();
    for machine in ["north", "south"] {
        let written = on(machine, "cat /var/tmp/shop.written");
        let lost: Vec<&str> = written
            .lines()
            .filter(|line| !kept.contains(line))
            .collect();
        assert!(
            written.lines().count() > 1 && lost.is_empty(),
            "{machine}: lost {lost:?}"
        );
    }

    let number = "makuo status --json shop | sed -n 's/.*\"host\":\"south\".*\"serial\":\\([0-9]*\\).*/\\1/p'";
    let same =
        "i=0; until makuo diff /etc/makuo/watch/shop.toml; do i=$((i+1)); test $i -lt 50; done";
    on("north", same);
    let before: u64 = on("north", number).trim().parse().expect("a serial");
    on("north", "echo once >/srv/shop/once; sleep 2");
    on("north", same);
    let after: u64 = on("north", number).trim().parse().expect("a serial");
    assert_eq!(after, before + 1, "a change was released more than once");
    assert_eq!(on("south", "cat /srv/shop/once"), "once\n");

    // A server that does not hear the other one starts nothing, until it does or a person decides.
    let boot = "systemctl crash; systemctl boot; if owns shop || systemctl is-active app@shop; then exit 1; fi";
    let keep = "i=0; until env -i PATH=/usr/bin:/bin /usr/local/sbin/keep; systemctl is-active app@shop; do \
                i=$((i+1)); test $i -lt 50; done";
    on("south", "systemctl stop makuo");
    on("north", boot);
    on("south", "systemctl start makuo");
    on("north", keep);
    on("south", "systemctl stop makuo");
    on("north", boot);
    on("north", "take shop && systemctl is-active app@shop");
}

/// What cannot run is at least legal: shell syntax, and commands and options of makuo.
#[test]
fn skipped_blocks_are_few_and_legal() {
    let guides = std::fs::read_dir(path("").as_path()).expect("readable");
    let names = guides.map(|entry| entry.expect("readable").file_name());
    let names = names.map(|name| name.into_string().expect("UTF-8"));
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".md")).collect();
    names.push("README.md".to_string());
    let (mut all, mut skipped) = (0, 0);
    for name in &names {
        for block in document(name)
            .blocks
            .iter()
            .filter(|block| block.kind == "sh")
        {
            all += 1;
            let Some(reason) = block.word("skip:") else {
                continue;
            };
            skipped += 1;
            let at = format!("{name}:{}", block.line);
            assert!(!reason.is_empty(), "{at}: no reason");
            try_tool(Command::new("sh").args(["-n", "-c", &block.text])).expect(&at);
            block.text.lines().for_each(|line| parses(line, &at));
        }
    }

    let percent = skipped * 100 / all;
    assert!(
        percent <= MAX_SKIPPED_PERCENT,
        "{skipped} of {all} blocks are skipped"
    );
}

/// Fails if makuo does not know a command or an option of this line.
fn parses(line: &str, at: &str) {
    let Some(words) = line.trim().strip_prefix("makuo ") else {
        return;
    };
    let script = format!(
        "\"$0\" {} --help",
        words.split(" #").next().unwrap_or(words)
    );
    let mut command = Command::new("sh");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_makuo")]);
    try_tool(&mut command).unwrap_or_else(|why| panic!("{at}: {line}: {why}"));
}
