//! The machines together, on a store in memory.

mod again;
mod budgets;
mod collect;
pub(crate) mod collector;
mod far;
mod faults;
mod hostile;
mod memory;
mod repair;
pub(crate) mod site;
pub(crate) mod store;
mod together;
