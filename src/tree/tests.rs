//! Commits on real directories: every kind, every crash, everything that can be in the way.

mod crash;
mod deploy;
mod kinds;
mod swap;
mod top;
mod unread;
mod world;
