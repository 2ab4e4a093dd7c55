//! The few calls without a safe wrapper. All `unsafe` of this room is here; nothing here makes
//! decisions.
#![allow(unsafe_code, reason = "system calls that no crate wraps")]

use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};

use nix::libc;
use socket2::{SockFilter, Socket};

/// `ioctl(SIOCGIFMTU)`, from linux/sockios.h.
const SIOCGIFMTU: u32 = 0x8921;
/// `getsockopt(SO_MEMINFO)`, from asm-generic/socket.h.
const SO_MEMINFO: libc::c_int = 55;
/// Fields of `SO_MEMINFO`, from linux/sock_diag.h; the last one counts the drops.
const MEMINFO_FIELDS: usize = 9;
const MEMINFO_DROPS: usize = 8;

/// MTU of the interface `name`, queried through `socket` (any socket works). Unlike /sys the result
/// is for the network namespace of the process.
pub(super) fn interface_mtu(socket: &Socket, name: &str) -> io::Result<u32> {
    // SAFETY: an all-zero `ifreq` is valid: integers, and a union of integers and pointers never
    // followed here.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    // One byte stays zero as the terminator.
    if name.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }

    for (slot, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *slot = byte as libc::c_char;
    }

    // SAFETY: SIOCGIFMTU reads `ifr_name` and writes `ifru_mtu`, both inside `request`, which
    // outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCGIFMTU as _, &mut request) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }

    // SAFETY: the call succeeded, so the kernel filled in this member of the union.
    let mtu = unsafe { request.ifr_ifru.ifru_mtu };
    u32::try_from(mtu).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Packets dropped by the kernel at this socket since its creation: no room, or refused by its
/// filter.
pub(super) fn socket_drops(socket: impl AsFd) -> io::Result<u32> {
    let mut fields = [0u32; MEMINFO_FIELDS];
    let mut length = mem::size_of_val(&fields) as libc::socklen_t;

    // SAFETY: the kernel writes at most `length` bytes to `fields` and their number to `length`;
    // both outlive the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            SO_MEMINFO,
            fields.as_mut_ptr().cast(),
            &mut length,
        )
    };

    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(fields[MEMINFO_DROPS])
    }
}

/// Makes the kernel refuse packets from `source` before they take room in the socket's buffer.
pub(super) fn refuse_source(socket: &Socket, source: SocketAddr) -> io::Result<()> {
    socket.attach_filter(&source_filter(source))
}

/// The classic BPF program for [`refuse_source`]. Offsets begin at the UDP header, and the IP
/// header is at `SKF_NET_OFF`.
fn source_filter(source: SocketAddr) -> Vec<SockFilter> {
    const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const LOAD_HALF: u16 = (libc::BPF_LD | libc::BPF_H | libc::BPF_ABS) as u16;
    const JUMP_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    const NETWORK_HEADER: u32 = -0x10_0000_i32 as u32;
    const UDP_SOURCE_PORT: u32 = 0;

    let (first, words) = match source {
        SocketAddr::V4(v4) => (12, vec![u32::from_be_bytes(v4.ip().octets())]),
        SocketAddr::V6(v6) => {
            let bits = u128::from_be_bytes(v6.ip().octets());
            (8, (0..4).map(|i| (bits >> (96 - 32 * i)) as u32).collect())
        }
    };

    let mut program = Vec::with_capacity(2 * words.len() + 4);
    for (offset, &word) in (first..).step_by(4).zip(&words) {
        // A mismatch jumps to the last instruction: over the rest of the words, two for the port,
        // and the refusal.
        let rest = 2 * words.len() + 1 - program.len();
        program.push(SockFilter::new(LOAD_WORD, 0, 0, NETWORK_HEADER + offset));
        program.push(SockFilter::new(JUMP_EQUAL, 0, rest as u8, word));
    }

    program.push(SockFilter::new(LOAD_HALF, 0, 0, UDP_SOURCE_PORT));
    program.push(SockFilter::new(JUMP_EQUAL, 0, 1, u32::from(source.port())));
    program.push(SockFilter::new(RETURN, 0, 0, 0));
    program.push(SockFilter::new(RETURN, 0, 0, u32::MAX));

    program
}

/// Makes `socket` send without UDP checksums; the kernel then refuses its trains.
#[cfg(test)]
pub(super) fn send_no_checksums(socket: &Socket) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the kernel reads one int from `on`, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NO_CHECK,
            (&raw const on).cast(),
            mem::size_of_val(&on) as libc::socklen_t,
        )
    };

    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_has_one_test_for_each_word_and_the_port() {
        assert_eq!(source_filter("10.0.0.1:5000".parse().unwrap()).len(), 2 + 4);
        assert_eq!(
            source_filter("[fd00::1]:5000".parse().unwrap()).len(),
            8 + 4
        );
    }

    #[test]
    fn a_name_too_long_for_the_kernel_is_refused() {
        let socket = Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
        assert!(interface_mtu(&socket, "a-name-that-is-far-too-long").is_err());
        assert!(interface_mtu(&socket, "nope0").is_err());
    }
}
