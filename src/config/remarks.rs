//! Settings that are legal and hardly meant, for `makuo check`.

use std::net::IpAddr;
use std::time::Duration;

use super::{HostConfig, NetworkConfig, TreeConfig};
use crate::units::shown_duration;

/// Limit of age below which its unit was probably left out.
const SHORT_AGE: Duration = Duration::from_secs(3600);

impl HostConfig {
    /// Says which settings have no effect, or hardly the effect that somebody meant.
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        if self.trees.is_empty() {
            remarks.push(
                "there is no [[tree]]: commands work with this file, and `makuo daemon` does not \
                 start"
                    .to_string(),
            );
            if self.sender_key.is_some() {
                remarks.push(
                    "[sender] has no effect without a [[tree]]: it signs what the daemon sends"
                        .to_string(),
                );
            }
        }

        remarks.extend(self.network.ttl_remark());
        remarks.extend(self.trees.iter().flat_map(TreeConfig::remarks));
        remarks
    }
}

impl NetworkConfig {
    /// Says that the TTL has no effect, if no router forwards the group.
    pub fn ttl_remark(&self) -> Option<String> {
        let (range, other) = match self.group {
            IpAddr::V4(group) if group.octets()[..3] == [224, 0, 0] => {
                ("224.0.0.0/24", "of 239.0.0.0/8, such as 239.255.0.108")
            }
            IpAddr::V6(group) if group.segments()[0] & 0xff0f == 0xff02 => {
                ("ff02::/16", "of ff05::/16 or ff08::/16")
            }
            IpAddr::V4(_) | IpAddr::V6(_) => return None,
        };

        (self.multicast && self.ttl > 1).then(|| {
            format!(
                "ttl = {} has no effect with the group {}: no router forwards {range}; name a \
                 group {other}",
                self.ttl, self.group
            )
        })
    }
}

impl TreeConfig {
    fn remarks(&self) -> Vec<String> {
        let name = &self.name;
        let mut remarks = Vec::new();
        if let Some(age) = self.max_age.filter(|age| *age < SHORT_AGE) {
            remarks.push(format!(
                "tree {name}: max_age is {}, and each release is old by then: write the unit, as \
                 in \"30d\"",
                shown_duration(age)
            ));
        }
        if self.keep == 0 {
            remarks.push(format!(
                "tree {name}: keep = 0 keeps no earlier release: there is nothing to roll back to"
            ));
        }

        remarks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remarks(text: &str) -> Vec<String> {
        let path = std::path::Path::new("makuo.toml");
        HostConfig::parse(text, path).expect("legal").remarks()
    }

    #[test]
    fn what_is_hardly_meant_is_said_and_nothing_else() {
        let tree = "[[tree]]\nname = \"www\"\npath = \"/var/www\"\n";
        let with = |line: &str| remarks(&format!("{tree}{line}\n"));
        assert!(with("max_age = \"30d\"\nkeep = 3").is_empty());
        assert!(with("max_age = \"30\"")[0].contains("max_age is 30 s"));
        assert!(with("keep = 0")[0].contains("keep = 0"));

        let sender = remarks("[sender]\nkey = \"/etc/makuo/sender.key\"\n");
        assert!(sender[0].contains("no [[tree]]") && sender[1].contains("[sender]"));
        assert!(remarks(&format!("{tree}[sender]\nkey = \"/k\"\n")).is_empty());
    }

    #[test]
    fn a_ttl_is_useless_where_no_router_forwards_the_group() {
        let useless = |group: &str, ttl: u8| {
            let network = NetworkConfig {
                group: group.parse().expect("an address"),
                ttl,
                ..NetworkConfig::default()
            };
            network.ttl_remark().is_some()
        };
        for group in ["224.0.0.108", "224.0.0.1", "ff02::6c", "ff12::6c"] {
            assert!(useless(group, 2) && !useless(group, 1), "{group}");
        }
        for group in [
            "239.255.0.108",
            "224.0.1.1",
            "ff05::6c",
            "ff0e::6c",
            "ff18::6c",
        ] {
            assert!(!useless(group, 2), "{group}");
        }
    }
}
