//! `makuo demo`: three hosts on the loopback interface, a real deploy, and next steps.
//!
//! The daemons are child processes of this binary; spec and site are those of the repository,
//! embedded in the binary; the key is temporary. Everything is in one temporary directory, removed
//! at the end.

use std::fs::{self, Permissions};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use super::args::DemoArgs;
use super::{deploy, network};
use crate::config::{GROUP_KEY, NetworkConfig, PeerName};
use crate::drive::deploy::source::Unmounted;
use crate::drive::survey;
use crate::error::IoResultExt;
use crate::keys::AuthorizedKeys;
use crate::outcome::Purpose;
use crate::report::Report;
use crate::spec::Spec;
use crate::{Error, Kind, Result, keys};

/// Hosts of the demo.
const HOSTS: [&str; 3] = ["web1", "web2", "web3"];
/// Spec of the demo.
const SPEC: &str = include_str!("../../manifests/www.toml");
/// Site of the spec: path, content, mode.
const SITE: [(&str, &str, u32); 6] = [
    (
        ".makuoignore",
        include_str!("../../manifests/site/.makuoignore"),
        0o644,
    ),
    (
        "bin/health",
        include_str!("../../manifests/site/bin/health"),
        0o755,
    ),
    (
        "css/site.css",
        include_str!("../../manifests/site/css/site.css"),
        0o644,
    ),
    (
        "docs/index.html",
        include_str!("../../manifests/site/docs/index.html"),
        0o644,
    ),
    (
        "img/mark.svg",
        include_str!("../../manifests/site/img/mark.svg"),
        0o644,
    ),
    (
        "index.html",
        include_str!("../../manifests/site/index.html"),
        0o644,
    ),
];
/// Time for the daemons to start.
const STARTUP_TIMEOUT: Duration = Duration::from_secs(20);
/// Duration of one probe for them.
const PROBE_TIME: Duration = Duration::from_millis(200);

pub(super) fn run(args: &DemoArgs, report: &mut Report) -> Result<u8> {
    let demo = Demo::start(args, report)?;
    demo.step(
        report,
        "1. The first deploy: every host gets the whole site.",
    );
    let first = demo.session(Purpose::Deploy, report)?;
    demo.step(
        report,
        "2. Someone changes a file on web2 by hand; `makuo diff` finds it (exit code 1).",
    );

    let tampered = demo.tree("web2").join("index.html");
    fs::write(&tampered, "<h1>changed by hand</h1>\n").context("cannot write", &tampered)?;
    let drift = demo.session(Purpose::Diff, report)?;
    demo.step(
        report,
        "3. The next deploy repairs it, and sends only what web2 misses.",
    );

    let second = demo.session(Purpose::Deploy, report)?;
    let repaired = fs::read(&tampered).is_ok_and(|bytes| bytes == SITE[5].1.as_bytes());
    if (first, drift, second, repaired) != (0, 1, 0, true) {
        let codes = format!("{first}, {drift}, {second}");
        return Err(Error::new(
            Kind::Io,
            format!("the demo went wrong: exit codes {codes}, expected 0, 1, 0"),
        ));
    }

    demo.step(
        report,
        "That was the real thing, on one machine. On your own hosts:",
    );
    report.note(
        "makuo init www=/var/www            \
         keys, and one file for all hosts: ~/.config/makuo/host.toml",
    );
    report.note(
        "makuo init --host host.toml        \
         on every host, with a copy of that file; then makuo daemon",
    );
    report.note("makuo deploy manifests/www.toml    where the keys are");

    Ok(0)
}

/// Running hosts; stopped and removed on drop.
struct Demo {
    dir: tempfile::TempDir,
    daemons: Vec<Child>,
    network: NetworkConfig,
}

impl Demo {
    fn start(args: &DemoArgs, report: &mut Report) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("makuo-demo-")
            .tempdir()
            .map_err(|e| Error::new(Kind::Io, "cannot make a temporary directory").because(e))?;

        // The loopback address, because its interface may have any name; a random port is unlikely
        // to be in use.
        let mut network = NetworkConfig {
            interfaces: vec!["127.0.0.1".into()],
            port: fastrand::u16(20_000..60_000),
            group_keys: vec![dir.path().join(GROUP_KEY)],
            ..NetworkConfig::default()
        };

        if args.no_multicast {
            network.multicast = false;
            network.unicast_port = network.port;
            network.peers = vec![PeerName::from(IpAddr::from(Ipv4Addr::LOCALHOST))];
        }

        let mut demo = Self {
            dir,
            daemons: Vec::new(),
            network,
        };

        demo.lay_out()?;
        keys::GroupKey::random()?.save(&demo.path(GROUP_KEY), false)?;
        let key = keys::generate(&demo.path("key"), "makuo-demo", false)?;
        write(
            &demo.path("authorized_keys"),
            &format!("{}\n", key.authorized_line),
        )?;

