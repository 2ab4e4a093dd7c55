//! makuo on a network: a daemon per host, a key, a spec and the measured command.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::fabric::{Fabric, Line};
use super::material::judge;
use super::timed::{self, Ran, Started};
use super::trouble::Trouble;
use crate::support::host::GROUP_KEY;
use crate::support::run::{tool, try_tool};
use crate::support::{DELETE, Host, write};

/// Running hosts with empty trees.
pub struct Fleet {
    // Dropped before the network, which hosts need until then.
    pub hosts: Vec<Host>,
    pub fabric: Fabric,
    home: PathBuf,
    _dir: Option<tempfile::TempDir>,
}

/// The measured program.
pub const MAKUO: &str = env!("CARGO_BIN_EXE_makuo");
/// File name of the sender's configuration.
const CONFIG: &str = "makuo.toml";
/// Mark of a host's line of `makuo members`.
const MEMBER: &str = "\"event\":\"member\"";
/// Time limit for hosts to find each other.
const MEETING: Duration = Duration::from_secs(30);

impl Fleet {
    /// Makes hosts host1, host2, ... at a new switch, in a new directory.
    pub fn new(count: usize, line: Line) -> Result<Self, Trouble> {
        let dir = tempfile::tempdir()?;
        let home = dir.path().to_path_buf();
        Ok(Self {
            _dir: Some(dir),
            ..Self::at(home, count, line)?
        })
    }

    /// Makes hosts with persistent files in the directory `home`; files of an earlier fleet are
    /// reused.
    pub fn at(home: PathBuf, count: usize, line: Line) -> Result<Self, Trouble> {
        let fabric = Fabric::new(count, line)?;
        let settings = fabric.settings();
        Self::on(home, fabric, |_| settings.clone())
    }

    /// Makes hosts on a network. `settings` returns the table `[network]` of a host by its index,
    /// and that of the sender, which comes after the hosts.
    pub fn on(
        home: PathBuf,
        fabric: Fabric,
        settings: impl Fn(usize) -> String,
    ) -> Result<Self, Trouble> {
        let key = home.join("key");
        if !key.exists() {
            tool(Command::new(MAKUO).args(["keygen", "--output"]).arg(&key));
        }

        let public = std::fs::read_to_string(key.with_extension("pub"))?;
        let keys = home.join("authorized_keys");
        write(&keys, format!("tree=\"www\",deploy,audit {public}"));
        let group_key = home.join(GROUP_KEY);

        if !group_key.exists() {
            tool(
                Command::new(MAKUO)
                    .args(["keygen", "--group", "--output"])
                    .arg(&group_key),
            );
        }

        let places = fabric.hosts.iter().enumerate();
        let new = |(i, place): (usize, &crate::support::Place)| {
            let name = format!("host{}", i + 1);
            let dir = home.join(&name);
            let mut host = Host::new(&name, place.clone(), dir, keys.clone());
            host.setting(&settings(i));
            host
        };

        let mut hosts: Vec<Host> = places.map(new).collect();
        hosts.iter_mut().for_each(Host::start);
        let mine = settings(hosts.len());
        if !mine.is_empty() {
            write(&home.join(CONFIG), mine);
        }

        let fleet = Self {
            hosts,
            fabric,
            home,
            _dir: None,
        };

        fleet.meet().map(|()| fleet)
    }

    /// Waits until all hosts know each other, where that takes more than a beacon.
    fn meet(&self) -> Result<(), Trouble> {
        if !self.home.join(CONFIG).exists() {
            return Ok(());
        }

        let know_all = || {
            let mut command = self.fabric.sender.command(MAKUO);
            command.args(["members", "--json", "--wait", "1s", "--interface", "eth0"]);
            let said = try_tool(self.environment(&mut command)).unwrap_or_default();
            let members = said.lines().filter(|line| line.contains(MEMBER)).count();
            members == self.hosts.len()
        };

        timed::comes(MEETING, know_all)
            .then_some(())
            .ok_or_else(|| Trouble::Failed("the hosts do not find each other".into()))
    }

    /// Starts `makuo deploy` of `source` to all hosts, with `spec` appended to the spec. The
    /// sender's index starts empty in each fleet: the first deployment reads every byte.
    pub fn start(
        &self,
        source: &Path,
        spec: &str,
        flags: &[&str],
        limit: Duration,
    ) -> Result<Started, Trouble> {
        Started::start(&mut self.command(&[], "deploy", source, spec, flags), limit)
    }

    /// Prepares `makuo VERB` of `source` at the sender's place, started by `launcher`: a program
    /// and its arguments.
    pub fn command(
        &self,
        launcher: &[&OsStr],
        verb: &str,
        source: &Path,
        spec: &str,
        flags: &[&str],
    ) -> Command {
        let home = &self.home;
        write(
            &home.join("www.toml"),
            format!("tree = \"www\"\nsource = {source:?}\n{DELETE}{spec}"),
        );
        let line = [launcher, &[OsStr::new(MAKUO)]].concat();
        let mut command = self.fabric.sender.command(&line[0].to_string_lossy());

        command
            .args(&line[1..])
            .args([verb, "--json", "--key", "key", "--interface", "eth0"]);
        command
            .args(["--expect", &self.hosts.len().to_string()])
            .args(flags)
            .arg("www.toml")
            .current_dir(home);

        self.environment(&mut command);
        command
    }

    /// Sets the variables of a command of makuo at the sender's place.
    fn environment<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let config = self.home.join(CONFIG);
        if config.exists() {
            command.env("MAKUO_CONFIG", config);
        } else {
            command.env_remove("MAKUO_CONFIG");
        }

        command
            .env("HOME", &self.home)
            .env("XDG_CACHE_HOME", self.home.join("cache"))
            .env_remove("MAKUO_KEY")
            .env_remove("RUST_LOG")
    }

    /// Runs a deployment to its end.
    pub fn deploy(
        &self,
        source: &Path,
        spec: &str,
        flags: &[&str],
        limit: Duration,
    ) -> Result<Ran, Trouble> {
        self.start(source, spec, flags, limit)?.finish()
    }

    /// Fails unless every host's tree equals the source, as compared by rsync.
    pub fn check(&self, source: &Path) -> Result<(), Trouble> {
        self.check_first(self.hosts.len(), source)
    }

    /// Like [`Fleet::check`], for the first `count` hosts.
    pub fn check_first(&self, count: usize, source: &Path) -> Result<(), Trouble> {
        self.hosts[..count].iter().try_for_each(|host| {
            judge("-aHAXc", source, &host.tree())
                .map_err(|why| Trouble::Wrong(format!("{}: {why}", host.name)))
        })
    }

    /// Fails unless every host's tree is still empty.
    pub fn check_empty(&self) -> Result<(), Trouble> {
        self.hosts.iter().try_for_each(|host| {
            match std::fs::read_dir(host.tree()).map(|mut all| all.next().is_none()) {
                Ok(true) => Ok(()),
                _ => Err(Trouble::Wrong(format!(
                    "{}: a deploy that was interrupted changed the tree",
                    host.name
                ))),
            }
        })
    }

    /// Waits until the hosts have finished their work after a session.
    pub fn settle(&self) {
        timed::comes(Duration::from_millis(500), || false);
    }
}

/// Returns the host's name if the event reports a completely staged release.
pub fn staged(event: &Value) -> Option<&str> {
    let state = event["state"]
        .as_str()
        .filter(|_| event["event"] == "host")?;
    ["ready", "committed"]
        .contains(&state)
        .then(|| event["host"].as_str())?
}
