//! What a host has to do to make its tree the release: pure comparison of sorted entries.
