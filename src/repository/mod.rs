//! Releases on a store that is not trusted: the formats of its objects and the machines that read
//! and write them, without I/O.

pub mod object;
