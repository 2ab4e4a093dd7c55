//! A thousand faults of networks, caches and servers between hosts and a store: whatever happens, a
//! tree is a release, a pull ends in time, and little is loaded twice. `MAKUO_REPOSITORY_SEED`
//! replays one run, and `MAKUO_REPOSITORY_FAULTS` makes it longer.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use makuo::config::{CatchUp, TreeConfig};
use makuo::drive::deploy::Interrupt;
use makuo::drive::host::{LocalHost, open_tree};
use makuo::drive::repository::{
    KnownHead, LookOptions, Lookup, LoopbackHost, TakeOptions, find, pull,
};
use makuo::id::{HostName, TreeName};
use makuo::keys::AuthorizedKeys;
use makuo::outcome::{Event, Observer};
use makuo::spec::Compress;
use makuo::store::{Store, StoreOptions, StoreUrl};

use super::Depot;
use crate::support::wait::LONG;
use crate::support::{Middleman, Mishap, Nginx, Noise, Stopwatch, differences, nginx, write};

/// Time after which a host gives up a silent connection.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Hosts that pull at the same time.
const HOSTS: usize = 16;

/// Drops all events.
struct Quiet;

impl Observer for Quiet {
    fn event(&mut self, _: &Event) {}
}

/// A host with a proxy of its own before the store.
struct Puller {
    between: Middleman,
    dir: PathBuf,
    keys: PathBuf,
    name: String,
    /// Whether it has taken a release.
    has_release: bool,
}

/// The end of one pull.
struct Pulled {
    result: makuo::Result<()>,
    /// Bytes that the proxy sent for it.
    bytes: usize,
    time: Duration,
}

impl Puller {
    fn new(depot: &Depot, nginx: &Nginx, name: String) -> Self {
        Self {
            between: Middleman::start(nginx.http()),
            dir: depot.tree(&name),
            keys: depot.path("keys"),
            name,
            has_release: false,
        }
    }

    fn host(&self) -> makuo::Result<LocalHost> {
        std::fs::create_dir_all(&self.dir).expect("writable");
        let tree = TreeName::new("www").expect("legal");
        let mut config = TreeConfig::new(tree.clone(), self.dir.clone());
        config.catch_up = CatchUp::Group;
        let trees = [(tree, open_tree(&config, None)?)];
        Ok(LocalHost {
            name: HostName::new(&self.name).expect("legal"),
            trees: trees.into_iter().collect(),
            keys: Mutex::new(Arc::new(AuthorizedKeys::load(&self.keys)?)),
            labels: Default::default(),
            own_key: Default::default(),
            figures: Default::default(),
        })
    }

    /// Takes the newest release, as `makuo pull` does.
    fn take(&self) -> makuo::Result<()> {
        let url = format!("http://{}", self.between.address());
        let impatient = StoreOptions {
            patience: PATIENCE,
            ..StoreOptions::default()
        };
        let store = Store::open(&StoreUrl::parse(&url, Path::new("/"))?, &impatient)?;
        let host = Arc::new(self.host()?);
        let tree = TreeName::new("www").expect("legal");
        let how = LookOptions {
            known: &KnownHead::default(),
            allow_stale: true,
        };
        let (_, Lookup::Found(found)) = find(store, &host, &tree, how, &mut |_| true)? else {
            return Ok(());
        };

        let (running, network) = LoopbackHost::start(Arc::clone(&host))?;
        let options = TakeOptions {
            rate: None,
            timeout: LONG,
            fleet: 1,
            known: 1,
            payload: 1 << 20,
            compress: Compress::Off,
        };
        let interrupt = Interrupt::default();
        let outcome = pull(network, *found, &host, &options, &interrupt, &mut Quiet)?;
        drop(running);
        match outcome.error {
            None if outcome.exit.code() == 0 => Ok(()),
            why => Err(makuo::Error::refused(why.unwrap_or_default())),
        }
    }

    fn pull(&self) -> Pulled {
        let (spared, watch) = (self.between.toll().spared, Stopwatch::start());
        self.between.passed();
        let result = self.take();
        let sent: usize = self.between.passed().iter().map(|one| one.sent).sum();
        Pulled {
            result,
            bytes: sent - (self.between.toll().spared - spared).min(sent),
            time: watch.read(),
        }
    }
}

/// What goes wrong; a cut is the most frequent fault of a long way.
fn faults(random: &mut fastrand::Rng) -> Vec<Mishap> {
    let mut faults = Mishap::all_sudden();
    faults.extend([
        Mishap::LostAnswer,
        Mishap::Late(Duration::from_millis(50)),
        Mishap::Late(Duration::from_millis(50)),
        Mishap::Late(2 * PATIENCE),
        Mishap::Stall(random.usize(0..100_000)),
    ]);
    faults.extend((0..7).map(|_| Mishap::Cut(random.usize(0..100_000))));
    faults
}

