//! Packet capture on a host's interface, with kernel timestamps from a packet socket.
//!
//! A train of datagrams (UDP GSO) is one packet here, with its segment size, as on a bridge of
//! namespaces. [`Packet::datagrams`] and [`Packet::wire`] return the sizes on a cable.

use std::io::IoSliceMut;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::libc;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::sockopt::{ReceiveTimeout, ReceiveTimestampns, SetBool};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType,
    recvmsg, setsockopt, socket,
};
use nix::sys::time::TimeVal;

use super::place::Place;

/// Socket option that adds the kernel's segmentation header to each packet.
#[derive(Debug, Clone, Copy)]
struct VnetHeader;

nix::setsockopt_impl!(
    VnetHeader,
    libc::SOL_PACKET,
    libc::PACKET_VNET_HDR,
    bool,
    SetBool
);

/// `struct virtio_net_hdr`: flags, kind of train, header bytes, segment bytes, two fields about
/// checksums.
const VNET_HEADER: usize = 10;
/// Kinds of train (`VIRTIO_NET_HDR_GSO_*`): none; the bit for ECN alone.
const NO_TRAIN: u8 = 0;
const ECN: u8 = 0x80;
const ETHERNET: usize = 14;
const ETHERTYPE_IPV4: [u8; 2] = [8, 0];
const PROTOCOL_UDP: u8 = 17;
const UDP_HEADER: usize = 8;
/// Captured bytes of each packet: headers, and the first bytes of a datagram.
const HEAD: usize = 256;
/// More than the largest packet has.
const WHOLE: usize = 1 << 17;
/// Bytes of memory for unread packets.
const QUEUE: usize = 64 << 20;
const STEP: i64 = 20_000;

/// One packet, possibly a train.
#[derive(Debug, Clone)]
pub struct Packet {
    /// Time of capture in the kernel, since 1970.
    pub at: Duration,
    /// True for packets sent by the host.
    pub outgoing: bool,
    /// Length with the Ethernet header, as one packet.
    pub len: usize,
    /// Payload bytes per segment of a train; `None` for a single datagram.
    pub segment: Option<usize>,
    /// First bytes, from the Ethernet header on.
    pub head: Vec<u8>,
}

/// Headers of a UDP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Udp<'a> {
    pub from: Ipv4Addr,
    pub to: Ipv4Addr,
    pub to_port: u16,
    /// Payload bytes of all segments.
    pub payload: usize,
    /// Bytes of all headers before the payload.
    pub headers: usize,
    /// First bytes of the payload.
    pub head: &'a [u8],
}

impl Packet {
    fn parse(at: Duration, outgoing: bool, bytes: &[u8], len: usize) -> Option<Self> {
        let (front, head) = bytes.split_at_checked(VNET_HEADER)?;
        let train = front[1] & !ECN != NO_TRAIN;
        let segment = train.then(|| usize::from(u16::from_ne_bytes([front[4], front[5]])));
        Some(Self {
            at,
            outgoing,
            len: len - VNET_HEADER,
            segment,
            head: head.to_vec(),
        })
    }

    /// Parses UDP over IPv4; `None` for other packets and for all fragments but the first.
    pub fn udp(&self) -> Option<Udp<'_>> {
        if self.head.get(12..14)? != ETHERTYPE_IPV4 {
            return None;
        }

        let ip = self.head.get(ETHERNET..)?;
        let ip_header = usize::from(ip.first()? & 0x0f) * 4;
        let address = |at: usize| {
            Some(Ipv4Addr::from(
                <[u8; 4]>::try_from(ip.get(at..at + 4)?).ok()?,
            ))
        };

        let offset = u16::from_be_bytes([*ip.get(6)?, *ip.get(7)?]) & 0x1fff;
        if *ip.get(9)? != PROTOCOL_UDP || offset != 0 {
            return None;
        }

        let udp = ip.get(ip_header..)?;
        let headers = ETHERNET + ip_header + UDP_HEADER;
        Some(Udp {
            from: address(12)?,
            to: address(16)?,
            to_port: u16::from_be_bytes([*udp.get(2)?, *udp.get(3)?]),
            payload: self.len.checked_sub(headers)?,
            headers,
            head: udp.get(UDP_HEADER..)?,
        })
    }

    /// Returns the payload sizes of the datagrams on a cable.
    pub fn datagrams(&self) -> Vec<usize> {
        let Some(udp) = self.udp() else {
            return Vec::new();
        };
        let segment = self.segment.unwrap_or(udp.payload).max(1);
        (0..udp.payload.div_ceil(segment))
            .map(|i| segment.min(udp.payload - i * segment))
            .collect()
    }

    /// Returns the datagrams of a packet that was captured whole.
    pub fn contents(&self) -> Vec<&[u8]> {
        let segment = self.segment.unwrap_or(self.len).max(1);
        self.udp()
            .map(|udp| udp.head[..udp.payload].chunks(segment).collect())
            .unwrap_or_default()
    }

    /// Returns the bytes on a cable: each datagram of a train with its own headers, in Ethernet
    /// frames without preamble and checksum.
    pub fn wire(&self) -> usize {
        match (self.segment, self.udp()) {
            (Some(_), Some(udp)) => udp.payload + udp.headers * self.datagrams().len(),
            _ => self.len,
        }
    }
}

