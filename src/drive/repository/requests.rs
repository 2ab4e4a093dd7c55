//! Carries out the requests of a machine on a store, several at a time.

use std::time::Duration;

use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::Result;
use crate::drive::clock::{self, Clock};
use crate::error::IoResultExt;
use crate::repository::attempt::RequestId;
use crate::repository::object::{FaultKind, Get, GetReply, Put, PutReply, StoreFault};
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
        let failed = move |fault| StoreReply::Get(id, GetReply::Failed(fault));
        carry_out(self.outbox.clone(), failed, async move {
            while let Some(reply) = reader.next().await {
                if outbox.send(StoreReply::Get(id, reply)).await.is_err() {
                    return;
                }
            }
        });
    }

    /// Begins to write.
    pub(super) fn put(&self, id: RequestId, put: Put) {
        let store = self.store.clone();
        let outbox = self.outbox.clone();
        let failed = move |fault| StoreReply::Put(id, PutReply::Failed(fault));
        carry_out(self.outbox.clone(), failed, async move {
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

/// Carries out a request. If it panics, that is its last reply: the machine would wait for ever.
fn carry_out(
    outbox: Sender<StoreReply>,
    failed: impl FnOnce(StoreFault) -> StoreReply + Send + 'static,
    request: impl Future<Output = ()> + Send + 'static,
) {
    let request = tokio::spawn(request);
    tokio::spawn(async move {
        if let Err(e) = request.await {
            let text = format!("a request to the store ended by a defect of makuo: {e}");
            let fault = StoreFault::new(FaultKind::Permanent, &text);
            // Nobody waits for it any more.
            let _ = outbox.send(failed(fault)).await;
        }
    });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_in_a_request_is_its_last_reply() {
        let reply = runtime().expect("a loop").block_on(async {
            let (outbox, mut replies) = channel(1);
            let failed = |fault| StoreReply::Put(RequestId(7), PutReply::Failed(fault));
            carry_out(outbox, failed, async { panic!("of the test") });
            replies.recv().await
        });
        let Some(StoreReply::Put(RequestId(7), PutReply::Failed(fault))) = reply else {
            panic!("{reply:?}");
        };
        assert!(fault.text.contains("of the test"), "{fault}");
    }
}
