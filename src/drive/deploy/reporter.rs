//! Events of a session for the observer, each reported once.

use std::collections::BTreeSet;
use std::time::Duration;

use super::narrate;
use super::progress::ProgressMeter;
use super::results::Timeline;
use super::source::PreparedRelease;
use crate::id::NamedHost;
use crate::outcome::{Event, HostChange, HostState, Observer};
use crate::proto::sender::Sender;
use crate::proto::sender::hosts::Host;
use crate::units::Moment;

/// Interval of progress reports.
pub(super) const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);
/// Largest number of reported reasons for a host's wait.
const MAX_WAITS: usize = 16;

/// Reports a session to the observer.
pub(super) struct SessionReporter<'a> {
    observer: &'a mut dyn Observer,
    timeline: Timeline,
    meter: ProgressMeter,
    /// Time of the last progress report.
    reported: Moment,
    /// Reported reasons for a host's wait.
    waits: BTreeSet<String>,
}

impl<'a> SessionReporter<'a> {
    /// A reporter of a session since `began`.
    pub(super) fn new(observer: &'a mut dyn Observer, began: Moment, meter: ProgressMeter) -> Self {
        Self {
            observer,
            timeline: Timeline::new(began),
            meter,
            reported: began,
            waits: BTreeSet::new(),
        }
    }

    /// Times of the session.
    pub(super) fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    /// Reports an event.
    pub(super) fn event(&mut self, event: &Event) {
        self.observer.event(event);
    }

    /// Reports a line for people.
    pub(super) fn note(&mut self, text: impl Into<String>) {
        self.observer.event(&Event::Note(text.into()));
    }

    /// Reports lines for people.
    pub(super) fn notes(&mut self, texts: impl IntoIterator<Item = String>) {
        texts.into_iter().for_each(|text| self.note(text));
    }

    /// Reports the facts of the source, with all paths if `listed`.
    pub(super) fn source(&mut self, facts: &PreparedRelease, listed: bool) {
        self.meter.on_scanned();
        if let Some(scanned) = facts.scanned {
            self.event(&Event::Scanned(scanned));
        }

        if listed {
            self.event(&Event::Files(facts.files.clone()));
        }

        self.notes(facts.notes.iter().cloned());
    }

    /// Records the announcement.
    pub(super) fn announced(&mut self, now: Moment) {
        self.timeline.announced(now);
    }

    /// Reports the state of a host, if new.
    pub(super) fn state(
        &mut self,
        machine: &Sender,
        now: Moment,
        host: &Host,
        state: HostState,
        error: Option<String>,
    ) {
        let key = (host.name.clone(), host.address.ip());
        if self.timeline.reached(key, state, now) {
            let NamedHost {
                name: host,
                address,
            } = machine.shown(host);
            self.observer.event(&Event::Host(HostChange {
                host,
                address,
                state,
                error,
            }));
        }
    }

    /// Reports each reason for a host's wait once.
    pub(super) fn wait(&mut self, machine: &Sender, host: &Host) {
        let Some(reason) = narrate::waits_for(host) else {
            return;
        };

        if self.waits.len() < MAX_WAITS && self.waits.insert(reason.to_string()) {
            self.note(format!("{}: {reason}", machine.shown(host)));
        }
    }

    /// Reports the progress of the session, in intervals.
    pub(super) fn progress(&mut self, machine: &Sender, now: Moment) {
        if now.since(self.reported) < PROGRESS_INTERVAL {
            return;
        }

        self.reported = now;
        if let Some(progress) = self.meter.snapshot(machine, now) {
            self.event(&Event::Progress(progress));
        }
    }
}
