//! Sending and receiving many datagrams in one system call.
//!
//! A **train** is several datagrams of equal size (the last may be shorter), one behind the other
//! in memory. With UDP GSO the kernel carries a train through its layers as one packet, and to a
//! receiver on the same machine or bridge even delivers one packet; with GRO a receiver reads a
//! whole train at once. Trains make gigabits cheap: ten to twenty times less processor time than a
//! call for each datagram. If a driver refuses (EIO, EINVAL), a link falls back to sendmmsg, and
//! from there to single sends, for the rest of its life and transparently to its callers.
//!
//! Datagrams are opaque here, and no memory is allocated for one.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::errno::Errno;
use quinn_udp::{RecvMeta, Transmit, UdpSockRef};
use rustix::net::addr::SocketAddrArg;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg};

use super::Link;

/// Largest number of datagrams in one train. More is cheaper still, until a shaped link (tbf with
/// its usual 64 KB burst) has to split the train itself: measured at 44 segments of Ethernet size,
/// at 20 times the processor time, and erratic just below. Interleaved repair counts on 32 as well.
pub const MAX_SEGMENTS: usize = 32;
/// Largest train in bytes: the payload of an IP packet, with some room.
pub const MAX_SEND_BYTES: usize = 65_000;
/// Largest datagram in bytes: 65,535 less the IPv4 and UDP headers.
pub const MAX_DATAGRAM: usize = 65_507;
/// Delay before a retry when the kernel has no memory for a packet: no socket becomes writable when
/// memory is free again.
pub const RETRY_AFTER_ENOBUFS: Duration = Duration::from_millis(1);

/// Largest number of trains in one read. One alone is as fast; more save calls when many hosts
/// report at once.
const RECV_TRAINS: usize = 8;
/// Bytes of the largest train that the kernel delivers.
const TRAIN_BYTES: usize = 64 << 10;

/// Use of the kernel's batching for sends, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Offload {
    /// Trains: UDP GSO for sending, GRO for receiving.
    Full = 0,
    /// Many datagrams in a system call, each a packet of its own (sendmmsg).
    Batched = 1,
    /// A system call for each datagram.
    Single = 2,
}

impl Offload {
    /// The best mode of a kernel that takes `segments` in a train.
    pub(super) fn limited_to(self, segments: usize) -> Self {
        if segments < MAX_SEGMENTS {
            self.max(Offload::Batched)
        } else {
            self
        }
    }

    fn from_byte(byte: u8) -> Self {
        match byte {
            0 => Offload::Full,
            1 => Offload::Batched,
            _ => Offload::Single,
        }
    }
}

/// Socket of a link to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Channel {
    /// Datagrams sent to the group.
    Group,
    /// Datagrams sent to this process alone.
    Own,
}

/// Result of sending a train.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendOutcome {
    /// The kernel took all of it.
    Sent,
    /// The kernel took the first `sent` bytes, whole segments, and has no room for the next. Wait
    /// until the link is writable, or for `retry_after`, and send the rest.
    Blocked {
        /// Bytes taken, often none.
        sent: usize,
        /// Time to wait, if waiting until the link is writable would not help.
        retry_after: Option<Duration>,
    },
    /// The segments are too large for the interface's current MTU, which may have changed. Whole
    /// segments may have been sent before (a short last one of a train would fit), so count the
    /// train as lost.
    TooLarge,
}

/// Received datagram.
#[derive(Debug)]
pub struct ReceivedDatagram<'a> {
    /// The sender's own socket, for answers.
    pub from: SocketAddr,
    /// Content, mutable so that it can be opened in place.
    pub bytes: &'a mut [u8],
    /// Arrival in the kernel, since 1970 on this machine's clock. All datagrams of a train have the
    /// same.
    pub stamp: Option<Duration>,
}

/// Receive buffer, kept by the receiving thread.
#[derive(Debug)]
pub struct RecvBatch {
    memory: Box<[u8]>,
}

impl Default for RecvBatch {
    fn default() -> Self {
        Self::new()
    }
}

impl RecvBatch {
    /// A buffer for one read of the largest size.
    pub fn new() -> Self {
        Self {
            memory: vec![0; RECV_TRAINS * TRAIN_BYTES].into_boxed_slice(),
        }
    }
}

