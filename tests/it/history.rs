//! Random histories of a fleet, checked against a model: the final content of each host, the output
//! of `status` and `log`, and the exit code of each command.
//!
//! `MAKUO_HISTORIES=20` sets the number of histories, `MAKUO_HISTORY_SEED=7` the first seed,
//! `MAKUO_HISTORY_STEPS=12` the length of each. The model knows each release from the test's own
//! actions, never from makuo's output.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::{self, DELETE, Lab, Ran, copy, differences_without, pause, write};

/// Largest number of hosts; the first one also sends.
const HOSTS: usize = 5;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

/// Content of a tree: a version of the source, and the text of each file sent by hand since.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Content {
    version: usize,
    sent: BTreeMap<String, String>,
}

/// A release in the model.
#[derive(Debug, Clone)]
struct Release {
    content: Content,
    is_part: bool,
    /// The only target host, if any.
    only: Option<usize>,
    /// Aborted or reverted: no host accepts the release.
    dead: bool,
}

#[derive(Debug, Clone, Default)]
struct Node {
    there: bool,
    alive: bool,
    /// The running release.
    runs: Option<u64>,
    /// The running release failed its last health check here, so peers cannot fetch a copy.
    sick: bool,
    /// Highest accepted release.
    highest: u64,
    /// Retained whole releases.
    kept: BTreeSet<u64>,
}

struct Model {
    lab: Lab,
    rng: fastrand::Rng,
    releases: BTreeMap<u64, Release>,
    nodes: Vec<Node>,
    /// Newest version of the source; each version has a copy.
    version: usize,
    told: String,
}

impl Model {
    fn new(seed: u64) -> Option<Self> {
        let mut lab = Lab::loopback_idle()?;
        for number in 1..=HOSTS {
            let sick = lab.path(&format!("sick{number}"));
            let health = format!("[\"/bin/sh\", \"-c\", \"test ! -e {}\"]", sick.display());
            let host = lab.host(&format!("web{number}"));
            host.catch_up = true;
            host.rule("keep = 20");
            host.rule(&format!(
                "health = {health}\nhealth_deadline = \"1s\"\nhealth_interval = \"100ms\""
            ));
        }

        let line = lab.keygen("sender");
        let keys = String::from_utf8(support::read(&lab.path("authorized_keys"))).expect("text");
        write(
            &lab.path("authorized_keys"),
            format!("{keys}tree=\"www\",deploy {line}"),
        );
        let sender = format!(
            "[sender]\nkey = {:?}",
            lab.path("sender").to_str().expect("UTF-8")
        );

        lab.hosts[0].setting(&sender);
        write(&lab.site().join("same"), "in every version");

        let nodes = vec![Node::default(); HOSTS];
        let (rng, told) = (
            fastrand::Rng::with_seed(seed),
            format!("MAKUO_HISTORY_SEED={seed}"),
        );

        let mut model = Self {
            lab,
            rng,
            releases: BTreeMap::new(),
            nodes,
            version: 0,
            told,
        };

        model.change();
        (0..3).for_each(|host| model.start(host));
        Some(model)
    }

    fn alive(&self) -> Vec<usize> {
        (0..HOSTS).filter(|&host| self.nodes[host].alive).collect()
    }

    fn runs(&self, host: usize) -> Option<&Release> {
        self.releases.get(&self.nodes[host].runs?)
    }

    fn content(&self, host: usize) -> Option<&Content> {
        self.runs(host).map(|release| &release.content)
    }

    /// Returns the common content of all present hosts, if equal, without dead releases and
    /// releases for selected hosts.
    fn common(&self) -> Option<Content> {
        let alive = self.alive();
        let first = self.content(*alive.first()?)?.clone();
        let fits = |&host: &usize| {
            self.runs(host)
                .is_some_and(|r| r.content == first && !r.dead && r.only.is_none())
        };
        alive.iter().all(fits).then_some(first)
    }

