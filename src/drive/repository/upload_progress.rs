//! Progress of a publication: how much of the new content the store has taken.

use std::time::Duration;

use crate::drive::rate_window::RateWindow;
use crate::outcome::{Event, Observer, ProgressReport, SessionPhase};
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
    /// Time of the first report.
    began: Option<Moment>,
    reported: Option<Moment>,
    window: RateWindow,
}

impl UploadProgress {
    /// Nothing reported yet.
    pub(super) fn new(store: Store) -> Self {
        Self {
            before: store.sent(),
            store,
            began: None,
            reported: None,
            window: RateWindow::new(UPLOAD_RATE_WINDOW),
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
        self.window.add(now, sent);
        let began = *self.began.get_or_insert(now);
        let measured = self.window.rate();
        let left = measured.filter(|rate| rate.0 > 0 && sent < layout.total);

        observer.event(&Event::Progress(ProgressReport {
            phase: SessionPhase::Publishing,
            sent: ByteSize(sent),
            total: ByteSize(layout.total),
            rate: measured.unwrap_or(Rate(0)),
            measured,
            left: left.map(|rate| rate.time_for(layout.total - sent)),
            elapsed: now.since(began),
            repaired: 0,
            ready: 0,
            targets: 0,
            waiting: 0,
            pending: Vec::new(),
        }));
    }

    /// Time of the next report at the latest, with the machine's own timeout.
    pub(super) fn next_report(&self, until: Option<Moment>, now: Moment) -> Option<Moment> {
        let next = self.reported.map(|_| now + UPLOAD_REPORT_INTERVAL);
        until.into_iter().chain(next).min()
    }
}
