//! One job done by several tools, in several interleaved runs, so that a slow minute of the machine
//! affects all tools.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Duration;

use super::fabric::{Fabric, Line, Sent};
use super::fleet::Fleet;
use super::material::{Material, judge};
use super::peers::{self, Errand};
use super::trouble::Trouble;
use super::{Settings, inside, say};

/// A measured tool.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Tool {
    /// makuo, with these additional lines in the spec.
    Makuo(&'static str),
    /// makuo on the same network with multicast dropped.
    Unicast,
    Rsync,
    RsyncCompressed,
    Uftp,
    Udpcast,
}

/// makuo with its defaults.
pub const MAKUO: Tool = Tool::Makuo("");
/// All tools that transfer a tree.
pub const ALL: [Tool; 4] = [MAKUO, Tool::Rsync, Tool::Uftp, Tool::Udpcast];

/// Time limit of a run.
pub const LIMIT: Duration = Duration::from_secs(90);
/// Seconds above which a peer runs only once.
const TEDIOUS: f64 = 15.0;

/// A tree to transfer to hosts.
pub struct Job<'a> {
    pub material: &'a Material,
    pub hosts: usize,
    pub line: Line,
    /// Flags of makuo.
    pub flags: &'a [&'a str],
}

/// Results of a tool.
#[derive(Debug, Clone)]
pub struct Done {
    pub tool: Tool,
    pub seconds: Vec<f64>,
    /// Bytes sent in each run.
    pub sent: Vec<Sent>,
    /// Bytes sent in each run by the host that sent most; empty where nobody counts them.
    pub passed_on: Vec<u64>,
    /// Reason for missing runs.
    pub trouble: Option<Trouble>,
}

impl Tool {
    pub fn name(self) -> &'static str {
        match self {
            Tool::Makuo(_) => "makuo",
            Tool::Unicast => "makuo unicast",
            Tool::Rsync => "rsync",
            Tool::RsyncCompressed => "rsync -z",
            Tool::Uftp => "uftp",
            Tool::Udpcast => "udpcast",
        }
    }

    pub fn is_peer(self) -> bool {
        !matches!(self, Tool::Makuo(_) | Tool::Unicast)
    }

    fn missing(self) -> Option<String> {
        let programs: &[&str] = match self {
            Tool::Uftp => &["uftp", "uftpd"],
            Tool::Udpcast => &["udp-sender", "udp-receiver", "tar"],
            _ => &[],
        };
        programs.iter().find_map(|program| peers::missing(program))
    }
}