    fn start(&mut self, host: usize) {
        self.lab.hosts[host].start();
        (self.nodes[host].there, self.nodes[host].alive) = (true, true);
        let name = self.lab.hosts[host].name.clone();
        support::until("a host to be heard", || {
            self.status().iter().any(|s| s["host"] == name.as_str())
        });
    }

    fn status(&self) -> Vec<serde_json::Value> {
        let events = self.lab.makuo(&["status", "--json", "www"]).events();
        events
            .into_iter()
            .filter(|e| e["event"] == "host")
            .collect()
    }

    /// Makes a new version of the source.
    fn change(&mut self) {
        self.version += 1;
        write(
            &self.lab.site().join("page"),
            format!("version {}", self.version),
        );
        write(
            &self.lab.site().join(format!("file{}", self.rng.u8(..4))),
            format!("{}", self.rng.u32(..)),
        );
        copy(
            &self.lab.site(),
            &self.lab.path(&format!("v{}", self.version)),
        );
    }

    fn spec(&self, more: &str) {
        self.lab.spec(&format!("{DELETE}[commit]\n{more}"));
    }

    fn step(&mut self) {
        let host = self.rng.usize(..HOSTS);
        let alive = self.nodes[host].alive;
        match self.rng.u8(..22) {
            0..=3 => self.deploy(true, &[], None),
            4 => self.deploy(false, &[], None),
            5 => self.deploy(false, &["--recheck"], None),
            6 => self.deploy(false, &["--recheck"], Some(host)),
            7 | 8 if alive => self.canary(host),
            9 | 10 if alive => self.fails(host),
            11 | 12 => self.rollback(),
            13 => self.rollback_to(),
            14..=16 => self.send(),
            17 if self.alive().len() > 1 && alive => self.away(host),
            18 | 19 if !alive => self.back(host),
            20 if alive => {
                self.say(&format!("web{} restarts", host + 1));
                self.lab.hosts[host].restart();
            }
            21 if alive && self.alive().len() > 1 => self.wipe(host),
            _ => return self.step(),
        }

        self.settle();
    }

    fn say(&mut self, what: &str) {
        self.told.push_str(&format!("; {what}"));
    }

    fn makuo(&mut self, args: &[&str]) -> Ran {
        let ran = self.lab.makuo(args);
        self.say(&format!("{}: {}", args.join(" "), ran.code));
        ran
    }

    #[track_caller]
    fn expect(&self, ran: &Ran, codes: &[i32]) {
        assert!(
            codes.contains(&ran.code),
            "{}: not {codes:?}: {ran}\n{}",
            self.told,
            self.logs()
        );
    }

    fn logs(&self) -> String {
        let logs = self
            .lab
            .hosts
            .iter()
            .map(|host| format!("--- {}\n{}", host.name, host.log()));
        logs.collect::<Vec<_>>().join("\n")
    }

    /// Records a release and its hosts.
    fn record(&mut self, ran: &Ran, release: Release, hosts: &[usize]) {
        let Some(serial) = ran.result()["serial"].as_u64() else {
            panic!("{}: no serial: {ran}", self.told)
        };

        for &host in hosts {
            let node = &mut self.nodes[host];
            (node.runs, node.highest, node.sick) = (Some(serial), serial, false);
            if !release.is_part {
                node.kept.insert(serial);
            }
        }

        self.releases.insert(serial, release);
    }

    fn whole(&self, version: usize) -> Release {
        Release {
            content: Content {
                version,
                sent: BTreeMap::new(),
            },
            is_part: false,
            only: None,
            dead: false,
        }
    }

