//! The live display on a real terminal: rows that are never stale, torn or wrapped, whatever its
//! size, and questions that stay.

use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::{DELETE, Lab, Noise, Terminal, pause, write};

/// Parts of live rows, which stay nowhere.
const LIVE: [&str; 7] = [
    "after ",
    "ready, ",
    "waiting for",
    " left  ",
    "more hosts",
    "[=",
    ": site",
];

/// A deploy of a megabyte, slow enough to be seen.
const SLOW: [&str; 4] = ["deploy", "www.toml", "--rate", "4Mbit"];

fn lab(hosts: usize) -> Option<Lab> {
    let lab = Lab::loopback(hosts)?;
    write(&lab.site().join("big"), Noise::new(7).bytes(1 << 20));
    Some(lab)
}

fn terminal(lab: &Lab, command: &Command, columns: usize, rows: usize) -> Option<Terminal> {
    Terminal::start(&lab.path("."), command, columns, rows)
}

/// Watches the terminal until the command ends: it never shows two displays. Returns the exit code.
#[track_caller]
fn watch(terminal: &Terminal) -> i32 {
    loop {
        let ended = terminal.exit();
        let rows = terminal.rows();
        for live in ["sending  ", " ready, after"] {
            let shown = rows.iter().filter(|row| row.contains(live)).count();
            assert!(shown <= 1, "{live:?} twice:\n{}", rows.join("\n"));
        }
        if let Some(code) = ended {
            return code;
        }
        // Each look is a process.
        pause(Duration::from_millis(10));
    }
}

/// Nothing of the display is left.
#[track_caller]
fn is_clean(terminal: &Terminal) {
    let rows = terminal.rows();
    // A host may tell that it waits for the session before, whose farewell was lost.
    let is_told = |row: &str| row.starts_with("web") && row.contains(": waiting for www@");
    for live in LIVE {
        let stale = rows.iter().find(|row| row.contains(live) && !is_told(row));
        assert_eq!(stale, None, "left on the terminal:\n{}", rows.join("\n"));
    }
}

#[test]
fn a_deploy_shows_one_display_and_leaves_its_result() {
    let Some(lab) = lab(5) else { return };
    for (columns, rows) in [(80, 24), (160, 50), (40, 24)] {
        write(
            &lab.site().join("big"),
            Noise::new(columns as u64).bytes(1 << 20),
        );
        let Some(terminal) = terminal(&lab, &lab.command(&SLOW), columns, rows) else {
            return;
        };

        terminal.shows("sending  ");
        terminal.shows("of 5 hosts ready");
        assert_eq!(watch(&terminal), 0);
        is_clean(&terminal);
        terminal.shows("5 of 5");
    }
    lab.all_same(&lab.site());
}

#[test]
fn fifty_hosts_take_few_rows_and_a_failing_one_is_named() {
    let Some(mut lab) = Lab::loopback_idle() else {
        return;
    };
    lab.spec(&format!("{DELETE}\n[commit]\nrequire = \"50%\"\n"));
    for n in 1..=50 {
        let host = lab.host(&format!("web{n}"));
        if n == 7 {
            host.rule("max_delete = 0");
            write(&host.tree().join("kept"), "kept");
        }
        host.begin();
    }
    lab.hosts.iter_mut().for_each(|host| host.listens());

    for (columns, rows) in [(80, 24), (160, 50), (40, 24)] {
        let content = Noise::new(columns as u64).bytes(1 << 20);
        write(&lab.site().join("big"), content);
        let Some(terminal) = terminal(&lab, &lab.command(&SLOW), columns, rows) else {
            return;
        };
        terminal.shows("more hosts");
        let shown = terminal.rows();
        let hosts = shown.iter().filter(|row| row.starts_with("  web"));
        assert!(hosts.count() <= 8, "{}", shown.join("\n"));
        assert_ne!(watch(&terminal), 0);
        is_clean(&terminal);
        terminal.shows("web7");
    }
}

#[test]
fn a_terminal_that_changes_its_size_shows_no_stale_row() {
    let Some(lab) = lab(3) else { return };
    let Some(terminal) = terminal(&lab, &lab.command(&SLOW), 100, 30) else {
        return;
    };
    terminal.shows("sending  ");

    for columns in [90, 130, 82, 160] {
        terminal.resize(columns, 24);
        pause(Duration::from_millis(200));
        assert!(terminal.count("sending  ") <= 1, "{:?}", terminal.rows());
    }

    assert_eq!(watch(&terminal), 0);
    is_clean(&terminal);
}

/// Runs a command until it shows `phase`.
fn begun(lab: &Lab, command: &Command, phase: &str) -> Option<Terminal> {
    let terminal = terminal(lab, command, 80, 24)?;
    terminal.shows(phase);
    Some(terminal)
}

