//! The disk: reading a tree and changing it, by handles only.
