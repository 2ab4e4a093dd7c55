//! The machines together, on a store in memory.

mod again;
mod budgets;
mod collect;
mod collect_beside;
mod collect_heads;
pub(crate) mod collector;
mod far;
mod faults;
pub(crate) mod host;
mod hostile;
mod memory;
pub(crate) mod publisher;
mod repair;
pub(crate) mod site;
pub(crate) mod store;
mod together;
