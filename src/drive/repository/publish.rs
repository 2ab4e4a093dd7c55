//! Publishes a release: signs it with the next serial, and stores what the repository lacks.

use std::path::Path;
use std::time::Duration;

use super::node_reader::NodeReader;
use super::requests::{StoreReply, StoreRequests, runtime, seed};
use crate::block::frame::Level;
use crate::drive::clock;
use crate::drive::deploy::ReleaseKeys;
use crate::drive::deploy::serials;
use crate::drive::deploy::source::{
    NewRelease, PreparedRelease, ReleaseSource, SourcePart, SourceScan, prepare,
};
use crate::error::{Error, Kind, Result};
use crate::id::{HostName, Serial, SessionId, TreeName};
use crate::keys::{AuthorizedKeys, Namespace};
use crate::manifest::{Intent, NodeRef, Release};
use crate::outcome::{Event, Observer};
use crate::repository::SignedRelease;
use crate::repository::head::{HeadError, SignedHead, VerifiedHead};
use crate::repository::publish::{Publish, PublishError, PublishSetup, PublishStep, Published};
use crate::spec::{Compress, Spec};
use crate::store::Store;
use crate::wire::message::{Order, OrderKind, SignedOrder};

/// Level of compression, unless the spec gives one: packs are written once and read often.
const DEFAULT_LEVEL: u8 = 6;

/// Settings of a publication.
#[derive(Debug, Clone)]
pub struct PublishOptions {
    /// Number of releases that the repository keeps, with the new one.
    pub keep: usize,
    /// Time until the head is stale; `None` is never.
    pub valid_for: Option<Duration>,
    /// The signing key, and keys whose releases may be followed.
    pub keys: ReleaseKeys,
    /// Name of this host.
    pub name: HostName,
    /// Directory for the source's index and the last serial.
    pub cache: Option<std::path::PathBuf>,
}

/// A published release.
#[derive(Debug, Clone)]
pub struct PublishedRelease {
    /// The release.
    pub release: Release,
    /// New objects of the repository.
    pub stored: Published,
}

/// Scans the source of `spec` and publishes it.
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
    let mut sign = |highest: Serial| {
        let serial = next_serial(cache, &spec.tree, highest, &mut notes);
        sign_new(spec, &facts, serial, checksum, options)
    };
    let published = publish(store, spec, options, &root, &mut source, &mut sign);
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
) -> Result<PublishedRelease> {
    let unreadable = |e| Error::new(Kind::Io, "cannot read the source").because(e);
    let nodes = NodeReader::open(root, source).map_err(unreadable)?;
    let setup = PublishSetup {
        tree: spec.tree.clone(),
        keep: options.keep,
        level: level(spec.transfer.compress),
        valid_for: options
            .valid_for
            .map(|time| u32::try_from(time.as_secs()).unwrap_or(u32::MAX)),
        orders: Vec::new(),
        seed: seed(),
    };

    let publication = Publication {
        machine: Publish::new(setup),
        requests: StoreRequests::new(store),
        tree: &spec.tree,
        keys: &options.keys,
        nodes,
    };
    runtime()?.block_on(publication.run(sign))
}

/// A publication under way.
struct Publication<'a> {
    machine: Publish,
    requests: StoreRequests,
    tree: &'a TreeName,
    keys: &'a ReleaseKeys,
    nodes: NodeReader<'a>,
}

