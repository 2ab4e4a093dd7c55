//! A deterministic network of many hosts.
