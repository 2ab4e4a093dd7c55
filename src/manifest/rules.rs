//! The rules of a release: what a host may delete, keep and set. They are part of the signed header.

use std::borrow::Cow;

use minicbor::{Decode, Encode};

use super::node::to_vec;
use super::{FORMAT, FORMAT_PACKED};
use crate::block::frame::{Compressor, Expander, Level};
use crate::units::Limit;

pub use super::patterns::{Exclude, PathFilter, Pattern, lines};

/// The most bytes of all exclude patterns of a release, with 8 for each beside its text.
pub const MAX_EXCLUDE_BYTES: usize = 1 << 20;
/// The most excludes of a header of the first format,
const MAX_PLAIN_EXCLUDES: usize = 1000;
/// and the most bytes of them.
const MAX_PLAIN_BYTES: usize = 32 << 10;
/// The most bytes of compressed excludes: a header has to hold them, and to fit a message.
const MAX_PACKED_BYTES: usize = 48 << 10;
/// The most bytes of them when they are expanded: texts, and what their encoding adds.
const MAX_UNPACKED_BYTES: usize = MAX_EXCLUDE_BYTES * 2;
/// How hard they are compressed: the result stays as it is for the life of the release.
const PACKING: Level = Level::new(19).expect("it is one of zstd's levels");

/// What governs a host's commit besides the manifest.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Rules {
    /// Whether paths that the release does not have are removed.
    #[n(0)]
    pub delete_extras: bool,
    /// The most deletions on one host.
    #[n(1)]
    pub delete_max: Limit,
    /// Whether an empty manifest may empty a tree.
    #[n(2)]
    pub allow_empty: bool,
    /// Paths that the release excludes: left alone on the hosts.
    #[n(3)]
    pub excludes: Vec<Exclude>,
    /// Whether excluded paths are removed all the same.
    #[n(4)]
    pub delete_excluded: bool,
    /// Whether hosts set the user.
    #[n(5)]
    pub set_user: bool,
    /// Whether hosts set the group.
    #[n(6)]
    pub set_group: bool,
    /// What a host does with an owner's name that it does not know.
    #[n(7)]
    pub unknown_owner: UnknownOwner,
    /// Whether hosts set times of modification.
    #[n(8)]
    pub mtime: bool,
    /// Whether hosts set extended attributes and ACLs.
    #[n(9)]
    pub xattrs: bool,
    /// How the commit switches the tree.
    #[n(10)]
    pub layout: Layout,
    /// Whether names of one file on the sender are names of one file on the hosts.
    #[n(11)]
    pub hardlinks: bool,
    /// The excludes where they are many; then there are none in `excludes`.
    #[n(12)]
    pub packed: Option<Packed>,
}

/// A compressed list of excludes.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Packed {
    /// Bytes of the list.
    #[n(0)]
    pub size: u32,
    /// The list as one zstd frame.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub frame: Vec<u8>,
}

/// What a host does with an owner's name that it does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum UnknownOwner {
    /// Refuse the release before anything changes.
    #[n(0)]
    Fail,
    /// Use the sender's number.
    #[n(1)]
    Numeric,
}

/// How a commit switches the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Layout {
    /// Journaled renames within the tree.
    #[n(0)]
    InPlace,
    /// The next tree is built beside the present one and exchanged with it in one rename.
    #[n(1)]
    Swap,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            delete_extras: false,
            delete_max: Limit::Share(5000),
            allow_empty: false,
            excludes: Vec::new(),
            delete_excluded: false,
            set_user: true,
            set_group: true,
            unknown_owner: UnknownOwner::Fail,
            mtime: true,
            xattrs: false,
            layout: Layout::InPlace,
            hardlinks: true,
            packed: None,
        }
    }
}

impl Rules {
    /// The excludes, packed or not, or why they cannot be read.
    pub fn patterns(&self) -> Result<Cow<'_, [Exclude]>, String> {
        match &self.packed {
            None => Ok(Cow::Borrowed(&self.excludes)),
            Some(packed) => unpack(packed).map(Cow::Owned),
        }
    }

    /// The matcher of the excludes, or why they cannot be read.
    pub fn excluded(&self) -> Result<PathFilter, String> {
        self.patterns().map(|patterns| PathFilter::new(&patterns))
    }

    /// Packs the excludes where they are more than every version reads.
    ///
    /// # Errors
    /// They are more than a header holds.
    pub fn pack(&mut self) -> Result<(), String> {
        let bytes = self
            .excludes
            .iter()
            .map(Exclude::plain_bytes)
            .sum::<usize>();

        if self.excludes.len() <= MAX_PLAIN_EXCLUDES && bytes <= MAX_PLAIN_BYTES {
            return Ok(());
        }

        check_excludes(&self.excludes)?;

        let plain = to_vec(&self.excludes);
        let mut compressor = Compressor::new();
        let packed = compressor
            .begin(PACKING, Some(plain.len()))
            .and_then(|()| compressor.add(&plain))
            .and_then(|_| compressor.end().map(<[u8]>::to_vec))
            .ok_or("the patterns cannot be compressed: there is no memory")?;

        if packed.len() > MAX_PACKED_BYTES {
            let count = self.excludes.len();
            return Err(format!(
                "{count} patterns take {} bytes of a release header when compressed, at most {MAX_PACKED_BYTES} fit",
                packed.len()
            ));
        }

        self.packed = Some(Packed {
            size: plain.len() as u32,
            frame: packed,
        });
        self.excludes = Vec::new();

        Ok(())
    }

    /// The format of a header with these rules: the first one that can say all of them.
    pub fn format(&self) -> u16 {
        if self.packed.is_some() {
            FORMAT_PACKED
        } else {
            FORMAT
        }
    }

    /// The caps. The patterns are compiled later ([`Rules::excluded`]): that costs, and is not done for
    /// a stranger.
    pub(super) fn check(&self) -> Result<(), String> {
        check_excludes(&self.excludes)?;
        let Some(packed) = &self.packed else {
            return Ok(());
        };

        if packed.frame.len() > MAX_PACKED_BYTES || packed.size as usize > MAX_UNPACKED_BYTES {
            return Err("the packed excludes are too large".into());
        }

        if !self.excludes.is_empty() {
            return Err("there are excludes of two kinds".into());
        }

        Ok(())
    }
}

