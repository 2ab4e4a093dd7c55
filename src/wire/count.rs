//! Datagrams that hosts count, and the questions for their counts: the measurements of a path,
//! outside of any session.
//!
//! A run is numbered by the process that measures, and has trains: datagrams sent in the same way
//! and at the same rate. An answer is never larger than its question.

use minicbor::{Decode, Encode};

use super::caps::within;
use crate::id::InstanceId;

/// Bytes of padding of a question: more than an answer has in all.
pub const COUNT_PADDING: usize = 80;
/// Fewest bytes of padding that a host answers to.
const MIN_COUNT_PADDING: usize = 64;

/// A datagram that hosts count.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct CountedProbe {
    /// Number of the run.
    #[n(0)]
    pub run: u64,
    /// Train within the run.
    #[n(1)]
    pub train: u8,
    /// Number of the datagram within the train, from 0.
    #[n(2)]
    pub number: u32,
    /// Size of the whole datagram in bytes, before it is sealed.
    #[n(3)]
    pub size: u16,
    /// Padding up to the size.
    #[n(4)]
    #[cbor(with = "minicbor::bytes")]
    pub padding: Vec<u8>,
}

/// Question for the counts of a train.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct CountRequest {
    /// Number of the run.
    #[n(0)]
    pub run: u64,
    /// Train within the run.
    #[n(1)]
    pub train: u8,
    /// Number of the question; the answer repeats it.
    #[n(2)]
    pub number: u32,
    /// Process that answers; `None` for every host.
    #[n(3)]
    pub host: Option<InstanceId>,
    /// Whether the answer goes to the group: the way back by multicast. Only for one host.
    #[n(4)]
    pub by_group: bool,
    /// Makes the question larger than its answer.
    #[n(5)]
    #[cbor(with = "minicbor::bytes")]
    pub padding: Vec<u8>,
}

/// Counts of a train at one host.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ProbeCounts {
    /// Number of the run.
    #[n(0)]
    pub run: u64,
    /// Train within the run.
    #[n(1)]
    pub train: u8,
    /// Number of the question.
    #[n(2)]
    pub number: u32,
    /// Whether this answer went to the group.
    #[n(3)]
    pub by_group: bool,
    /// Different datagrams that arrived.
    #[n(4)]
    pub arrived: u32,
    /// Datagrams that arrived once more.
    #[n(5)]
    pub repeated: u32,
    /// Datagrams that arrived after a later one.
    #[n(6)]
    pub late: u32,
    /// Size of the largest datagram in bytes, before it was sealed; 0 for none.
    #[n(7)]
    pub largest: u16,
    /// Packets that the host's receive buffer lost since its start.
    #[n(8)]
    pub dropped: u64,
}

impl CountRequest {
    /// Returns whether the question is at least as large as its answer.
    pub fn is_padded(&self) -> bool {
        self.padding.len() >= MIN_COUNT_PADDING
    }

    /// Refuses an answer of all hosts to the group.
    pub(super) fn check(&self) -> Result<(), String> {
        let is_bounded = !self.by_group || self.host.is_some();
        within(is_bounded, "an answer of every host to the group")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Message;

    fn request(padding: usize) -> CountRequest {
        CountRequest {
            run: 0,
            train: 0,
            number: 0,
            host: None,
            by_group: false,
            padding: vec![0; padding],
        }
    }

    #[test]
    fn an_answer_is_never_larger_than_its_question() {
        let answer = ProbeCounts {
            run: u64::MAX,
            train: u8::MAX,
            number: u32::MAX,
            by_group: true,
            arrived: u32::MAX,
            repeated: u32::MAX,
            late: u32::MAX,
            largest: u16::MAX,
            dropped: u64::MAX,
        };
        let answer = Message::Counts(answer).encode();
        let smallest = request(MIN_COUNT_PADDING);
        assert!(smallest.is_padded() && !request(MIN_COUNT_PADDING - 1).is_padded());
        assert!(Message::CountAsk(smallest).encode().len() >= answer.len());
        assert!(request(COUNT_PADDING).is_padded());
    }

    #[test]
    fn no_question_makes_every_host_answer_to_the_group() {
        let asked = |host: Option<u64>, by_group: bool| {
            let ask = CountRequest {
                host: host.map(InstanceId),
                by_group,
                ..request(COUNT_PADDING)
            };
            Message::decode(&Message::CountAsk(ask).encode()).is_ok()
        };
        assert!(asked(None, false) && asked(Some(7), true) && asked(Some(7), false));
        assert!(!asked(None, true));
    }
}
