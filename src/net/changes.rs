//! The kernel's notifications of interfaces that appear, vanish or change addresses.
//!
//! Owns the waiting only; the new state is read from [`list`](super::list).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};

/// `RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR` and `RTMGRP_IPV6_IFADDR`, from linux/rtnetlink.h.
const GROUPS: u32 = 0x1 | 0x10 | 0x100;
/// Bytes of one read; the rest of a longer message is dropped.
const READ_BYTES: usize = 8 << 10;

/// Notifies of changes to interfaces or their addresses.
#[derive(Debug)]
pub struct InterfaceChanges {
    socket: OwnedFd,
}

impl InterfaceChanges {
    /// Subscribes to all changes from now on.
    pub fn follow() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // NETLINK_ROUTE is protocol number 0.
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
        Ok(Self { socket })
    }

    /// Returns whether anything has changed since the last call.
    pub fn take(&self) -> bool {
        let mut buffer = [0u8; READ_BYTES];
        let mut any = false;
        loop {
            match recv(&self.socket, &mut buffer, RecvFlags::DONTWAIT) {
                Ok(_) => any = true,
                Err(Errno::INTR) => {}
                // So many changes that the kernel dropped some.
                Err(Errno::NOBUFS) => any = true,
                Err(_) => return any,
            }
        }
    }

    /// Waits for a change, at most for `timeout`.
    pub fn wait(&self, timeout: Duration) {
        let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
        let timeout = Timespec::try_from(timeout).ok();
        // The caller checks again, however the wait ended.
        let _ = poll(&mut fds, timeout.as_ref());
        self.take();
    }
}

impl AsFd for InterfaceChanges {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_changes_by_itself() {
        match InterfaceChanges::follow() {
            // Other tests on this machine change interfaces only in their own namespaces.
            Ok(changes) => assert!(!changes.take()),
            Err(e) => crate::skip::skipped(e),
        }
    }
}