        report.note(&format!(
            "three hosts on the loopback interface, in {}",
            demo.dir.path().display()
        ));

        for (name, number) in HOSTS.iter().zip(0..) {
            let daemon = demo.daemon(name, number)?;
            demo.daemons.push(daemon);
        }

        demo.wait_until_ready()?;
        Ok(demo)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn tree(&self, host: &str) -> PathBuf {
        self.path(host).join("www")
    }

    fn lay_out(&self) -> Result<()> {
        write(&self.path("manifests/www.toml"), SPEC)?;
        let site = self.path("manifests/site");
        for (name, content, mode) in SITE {
            let path = site.join(name);
            write(&path, content)?;
            fs::set_permissions(&path, Permissions::from_mode(mode))
                .context("cannot set mode of", &path)?;
        }

        symlink("docs", site.join("current")).context("cannot make", site.join("current"))?;
        for host in HOSTS {
            fs::create_dir_all(self.tree(host)).context("cannot make", self.tree(host))?;
        }

        Ok(())
    }

    fn daemon(&self, name: &str, number: u16) -> Result<Child> {
        let failed =
            |e| Error::new(Kind::Io, format!("cannot start a daemon for {name}")).because(e);
        let program = std::env::current_exe().map_err(failed)?;
        let log = fs::File::create(self.path(&format!("{name}.log"))).map_err(failed)?;
        let config = self.path(&format!("{name}.toml"));
        write(&config, &self.network_section(number))?;

        Command::new(program)
            .args([
                "daemon",
                "--name",
                name,
                "--interface",
                "127.0.0.1",
                "--console",
                "off",
            ])
            .args(["--port", &self.network.port.to_string()])
            .arg("--config")
            .arg(config)
            .arg("--tree")
            .arg(format!("www={}", self.tree(name).display()))
            .arg("--authorized-keys")
            .arg(self.path("authorized_keys"))
            .arg("--socket")
            .arg(self.path(name).join("sock"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(failed)
    }

    /// Network section of the configuration of host `number`.
    fn network_section(&self, number: u16) -> String {
        if self.network.multicast {
            return String::new();
        }

        let first = self.network.unicast_port;
        format!(
            "[network]\nmulticast = false\npeers = \"127.0.0.1:{first}\"\nunicast_port = {}\n",
            first + number
        )
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        for _ in 0..STARTUP_TIMEOUT.as_millis() / PROBE_TIME.as_millis() {
            if survey::members(network::open(&self.network)?, PROBE_TIME)?
                .found
                .len()
                == HOSTS.len()
            {
                return Ok(());
            }
            std::thread::sleep(PROBE_TIME / 4);
            for (daemon, name) in self.daemons.iter_mut().zip(HOSTS) {
                if let Ok(Some(status)) = daemon.try_wait() {
                    let log = fs::read_to_string(self.dir.path().join(format!("{name}.log")))
                        .unwrap_or_default();
                    return Err(Error::new(
                        Kind::Io,
                        format!("the daemon of {name} ended ({status}): {}", log.trim()),
                    ));
                }
            }
        }

        let what = "the three daemons did not find each other on the loopback interface";
        Err(Error::new(Kind::Io, what).hint(
            "is the loopback interface up (`ip link set lo up`), \
             and does a firewall drop multicast on it? Then try --no-multicast",
        ))
    }

    fn step(&self, report: &mut Report, text: &str) {
        report.note("");
        report.note(text);
    }

    fn session(&self, purpose: Purpose, report: &mut Report) -> Result<u8> {
        let mut spec = Spec::load(&self.path("manifests/www.toml"))?;
        spec.targets.expect = Some(crate::spec::Expect::Count(HOSTS.len() as u32));
        let options = deploy::SessionOptions {
            purpose,
            spec,
            key: self.path("key"),
            only: Vec::new(),
            timeout: Duration::from_secs(10),
            checksum: false,
            recheck: false,
            lists: false,
            message: None,
            wait: Duration::ZERO,
            cosigners: Vec::new(),
            network: self.network.clone(),
            cache: Some(self.path("cache")),
            strict: false,
            unmounted: Unmounted::Refuse,
            authorized: Arc::new(AuthorizedKeys::none(&self.path("authorized_keys"))),
        };

        deploy::session(&options, report)
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        for daemon in &mut self.daemons {
            let pid = nix::unistd::Pid::from_raw(daemon.id() as i32);
            // Fails harmlessly for a child that has exited.
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        }

        for daemon in &mut self.daemons {
            let _ = daemon.wait();
        }
    }
}

fn write(path: &Path, content: &str) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).context("cannot write", path)?;
    }
    fs::write(path, content).context("cannot write", path)
}