/// A running capture.
pub struct Capture {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Vec<Packet>, String>>>,
}

impl Capture {
    /// Starts a capture at `place`, or returns the reason for the failure.
    pub fn start(place: &Place) -> Result<Self, String> {
        Self::keeping(HEAD, place)
    }

    /// Starts a capture of whole packets.
    pub fn whole(place: &Place) -> Result<Self, String> {
        Self::keeping(WHOLE, place)
    }

    fn keeping(most: usize, place: &Place) -> Result<Self, String> {
        let namespace = place
            .file()
            .ok_or("only root can join a network namespace from a thread")?;
        let stop = Arc::new(AtomicBool::new(false));
        let (ready, is_ready) = channel();
        let thread = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                setns(namespace, CloneFlags::CLONE_NEWNET)
                    .map_err(|e| format!("no way into a namespace: {e}"))?;
                listen(most, &stop, &ready)
            }
        });

        let mut capture = Self {
            stop,
            thread: Some(thread),
        };

        match is_ready.recv() {
            Ok(()) => Ok(capture),
            Err(_) => Err(capture
                .end()
                .err()
                .unwrap_or_else(|| "the capture ended at once".into())),
        }
    }

    /// Ends the capture, and returns all packets of eth0 in order of time.
    #[track_caller]
    pub fn finish(mut self) -> Vec<Packet> {
        let mut packets = self.end().expect("the capture works");
        packets.sort_by_key(|p| p.at);
        packets
    }

    fn end(&mut self) -> Result<Vec<Packet>, String> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("ended once");
        thread
            .join()
            .unwrap_or_else(|_| Err("the capture failed".into()))
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn listen(most: usize, stop: &AtomicBool, ready: &Sender<()>) -> Result<Vec<Packet>, String> {
    let said = |what: &'static str| move |e: nix::Error| format!("{what}: {e}");
    let socket = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::EthAll,
    )
    .map_err(said("no packet socket"))?;

    setsockopt(&socket, VnetHeader, &true).map_err(said("no sizes of segments"))?;
    setsockopt(&socket, ReceiveTimestampns, &true).map_err(said("no times"))?;
    setsockopt(&socket, ReceiveTimeout, &TimeVal::new(0, STEP))
        .map_err(said("no limit of waiting"))?;

    // Only root may exceed the system's limit. With a smaller buffer, a fast capture may lose
    // packets; callers check for losses.
    let _ = setsockopt(&socket, nix::sys::socket::sockopt::RcvBufForce, &QUEUE);
    let eth0 = nix::net::if_::if_nametoindex("eth0").map_err(said("no interface"))?;
    let _ = ready.send(());
    let mut packets = Vec::new();
    let mut memory = vec![0; most];
    let mut stopping = false;

    loop {
        match read(socket.as_raw_fd(), eth0 as usize, &mut memory) {
            Ok(packet) => packets.extend(packet),
            Err(nix::Error::EINTR) => {}
            // Packets sent before the stop request are pending already: an empty read means that
            // all have been read.
            Err(nix::Error::EAGAIN) if stopping => return Ok(packets),
            Err(nix::Error::EAGAIN) => stopping = stop.load(Ordering::Relaxed),
            Err(e) => return Err(format!("the capture ended: {e}")),
        }
    }
}

/// Reads the next packet; `None` for a packet of another interface.
fn read(socket: i32, interface: usize, bytes: &mut [u8]) -> nix::Result<Option<Packet>> {
    let mut control = nix::cmsg_space!(nix::sys::time::TimeSpec);
    let (len, address, at) = {
        let mut slices = [IoSliceMut::new(bytes)];
        // With MSG_TRUNC, the returned length is the full packet's, even for a short read.
        let message =
            recvmsg::<LinkAddr>(socket, &mut slices, Some(&mut control), MsgFlags::MSG_TRUNC)?;
        let at = message.cmsgs()?.find_map(|c| match c {
            ControlMessageOwned::ScmTimestampns(at) => Some(Duration::from(at)),
            _ => None,
        });
        (message.bytes, message.address, at)
    };

    let (Some(address), Some(at)) = (address, at) else {
        return Ok(None);
    };

    if address.ifindex() != interface {
        return Ok(None);
    }

    let outgoing = i32::from(address.pkttype()) == i32::from(libc::PACKET_OUTGOING);
    let kept = len.min(bytes.len());
    Ok(Packet::parse(at, outgoing, &bytes[..kept], len))
}