/// Refuses more patterns than a release can carry.
pub fn check_excludes(excludes: &[Exclude]) -> Result<(), String> {
    let bytes = excludes.iter().map(Exclude::weight).sum::<usize>();
    if bytes > MAX_EXCLUDE_BYTES {
        let count = excludes.len();
        return Err(format!(
            "{count} patterns take {bytes} bytes, at most {MAX_EXCLUDE_BYTES} are possible"
        ));
    }

    Ok(())
}

fn unpack(packed: &Packed) -> Result<Vec<Exclude>, String> {
    let broken = || "the packed excludes cannot be read".to_string();
    let mut expander = Expander::default();
    let plain = expander
        .expand(&packed.frame, packed.size as usize)
        .ok_or_else(broken)?;
    let excludes: Vec<Exclude> = minicbor::decode(plain).map_err(|_| broken())?;
    check_excludes(&excludes)?;

    Ok(excludes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::header::tests::a_header;
    use crate::manifest::{Header, Release, TreePath};

    fn with(excludes: Vec<Exclude>) -> Result<Release, String> {
        let mut rules = Rules {
            excludes,
            ..Rules::default()
        };

        rules.pack()?;
        let header = Header {
            format: rules.format(),
            rules,
            ..a_header()
        };

        Release::new(header).map_err(|e| e.to_string())
    }

    fn vendored() -> Vec<Exclude> {
        let line = |package: usize, pattern: &str| {
            let base = format!("vendor/organisation-{package}/package-{}", package * 7919);
            Exclude {
                base: TreePath::new(base.as_bytes()).ok(),
                pattern: pattern.into(),
            }
        };

        let patterns = ["/build/", "*.log", "node_modules", "!keep.log"];
        (0..260)
            .flat_map(|package| patterns.map(|pattern| line(package, pattern)))
            .collect()
    }

    #[test]
    fn few_excludes_are_said_in_the_first_format() {
        let release = with(vec![
            Exclude::at_top("*.tmp"),
            Exclude::at_top(&b"\xe4"[..]),
        ])
        .expect("legal");
        assert_eq!(release.header().format, FORMAT);
        assert_eq!(release.header().rules.excludes.len(), 2);
        assert_eq!(
            Release::from_bytes(release.bytes())
                .expect("legal")
                .header(),
            release.header()
        );
    }

    #[test]
    fn many_excludes_fit_a_header_that_older_hosts_refuse() {
        let numbered =
            (0..5000).map(|n| Exclude::at_top(format!("/data/set-{n}/result-{}.bin", n * 7919)));
        for excludes in [vendored(), numbered.collect()] {
            let release = with(excludes.clone()).expect("legal");
            let back = Release::from_bytes(release.bytes()).expect("legal");
            assert_eq!(back.header(), release.header());
            assert_eq!(back.header().format, FORMAT_PACKED);
            let wanted = PathFilter::new(&excludes).patterns();
            assert!(back.header().rules.excluded().expect("legal").patterns() == wanted);
        }
    }

    #[test]
    fn packed_excludes_are_refused_when_they_are_not_what_they_say() {
        let mut rules = Rules {
            excludes: vendored(),
            ..Rules::default()
        };

        rules.pack().expect("they fit");
        let packed = rules.packed.clone().expect("they are many");
        let header = |rules: Rules, format| Header {
            format,
            rules,
            ..a_header()
        };

        let refused = |header: Header| {
            Header::decode(&header.encode())
                .expect_err("not legal")
                .to_string()
        };

        // A host of the first format would take it for a release without excludes.
        assert!(refused(header(rules.clone(), FORMAT)).contains("format"));

        let both = Rules {
            excludes: vec![Exclude::at_top("a")],
            ..rules.clone()
        };

        assert!(refused(header(both, FORMAT_PACKED)).contains("two kinds"));
        let huge = Packed {
            size: u32::MAX,
            ..packed.clone()
        };

        assert!(
            refused(header(
                Rules {
                    packed: Some(huge),
                    ..rules.clone()
                },
                FORMAT_PACKED
            ))
            .contains("too large")
        );

        let mut broken = packed.clone();

        broken.frame.truncate(100);
        let other = Packed {
            size: packed.size + 1,
            ..packed
        };

        for packed in [broken, other] {
            let rules = Rules {
                packed: Some(packed),
                ..rules.clone()
            };
            assert!(rules.excluded().is_err());
        }
    }

    #[test]
    fn more_than_a_header_holds_is_said() {
        let noise = |n: u32| crate::block::BlockHash::of(&n.to_be_bytes()).to_string();
        let why =
            with((0..4000).map(|n| Exclude::at_top(noise(n))).collect()).expect_err("too many");
        assert!(why.contains("4000 patterns"), "{why}");
        let why = with((0..200_000).map(|_| Exclude::at_top("x")).collect()).expect_err("too many");
        assert!(why.contains("200000 patterns"), "{why}");
    }
}
