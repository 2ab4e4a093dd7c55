//! SIGHUP: rereads the configuration, as far as a running daemon can follow changes.
//!
//! The paths of keys and password and the host's own rules for its trees are followed unless set by
//! flags. Changes to the set of trees, sockets and the network need rights that the daemon dropped:
//! they require a restart and are named in the log. Does not know the use of the values.

use std::collections::BTreeSet;

use crate::Result;
use crate::config::{ConsoleConfig, HostConfig, NetworkConfig, TreeConfig};
use crate::id::TreeName;

/// Configuration in force when the daemon started.
#[derive(Debug)]
pub(super) struct StartupConfig<'a> {
    /// Configuration with the overrides of the command line.
    config: &'a HostConfig,
    /// Configuration as the file had it.
    file: HostConfig,
    /// Whether the command line names the group keys.
    group_keys_fixed: bool,
}

impl<'a> StartupConfig<'a> {
    /// Records the configuration and the content of its file.
    pub(super) fn new(config: &'a HostConfig, group_keys_fixed: bool) -> Self {
        // The file was read a moment ago; one that vanished since counts as empty.
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

    /// Returns the configuration in force from now on. Errors in the file and changes that need a
    /// restart are logged.
    pub(super) fn reload(&self) -> HostConfig {
        let mut config = self.config.clone();
        let now = match read(self.config) {
            Ok(now) => now,
            Err(e) => {
                tracing::error!("keeping the old configuration: {e}");
                return config;
            }
        };

        let changed = needs_restart(&self.file, &now);
        if !changed.is_empty() {
            let path = crate::units::printable(config.path.as_os_str().as_encoded_bytes());
            tracing::warn!(
                "{path}: these changes need a restart: {}",
                changed.join(", ")
            );
        }

        let file = &self.file;
        for tree in &mut config.trees {
            let find = |config: &HostConfig| {
                let mut trees = config.trees.iter();
                trees.find(|t| t.name == tree.name).cloned()
            };
            if let (Some(before), Some(now)) = (find(file), find(&now)) {
                take_rules(tree, &before, now);
            }
        }

        take_changed(
            &mut config.authorized_keys,
            &file.authorized_keys,
            now.authorized_keys,
        );

        take_changed(&mut config.labels, &file.labels, now.labels);
        take_changed(&mut config.sender_key, &file.sender_key, now.sender_key);
        take_changed(
            &mut config.console.password,
            &file.console.password,
            now.console.password,
        );

        if !self.group_keys_fixed {
            take_changed(
                &mut config.network.group_keys,
                &file.network.group_keys,
                now.network.group_keys,
            );
            config.seal_by_default();
        }

        config
    }
}

/// Reads the configuration file; defaults if missing.
fn read(config: &HostConfig) -> Result<HostConfig> {
    match config.path.exists() {
        true => HostConfig::load(&config.path),
        false => Ok(HostConfig {
            path: config.path.clone(),
            ..HostConfig::default()
        }),
    }
}

/// Takes a value that changed in the file; an unchanged one stays, whether set by file or flag.
fn take_changed<T: PartialEq>(value: &mut T, before: &T, now: T) {
    if now != *before {
        *value = now;
    }
}

/// Takes the host's own rules for a tree.
fn take_rules(tree: &mut TreeConfig, before: &TreeConfig, now: TreeConfig) {
    if now.protect_patterns != before.protect_patterns {
        tree.protect = now.protect;
        tree.protect_patterns = now.protect_patterns;
    }

    take_changed(&mut tree.max_delete, &before.max_delete, now.max_delete);
    take_changed(&mut tree.max_age, &before.max_age, now.max_age);
    take_changed(
        &mut tree.require_signatures,
        &before.require_signatures,
        now.require_signatures,
    );
    take_changed(&mut tree.window, &before.window, now.window);
    take_changed(&mut tree.hooks, &before.hooks, now.hooks);
}

/// Names of the changed settings that need a restart.
fn needs_restart(before: &HostConfig, now: &HostConfig) -> Vec<String> {
    let top = [
        ("name", before.name != now.name),
        ("state_dir", before.state_dir != now.state_dir),
        ("socket", before.socket != now.socket),
        ("socket_group", before.socket_group != now.socket_group),
        ("sandbox", before.sandbox != now.sandbox),
        ("[network]", network(before, now) != now.network),
        ("[console]", console(before, now) != now.console),
        ("[metrics]", before.metrics != now.metrics),
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

/// Network settings before, with the fields that a reload follows replaced.
fn network(before: &HostConfig, now: &HostConfig) -> NetworkConfig {
    NetworkConfig {
        group_keys: now.network.group_keys.clone(),
        ..before.network.clone()
    }
}

/// Console settings before, with the fields that a reload follows replaced.
fn console(before: &HostConfig, now: &HostConfig) -> ConsoleConfig {
    ConsoleConfig {
        password: now.console.password.clone(),
        ..before.console.clone()
    }
}

fn is_same(a: &TreeConfig, b: &TreeConfig) -> bool {
    let same_paths = a.path == b.path && a.follow_links == b.follow_links;
    let same_rights = a.swap == b.swap && a.devices == b.devices;
    let same_exchange = a.catch_up == b.catch_up && a.repair == b.repair;

    same_paths && same_rights && same_exchange && a.keep == b.keep && a.repository == b.repository
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
        let listening = format!("[metrics]\nlisten = \"127.0.0.1:1\"\n{}", &FILE[14..]);
        assert!(changed(&listening).contains(&"[metrics]".to_string()));
        assert_eq!(changed(&FILE.replace("/srv", "/var")), ["[[tree]] www"]);
        for rule in [
            "after = [\"true\"]",
            "max_delete = 5",
            "max_age = \"30d\"",
            "protect = [\"/uploads/\"]",
        ] {
            assert!(changed(&format!("{FILE}{rule}\n")).is_empty(), "{rule}");
        }
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
    fn the_rules_of_a_tree_are_followed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("makuo.toml");
        std::fs::write(&path, FILE).unwrap();
        let config = HostConfig::load(&path).unwrap();
        let started = StartupConfig::new(&config, false);
        let rules = "max_delete = 5\nprotect = [\"/a/\"]\nafter = [\"true\"]\nmax_age = \"1d\"\n";
        std::fs::write(&path, format!("{FILE}{rules}")).unwrap();
        let tree = &started.reload().trees[0];
        assert_eq!(tree.max_delete, Some(crate::units::Limit::Count(5)));
        assert_eq!(tree.protect_patterns, ["/a/"]);
        assert!(!tree.protect.is_empty() && tree.max_age.is_some());
        assert!(tree.hooks.after.is_some());
    }

    #[test]
    fn other_key_files_are_followed_and_flags_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("makuo.toml");
        let put = |text: &str| std::fs::write(&path, text).unwrap();
        put("authorized_keys = \"/a\"\n[network]\ngroup_key = \"/k\"\n");
        let mut config = HostConfig::load(&path).unwrap();
        config.authorized_keys = "/flag".into();
        let started = StartupConfig::new(&config, false);

        put("authorized_keys = \"/a\"\n[network]\n\
             group_key = [\"/k\", \"/l\"]\n[sender]\nkey = \"/s\"\n");
        let again = started.reload();
        assert_eq!(again.authorized_keys, std::path::Path::new("/flag"));
        assert_eq!(
            (again.network.group_keys.len(), again.sender_key),
            (2, Some("/s".into()))
        );

        assert_eq!(
            StartupConfig {
                group_keys_fixed: true,
                ..started
            }
            .reload()
            .network
            .group_keys
            .len(),
            1
        );

        put("authorised_keys = \"/b\"\n");
        assert_eq!(
            StartupConfig::new(&config, false)
                .reload()
                .network
                .group_keys,
            config.network.group_keys
        );
    }
}
