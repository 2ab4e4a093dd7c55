//! Publishes a release: signs it with the next serial, and stores what the repository lacks.

use super::failure::of_head;
use super::head_memory::HeadMemory;
use super::publication::{Publication, PublicationEnd, PublishPlan};
use super::requests::{runtime, seed};
use super::whole::{read_head, verified_by};
use crate::block::frame::Level;
use crate::drive::deploy::source::{
    NewRelease, NodeReader, PreparedRelease, ReleaseSource, SourcePart, SourceScan, prepare,
};
use crate::drive::deploy::{Interrupt, ReleaseKeys, serials};
use crate::error::{Error, Kind, Result};
use crate::id::{HostName, Serial, SessionId, TreeName};
use crate::keys::{Namespace, verify_all};
use crate::manifest::{Header, Intent, Mtime, NodeRef, Release, ReleaseMessage};
use crate::outcome::{Event, Observer};
use crate::repository::SignedRelease;
use crate::repository::head::HeadValidity;
use crate::repository::publish::{PublishSetup, Published};
use crate::repository::record::ReleaseRecord;
use crate::spec::{Compress, Spec};
use crate::store::Store;
use crate::units::WallTime;
use crate::wire::message::{Order, OrderKind, SignedOrder};

/// Level of compression, unless the spec gives one: packs are written once and read often.
const DEFAULT_LEVEL: u8 = 6;

/// Settings of a publication.
#[derive(Debug, Clone)]
pub struct PublishOptions {
    /// Number of releases that the repository keeps, with the new one.
    /// `None` keeps as many as before.
    pub keep: Option<usize>,
    /// Time until the head is stale.
    pub valid_for: HeadValidity,
    /// Publish a new release although nothing changed.
    pub again: bool,
    /// Read everything that the repository has of the tree, and store again what is missing or
    /// damaged.
    pub repair: bool,
    /// What the release changes, in its author's words.
    pub message: Option<ReleaseMessage>,
    /// The signing key, and keys whose releases may be followed.
    pub keys: ReleaseKeys,
    /// Name of this host.
    pub name: HostName,
    /// Directory for the source's index and the last serial.
    pub cache: Option<std::path::PathBuf>,
    /// Newest releases of the repository, as far as this machine knows.
    pub memory: HeadMemory,
    /// Ends the publication early.
    pub interrupt: Interrupt,
}

/// A published release.
#[derive(Debug, Clone)]
pub struct PublishedRelease {
    /// The release.
    pub release: Release,
    /// New objects of the repository.
    pub stored: Published,
    /// True if the repository had it, and only its head was signed again.
    pub is_unchanged: bool,
}

/// Scans the source of `spec` and publishes it. If the newest release has this content, its head is
/// signed again instead.
pub fn publish_spec(
    store: Store,
    spec: &Spec,
    scan: SourceScan,
    options: &PublishOptions,
    observer: &mut dyn Observer,
) -> Result<PublishedRelease> {
    spec.check_source()?;
    let cache = options.cache.as_deref();
    let checksum = scan.checksum;
    let (mut source, facts) = prepare(spec, &SourcePart::default(), scan, cache)?;
    for note in &facts.notes {
        observer.event(&Event::Note(note.clone()));
    }
    facts
        .scanned
        .iter()
        .for_each(|scanned| observer.event(&Event::Scanned(*scanned)));

    let mut notes = Vec::new();
    let root = facts.root;
    let content = NewContent {
        spec,
        facts: &facts,
        checksum,
        options,
    };
    let mut sign = |highest: Serial| {
        if highest > Serial(0) && !serials::has_any(cache, &spec.tree) {
            notes.push(format!(
                "this machine has not released {tree} before: a host that has a later release than \
                 {tree}@{highest} from elsewhere will not take this one",
                tree = spec.tree
            ));
        }
        let serial = serials::next_of(cache, &spec.tree, highest, |note| notes.push(note));
        content.sign(serial)
    };
    let is_same = |newest: &ReleaseRecord| content.is_that_of(newest);

    let nodes = open(&root, &mut source)?;
    let plan = match options.again {
        true => PublishPlan::Release(nodes, &mut sign),
        false => PublishPlan::ReleaseUnless(nodes, &mut sign, &is_same),
    };
    let published = run(store, spec, options, plan, observer);
    for note in notes {
        observer.event(&Event::Note(note));
    }
    published
}

/// Publishes a release of the manifest `root`. `sign` makes it, given the highest serial of the
/// repository; it is called again if somebody else published meanwhile.
pub fn publish(
    store: Store,
    spec: &Spec,
    options: &PublishOptions,
    root: &NodeRef,
    source: &mut ReleaseSource,
    sign: &mut dyn FnMut(Serial) -> Result<SignedRelease>,
    observer: &mut dyn Observer,
) -> Result<PublishedRelease> {
    let plan = PublishPlan::Release(open(root, source)?, sign);
    run(store, spec, options, plan, observer)
}

fn open<'a>(root: &NodeRef, source: &'a mut ReleaseSource) -> Result<NodeReader<'a>> {
    let unreadable = |e| Error::new(Kind::Io, "cannot read the source").because(e);
    NodeReader::open(root, source).map_err(unreadable)
}

