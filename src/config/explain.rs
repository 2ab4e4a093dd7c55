//! Explains a host's configuration in plain words, for `makuo check CONFIG`.

use std::fmt::Write;

use super::*;
use crate::hook::{Health, Phase, seconds};
use crate::units::{printable, printable_path, shown_duration};

impl HostConfig {
    /// Explains the configuration, defaults included, with one line a subject.
    pub fn explain(&self) -> String {
        let mut out = String::new();
        let mut line = |subject: &str, text: String| {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "{subject:<10} {text}");
        };

        line("config", printable_path(&self.path));
        line(
            "host",
            self.name
                .as_ref()
                .map_or("the system's host name".to_string(), |n| n.to_string()),
        );

        if !self.labels.is_empty() {
            line(
                "labels",
                format!("{}: targets and batches may select by them", self.labels),
            );
        }

        line(
            "keys",
            format!(
                "{}: who may deploy, audit and roll back",
                printable_path(&self.authorized_keys)
            ),
        );

        line(
            "state",
            self.state_dir.as_deref().map_or(
                ".makuo/TREE beside each tree, inside one that is a mount point".to_string(),
                printable_path,
            ),
        );

        line("socket", printable_path(&self.socket));
        if let Some(group) = &self.socket_group {
            line(
                "",
                format!(
                    "members of the group {} may use it, and send",
                    printable(group.as_bytes())
                ),
            );
        }

        let key = self.sender_key.as_deref().map_or_else(
            || format!("{DEFAULT_SENDER_KEY}, if it exists"),
            printable_path,
        );
        line(
            "sender",
            format!("signs releases from this host with {key}"),
        );
        line("console", self.console.explain());
        line("metrics", self.metrics.explain());
        line("network", self.network.explain());
        if let Some(segment) = &self.network.segment {
            let others = "hosts with another segment get unicast";
            line(
                "segment",
                format!("{segment}: hosts with this word share multicast; {others}"),
            );
        }

        if self.trees.is_empty() {
            line(
                "tree",
                "none: this host can send, and receives nothing".to_string(),
            );
        }

        for tree in &self.trees {
            line("tree", tree.explain());
            tree.explain_hooks(&mut line);
        }

        out
    }
}

impl ConsoleConfig {
    fn explain(&self) -> String {
        let mut places = match self.listen {
            ConsoleListen::Default | ConsoleListen::Off => Vec::new(),
            ConsoleListen::At(at) => vec![at.to_string()],
        };

        places.extend(self.socket.as_deref().map(printable_path));
        let rules = match (&self.password, self.listen) {
            (Some(_), _) => "; asks for a password",
            (None, ConsoleListen::At(_)) => {
                "; changes nothing on other hosts over TCP without a password"
            }
            (None, _) => "",
        };

        if places.is_empty() {
            "off".to_string()
        } else {
            places.join(" and ") + rules
        }
    }
}

impl MetricsConfig {
    fn explain(&self) -> String {
        let Some(address) = self.listen else {
            return "off".to_string();
        };

        let readers = match address.ip().is_loopback() {
            true => "programs on this machine may read it",
            false => "everybody who reaches that address may read it",
        };
        let names = match self.names.is_empty() {
            true => String::new(),
            false => format!(", also as {}", self.names.join(", ")),
        };
        format!("http://{address}/metrics, the fleet on http://{address}/{names}; {readers}")
    }
}

