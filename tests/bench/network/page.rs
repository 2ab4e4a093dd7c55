//! The case with open pages: the cost of browsers that show a host's page during a deploy.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

use super::fabric::{Fabric, Line, Sent};
use super::fleet::Fleet;
use super::job::{Done, LIMIT, repeat};
use super::material::Material;
use super::row::{Check, Row, median};
use super::timed::comes;
use super::trouble::Trouble;
use super::{PAYLOAD, Settings, say};

const HOSTS: usize = 3;
/// Rate of the line: pages show a change a second, so a deploy takes some.
const MBIT: u32 = 500;
/// Pages that are open at the first host.
const PAGES: usize = 10;
/// Port of the page.
const PORT: u16 = 9108;
/// Most time of a deploy with open pages, relative to one without any.
const MOST: f64 = 1.02;
/// Time limit for the pages to open.
const OPENING: Duration = Duration::from_secs(10);

/// Measures deploys with and without open pages in turns, so that a slow minute of the machine
/// affects both.
pub fn page(settings: Settings) -> Vec<Row> {
    let material = Material::noise(12, PAYLOAD);
    let mut number = 0;
    let (with, without) = repeat("page", settings, || {
        number += 1;
        let mut measured = [None, None];
        // Neither is always the first.
        for open in [number % 2 == 0, number % 2 == 1] {
            measured[usize::from(open)] = Some(deploy(&material, open)?);
        }
        let [Some(without), Some((seconds, sent))] = measured else {
            return Err(Trouble::Failed("not measured".into()));
        };
        say(&format!("page: {:.3} s without a page", without.0));
        Ok((seconds, sent, without))
    });

    let row = |what: &str, done: &Done| Row::new("page", what, HOSTS, done, material.bytes, None);
    let ratios: Vec<f64> = with
        .seconds
        .iter()
        .zip(&without)
        .map(|(with, (without, _))| with / without)
        .collect();
    let without = Done {
        seconds: without.iter().map(|(seconds, _)| *seconds).collect(),
        sent: without.iter().map(|(_, sent)| *sent).collect(),
        ..with.clone()
    };

    let mut open = row(&format!("{PAGES} pages"), &with);
    let cost = median(&ratios);
    open.require(cost.map(|cost| Check::under("of no page", cost, MOST)));
    vec![row("no page", &without), open]
}

/// Deploys to new hosts, with or without open pages.
fn deploy(material: &Material, open: bool) -> Result<(f64, Sent), Trouble> {
    let dir = tempfile::tempdir()?;
    let line = Line {
        mbit: Some(MBIT),
        ..Line::default()
    };
    let fabric = Fabric::new(HOSTS, line)?;
    let fleet = Fleet::on(dir.path().to_path_buf(), fabric, |index| match index {
        0 => format!("[metrics]\nlisten = \"127.0.0.1:{PORT}\"\n"),
        _ => String::new(),
    })?;

    let pages = match open {
        true => Some(OpenPages::open(&fleet)?),
        false => None,
    };
    let source = material.path();
    let before = fleet.fabric.sent();
    let ran = fleet.deploy(&source, "", &[], LIMIT)?;
    let sent = fleet.fabric.sent().since(before);
    if let Some(pages) = pages {
        pages.check()?;
    }
    fleet.check(&source)?;
    Ok((ran.seconds, sent))
}

/// Browsers with the page of the first host.
struct OpenPages {
    stop: Arc<AtomicBool>,
    open: Arc<AtomicU64>,
    changes: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl OpenPages {
    const STEP: Duration = Duration::from_millis(50);

    fn open(fleet: &Fleet) -> Result<Self, Trouble> {
        let mut pages = Self {
            stop: Arc::default(),
            open: Arc::default(),
            changes: Arc::default(),
            threads: Vec::new(),
        };

        for _ in 0..PAGES {
            let place = &fleet.fabric.hosts[0];
            let namespace = place.file().ok_or("no way into a namespace".to_string())?;
            let stop = Arc::clone(&pages.stop);
            let [open, changes] = [&pages.open, &pages.changes].map(Arc::clone);
            pages.threads.push(std::thread::spawn(move || {
                let shown = setns(namespace, CloneFlags::CLONE_NEWNET)
                    .map_err(std::io::Error::from)
                    .and_then(|()| show(&stop, &open, &changes));
                if let Err(e) = shown {
                    say(&format!("a page: {e}"));
                }
            }));
        }

        let are_open = || pages.open.load(Ordering::Relaxed) == PAGES as u64;
        match comes(OPENING, are_open) {
            true => Ok(pages),
            false => Err(Trouble::Failed("the pages do not open".into())),
        }
    }

    /// Fails unless every page has seen the deploy.
    fn check(&self) -> Result<(), Trouble> {
        let changes = || self.changes.load(Ordering::Relaxed);
        let have_seen = comes(OPENING, || changes() >= 2 * PAGES as u64);
        say(&format!("page: {} changes on {PAGES} pages", changes()));
        match have_seen {
            true => Ok(()),
            false => Err(Trouble::Failed("the pages did not see the deploy".into())),
        }
    }
}

impl Drop for OpenPages {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads
            .drain(..)
            .for_each(|thread| drop(thread.join()));
    }
}

/// Does as the script of the page: loads it once, and again after each event.
fn show(stop: &AtomicBool, open: &AtomicU64, changes: &AtomicU64) -> std::io::Result<()> {
    load()?;
    let mut events = BufReader::new(ask("/events", "keep-alive")?);
    events.get_ref().set_read_timeout(Some(OpenPages::STEP))?;

    let mut line = Vec::new();
    let mut is_open = false;
    while !stop.load(Ordering::Relaxed) {
        match events.read_until(b'\n', &mut line) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(e) => return Err(e),
        }
        if line.starts_with(b"event: change") {
            load()?;
            changes.fetch_add(1, Ordering::Relaxed);
            if !std::mem::replace(&mut is_open, true) {
                open.fetch_add(1, Ordering::Relaxed);
            }
        }
        line.clear();
    }

    Ok(())
}

fn load() -> std::io::Result<()> {
    let mut page = String::new();
    ask("/", "close")?.read_to_string(&mut page)?;
    match page.contains("<main") {
        true => Ok(()),
        false => Err(std::io::Error::other(page)),
    }
}

fn ask(path: &str, connection: &str) -> std::io::Result<TcpStream> {
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, PORT))?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{PORT}\r\naccept: text/html\r\nconnection: \
         {connection}\r\n\r\n"
    );
    server.write_all(request.as_bytes())?;
    Ok(server)
}
