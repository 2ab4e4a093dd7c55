//! What all requests to one store share: places under way, the rate limits, and what the answers
//! show of the server.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::manners::ObservedManners;
use super::options::StoreOptions;
use super::speed::SpeedCeiling;
use crate::sync::locked;
use crate::units::{Moment, Rate};

/// Largest piece of a body that is sent at once.
const UPLOAD_PIECE_BYTES: u64 = 64 << 10;

/// Limits of one store.
#[derive(Debug)]
pub(super) struct Limits {
    /// See [`StoreOptions::patience`].
    pub patience: Duration,
    /// What the answers show of the server.
    pub manners: ObservedManners,
    places: Arc<Semaphore>,
    began: Instant,
    piece: usize,
    down: Mutex<SpeedCeiling>,
    up: Mutex<SpeedCeiling>,
    sent: AtomicU64,
}

impl Limits {
    /// The limits that `options` set.
    pub fn new(options: &StoreOptions) -> Self {
        // A pause between two pieces is shorter than any patience.
        let second = |rate: Rate| rate.bytes_in(Duration::from_secs(1)).max(1024);
        let piece = options
            .rate
            .map_or(UPLOAD_PIECE_BYTES, second)
            .min(UPLOAD_PIECE_BYTES);

        Self {
            patience: options.patience,
            manners: ObservedManners::default(),
            places: Arc::new(Semaphore::new(options.parallel.clamp(1, 1024))),
            began: Instant::now(),
            piece: usize::try_from(piece).unwrap_or(1024),
            down: Mutex::new(SpeedCeiling::new(options.rate)),
            up: Mutex::new(SpeedCeiling::new(options.rate)),
            sent: AtomicU64::new(0),
        }
    }

    /// Waits for a place among the requests under way.
    pub async fn place(&self) -> Option<OwnedSemaphorePermit> {
        // The semaphore is never closed.
        Arc::clone(&self.places).acquire_owned().await.ok()
    }

    /// Counts received bytes and returns the time to wait before the next ones.
    pub fn receive(&self, bytes: u64) -> Duration {
        self.take(&self.down, bytes)
    }

    /// Counts bytes to send and returns the time to wait before the next ones.
    pub fn send(&self, bytes: u64) -> Duration {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
        self.take(&self.up, bytes)
    }

    /// Bytes of all bodies sent so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Largest piece of a body that is sent at once, in bytes.
    pub fn piece(&self) -> usize {
        self.piece
    }

    fn take(&self, ceiling: &Mutex<SpeedCeiling>, bytes: u64) -> Duration {
        let now = Moment(0) + self.began.elapsed();
        locked(ceiling).take(now, bytes)
    }
}