/// Interrupts a command in `phase`.
#[track_caller]
fn interrupted(lab: &Lab, command: &Command, phase: &str) {
    let Some(terminal) = begun(lab, command, phase) else {
        return;
    };
    terminal.press(&["C-c"]);
    assert_ne!(terminal.ends(), 0, "{phase}");
    is_clean(&terminal);
}

#[test]
fn an_interrupt_before_and_while_it_sends_leaves_a_clean_terminal() {
    let Some(lab) = lab(3) else { return };
    for phase in ["source: ", "sending  "] {
        interrupted(&lab, &lab.command(&SLOW), phase);
    }
}

#[test]
fn an_interrupt_while_hosts_are_asked_for_leaves_a_clean_terminal() {
    let Some(lab) = lab(1) else { return };
    let command = lab.command(&["deploy", "www.toml", "--expect", "2", "--timeout", "60s"]);
    interrupted(&lab, &command, "discovering");
}

#[test]
fn an_interrupt_while_hooks_run_leaves_a_clean_terminal() {
    let Some(mut lab) = lab(2) else { return };
    lab.spec(&format!("{DELETE}\n[commit]\non_failure = \"revert\"\n"));
    lab.deploy(&[]).exits(0);

    let flag = |name: &str| lab.path(name).display().to_string();
    let wait = |name: &str| format!("while [ -e {} ]; do sleep 0.05; done", flag(name));
    let scripts = [
        ("before", wait("hold-before")),
        (
            "health",
            format!("{}; [ ! -e {} ]", wait("hold-health"), flag("sick")),
        ),
        (
            "after",
            format!(
                "[ $MAKUO_CAUSE != revert ] || {{ {}; }}",
                wait("hold-after")
            ),
        ),
    ];
    for host in &mut lab.hosts {
        for (hook, script) in &scripts {
            host.rule(&format!("{hook} = [\"/bin/sh\", \"-c\", {script:?}]"));
        }
        host.rule("health_deadline = \"1s\"\nhealth_interval = \"100ms\"");
        host.restart();
    }

    for (phase, flags) in [
        ("running commands before the commit", &["hold-before"][..]),
        ("checking health", &["hold-health"]),
        ("going back", &["sick", "hold-after"]),
    ] {
        for flag in flags {
            write(&lab.path(flag), "");
        }
        write(&lab.site().join("page"), phase);
        let Some(terminal) = begun(&lab, &lab.command(&SLOW), phase) else {
            return;
        };
        terminal.press(&["C-c"]);
        for flag in flags {
            std::fs::remove_file(lab.path(flag)).expect("there");
        }
        assert_ne!(terminal.ends(), 0, "{phase}");
        is_clean(&terminal);
    }
}

#[test]
fn an_interrupt_in_the_commit_leaves_a_clean_terminal() {
    let Some(mut lab) = lab(2) else { return };
    // The first batch stops the daemon of the second one, whose commit lasts until it goes on.
    let pid = lab.path("pid");
    let script = format!("kill -STOP $(cat {})", pid.display());
    lab.hosts[0].rule(&format!("after = [\"/bin/sh\", \"-c\", {script:?}]"));
    lab.hosts[0].restart();
    write(&pid, lab.hosts[1].pid().to_string());
    lab.spec(&format!("{DELETE}\n[commit]\nbatches = [1]\n"));

    let command = lab.command(&["deploy", "www.toml", "--expect", "2"]);
    let Some(terminal) = begun(&lab, &command, "committing, batch 2 of 2") else {
        return;
    };
    terminal.press(&["C-c"]);
    lab.hosts[1].signal(Signal::SIGCONT);
    terminal.ends();
    terminal.shows("web2");
    is_clean(&terminal);
}

#[test]
fn a_question_for_a_passphrase_stays_until_it_is_answered() {
    let Some(lab) = lab(2) else { return };
    let secret = ["-q", "-p", "-P", "", "-N", "open sesame", "-f"];
    let changed = Command::new("ssh-keygen")
        .args(secret)
        .arg(lab.path("key"))
        .status();
    assert!(changed.expect("runs").success());

    let mut command = lab.command(&["deploy", "www.toml"]);
    command.env_remove("SSH_AUTH_SOCK");
    let Some(terminal) = terminal(&lab, &command, 80, 24) else {
        return;
    };
    terminal.shows("Passphrase of ");
    // Time for any display to draw over it.
    pause(Duration::from_millis(500));
    let rows = terminal.rows();
    assert!(
        rows.last()
            .is_some_and(|row| row.contains("Passphrase of ")),
        "{rows:?}"
    );

    terminal.press(&["open sesame", "Enter"]);
    assert_eq!(terminal.ends(), 0);
    terminal.shows("2 of 2");
    is_clean(&terminal);
}
