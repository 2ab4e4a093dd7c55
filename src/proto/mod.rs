//! The protocol as state machines without clock, file or socket.
