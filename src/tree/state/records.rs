//! Records of the releases of a tree in its state directory, each replaced atomically.

use minicbor::bytes::ByteVec;

use super::dir::StateDir;
use super::reader::{CommitMark, Mark, grant_name};
use crate::error::{Error, Result};
use crate::id::Serial;

/// In an undo directory: the record of another release of the same serial, and the order that
/// committed it.
const ASIDE_RELEASE: &str = "release";
const ASIDE_ORDER: &str = "order";

impl StateDir {
    /// Raises the highest release to `mark`, durably; refuses an older one and another one of the
    /// same serial.
    pub fn raise_highest(&self, mark: Mark) -> Result<()> {
        match self.highest()? {
            Some(highest) if highest.serial >= mark.serial => {
                return Err(Error::refused(format!(
                    "release {} is not newer than {}, which was accepted here",
                    mark.serial, highest.serial
                ))
                .hint("release again: that takes a new serial"));
            }
            _ => {}
        }

        self.write_mark("serial", mark, 0)
    }

    pub(crate) fn set_last_commit(&self, commit: Option<CommitMark>) -> Result<()> {
        match commit {
            Some(commit) => self.write_mark("current", commit.release, commit.number),
            None => self.remove("current"),
        }
    }

    /// Records the newest release with this tree as its source.
    pub(crate) fn set_sent(&self, mark: Mark) -> Result<()> {
        self.write_mark("source", mark, 0)
    }

    /// Stores header and signature of a release.
    pub(crate) fn store(&self, serial: Serial, header: &[u8], signature: &[u8]) -> Result<()> {
        let pair = (
            ByteVec::from(header.to_vec()),
            ByteVec::from(signature.to_vec()),
        );
        let bytes = minicbor::to_vec(pair).expect("writing to a Vec cannot fail");
        self.write(&format!("releases/{serial}"), &bytes)
    }

    pub(crate) fn forget(&self, serial: Serial) -> Result<()> {
        self.remove(&grant_name(serial))?;
        self.remove(&format!("releases/{serial}"))
    }

    /// Moves the record of the release `mark` into the undo directory of a commit of the same
    /// serial. Repeatable after a crash: a missing record was moved already.
    pub(crate) fn set_aside(&self, mark: Mark) -> Result<()> {
        let serial = mark.serial;
        if self
            .stored(serial)?
            .is_some_and(|stored| stored.release.id() == mark.id)
        {
            for (name, aside) in [
                (grant_name(serial), ASIDE_ORDER),
                (format!("releases/{serial}"), ASIDE_RELEASE),
            ] {
                if self.read(&name)?.is_some() {
                    self.rename(&name, &format!("undo/{serial}/{aside}"))?;
                }
            }
        }

        Ok(())
    }

    /// Moves the record of the release `mark` back, over the record of the other release of its
    /// serial.
    pub(crate) fn bring_back(&self, mark: Mark) -> Result<()> {
        let serial = mark.serial;
        for (name, aside) in [
            (format!("releases/{serial}"), ASIDE_RELEASE),
            (grant_name(serial), ASIDE_ORDER),
        ] {
            let aside = format!("undo/{serial}/{aside}");
            // Without one, the present order may belong to the other release; users compare it with
            // theirs.
            if self.read(&aside)?.is_some() {
                self.rename(&aside, &name)?;
            }
        }

        Ok(())
    }

    pub(crate) fn write_mark(&self, name: &str, mark: Mark, number: u64) -> Result<()> {
        self.write(
            name,
            format!("{} {} {number}\n", mark.serial, mark.id).as_bytes(),
        )
    }
}
