//! Message that tells a host whom to pass data on to, where multicast does not reach all hosts.
//!
//! The sender divides the hosts of its session into groups. A train goes to one host, its relay.
//! The relay passes it on to its own group and to one host of each other group, the head. Heads
//! pass it on within their groups. So no host sends more copies than there are groups and members
//! of its own.
//!
//! Where nothing comes from a relay to a head, a third host helps: it has the relay among its own
//! ones and the head in its group, and the relay leaves the head out.
//!
//! Hosts that read tags get lists of them: three bytes for a host instead of nine. A tag is a hash
//! of the host under a key that depends on the session, so nobody can choose two hosts with one tag
//! beforehand. Two hosts may have one tag by chance. Then one of them gets some datagrams twice,
//! and none is lost.

use std::collections::BTreeSet;

use minicbor::bytes::ByteSlice;
use minicbor::decode::Error as DecodeError;
use minicbor::encode::{Error as EncodeError, Write};
use minicbor::{Decode, Decoder, Encode, Encoder};

use super::caps::within;
use crate::id::{InstanceId, SessionId};

/// Largest number of groups, of hosts in one, and of relays with one head.
const MAX_RELAY_TARGETS: usize = 4_096;
/// Bytes of a tag.
const HOST_TAG_BYTES: usize = 3;
/// Odd number that spreads the bits of sessions with low numbers.
const KEY_MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// Hosts that one host passes data on to.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct RelayTargets {
    /// The session.
    #[n(0)]
    pub session: SessionId,
    /// Number of this list among those of the session, from 1. The last one that arrives holds; a
    /// host states its number, and the sender repeats its own list until that is the number.
    #[n(1)]
    pub number: u32,
    /// One host of each other group, but those that a third host serves. They get what the sender
    /// sent to this host.
    #[n(2)]
    pub heads: Vec<InstanceId>,
    /// All hosts of the group of this host, itself among them, and the host that it helps; with
    /// `multicast` itself alone. They get what the sender sent to this host, and what one of
    /// `relays` sent to it.
    #[n(3)]
    pub group: Vec<InstanceId>,
    /// Hosts of other groups for which this host is the head, and those whose place it takes at the
    /// host that it helps, sorted.
    #[n(4)]
    pub relays: Vec<InstanceId>,
    /// Whether multicast reaches the group.
    #[n(5)]
    pub multicast: bool,
    /// The three lists for a host that reads tags; the other ones are empty then.
    #[n(6)]
    pub tags: Option<RelayTags>,
}

/// The lists of [`RelayTargets`] with tags.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct RelayTags {
    /// See [`RelayTargets::heads`].
    #[n(0)]
    pub heads: TagList,
    /// See [`RelayTargets::group`].
    #[n(1)]
    pub group: TagList,
    /// See [`RelayTargets::relays`].
    #[n(2)]
    pub relays: TagList,
}

/// Tag of a host in a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostTag(u32);

/// Tags in one string of bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TagList(pub Vec<HostTag>);

impl HostTag {
    /// Returns the tag of a host: the upper bits of the product with a random odd number, which
    /// two hosts share with a chance of at most one in 2^23.
    pub fn of(session: SessionId, host: InstanceId) -> Self {
        let key = session.0.wrapping_mul(KEY_MULTIPLIER) | 1;
        let bits = u64::BITS - 8 * HOST_TAG_BYTES as u32;
        Self((host.0.wrapping_mul(key) >> bits) as u32)
    }

    fn to_bytes(self) -> [u8; HOST_TAG_BYTES] {
        let [_, bytes @ ..] = self.0.to_be_bytes();
        bytes
    }

    fn from_bytes([high, middle, low]: [u8; HOST_TAG_BYTES]) -> Self {
        Self(u32::from_be_bytes([0, high, middle, low]))
    }
}

impl RelayTargets {
    /// Returns whether this host passes on to its group what the host `relay` sent to it.
    pub fn is_head(&self, relay: InstanceId) -> bool {
        match &self.tags {
            Some(tags) => {
                let tag = HostTag::of(self.session, relay);
                tags.relays.0.binary_search(&tag).is_ok()
            }
            None => self.relays.binary_search(&relay).is_ok(),
        }
    }

