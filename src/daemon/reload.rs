//! SIGHUP: what the configuration says now, as far as a running daemon can follow it.
//!
//! Where keys and password are read from is taken anew, but for what flags said. Trees, sockets and the network are what
//! the daemon gave its rights away for: they need a restart, and are named. The room must not know what is done with it.

use std::collections::BTreeSet;

use crate::Result;
use crate::config::{ConsoleConfig, HostConfig, NetworkConfig, TreeConfig};
use crate::id::TreeName;

/// What was in force when the daemon started.
#[derive(Debug)]
pub(super) struct Started<'a> {
    /// The configuration with what the command line overrides.
    config: &'a HostConfig,
    /// The same as the file said it.
    file: HostConfig,
    /// Whether the command line names the group keys.
    group_keys_fixed: bool,
}

impl<'a> Started<'a> {
    /// Remembers what the configuration's file says.
    pub(super) fn new(config: &'a HostConfig, group_keys_fixed: bool) -> Self {
        // It was read a moment ago; a file that is gone again says nothing.
        let file = read(config).unwrap_or_else(|_| HostConfig {
            path: config.path.clone(),
            ..HostConfig::default()
        });
        Self {
            config,
            file,
            group_keys_fixed,
        }
    }

    /// The configuration in force from now on. What is wrong about the file, or needs a restart, is in the log.
    pub(super) fn again(&self) -> HostConfig {
        let mut config = self.config.clone();
        let now = match read(self.config) {
            Ok(now) => now,
            Err(e) => {
                tracing::error!("the configuration stays as it was: {e}");
                return config;
            }
        };

        let changed = needs_restart(&self.file, &now);
        if !changed.is_empty() {
            let path = crate::units::printable(config.path.as_os_str().as_encoded_bytes());
            tracing::warn!(
                "{path}: a restart is needed for what has changed in {}",
                changed.join(", ")
            );
        }

        let file = &self.file;
        follow(
            &mut config.authorized_keys,
            &file.authorized_keys,
            now.authorized_keys,
        );

        follow(&mut config.sender_key, &file.sender_key, now.sender_key);
        follow(
            &mut config.console.password,
            &file.console.password,
            now.console.password,
        );

        if !self.group_keys_fixed {
            follow(
                &mut config.network.group_keys,
                &file.network.group_keys,
                now.network.group_keys,
            );
            config.seal_by_default();
        }

        config
    }
}

/// What the file says; nothing when there is none.
fn read(config: &HostConfig) -> Result<HostConfig> {
    match config.path.exists() {
        true => HostConfig::load(&config.path),
        false => Ok(HostConfig {
            path: config.path.clone(),
            ..HostConfig::default()
        }),
    }
}

/// What has not changed in the file is as it was, whether the file or a flag said so.
fn follow<T: PartialEq>(value: &mut T, before: &T, now: T) {
    if now != *before {
        *value = now;
    }
}

/// What has changed and is not followed, as people call it.
fn needs_restart(before: &HostConfig, now: &HostConfig) -> Vec<String> {
    let top = [
        ("name", before.name != now.name),
        ("state_dir", before.state_dir != now.state_dir),
        ("socket", before.socket != now.socket),
        ("socket_group", before.socket_group != now.socket_group),
        ("sandbox", before.sandbox != now.sandbox),
        ("[network]", network(before, now) != now.network),
        ("[console]", console(before, now) != now.console),
    ];

    let mut changed: Vec<String> = top
        .into_iter()
        .filter(|(_, is)| *is)
        .map(|(name, _)| name.into())
        .collect();

    let names: BTreeSet<&TreeName> = before
        .trees
        .iter()
        .chain(&now.trees)
        .map(|t| &t.name)
        .collect();

    for name in names {
        let [before, now] =
            [before, now].map(|config| config.trees.iter().find(|t| t.name == *name));
        if !before
            .zip(now)
            .is_some_and(|(before, now)| is_same(before, now))
        {
            changed.push(format!("[[tree]] {name}"));
        }
    }

    changed
}

/// The network as it was, but for what is followed.
fn network(before: &HostConfig, now: &HostConfig) -> NetworkConfig {
    NetworkConfig {
        group_keys: now.network.group_keys.clone(),
        ..before.network.clone()
    }
}

/// The console as it was, but for what is followed.
fn console(before: &HostConfig, now: &HostConfig) -> ConsoleConfig {
    ConsoleConfig {
        password: now.console.password.clone(),
        ..before.console.clone()
    }
}

fn is_same(a: &TreeConfig, b: &TreeConfig) -> bool {
    (
        &a.path,
        &a.protect_patterns,
        a.max_delete,
        a.keep,
        &a.hooks,
        a.swap,
        a.devices,
        a.follow_links,
    ) == (
        &b.path,
        &b.protect_patterns,
        b.max_delete,
        b.keep,
        &b.hooks,
        b.swap,
        b.devices,
        b.follow_links,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str =
        "name = \"web1\"\n[network]\nport = 5001\n[[tree]]\nname = \"www\"\npath = \"/srv/www\"\n";

    fn parsed(text: &str) -> HostConfig {
        HostConfig::parse(text, std::path::Path::new("makuo.toml")).unwrap()
    }

    #[test]
    fn what_is_not_followed_is_named() {
        let changed = |text: &str| needs_restart(&parsed(FILE), &parsed(text));
        assert!(changed(FILE).is_empty());
        assert!(changed(&FILE.replace("port", "group_key = \"/k\"\nport")).is_empty());
        assert!(
            changed(&format!(
                "authorized_keys = \"/a\"\n{FILE}[console]\npassword = \"/p\"\n"
            ))
            .is_empty()
        );

        assert_eq!(changed(&FILE.replace("5001", "5002")), ["[network]"]);
        assert_eq!(changed(&FILE.replace("/srv", "/var")), ["[[tree]] www"]);
        assert_eq!(
            changed(&format!("{FILE}after = [\"true\"]\n")),
            ["[[tree]] www"]
        );
        assert_eq!(
            changed(&FILE.replace("\"www\"", "\"web\"")),
            ["[[tree]] web", "[[tree]] www"]
        );

        assert_eq!(
            changed(&format!("sandbox = \"off\"\n{FILE}").replace("web1", "web2")),
            ["name", "sandbox"]
        );
    }

    #[test]
    fn other_key_files_are_followed_and_flags_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("makuo.toml");
        let put = |text: &str| std::fs::write(&path, text).unwrap();
        put("authorized_keys = \"/a\"\n[network]\ngroup_key = \"/k\"\n");
        let mut config = HostConfig::load(&path).unwrap();
        config.authorized_keys = "/flag".into();
        let started = Started::new(&config, false);

        put(
            "authorized_keys = \"/a\"\n[network]\ngroup_key = [\"/k\", \"/l\"]\n[sender]\nkey = \"/s\"\n",
        );
        let again = started.again();
        assert_eq!(again.authorized_keys, std::path::Path::new("/flag"));
        assert_eq!(
            (again.network.group_keys.len(), again.sender_key),
            (2, Some("/s".into()))
        );

        assert_eq!(
            Started {
                group_keys_fixed: true,
                ..started
            }
            .again()
            .network
            .group_keys
            .len(),
            1
        );

        put("authorised_keys = \"/b\"\n");
        assert_eq!(
            Started::new(&config, false).again().network.group_keys,
            config.network.group_keys
        );
    }
}
