//! The machines together, on a store in memory.

mod budgets;
mod far;
mod faults;
mod hostile;
pub(crate) mod site;
pub(crate) mod store;
mod together;
