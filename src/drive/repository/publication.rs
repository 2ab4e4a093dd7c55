//! Carries out a publication: requests to the store, signatures, and what follows after the head.

use std::time::Duration;

use super::failure::{of_head, of_publish};
use super::head_memory::HeadMemory;
use super::requests::{StoreReply, StoreRequests, runtime};
use super::upload_progress::UploadProgress;
use super::whole::verified_by;
use crate::drive::clock;
use crate::drive::deploy::source::NodeReader;
use crate::drive::deploy::{Interrupt, ReleaseKeys};
use crate::error::{Error, Result};
use crate::id::{Serial, TreeName};
use crate::keys::Namespace;
use crate::manifest::Release;
use crate::outcome::{Event, Observer};
use crate::repository::SignedRelease;
use crate::repository::head::{Head, SignedHead, VerifiedHead};
use crate::repository::places::StoredNode;
use crate::repository::publish::{Publish, PublishNote, PublishSetup, PublishStep, Published};
use crate::repository::record::ReleaseRecord;
use crate::store::Store;
use crate::units::Moment;

/// Longest wait until an interrupt is noticed.
const INTERRUPT_CHECK: Duration = Duration::from_millis(200);

/// What a publication does with the head that is there.
pub(super) enum PublishPlan<'a> {
    /// Publishes the release that is signed after the given serial.
    Release(
        NodeReader<'a>,
        &'a mut dyn FnMut(Serial) -> Result<SignedRelease>,
    ),
    /// The same, unless the newest release passes the test: then only the head is signed again.
    ReleaseUnless(
        NodeReader<'a>,
        &'a mut dyn FnMut(Serial) -> Result<SignedRelease>,
        &'a dyn Fn(&ReleaseRecord) -> bool,
    ),
    /// Publishes an earlier release again: the given one, for the head of the repository.
    Restore(&'a dyn Fn(&VerifiedHead) -> Result<(StoredNode, SignedRelease)>),
    /// Signs the head again, unless the check fails.
    Renew(&'a mut dyn FnMut(&VerifiedHead) -> Result<()>),
}

/// End of a publication.
pub(super) struct PublicationEnd {
    /// The newest release, if the publication signed it or looked at it.
    pub(super) release: Option<Release>,
    /// True if only the head was signed again.
    pub(super) is_renewal: bool,
    pub(super) stored: Published,
}

/// A publication under way.
pub(super) struct Publication<'a> {
    machine: Publish,
    requests: StoreRequests,
    tree: TreeName,
    repairs: bool,
    keys: &'a ReleaseKeys,
    memory: &'a HeadMemory,
    plan: PublishPlan<'a>,
    head: Option<VerifiedHead>,
    release: Option<Release>,
    is_renewal: bool,
    /// Newest release of the head that was signed last.
    serial: Serial,
    progress: UploadProgress,
    interrupt: Interrupt,
}

impl<'a> Publication<'a> {
    /// A publication to `store`, which signs with the keys and remembers the head.
    pub(super) fn new(
        store: Store,
        setup: PublishSetup,
        (keys, memory): (&'a ReleaseKeys, &'a HeadMemory),
        plan: PublishPlan<'a>,
    ) -> Self {
        Self {
            progress: UploadProgress::new(store.clone()),
            tree: setup.tree.clone(),
            repairs: setup.repair,
            machine: Publish::new(setup),
            requests: StoreRequests::new(store),
            keys,
            memory,
            plan,
            head: None,
            release: None,
            is_renewal: false,
            serial: Serial(0),
            interrupt: Interrupt::default(),
        }
    }

    /// Ends without a new head once `interrupt` is asked.
    pub(super) fn until(self, interrupt: &Interrupt) -> Self {
        let interrupt = interrupt.clone();
        Self { interrupt, ..self }
    }

    /// Runs to the end, with its progress to `observer`.
    pub(super) fn run(self, observer: &mut dyn Observer) -> Result<PublicationEnd> {
        runtime()?.block_on(self.run_steps(observer))
    }

    async fn run_steps(mut self, observer: &mut dyn Observer) -> Result<PublicationEnd> {
        loop {
            let now = self.requests.now();
            if self.interrupt.is_asked() {
                return Err(Error::refused("interrupted"));
            }
            self.progress.report(&self.machine, now, observer);
            match self.machine.poll(now) {
                PublishStep::Get(id, get) => self.requests.get(id, get),
                PublishStep::Put(id, put) => self.requests.put(id, put),
                PublishStep::Head(signed) => self.take_head(signed)?,
                PublishStep::Newest(record) => self.take_newest(record)?,
                PublishStep::Note(note) => self.tell(&note, observer),
                PublishStep::Walk | PublishStep::Read(..) if self.nodes().is_none() => {
                    return Err(Error::refused("there is no source to read"));
                }
                step @ (PublishStep::Walk | PublishStep::Read(..)) => {
                    self.read(&step)?;
                    // Puts go on meanwhile.
                    tokio::task::yield_now().await;
                }
                PublishStep::Seal => {
                    self.progress.report_end(&self.machine, now, observer);
                    let bytes = self.machine.head_to_sign(clock::wall_seconds());
                    self.serial = Head::decode(&bytes).map_or(Serial(0), |head| head.serial());
                    let signature = self.keys.signer.sign(Namespace::HEAD, &bytes)?;
                    self.machine.signed(signature.as_bytes());
                }
                PublishStep::Done(stored) => {
                    self.memory.remember(&self.tree, self.serial);
                    return Ok(PublicationEnd {
                        release: self.release,
                        is_renewal: self.is_renewal,
                        stored,
                    });
                }
                PublishStep::Failed(error) => return Err(of_publish(&error)),
                PublishStep::Wait(until) => {
                    let until = self.wait_end(until, now);
                    match self.requests.next(until).await {
                        Some(StoreReply::Get(id, reply)) => {
                            self.machine.reply(id, reply, self.requests.now());
                        }
                        Some(StoreReply::Put(id, reply)) => {
                            self.machine.stored(id, reply, self.requests.now());
                        }
                        None => {}
                    }
                }
            }
        }
    }

