//! The case with a concurrent TCP stream on the same line.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

use super::cases::line_time;
use super::fabric::Line;
use super::fleet::{Fleet, staged};
use super::job::{LIMIT, repeat};
use super::material::Material;
use super::row::{Check, Row, median};
use super::timed::{Started, comes};
use super::trouble::Trouble;
use super::{PAYLOAD, Settings, say};
use crate::support::Place;

/// Measures the share of a TCP stream from the sender to a host during a deployment on the same
/// line.
pub fn tcp(settings: Settings) -> Vec<Row> {
    const HOSTS: usize = 5;
    let material = Material::noise(8, PAYLOAD);
    let mut shares = Vec::new();
    let (done, _) = repeat("tcp", settings, || {
        let fleet = Fleet::new(HOSTS, Line::HALF_GBIT)?;
        let stream = Stream::start(&fleet)?;
        let before = fleet.fabric.sent();
        let mut deploy = fleet.start(&material.path(), "", &[], LIMIT)?;
        let overlap = watch(&fleet, &stream, &mut deploy)?;
        let sent = fleet.fabric.sent().since(before);
        shares.push(overlap.share());
        // A starved deployment has a share as well.
        if let Some(late) = overlap.late {
            return Err(late);
        }
        let ran = deploy.finish()?;
        drop(stream);
        fleet.check(&material.path())?;
        Ok((ran.seconds, sent, ()))
    });

    let bound = line_time(material.bytes, 500);
    let mut row = Row::new(
        "tcp",
        "beside a TCP stream",
        HOSTS,
        &done,
        material.bytes,
        Some(bound),
    );

    // The sender's counters include the stream.
    (row.wire, row.interface) = (None, None);
    if let Some(share) = median(&shares) {
        row.what = format!(
            "stream {:.0} %, deploy {:.0} %",
            share * 100.0,
            (1.0 - share) * 100.0
        );
        row.require(Some(Check::at_least("the stream's share", share, 0.2)));
    }

    vec![row]
}

/// The period in which both had data to send.
struct Overlap {
    /// Bytes of the stream.
    tcp: u64,
    /// Bytes of the sender, including the stream.
    all: u64,
    late: Option<Trouble>,
}

impl Overlap {
    fn share(&self) -> f64 {
        self.tcp as f64 / self.all.max(1) as f64
    }
}

/// Follows a deployment from the first staging host to the first complete host, or to the time
/// limit.
fn watch(fleet: &Fleet, stream: &Stream, deploy: &mut Started) -> Result<Overlap, Trouble> {
    let now = |at: f64| (at, stream.carried(), fleet.fabric.sent());
    let (mut from, mut to, mut late) = (None, None, None);
    loop {
        match deploy.next() {
            Ok(Some((at, event))) if from.is_none() && event["state"] == "staging" => {
                from = Some(now(at))
            }
            Ok(Some((at, event))) if to.is_none() && staged(&event).is_some() => to = Some(now(at)),
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(Trouble::Late(seconds)) => {
                to = to.or_else(|| Some(now(seconds as f64)));
                late = Some(Trouble::Late(seconds));
                break;
            }
            Err(trouble) => return Err(trouble),
        }
    }

    let (Some((began, first, out)), Some((ended, last, sent))) = (from, to) else {
        return Err(late.unwrap_or_else(|| Trouble::Failed("no transfer was seen".into())));
    };

    let (tcp, all) = (last - first, sent.since(out).bytes());
    let mbit = |bytes: u64| bytes as f64 * 8e-6 / (ended - began);
    let deploys = mbit(all.saturating_sub(tcp));
    say(&format!(
        "tcp: over {:.1} s stream {:.0}, deploy {deploys:.0} Mbit/s",
        ended - began,
        mbit(tcp)
    ));

    Ok(Overlap { tcp, all, late })
}

/// A TCP connection at full speed from the sender to the first host.
struct Stream {
    stop: Arc<AtomicBool>,
    carried: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Stream {
    const PORT: u16 = 9000;
    const STEP: Duration = Duration::from_millis(50);
    /// Time for the stream to reach its full rate.
    const LEAD: Duration = Duration::from_secs(1);

    fn start(fleet: &Fleet) -> Result<Self, String> {
        let mut stream = Self {
            stop: Arc::default(),
            carried: Arc::default(),
            threads: Vec::new(),
        };

        let (ready, is_ready) = channel();
        let carried = Arc::clone(&stream.carried);
        stream.thread(&fleet.fabric.hosts[0], move |stop| {
            let listener = TcpListener::bind(("0.0.0.0", Self::PORT))?;
            let _ = ready.send(());
            let (mut peer, _) = listener.accept()?;
            peer.set_read_timeout(Some(Self::STEP))?;
            let mut buffer = vec![0; 1 << 18];
            while !stop.load(Ordering::Relaxed) {
                carried.fetch_add(
                    peer.read(&mut buffer).unwrap_or(0) as u64,
                    Ordering::Relaxed,
                );
            }
            Ok(())
        })?;

        is_ready
            .recv()
            .map_err(|_| "nobody listens for the stream")?;
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

        comes(Self::LEAD, || false);
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
            let done = setns(namespace, CloneFlags::CLONE_NEWNET)
                .map_err(std::io::Error::from)
                .and_then(|()| work(&stop));
            if let Err(e) = done {
                say(&format!("the TCP stream: {e}"));
            }
        }));
        Ok(())
    }

    /// Returns the bytes received so far.
    fn carried(&self) -> u64 {
        self.carried.load(Ordering::Relaxed)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads
            .drain(..)
            .for_each(|thread| drop(thread.join()));
    }
}
