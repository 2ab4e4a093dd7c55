//! The case of a repository on a web server: time, requests and bytes of pulls and publications.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::cases::{line_time, shaped};
use super::fabric::Fabric;
use super::fleet::{Fleet, MAKUO};
use super::job::{LIMIT, repeat};
use super::material::{Material, judge, small_name};
use super::peers::missing;
use super::row::{Check, Row, median};
use super::timed::{self, Daemons, comes, stopwatch};
use super::trouble::Trouble;
use super::{PAYLOAD, Settings};
use crate::support::run::tool;
use crate::support::{DELETE, Noise, write};

/// Rate of all lines in Mbit/s.
const MBIT: u32 = 500;
/// Files of the tree with one change.
const FILES: usize = 10_000;
/// Hosts of one segment.
const HOSTS: usize = 10;
/// Port of the web server.
const PORT: u16 = 8080;

/// Requests and bytes that the web server has answered.
#[derive(Debug, Clone, Copy, Default)]
struct Answered {
    requests: u64,
    bytes: u64,
}

/// A web server in the sender's namespace, and a publisher beside it.
struct Depot {
    home: tempfile::TempDir,
    url: String,
    _nginx: Daemons,
}

impl Depot {
    fn start(fabric: &Fabric) -> Result<Self, Trouble> {
        if let Some(why) = missing("nginx") {
            return Err(Trouble::Skipped(why));
        }

        let home = tempfile::tempdir()?;
        let address = format!("{}:{PORT}", fabric.address(fabric.hosts.len()));
        let dir = home.path();
        std::fs::create_dir(dir.join("files"))?;
        write(&dir.join("nginx.conf"), config(dir, &address));
        let key = ["keygen", "--deploy", "--output", "key"];
        let line = tool(Command::new(MAKUO).args(key).current_dir(dir));
        write(&dir.join("keys"), line);

        let mut nginx = Daemons::default();
        let mut command = fabric.sender.command("nginx");
        command.arg("-e").arg(dir.join("error.log"));
        nginx.start(command.arg("-c").arg(dir.join("nginx.conf")))?;
        let listens = || {
            let mut probe = fabric.sender.command("sh");
            let test = format!("ss -ltn | grep -q ':{PORT} '");
            probe
                .args(["-c", &test])
                .status()
                .is_ok_and(|s| s.success())
        };
        if !comes(LIMIT, listens) {
            return Err(Trouble::Failed("nginx does not listen".into()));
        }

        Ok(Self {
            url: format!("http://{address}"),
            home,
            _nginx: nginx,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// What was answered since the last call.
    fn answered(&self) -> Answered {
        // nginx writes a line after the last byte of an answer.
        comes(std::time::Duration::from_millis(100), || false);
        let log = self.path("access.log");
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        write(&log, "");
        let mut answered = Answered::default();
        for bytes in text.lines().filter_map(|line| line.parse::<u64>().ok()) {
            answered.requests += 1;
            answered.bytes += bytes;
        }
        answered
    }

    fn publish(&self, fabric: &Fabric, source: &Path) -> Result<f64, Trouble> {
        let spec = format!("tree = \"www\"\nsource = {source:?}\n{DELETE}");
        write(&self.path("www.toml"), spec);
        let mut command = fabric.sender.command(MAKUO);
        command
            .args(["publish", "www.toml", "--json", "--key", "key", "--to"])
            .arg(&self.url);
        self.run(&mut command)
    }

    fn pull(&self, fabric: &Fabric, tree: &Path) -> Result<f64, Trouble> {
        let mut command = fabric.hosts[0].command(MAKUO);
        command.args(["pull", &self.url, "www"]).arg(tree).args([
            "--json",
            "--name",
            "host1",
            "--authorized-keys",
            "keys",
        ]);
        self.run(&mut command)
    }

    fn run(&self, command: &mut Command) -> Result<f64, Trouble> {
        let home = self.home.path();
        let command = command.current_dir(home).env("HOME", home);
        Ok(timed::run(command, LIMIT)?.seconds)
    }

    /// Bytes of all packs.
    fn stored(&self) -> u64 {
        let mut command = Command::new("du");
        command
            .args(["-sb", "--apparent-size"])
            .arg(self.path("files/packs"));
        let said = tool(&mut command);
        said.split_whitespace()
            .next()
            .and_then(|n| n.parse().ok())
            .unwrap_or(0)
    }
}

fn config(dir: &Path, address: &str) -> String {
    let dir = dir.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("{kind}_temp_path {dir}/{kind};\n"))
        .collect();
    format!(
        "daemon off;\nmaster_process off;\npid {dir}/pid;\nerror_log {dir}/error.log;\n\
         events {{}}\nhttp {{\nlog_format bytes '$bytes_sent';\n\
         access_log {dir}/access.log bytes;\n\
         {temporary}server {{\nlisten {address};\nroot {dir}/files;\nsendfile on;\n\
         client_max_body_size 64m;\ncreate_full_put_path on;\n\
         location / {{\ndav_methods PUT DELETE MKCOL;\n}}\n}}\n}}\n"
    )
}

/// Measures pulls and publications.
pub fn repository(settings: Settings) -> Vec<Row> {
    let mut rows = first_pull(settings);
    rows.extend(one_change(settings));
    rows.push(segment(settings));
    rows
}

fn payload(settings: Settings) -> (u32, u64) {
    if settings.small {
        (20, 4_000_000)
    } else {
        (MBIT, PAYLOAD)
    }
}

/// A first pull of one file, and a pull with nothing new.
fn first_pull(settings: Settings) -> Vec<Row> {
    let (mbit, bytes) = payload(settings);
    let material = Material::noise(31, bytes);
    let source = material.path();
    let setup = Fabric::new(1, shaped(mbit, 0))
        .map_err(Trouble::from)
        .and_then(|fabric| {
            let depot = Depot::start(&fabric)?;
            depot.publish(&fabric, &source)?;
            Ok((fabric, depot))
        });

    let (first, pulled) = repeat("repository: first pull", settings, || {
        let (fabric, depot) = setup.as_ref().map_err(Trouble::clone)?;
        let tree = tempfile::tempdir()?;
        depot.answered();
        let before = fabric.sent();
        let seconds = depot.pull(fabric, &tree.path().join("www"))?;
        let sent = fabric.sent().since(before);
        judge("-aHAXc", &source, &tree.path().join("www")).map_err(Trouble::Wrong)?;
        Ok((seconds, sent, depot.answered()))
    });

    let bound = Some(line_time(bytes, mbit));
    let mut row = Row::new("repository", "first pull", 1, &first, bytes, bound);
    let stored = setup.as_ref().map_or(1, |(_, depot)| depot.stored()).max(1);
    row.require(row.ratio.map(|ratio| Check::under("time", ratio, 1.15)));
    require_answered(&mut row, &pulled, 44.0, 1.02 * stored as f64);

    let tree = tempfile::tempdir();
    let (nothing, polled) = repeat("repository: nothing new", settings, || {
        let (fabric, depot) = setup.as_ref().map_err(Trouble::clone)?;
        let tree = tree.as_ref().map_err(|e| Trouble::Skipped(e.to_string()))?;
        depot.pull(fabric, &tree.path().join("www"))?;
        depot.answered();
        let before = fabric.sent();
        let seconds = depot.pull(fabric, &tree.path().join("www"))?;
        Ok((seconds, fabric.sent().since(before), depot.answered()))
    });
    let mut idle = Row::new("repository", "nothing new", 1, &nothing, bytes, None);
    require_answered(&mut idle, &polled, 1.0, 1024.0);
    vec![row, idle]
}

/// One file of many changed: publish and pull.
fn one_change(settings: Settings) -> Vec<Row> {
    let files = if settings.small { 100 } else { FILES };
    let material = Material::small(32, files, 8192);
    let source = material.path();
    let tree = tempfile::tempdir();
    let setup = Fabric::new(1, shaped(payload(settings).0, 0))
        .map_err(Trouble::from)
        .and_then(|fabric| {
            let depot = Depot::start(&fabric)?;
            depot.publish(&fabric, &source)?;
            let tree = tree.as_ref().map_err(|e| Trouble::Skipped(e.to_string()))?;
            depot.pull(&fabric, &tree.path().join("www"))?;
            Ok((fabric, depot, tree.path().join("www")))
        });

    let mut noise = Noise::new(33);
    let mut pulls = Vec::new();
    let (published, puts) = repeat("repository: 1 file", settings, || {
        let (fabric, depot, tree) = setup.as_ref().map_err(Trouble::clone)?;
        write(&source.join(small_name(files / 2)), noise.bytes(8192));
        depot.answered();
        let before = fabric.sent();
        let seconds = depot.publish(fabric, &source)?;
        let answered = depot.answered();
        let pull = depot.pull(fabric, tree)?;
        pulls.push((pull, depot.answered()));
        judge("-aHAXc", &source, tree).map_err(Trouble::Wrong)?;
        Ok((seconds, fabric.sent().since(before), answered))
    });

    let what = format!("publish 1 of {files} files");
    let mut publish = Row::new("repository", &what, 1, &published, 8192, None);
    require_answered(&mut publish, &puts, 5.0, 300_000.0);
    let mut pulled = published.clone();
    pulled.seconds = pulls.iter().map(|(seconds, _)| *seconds).collect();
    let gets: Vec<Answered> = pulls.iter().map(|(_, answered)| *answered).collect();
    let what = format!("pull 1 of {files} files");
    let mut pull = Row::new("repository", &what, 1, &pulled, 8192, None);
    require_answered(&mut pull, &gets, 6.0, 300_000.0);
    vec![publish, pull]
}

/// Hosts of one segment take a release that one of them finds.
fn segment(settings: Settings) -> Row {
    let (mbit, bytes) = payload(settings);
    let hosts = if settings.small { 3 } else { HOSTS };
    let material = Material::noise(34, bytes);
    let source = material.path();
    let (done, answered) = repeat("repository: segment", settings, || {
        let mut fleet = Fleet::new(hosts, shaped(mbit, 0))?;
        let depot = Depot::start(&fleet.fabric)?;
        let keys = std::fs::read(depot.path("keys"))?;
        for host in &mut fleet.hosts {
            let known = host.config_path().with_file_name("../authorized_keys");
            let known = std::fs::canonicalize(known)?;
            write(&known, &keys);
            host.catch_up = true;
            host.rule(&format!("repository = {:?}\npoll = \"2s\"", depot.url));
            host.restart();
        }

        let before = fleet.fabric.sent();
        depot.publish(&fleet.fabric, &source)?;
        depot.answered();
        let elapsed = stopwatch();
        if !comes(LIMIT, || fleet.check(&source).is_ok()) {
            return Err(Trouble::Late(LIMIT.as_secs()));
        }
        let seconds = elapsed();
        Ok((seconds, fleet.fabric.sent().since(before), depot.answered()))
    });

    let mut row = Row::new("repository", "one segment", hosts, &done, bytes, None);
    require_answered(&mut row, &answered, f64::INFINITY, 1.1 * bytes as f64);
    row
}

fn require_answered(row: &mut Row, all: &[Answered], requests: f64, bytes: f64) {
    let of = |value: fn(&Answered) -> u64| {
        let values: Vec<f64> = all.iter().map(|one| value(one) as f64).collect();
        median(&values)
    };
    if requests.is_finite() {
        row.require(of(|one| one.requests).map(|n| Check::under("requests", n, requests)));
    }
    row.require(of(|one| one.bytes).map(|n| Check::under("bytes", n, bytes)));
}
