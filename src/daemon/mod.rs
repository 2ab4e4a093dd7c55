//! From a configuration to a running host.