    /// Deploys new or existing content to all hosts; the health check of the host `sick` fails if
    /// run.
    fn deploy(&mut self, is_new: bool, more: &[&str], sick: Option<usize>) {
        if is_new {
            self.change();
        }

        self.spec("");
        let sick = sick.filter(|&host| self.nodes[host].alive);
        let sick_file = sick.map(|host| self.lab.path(&format!("sick{}", host + 1)));
        sick_file.iter().for_each(|file| write(file, ""));
        let ran = self.makuo(&[&["deploy", "--json", "www.toml"], more].concat());
        sick_file
            .iter()
            .for_each(|file| std::fs::remove_file(file).expect("there"));
        self.expect(&ran, &[if sick.is_some() { 4 } else { 0 }]);
        let (release, alive) = (self.whole(self.version), self.alive());
        self.record(&ran, release, &alive);

        sick.iter().for_each(|&host| self.nodes[host].sick = true);
    }

    fn canary(&mut self, host: usize) {
        self.change();
        self.spec("");
        let name = self.lab.hosts[host].name.clone();
        let ran = self.makuo(&["deploy", "--json", "www.toml", "-t", &name]);
        self.expect(&ran, &[0]);
        let release = Release {
            only: Some(host),
            ..self.whole(self.version)
        };

        self.record(&ran, release, &[host]);
    }

    /// Deploys new content that fails at one host: afterwards all hosts, only the first, or none
    /// have the release.
    fn fails(&mut self, host: usize) {
        self.change();
        let alive = self.alive();
        let how = self.rng.u8(..3);
        let sick = if how == 1 { alive[0] } else { host };
        self.spec(
            [
                "on_failure = \"stop\"\n",
                "batches = [1]\non_failure = \"stop\"\n",
                "on_failure = \"revert\"\n",
            ][how as usize],
        );

        self.say(&format!("web{} is sick", sick + 1));
        write(&self.lab.path(&format!("sick{}", sick + 1)), "");
        let ran = self.makuo(&["deploy", "--json", "www.toml"]);
        std::fs::remove_file(self.lab.path(&format!("sick{}", sick + 1))).expect("there");
        let release = self.whole(self.version);

        match how {
            0 => {
                self.expect(&ran, &[4]);
                self.record(&ran, release, &alive);
                self.nodes[sick].sick = true;
            }
            // With a single host, the first batch is also the last.
            1 => {
                self.expect(&ran, &[4]);
                self.record(
                    &ran,
                    Release {
                        dead: alive.len() > 1,
                        ..release
                    },
                    &[sick],
                );
                self.nodes[sick].sick = true;
            }
            _ => {
                self.expect(&ran, &[3]);
                self.record(
                    &ran,
                    Release {
                        dead: true,
                        ..release
                    },
                    &[],
                );
                let serial = ran.result()["serial"].as_u64().unwrap_or_default();
                alive
                    .iter()
                    .for_each(|&host| self.nodes[host].highest = serial);
            }
        }
    }

    /// Returns the target of a rollback of the running release.
    fn targets(&self) -> Option<usize> {
        let alive = self.alive();
        let mut only: BTreeSet<Option<usize>> = alive
            .iter()
            .filter_map(|&host| self.runs(host))
            .map(|release| release.only)
            .collect();

        if only.len() == 1 {
            only.pop_first().flatten()
        } else {
            None
        }
    }

    fn has_gone_back(&mut self, ran: &Ran, version: usize, only: Option<usize>) {
        let release = Release {
            only,
            ..self.whole(version)
        };

        let hosts: Vec<usize> = self
            .alive()
            .into_iter()
            .filter(|host| only.is_none_or(|only| only == *host))
            .collect();
        self.record(ran, release, &hosts);
    }

