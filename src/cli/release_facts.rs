//! What `makuo show` says of a release: lines for people, one object for scripts.

use serde::Serialize;

use crate::drive::kept::KeptContent;
use crate::id::TreeName;
use crate::keys::{PublicKey, shown_time};
use crate::manifest::ReleaseMessage;
use crate::outcome::LogRelease;
use crate::report::{ReleaseSummary, words};
use crate::units::{ByteSize, WallTime, printable};

/// Facts of a release; of one that only other hosts keep, those that they tell.
#[derive(Default, Serialize)]
pub(super) struct ReleaseFacts {
    tree: String,
    release: String,
    #[serde(flatten)]
    summary: ReleaseSummary,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<ReleaseMessage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sender: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rollback_to: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<i64>,
    /// Paths of a part.
    scope: Vec<String>,
    /// Patterns of the hosts that it is for; empty for all.
    targets: Vec<String>,
}

impl ReleaseFacts {
    /// Facts of a release that is read here; without a key its signature does not hold.
    pub(super) fn of(content: &KeptContent, key: Option<&PublicKey>) -> Self {
        let release = content.release();
        let header = release.header();

        Self {
            tree: header.tree.to_string(),
            release: release.id().to_string(),
            summary: ReleaseSummary {
                serial: header.serial.0,
                created: header.created.0,
                key: key.map(|key| key.fingerprint().to_string()),
                entries: header.root.entries,
                bytes: header.root.bytes,
                part: !header.is_whole(),
                ..ReleaseSummary::default()
            },
            message: header.message.clone(),
            sender: header.sender.as_ref().map(ToString::to_string),
            rollback_to: header.again.map(|serial| serial.0),
            expires: header.expires.map(|time| time.0),
            scope: header.scope.iter().map(ToString::to_string).collect(),
            targets: header.targets.clone(),
        }
    }

    /// Facts of a release of `tree` by the hosts that keep it.
    pub(super) fn told(tree: &TreeName, release: &LogRelease) -> Self {
        Self {
            tree: tree.to_string(),
            release: release.id.to_string(),
            summary: ReleaseSummary::of(release),
            message: release.message.clone(),
            targets: release.targets.clone().unwrap_or_default(),
            ..Self::default()
        }
    }

    /// Lines for people, one for each fact.
    pub(super) fn describe(&self) -> String {
        let message = self.message.as_ref().map(ToString::to_string);
        let title = format!(
            "{}@{}  {}",
            self.tree,
            self.summary.serial,
            message.unwrap_or_default()
        );
        let time = |seconds: i64| shown_time(WallTime(seconds));
        let made = match &self.sender {
            Some(sender) => format!(
                "{} on {}",
                time(self.summary.created),
                printable(sender.as_bytes())
            ),
            None => time(self.summary.created),
        };
        let key = match &self.summary.key {
            Some(key) => printable(key.as_bytes()),
            None => "its signature does not hold".to_string(),
        };
        let entries = words::plural_count(self.summary.entries, "entry", "entries");
        let list = |words: &[String]| {
            let shown: Vec<String> = words
                .iter()
                .map(|word| printable(word.as_bytes()))
                .collect();
            shown.join(", ")
        };

        let facts = [
            ("identity", self.release.clone()),
            ("made", made),
            ("key", key),
            (
                "back to",
                self.rollback_to
                    .map_or(String::new(), |to| format!("{}@{to}", self.tree)),
            ),
            ("expires", self.expires.map_or(String::new(), time)),
            (
                "content",
                format!("{entries}, {}", ByteSize(self.summary.bytes)),
            ),
            ("part", list(&self.scope)),
            ("for", list(&self.targets)),
            ("runs on", list(&self.summary.running)),
            ("kept by", list(&self.summary.kept)),
        ];
        let said = facts.iter().filter(|(_, value)| !value.is_empty());
        let lines = said.map(|(name, value)| format!("  {name:<9} {value}"));
        let title = std::iter::once(title.trim_end().to_string());
        title.chain(lines).collect::<Vec<_>>().join("\n")
    }
}