fn run<'a>(
    store: Store,
    spec: &Spec,
    options: &'a PublishOptions,
    plan: PublishPlan<'a>,
    observer: &mut dyn Observer,
) -> Result<PublishedRelease> {
    let setup = PublishSetup {
        tree: spec.tree.clone(),
        keep: options.keep,
        level: level(spec.transfer.compress),
        valid_for: options.valid_for,
        repair: options.repair,
        pin: None,
        seed: seed(),
    };
    let keys = (&options.keys, &options.memory);
    let publication = Publication::new(store, setup, keys, plan).until(&options.interrupt);
    released(publication.run(observer)?)
}

/// Reads the head of `tree` in `store` once, and verifies it: finds a repository that cannot be
/// used before anything is published to it. Returns the newest release, 0 if there is none.
pub fn try_repository(store: &Store, tree: &TreeName, keys: &ReleaseKeys) -> Result<Serial> {
    let head = runtime()?.block_on(read_head(store, tree))?;
    let head = head.map(|head| verified_by(keys, tree, &head)).transpose();
    let head = head.map_err(|e| of_head(&e))?;
    Ok(head.map_or(Serial(0), |head| head.head().serial()))
}

/// The release of a publication that had one.
pub(super) fn released(end: PublicationEnd) -> Result<PublishedRelease> {
    let none = || Error::refused("nothing was published");
    Ok(PublishedRelease {
        release: end.release.ok_or_else(none)?,
        stored: end.stored,
        is_unchanged: end.is_renewal,
    })
}

fn level(compress: Compress) -> Option<Level> {
    match compress {
        Compress::Off => None,
        Compress::Level(level) => Some(level),
        Compress::Auto => Level::new(DEFAULT_LEVEL),
    }
}

/// Content to publish.
struct NewContent<'a> {
    spec: &'a Spec,
    facts: &'a PreparedRelease,
    checksum: bool,
    options: &'a PublishOptions,
}

impl NewContent<'_> {
    fn header(&self, serial: Serial, session: SessionId) -> Header {
        let new = NewRelease {
            serial,
            intent: Intent::Deploy,
            targets: self.spec.targets.hosts.clone(),
            again: None,
            session,
            sender: self.options.name.clone(),
            checksum: self.checksum,
            quick: false,
            message: self.options.message.clone(),
        };
        self.facts.header(self.spec, new)
    }

    fn sign(&self, serial: Serial) -> Result<SignedRelease> {
        let session = SessionId(seed());
        sign(self.header(serial, session), session, &self.options.keys)
    }

    /// Returns whether the newest release of the repository is this content, for the same hosts, by
    /// the same key. It is not if this machine has released another one since, or if the newest one
    /// will expire soon.
    fn is_that_of(&self, newest: &ReleaseRecord) -> bool {
        let release = &newest.release;
        let old = release.header();
        let by = verify_all(Namespace::RELEASE, release.bytes(), &newest.signature);
        let signer = &self.options.keys.signer;
        let is_first = by.first() == Some(signer.public());
        let is_ours = is_first && signer.release_keys().iter().all(|key| by.contains(key));
        let commits_all = |order: &SignedOrder| {
            Order::decode(&order.order).is_some_and(|order| {
                order.kind == OrderKind::Commit && order.hosts.is_none() && order.up_to.is_none()
            })
        };
        let is_for_all = newest.orders.iter().any(commits_all);
        let cache = self.options.cache.as_deref();
        let is_last = serials::remembered(cache, &old.tree, old.serial) <= old.serial;

        let new = self.header(old.serial, SessionId(0));
        is_ours && is_for_all && is_last && lasts(old, &new) && alike(old) == alike(&new)
    }
}

/// Returns whether `old` expires after the time of `new` and not much earlier than it.
fn lasts(old: &Header, new: &Header) -> bool {
    let left = |header: &Header, from: WallTime| {
        let left = |end: WallTime| end.0.saturating_sub(from.0);
        header.expires.map_or(i64::MAX, left)
    };
    left(old, new.created) >= left(new, new.created) / 2
}

/// A header without what differs from release to release of the same content.
fn alike(header: &Header) -> Header {
    let mut header = header.clone();
    header.created = WallTime(0);
    header.expires = header.expires.map(|_| WallTime(0));
    (header.session, header.sender, header.quick) = (None, None, None);
    header.message = None;
    if let Some(top) = &mut header.top {
        top.mtime = Mtime { secs: 0, nanos: 0 };
    }
    header
}

/// Signs a release, and the order by which hosts commit it.
pub(super) fn sign(
    header: Header,
    session: SessionId,
    keys: &ReleaseKeys,
) -> Result<SignedRelease> {
    let signer = &keys.signer;
    let release = Release::new(header).map_err(|e| Error::usage(e.to_string()))?;
    let signature = signer.sign(Namespace::RELEASE, release.bytes())?;
    let order = Order::new(session, &release, OrderKind::Commit).encode();
    let by = signer.sign(Namespace::ORDER, &order)?;
    let order = SignedOrder {
        order,
        signature: by.as_bytes().to_vec(),
        hosts: None,
    };

    Ok(SignedRelease {
        release,
        signature: signature.as_bytes().to_vec(),
        orders: vec![order],
    })
}
