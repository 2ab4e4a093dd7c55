//! A request for an ad hoc release, in its wire form on a socket.

use serde::{Deserialize, Serialize};

use crate::id::TreeName;
use crate::manifest::ReleaseMessage;
use crate::units::Limit;

/// Action on the paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AdhocAction {
    /// Put the paths on the other hosts.
    Send,
    /// Put the paths on the other hosts and delete extra ones there.
    Sync,
    /// Only delete extra paths on the other hosts.
    Prune,
    /// Compare the content.
    Check,
}

/// A request for an ad hoc release of a tree of this host.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdhocRequest {
    /// Action on the paths.
    #[serde(rename = "deed")]
    pub action: AdhocAction,
    /// The tree; by default the one with an absolute path in it, the only one, or `default`.
    pub tree: Option<TreeName>,
    /// Absolute paths, or paths from the tree's directory, with wildcards; empty for the whole
    /// tree.
    #[serde(with = "words")]
    pub paths: Vec<Vec<u8>>,
    /// Whether directories include their content.
    pub recurse: bool,
    /// Only report changes.
    pub dry_run: bool,
    /// Globs on host names; empty for every host with the tree.
    pub targets: Vec<String>,
    /// Lines of .gitignore, relative to the tree's directory.
    pub excludes: Vec<String>,
    /// Group of every entry on the hosts; by default the same as here.
    pub group: Option<String>,
    /// Read every file again, on both sides.
    pub checksum: bool,
    /// Largest number of deletions on one host; by default the spec's for a whole tree, no limit
    /// for named paths.
    #[serde(default, with = "limit")]
    pub max_delete: Option<Limit>,
    /// Fetch each host's list of differences, even for a deploy.
    pub lists: bool,
    /// Report the files of the release.
    pub files: bool,
    /// Path in the tree to which the only path goes on the hosts, this one among them; with a slash
    /// at its end the directory for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Vec<u8>>,
    /// What the release changes, in its author's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<ReleaseMessage>,
}

impl AdhocRequest {
    /// A request for the whole tree with default settings.
    pub fn new(action: AdhocAction) -> Self {
        Self {
            action,
            tree: None,
            paths: Vec::new(),
            recurse: false,
            dry_run: false,
            targets: Vec::new(),
            excludes: Vec::new(),
            group: None,
            checksum: action == AdhocAction::Check,
            max_delete: None,
            lists: false,
            files: false,
            to: None,
            message: None,
        }
    }
}

/// Paths as text if UTF-8.
mod words {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum PathText {
        Text(String),
        Bytes(Vec<u8>),
    }

    pub(super) fn serialize<S: Serializer>(words: &[Vec<u8>], to: S) -> Result<S::Ok, S::Error> {
        let word = |w: &Vec<u8>| match std::str::from_utf8(w) {
            Ok(text) => PathText::Text(text.to_string()),
            Err(_) => PathText::Bytes(w.clone()),
        };
        to.collect_seq(words.iter().map(word))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<Vec<u8>>, D::Error> {
        let bytes = |word| match word {
            PathText::Text(text) => text.into_bytes(),
            PathText::Bytes(bytes) => bytes,
        };

        Ok(Vec::<PathText>::deserialize(from)?
            .into_iter()
            .map(bytes)
            .collect())
    }
}

/// A limit in its text form.
mod limit {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::units::Limit;

    pub(super) fn serialize<S: Serializer>(
        limit: &Option<Limit>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        limit.map(|l| l.to_string()).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Limit>, D::Error> {
        Option::<String>::deserialize(from)?
            .map(|text| text.parse().map_err(D::Error::custom))
            .transpose()
    }
}
