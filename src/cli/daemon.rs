//! `makuo daemon`: applies flags to the host's configuration.

use std::path::{Path, PathBuf};

use super::args::{DaemonArgs, TreeAt};
use super::network;
use crate::config::{ConsoleListen, HostConfig, TreeConfig};
use crate::daemon::{DaemonSetup, HostMode, RunAs};
use crate::drive::adhoc::Dial;
use crate::id::TreeName;
use crate::report::Report;
use crate::spec::DEFAULT_TREE;
use crate::units::printable;
use crate::{Error, Result};

/// Options of a daemon.
#[derive(Debug, Clone)]
pub struct DaemonOptions {
    /// Configuration with the flags applied.
    pub config: HostConfig,
    /// User and groups to run as.
    pub run_as: RunAs,
    /// Whether flags name the group keys.
    pub group_keys_fixed: bool,
    /// Control socket, if any.
    pub socket: Option<PathBuf>,
    /// Limits on receiving and sending.
    pub mode: HostMode,
}

pub(super) fn run(args: &DaemonArgs, config: Option<&Path>, _report: &mut Report) -> Result<u8> {
    trust_user(args.user.as_deref());
    serve(resolve(args, network::host_config(config)?)?).map(|()| 0)
}

/// Accepts key files of the user that the daemon is about to become. An unknown user is reported
/// later.
pub(super) fn trust_user(user: Option<&str>) {
    let named = |user: &str| {
        nix::unistd::User::from_name(user)
            .ok()
            .flatten()
            .map(|user| user.uid.as_raw())
    };

    if let Some(uid) = user.and_then(|user| user.parse().ok().or_else(|| named(user))) {
        crate::strict::trust(uid);
    }
}

fn resolve(args: &DaemonArgs, mut config: HostConfig) -> Result<DaemonOptions> {
    config.metrics.listen = args.metrics.or(config.metrics.listen);

    if let Some(text) = &args.console {
        let listen = ConsoleListen::parse(text);
        config.console.listen = listen.ok_or_else(|| {
            Error::usage(format!(
                "--console {}: write ADDR:PORT, or off",
                printable(text.as_bytes())
            ))
        })?;
        config
            .console
            .check()
            .map_err(|why| Error::usage(format!("--console: {why}")))?;
    }

    if config.console.listen == ConsoleListen::Default {
        config.console.listen = ConsoleListen::Off;
    }

    config.network = network::apply(&args.network, config.network);
    if config.network.group_keys.is_empty()
        && !config.network.plain
        && !config.default_group_key().exists()
    {
        return Err(network::no_group_key(&config));
    }

    config.seal_by_default();
    // Absolute, because a reload happens after the daemon has left its directory.
    for path in &mut config.network.group_keys {
        *path = absolute(path)?;
    }

    config.name = args.name.clone().or(config.name);
    if let Some(path) = &args.authorized_keys {
        config.authorized_keys = absolute(path)?;
    }

    if let Some(path) = &args.state_dir {
        config.state_dir = Some(absolute(path)?);
    }

    if let Some(path) = &args.socket {
        config.socket = absolute(path)?;
    }

    let base = args.base.as_ref().map(|path| TreeAt {
        name: TreeName::new(DEFAULT_TREE).expect("the default tree has a legal name"),
        path: path.clone(),
    });

    for tree in base.iter().chain(&args.trees) {
        let path = absolute(&tree.path)?;
        match config.trees.iter_mut().find(|t| t.name == tree.name) {
            Some(known) => known.path = path,
            None => config.trees.push(TreeConfig::new(tree.name.clone(), path)),
        }
    }

    if config.trees.is_empty() {
        return Err(
            Error::usage("this host manages no tree: there is nothing to serve")
                .hint("pass --tree www=/var/www, or write a [[tree]] into /etc/makuo/makuo.toml"),
        );
    }

    let group_keys_fixed = args.network.plain || !args.network.group_keys.is_empty();
    let run_as = RunAs {
        user: args.user.clone(),
        group: args.run_group.clone(),
        groups: Vec::new(),
    };

    let socket = Some(config.socket.clone());
    let mode = HostMode::default();

    Ok(DaemonOptions {
        socket,
        config,
        run_as,
        group_keys_fixed,
        mode,
    })
}

