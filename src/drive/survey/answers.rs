//! The answers of all hosts, and the tombstones in the answers.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::id::{HostName, Labels, NamedHost, TreeName};
use crate::manifest::ReleaseId;
use crate::wire::message::Tombstone;
use crate::wire::query::{QueryAnswer, TreeReport};

/// A host with an answer or a beacon. A daemon passes it to a command as JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HostAnswer {
    pub(super) host: HostName,
    /// Name, with the address if another host has the same name.
    pub(super) named: NamedHost,
    pub(super) address: SocketAddr,
    /// Labels by the beacon, else by the answer.
    #[serde(default)]
    pub(super) labels: Labels,
    /// Trees named by the beacon.
    pub(super) trees: Vec<TreeName>,
    /// Answer to the query; an old makuo sends none.
    #[serde(with = "as_message")]
    pub(super) answer: Option<QueryAnswer>,
}

/// An answer in JSON: the message of the wire, in base64.
mod as_message {
    use base64ct::{Base64, Encoding};
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::wire::Message;
    use crate::wire::query::QueryAnswer;

    pub(super) fn serialize<S: Serializer>(
        answer: &Option<QueryAnswer>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        let bytes = |answer: &QueryAnswer| Message::Answer(answer.clone()).encode();
        let text = answer.as_ref().map(|a| Base64::encode_string(&bytes(a)));
        text.serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<QueryAnswer>, D::Error> {
        let Some(text) = Option::<String>::deserialize(from)? else {
            return Ok(None);
        };
        let bytes = Base64::decode_vec(&text).map_err(D::Error::custom)?;
        match Message::decode(&bytes) {
            Ok(Message::Answer(answer)) => Ok(Some(answer)),
            _ => Err(D::Error::custom("no answer of a host")),
        }
    }
}

impl HostAnswer {
    /// A host with a unique name.
    pub(super) fn new(
        host: HostName,
        (address, labels): (SocketAddr, Labels),
        trees: Vec<TreeName>,
        answer: Option<QueryAnswer>,
    ) -> Self {
        Self {
            named: host.clone().into(),
            host,
            address,
            labels,
            trees,
            answer,
        }
    }

    /// Labels of the host.
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// Name of the host.
    pub fn host(&self) -> &HostName {
        &self.host
    }

    /// What the host says of an order: followed, or the reason why not. `None` without a word, as
    /// from an older makuo.
    pub fn followed(&self) -> Option<Result<(), &str>> {
        let answer = self.answer.as_ref()?;
        match (answer.followed?, &answer.refusal) {
            (true, _) => Some(Ok(())),
            (false, why) => Some(Err(why.as_deref().unwrap_or("no reason"))),
        }
    }

    /// Returns whether the host answered.
    pub fn has_answered(&self) -> bool {
        self.answer.is_some()
    }

    /// The host's report about `tree`, if any.
    pub(super) fn report(&self, tree: &TreeName) -> Option<&TreeReport> {
        self.answer.as_ref()?.trees.iter().find(|t| t.tree == *tree)
    }
}

/// Adds addresses to hosts of the same name, which are neighbours in the list.
pub(super) fn add_addresses(hosts: &mut [HostAnswer]) {
    for same in hosts.chunk_by_mut(|a, b| a.host == b.host) {
        let first = same.first().map(|host| host.address.ip());
        if same.iter().any(|host| Some(host.address.ip()) != first) {
            same.iter_mut()
                .for_each(|host| host.named.address = Some(host.address.ip()));
        }
    }
}

/// Reported tombstones by tree and release.
pub(super) type ReportedTombstones<'a> = BTreeMap<(&'a TreeName, ReleaseId), Tombstone>;

/// All reported tombstones; a revert outweighs an abort.
pub(super) fn tombstones(hosts: &[HostAnswer]) -> ReportedTombstones<'_> {
    let mut stones = BTreeMap::new();
    for report in hosts
        .iter()
        .filter_map(|h| h.answer.as_ref())
        .flat_map(|answer| &answer.trees)
    {
        for stone in report.tombstones.iter().flatten() {
            let known: &mut Tombstone = stones
                .entry((&report.tree, stone.release))
                .or_insert(*stone);
            known.revert |= stone.revert;
        }
    }

    stones
}