/// Publishes `count` releases to the files of nginx, each with a pack of its own; returns a copy of
/// the last one.
fn publish(depot: &Depot, noise: &mut Noise, count: usize, round: usize) -> PathBuf {
    for number in 0..count {
        for part in ["a", "b"] {
            let name = format!("{part}/{round}.{number}");
            write(&depot.site(&name), noise.bytes(60_000));
        }
        depot.publish();
    }

    let copy = depot.path(&format!("release{round}"));
    crate::support::copy(&depot.path("site"), &copy);
    copy
}

/// The results of all hosts.
#[derive(Default)]
struct Tally {
    pulls: usize,
    failed: usize,
    newest: usize,
    /// Bytes that pulls took which succeeded, and those of pulls without faults.
    bytes: usize,
    clean: usize,
    slowest: Duration,
}

impl Tally {
    /// Judges the tree of one host after a pull.
    fn add(&mut self, host: &mut Puller, pulled: &Pulled, releases: &[PathBuf], clean: usize) {
        let is = |release: &PathBuf| differences(release, &host.dir).is_empty();
        let found = releases.iter().rposition(is);
        let is_empty = std::fs::read_dir(&host.dir).expect("made").next().is_none();
        let name = &host.name;
        assert!(
            found.is_some() || is_empty && !host.has_release && pulled.result.is_err(),
            "{name} has something else than a release: {:?}",
            pulled.result
        );

        self.pulls += 1;
        self.slowest = self.slowest.max(pulled.time);
        host.has_release |= found.is_some();
        if let Err(error) = &pulled.result {
            println!("{name}: {error}");
            self.failed += 1;
        } else if found == Some(releases.len() - 1) {
            self.newest += 1;
            self.bytes += pulled.bytes;
            self.clean += clean;
        }
    }
}

#[test]
fn a_thousand_faults_put_nothing_but_releases_in_place() {
    let Some(nginx) = nginx() else { return };
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse().ok());
    let seed = number("MAKUO_REPOSITORY_SEED").unwrap_or_else(|| fastrand::u64(..));
    let wanted = number("MAKUO_REPOSITORY_FAULTS").unwrap_or(1000) as usize;
    println!("MAKUO_REPOSITORY_SEED={seed}");

    let depot = Depot::new(Some(format!("file://{}", nginx.files().display())));
    let (mut random, mut noise) = (fastrand::Rng::with_seed(seed), Noise::new(seed));
    let (mut releases, mut tally) = (Vec::new(), Tally::default());
    let (mut hosts, mut clean) = (Vec::<Puller>::new(), Vec::<Puller>::new());
    let mut count = 0;
    while count < wanted {
        let round = releases.len();
        let packs = if round == 0 { 40 } else { 4 };
        releases.push(publish(&depot, &mut noise, packs, round));

        // Without faults: a host with the release before, and a new one.
        clean.push(Puller::new(&depot, &nginx, format!("clean{round}")));
        let last = clean.len().saturating_sub(2);
        let plain: Vec<Pulled> = clean[last..].iter().map(Puller::pull).collect();
        for (pulled, host) in plain.iter().zip(&clean[last..]) {
            pulled.result.as_ref().expect("no fault, no failure");
            crate::support::same(&releases[round], &host.dir);
        }

        let known = hosts.len();
        for n in 0..HOSTS / if round == 0 { 1 } else { 2 } {
            let host = Puller::new(&depot, &nginx, format!("host{round}.{n}"));
            host.between.throw(random.u64(..), 40, faults(&mut random));
            hosts.push(host);
        }
        let first = known.saturating_sub(HOSTS / 2);
        let ends: Vec<Pulled> = std::thread::scope(|scope| {
            let running: Vec<_> = hosts[first..]
                .iter()
                .map(|host| scope.spawn(|| host.pull()))
                .collect();
            let end = |thread: std::thread::ScopedJoinHandle<'_, Pulled>| thread.join();
            running
                .into_iter()
                .map(|t| end(t).expect("no panic"))
                .collect()
        });

        for (at, pulled) in ends.iter().enumerate() {
            let host = &mut hosts[first + at];
            let had_the_last = round > 0 && host.has_release;
            let is_new = first + at >= known;
            // A host that missed the release before has no equal without faults.
            let equal = if is_new || !had_the_last {
                plain.len() - 1
            } else {
                0
            };
            tally.add(host, pulled, &releases, plain[equal].bytes);
        }
        count = hosts.iter().map(|host| host.between.toll().faults).sum();
    }

    let waited = hosts.iter().map(|host| host.between.toll().waited).max();
    let waited = waited.unwrap_or_default();
    let Tally {
        pulls,
        failed,
        newest,
        bytes,
        clean,
        slowest,
    } = tally;
    println!(
        "{count} faults in {pulls} pulls: {newest} newest, {failed} failed; {bytes} bytes, {clean} \
         without faults; a host waited {waited:?} for a silent store, a pull took {slowest:?}"
    );
    assert!(
        failed * 10 <= pulls && newest * 2 > pulls,
        "too many failed"
    );
    assert!(
        bytes * 100 < clean * 105,
        "{bytes} bytes instead of {clean}"
    );
    assert!(waited <= 2 * PATIENCE, "a host waits {waited:?}");
    assert!(slowest < LONG, "a pull hangs");
}
