//! The front of every datagram, and the header of a data symbol.
//!
//! ```text
//! front    0  "mk"          2 bytes
//!          2  version       1
//!          3  kind          1   1 control, 2 data, 3 peer, 4 data to pass on; 0x80 more
//!                                  when sealed
//!          4  source        8   instance id of the sending process
//!         12  counter       8   datagrams of that process and kind, from 1: gaps are losses
//! control 20  message id    4   + fragment index 1 + fragment count 1 + bytes
//! data    20  session       8
//!         28  generation    4
//!         32  row           2   below the generation's rows: the payload itself; above: coded
//!         34  column        1
//!         35  columns       1   symbols a row
//!         36  payload size  4   bytes of the whole generation
//!         40  sent          4   the sender's clock in microseconds, wrapping
//!         44  symbol            the session's symbol size; the last of a payload may be shorter
//! peer    20  message           see [`super::peer`]
//! ```
//! Numbers are big-endian.

use crate::id::{Generation, InstanceId, SessionId};

/// Bytes of the front.
pub const FRONT: usize = 20;
/// Bytes of a data datagram before its symbol.
pub const DATA_OVERHEAD: usize = 44;
/// Bytes of a control datagram before its fragment.
pub const CONTROL_OVERHEAD: usize = 26;

pub(super) const DATAGRAM_MAGIC: [u8; 2] = *b"mk";
const CONTROL: u8 = 1;
pub(super) const DATA: u8 = 2;
pub(super) const PEER: u8 = 3;
/// Data that the host which receives it from its sender passes on to all others.
pub(super) const RELAYED: u8 = 4;
/// Offset of the kind in a datagram.
pub(super) const KIND: usize = 3;
/// Flag in the kind of a sealed datagram.
pub(super) const SEALED: u8 = 0x80;

/// Source and number of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Front {
    /// The sending process.
    pub source: InstanceId,
    /// Number of the datagram among those of the process and kind.
    pub counter: u64,
}

/// Fragment of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragment<'a> {
    /// Number of the message among those of the process.
    pub message: u32,
    /// Index of the fragment.
    pub index: u8,
    /// Number of fragments; at least 1.
    pub count: u8,
    /// Bytes of the fragment.
    pub bytes: &'a [u8],
}

/// Position of a symbol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SymbolHeader {
    /// The session.
    pub session: SessionId,
    /// Generation within the session.
    pub generation: Generation,
    /// Row of the generation.
    pub row: u16,
    /// Column within the row, below `columns`.
    pub column: u8,
    /// Symbols in a row; at least 1.
    pub columns: u8,
    /// Bytes of the generation's payload.
    pub payload: u32,
    /// The sender's clock in microseconds, wrapping.
    pub sent: u32,
}

/// Data symbol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Symbol<'a> {
    /// Position of the symbol.
    pub header: SymbolHeader,
    /// Content; not empty.
    pub bytes: &'a [u8],
}

/// Checked view of one datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Datagram<'a> {
    /// Fragment of a message.
    Control(Front, Fragment<'a>),
    /// Data symbol.
    Data(Front, Symbol<'a>),
    /// Message between peers of a network without multicast.
    Peer(Front, &'a [u8]),
}

/// Reason why a datagram was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DatagramError {
    /// Not from makuo, or truncated.
    #[error("not a makuo datagram")]
    Foreign,
    /// Another version of the wire format.
    #[error("wire format version {0}, this makuo supports {version}", version = super::VERSION)]
    Version(u8),
    /// Contradicting fields.
    #[error("malformed datagram")]
    Malformed,
}

impl<'a> Datagram<'a> {
    /// Parses a datagram.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, DatagramError> {
        if bytes.len() < FRONT || bytes[..2] != DATAGRAM_MAGIC {
            return Err(DatagramError::Foreign);
        }

        if bytes[2] != super::VERSION {
            return Err(DatagramError::Version(bytes[2]));
        }

        let front = Front {
            source: InstanceId(u64_at(bytes, 4)),
            counter: u64_at(bytes, 12),
        };

        match bytes[3] {
            CONTROL => parse_fragment(bytes).map(|fragment| Datagram::Control(front, fragment)),
            DATA | RELAYED => parse_symbol(bytes).map(|symbol| Datagram::Data(front, symbol)),
            PEER => Ok(Datagram::Peer(front, &bytes[FRONT..])),
            _ => Err(DatagramError::Malformed),
        }
    }
}

fn parse_fragment(bytes: &[u8]) -> Result<Fragment<'_>, DatagramError> {
    if bytes.len() <= CONTROL_OVERHEAD {
        return Err(DatagramError::Malformed);
    }

    let fragment = Fragment {
        message: u32_at(bytes, 20),
        index: bytes[24],
        count: bytes[25],
        bytes: &bytes[CONTROL_OVERHEAD..],
    };

    if fragment.index < fragment.count {
        Ok(fragment)
    } else {
        Err(DatagramError::Malformed)
    }
}

fn parse_symbol(bytes: &[u8]) -> Result<Symbol<'_>, DatagramError> {
    if bytes.len() <= DATA_OVERHEAD {
        return Err(DatagramError::Malformed);
    }

    let header = SymbolHeader {
        session: SessionId(u64_at(bytes, 20)),
        generation: Generation(u32_at(bytes, 28)),
        row: u16::from_be_bytes([bytes[32], bytes[33]]),
        column: bytes[34],
        columns: bytes[35],
        payload: u32_at(bytes, 36),
        sent: u32_at(bytes, 40),
    };

    if header.column < header.columns {
        Ok(Symbol {
            header,
            bytes: &bytes[DATA_OVERHEAD..],
        })
    } else {
        Err(DatagramError::Malformed)
    }
}

