//! Carries out the requests of a machine on a store, several at a time.

use std::time::Duration;

use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::Result;
use crate::drive::clock::{self, Clock};
use crate::error::IoResultExt;
use crate::repository::attempt::RequestId;
use crate::repository::object::{Get, GetReply, Put, PutReply};
use crate::store::Store;
use crate::units::Moment;

/// Largest number of replies that wait for the machine: then the store's answers wait as well.
const MAX_WAITING_REPLIES: usize = 8;

/// A reply of the store.
#[derive(Debug)]
pub(super) enum StoreReply {
    Get(RequestId, GetReply),
    Put(RequestId, PutReply),
}

/// Requests under way.
#[derive(Debug)]
pub(super) struct StoreRequests {
    store: Store,
    clock: Clock,
    outbox: Sender<StoreReply>,
    replies: Receiver<StoreReply>,
}

impl StoreRequests {
    /// No requests yet. The machine repeats those that fail.
    pub(super) fn new(store: Store) -> Self {
        let (outbox, replies) = channel(MAX_WAITING_REPLIES);
        Self {
            store: store.once(),
            clock: Clock::start(),
            outbox,
            replies,
        }
    }

    /// Current time of the machine.
    pub(super) fn now(&self) -> Moment {
        self.clock.now()
    }

    /// Begins to read.
    pub(super) fn get(&self, id: RequestId, get: Get) {
        let mut reader = self.store.get(get);
        let outbox = self.outbox.clone();
        tokio::spawn(async move {
            while let Some(reply) = reader.next().await {
                if outbox.send(StoreReply::Get(id, reply)).await.is_err() {
                    return;
                }
            }
        });
    }

    /// Begins to write.
    pub(super) fn put(&self, id: RequestId, put: Put) {
        let (store, outbox) = (self.store.clone(), self.outbox.clone());
        tokio::spawn(async move {
            let reply = store.put(&put).await;
            // Nobody waits for it any more.
            let _ = outbox.send(StoreReply::Put(id, reply)).await;
        });
    }

    /// Waits for the next reply, at the latest until `until`.
    pub(super) async fn next(&mut self, until: Option<Moment>) -> Option<StoreReply> {
        let left = |until: Moment| until.since(self.clock.now());
        let wait = until.map_or(Duration::MAX, left);
        tokio::time::timeout(wait, self.replies.recv())
            .await
            .ok()
            .flatten()
    }
}

/// Seed of a machine's jitter.
pub(super) fn seed() -> u64 {
    clock::seed()
}

/// Starts the loop that requests run in.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .io_context("cannot start a loop for requests")
}
