//! Bash completion with a running daemon: hosts, trees and specs.

use std::process::Command;

use crate::support::run::try_tool;
use crate::support::{Lab, skipped, until, write};

/// Loads the committed script and completes the command line given as arguments; the last one is
/// incomplete.
const COMPLETE: &str = r#"
makuo() { "$MAKUO" "$@"; }
source "$SCRIPT"
complete -p makuo | grep -q -- '-F _makuo_live' || exit 9
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMP_POINT=${#COMP_LINE} COMPREPLY=()
_makuo_live makuo "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}" 2>/dev/null
printf '%s\n' "${COMPREPLY[@]}"
"#;

#[test]
fn bash_completes_what_the_daemon_knows() {
    if let Err(why) = try_tool(Command::new("bash").arg("--version")) {
        return skipped(&why);
    }
    let Some(lab) = Lab::loopback(3) else { return };
    for file in [
        "here/site.toml",
        "here/notes.txt",
        "here/specs/x.toml",
        "here/manifests/www.toml",
    ] {
        write(&lab.path(file), "");
    }
    let complete = |words: &[&str]| -> Vec<String> {
        let mut command = Command::new("bash");
        command
            .args(["--norc", "-c", COMPLETE, "bash"])
            .args(words)
            .current_dir(lab.path("here"));
        command.env(
            "SCRIPT",
            concat!(env!("CARGO_MANIFEST_DIR"), "/completions/makuo.bash"),
        );
        command
            .env("MAKUO", env!("CARGO_BIN_EXE_makuo"))
            .env("MAKUO_CONFIG", lab.hosts[0].config_path());
        let out = try_tool(&mut command).expect("bash");
        out.lines()
            .filter(|line| !line.is_empty())
            .map(String::from)
            .collect()
    };
    until("members", || {
        complete(&["makuo", "deploy", "-t", ""]).len() == 2
    });
    assert_eq!(complete(&["makuo", "deploy", "-t", ""]), ["web2", "web3"]);
    assert_eq!(
        complete(&["makuo", "send", "-r", "--target", "web3"]),
        ["web3"]
    );
    for command in ["rollback", "log", "status"] {
        assert_eq!(complete(&["makuo", command, "w"]), ["www"], "{command}");
    }
    assert_eq!(complete(&["makuo", "-v", "send", "--tree", ""]), ["www"]);
    assert_eq!(complete(&["makuo", "deploy", "s"]), ["site.toml", "specs"]);
    let specs = complete(&["makuo", "diff", ""]);
    assert!(
        specs.contains(&"manifests/www.toml".into()) && !specs.contains(&"notes.txt".into()),
        "{specs:?}"
    );
    // Flags and commands are completed as before.
    assert_eq!(complete(&["makuo", "roll"]), ["rollback"]);
    assert!(complete(&["makuo", "deploy", "--dry"]).contains(&"--dry-run".into()));
}
