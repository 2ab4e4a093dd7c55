//! Log of a simulation: observations of its sender, hosts and datagrams.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::feedback::Feedback;
use super::recording::Recording;
use super::sent_messages::SentMessages;
use super::setup::Observations;
use super::wires::Passing;
use crate::proto::Dest;
use crate::proto::sender::SenderNotice;
use crate::units::Moment;
use crate::wire::Datagram;

/// Observations of a simulation.
#[derive(Debug, Default)]
pub struct NetworkLog {
    /// Notices of the sender, in order.
    pub notices: Vec<SenderNotice>,
    /// Time at which the sender learned that a host (from 1) is ready.
    pub ready: BTreeMap<usize, Moment>,
    /// Largest number of bytes that a host held at any time, if tracked.
    pub most_held: usize,
    /// All datagrams, if recorded.
    pub recording: Recording,
    /// Longest time between two control messages of the sender to all, since its announcement.
    pub longest_pause: Duration,
    /// Time of the last such message.
    last_control: Option<Moment>,
    pub(super) feedback: Feedback,
    /// Messages of a sender without multicast.
    pub sent_messages: SentMessages,
}

impl NetworkLog {
    /// Takes the first announcement.
    pub(super) fn on_announced(&mut self, now: Moment) {
        self.last_control = Some(now);
    }

    /// Takes a datagram as sent by its node.
    pub(super) fn on_sent(
        &mut self,
        now: Moment,
        datagram: &Passing,
        dest: Dest,
        observe: Observations,
    ) {
        let Passing { from, bytes } = datagram;
        if observe.datagrams {
            self.recording.push(*from, Arc::clone(bytes));
        }

        if from.is_sender()
            && dest == Dest::Group
            && matches!(Datagram::parse(bytes), Ok(Datagram::Control(..)))
            && let Some(last) = &mut self.last_control
        {
            self.longest_pause = self.longest_pause.max(now.since(*last));
            *last = now;
        }
    }
}
