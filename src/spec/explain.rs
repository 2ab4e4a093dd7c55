//! Explains a spec in plain words, for `makuo check SPEC`.

use std::fmt::Write;

use super::*;
use crate::units::{Floor, shown_duration};

impl Spec {
    /// Explains the spec, defaults included, with one line a subject.
    pub fn explain(&self) -> String {
        let mut out = String::new();
        let mut line = |subject: &str, text: String| {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "{subject:<10} {text}");
        };

        line("spec", printable_path(&self.path));
        line("tree", self.tree.to_string());
        line("source", printable_path(&self.source));
        line("excludes", self.excludes());
        line("deletes", self.deletes());
        line("owner", self.owners());
        line("mode", self.modes());

        line("meta", self.metadata());
        line("targets", self.target_hosts());
        line("commit", self.commit_steps());
        if let Some(command) = &self.commit.notify {
            line(
                "notify",
                format!("{command} reads the result, on this machine"),
            );
        }

        line("transfer", self.transfer_settings());
        if let Some(key) = &self.key {
            line("key", printable_path(key));
        }

        if let Some(after) = self.expires {
            line(
                "expires",
                format!(
                    "hosts refuse the release {} after it was made",
                    shown_duration(after)
                ),
            );
        }

        out
    }

    fn excludes(&self) -> String {
        let mut parts: Vec<String> = self
            .exclude
            .iter()
            .map(|p| printable(p.as_bytes()))
            .collect();

        parts.push(".makuoignore files".to_string());
        if self.gitignore {
            parts.push(".gitignore files".to_string());
        }

        let fate = if self.delete.excluded {
            "removed on the hosts"
        } else {
            "left alone on the hosts"
        };

        format!(
            "{}; matching paths are not sent, and {fate}",
            parts.join(", ")
        )
    }

    fn deletes(&self) -> String {
        if !self.delete.extras {
            return "nothing: extra paths on a host stay, and `makuo diff` lists them".to_string();
        }

        let most = match self.delete.max {
            Limit::Count(n) => format!("at most {n} paths"),
            share if share == Limit::NONE => "without a limit".to_string(),
            share => format!("at most {share} of its paths"),
        };

        let empty = if self.delete.allow_empty {
            "; an empty source empties the tree"
        } else {
            ""
        };

        format!(
            "paths outside the release, {most} on a host, checked before the first change{empty}"
        )
    }

    fn owners(&self) -> String {
        let policy = |what: &str, policy: &OwnerPolicy| match policy {
            OwnerPolicy::Preserve => format!("{what} as in the source"),
            OwnerPolicy::Ignore => format!("{what} not set"),
            OwnerPolicy::Fixed(name) => format!("{what} {}", printable(name.as_bytes())),
        };

        let unknown = match self.owner.unknown {
            UnknownOwner::Fail => "a host without the name refuses the release",
            UnknownOwner::Numeric => "a host without the name uses the number from here",
        };

        format!(
            "{}, {}; {unknown}",
            policy("user", &self.owner.user),
            policy("group", &self.owner.group)
        )
    }

    fn modes(&self) -> String {
        let policy = |what: &str, policy: ModePolicy| match policy {
            ModePolicy::Preserve => format!("{what} as in the source"),
            ModePolicy::Fixed(mode) => format!("{what} {:04o}", mode.bits()),
        };

        format!(
            "{}, {}",
            policy("files", self.mode.files),
            policy("directories", self.mode.dirs)
        )
    }

    fn metadata(&self) -> String {
        let (kept, not): (Vec<_>, Vec<_>) = [
            ("times of modification", self.meta.mtime),
            ("hard links", self.meta.hardlinks),
            ("extended attributes and ACLs", self.meta.xattrs),
        ]
        .into_iter()
        .partition(|(_, kept)| *kept);

        let names = |list: Vec<(&str, bool)>| {
            list.into_iter()
                .map(|(name, _)| name)
                .collect::<Vec<_>>()
                .join(", ")
        };

        match (kept.is_empty(), not.is_empty()) {
            (false, false) => format!("{} kept; {} not", names(kept), names(not)),
            (false, true) => format!("{} kept", names(kept)),
            _ => format!("{} not kept", names(not)),
        }
    }

    fn target_hosts(&self) -> String {
        let hosts = match &self.targets.hosts[..] {
            [] => format!("every member that has the tree {}", self.tree),
            globs => globs
                .iter()
                .map(|g| printable(g.as_bytes()))
                .collect::<Vec<_>>()
                .join(", "),
        };

        match &self.targets.expect {
            None => format!("{hosts}; any number of answers"),
            Some(Expect::Count(n)) => format!("{hosts}; at least {n} must answer"),
            Some(Expect::Known) => {
                format!("{hosts}; those of earlier deploys from here must answer")
            }
            Some(Expect::Names(names)) => {
                let names: Vec<&str> = names.iter().map(HostName::as_str).collect();
                format!("{hosts}; these must answer: {}", names.join(", "))
            }
        }
    }

    fn commit_steps(&self) -> String {
        let staged = match self.commit.require {
            Quorum::All => "once every target has the whole release staged".to_string(),
            Quorum::Share(_) => format!(
                "once {} of the targets have the whole release staged",
                self.commit.require
            ),
            Quorum::Count(n) => format!("once {n} targets have the whole release staged"),
        };

        let layout = match self.commit.layout {
            Layout::InPlace => "file by file in place",
            Layout::Swap => "the whole tree in one exchange",
        };

        let mut parts = vec![staged, layout.to_string()];
        if !self.commit.batches.is_empty() {
            let sizes: Vec<String> = self
                .commit
                .batches
                .iter()
                .map(ToString::to_string)
                .collect();
            parts.push(format!("in batches of {}, then the rest", sizes.join(", ")));
        }

        if self.commit.pause {
            parts.push("each batch after the first by `makuo promote`".to_string());
        }

        parts.push(match (self.commit.on_failure, self.commit.batches.len()) {
            (OnFailure::Stop, 0) => "a failed host is reported".into(),
            (OnFailure::Stop, _) => "after a failure no further batch commits".into(),
            (OnFailure::Revert, _) => {
                "after a failure every host returns to its previous release".into()
            }
        });

        parts.join("; ")
    }

    fn transfer_settings(&self) -> String {
        let rate = self
            .transfer
            .rate
            .map_or("as fast as the network allows".to_string(), |r| {
                format!("at most {r}")
            });

        let compress = match self.transfer.compress {
            Compress::Auto => "compressed where it pays".to_string(),
            Compress::Off => "not compressed".to_string(),
            Compress::Level(level) => format!("compressible blocks at level {level}"),
        };

        let slow = match self.transfer.floor {
            Floor::Share(0) => "no host is too slow".to_string(),
            floor @ Floor::Share(_) => {
                format!("a host below {floor} of the others is served after them")
            }
            floor @ Floor::Rate(_) => format!("a host below {floor} is served after the others"),
        };

        format!("{rate}; {compress}; {slow}")
    }
}
