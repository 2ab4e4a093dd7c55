//! The cases that look at more than how long a transfer takes.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use serde_json::Value;

use super::cases::line_time;
use super::fabric::{Line, Sent};
use super::fleet::Fleet;
use super::job::{Done, LIMIT, MAKUO, Tool, guarded};
use super::material::{Material, small_name};
use super::row::{Check, Row, median};
use super::trouble::Trouble;
use super::{PAYLOAD, Settings, say};
use crate::support::{Capture, Packet, Place, append};

const HALF_GBIT: Line = Line { mbit: Some(500), loss: 0 };

/// Runs `once` as often as asked; what it yields beside its seconds, of each run.
fn repeat<T>(
    title: &str,
    settings: Settings,
    mut once: impl FnMut() -> Result<(f64, Sent, T), Trouble>,
) -> (Done, Vec<T>) {
    let mut done = Done { tool: MAKUO, seconds: Vec::new(), sent: Vec::new(), trouble: None };
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

/// Whether an event says that a host has all of the release; its name.
fn staged(event: &Value) -> Option<&str> {
    let state = event["state"].as_str().filter(|_| event["event"] == "host")?;
    ["ready", "committed"].contains(&state).then(|| event["host"].as_str())?
}

/// One of five hosts has a fiftieth of the others' line: when are the others staged?
pub fn slow(settings: Settings) -> Vec<Row> {
    const HOSTS: usize = 5;
    const SLOW: u32 = 20;
    let material = Material::noise(6, PAYLOAD);
    let bound = line_time(material.bytes, 500);
    let mut rows = Vec::new();
    for slow in [false, true] {
        let what = if slow { "staged beside a slow host" } else { "staged, none slow" };
        let (done, _) = repeat(&format!("slow: {what}"), settings, || staged_but_last(&material, HOSTS, slow, SLOW));
        rows.push(Row::new("slow", what, HOSTS - 1, &done, material.bytes, Some(bound)));
    }
    if let [without, with] = rows.as_mut_slice() {
        let medians = with.median().zip(without.median());
        with.require(medians.map(|(with, without)| Check::under("of none slow", with / without, 1.3)));
    }
    rows
}

/// The seconds until all hosts but the last are staged. With a slow one that is the end of it.
fn staged_but_last(material: &Material, hosts: usize, slow: bool, mbit: u32) -> Result<(f64, Sent, ()), Trouble> {
    let fleet = Fleet::new(hosts, HALF_GBIT)?;
    let last = fleet.hosts[hosts - 1].name.clone();
    if slow {
        fleet.fabric.slow_down(hosts - 1, mbit);
    }
    let source = material.path();
    let before = fleet.fabric.sent();
    let mut deploy = fleet.start(&source, "", &[], LIMIT)?;
    let mut names = std::collections::BTreeSet::new();
    let mut seconds = None;
    while let Some((at, event)) = deploy.next()? {
        names.extend(staged(&event).filter(|name| *name != last).map(String::from));
        if names.len() == hosts - 1 && seconds.is_none() {
            seconds = Some(at);
            if slow {
                break;
            }
        }
    }
    let sent = fleet.fabric.sent().since(before);
    let seconds = seconds.ok_or_else(|| Trouble::Failed(format!("ended with {} hosts staged", names.len())))?;
    if slow {
        deploy.interrupt();
        while deploy.next()?.is_some() {}
        drop(deploy);
        fleet.check_empty()?;
    } else {
        deploy.finish()?;
        fleet.check(&source)?;
    }
    Ok((seconds, sent, ()))
}

/// A file of ten thousand has changed since the last deploy: what does the next one take, its scan apart?
pub fn one_change(settings: Settings) -> Vec<Row> {
    const HOSTS: usize = 5;
    const FILES: usize = 10_000;
    const MOST: f64 = 0.150;
    let material = Material::small(7, FILES, 8192);
    let source = material.path();
    let changed = source.join(small_name(FILES / 2));
    let setup = Fleet::new(HOSTS, Line::default()).and_then(|fleet| {
        fleet.deploy(&source, "", &[], LIMIT)?;
        fleet.check(&source)?;
        Ok(fleet)
    });
    let (done, scans) = repeat("one-change", settings, || {
        let fleet = setup.as_ref().map_err(Trouble::clone)?;
        append(&changed, b"one line more\n");
        fleet.settle();
        let before = fleet.fabric.sent();
        let ran = fleet.deploy(&source, "", &[], LIMIT)?;
        let sent = fleet.fabric.sent().since(before);
        fleet.check(&source)?;
        let scanned = ran.events.iter().find(|(_, e)| e["event"] == "scanned");
        let scan = scanned.and_then(|(_, e)| e["seconds"].as_f64()).unwrap_or(0.0);
        Ok((ran.seconds, sent, scan))
    });
    let net: Vec<f64> = done.seconds.iter().zip(&scans).map(|(seconds, scan)| seconds - scan).collect();
    let payload = std::fs::metadata(&changed).map_or(8192, |m| m.len());
    let mut row = Row::new("one-change", "10000 files", HOSTS, &done, payload, None);
    if let (Some(net), Some(scan)) = (median(&net), median(&scans)) {
        row.what = format!("10000 files, scan {scan:.3} s");
        row.require(Some(Check::under("s without scan", net, MOST)));
    }
    let mut rows = vec![row];
    if let (true, Ok(fleet)) = (settings.peers, &setup) {
        rows.push(rsync_change(fleet, &source, &changed, settings));
    }
    rows
}

/// rsync brings the same change to the same trees.
fn rsync_change(fleet: &Fleet, source: &std::path::Path, changed: &std::path::Path, settings: Settings) -> Row {
    let trees: Vec<_> = fleet.hosts.iter().map(crate::support::Host::tree).collect();
    let (mut done, _) = repeat("one-change: rsync", settings, || {
        append(changed, b"one line more\n");
        let dir = tempfile::tempdir()?;
        let errand = super::peers::Errand {
            fabric: &fleet.fabric,
            source,
            trees: &trees,
            dir: dir.path(),
            mbit: None,
            limit: LIMIT,
        };
        let before = fleet.fabric.sent();
        let seconds = super::peers::rsync(&errand, &[])?;
        Ok((seconds, fleet.fabric.sent().since(before), ()))
    });
    done.tool = Tool::Rsync;
    let payload = std::fs::metadata(changed).map_or(8192, |m| m.len());
    Row::new("one-change", "10000 files, with its scan", fleet.hosts.len(), &done, payload, None)
}

/// A TCP stream from the sender to a host, and a deploy beside it on the same line: what is left for the stream?
pub fn tcp(settings: Settings) -> Vec<Row> {
    const HOSTS: usize = 5;
    let material = Material::noise(8, PAYLOAD);
    let mut shares = Vec::new();
    let (done, _) = repeat("tcp", settings, || {
        let fleet = Fleet::new(HOSTS, HALF_GBIT)?;
        let source = material.path();
        let stream = Stream::start(&fleet)?;
        let before = fleet.fabric.sent();
        let mut deploy = fleet.start(&source, "", &[], LIMIT)?;
        let now = |at: f64| (at, stream.carried(), fleet.fabric.sent());
        let (mut from, mut to) = (None, None);
        let mut late = None;
        loop {
            match deploy.next() {
                Ok(Some((at, event))) => {
                    if from.is_none() && event["state"] == "staging" {
                        from = Some(now(at));
                    }
                    if to.is_none() && staged(&event).is_some() {
                        to = Some(now(at));
                    }
                }
                Ok(None) => break,
                // A deploy that starves has a share as well.
                Err(Trouble::Late(seconds)) => {
                    to = to.or_else(|| Some(now(seconds as f64)));
                    late = Some(Trouble::Late(seconds));
                    break;
                }
                Err(trouble) => return Err(trouble),
            }
        }
        let sent = fleet.fabric.sent().since(before);
        let (Some((began, first, out)), Some((ended, last, all))) = (from, to) else {
            return Err(late.unwrap_or_else(|| Trouble::Failed("no transfer was seen".into())));
        };
        let (tcp, all) = ((last - first) as f64, all.since(out).bytes() as f64);
        let mbit = |bytes: f64| bytes * 8e-6 / (ended - began);
        say(&format!("tcp: over {:.1} s stream {:.0}, deploy {:.0} Mbit/s", ended - began, mbit(tcp), mbit(all - tcp)));
        shares.push(tcp / all);
        if let Some(late) = late {
            return Err(late);
        }
        let ran = deploy.finish()?;
        drop(stream);
        fleet.check(&source)?;
        Ok((ran.seconds, sent, ()))
    });
    let bound = line_time(material.bytes, 500);
    let mut row = Row::new("tcp", "beside a TCP stream", HOSTS, &done, material.bytes, Some(bound));
    // What it sent is not makuo's alone.
    (row.wire, row.interface) = (None, None);
    if let Some(share) = median(&shares) {
        row.what = format!("stream {:.0} %, deploy {:.0} %", share * 100.0, (1.0 - share) * 100.0);
        row.require(Some(Check::at_least("the stream's share", share, 0.2)));
    }
    vec![row]
}

/// A TCP connection from the sender to the first host that carries as much as it can.
struct Stream {
    stop: Arc<AtomicBool>,
    carried: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Stream {
    const PORT: u16 = 9000;
    const STEP: Duration = Duration::from_millis(50);
    /// It has found its pace by then.
    const LEAD: Duration = Duration::from_secs(1);

    fn start(fleet: &Fleet) -> Result<Self, String> {
        let mut stream = Self { stop: Arc::default(), carried: Arc::default(), threads: Vec::new() };
        let (ready, is_ready) = channel();
        let carried = Arc::clone(&stream.carried);
        stream.thread(&fleet.fabric.hosts[0], move |stop| {
            let listener = TcpListener::bind(("0.0.0.0", Self::PORT))?;
            let _ = ready.send(());
            let (mut peer, _) = listener.accept()?;
            peer.set_read_timeout(Some(Self::STEP))?;
            let mut buffer = vec![0; 1 << 18];
            while !stop.load(Ordering::Relaxed) {
                carried.fetch_add(peer.read(&mut buffer).unwrap_or(0) as u64, Ordering::Relaxed);
            }
            Ok(())
        })?;
        is_ready.recv().map_err(|_| "nobody listens for the stream")?;
        let address = (fleet.fabric.address(0), Self::PORT);
        stream.thread(&fleet.fabric.sender, move |stop| {
            let mut peer = TcpStream::connect((address.0.as_str(), address.1))?;
            peer.set_write_timeout(Some(Self::STEP))?;
            let bytes = vec![7; 1 << 16];
            while !stop.load(Ordering::Relaxed) {
                let _ = peer.write(&bytes);
            }
            Ok(())
        })?;
        super::timed::comes(Self::LEAD, || false);
        if stream.carried() == 0 {
            return Err("the stream carries nothing".into());
        }
        Ok(stream)
    }

    fn thread(
        &mut self,
        place: &Place,
        work: impl FnOnce(&AtomicBool) -> std::io::Result<()> + Send + 'static,
    ) -> Result<(), String> {
        let namespace = place.file().ok_or("no way into a namespace")?;
        let stop = Arc::clone(&self.stop);
        self.threads.push(std::thread::spawn(move || {
            let done =
                setns(namespace, CloneFlags::CLONE_NEWNET).map_err(std::io::Error::from).and_then(|()| work(&stop));
            if let Err(e) = done {
                say(&format!("the TCP stream: {e}"));
            }
        }));
        Ok(())
    }

    /// Bytes that have arrived.
    fn carried(&self) -> u64 {
        self.carried.load(Ordering::Relaxed)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

/// A ceiling on a link that could carry much more: is it held, over a tenth of a second and over a small queue?
pub fn ceiling(settings: Settings) -> Vec<Row> {
    let material = Material::noise(9, PAYLOAD);
    let each = [(300, "300Mbit"), (1000, "1Gbit")].into_iter().map(|(mbit, rate)| {
        let (done, seen) = repeat(&format!("ceiling {rate}"), settings, || at_ceiling(&material, mbit, rate));
        let bound = line_time(material.bytes, mbit);
        let mut row = Row::new("ceiling", rate, 2, &done, material.bytes, Some(bound));
        let worst = |of: fn(&Pace) -> f64| seen.iter().map(of).reduce(f64::max);
        row.require(worst(|p| p.window).map(|most| Check::under("100 ms over ceiling", most, 1.0)));
        if mbit == 1000 {
            row.require(worst(|p| p.backlog).map(|most| Check::under("backlog, bytes", most, QUEUE)));
        }
        row
    });
    each.collect()
}

/// The bytes of the queue before a line of the ceiling's rate, as a small switch has.
const QUEUE: f64 = 65_536.0;

/// How evenly bytes came.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// The most bytes of any 100 ms over what the ceiling lets pass in that time.
    window: f64,
    /// The most bytes that wait before a line of the ceiling's rate.
    backlog: f64,
}

fn at_ceiling(material: &Material, mbit: u32, rate: &str) -> Result<(f64, Sent, Pace), Trouble> {
    let fleet = Fleet::new(2, Line::default())?;
    let source = material.path();
    let start = |place| Capture::start(place).map_err(Trouble::Skipped);
    let (at_host, at_sender) = (start(&fleet.fabric.hosts[0])?, start(&fleet.fabric.sender)?);
    let before = fleet.fabric.sent();
    let ran = fleet.deploy(&source, "", &["--rate", rate], LIMIT)?;
    let sent = fleet.fabric.sent().since(before);
    fleet.check(&source)?;
    let heard: Vec<Packet> = at_host.finish().into_iter().filter(|p| !p.outgoing).collect();
    let said: Vec<Packet> = at_sender.finish().into_iter().filter(|p| p.outgoing).collect();
    let bytes: usize = heard.iter().map(Packet::wire).sum();
    if (bytes as u64) < material.bytes {
        return Err(Trouble::Skipped(format!("the capture saw {bytes} bytes only")));
    }
    let (host, sender) = (pace(&heard, mbit), pace(&said, mbit));
    let show = |p: Pace| format!("{:.4} of the ceiling over 100 ms, backlog {:.0}", p.window, p.backlog);
    say(&format!("ceiling {rate}: at a host {}; at the sender {}", show(host), show(sender)));
    Ok((ran.seconds, sent, host))
}

fn pace(packets: &[Packet], mbit: u32) -> Pace {
    const WINDOW: Duration = Duration::from_millis(100);
    let bytes_a_second = f64::from(mbit) * 1e6 / 8.0;
    let (mut first, mut inside, mut most) = (0, 0, 0);
    let (mut backlog, mut deepest, mut before) = (0.0_f64, 0.0_f64, None);
    for packet in packets {
        inside += packet.wire();
        while packets[first].at + WINDOW <= packet.at {
            inside -= packets[first].wire();
            first += 1;
        }
        most = most.max(inside);
        let since = before.map_or(0.0, |at: Duration| (packet.at - at).as_secs_f64());
        backlog = (backlog - since * bytes_a_second).max(0.0) + packet.wire() as f64;
        deepest = deepest.max(backlog);
        before = Some(packet.at);
    }
    Pace { window: most as f64 / (bytes_a_second * WINDOW.as_secs_f64()), backlog: deepest }
}