    fn rollback(&mut self) {
        let alive = self.alive();
        let running: BTreeSet<Option<&Content>> =
            alive.iter().map(|&host| self.content(host)).collect();
        let is_one = running.len() == 1 && running.iter().all(Option::is_some);
        let some_part = self.releases.values().any(|release| release.is_part);
        let now = alive
            .iter()
            .filter_map(|&host| self.nodes[host].runs)
            .max()
            .unwrap_or_default();

        let present = self
            .releases
            .get(&now)
            .map(|release| release.content.clone());

        // The newest other content that all hosts had before.
        let kept = |serial: &u64| alive.iter().all(|&host| self.has_kept(host, *serial));
        let earlier = self
            .releases
            .iter()
            .rev()
            .filter(|(serial, r)| **serial < now && !r.dead && !r.is_part && kept(serial));

        let goal = earlier
            .filter(|(_, r)| Some(&r.content) != present.as_ref())
            .map(|(_, r)| r.content.version)
            .next();
        let only = self.targets();

        let ran = self.makuo(&["rollback", "www", "--json"]);

        match goal.filter(|_| is_one) {
            _ if some_part && is_one => {
                self.expect(&ran, &[0, 3]);
                if ran.code == 0 {
                    let to = ran.result()["rollback_to"].as_u64().unwrap_or_default();
                    let known = self
                        .releases
                        .get(&to)
                        .filter(|release| !release.is_part && !release.dead);
                    let version = known
                        .unwrap_or_else(|| panic!("{}: to {to}: {ran}", self.told))
                        .content
                        .version;
                    self.has_gone_back(&ran, version, only);
                }
            }
            Some(version) => {
                self.expect(&ran, &[0]);
                self.has_gone_back(&ran, version, only);
            }
            None => self.expect(&ran, &[3]),
        }
    }

    /// Returns true if a host retains a release with the same content.
    fn has_kept(&self, host: usize, serial: u64) -> bool {
        let content = &self.releases[&serial].content;
        self.nodes[host]
            .kept
            .iter()
            .any(|kept| self.releases[kept].content == *content)
    }

    fn rollback_to(&mut self) {
        let alive = self.alive();
        // Among several releases with the same content, a host names the running one, or the
        // newest.
        let names = |host: usize, serial: u64| {
            let node = &self.nodes[host];
            let same = node
                .kept
                .iter()
                .filter(|kept| self.releases[*kept].content == self.releases[&serial].content);
            let runs = same.clone().find(|kept| Some(**kept) == node.runs);
            runs.or(same.max()) == Some(&serial)
        };

        let fits = |(serial, release): &(&u64, &Release)| {
            !release.is_part && !release.dead && alive.iter().all(|&host| names(host, **serial))
        };

        let choice: Vec<(u64, usize)> = self
            .releases
            .iter()
            .filter(fits)
            .map(|(s, r)| (*s, r.content.version))
            .collect();

        if choice.is_empty() {
            return;
        }

        let (serial, version) = choice[self.rng.usize(..choice.len())];
        let goal = Content {
            version,
            sent: BTreeMap::new(),
        };

        let only = self.targets();
        let targets = alive
            .iter()
            .filter(|host| only.is_none_or(|only| only == **host));
        let targets: Vec<usize> = targets.copied().collect();
        let differs = targets
            .iter()
            .any(|&host| self.content(host) != Some(&goal));

        // A file sent by hand and removed again changes the time of its directory.
        let is_touched = targets
            .iter()
            .any(|&host| self.runs(host).is_some_and(|release| release.is_part));
        let ran = self.makuo(&["rollback", "www", "--json", "--to", &serial.to_string()]);
        self.expect(
            &ran,
            if differs {
                &[0]
            } else if is_touched {
                &[0, 3]
            } else {
                &[3]
            },
        );

        if ran.code == 0 {
            self.has_gone_back(&ran, version, only);
        }
    }

