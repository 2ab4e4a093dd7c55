//! A network of hosts, a key trusted by all, a source and its spec.

use std::path::{Path, PathBuf};
use std::process::Command;

use makuo::keys::GroupKey;

use super::host::Host;
use super::place::{NetworkKind, Place, Switch};
use super::run::{Ran, Running, tool, try_tool};
use super::{differences, same, skipped};

/// The part of a spec that removes extra files from the hosts.
pub const DELETE: &str = "[delete]\nextras = true\nmax = \"100%\"\n";

impl NetworkKind {
    /// Makes hosts web1, web2, ... at a switch. Prints the reason and returns `None` where that is
    /// not possible.
    pub fn hosts(self, count: usize) -> Option<Lab> {
        let mut lab = self.idle_hosts(count)?;
        lab.hosts.iter_mut().for_each(Host::start);
        Some(lab)
    }

    /// Like [`NetworkKind::hosts`], with hosts and commands without the group key.
    pub fn plain_hosts(self, count: usize) -> Option<Lab> {
        let mut lab = self.idle_hosts(count)?;
        lab.go_plain();
        lab.hosts.iter_mut().for_each(Host::start);
        Some(lab)
    }

    /// Like [`NetworkKind::hosts`], with hosts not started yet.
    pub fn idle_hosts(self, count: usize) -> Option<Lab> {
        let switch = match self {
            NetworkKind::Multicast => Switch::new(),
            NetworkKind::Unicast => Switch::new().and_then(Switch::without_multicast),
        };
        match switch {
            Ok(mut switch) => {
                let places: Vec<Place> = (0..=count).map(|_| switch.plug()).collect();
                let mut lab = Lab::empty(places[count].clone(), Some(switch));
                for (i, place) in places.into_iter().take(count).enumerate() {
                    lab.put(&format!("web{}", i + 1), place);
                }
                Some(lab)
            }
            Err(why) => {
                skipped(&why);
                None
            }
        }
    }
}

pub struct Lab {
    pub hosts: Vec<Host>,
    /// Place of the commands.
    pub admin: Place,
    /// Network flags of commands, if other than the flags of their place.
    pub flags: Option<Vec<String>>,
    /// Runs commands without the group key.
    pub plain: bool,
    /// The makuo of commands.
    pub program: String,
    switch: Option<Switch>,
    dir: tempfile::TempDir,
}

impl Lab {
    /// Makes hosts web1, web2, ... at a switch. Prints the reason and returns `None` where that is
    /// not possible.
    pub fn network(count: usize) -> Option<Self> {
        NetworkKind::Multicast.hosts(count)
    }

    /// Like [`Lab::network`], with hosts and commands without the group key.
    pub fn plain_network(count: usize) -> Option<Self> {
        NetworkKind::Multicast.plain_hosts(count)
    }

    /// Like [`Lab::network`], with hosts not started yet.
    pub fn network_idle(count: usize) -> Option<Self> {
        NetworkKind::Multicast.idle_hosts(count)
    }

    /// Switches commands and existing hosts to plain mode, from their next start on.
    pub fn go_plain(&mut self) {
        self.plain = true;
        self.hosts.iter_mut().for_each(|host| host.plain = true);
    }

    /// Returns the path of the lab's group key: the commands' default.
    pub fn group_key(&self) -> PathBuf {
        self.path(super::host::GROUP_KEY)
    }

    /// Makes hosts web1, web2, ... on the loopback interface.
    pub fn loopback(count: usize) -> Option<Self> {
        let mut lab = Lab::loopback_idle()?;
        (1..=count).for_each(|i| {
            lab.host(&format!("web{i}"));
        });
        lab.hosts.iter_mut().for_each(Host::start);
        Some(lab)
    }

    /// Makes a lab on the loopback interface without hosts.
    pub fn loopback_idle() -> Option<Self> {
        for name in ["rsync", "setpriv"] {
            if let Err(why) = try_tool(Command::new(name).arg("--version")) {
                skipped(&why);
                return None;
            }
        }

        Some(Self::empty(
            Place::Loopback(fastrand::u16(20_000..32_000)),
            None,
        ))
    }

