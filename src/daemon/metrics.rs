//! The HTTP server of a daemon, from its configuration.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::HostConfig;
use crate::drive::adhoc::AdhocService;
use crate::drive::clock;
use crate::drive::host::HostHandle;
use crate::drive::repository::RepositoryPoll;
use crate::metrics::StoreFigures;
use crate::web::{WebFacts, WebListener, WebServer};

/// A server that is ready to serve.
#[derive(Debug)]
pub(super) struct WebService {
    server: WebServer,
    listener: WebListener,
}

impl WebService {
    /// The server on `listener`, if there is one.
    pub(super) fn new(
        listener: Option<WebListener>,
        config: &HostConfig,
        handle: &HostHandle,
        desk: &Arc<AdhocService>,
        repositories: &[RepositoryPoll],
    ) -> Option<Self> {
        let listener = listener?;
        let host = handle.host().name.to_string();
        let names = config.metrics.names.iter().cloned().chain([host]);
        // Trees of one repository share their counters.
        let stores: BTreeMap<String, Arc<StoreFigures>> = repositories
            .iter()
            .map(|poll| (poll.place.clone(), Arc::clone(&poll.figures)))
            .collect();

        let server = WebServer::new(WebFacts {
            handle: handle.clone(),
            desk: Arc::clone(desk),
            stores: stores.into_iter().collect(),
            started: clock::wall_seconds(),
            names: names.collect(),
        });
        let address = listener.address();
        tracing::info!("metrics on http://{address}/metrics, the fleet on http://{address}/");
        Some(Self { server, listener })
    }

    /// Serves until dropped.
    pub(super) async fn serve(self) {
        if let Err(e) = self.server.serve(self.listener).await {
            tracing::error!("no metrics: {e}");
        }
    }
}