    /// Number of hosts in the list `group`.
    pub fn group_len(&self) -> usize {
        let tags = self.tags.as_ref();
        tags.map_or(self.group.len(), |tags| tags.group.0.len())
    }

    /// Returns the lists with tags.
    pub fn tags(&self) -> RelayTags {
        self.tags.clone().unwrap_or_else(|| RelayTags {
            heads: self.tags_of(&self.heads),
            group: self.tags_of(&self.group),
            relays: self.tags_of(&self.relays).sorted(),
        })
    }

    /// Replaces the lists by those with tags.
    pub fn into_tagged(self) -> Self {
        Self {
            tags: Some(self.tags()),
            heads: Vec::new(),
            group: Vec::new(),
            relays: Vec::new(),
            ..self
        }
    }

    /// Returns the tags of `hosts`, each once.
    fn tags_of(&self, hosts: &[InstanceId]) -> TagList {
        let mut known = BTreeSet::new();
        let tags = hosts.iter().map(|host| HostTag::of(self.session, *host));
        TagList(tags.filter(|tag| known.insert(*tag)).collect())
    }

    pub(super) fn check(&self) -> Result<(), String> {
        check_lists(&self.heads, &self.group, &self.relays)?;
        match &self.tags {
            Some(tags) => check_lists(&tags.heads.0, &tags.group.0, &tags.relays.0),
            None => Ok(()),
        }
    }
}

/// Checks the lists of one message.
fn check_lists<H: Ord>(heads: &[H], group: &[H], relays: &[H]) -> Result<(), String> {
    let most = heads.len().max(group.len()).max(relays.len());
    within(
        most <= MAX_RELAY_TARGETS,
        "too many hosts to pass data on to",
    )?;
    within(relays.is_sorted(), "unsorted relays")?;
    let distinct = |hosts: &[H]| hosts.iter().collect::<BTreeSet<_>>().len() == hosts.len();
    within(
        distinct(heads) && distinct(group),
        "a host twice among those to pass data on to",
    )
}

impl TagList {
    fn sorted(mut self) -> Self {
        self.0.sort_unstable();
        self
    }
}

