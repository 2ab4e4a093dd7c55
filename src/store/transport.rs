//! Carries requests of object_store over HTTP and checks the answers before object_store sees
//! them: its own retries, timeouts and checks are not used.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use http::response::Parts;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpResponseBody, HttpService,
};
use reqwest::header::{
    ACCEPT_ENCODING, AGE, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, DATE, ETAG, HeaderMap,
    HeaderValue, LAST_MODIFIED,
};
use reqwest::{Method, StatusCode};

use super::answer::{self, AnswerContent, AnswerFault, WantedBytes};
use super::client::Clients;
use super::download::DownloadBody;
use super::limits::Limits;
use super::list_page;
use super::refusal::{RefusalCause, StoreRefusal};
use super::speed::FLOOR_BYTES;
use super::status::StatusAnswer;
use super::upload::UploadBody;

/// Largest body other than that of a get: a page of a list.
const MAX_TEXT_BYTES: u64 = 64 << 20;
/// The most pages of a list without an object in them.
const MAX_EMPTY_PAGES: u32 = 1000;
/// Longest wait for a metadata server.
const METADATA_PATIENCE: Duration = Duration::from_secs(3);

/// The way of all requests to one store.
#[derive(Debug, Clone)]
pub(super) struct Transport {
    clients: Clients,
    limits: Arc<Limits>,
    login: Option<HeaderValue>,
    /// Pages of a list since its last object.
    empty_pages: Arc<AtomicU32>,
}

impl Transport {
    /// A transport with `login` as authorization of each request, if there is one.
    pub fn new(clients: Clients, limits: Arc<Limits>, login: Option<HeaderValue>) -> Self {
        Self {
            clients,
            limits,
            login,
            empty_pages: Arc::default(),
        }
    }

    /// Says that a list begins, or that there was an object in it.
    pub fn list_moves(&self) {
        self.empty_pages.store(0, Ordering::Relaxed);
    }

    /// Refuses a further page of a list that has no end.
    fn count_page(&self, uri: &http::Uri) -> Result<(), HttpError> {
        match self.empty_pages.fetch_add(1, Ordering::Relaxed) < MAX_EMPTY_PAGES {
            true => Ok(()),
            false => Err(refused(
                &authority_of(uri),
                RefusalCause::Answer(AnswerFault::Endless),
            )),
        }
    }

    /// Sends a request and waits for the head of the answer.
    async fn send(&self, request: HttpRequest) -> Result<reqwest::Response, HttpError> {
        let (parts, body) = request.into_parts();
        let host = authority_of(&parts.uri);
        let url = reqwest::Url::parse(&parts.uri.to_string()).map_err(|e| {
            let why = format!("its URL is not valid: {e}");
            refused(&host, RefusalCause::Unreachable(why))
        })?;

        let taken = Arc::new(AtomicU64::new(0));
        let mut request = reqwest::Request::new(parts.method, url);
        *request.headers_mut() = parts.headers;
        if body.content_length() > 0 {
            let body = UploadBody::new(body, Arc::clone(&taken), Arc::clone(&self.limits));
            *request.body_mut() = Some(reqwest::Body::wrap(body));
        }
        if let Some(login) = &self.login {
            request.headers_mut().insert(AUTHORIZATION, login.clone());
        }

        let patience = self.patience(&host);
        let client = self.clients.of(&host, request.method());
        let answer = client.execute(request);
        match while_moving(answer, patience, &taken).await {
            None => Err(refused(&host, RefusalCause::Stuck(patience))),
            Some(Err(e)) => Err(of_refusal(StoreRefusal::of_client(&host, &e))),
            Some(Ok(answer)) => {
                let header = |name| answer.headers().get(name).and_then(|v| v.to_str().ok());
                // A cache repeats the date of its copy, and tells the age.
                let is_fresh = header(AGE).is_none_or(|age| age.trim() == "0");
                let is_server = is_fresh && !self.clients.is_metadata(&host);
                if let Some(date) = header(DATE).filter(|_| is_server) {
                    self.limits
                        .manners
                        .on_date(date, tokio::time::Instant::now());
                }
                Ok(answer)
            }
        }
    }

    fn patience(&self, host: &str) -> Duration {
        match self.clients.is_metadata(host) {
            true => METADATA_PATIENCE.min(self.limits.patience),
            false => self.limits.patience,
        }
    }

    /// The body of an answer, which is given up when it stops and refused beyond `limit` bytes.
    fn bounded(&self, answer: reqwest::Response, limit: u64) -> (Parts, DownloadBody) {
        let host = host_of(&answer);
        let (parts, body) = into_parts(answer);
        let patience = self.patience(&host);
        (parts, DownloadBody::new(body, host, limit, patience))
    }

