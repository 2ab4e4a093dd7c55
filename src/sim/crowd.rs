//! All hosts of a network, which handle a datagram to many of them on several threads.

use super::host::{Reaction, SimHost};
use super::node::NodeId;
use crate::units::Moment;

/// Number of hosts that justify a thread for a datagram to all.
const HOSTS_A_THREAD: usize = 500;

/// All hosts of a network.
pub(super) struct Crowd {
    hosts: Vec<SimHost>,
    /// Reused buffer for the hosts' reactions to a datagram.
    reactions: Vec<Reaction>,
    threads: usize,
}

impl Crowd {
    /// Creates a crowd of these hosts.
    pub(super) fn new(hosts: Vec<SimHost>) -> Self {
        Self {
            hosts,
            reactions: Vec::new(),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }

    /// Number of hosts.
    pub(super) fn len(&self) -> usize {
        self.hosts.len()
    }

    /// Returns host `number`, from 1.
    pub(super) fn get(&mut self, number: usize) -> &mut SimHost {
        &mut self.hosts[number - 1]
    }

    /// Lets hosts, in ascending order, handle a datagram, and returns their reactions in the same
    /// order.
    pub(super) fn take(
        &mut self,
        now: Moment,
        to: &[NodeId],
        from: NodeId,
        bytes: &[u8],
    ) -> Vec<Reaction> {
        let mut reactions = std::mem::take(&mut self.reactions);
        reactions.resize(to.len(), Reaction::Nothing);
        let share = to.len().div_ceil(self.threads).max(HOSTS_A_THREAD);

        std::thread::scope(|scope| {
            let mut rest = &mut self.hosts[..];
            let mut first = 1;
            let mut parts = to.chunks(share).zip(reactions.chunks_mut(share)).peekable();

            while let Some((nodes, then)) = parts.next() {
                let end = nodes.last().map_or(0, |last| last.index() + 1) - first;
                let (part, others) = std::mem::take(&mut rest).split_at_mut(end);
                let offset = first;
                first += end;
                rest = others;
                let work = move || {
                    for (node, then) in nodes.iter().zip(then) {
                        *then = part[node.index() - offset].take(now, from.address(), bytes);
                    }
                };

                // This thread takes the last part.
                match parts.peek() {
                    Some(_) => drop(scope.spawn(work)),
                    None => work(),
                }
            }
        });

        reactions
    }

    /// Takes the buffer of reactions back.
    pub(super) fn reuse(&mut self, reactions: Vec<Reaction>) {
        self.reactions = reactions;
    }
}