impl Job<'_> {
    /// Measures every tool; peers only on request.
    pub fn measure(&self, title: &str, tools: &[Tool], settings: Settings) -> Vec<Done> {
        let tools = tools
            .iter()
            .filter(|tool| settings.peers || !tool.is_peer());
        let new = |&tool: &Tool| Done {
            tool,
            seconds: Vec::new(),
            sent: Vec::new(),
            passed_on: Vec::new(),
            trouble: self.obstacle(tool),
        };

        let mut all: Vec<Done> = tools.map(new).collect();
        for run in 1..=settings.runs {
            for done in &mut all {
                let tedious = done.tool.is_peer() && done.seconds.iter().any(|&s| s > TEDIOUS);
                if done.trouble.is_none() && !tedious {
                    self.once(&format!("{title}, {} hosts, run {run}", self.hosts), done);
                }
            }
        }

        all
    }

    fn obstacle(&self, tool: Tool) -> Option<Trouble> {
        let needed = self.material.bytes * (self.hosts as u64 + 1);
        if needed > inside::available() {
            return Some(Trouble::Skipped(format!(
                "it needs {} MB of memory",
                needed / 1_000_000
            )));
        }

        tool.missing().map(Trouble::Skipped)
    }

    fn once(&self, title: &str, done: &mut Done) {
        let tool = done.tool;
        match guarded(|| self.attempt(tool)) {
            Ok((seconds, sent, passed_on)) => {
                say(&format!("{title}: {} {seconds:.3} s", tool.name()));
                done.seconds.push(seconds);
                done.sent.push(sent);
                done.passed_on.extend(passed_on);
            }
            Err(trouble) => {
                say(&format!("{title}: {} {}", tool.name(), trouble.text()));
                done.trouble = Some(trouble);
            }
        }
    }

    fn attempt(&self, tool: Tool) -> Result<(f64, Sent, Option<u64>), Trouble> {
        match tool {
            Tool::Makuo(spec) => self.makuo(spec, self.line),
            Tool::Unicast => self.makuo("", self.line.unicast()),
            _ => self.peer(tool).map(|(seconds, sent)| (seconds, sent, None)),
        }
    }

    fn makuo(&self, spec: &str, line: Line) -> Result<(f64, Sent, Option<u64>), Trouble> {
        let fleet = Fleet::new(self.hosts, line)?;
        let source = self.material.path();
        let (before, hosts_before) = (fleet.fabric.sent(), fleet.fabric.sent_by_hosts());
        let ran = fleet.deploy(&source, spec, self.flags, LIMIT)?;
        let sent = fleet.fabric.sent().since(before);
        let passed_on = most_since(&hosts_before, &fleet.fabric.sent_by_hosts());
        fleet.check(&source)?;
        Ok((ran.seconds, sent, passed_on))
    }

    fn peer(&self, tool: Tool) -> Result<(f64, Sent), Trouble> {
        let fabric = Fabric::new(self.hosts, self.line)?;
        let dir = tempfile::tempdir()?;
        let trees: Vec<PathBuf> = (1..=self.hosts)
            .map(|i| dir.path().join(format!("host{i}")))
            .collect();
        trees
            .iter()
            .for_each(|tree| std::fs::create_dir(tree).expect("new"));

        let source = self.material.path();
        let errand = Errand {
            fabric: &fabric,
            source: &source,
            trees: &trees,
            dir: dir.path(),
            mbit: self.line.mbit,
            limit: LIMIT,
        };

        let before = fabric.sent();
        let seconds = match tool {
            Tool::RsyncCompressed => peers::rsync(&errand, &["-z"]),
            Tool::Uftp => peers::uftp(&errand),
            Tool::Udpcast => peers::udpcast(&errand),
            _ => peers::rsync(&errand, &[]),
        };

        let seconds = seconds?;
        let sent = fabric.sent().since(before);

        // Not all other tools preserve times and modes.
        trees
            .iter()
            .try_for_each(|tree| judge("-rlc", &source, tree))
            .map_err(Trouble::Wrong)?;

        Ok((seconds, sent))
    }
}

/// Repeats `once` for the configured number of runs, and returns the seconds and the value of each.
pub fn repeat<T>(
    title: &str,
    settings: Settings,
    mut once: impl FnMut() -> Result<(f64, Sent, T), Trouble>,
) -> (Done, Vec<T>) {
    let mut done = Done {
        tool: MAKUO,
        seconds: Vec::new(),
        sent: Vec::new(),
        passed_on: Vec::new(),
        trouble: None,
    };

    let mut more = Vec::new();
    for run in 1..=settings.runs {
        match guarded(&mut once) {
            Ok((seconds, sent, what)) => {
                say(&format!("{title}, run {run}: {seconds:.3} s"));
                done.seconds.push(seconds);
                done.sent.push(sent);
                more.push(what);
            }
            Err(trouble) => {
                say(&format!("{title}, run {run}: {}", trouble.text()));
                done.trouble = Some(trouble);
                break;
            }
        }
    }

    (done, more)
}

/// Returns the largest growth of a host's counter.
fn most_since(before: &[u64], after: &[u64]) -> Option<u64> {
    let grown = before
        .iter()
        .zip(after)
        .map(|(before, after)| after - before);
    grown.max()
}

/// Turns a panic of the lab into the failure of one run.
fn guarded<T>(work: impl FnOnce() -> Result<T, Trouble>) -> Result<T, Trouble> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(Trouble::Failed("see the panic above".into())))
}
