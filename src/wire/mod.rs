//! What travels: the bytes of every datagram.
//!
//! [`datagram`] is the fixed front of each datagram and the header of a data symbol, as borrowed views that are checked
//! once. [`message`] is what hosts say to each other, in CBOR with numbered positions, [`order`] the part of it that is
//! signed, [`query`] the part that asks for information. [`fragment`] cuts a message that is longer than one datagram and puts it together again under caps.
//! [`seal`] is where a group key closes datagrams, [`window`] which of them came already. Nothing here knows a socket or a session's state.

pub mod datagram;
pub mod fragment;
pub mod message;
pub mod order;
pub mod query;
pub mod seal;
pub mod window;

pub use datagram::{DATA_OVERHEAD, Datagram, Front, Symbol, SymbolHeader};
pub use message::{HostStage, Message, Phase};

/// The version of the wire format; a datagram of another is dropped and counted.
pub const VERSION: u8 = 1;
