//! Who gets to work on a tree: offers are looked at one by one, on one thread, before any of them has an effect. So are
//! the headers of releases that this host missed.
//!
//! Anybody can send an offer. What may not be put here costs the check of a signature and nothing else: no thread, no
//! place in a tree's queue.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use super::clock;
use super::disk::{Answer, Host, Job, Task, guarded, step_back};
use super::rights::AUDIT_SECONDS;
use super::session::{Opening, check, may_be_taken};
use crate::error::{Error, Kind, Result};
use crate::id::{SessionId, TreeName};
use crate::keys::PublicKey;
use crate::manifest::{Intent, Release, ReleaseId};
use crate::proto::receiver::{DiskReply, DiskRequest, OfferRefusal};
use crate::units::WallTime;

/// The most offers that wait to be looked at.
const MAX_WAITING: usize = 64;
/// The most comparisons that are remembered: who may ask for them asks no more often in an hour.
const MAX_AUDITS: usize = 20_000;

/// An offer, and what comes for its session.
pub(super) struct Offer {
    pub(super) session: SessionId,
    pub(super) opening: Opening,
    pub(super) requests: Receiver<DiskRequest>,
}

/// What is looked at.
enum Arrival {
    Offer(Offer),
    /// The header of a release, and its signature.
    Header(Release, Arc<[u8]>),
}

/// The thread that looks at offers.
#[derive(Debug)]
pub(super) struct Admission {
    /// `None` once the thread is to end.
    arrivals: Option<SyncSender<Arrival>>,
    thread: Option<JoinHandle<()>>,
}

impl Admission {
    /// Starts it; what it admits goes to the tree's queue in `trees`.
    pub(super) fn start(
        host: Arc<Host>,
        trees: BTreeMap<TreeName, SyncSender<Job>>,
        answer: Answer,
    ) -> Result<Self> {
        let (arrivals, inbox) = sync_channel::<Arrival>(MAX_WAITING);
        let work = move || {
            step_back();
            let mut audits = Audits::default();
            for arrival in inbox {
                let offer = match arrival {
                    Arrival::Offer(offer) => offer,
                    Arrival::Header(release, signature) => {
                        let may = guarded(|| may_be_taken(&host, &release, &signature));
                        answer.send(DiskReply::Verified(release.id(), matches!(may, Ok(Ok(())))));
                        continue;
                    }
                };
                let session = offer.session;
                let admitted = guarded(|| admit(&host, &mut audits, &trees, &answer, offer));
                // What was admitted is answered to already.
                if let Err(why) = admitted
                    .map_err(OfferRefusal::from)
                    .and_then(|admitted| admitted)
                {
                    answer.send(DiskReply::Opened(session, Err(why)));
                }
            }
        };

        let thread = std::thread::Builder::new()
            .name("admission".into())
            .spawn(work);
        let thread =
            thread.map_err(|e| Error::new(Kind::Io, "cannot start a thread").because(e))?;

        Ok(Self {
            arrivals: Some(arrivals),
            thread: Some(thread),
        })
    }

    /// Hands an offer on; false when too many wait.
    pub(super) fn take(&self, offer: Offer) -> bool {
        self.arrivals
            .as_ref()
            .is_some_and(|arrivals| arrivals.try_send(Arrival::Offer(offer)).is_ok())
    }

