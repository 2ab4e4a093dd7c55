//! The few calls that no safe wrapper offers: the allocator's parameters, leases of files, projects of quotas. All
//! `unsafe` of this room is here.
#![allow(unsafe_code, reason = "calls that no crate wraps")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::libc;
use rustix::io::Errno;

/// The command of fcntl that settles by which signal a process hears of a handle.
const F_SETSIG: libc::c_int = 10;
/// The most pools of memory.
#[cfg(target_env = "gnu")]
const ARENAS: std::ffi::c_int = 2;
/// What has at least this many bytes is the system's own pages: what waits for the network or a disk, and the lists of
/// large files.
#[cfg(target_env = "gnu")]
const OWN_PAGES: std::ffi::c_int = 256 << 10;
/// More bytes than this at the end of a pool go back to the system.
#[cfg(target_env = "gnu")]
const UNUSED: std::ffi::c_int = 512 << 10;

/// Settles how memory is handed out, unless the environment says it. Call it before there are threads.
///
/// All threads share two pools. The GNU C library makes eight for every processor, and what one thread frees is not
/// there for another: of the same plan it would hold a fifth more memory. What is done per packet allocates nothing, so
/// that nobody waits for a pool.
///
/// What is large goes back to the system as soon as it is freed. By itself the library takes large pieces from the pools
/// once one was freed, where small ones that live longer keep them from going back: a host that took 10 GB held twice
/// the memory that it used.
pub fn settle() {
    #[cfg(target_env = "gnu")]
    {
        set("MALLOC_ARENA_MAX", libc::M_ARENA_MAX, ARENAS);
        set("MALLOC_MMAP_THRESHOLD_", libc::M_MMAP_THRESHOLD, OWN_PAGES);
        set("MALLOC_TRIM_THRESHOLD_", libc::M_TRIM_THRESHOLD, UNUSED);
    }
}

/// Sets one of the allocator's parameters, unless the environment has `variable`.
#[cfg(target_env = "gnu")]
fn set(variable: &str, parameter: std::ffi::c_int, value: std::ffi::c_int) {
    if std::env::var_os(variable).is_none() {
        // SAFETY: it takes two numbers and sets one of the allocator's own under its own lock. Where it cannot, it says 0
        // and nothing changes.
        unsafe { libc::mallopt(parameter, value) };
    }
}

/// Whether any process has the file open for writing; `file` is open for reading. `None` where the kernel does not say:
/// it tells only the owner of a file and root, and not on every file system.
///
/// The kernel grants a lease to read only while nobody can write, by a handle or a memory map. It is given back at once;
/// somebody who opens the file in between waits for that moment, and this process gets a SIGURG, which is ignored by
/// default; else it would be a SIGIO, which ends a process.
pub fn is_open_for_writing(file: &File) -> Option<bool> {
    let lease = |what: libc::c_int| {
        // SAFETY: the command takes two numbers; the descriptor is that of an open file, which outlives the call.
        match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, what) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };

    // SAFETY: the command takes two numbers, and settles the signal for this handle; the file outlives the call.
    if unsafe { libc::fcntl(file.as_raw_fd(), F_SETSIG, libc::SIGURG) } != 0 {
        return None;
    }

    match lease(libc::F_RDLCK) {
        Ok(()) => {
            // Where it cannot be given back it ends with the handle.
            let _ = lease(libc::F_UNLCK);
            Some(false)
        }
        Err(e) if e.raw_os_error() == Some(Errno::AGAIN.raw_os_error()) => Some(true),
        Err(_) => None,
    }
}

/// What a filesystem keeps of a file for quotas of projects; `struct fsxattr` of linux/fs.h.
#[repr(C)]
#[derive(Default)]
struct FsAttributes {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    cow_extent_size: u32,
    padding: [u8; 8],
}

/// `FS_IOC_FSGETXATTR` and `FS_IOC_FSSETXATTR`.
const GET_ATTRIBUTES: libc::Ioctl = 0x801c_581f_u32 as libc::Ioctl;
const SET_ATTRIBUTES: libc::Ioctl = 0x401c_5820_u32 as libc::Ioctl;

fn attributes(file: BorrowedFd<'_>) -> io::Result<FsAttributes> {
    let mut found = FsAttributes::default();
    // SAFETY: the kernel writes one such structure, which outlives the call, as does the descriptor.
    match unsafe { libc::ioctl(file.as_raw_fd(), GET_ATTRIBUTES, &mut found) } {
        0 => Ok(found),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The project that quotas count an open file or directory for.
pub fn project(handle: BorrowedFd<'_>) -> io::Result<u32> {
    attributes(handle).map(|found| found.project)
}

/// Makes an open file or directory one of the project.
pub fn set_project(file: BorrowedFd<'_>, project: u32) -> io::Result<()> {
    let now = attributes(file)?;
    if now.project == project {
        return Ok(());
    }

    let wanted = FsAttributes { project, ..now };
    // SAFETY: the kernel reads one such structure, which outlives the call, as does the descriptor.
    match unsafe { libc::ioctl(file.as_raw_fd(), SET_ATTRIBUTES, &wanted) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_open_for_writing_while_somebody_can_write_to_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("file");
        let writer = File::create(&path).expect("mine");
        let reader = File::open(&path).expect("mine");
        if is_open_for_writing(&reader).is_none() {
            return println!("skipped: no leases on this file system");
        }

        assert_eq!(is_open_for_writing(&reader), Some(true));
        drop(writer);
        assert_eq!(is_open_for_writing(&reader), Some(false));
        let again = File::options()
            .append(true)
            .open(&path)
            .expect("nobody holds a lease");

        assert_eq!(is_open_for_writing(&reader), Some(true));
        drop(again);
        assert_eq!(is_open_for_writing(&reader), Some(false));
    }
}
