//! The server: accepts connections, and answers requests by their path.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};

use super::answer::{self, HttpAnswer};
use super::connections::{ConnectionPlace, ConnectionUse, Connections};
use super::exposition;
use super::facts::WebFacts;
use super::guard::ServerNames;
use super::listener::WebListener;
use super::page::FleetPages;
use super::snapshot::Snapshot;
use super::stream::ImpatientStream;
use crate::error::IoResultExt;
use crate::metrics::CONTENT_TYPE;
use crate::{Error, Result};

/// Longest reuse of a result.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Longest time for a request, and between two.
const REQUEST_READ_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest life of a connection; a client opens another one.
const MAX_CONNECTION_AGE: Duration = Duration::from_secs(600);
/// Largest head of a request in bytes.
const MAX_REQUEST_HEAD: usize = 16 << 10;
/// Largest number of headers of a request.
const MAX_HEADERS: usize = 64;
/// Wait after a connection that could not be accepted.
const ACCEPT_RETRY_WAIT: Duration = Duration::from_secs(1);

/// The server of a daemon.
#[derive(Debug)]
pub struct WebServer {
    facts: Arc<WebFacts>,
    hosts: ServerNames,
    connections: Arc<Connections>,
    metrics: Snapshot<String>,
    health: Snapshot<bool>,
    pages: Arc<FleetPages>,
}

impl WebServer {
    /// A server of `facts`.
    pub fn new(facts: WebFacts) -> Self {
        let facts = Arc::new(facts);
        Self {
            hosts: ServerNames::of(facts.names.clone()),
            connections: Arc::default(),
            metrics: Snapshot::new(LOOK_INTERVAL),
            health: Snapshot::new(LOOK_INTERVAL),
            pages: Arc::new(FleetPages::new(Arc::clone(&facts))),
            facts,
        }
    }

    /// Serves connections until dropped; must be called inside a runtime.
    pub async fn serve(self, listener: WebListener) -> Result<()> {
        let failed = "cannot use the socket for metrics";
        let listener = TcpListener::from_std(listener.socket).io_context(failed)?;
        let server = Arc::new(self);
        loop {
            match listener.accept().await {
                Ok((stream, _)) => Arc::clone(&server).begin(stream),
                Err(e) => {
                    tracing::warn!("metrics: {e}");
                    tokio::time::sleep(ACCEPT_RETRY_WAIT).await;
                }
            }
        }
    }

    /// Starts to serve a connection.
    fn begin(self: Arc<Self>, stream: TcpStream) {
        let place = Arc::new(self.connections.open());
        let own = Arc::clone(&place);
        let task = tokio::spawn(async move {
            if let Err(e) = self.converse(stream, own).await {
                tracing::debug!("metrics: a connection ends: {e}");
            }
        });
        place.run_by(task.abort_handle());
    }

    /// Answers the requests of a connection.
    async fn converse(
        self: Arc<Self>,
        stream: TcpStream,
        place: Arc<ConnectionPlace>,
    ) -> Result<()> {
        let local = stream.local_addr().io_context("no address")?;
        let io = TokioIo::new(ImpatientStream::new(stream));
        let service = service_fn(move |request: Request<Incoming>| {
            let server = Arc::clone(&self);
            let place = Arc::clone(&place);
            async move {
                place.set_use(ConnectionUse::Request);
                let answer = server.answer(&request, local).await;
                place.set_use(use_after(request.method(), &answer));
                Ok::<HttpAnswer, Infallible>(answer)
            }
        });

        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(REQUEST_READ_TIMEOUT)
            .max_buf_size(MAX_REQUEST_HEAD)
            .max_headers(MAX_HEADERS)
            .serve_connection(io, service);

        let broken =
            |e: hyper::Error| Error::new(crate::Kind::Io, "the connection broke").because(e);
        match tokio::time::timeout(MAX_CONNECTION_AGE, connection).await {
            Ok(done) => done.map_err(broken),
            Err(_) => Ok(()),
        }
    }

    async fn answer<T>(&self, request: &Request<T>, local: SocketAddr) -> HttpAnswer {
        if let Some(refusal) = self.hosts.refusal(request, local) {
            return refusal;
        }

        match request.uri().path() {
            "/metrics" => self.metrics().await,
            "/healthz" => self.health().await,
            path => self.pages.answer(path, request.headers()).await,
        }
    }

    async fn metrics(&self) -> HttpAnswer {
        let facts = Arc::clone(&self.facts);
        match self.metrics.get(move || exposition::render(&facts)).await {
            Some(text) => answer::of(StatusCode::OK, CONTENT_TYPE, text.as_str().to_string()),
            None => busy(),
        }
    }

    async fn health(&self) -> HttpAnswer {
        let handle = self.facts.handle.clone();
        match self
            .health
            .get(move || Some(handle.is_alive()))
            .await
            .as_deref()
        {
            Some(true) => answer::plain(StatusCode::OK, "ok\n"),
            _ => busy(),
        }
    }
}

/// Use of a connection after an answer; one to HEAD has no body.
fn use_after(method: &Method, answer: &HttpAnswer) -> ConnectionUse {
    match *method == Method::GET && answer.body().is_stream() {
        true => ConnectionUse::Stream,
        false => ConnectionUse::Idle,
    }
}

fn busy() -> HttpAnswer {
    answer::plain(
        StatusCode::SERVICE_UNAVAILABLE,
        "the network loop of this daemon does not answer\n",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_open_stream_counts_as_one() {
        let (_outbox, inbox) = tokio::sync::mpsc::channel(1);
        let events = answer::stream(inbox);
        assert_eq!(use_after(&Method::GET, &events), ConnectionUse::Stream);
        assert_eq!(use_after(&Method::HEAD, &events), ConnectionUse::Idle);
        assert_eq!(use_after(&Method::GET, &busy()), ConnectionUse::Idle);
    }
}
