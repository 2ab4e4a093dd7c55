//! The same job done by other tools: parallel rsync to every host, uftp, udpcast.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::fabric::Fabric;
use super::timed::{self, Daemons, comes};
use super::trouble::Trouble;

/// Share of a line's rate configured for uftp and udpcast, which need a fixed rate.
const UFTP_SHARE: f64 = 0.92;
const UDPCAST_SHARE: f64 = 0.94;
/// Rate configured for uftp without a port limit, since uftp cannot measure the rate.
const UFTP_FREE_MBIT: f64 = 1000.0;
/// Time limit for a daemon to start listening.
const START: Duration = Duration::from_secs(10);
/// Startup delay for daemons that cannot be probed.
const BLIND_START: Duration = Duration::from_millis(1000);
/// Multicast group for the rendezvous of udpcast.
const RENDEZVOUS: &str = "239.1.1.1";

/// The job of a peer.
pub struct Errand<'a> {
    pub fabric: &'a Fabric,
    pub source: &'a Path,
    /// Trees of the hosts, empty or from earlier runs.
    pub trees: &'a [PathBuf],
    /// Directory for the tool's files.
    pub dir: &'a Path,
    pub mbit: Option<u32>,
    pub limit: Duration,
}

/// Returns the reason if `program` cannot run here.
pub fn missing(program: &str) -> Option<String> {
    let found = Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .output();
    found
        .is_ok_and(|out| !out.status.success())
        .then(|| format!("{program} is not installed"))
}

/// Runs a daemon on every host and a parallel client for each at the sender. Returns the seconds
/// until the last client ends.
pub fn rsync(errand: &Errand, flags: &[&str]) -> Result<f64, Trouble> {
    let mut daemons = Daemons::default();
    for (i, (place, tree)) in errand.fabric.hosts.iter().zip(errand.trees).enumerate() {
        let config = errand.dir.join(format!("rsyncd{i}.conf"));
        let text =
            "reverse lookup = no\nuse chroot = no\n[t]\nread only = no\nuid = 0\ngid = 0\npath = ";
        crate::support::write(&config, format!("{text}{}\n", tree.display()));
        daemons.start(
            place
                .command("rsync")
                .args(["--daemon", "--no-detach", "--config"])
                .arg(&config),
        )?;
    }

    let url = |i: usize| format!("rsync://{}/", errand.fabric.address(i));
    for i in 0..errand.trees.len() {
        let listens = || {
            let mut command = errand.fabric.sender.command("rsync");
            command
                .args(["--contimeout=1", &url(i)])
                .output()
                .is_ok_and(|out| out.status.success())
        };
        if !comes(START, listens) {
            return Err(Trouble::Failed(format!(
                "rsync --daemon does not listen at {}",
                url(i)
            )));
        }
    }

    let client = |i: usize| {
        let mut command = errand.fabric.sender.command("rsync");
        command
            .args(["-a", "--delete"])
            .args(flags)
            .arg(errand.source.join(""))
            .arg(format!("{}t/", url(i)));
        command
    };

    timed::together(
        &mut (0..errand.trees.len()).map(client).collect::<Vec<_>>(),
        errand.limit,
    )
}

/// Runs uftp with a list of hosts, at a rate just below the line's.
pub fn uftp(errand: &Errand) -> Result<f64, Trouble> {
    let id = |i: usize| format!("0x0A4D{:04X}", i + 1);
    let mut daemons = Daemons::default();
    for (i, (place, tree)) in errand.fabric.hosts.iter().zip(errand.trees).enumerate() {
        daemons.start(
            place
                .command("uftpd")
                .args(["-d", "-B", "4000000", "-U", &id(i), "-D"])
                .arg(tree),
        )?;
    }

    comes(BLIND_START, || false);
    let kbit = errand.mbit.map_or(UFTP_FREE_MBIT, f64::from) * UFTP_SHARE * 1000.0;
    let hosts: Vec<String> = (0..errand.trees.len()).map(id).collect();
    let mut command = errand.fabric.sender.command("uftp");
    command
        .args([
            "-B",
            "4000000",
            "-R",
            &format!("{kbit:.0}"),
            "-H",
            &hosts.join(","),
        ])
        .current_dir(errand.source);

    let mut names: Vec<_> = std::fs::read_dir(errand.source)?.flatten().collect();
    names.sort_by_key(std::fs::DirEntry::file_name);
    command.args(names.iter().map(std::fs::DirEntry::file_name));

    Ok(timed::run(&mut command, errand.limit)?.seconds)
}

/// Runs udpcast between two tars.
pub fn udpcast(errand: &Errand) -> Result<f64, Trouble> {
    let common = [
        "--interface",
        "eth0",
        "--nokbd",
        "--mcast-rdv-address",
        RENDEZVOUS,
    ];

    let mut receivers = Daemons::default();
    for (place, tree) in errand.fabric.hosts.iter().zip(errand.trees) {
        let unpack = format!("tar x -C {}", tree.display());
        receivers.start(place.command("udp-receiver").args(common).args([
            "--pipe",
            &unpack,
            "-f",
            "/dev/null",
        ]))?;
    }

    comes(BLIND_START, || false);
    let hosts = errand.trees.len().to_string();
    let mut command = errand.fabric.sender.command("udp-sender");
    let pack = format!("tar c -C {} .", errand.source.display());

    // udpcast requires a file besides the pipe, and reads the file through the pipe.
    command.args(common).args([
        "--min-receivers",
        &hosts,
        "--pipe",
        &pack,
        "-f",
        "/dev/null",
    ]);

    if let Some(mbit) = errand.mbit {
        command.args([
            "--max-bitrate",
            &format!("{:.0}k", f64::from(mbit) * UDPCAST_SHARE * 1000.0),
        ]);
    }

    let watch = timed::stopwatch();
    timed::run(&mut command, errand.limit)?;
    receivers.wait(errand.limit)?;

    Ok(watch())
}
