//! Cost of a process: processor time, peak resident size, and elapsed time.
//!
//! Commands are started by a fresh copy of this program with a few megabytes of memory. The kernel
//! counts exactly the usage of the command and all its threads, and a child inherits the peak size
//! of the process that forked it.

use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use serde_json::{Value, json};

use crate::network::fleet::Fleet;
use crate::network::row::median;
use crate::network::timed;
use crate::network::trouble::Trouble;
use crate::support::Host;

use super::walk;

/// Set for the measuring program: output file of the figures.
const MEASURE: &str = "MAKUO_BENCH_MEASURE";
/// Set for the walking program: path of the tree.
const WALK: &str = "MAKUO_BENCH_WALK";
/// Ticks per second in /proc, on every Linux.
const TICKS: f64 = 100.0;
/// Idle time of a daemon before its measurement.
const IDLE: Duration = Duration::from_millis(300);
/// Time limit for the daemon to become idle.
const PATIENCE: Duration = Duration::from_secs(60);

/// Cost of one run of a command.
#[derive(Debug, Clone, Default)]
pub struct Cost {
    /// Elapsed time.
    pub seconds: f64,
    /// Processor time, user and system.
    pub cpu: f64,
    /// Processor time of the host's daemon.
    pub host_cpu: f64,
    /// Peak resident size in megabytes.
    pub resident: f64,
    /// Bytes sent according to the command's result.
    pub sent: f64,
    /// Duration of the scan.
    pub scan: f64,
}

/// Runs the measuring or walking program if this process was started as one.
pub fn served() -> Option<ExitCode> {
    // Checked first: the measured command may be the walk.
    let Some(out) = std::env::var_os(MEASURE) else {
        return std::env::var_os(WALK).map(|tree| walk::run(Path::new(&tree)));
    };

    let mut line = std::env::args_os().skip(1);
    let mut command = Command::new(line.next()?);
    let watch = timed::stopwatch();
    let status = command.args(line).env_remove(MEASURE).status();
    let seconds = watch();
    let used = getrusage(UsageWho::RUSAGE_CHILDREN).ok()?;
    let time = |t: nix::sys::time::TimeVal| t.tv_sec() as f64 + t.tv_usec() as f64 / 1e6;

    let cpu = time(used.user_time()) + time(used.system_time());
    let figures =
        json!({"seconds": seconds, "cpu": cpu, "resident": used.max_rss() as f64 * 1024.0 / 1e6});
    std::fs::write(out, figures.to_string()).ok()?;
    let code = status.ok()?.code().and_then(|code| u8::try_from(code).ok());

    Some(ExitCode::from(code.unwrap_or(255)))
}

/// Runs a command started by [`launcher`].
fn measured(command: &mut Command, limit: Duration) -> Result<Cost, Trouble> {
    let out = tempfile::NamedTempFile::new()?;
    let ran = timed::run(command.env(MEASURE, out.path()), limit)?;
    let told: Value =
        serde_json::from_reader(File::open(out.path())?).map_err(|e| e.to_string())?;
    let figure = |name: &str| told[name].as_f64().unwrap_or(f64::NAN);
    let of = |event: &str, name: &str| {
        ran.events
            .iter()
            .rev()
            .find(|(_, e)| e["event"] == event)
            .and_then(|(_, e)| e[name].as_f64())
    };

    Ok(Cost {
        seconds: figure("seconds"),
        cpu: figure("cpu"),
        host_cpu: 0.0,
        resident: figure("resident"),
        sent: of("result", "bytes_sent").unwrap_or(f64::NAN),
        scan: of("scanned", "seconds").unwrap_or(0.0),
    })
}

/// Measures the bare walk of `tree`.
pub fn walk(tree: &Path) -> Result<Cost, Trouble> {
    let this = std::env::current_exe()?;
    let mut command = Command::new(&this);
    measured(command.arg(&this).env(WALK, tree), PATIENCE * 10)
}

/// Measures `makuo VERB` of `source`, including the cost to the first host.
pub fn makuo(fleet: &Fleet, verb: &str, source: &Path, limit: Duration) -> Result<Cost, Trouble> {
    let this = std::env::current_exe()?;
    let host = &fleet.hosts[0];
    let before = settled(host)?;
    let mut command = fleet.command(&[this.as_os_str()] as &[&OsStr], verb, source, "", &[]);
    let cost = measured(&mut command, limit)?;

    Ok(Cost {
        host_cpu: settled(host)? - before,
        ..cost
    })
}

/// Waits until the daemon is idle, and returns its total processor time.
fn settled(host: &Host) -> Result<f64, Trouble> {
    let mut last = cpu(host.pid())?;
    let watch = timed::stopwatch();
    while watch() < PATIENCE.as_secs_f64() {
        timed::comes(IDLE, || false);
        let now = cpu(host.pid())?;
        // An occasional beacon does not count as work.
        if now - last < 0.015 {
            return Ok(now);
        }
        last = now;
    }

    Err(Trouble::Failed(format!(
        "{} does not come to rest",
        host.name
    )))
}

/// Reads the processor time of a process in seconds from `stat`: the numbers after the name, which
/// ends with the last bracket.
fn cpu(pid: u32) -> Result<f64, Trouble> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let numbers = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: f64 = numbers
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|n| n.parse::<f64>().ok())
        .sum();
    Ok(ticks / TICKS)
}

/// Returns the daemon's peak resident size so far, in megabytes.
pub fn peak(host: &Host) -> Result<f64, Trouble> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", host.pid()))?;
    let line = status
        .lines()
        .find_map(|l| l.strip_prefix("VmHWM:"))
        .ok_or("no VmHWM".to_string())?;
    let kilobytes: f64 = line
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .map_err(|_| "VmHWM is no number".to_string())?;
    Ok(kilobytes * 1024.0 / 1e6)
}

/// Returns the median of one figure of several costs.
pub fn middle(costs: &[Cost], of: fn(&Cost) -> f64) -> Option<f64> {
    median(&costs.iter().map(of).collect::<Vec<_>>())
}
