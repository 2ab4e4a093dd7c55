//! Multicast sockets, interfaces, batches.