impl Publication<'_> {
    async fn run(
        mut self,
        sign: &mut dyn FnMut(Serial) -> Result<SignedRelease>,
    ) -> Result<PublishedRelease> {
        let mut released = None;
        let mut content = Vec::new();

        loop {
            match self.machine.poll(self.requests.now()) {
                PublishStep::Get(id, get) => self.requests.get(id, get),
                PublishStep::Put(id, put) => self.requests.put(id, put),
                PublishStep::Head(signed) => {
                    let head = match self.verified(signed) {
                        Err(error) if !error.is_signed() => {
                            self.machine.refuse(error, self.requests.now());
                            continue;
                        }
                        head => head.map_err(|e| of_head(&e))?,
                    };
                    let highest = head.as_ref().map(|head| head.head().serial());
                    let new = sign(highest.unwrap_or_default())?;
                    released = Some(new.release.clone());
                    self.machine.begin(head.as_ref(), new);
                }
                PublishStep::Walk => {
                    let changed = |e| Error::refused("cannot read the source").because(e);
                    self.machine.walk(&self.nodes).map_err(changed)?;
                }
                PublishStep::Read(ordinal, _) => {
                    content.clear();
                    let read = self.nodes.read(ordinal, &mut content);
                    read.map_err(|e| Error::refused("cannot read the source").because(e))?;
                    self.machine.block(ordinal, &content);
                    // Puts go on meanwhile.
                    tokio::task::yield_now().await;
                }
                PublishStep::Seal => {
                    let bytes = self.machine.head_to_sign(clock::wall_seconds());
                    let signature = self.keys.signer.sign(Namespace::HEAD, &bytes)?;
                    self.machine.signed(signature.as_bytes());
                }
                PublishStep::Done(stored) => match released {
                    Some(release) => return Ok(PublishedRelease { release, stored }),
                    None => return Err(Error::refused("nothing was published")),
                },
                PublishStep::Failed(error) => return Err(failed(error)),
                PublishStep::Wait(until) => match self.requests.next(until).await {
                    Some(StoreReply::Get(id, reply)) => {
                        self.machine.reply(id, reply, self.requests.now());
                    }
                    Some(StoreReply::Put(id, reply)) => {
                        self.machine.stored(id, reply, self.requests.now());
                    }
                    None => {}
                },
            }
        }
    }

    fn verified(&self, head: Option<SignedHead>) -> Result<Option<VerifiedHead>, HeadError> {
        let Some(head) = head else {
            return Ok(None);
        };

        let none = AuthorizedKeys::none(Path::new("authorized_keys"));
        let keys = self.keys.authorized.as_deref().unwrap_or(&none);
        let own = Some(self.keys.signer.public());
        let verified = head.verify(self.tree, keys, own, clock::wall_seconds());
        verified.map(Some)
    }
}

/// Error for a head that cannot be followed.
pub(super) fn of_head(error: &HeadError) -> Error {
    let refused = Error::refused(format!("the repository cannot be followed: {error}"));
    match error {
        HeadError::Denied(_) => {
            refused.hint("if its key may release the tree, list it in the authorized keys")
        }
        _ => refused,
    }
}

fn failed(error: PublishError) -> Error {
    match error {
        PublishError::Head(error) => of_head(&error),
        PublishError::Store(_) => Error::new(Kind::Io, error.to_string()),
        PublishError::NoRepository => Error::refused(error.to_string())
            .hint("publish to an empty directory or prefix, or to that of a repository"),
        PublishError::Outdated(_) | PublishError::OtherTree(_) | PublishError::SourceChanged => {
            Error::refused(error.to_string())
        }
    }
}

fn level(compress: Compress) -> Option<Level> {
    match compress {
        Compress::Off => None,
        Compress::Level(level) => Some(level),
        Compress::Auto => Level::new(DEFAULT_LEVEL),
    }
}

fn next_serial(
    cache: Option<&Path>,
    tree: &TreeName,
    highest: Serial,
    notes: &mut Vec<String>,
) -> Serial {
    serials::next_of(cache, tree, highest, |note| notes.push(note))
}

/// Signs a new release of `spec`, and the order by which hosts commit it.
fn sign_new(
    spec: &Spec,
    facts: &PreparedRelease,
    serial: Serial,
    checksum: bool,
    options: &PublishOptions,
) -> Result<SignedRelease> {
    let session = SessionId(seed());
    let header = facts.header(
        spec,
        NewRelease {
            serial,
            intent: Intent::Deploy,
            targets: spec.targets.hosts.clone(),
            again: None,
            session,
            sender: options.name.clone(),
            checksum,
            quick: false,
        },
    );

    let signer = &options.keys.signer;
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
