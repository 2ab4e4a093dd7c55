//! Releases on a store: publishes them, and takes them from there by sessions like any other.
//!
//! The machines of [`crate::repository`] decide, and [`crate::store`] carries out. `requests` joins
//! the two.
//!
//! `publish` signs a release and stores it; `renew` signs only a head, or an earlier release. Both
//! run a `publication`, with its `upload_progress`, and `head_memory` knows what was there.
//!
//! `find` looks for a newer release than the `known_head` has, and loads its manifest. Then `shelf`
//! holds the blocks that a thread loads ahead of the session in `take`, for which they are a
//! `source`. `poll` looks again and again, for a daemon; `loopback` is a host of its own, for a
//! command.
//!
//! `kept` reads the entries and files of a release for people.
//!
//! `inventory`, `collect` and `copy` work on a repository as a whole, of which `whole` reads the
//! objects. `failure` words the ends of all machines.

mod collect;
mod copy;
mod failure;
mod find;
mod head_memory;
mod inventory;
mod kept;
mod known_head;
mod loopback;
mod poll;
mod publication;
mod publish;
mod renew;
mod requests;
mod rest;
mod shelf;
mod source;
mod take;
mod upload_progress;
mod whole;

pub use collect::{CheckReport, HeadKeys, check, collect};
pub use copy::{CopyReport, copy};
pub use find::{FoundRelease, LookOptions, Lookup, find};
pub use head_memory::HeadMemory;
pub use inventory::{Inventory, ListedRelease, ListedTree, inventory};
pub use kept::kept_content;
pub use known_head::KnownHead;
pub use loopback::LoopbackHost;
pub use poll::{RepositoryPoll, follow};
pub use publish::{PublishOptions, PublishedRelease, publish, publish_spec, try_repository};
pub use renew::{HeadOptions, RenewedHead, RestoredRelease, pin, renew, restore};
pub use take::{TakeOptions, pull};
pub use whole::trees_of;