impl<C> Encode<C> for TagList {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), EncodeError<W::Error>> {
        let bytes: Vec<u8> = self.0.iter().flat_map(|tag| tag.to_bytes()).collect();
        e.bytes(&bytes)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for TagList {
    fn decode(d: &mut Decoder<'b>, context: &mut C) -> Result<Self, DecodeError> {
        let bytes: &ByteSlice = d.decode_with(context)?;
        let (tags, []) = bytes.as_chunks() else {
            return Err(DecodeError::message("a part of a tag"));
        };
        Ok(Self(
            tags.iter().copied().map(HostTag::from_bytes).collect(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::Message;

    fn targets(relays: &[u64]) -> RelayTargets {
        RelayTargets {
            session: SessionId(1),
            number: 1,
            heads: vec![InstanceId(7)],
            group: vec![InstanceId(1), InstanceId(2)],
            relays: relays.iter().copied().map(InstanceId).collect(),
            multicast: false,
            tags: None,
        }
    }

    fn is_refused(targets: RelayTargets) -> bool {
        Message::decode(&Message::Targets(targets).encode()).is_err()
    }

    #[test]
    fn targets_come_back_and_bad_ones_are_refused() {
        let good = Message::Targets(targets(&[3, 9, 40]));
        assert_eq!(Message::decode(&good.encode()), Ok(good));
        assert!(targets(&[3, 9, 40]).is_head(InstanceId(9)));
        assert!(!targets(&[3, 9, 40]).is_head(InstanceId(4)));

        assert!(is_refused(targets(&[9, 3])));
        let twice = RelayTargets {
            heads: vec![InstanceId(7); 2],
            ..targets(&[])
        };
        assert!(is_refused(twice));
        let many: Vec<u64> = (0..=MAX_RELAY_TARGETS as u64).collect();
        assert!(is_refused(targets(&many)));
    }

    #[test]
    fn bad_tags_are_refused() {
        let tagged = targets(&[3, 9, 40]).into_tagged();
        assert!(!is_refused(tagged.clone()));
        let with = |change: &dyn Fn(&mut RelayTags)| {
            let mut tagged = tagged.clone();
            tagged.tags.iter_mut().for_each(change);
            tagged
        };

        assert!(is_refused(with(&|tags| tags.relays.0.reverse())));
        assert!(is_refused(with(
            &|tags| tags.group.0 = tags.heads.0.repeat(2)
        )));
        let many: Vec<_> = (0..=MAX_RELAY_TARGETS as u32).map(HostTag).collect();
        assert!(is_refused(with(&|tags| tags.group.0 = many.clone())));

        let mut bytes = Message::Targets(tagged).encode();
        let last = bytes.len() - 3 * HOST_TAG_BYTES - 1;
        assert_eq!(bytes[last], 0x40 | 9);
        bytes[last] -= 1;
        bytes.pop();
        assert!(Message::decode(&bytes).is_err(), "a part of a tag");
    }

    proptest! {
        #[test]
        fn tags_stand_for_their_hosts_in_a_third_of_the_bytes(
            session: u64,
            heads in prop::collection::btree_set(any::<u64>(), 8..40),
            group in prop::collection::btree_set(any::<u64>(), 8..40),
            relays in prop::collection::btree_set(any::<u64>(), 8..40),
            other: u64,
        ) {
            let ids = |hosts: &BTreeSet<u64>| hosts.iter().copied().map(InstanceId).collect();
            let full = RelayTargets {
                session: SessionId(session),
                heads: ids(&heads),
                group: ids(&group),
                relays: ids(&relays),
                ..targets(&[])
            };
            let tagged = full.clone().into_tagged();
            prop_assert_eq!(tagged.tags(), full.tags());
            prop_assert!(relays.iter().all(|relay| tagged.is_head(InstanceId(*relay))));

            let tag = |host: &u64| HostTag::of(SessionId(session), InstanceId(*host));
            let has_tag = relays.iter().any(|relay| tag(relay) == tag(&other));
            prop_assert_eq!(tagged.is_head(InstanceId(other)), has_tag);

            let (full, tagged) = (Message::Targets(full), Message::Targets(tagged));
            let (long, short) = (full.encode(), tagged.encode());
            prop_assert!(short.len() < long.len() / 3 + 24, "{} of {}", short.len(), long.len());
            prop_assert_eq!(Message::decode(&short), Ok(tagged));
        }

        #[test]
        fn few_hosts_share_a_tag(session: u64, seed: u64) {
            let mut rng = fastrand::Rng::with_seed(seed);
            let hosts = (0..2_000).map(|_| InstanceId(rng.u64(..)));
            let tags: BTreeSet<_> = hosts.map(|host| HostTag::of(SessionId(session), host)).collect();
            prop_assert!(tags.len() >= 1_990, "{} tags", tags.len());
        }
    }

    /// Targets of makuo without tags.
    #[derive(Encode, Decode, Debug, PartialEq)]
    struct EarlierTargets {
        #[n(0)]
        session: SessionId,
        #[n(1)]
        number: u32,
        #[n(2)]
        heads: Vec<InstanceId>,
        #[n(3)]
        group: Vec<InstanceId>,
        #[n(4)]
        relays: Vec<InstanceId>,
        #[n(5)]
        multicast: bool,
    }

    #[test]
    fn earlier_targets_are_read_and_read_later_ones() {
        let now = targets(&[3, 9]);
        let earlier = EarlierTargets {
            session: now.session,
            number: now.number,
            heads: now.heads.clone(),
            group: now.group.clone(),
            relays: now.relays.clone(),
            multicast: now.multicast,
        };
        let bytes = crate::manifest::node::to_vec(&earlier);
        assert_eq!(minicbor::decode(&bytes).ok(), Some(now.clone()));
        let bytes = crate::manifest::node::to_vec(&now);
        assert_eq!(minicbor::decode(&bytes).ok(), Some(earlier));
    }
}
