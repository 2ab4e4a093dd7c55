//! Commits on real directories: every kind, every crash and power cut, everything that can be in the way.

mod crash;
mod deploy;
mod edits;
mod filesystems;
mod flags;
mod indexed;
mod inherit;
mod kept;
mod kinds;
mod metadata;
mod mounted;
mod opening;
mod overlay;
mod planted;
mod power;
mod recall;
mod replaced;
mod resume;
mod shared;
mod specials;
mod swap;
mod tombstones;
mod top;
mod unread;
mod world;
