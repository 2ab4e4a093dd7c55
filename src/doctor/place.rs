//! Verdict on the keys of a host, and on the filesystems of its trees.

use crate::id::NamedHost;
use crate::outcome::{Check, Finding, Severity};
use crate::units::ByteSize;
use crate::wire::machine::{MachineReport, TreePlace};

/// Free bytes below which a release hardly fits.
const LOW_SPACE: u64 = 64 << 20;
/// Share of a filesystem, as a divisor, below which its free bytes are few.
const FEW_SHARE: u64 = 50;
/// Free inodes below which a release hardly fits.
const FEW_INODES: u64 = 1_000;

/// Judges keys and trees of a host.
pub fn judge(host: &NamedHost, report: &MachineReport) -> Vec<Finding> {
    let mut findings = Vec::new();
    if report.keys == 0 {
        let what = "no key is authorized there: each release is refused";
        let todo = "add the line of the deploy key to authorized_keys there (`makuo keygen` \
                    prints it), then systemctl reload makuo";
        findings.push(Finding::new(Check::Keys, Severity::Fail, what).todo(todo));
    }

    let places = report.trees.iter().flat_map(judge_place);
    findings.extend(places);
    findings
        .into_iter()
        .map(|finding| finding.of(host))
        .collect()
}

/// Judges the place of one tree.
pub fn judge_place(place: &TreePlace) -> Vec<Finding> {
    let tree = &place.tree;
    let is_served = !place.filesystem.is_empty();
    let mut findings = Vec::new();

    match &place.warning {
        Some(warning) if is_served => {
            let todo = "put state_dir on the filesystem of the tree: content is staged there and \
                        renamed into the tree";
            let what = format!("tree {tree}: {warning}");
            findings.push(Finding::new(Check::Filesystem, Severity::Warn, what).todo(todo));
        }
        Some(why) => {
            let what = format!("tree {tree} is not served: {why}");
            let todo = "see the log of the daemon there: journalctl -u makuo";
            findings.push(Finding::new(Check::Filesystem, Severity::Fail, what).todo(todo));
        }
        None if is_served => {
            let abilities = abilities(place);
            let what = format!(
                "tree {tree} and its state are on one {}{abilities}",
                place.filesystem
            );
            findings.push(Finding::new(Check::Filesystem, Severity::Ok, what));
        }
        None => {}
    }

    if is_served {
        findings.push(space(place));
    }
    findings
}

/// What the filesystem can do beyond the usual; empty if nothing was tried.
fn abilities(place: &TreePlace) -> String {
    let exchange = place.exchange.map(|can| match can {
        true => "exchanges two names in one step",
        false => "exchanges no names",
    });
    let reflink = place.reflink.map(|can| match can {
        true => "shares blocks of equal files (reflinks)",
        false => "has no reflinks",
    });
    let known: Vec<&str> = exchange.into_iter().chain(reflink).collect();
    match known.is_empty() {
        true => String::new(),
        false => format!(", which {}", known.join(" and ")),
    }
}

fn space(place: &TreePlace) -> Finding {
    let tree = &place.tree;
    let free = ByteSize(place.free);
    if place.read_only {
        let what = format!("tree {tree}: its filesystem is read-only");
        let todo = "mount it writable: it may have failed, see the kernel's log";
        return Finding::new(Check::Space, Severity::Fail, what).todo(todo);
    }

    let few_bytes = place.free < LOW_SPACE.max(place.size / FEW_SHARE);
    let few_inodes = place.free_inodes.is_some_and(|free| free < FEW_INODES);
    let left = match (few_bytes, few_inodes, place.free_inodes) {
        (true, _, _) => format!("{free}"),
        (false, true, Some(inodes)) => format!("{inodes} inodes"),
        _ => {
            let what = format!("tree {tree}: there is room for releases");
            return Finding::new(Check::Space, Severity::Ok, what);
        }
    };
    let what = format!("tree {tree}: {left} are free on its filesystem");
    let todo = "make room: a release is staged beside the tree before it is put in place";
    Finding::new(Check::Space, Severity::Warn, what).todo(todo)
}

#[cfg(test)]
mod tests {
    use super::super::facts::testing::{host, report};
    use super::*;

    fn judged(change: impl FnOnce(&mut MachineReport)) -> Vec<(Check, Severity)> {
        let mut report = report();
        change(&mut report);
        let found = judge(&host("web1").host, &report);
        let worse = found.iter().filter(|finding| finding.level != Severity::Ok);
        worse.map(|f| (f.check, f.level)).collect()
    }

    #[test]
    fn a_good_place_has_no_word_of_warning() {
        assert_eq!(judged(|_| {}), []);
        assert_eq!(judged(|report| report.trees[0].free_inodes = None), []);
    }

    #[test]
    fn what_the_filesystem_can_do_is_a_fact_and_no_fault() {
        for (exchange, reflink, text) in [
            (None, None, "are on one ext4"),
            (
                Some(true),
                None,
                "one ext4, which exchanges two names in one step",
            ),
            (
                Some(false),
                Some(false),
                "exchanges no names and has no reflinks",
            ),
            (
                Some(true),
                Some(true),
                "in one step and shares blocks of equal files (reflinks)",
            ),
        ] {
            let mut report = report();
            report.trees[0].exchange = exchange;
            report.trees[0].reflink = reflink;
            let found = judge(&host("web1").host, &report);
            let told = found.iter().find(|f| f.check == Check::Filesystem);
            let told = told.expect("a finding");
            assert!(told.what.ends_with(text), "{told:?}");
            assert_eq!(told.level, Severity::Ok);
        }
    }

    #[test]
    fn a_host_without_keys_refuses_everything() {
        let found = judged(|report| report.keys = 0);
        assert_eq!(found, [(Check::Keys, Severity::Fail)]);
    }

    #[test]
    fn state_elsewhere_and_a_tree_that_is_not_served_are_told() {
        let warning = || Some("/srv is not on the filesystem of /var/www".to_string());
        let found = judged(|report| report.trees[0].warning = warning());
        assert_eq!(found, [(Check::Filesystem, Severity::Warn)]);
        let found = judged(|report| {
            report.trees[0].warning = warning();
            report.trees[0].filesystem = String::new();
        });
        assert_eq!(found, [(Check::Filesystem, Severity::Fail)]);
    }

    #[test]
    fn little_room_is_told() {
        let space = |level| vec![(Check::Space, level)];
        assert_eq!(
            judged(|r| r.trees[0].read_only = true),
            space(Severity::Fail)
        );
        assert_eq!(judged(|r| r.trees[0].free = 1 << 20), space(Severity::Warn));
        assert_eq!(judged(|r| r.trees[0].free = 1 << 30), space(Severity::Warn));
        let few = |r: &mut MachineReport| r.trees[0].free_inodes = Some(9);
        assert_eq!(judged(few), space(Severity::Warn));
    }
}
