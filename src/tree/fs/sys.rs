//! System calls without a safe wrapper: allocator parameters, file leases, project quotas. All
//! `unsafe` of this room is here.
#![allow(unsafe_code, reason = "calls that no crate wraps")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::libc;
use rustix::io::Errno;

/// The fcntl command that selects the signal for a handle.
const F_SETSIG: libc::c_int = 10;
/// Largest number of memory arenas.
#[cfg(target_env = "gnu")]
const ARENAS: std::ffi::c_int = 2;
/// Allocations of at least this many bytes get pages of their own: buffers for network and disk,
/// and the lists of large files.
#[cfg(target_env = "gnu")]
const OWN_PAGES: std::ffi::c_int = 256 << 10;
/// Unused bytes at the end of an arena beyond this number return to the system.
#[cfg(target_env = "gnu")]
const UNUSED: std::ffi::c_int = 512 << 10;

/// Sets the allocator's parameters unless the environment does. Call before any thread starts.
///
/// All threads share two arenas. The GNU C library makes eight per processor and does not share
/// freed memory between them: the same plan would hold a fifth more memory. Per-packet code
/// allocates nothing, so no thread waits for an arena.
///
/// Large allocations return to the system when freed. By default, the library serves large
/// allocations from the arenas once one was freed, and small long-lived ones then keep them from
/// returning: a host that received 10 GB held twice its live memory.
pub fn settle() {
    #[cfg(target_env = "gnu")]
    {
        set("MALLOC_ARENA_MAX", libc::M_ARENA_MAX, ARENAS);
        set("MALLOC_MMAP_THRESHOLD_", libc::M_MMAP_THRESHOLD, OWN_PAGES);
        set("MALLOC_TRIM_THRESHOLD_", libc::M_TRIM_THRESHOLD, UNUSED);
    }
}

/// Sets one allocator parameter unless the environment has `variable`.
#[cfg(target_env = "gnu")]
fn set(variable: &str, parameter: std::ffi::c_int, value: std::ffi::c_int) {
    if std::env::var_os(variable).is_none() {
        // SAFETY: takes two numbers and sets one allocator parameter under the allocator's own
        // lock. On failure it returns 0 and changes nothing.
        unsafe { libc::mallopt(parameter, value) };
    }
}

/// Returns whether any process has the file open for writing; `file` is open for reading. `None` if
/// the kernel does not report it: only the owner and root may ask, and not on every filesystem.
///
/// The kernel grants a read lease only while no process can write, by handle or memory map. The
/// lease is returned at once. A process that opens the file in between waits for that moment, and
/// this process gets SIGURG, ignored by default; without the choice of signal it would get SIGIO,
/// which kills a process.
pub fn is_open_for_writing(file: &File) -> Option<bool> {
    let lease = |what: libc::c_int| {
        // SAFETY: the command takes two numbers; the descriptor belongs to an open file that
        // outlives the call.
        match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, what) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };

    // SAFETY: the command takes two numbers and sets the signal of this handle; the file outlives
    // the call.
    if unsafe { libc::fcntl(file.as_raw_fd(), F_SETSIG, libc::SIGURG) } != 0 {
        return None;
    }

    match lease(libc::F_RDLCK) {
        Ok(()) => {
            // A lease that cannot be returned ends with the handle.
            let _ = lease(libc::F_UNLCK);
            Some(false)
        }
        Err(e) if e.raw_os_error() == Some(Errno::AGAIN.raw_os_error()) => Some(true),
        Err(_) => None,
    }
}

/// Per-file data for project quotas; `struct fsxattr` of linux/fs.h.
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
    // SAFETY: the kernel writes one such structure; structure and descriptor outlive the call.
    match unsafe { libc::ioctl(file.as_raw_fd(), GET_ATTRIBUTES, &mut found) } {
        0 => Ok(found),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Project quota id of an open file or directory.
pub fn project(handle: BorrowedFd<'_>) -> io::Result<u32> {
    attributes(handle).map(|found| found.project)
}

/// Assigns an open file or directory to the project.
pub fn set_project(file: BorrowedFd<'_>, project: u32) -> io::Result<()> {
    let now = attributes(file)?;
    if now.project == project {
        return Ok(());
    }

    let wanted = FsAttributes { project, ..now };
    // SAFETY: the kernel reads one such structure; structure and descriptor outlive the call.
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
            return crate::skip::skipped("no leases on this file system");
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
