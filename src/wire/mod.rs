//! The bytes of every datagram.
//!
//! [`datagram`] is the fixed front of each datagram and the header of a data symbol, as borrowed
//! views that are checked once. [`message`] is the control messages (in `beacon`, `session` and
//! `feedback`), in CBOR with numbered positions, [`order`] their signed part, [`query`] the part
//! that requests information, with [`machine`] in its answers. [`count`] measures paths.
//! [`fragment`] cuts a message longer than one datagram and reassembles
//! it under caps. [`peer`] is the messages that find the processes of a network without multicast.
//! [`seal`] encrypts datagrams with a group key, and [`window`] detects replays.
//! This room knows neither sockets nor the state of a session.

mod beacon;
mod caps;
pub mod count;
pub mod datagram;
mod feedback;
pub mod fragment;
pub mod hold;
pub mod machine;
pub mod message;
pub mod order;
pub mod peer;
pub mod query;
pub mod relay;
pub mod seal;
mod session;
pub mod window;

pub use datagram::{DATA_OVERHEAD, Datagram, Front, Symbol, SymbolHeader};
pub use message::{HostStage, Message, StatusPhase};

/// Version of the wire format; datagrams of another version are dropped and counted.
pub const VERSION: u8 = 1;