/// Path that stays valid when the daemon leaves its directory.
fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|e| {
        Error::usage(format!(
            "{} is no path",
            printable(path.as_os_str().as_encoded_bytes())
        ))
        .because(e)
    })
}

/// Serves until SIGTERM.
pub(super) fn serve(options: DaemonOptions) -> Result<()> {
    let name = match options.config.name.clone() {
        Some(name) => name,
        None => network::host_name()?,
    };

    let door = crate::daemon::report_waiting(|waiting| {
        network::open_when_present(&options.config.network, waiting)
    })?;
    let network = options.config.network.clone();
    let dial: Dial = Box::new(move || network::open_session(&network));
    let DaemonOptions {
        config,
        run_as,
        group_keys_fixed,
        socket,
        mode,
    } = options;

    crate::daemon::run(
        DaemonSetup {
            name,
            config,
            socket,
            group_keys_fixed,
            run_as,
            mode,
            dial,
        },
        door,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn options(line: &str) -> Result<DaemonOptions> {
        let cli = super::super::Cli::try_parse_from(line.split(' ')).expect("legal");
        let super::super::args::CliCommand::Daemon(args) = cli.command else {
            panic!("daemon")
        };
        resolve(&args, HostConfig::default())
    }

    #[test]
    fn base_is_the_default_tree_and_paths_are_absolute() {
        let options =
            options("makuo daemon --plain -b site --tree www=/var/www --name h1").expect("legal");
        let trees: Vec<_> = options
            .config
            .trees
            .iter()
            .map(|t| (t.name.as_str(), t.path.is_absolute()))
            .collect();
        assert_eq!(trees, [("default", true), ("www", true)]);
        assert_eq!(
            options.config.name.map(|n| n.to_string()).as_deref(),
            Some("h1")
        );
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        for line in [
            "makuo daemon --plain",
            "makuo daemon --plain -b x --console [::]:5",
        ] {
            assert_eq!(options(line).expect_err(line).kind(), crate::Kind::Usage);
        }

        assert!(options("makuo daemon --plain -b x --console off").is_ok());
        let metrics = options("makuo daemon --plain -b x --metrics 127.0.0.1:1");
        let listen = metrics.map(|options| options.config.metrics.listen);
        assert!(listen.is_ok_and(|listen| listen == "127.0.0.1:1".parse().ok()));
    }

    #[test]
    fn without_a_group_key_it_does_not_start_unless_told_so() {
        let dir = tempfile::tempdir().expect("a directory");
        let with = |line: &str| {
            let path = dir.path().join("makuo.toml");
            let network = || HostConfig {
                path: path.clone(),
                ..HostConfig::default()
            };
            let cli = super::super::Cli::try_parse_from(line.split(' ')).expect("legal");
            let super::super::args::CliCommand::Daemon(args) = cli.command else {
                panic!("daemon")
            };
            resolve(&args, network()).map(|options| options.config.network)
        };

        let error = with("makuo daemon -b x").expect_err("no key");
        assert_eq!(error.kind(), crate::Kind::Usage);
        assert!(
            error
                .hint_text()
                .is_some_and(|h| h.contains("makuo keygen") && h.contains("--plain")),
            "{error}"
        );

        assert!(
            with("makuo daemon -b x --plain").is_ok_and(|n| n.plain && n.group_keys.is_empty())
        );

        let key = dir.path().join("group.key");
        std::fs::write(&key, "").expect("writable");
        assert!(with("makuo daemon -b x").is_ok_and(|n| !n.plain && n.group_keys == [key.clone()]));

        assert!(
            with("makuo daemon -b x --plain").is_ok_and(|n| n.plain && n.group_keys.is_empty())
        );
    }
}
