//! Sends trains in the best mode that the kernel and the driver take.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::errno::Errno;
use quinn_udp::{Transmit, UdpSockRef};
use rustix::net::addr::SocketAddrArg;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg};

use super::limits::{MAX_DATAGRAM, MAX_SEGMENTS, MAX_SEND_BYTES};
use super::offload::Offload;
use crate::net::Link;

/// Delay before a retry when the kernel has no memory for a packet: no socket becomes writable when
/// memory is free again.
pub const RETRY_AFTER_ENOBUFS: Duration = Duration::from_millis(1);

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

impl Link {
    /// Sends `contents` to `to` as datagrams of `segment` bytes, with a possibly shorter last one:
    /// at most [`MAX_SEGMENTS`] and [`MAX_SEND_BYTES`] (a single datagram: [`MAX_DATAGRAM`]).
    /// Errors are permanent, waiting does not help; [`Link::explain_send`] describes them.
    pub fn send(&self, to: SocketAddr, contents: &[u8], segment: usize) -> io::Result<SendOutcome> {
        check(contents, segment)?;
        if contents.len() <= segment {
            return settle(self.transmit(to, contents, None), 0);
        }

        match self.offload.get() {
            Offload::Full => self.send_train(to, contents, segment),
            Offload::Batched => self.send_batch(to, contents, segment),
            Offload::Single => self.send_singly(to, contents, segment),
        }
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
        if went && self.offload.reduce_to(lesser) {
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
pub(super) fn settle(result: io::Result<()>, sent: usize) -> io::Result<SendOutcome> {
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