    fn empty(admin: Place, switch: Option<Switch>) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(dir.path().join("site")).expect("new");
        let lab = Self {
            hosts: Vec::new(),
            admin,
            flags: None,
            plain: false,
            program: env!("CARGO_BIN_EXE_makuo").to_string(),
            switch,
            dir,
        };

        GroupKey::random()
            .and_then(|key| key.save(&lab.group_key(), false))
            .expect("a group key");
        let line = lab.keygen("key");
        super::write(
            &lab.path("authorized_keys"),
            format!("tree=\"www\",deploy,audit {line}"),
        );

        lab.spec(DELETE);
        lab
    }

    /// Adds a host without starting the daemon, in the network of the lab's commands.
    pub fn host(&mut self, name: &str) -> &mut Host {
        let place = self.admin.clone();
        assert!(
            matches!(place, Place::Loopback(_)),
            "a host at a switch has a port of its own"
        );
        self.put(name, place)
    }

    fn put(&mut self, name: &str, place: Place) -> &mut Host {
        let (dir, keys) = (self.path(name), self.path("authorized_keys"));
        self.hosts.push(Host::new(name, place, dir, keys));
        self.hosts.last_mut().expect("just pushed")
    }

    /// Returns the switch.
    pub fn switch(&mut self) -> &mut Switch {
        self.switch.as_mut().expect("a lab at a switch")
    }

    /// Adds a port to the switch.
    pub fn plug(&mut self) -> Place {
        self.switch().plug()
    }

    /// Returns a path in the lab's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Returns the path of the source.
    pub fn site(&self) -> PathBuf {
        self.path("site")
    }

    /// Generates a key in the file `name`, and returns its line for authorized_keys.
    pub fn keygen(&self, name: &str) -> String {
        let path = self.path(name);
        tool(
            self.admin
                .command("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"])
                .arg(&path),
        );
        std::fs::read_to_string(path.with_extension("pub")).expect("just made")
    }

    /// Writes the spec www.toml with the source and `more`.
    pub fn spec(&self, more: &str) {
        self.spec_of("site", more);
    }

    /// Writes the spec www.toml with another source.
    pub fn spec_of(&self, source: &str, more: &str) {
        super::write(
            &self.path("www.toml"),
            format!("tree = \"www\"\nsource = \"{source}\"\n{more}"),
        );
    }

    /// Prepares a makuo command in the lab's directory, with the lab's key.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.admin.command(&self.program);
        command
            .args(args)
            .args(self.flags.clone().unwrap_or_else(|| self.admin.flags()))
            .current_dir(self.dir.path());
        if self.plain {
            command.arg("--plain");
        }

        command
            .env("HOME", self.dir.path())
            .env("MAKUO_KEY", self.path("key"));

        for variable in [
            "MAKUO_CONFIG",
            "MAKUO_GROUP_KEY",
            "XDG_CACHE_HOME",
            "RUST_LOG",
        ] {
            command.env_remove(variable);
        }

        command
    }

    /// Starts a command.
    pub fn start(&self, args: &[&str]) -> Running {
        Running::start(&mut self.command(args))
    }

    /// Runs a command.
    pub fn makuo(&self, args: &[&str]) -> Ran {
        self.start(args).wait()
    }

    /// Runs `makuo deploy --json www.toml` and waits for every host of the lab.
    pub fn deploy(&self, more: &[&str]) -> Ran {
        let expect = self.hosts.len().to_string();
        self.makuo(&[&["deploy", "--json", "www.toml", "--expect", &expect], more].concat())
    }

    /// Runs `makuo diff --json www.toml`.
    pub fn diff(&self, more: &[&str]) -> Ran {
        let expect = self.hosts.len().to_string();
        self.makuo(&[&["diff", "--json", "www.toml", "--expect", &expect], more].concat())
    }

    /// Fails unless every host's tree equals `tree`.
    #[track_caller]
    pub fn all_same(&self, tree: &Path) {
        self.hosts.iter().for_each(|host| same(tree, &host.tree()));
    }

    /// Returns the hosts with a tree equal to the source.
    pub fn with_release(&self) -> Vec<&str> {
        let has = |host: &&Host| differences(&self.site(), &host.tree()).is_empty();
        self.hosts
            .iter()
            .filter(has)
            .map(|host| host.name.as_str())
            .collect()
    }
}