impl NetworkConfig {
    fn explain(&self) -> String {
        let names: Vec<String> = self
            .interfaces
            .iter()
            .map(|i| printable(i.as_bytes()))
            .collect();

        let interface = match names.as_slice() {
            [] if !self.multicast => "on the interface of the default route".to_string(),
            [] => "on the interface that the system routes multicast to".to_string(),
            names => format!("on {}", names.join(", ")),
        };

        let reach = if self.ttl <= 1 || self.ttl_remark().is_some() {
            "this link only"
        } else {
            "beyond routers that forward multicast"
        };

        let keys: Vec<String> = self
            .group_keys
            .iter()
            .map(|path| printable_path(path))
            .collect();
        let sealed = match keys.as_slice() {
            [] if self.plain => "; plain: datagrams are not sealed".to_string(),
            [] => format!("; datagrams are sealed with {GROUP_KEY} beside this file"),
            [key] => format!("; datagrams are sealed with {key}"),
            [first, rest @ ..] => {
                format!(
                    "; datagrams are sealed with {first}, and {} opens them too",
                    rest.join(", ")
                )
            }
        };

        let strict = if self.strict_host_keys {
            "; a host with a changed key is excluded, \
             and with require = \"all\" ends a deploy with exit code 3 \
             until its line is deleted"
        } else {
            ""
        };

        let rate = match self.catch_up_rate {
            DEFAULT_CATCH_UP_RATE => String::new(),
            rate => format!("; at most {rate} to hosts that missed a release"),
        };

        let multicast = match self.multicast {
            true => format!(
                "group {} port {} {interface}; ttl {}: {reach}",
                self.group, self.port, self.ttl
            ),
            false => format!("no multicast; {interface}"),
        };
        let peers = self.explain_peers();

        format!("{multicast}{peers}{sealed}{strict}{rate}")
    }

    fn explain_peers(&self) -> String {
        let Some((first, rest)) = self.peers.split_first() else {
            return format!(
                "; unicast port {}, and {} to {} for commands",
                self.unicast_port,
                SESSION_PORTS.start(),
                SESSION_PORTS.end()
            );
        };

        let more = match rest.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!(
            "; unicast port {}, other hosts are found from {first}{more}",
            self.unicast_port
        )
    }
}

impl TreeConfig {
    fn explain(&self) -> String {
        let mut text = format!("{} in {}", self.name, printable_path(&self.path));
        match self.max_delete {
            Some(Limit::Count(0)) => text.push_str("; deletes nothing"),
            Some(Limit::Count(n)) => text.push_str(&format!("; deletes at most {n} paths")),
            Some(share) => text.push_str(&format!("; deletes at most {share} of its paths")),
            None => text.push_str("; deletes at most a release's own limit"),
        }

        if !self.protect_patterns.is_empty() {
            let patterns: Vec<String> = self
                .protect_patterns
                .iter()
                .map(|p| printable(p.as_bytes()))
                .collect();
            text.push_str(&format!("; never touches {}", patterns.join(", ")));
        }

        if let Some(age) = self.max_age {
            text.push_str(&format!(
                "; warns when its release is older than {}",
                shown_duration(age)
            ));
        }

        if self.require_signatures > 1 {
            text.push_str(&format!(
                "; takes releases with {} signatures or more",
                self.require_signatures
            ));
        }

        match self.catch_up {
            CatchUp::Off => text.push_str("; neither fetches nor serves missed releases"),
            CatchUp::Group => {}
            CatchUp::Anyone => text.push_str("; serves its release to anybody on the network"),
        }

        if let Some(interval) = self.repair {
            text.push_str(&format!(
                "; repairs drift every {}",
                shown_duration(interval)
            ));
        }

        if let Some(repository) = &self.repository {
            text.push_str(&format!(
                "; looks into its repository every {}",
                shown_duration(repository.poll)
            ));
        }

        if let Some(window) = &self.window {
            text.push_str(&format!("; commits only {} UTC", window.shown()));
        }

        if self.follow_links {
            text.push_str("; its path may contain links of any user");
        }

        text + &format!("; keeps {} releases for rollback", self.keep)
    }

    fn explain_hooks(&self, line: &mut impl FnMut(&str, String)) {
        for (phase, command) in self.hooks.commands() {
            let limit = seconds(command.timeout());
            let text = match (phase, &self.hooks.health) {
                (Phase::Before, _) => {
                    format!("at most {limit}; a failure makes this host refuse the release")
                }

                (
                    Phase::Health,
                    Some(Health {
                        interval, deadline, ..
                    }),
                ) => {
                    let interval = seconds(*interval);
                    let deadline = seconds(*deadline);
                    format!(
                        "must pass within {deadline}: at most {limit} per attempt, \
                         {interval} between two"
                    )
                }
                _ => format!("at most {limit}; a failure makes this host unhealthy"),
            };

            line(phase.key(), format!("{}: {command}; {text}", self.name));
        }
    }
}
