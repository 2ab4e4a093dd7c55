//! Datagrams: a borrowed view and a validated struct for each.
