//! Reads the rules of this machine's firewall with the programs that print them.

use std::io::ErrorKind;
use std::process::{Command, Stdio};

use crate::doctor::firewall::FirewallRules;

/// Programs that print rules. The old iptables has rules beside those of nft.
const PROGRAMS: [(&str, &[&str]); 3] = [
    ("nft", &["list", "ruleset"]),
    ("iptables-save", &[]),
    ("ip6tables-save", &[]),
];
/// Directories of programs for root, which are missing in the search path of others.
const MORE_PATH: &str = "/usr/sbin:/sbin";

/// Rules of this machine's firewall.
pub(super) fn rules() -> FirewallRules {
    let mut read: Option<String> = None;
    let mut is_forbidden = false;
    let path = std::env::var("PATH").unwrap_or_default();
    for (program, args) in PROGRAMS {
        let mut command = Command::new(program);
        command
            .args(args)
            .env("PATH", format!("{path}:{MORE_PATH}"))
            .stdin(Stdio::null());
        match command.output() {
            Ok(output) if output.status.success() => {
                let rules = read.get_or_insert_default();
                rules.push_str(&String::from_utf8_lossy(&output.stdout));
                rules.push('\n');
            }
            Ok(_) => is_forbidden = true,
            Err(e) if e.kind() == ErrorKind::PermissionDenied => is_forbidden = true,
            Err(_) => {}
        }
    }

    match read {
        Some(rules) => FirewallRules::Read(rules),
        None if is_forbidden => FirewallRules::Forbidden,
        None => FirewallRules::Unknown,
    }
}