impl Link {
    /// Sends `contents` to `to` as datagrams of `segment` bytes, with a possibly shorter last one:
    /// at most [`MAX_SEGMENTS`] and [`MAX_SEND_BYTES`] (a single datagram: [`MAX_DATAGRAM`]).
    /// Errors are permanent, waiting does not help; [`Link::explain_send`] describes them.
    pub fn send(&self, to: SocketAddr, contents: &[u8], segment: usize) -> io::Result<SendOutcome> {
        check(contents, segment)?;
        if contents.len() <= segment {
            return settle(self.transmit(to, contents, None), 0);
        }

        match self.offload() {
            Offload::Full => self.send_train(to, contents, segment),
            Offload::Batched => self.send_batch(to, contents, segment),
            Offload::Single => self.send_singly(to, contents, segment),
        }
    }

    /// Current batching of sends: as configured, or reduced by the kernel and the driver.
    pub fn offload(&self) -> Offload {
        Offload::from_byte(self.offload.load(Ordering::Relaxed))
    }

    /// Reads the datagrams waiting on `channel`, one system call's worth, and passes each to
    /// `each`. Returns their number, 0 if none is waiting.
    pub fn recv(
        &self,
        channel: Channel,
        batch: &mut RecvBatch,
        mut each: impl FnMut(ReceivedDatagram<'_>),
    ) -> io::Result<usize> {
        let endpoint = self.endpoint(channel);
        let mut metas = [RecvMeta::default(); RECV_TRAINS];
        let read = {
            let mut trains = batch.memory.chunks_exact_mut(TRAIN_BYTES);
            let mut slices: [IoSliceMut<'_>; RECV_TRAINS] =
                std::array::from_fn(|_| IoSliceMut::new(trains.next().unwrap_or_default()));
            endpoint
                .state
                .recv(UdpSockRef::from(&endpoint.socket), &mut slices, &mut metas)
        };

        let read = match read {
            Ok(read) => read,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            Err(e) => return Err(e),
        };

        let mut count = 0;
        for (memory, meta) in batch
            .memory
            .chunks_exact_mut(TRAIN_BYTES)
            .zip(&metas[..read])
        {
            let Some(train) = memory.get_mut(..meta.len) else {
                continue;
            };
            count += cut(train, meta.stride, |bytes| {
                each(ReceivedDatagram {
                    from: meta.addr,
                    bytes,
                    stamp: meta.timestamp,
                })
            });
        }

        Ok(count)
    }

    fn send_train(
        &self,
        to: SocketAddr,
        contents: &[u8],
        segment: usize,
    ) -> io::Result<SendOutcome> {
        match self.transmit(to, contents, Some(segment)) {
            Err(e) if is_refusal(&e) => {
                self.fall_back(Offload::Batched, &e, self.send_batch(to, contents, segment))
            }
            result => settle(result, 0),
        }
    }

    fn send_batch(
        &self,
        to: SocketAddr,
        contents: &[u8],
        segment: usize,
    ) -> io::Result<SendOutcome> {
        let address = to.as_any();
        let slices: Vec<[IoSlice<'_>; 1]> = contents
            .chunks(segment)
            .map(|s| [IoSlice::new(s)])
            .collect();
        let mut controls: [SendAncillaryBuffer<'_, '_, '_>; MAX_SEGMENTS] = Default::default();
        let headers = slices
            .iter()
            .zip(&mut controls)
            .map(|(s, c)| MMsgHdr::new_with_addr(&address, s, c));

        let mut headers: Vec<MMsgHdr<'_>> = headers.collect();
        let mut taken = 0;
        while taken < headers.len() {
            match sendmmsg(&self.own.socket, &mut headers[taken..], SendFlags::empty())
                .map_err(io::Error::from)
            {
                Ok(more) => {
                    self.expect_echoes(to, more);
                    taken += more;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if taken == 0 && is_refusal(&e) => {
                    return self.fall_back(
                        Offload::Single,
                        &e,
                        self.send_singly(to, contents, segment),
                    );
                }
                Err(e) => return settle(Err(e), taken * segment),
            }
        }

        Ok(SendOutcome::Sent)
    }

    fn send_singly(
        &self,
        to: SocketAddr,
        contents: &[u8],
        segment: usize,
    ) -> io::Result<SendOutcome> {
        for (taken, datagram) in contents.chunks(segment).enumerate() {
            let outcome = settle(self.transmit(to, datagram, None), taken * segment)?;
            if outcome != SendOutcome::Sent {
                return Ok(outcome);
            }
        }
        Ok(SendOutcome::Sent)
    }

    /// Sends one packet: a datagram, or a train of datagrams of `segment` bytes.
    fn transmit(
        &self,
        destination: SocketAddr,
        contents: &[u8],
        segment: Option<usize>,
    ) -> io::Result<()> {
        let transmit = Transmit {
            destination,
            ecn: None,
            contents,
            segment_size: segment,
            src_ip: None,
        };

        self.own
            .state
            .try_send(UdpSockRef::from(&self.own.socket), &transmit)?;
        self.expect_echoes(destination, 1);
        Ok(())
    }

    fn expect_echoes(&self, to: SocketAddr, packets: usize) {
        if let Some(echoes) = self.echoes.as_ref().filter(|_| to == self.group()) {
            echoes.fetch_add(packets as u64, Ordering::Relaxed);
        }
    }

    /// Switches to `lesser` if `outcome` shows that it works where the better mode met `refusal`.
    /// Otherwise the fault lies elsewhere (older kernels return EINVAL for an oversized segment in
    /// a train) and the better mode stays.
    fn fall_back(
        &self,
        lesser: Offload,
        refusal: &io::Error,
        outcome: io::Result<SendOutcome>,
    ) -> io::Result<SendOutcome> {
        let went = match outcome {
            Ok(SendOutcome::Sent) => true,
            Ok(SendOutcome::Blocked { sent, .. }) => sent > 0,
            Ok(SendOutcome::TooLarge) | Err(_) => false,
        };

        // The first send to find the lesser mode sets it, and logs once.
        if went && self.offload.fetch_max(lesser as u8, Ordering::Relaxed) < lesser as u8 {
            tracing::info!(
                "sending falls back to {lesser:?}: {} refuses the better mode: {refusal}",
                self.interface().name
            );
        }

        outcome
    }
}

fn check(contents: &[u8], segment: usize) -> io::Result<()> {
    let refuse = |why: String| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    let bytes = contents.len();
    let most = if contents.len() <= segment {
        MAX_DATAGRAM
    } else {
        MAX_SEND_BYTES
    };

    if bytes == 0 || segment == 0 {
        return refuse("nothing to send".to_owned());
    }

    if bytes > most || bytes.div_ceil(segment) > MAX_SEGMENTS {
        return refuse(format!(
            "{bytes} bytes in segments of {segment} are too many for one send"
        ));
    }

    Ok(())
}

/// Errors of an unsupported mode: from a driver without checksum offload, a kernel without the
/// call, and the like.
fn is_refusal(error: &io::Error) -> bool {
    matches!(
        errno(error),
        Some(Errno::EIO | Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP)
    )
}

/// Maps the result of the last call to an outcome, after `sent` bytes.
fn settle(result: io::Result<()>, sent: usize) -> io::Result<SendOutcome> {
    let Err(error) = result else {
        return Ok(SendOutcome::Sent);
    };

    match errno(&error) {
        Some(Errno::EAGAIN) => Ok(SendOutcome::Blocked {
            sent,
            retry_after: None,
        }),
        Some(Errno::ENOBUFS | Errno::ENOMEM) => Ok(SendOutcome::Blocked {
            sent,
            retry_after: Some(RETRY_AFTER_ENOBUFS),
        }),
        Some(Errno::EMSGSIZE) => Ok(SendOutcome::TooLarge),
        _ => Err(error),
    }
}

fn errno(error: &io::Error) -> Option<Errno> {
    error.raw_os_error().map(Errno::from_raw)
}

/// Cuts a train into datagrams; returns their number. An empty train is one empty datagram.
fn cut<'a>(train: &'a mut [u8], segment: usize, mut each: impl FnMut(&'a mut [u8])) -> usize {
    if segment == 0 || train.len() <= segment {
        each(train);
        return 1;
    }
    train.chunks_mut(segment).map(each).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::{collect, free_port, loopback};
    use crate::net::{Interest, Poller, sys};

    /// 32 different datagrams, the last one short.
    fn train(segment: usize) -> Vec<u8> {
        let bytes = (MAX_SEGMENTS - 1) * segment + segment / 2;
        (0..bytes)
            .map(|i| (i / segment * 7 + i % 251) as u8)
            .collect()
    }

    fn pair(offload: Offload) -> Option<(Link, Link)> {
        let port = free_port();
        Some((
            loopback("224.0.0.108", port, offload)?,
            loopback("224.0.0.108", port, offload)?,
        ))
    }

    #[test]
    fn a_train_arrives_complete_and_in_order_whichever_way_it_goes() {
        for offload in [Offload::Full, Offload::Batched, Offload::Single] {
            let Some((a, b)) = pair(offload) else { return };

            for segment in [2, 1472, 2000] {
                let sent = train(segment);
                for (to, channel) in [(a.group(), Channel::Group), (b.local(), Channel::Own)] {
                    assert_eq!(
                        a.send(to, &sent, segment).unwrap(),
                        SendOutcome::Sent,
                        "{offload:?} {segment}"
                    );

                    let got = collect(&b, channel, MAX_SEGMENTS);
                    assert!(
                        sent.chunks(segment).eq(got.iter().map(Vec::as_slice)),
                        "{offload:?} {segment}"
                    );
                }
            }

            assert_eq!(
                (a.drops().unwrap(), b.drops().unwrap()),
                (0, 0),
                "{offload:?}"
            );
        }
    }

    #[test]
    fn a_train_is_read_in_one_call() {
        let Some((a, b)) = pair(Offload::Full) else {
            return;
        };

        if a.offload() != Offload::Full || b.group.state.gro_segments() == 1 {
            return eprintln!("skipped: this kernel has no UDP GSO or GRO");
        }

        assert_eq!(
            a.send(a.group(), &train(1472), 1472).unwrap(),
            SendOutcome::Sent
        );
        Poller::new()
            .unwrap()
            .wait(&b, Interest::READ, None)
            .unwrap();

        let mut batch = RecvBatch::new();
        let mut stamps = Vec::new();
        assert_eq!(
            b.recv(Channel::Group, &mut batch, |d| stamps.push(d.stamp))
                .unwrap(),
            MAX_SEGMENTS
        );

        assert!(stamps[0].is_some() && stamps.iter().all(|s| *s == stamps[0]));
    }

    #[test]
    fn a_link_that_falls_back_still_understands_trains_of_others() {
        let port = free_port();
        let open = |offload| loopback("224.0.0.108", port, offload);
        let (Some(a), Some(b)) = (open(Offload::Full), open(Offload::Single)) else {
            return;
        };

        let sent = train(1472);
        assert_eq!(a.send(a.group(), &sent, 1472).unwrap(), SendOutcome::Sent);
        assert!(
            sent.chunks(1472)
                .eq(collect(&b, Channel::Group, MAX_SEGMENTS)
                    .iter()
                    .map(Vec::as_slice))
        );
    }

    #[test]
    fn a_refused_train_goes_out_as_datagrams_and_the_link_remembers() {
        let Some((a, b)) = pair(Offload::Full) else {
            return;
        };

        if a.offload() != Offload::Full {
            return eprintln!("skipped: this kernel has no UDP GSO");
        }

        // The kernel refuses trains of a socket without checksums, as it does for drivers that
        // cannot compute them.
        sys::send_no_checksums(&a.own.socket).unwrap();
        let sent = train(1000);
        for _ in 0..2 {
            assert_eq!(a.send(a.group(), &sent, 1000).unwrap(), SendOutcome::Sent);
            assert!(
                sent.chunks(1000)
                    .eq(collect(&b, Channel::Group, MAX_SEGMENTS)
                        .iter()
                        .map(Vec::as_slice))
            );
            assert_eq!(a.offload(), Offload::Batched);
        }

        assert_eq!(a.drops().unwrap(), 0);
    }

    #[test]
    fn many_trains_arrive_or_block_and_nothing_is_sent_twice() {
        const TRAINS: usize = 100;
        for offload in [Offload::Full, Offload::Batched, Offload::Single] {
            let Some((a, b)) = pair(offload) else { return };
            let poller = Poller::new().unwrap();
            let sent = train(1472);
            for _ in 0..TRAINS {
                let mut rest = sent.as_slice();
                while let SendOutcome::Blocked { sent, retry_after } =
                    a.send(b.local(), rest, 1472).unwrap()
                {
                    rest = &rest[sent..];
                    poller
                        .wait(
                            &a,
                            Interest {
                                write: true,
                                ..Interest::default()
                            },
                            retry_after,
                        )
                        .unwrap();
                }

                let got = collect(&b, Channel::Own, MAX_SEGMENTS);
                assert!(
                    sent.chunks(1472).eq(got.iter().map(Vec::as_slice)),
                    "{offload:?}"
                );
            }
        }
    }

    #[test]
    fn what_is_too_much_is_refused_before_the_kernel_sees_it() {
        let Some((a, _)) = pair(Offload::Full) else {
            return;
        };

        let bytes = vec![0; 70_000];
        for (length, segment) in [(0, 10), (10, 0), (33, 1), (65_001, 3_000), (65_508, 65_508)] {
            let error = a.send(a.group(), &bytes[..length], segment).unwrap_err();
            assert_eq!(
                error.kind(),
                io::ErrorKind::InvalidInput,
                "{length} by {segment}"
            );
        }

        assert_eq!(
            a.send(a.group(), &bytes[..MAX_DATAGRAM], MAX_DATAGRAM)
                .unwrap(),
            SendOutcome::Sent
        );
    }

    #[test]
    fn a_datagram_over_the_mtu_is_told_apart() {
        let Some(link) = loopback("ff15::108", free_port(), Offload::Full) else {
            return;
        };

        if link.max_segment() >= MAX_DATAGRAM {
            return eprintln!("skipped: loopback's MTU is larger than any datagram");
        }

        let bytes = vec![0; link.max_segment() + 1];
        assert_eq!(
            link.send(link.local(), &bytes, bytes.len()).unwrap(),
            SendOutcome::TooLarge
        );
        assert_eq!(
            link.send(link.local(), &bytes[1..], bytes.len()).unwrap(),
            SendOutcome::Sent
        );

        assert_eq!(link.offload(), Offload::Full, "the fault was the segment's");
    }

    #[test]
    fn results_of_the_kernel_have_their_meaning() {
        let meaning = |e: Errno| settle(Err(io::Error::from_raw_os_error(e as i32)), 5).ok();
        assert_eq!(
            meaning(Errno::EAGAIN),
            Some(SendOutcome::Blocked {
                sent: 5,
                retry_after: None
            })
        );

        let hinted = SendOutcome::Blocked {
            sent: 5,
            retry_after: Some(RETRY_AFTER_ENOBUFS),
        };

        assert_eq!(meaning(Errno::ENOBUFS), Some(hinted));
        assert_eq!(meaning(Errno::EMSGSIZE), Some(SendOutcome::TooLarge));
        assert_eq!(meaning(Errno::EPERM), None);
        assert_eq!(Offload::Full.limited_to(1), Offload::Batched);

        assert_eq!(Offload::Single.limited_to(64), Offload::Single);
    }

    #[test]
    fn a_train_is_cut_where_its_datagrams_end() {
        let cuts = |bytes: &[u8], segment| {
            let mut got = Vec::new();
            assert_eq!(
                cut(&mut bytes.to_vec(), segment, |d| got.push(d.to_vec())),
                got.len()
            );
            got
        };

        assert_eq!(cuts(b"abcdefg", 3), [&b"abc"[..], b"def", b"g"]);
        assert_eq!(cuts(b"abcdef", 3), [b"abc", b"def"]);
        assert_eq!(cuts(b"ab", 3), [b"ab"]);

        assert_eq!(cuts(b"", 0), [b""]);
    }
}
