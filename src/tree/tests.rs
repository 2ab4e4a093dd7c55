//! Commits on real directories: every kind of file, crashes and power cuts at every step, and
//! obstacles of all sorts.

mod awaiting;
mod crash;
mod deploy;
mod edits;
mod filesystems;
mod flags;
mod indexed;
mod indexed_host;
mod inherit;
mod kept;
mod kinds;
mod late_edits;
mod linked;
mod metadata;
mod mounted;
mod opening;
mod overlay;
mod planted;
mod power;
mod recall;
mod refused;
mod replaced;
mod resume;
mod shared;
mod specials;
mod swap;
mod tombstones;
mod top;
mod unread;
mod vandal;
mod world;