    fn wait_end(&self, until: Option<Moment>, now: Moment) -> Option<Moment> {
        let until = self.progress.next_report(until, now);
        until.into_iter().chain([now + INTERRUPT_CHECK]).min()
    }

    /// Tells what is wrong with the repository.
    fn tell(&mut self, note: &PublishNote, observer: &mut dyn Observer) {
        let tree = &self.tree;
        let text = match (note, self.repairs) {
            (PublishNote::Dropped(serial), _) => {
                format!("{tree}@{serial} is not whole, and leaves the repository")
            }
            (PublishNote::Unconfirmed, _) => note.to_string(),
            (_, true) => format!("{note}: its content is stored again as far as it is needed"),
            (_, false) => format!(
                "{note}: everything is stored again; with `--repair` only what is missing or \
                 damaged is, and releases that are not whole leave the repository"
            ),
        };
        observer.event(&Event::Note(text));
    }

    fn nodes(&self) -> Option<&NodeReader<'a>> {
        match &self.plan {
            PublishPlan::Release(nodes, _) | PublishPlan::ReleaseUnless(nodes, ..) => Some(nodes),
            PublishPlan::Restore(_) | PublishPlan::Renew(_) => None,
        }
    }

    /// Reads what the machine needs of the source.
    fn read(&mut self, step: &PublishStep) -> Result<()> {
        let changed = "cannot read the source";
        let (PublishPlan::Release(nodes, _) | PublishPlan::ReleaseUnless(nodes, ..)) = &self.plan
        else {
            return Ok(());
        };

        if let PublishStep::Read(ordinal, _) = step {
            let mut content = Vec::new();
            let read = nodes.read(*ordinal, &mut content);
            read.map_err(|e| Error::refused(changed).because(e))?;
            self.machine.block(*ordinal, &content);
            return Ok(());
        }
        let walked = self.machine.walk(nodes);
        walked.map_err(|e| Error::refused(changed).because(e))
    }

    fn take_head(&mut self, signed: Option<SignedHead>) -> Result<()> {
        let verify = |signed| verified_by(self.keys, &self.tree, &signed);
        self.head = match signed.map(verify).transpose() {
            Err(error) if !error.is_signed() => {
                self.machine.refuse(error, self.requests.now());
                return Ok(());
            }
            head => head.map_err(|e| of_head(&e))?,
        };
        let Some(head) = &self.head else {
            return self.begin();
        };
        if self.machine.is_followed(head) {
            return Ok(());
        }

        self.is_renewal = false;

        match &mut self.plan {
            PublishPlan::Release(..) => return self.begin(),
            PublishPlan::ReleaseUnless(..) => self.machine.look(head),
            PublishPlan::Restore(earlier) => {
                let (root, new) = earlier(head)?;
                self.release = Some(new.release.clone());
                self.machine.restore(head, &root, new);
            }
            PublishPlan::Renew(check) => {
                check(head)?;
                self.is_renewal = true;
                self.machine.renew(head);
            }
        }
        Ok(())
    }

    fn take_newest(&mut self, record: Option<Box<ReleaseRecord>>) -> Result<()> {
        let same = record.filter(|record| match &self.plan {
            PublishPlan::ReleaseUnless(_, _, is_same) => is_same(record),
            _ => false,
        });

        match (same, &self.head) {
            (Some(record), Some(head)) => {
                self.release = Some(record.release);
                self.is_renewal = true;
                self.machine.renew(head);
                Ok(())
            }
            _ => self.begin(),
        }
    }

    /// Signs a release and begins to publish it.
    fn begin(&mut self) -> Result<()> {
        let highest = self.head.as_ref().map(|head| head.head().serial());
        let new = match &mut self.plan {
            PublishPlan::Release(_, sign) | PublishPlan::ReleaseUnless(_, sign, _) => {
                sign(highest.unwrap_or_default())?
            }
            PublishPlan::Restore(_) | PublishPlan::Renew(_) => {
                let what = format!("the repository has no tree {}", self.tree);
                return Err(Error::refused(what)
                    .hint("`makuo publish SPEC --to URL` makes it: is the URL the same?"));
            }
        };

        self.release = Some(new.release.clone());
        self.machine.begin(self.head.as_ref(), new);
        Ok(())
    }
}
