//! A commit: the journal, its steps in place or the exchange of whole trees, and the undo.

pub(crate) mod aside;
mod dir_metadata;
mod dir_steps;
pub(crate) mod executor;
pub(crate) mod follow;
pub(crate) mod journal;
pub(crate) mod link_copy;
pub(crate) mod moves;
pub(crate) mod name_pair;
mod next_files;
pub(crate) mod next_tree;
pub(crate) mod refresh_index;
pub(crate) mod root_place;
pub(crate) mod run;
mod runner_dirs;
pub(crate) mod seen_names;
pub(crate) mod stand_in;
pub(crate) mod steps;
pub(crate) mod swap;
pub(crate) mod swap_follow;
pub(crate) mod swap_probe;
pub(crate) mod undo;
pub(crate) mod written_index;