/// Appends a data datagram.
pub fn write_symbol(out: &mut Vec<u8>, front: Front, header: SymbolHeader, symbol: &[u8]) {
    write_front(out, front, DATA);
    write_symbol_body(out, header, symbol);
}

/// Appends a data datagram that the host which receives it from the sender passes on.
pub fn write_relayed_symbol(out: &mut Vec<u8>, front: Front, header: SymbolHeader, symbol: &[u8]) {
    write_front(out, front, RELAYED);
    write_symbol_body(out, header, symbol);
}

fn write_symbol_body(out: &mut Vec<u8>, header: SymbolHeader, symbol: &[u8]) {
    out.extend_from_slice(&header.session.0.to_be_bytes());
    out.extend_from_slice(&header.generation.0.to_be_bytes());
    out.extend_from_slice(&header.row.to_be_bytes());
    out.extend_from_slice(&[header.column, header.columns]);
    out.extend_from_slice(&header.payload.to_be_bytes());
    out.extend_from_slice(&header.sent.to_be_bytes());

    out.extend_from_slice(symbol);
}

/// Appends a control datagram.
pub fn write_fragment(out: &mut Vec<u8>, front: Front, fragment: Fragment<'_>) {
    write_front(out, front, CONTROL);
    out.extend_from_slice(&fragment.message.to_be_bytes());
    out.extend_from_slice(&[fragment.index, fragment.count]);
    out.extend_from_slice(fragment.bytes);
}

/// Appends a peer datagram.
pub fn write_peer(out: &mut Vec<u8>, front: Front, message: &[u8]) {
    write_front(out, front, PEER);
    out.extend_from_slice(message);
}

/// Returns whether a datagram that is not sealed is a message between peers.
pub fn is_peer(datagram: &[u8]) -> bool {
    datagram.get(KIND) == Some(&PEER)
}

/// Returns whether a datagram that is not sealed is a data symbol.
pub fn is_data(datagram: &[u8]) -> bool {
    matches!(datagram.get(KIND), Some(&(DATA | RELAYED)))
}

/// Returns whether a datagram, sealed or not, is to be passed on.
pub fn is_relayed(datagram: &[u8]) -> bool {
    datagram
        .get(KIND)
        .is_some_and(|kind| kind & !SEALED == RELAYED)
}

/// Makes a datagram that is not sealed, and that hosts would pass on, one that they do not.
pub fn set_direct(datagram: &mut [u8]) {
    if is_relayed(datagram) {
        datagram[KIND] = DATA;
    }
}

fn write_front(out: &mut Vec<u8>, front: Front, kind: u8) {
    out.extend_from_slice(&DATAGRAM_MAGIC);
    out.extend_from_slice(&[super::VERSION, kind]);
    out.extend_from_slice(&front.source.0.to_be_bytes());
    out.extend_from_slice(&front.counter.to_be_bytes());
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut four = [0; 4];
    four.copy_from_slice(&bytes[at..at + 4]);
    u32::from_be_bytes(four)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(&bytes[at..at + 8]);
    u64::from_be_bytes(eight)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn symbols_come_back(
            source: u64,
            counter: u64,
            session: u64,
            generation: u32,
            row: u16,
            columns in 1..=64u8,
            payload: u32,
            sent: u32,
            symbol in prop::collection::vec(any::<u8>(), 1..100),
        ) {
            let front = Front { source: InstanceId(source), counter };
            let header = SymbolHeader {
                session: SessionId(session),
                generation: Generation(generation),
                row,
                column: columns - 1,
                columns,
                payload,
                sent,
            };

            let mut bytes = Vec::new();
            write_symbol(&mut bytes, front, header, &symbol);

            let symbol = Symbol { header, bytes: &symbol };
            prop_assert_eq!(Datagram::parse(&bytes), Ok(Datagram::Data(front, symbol)));
        }

        #[test]
        fn pieces_come_back(
            message: u32,
            count in 1..=255u8,
            bytes in prop::collection::vec(any::<u8>(), 1..100),
        ) {
            let front = Front { source: InstanceId(7), counter: 9 };
            let fragment = Fragment { message, index: count - 1, count, bytes: &bytes };
            let mut out = Vec::new();
            write_fragment(&mut out, front, fragment);
            prop_assert_eq!(Datagram::parse(&out), Ok(Datagram::Control(front, fragment)));
        }

        #[test]
        fn any_bytes_are_parsed_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = Datagram::parse(&bytes);
            let mut near = b"mk\x01\x02".to_vec();
            near.extend_from_slice(&bytes);
            let _ = Datagram::parse(&near);
        }
    }

    #[test]
    fn another_version_is_told_apart_from_noise() {
        let mut bytes = vec![b'm', b'k', 9, 1];
        bytes.resize(40, 0);
        assert_eq!(Datagram::parse(&bytes), Err(DatagramError::Version(9)));
        assert_eq!(
            Datagram::parse(b"GET / HTTP/1.1\r\nHost: x"),
            Err(DatagramError::Foreign)
        );
    }
}