    /// Sends a change of the first host's tree to all others: a new or removed file.
    fn send(&mut self) {
        let alive = self.alive();
        let Some(mut content) = self.common().filter(|_| alive.first() == Some(&0)) else {
            return;
        };

        let gone = self.rng.usize(..3) == 0 && !content.sent.is_empty();
        let name = match gone {
            true => content
                .sent
                .keys()
                .nth(self.rng.usize(..content.sent.len()))
                .cloned()
                .unwrap_or_default(),
            false => format!("sent{}", self.rng.u8(..4)),
        };

        let path = self.lab.hosts[0].tree().join(&name);
        let before = std::fs::read(&path).ok();
        match gone {
            true => {
                content.sent.remove(&name);
                std::fs::remove_file(&path).expect("there");
            }
            false => {
                let text = format!("{}", self.rng.u32(..));
                write(&path, &text);
                content.sent.insert(name.clone(), text);
            }
        }

        let socket = self.lab.hosts[0].socket();
        let mut command = self.lab.admin.command(env!("CARGO_BIN_EXE_makuo"));
        command.args([
            if gone { "sync" } else { "send" },
            &name,
            "--json",
            "--socket",
            socket.to_str().expect("UTF-8"),
        ]);

        let ran = support::Running::start(&mut command).wait();
        self.say(&format!(
            "{} {name}: {}",
            if gone { "sync" } else { "send" },
            ran.code
        ));

        if alive.len() == 1 {
            self.expect(&ran, &[3]);
            match before {
                Some(bytes) => write(&path, bytes),
                None => std::fs::remove_file(&path).expect("there"),
            }
            return;
        }

        self.expect(&ran, &[0]);
        self.record(
            &ran,
            Release {
                content,
                is_part: true,
                only: None,
                dead: false,
            },
            &alive,
        );
    }

    fn away(&mut self, host: usize) {
        let kills = self.rng.bool();
        self.say(&format!(
            "web{} {}",
            host + 1,
            if kills { "is killed" } else { "ends" }
        ));

        match kills {
            true => self.lab.hosts[host].kill(),
            false => drop(self.lab.hosts[host].stop()),
        }

        self.nodes[host].alive = false;
    }

    fn back(&mut self, host: usize) {
        self.say(&format!(
            "web{} {}",
            host + 1,
            if self.nodes[host].there {
                "is back"
            } else {
                "is new"
            }
        ));
        self.start(host);
    }

    fn wipe(&mut self, host: usize) {
        self.say(&format!("web{} is wiped", host + 1));
        self.lab.hosts[host].kill();
        for dir in [self.lab.hosts[host].tree(), self.lab.hosts[host].state()] {
            std::fs::remove_dir_all(&dir).expect("there");
        }

        std::fs::create_dir(self.lab.hosts[host].tree()).expect("new");
        self.nodes[host] = Node {
            there: true,
            ..Node::default()
        };

        self.start(host);
    }

    /// Models the catch-up between hosts, until no missing release is available from a peer.
    fn catch_up(&mut self) {
        loop {
            let alive = self.alive();
            let given: BTreeSet<u64> = alive
                .iter()
                .filter(|&&h| !self.nodes[h].sick)
                .filter_map(|&h| self.nodes[h].runs)
                .collect();
            let mut moved = false;
            for &host in &alive {
                let fits = |serial: &&u64| {
                    let release = &self.releases[*serial];
                    !release.dead
                        && release.only.is_none_or(|only| only == host)
                        && **serial > self.nodes[host].highest
                };
                let Some(&newest) = given.iter().rev().find(fits) else {
                    continue;
                };
                // Parts come after their whole.
                let base = self
                    .releases
                    .range(..=newest)
                    .rev()
                    .find(|(_, r)| !r.is_part)
                    .map(|(serial, _)| *serial);
                let node = &mut self.nodes[host];
                node.kept.extend(base);
                (node.runs, node.highest, node.sick, moved) = (Some(newest), newest, false, true);
            }
            if !moved {
                return;
            }
        }
    }

    /// Returns the difference between a host's tree and the model.
    fn wrong(&self, host: usize) -> Option<String> {
        let tree = self.lab.hosts[host].tree();
        let Some(content) = self.content(host) else {
            let count = std::fs::read_dir(&tree).expect("a tree").count();
            return (count > 0).then(|| format!("{count} entries, and no release"));
        };

        let found = differences_without(
            &["/sent*"],
            &self.lab.path(&format!("v{}", content.version)),
            &tree,
        );

        if !found.is_empty() {
            return Some(format!("not {content:?}: {found}"));
        }

        let names = std::fs::read_dir(&tree)
            .expect("a tree")
            .map(|e| e.expect("an entry").file_name());
        let sent = names
            .filter_map(|name| name.into_string().ok())
            .filter(|name| name.starts_with("sent"));
        let read = |name: String| {
            (
                name.clone(),
                std::fs::read_to_string(tree.join(&name)).unwrap_or_default(),
            )
        };

        let sent: BTreeMap<String, String> = sent.map(read).collect();
        (sent != content.sent).then(|| format!("not {content:?}: {sent:?}"))
    }

