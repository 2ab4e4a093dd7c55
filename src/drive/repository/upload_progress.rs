//! Progress of a publication: how much of the new content the store has taken.

use std::time::Duration;

use crate::outcome::{Event, Observer, TransferProgress};
use crate::repository::publish::{Publish, Upload};
use crate::store::Store;
use crate::units::{ByteSize, Moment, Rate};

/// Interval of reports.
const UPLOAD_REPORT_INTERVAL: Duration = Duration::from_millis(100);
/// Time over which the rate is measured: packs are sent one after another, with pauses between.
const UPLOAD_RATE_WINDOW: Duration = Duration::from_secs(5);

/// Reports of one publication.
#[derive(Debug)]
pub(super) struct UploadProgress {
    store: Store,
    /// Bytes that the store had taken before.
    before: u64,
    reported: Option<Moment>,
    /// Time and bytes from which the rate is measured.
    mark: Option<(Moment, u64)>,
    rate: Rate,
}

impl UploadProgress {
    /// Nothing reported yet.
    pub(super) fn new(store: Store) -> Self {
        Self {
            before: store.sent(),
            store,
            reported: None,
            mark: None,
            rate: Rate(0),
        }
    }

    /// Reports the progress, in intervals, once it is known how much is to be stored.
    pub(super) fn report(&mut self, machine: &Publish, now: Moment, observer: &mut dyn Observer) {
        let Some(layout) = machine.upload().filter(|layout| layout.total > 0) else {
            return;
        };
        if self
            .reported
            .is_some_and(|at| now.since(at) < UPLOAD_REPORT_INTERVAL)
        {
            return;
        }
        self.report_now(layout, now, observer);
    }

    /// Reports the end, when all packs are stored.
    pub(super) fn report_end(
        &mut self,
        machine: &Publish,
        now: Moment,
        observer: &mut dyn Observer,
    ) {
        if let Some(layout) = machine.upload().filter(|layout| layout.total > 0) {
            self.report_now(layout, now, observer);
        }
    }

    fn report_now(&mut self, layout: Upload, now: Moment, observer: &mut dyn Observer) {
        self.reported = Some(now);
        let taken = self.store.sent().saturating_sub(self.before);
        let sent = layout.done(taken);
        self.measure(sent, now);
        observer.event(&Event::Progress(TransferProgress {
            sent: ByteSize(sent),
            total: ByteSize(layout.total),
            rate: self.rate,
            ready: 0,
            targets: 0,
        }));
    }

    /// Time of the next report at the latest, with the machine's own timeout.
    pub(super) fn next_report(&self, until: Option<Moment>, now: Moment) -> Option<Moment> {
        let next = self.reported.map(|_| now + UPLOAD_REPORT_INTERVAL);
        until.into_iter().chain(next).min()
    }

    fn measure(&mut self, sent: u64, now: Moment) {
        let (since, before) = *self.mark.get_or_insert((now, sent));
        let took = now.since(since);
        if took < UPLOAD_REPORT_INTERVAL {
            return;
        }

        let bits = sent.saturating_sub(before).saturating_mul(8) as f64;
        self.rate = Rate((bits / took.as_secs_f64()) as u64);
        if took >= UPLOAD_RATE_WINDOW {
            // The next one begins in the middle, so that the rate is never that of a moment.
            self.mark = Some((since + took / 2, before + sent.saturating_sub(before) / 2));
        }
    }
}
