//! The HTTP server of a daemon: metrics for Prometheus, the health of the daemon, and pages about
//! the fleet. It only reads.
//!
//! `listener` binds the address. `connections` bounds the number of connections, each a `stream`
//! with a time limit. `guard` checks each request before `routes` answers it. `snapshot` shares one
//! look at the host or its fleet among the requests of an interval, and `page` shows the fleet.
//! Every client of the address may read everything here, so nothing secret is shown.

mod answer;
mod connections;
mod exposition;
mod facts;
mod guard;
mod listener;
mod page;
mod routes;
mod snapshot;
mod stream;

pub use facts::WebFacts;
pub use listener::WebListener;
pub use routes::WebServer;