    /// Turns the answer to a get into one that object_store takes as it is.
    fn checked(
        &self,
        wanted: WantedBytes,
        answer: reqwest::Response,
    ) -> Result<HttpResponse, HttpError> {
        let status = answer.status();
        if matches!(wanted, WantedBytes::Part(_)) && status.is_success() {
            let is_part = status == StatusCode::PARTIAL_CONTENT;
            self.limits.manners.on_range(is_part);
        }
        let delivery = answer::check(&wanted, status, answer.headers())
            .map_err(|fault| refused(&host_of(&answer), RefusalCause::Answer(fault)))?;
        let limit = match wanted {
            WantedBytes::Whole { at_most } => at_most,
            WantedBytes::Part(_) => u64::MAX,
        };
        let (mut parts, body) = self.bounded(answer, limit);

        // A whole file that is cut here is a part for object_store.
        parts.status = match wanted {
            WantedBytes::Whole { .. } => StatusCode::OK,
            WantedBytes::Part(_) => StatusCode::PARTIAL_CONTENT,
        };
        parts.headers = plain_headers(&wanted, &delivery);
        parts.extensions.insert(delivery);
        Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(body)))
    }

    /// Reads a page of a list and checks it.
    async fn page(&self, answer: reqwest::Response) -> Result<HttpResponse, HttpError> {
        let host = host_of(&answer);
        let (parts, body) = self.bounded(answer, MAX_TEXT_BYTES);
        let body = HttpResponseBody::new(body).bytes().await?;
        list_page::check(&body).map_err(|fault| refused(&host, RefusalCause::Answer(fault)))?;
        Ok(HttpResponse::from_parts(parts, body.into()))
    }

    /// Turns a failed answer into an error.
    async fn refusal(&self, method: &Method, answer: reqwest::Response) -> HttpError {
        let host = host_of(&answer);
        let (parts, body) = into_parts(answer);
        let mut text = Vec::new();
        if *method != Method::HEAD {
            text = super::download::read_some(body, self.limits.patience).await;
        }

        let fault = StatusAnswer::new(parts.status.as_u16(), &parts.headers, &text);
        refused(&host, RefusalCause::Status(Box::new(fault)))
    }
}

#[async_trait]
impl HttpService for Transport {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let wanted = request.extensions().get::<WantedBytes>().cloned();
        let method = request.method().clone();
        let is_page = list_page::is_asked_by(request.uri());
        if is_page {
            self.count_page(request.uri())?;
        }

        let headers = request.headers_mut();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let answer = self.send(request).await?;
        match (wanted, answer.status()) {
            (
                Some(wanted),
                StatusCode::OK | StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE,
            ) => self.checked(wanted, answer),
            (None, status) if status.is_success() && is_page => self.page(answer).await,
            (None, status) if status.is_success() => {
                let (parts, body) = self.bounded(answer, MAX_TEXT_BYTES);
                Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(body)))
            }
            _ => Err(self.refusal(&method, answer).await),
        }
    }
}

impl HttpConnector for Transport {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

/// The headers that object_store needs, and no others: it refuses odd dates and attributes.
fn plain_headers(wanted: &WantedBytes, delivery: &AnswerContent) -> HeaderMap {
    let mut headers = HeaderMap::new();
    // Some of its interfaces need a time, which nobody reads.
    let never = HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT");
    headers.insert(LAST_MODIFIED, never);
    let length = delivery.length.unwrap_or(0);
    headers.insert(CONTENT_LENGTH, length.into());
    if let WantedBytes::Part(range) = wanted {
        let size = delivery.size.unwrap_or(range.end);
        let value = format!(
            "bytes {}-{}/{size}",
            range.start,
            range.end.saturating_sub(1)
        );
        headers.extend(HeaderValue::from_str(&value).map(|value| (CONTENT_RANGE, value)));
    }

    let etag = delivery.etag.as_deref();
    let etag = etag.and_then(|etag| HeaderValue::from_str(etag).ok());
    headers.extend(etag.map(|etag| (ETAG, etag)));
    headers
}

fn into_parts(answer: reqwest::Response) -> (Parts, reqwest::Body) {
    http::Response::<reqwest::Body>::from(answer).into_parts()
}

/// Host and port of a request, without user and password.
fn authority_of(uri: &http::Uri) -> String {
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let host = authority.rsplit_once('@');
    host.map_or(authority, |(_, host)| host).to_string()
}

fn host_of(answer: &reqwest::Response) -> String {
    let url = answer.url();
    match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (host, _) => host.unwrap_or_default().to_string(),
    }
}

fn refused(host: &str, cause: RefusalCause) -> HttpError {
    of_refusal(StoreRefusal {
        host: host.to_string(),
        cause,
    })
}

/// Wraps a refusal, so that object_store does not repeat the request.
pub(super) fn of_refusal(refusal: StoreRefusal) -> HttpError {
    HttpError::new(HttpErrorKind::Unknown, refusal)
}

/// Waits for an answer as long as the body goes out. Returns `None` if nothing moves.
async fn while_moving<T>(
    answer: impl Future<Output = T>,
    patience: Duration,
    taken: &AtomicU64,
) -> Option<T> {
    let mut answer = std::pin::pin!(answer);
    let floor = (patience.as_secs_f64() * FLOOR_BYTES as f64).max(1.0);
    let mut before = 0;
    loop {
        if let Ok(answer) = tokio::time::timeout(patience, answer.as_mut()).await {
            return Some(answer);
        }

        let now = taken.load(Ordering::Relaxed);
        if ((now - before) as f64) < floor {
            return None;
        }
        before = now;
    }
}
