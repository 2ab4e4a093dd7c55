//! Pins: releases that stay although newer ones have come.
//!
//! **On disk.** `pins/SERIAL` in a tree's state is an empty file. Commands of this machine write it
//! beside a running daemon, which looks before it removes a release. The directory belongs to the
//! owner of the state, so that a daemon of another user than the command's can read it.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{
    AtFlags, Gid, Mode, OFlags, Uid, fchown, fstat, fsync, mkdirat, openat, unlinkat,
};
use rustix::io::Errno;

use super::reader::{StateReader, inside};
use crate::error::{Error, IoResultExt as _, Result};
use crate::id::Serial;
use crate::tree::fs::dir::names_in;

/// Directory of pins in a tree's state.
const PINS: &str = "pins";
/// Largest number of pins of a tree: each keeps the content that any release since replaced.
pub const MAX_PINS: usize = 16;

impl StateReader {
    /// Pinned releases.
    pub fn pins(&self) -> Result<BTreeSet<Serial>> {
        let listed = match self.root().dir(Some(&inside(PINS))) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            dir => dir.and_then(|dir| names_in(dir.as_fd())),
        };
        let names = listed.map_err(|e| Error::io("cannot list", self.path().join(PINS), e))?;
        let serials = names
            .iter()
            .filter_map(|name| name.to_str().ok()?.parse().ok());
        Ok(serials.map(Serial).collect())
    }

    /// Pins the kept release `serial`.
    pub fn pin(&self, serial: Serial) -> Result<()> {
        let pins = self.pins()?;
        if pins.len() >= MAX_PINS && !pins.contains(&serial) {
            let shown: Vec<String> = pins.iter().map(ToString::to_string).collect();
            return Err(
                Error::refused(format!("{MAX_PINS} releases are pinned already")).hint(format!(
                    "`makuo unpin` ends the pin of one: {}",
                    shown.join(", ")
                )),
            );
        }

        let dir = self.pins_dir()?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let path = self.pin_path(serial);
        openat(&dir, name_of(serial), flags, Mode::RUSR | Mode::WUSR)
            .and_then(|file| fsync(&file))
            .and_then(|()| fsync(&dir))
            .context("cannot write", &path)
    }

    /// Ends the pin of `serial`; returns whether there was one.
    pub fn unpin(&self, serial: Serial) -> Result<bool> {
        let path = self.pin_path(serial);
        let dir = match self.root().dir(Some(&inside(PINS))) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            dir => dir.context("cannot open", &path)?,
        };
        match unlinkat(&dir, name_of(serial), AtFlags::empty()) {
            Err(Errno::NOENT) => Ok(false),
            gone => gone.map(|()| true).context("cannot remove", &path),
        }
    }

    /// The directory of pins, made if missing.
    fn pins_dir(&self) -> Result<OwnedFd> {
        let path = self.path().join(PINS);
        let state = self.root().dir(None).context("cannot open", self.path())?;
        match mkdirat(&state, PINS, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            made => made.context("cannot make", &path)?,
        }

        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = openat(&state, PINS, flags, Mode::empty()).context("cannot open", &path)?;
        let owner = fstat(&state).context("cannot look at", self.path())?;
        let found = fstat(&dir).context("cannot look at", &path)?;
        if (found.st_uid, found.st_gid) != (owner.st_uid, owner.st_gid) {
            let (uid, gid) = (Uid::from_raw(owner.st_uid), Gid::from_raw(owner.st_gid));
            fchown(&dir, Some(uid), Some(gid)).context("cannot hand over", &path)?;
        }
        Ok(dir)
    }

    fn pin_path(&self, serial: Serial) -> PathBuf {
        self.path().join(PINS).join(serial.to_string())
    }
}

fn name_of(serial: Serial) -> CString {
    CString::new(serial.to_string()).unwrap_or_default()
}
