//! The machines together, on a store in memory.

mod budgets;
pub(crate) mod site;
pub(crate) mod store;
