//! Figures of a running host: counters that its threads add to, and the text in which Prometheus
//! reads them.
//!
//! `cells` are the counters, plain atomics that are added to once for each batch of datagrams or
//! piece of work. `figures` are those of a host, a tree and a store, `words` their labels. `names`
//! lists every metric that is served, and `text` writes the format. Does not know who asks.

mod cells;
mod figures;
mod names;
mod text;
mod words;

pub use cells::{Counter, DurationHistogram, Gauge};
pub use figures::{HostFigures, StoreFigures, TrafficFigures, TreeFigures};
pub use names::*;
pub use text::{CONTENT_TYPE, Exposition, FamilyKind, MetricFamily};
pub use words::{
    DataWay, PerWord, RefusalCauseWord, SessionEnd, SessionRole, StoreReplyWord, TreeCondition,
    Word,
};