    /// Returns the first error in the output of `status`.
    fn misspoken(&self) -> Option<String> {
        let all = self.status();
        let alive = self.alive();
        if all.len() != alive.len() {
            return Some(format!("{} hosts: {all:?}", all.len()));
        }

        let good = |host: &usize| self.runs(*host).is_some_and(|release| !release.dead);
        for (said, &host) in all.iter().zip(&alive) {
            let runs = said["serial"].as_u64();
            let known =
                runs.map(|serial| self.releases.get(&serial).map(|release| &release.content));
            let is_right = known.map_or(self.content(host).is_none(), |known| {
                known == self.content(host)
            });
            // A host is up to date with the newest live release for that host.
            let is_for = |other: &&usize| {
                let only = self.runs(**other).and_then(|release| release.only);
                only.is_none_or(|only| only == host)
            };
            let newest = alive
                .iter()
                .filter(|host| good(host))
                .filter(is_for)
                .filter_map(|&host| self.nodes[host].runs)
                .max();
            let behind = newest > self.nodes[host].runs;
            let dead = self.runs(host).is_some_and(|release| release.dead);
            let well = said["state"] == "idle"
                && said["split"] == false
                && said["lacks_parts"] == serde_json::json!([]);
            let lag = said["behind"] == behind || dead;
            let stone = (said["stopped"] == true || said["taken_back"] == true) == dead;
            let sick = self.nodes[host].sick;
            let error = !sick || said["error"].is_string();
            if !(is_right && well && lag && stone && error) {
                return Some(format!(
                    "{said}, but {:?} with {:?}",
                    self.nodes[host],
                    self.content(host)
                ));
            }
        }

        None
    }

    /// Waits until the fleet matches the model, and checks that the state is stable.
    fn settle(&mut self) {
        self.catch_up();
        let watch = support::Stopwatch::start();
        loop {
            let alive = self.alive();
            let wrong: Vec<String> = alive
                .iter()
                .filter_map(|&h| Some(format!("web{}: {}", h + 1, self.wrong(h)?)))
                .collect();
            let wrong = if wrong.is_empty() {
                self.misspoken().unwrap_or_default()
            } else {
                wrong.join("; ")
            };
            if wrong.is_empty() {
                break;
            }
            assert!(
                watch.read() < support::wait::LONG,
                "{}\n{wrong}\n{}",
                self.told,
                self.logs()
            );
            pause(std::time::Duration::from_millis(200));
        }

        if self.rng.u8(..4) == 0 {
            // Longer than the delay before hosts request missing content.
            pause(std::time::Duration::from_millis(2500));
            for host in self.alive() {
                let wrong = self.wrong(host);
                assert!(
                    wrong.is_none(),
                    "{}: web{}: {wrong:?}\n{}",
                    self.told,
                    host + 1,
                    self.logs()
                );
            }
        }
    }
}

#[test]
fn a_fleet_has_what_its_history_says() {
    let first =
        std::env::var("MAKUO_HISTORY_SEED").map_or_else(|_| fastrand::u64(..1 << 32), |_| 0);
    let first = number("MAKUO_HISTORY_SEED", first);
    for seed in first..first + number("MAKUO_HISTORIES", 1) {
        let Some(mut model) = Model::new(seed) else {
            return;
        };
        model.deploy(true, &[], None);
        model.settle();
        for _ in 0..number("MAKUO_HISTORY_STEPS", 8) {
            model.step();
        }
        println!("{}", model.told);
    }
}
