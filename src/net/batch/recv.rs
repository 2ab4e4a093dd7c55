//! Receives trains and cuts them into datagrams.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::time::Duration;

use quinn_udp::{RecvMeta, UdpSockRef};

use crate::net::Link;

/// Largest number of trains in one read. One alone is as fast; more save calls when many hosts
/// report at once.
const RECV_TRAINS: usize = 8;
/// Bytes of the largest train that the kernel delivers.
const TRAIN_BYTES: usize = 64 << 10;

/// Socket of a link to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Channel {
    /// Datagrams sent to the group.
    Group,
    /// Datagrams sent to this process alone.
    Own,
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
    /// Reads the datagrams waiting on `channel`, one system call's worth, and passes each to
    /// `each`. Returns their number, 0 if none is waiting.
    pub fn recv(
        &self,
        channel: Channel,
        batch: &mut RecvBatch,
        mut each: impl FnMut(ReceivedDatagram<'_>),
    ) -> io::Result<usize> {
        let Some(endpoint) = self.endpoint(channel) else {
            return Ok(0);
        };
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
}

/// Cuts a train into datagrams; returns their number. An empty train is one empty datagram.
pub(super) fn cut<'a>(
    train: &'a mut [u8],
    segment: usize,
    mut each: impl FnMut(&'a mut [u8]),
) -> usize {
    if segment == 0 || train.len() <= segment {
        each(train);
        return 1;
    }
    train.chunks_mut(segment).map(each).count()
}