    /// Has a header looked at; false when too much waits.
    pub(super) fn verify(&self, release: Release, signature: Arc<[u8]>) -> bool {
        self.arrivals.as_ref().is_some_and(|arrivals| {
            arrivals
                .try_send(Arrival::Header(release, signature))
                .is_ok()
        })
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.arrivals = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn admit(
    host: &Host,
    audits: &mut Audits,
    trees: &BTreeMap<TreeName, SyncSender<Job>>,
    answer: &Answer,
    offer: Offer,
) -> Result<(), OfferRefusal> {
    let Offer {
        session,
        opening,
        requests,
    } = offer;

    let key: PublicKey = check(host, session, &opening)?;
    let release = opening.release.clone();
    audits.check(&release, clock::wall_seconds())?;

    let tree = &release.header().tree;
    let queue = trees
        .get(tree)
        .ok_or_else(|| OfferRefusal::from(format!("there is no tree {tree} here")))?;

    let task = Task {
        id: session,
        opening,
        key,
        requests,
        answer: answer.clone(),
    };

    // The session before gives way when this one is known to be rightful, and only then: it is told first.
    match queue.try_send(Job::Session(Box::new(task))) {
        Ok(()) => {}
        Err(TrySendError::Full(_)) => {
            let why =
                format!("too many sessions wait for the tree {tree}; try again when they are over");
            return Err(OfferRefusal { why, proven: true });
        }
        Err(TrySendError::Disconnected(_)) => return Err("this host is ending".to_string().into()),
    }

    audits.admitted(&release);
    answer.send(DiskReply::Opened(session, Ok(())));
    Ok(())
}

/// The comparisons that were made in the last hour: each is made once, whoever repeats the question.
#[derive(Debug, Default)]
struct Audits {
    /// Until when each is remembered: as long as it would be answered.
    made: BTreeMap<ReleaseId, WallTime>,
}

impl Audits {
    fn check(&mut self, release: &Release, now: WallTime) -> Result<(), OfferRefusal> {
        if release.header().intent != Intent::Audit {
            return Ok(());
        }

        if self.made.len() >= MAX_AUDITS {
            self.made.retain(|_, until| *until >= now);
        }

        if self.made.contains_key(&release.id()) {
            return Err("this comparison was made already: ask again"
                .to_string()
                .into());
        }

        if self.made.len() >= MAX_AUDITS {
            return Err(format!("{MAX_AUDITS} comparisons were made in this hour").into());
        }

        Ok(())
    }

    fn admitted(&mut self, release: &Release) {
        if release.header().intent == Intent::Audit {
            let until = WallTime(
                release
                    .header()
                    .created
                    .0
                    .saturating_add_unsigned(AUDIT_SECONDS),
            );
            self.made.insert(release.id(), until);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Mutex;
    use std::sync::mpsc::channel;

    use super::super::disk::{Disk, open_tree};
    use super::*;
    use crate::config::TreeConfig;
    use crate::id::{HostName, Serial};
    use crate::keys::AuthorizedKeys;
    use crate::manifest::Header;
    use crate::manifest::header::tests::a_header;
    use crate::net::Poller;
    use crate::proto::receiver::ScanMode;

    fn release(serial: u64, intent: Intent, created: i64) -> Release {
        let header = Header {
            serial: Serial(serial),
            intent,
            created: WallTime(created),
            ..a_header()
        };
        Release::new(header).expect("legal")
    }

    #[test]
    fn a_comparison_is_made_once_and_remembered_for_as_long_as_it_would_be_answered() {
        let (mut audits, now) = (Audits::default(), WallTime(1_000_000));
        let audit = release(1, Intent::Audit, now.0);
        assert!(audits.check(&audit, now).is_ok());
        audits.admitted(&audit);
        assert!(
            audits
                .check(&audit, now)
                .is_err_and(|denied| !denied.proven)
        );

        assert!(
            audits
                .check(&release(1, Intent::Audit, now.0 + 1), now)
                .is_ok(),
            "another question"
        );

        let deploy = release(2, Intent::Deploy, now.0);
        audits.admitted(&deploy);
        assert!(audits.check(&deploy, now).is_ok(), "serials see to it");
    }

    #[test]
    fn the_memory_of_comparisons_is_bounded_and_makes_room_again() {
        let (mut audits, now) = (Audits::default(), WallTime(1_000_000));
        let next = |n: usize, at: i64| release(n as u64, Intent::Audit, at);
        for n in 0..MAX_AUDITS + 10 {
            let audit = next(n, now.0);
            if audits.check(&audit, now).is_ok() {
                audits.admitted(&audit);
            }
        }

        assert_eq!(audits.made.len(), MAX_AUDITS);
        let later = WallTime(now.0 + 3601);
        let audit = next(0, later.0);
        assert!(audits.check(&audit, later).is_ok());
        audits.admitted(&audit);

        assert_eq!(audits.made.len(), 1);
    }

    /// Threads of this process that work for trees or sessions.
    fn workers() -> usize {
        let tasks = std::fs::read_dir("/proc/self/task")
            .expect("a process")
            .flatten();
        let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
        names
            .filter(|name| name.starts_with("session") || name.starts_with("tree "))
            .count()
    }

    #[test]
    fn offers_that_nobody_signed_take_no_thread_while_their_tree_is_busy() {
        const OFFERS: u64 = 3000;
        let dir = tempfile::tempdir().expect("a directory");
        let (name, path) = (TreeName::new("www").expect("legal"), dir.path().join("www"));
        std::fs::create_dir(&path).expect("new");
        let managed = open_tree(&TreeConfig::new(name.clone(), path), None).expect("opens");
        let host = Host {
            name: HostName::new("web1").expect("legal"),
            trees: [(name.clone(), managed)].into_iter().collect(),
            keys: Mutex::new(Arc::new(AuthorizedKeys::none(Path::new("authorized_keys")))),
            own_key: Default::default(),
        };

        let (reply_to, replies) = channel();
        let waker = Poller::new().expect("a poller").waker();
        let mut disk = Disk::new(Arc::new(host), reply_to, waker).expect("starts");
        let (hold, held) = channel::<()>();
        assert!(disk.after_others(
            &name,
            Box::new(move |_, _, _| assert!(held.recv().is_err()))
        ));

        let (before, mut most) = (workers(), 0);

        for session in 0..OFFERS {
            let (release, look) = (
                release(session + 1, Intent::Deploy, 1_000_000),
                ScanMode::default(),
            );
            let (signature, sender) = (
                Arc::from(vec![b'x'; 83]),
                HostName::new("evil").expect("legal"),
            );
            disk.request(DiskRequest::Open {
                session: SessionId(session),
                release,
                signature,
                look,
                sender,
                grant: None,
            });
            most = most.max(workers());
        }

        let refused = replies.iter().take(OFFERS as usize);
        let refused = refused
            .filter(|r| matches!(r, DiskReply::Opened(_, Err(denied)) if !denied.proven))
            .count();
        assert_eq!(refused as u64, OFFERS, "each has its answer");

        // Other tests of this process have trees, too.
        assert!(
            most < before + 64,
            "{before} threads before, {most} at most"
        );

        drop(hold);
    }
}
