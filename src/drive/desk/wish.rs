//! What somebody wants of a tree of this host, as it is said at a socket.

use serde::{Deserialize, Serialize};

use crate::id::TreeName;
use crate::units::Limit;

/// What is to be done with the paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Deed {
    /// Put them on the others.
    Send,
    /// The same, and delete what is extra there.
    Sync,
    /// Only delete what is extra there.
    Prune,
    /// Compare the content.
    Check,
}

/// What somebody wants of a tree of this host.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wish {
    /// What is to be done.
    pub deed: Deed,
    /// The tree; none: the one that holds an absolute path, or the only one, or `default`.
    pub tree: Option<TreeName>,
    /// Paths from the tree's directory, or absolute, with wildcards; none is all of it.
    #[serde(with = "words")]
    pub paths: Vec<Vec<u8>>,
    /// Whether directories are meant with what is in them.
    pub recurse: bool,
    /// Whether it is only told what would change.
    pub dry_run: bool,
    /// Globs on host names; none is every host that has the tree.
    pub targets: Vec<String>,
    /// Lines of .gitignore from the tree's directory.
    pub excludes: Vec<String>,
    /// The group that everything gets on the hosts; none: as it is here.
    pub group: Option<String>,
    /// Whether every file is read again, here and there.
    pub checksum: bool,
    /// The most deletions on one host; none: as a spec has it for a whole tree, no limit for paths that were named.
    #[serde(default, with = "limit")]
    pub max_delete: Option<Limit>,
    /// Whether the outcome has the list of what differed, also of a release that is put.
    pub lists: bool,
    /// Whether the files of the release are told.
    pub files: bool,
}

impl Wish {
    /// All of the tree, with nothing special about it.
    pub fn new(deed: Deed) -> Self {
        Self {
            deed,
            tree: None,
            paths: Vec::new(),
            recurse: false,
            dry_run: false,
            targets: Vec::new(),
            excludes: Vec::new(),
            group: None,
            checksum: deed == Deed::Check,
            max_delete: None,
            lists: false,
            files: false,
        }
    }
}

/// Paths as text where they are UTF-8.
mod words {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Word {
        Text(String),
        Bytes(Vec<u8>),
    }

    pub(super) fn serialize<S: Serializer>(words: &[Vec<u8>], to: S) -> Result<S::Ok, S::Error> {
        let word = |w: &Vec<u8>| match std::str::from_utf8(w) {
            Ok(text) => Word::Text(text.to_string()),
            Err(_) => Word::Bytes(w.clone()),
        };
        to.collect_seq(words.iter().map(word))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<Vec<u8>>, D::Error> {
        let bytes = |word| match word {
            Word::Text(text) => text.into_bytes(),
            Word::Bytes(bytes) => bytes,
        };

        Ok(Vec::<Word>::deserialize(from)?
            .into_iter()
            .map(bytes)
            .collect())
    }
}

/// A limit as people write it.
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
