//! Events for open pages: each change of the fleet, and a comment while there is none.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use tokio::sync::mpsc::{Sender, channel};

use super::{FLEET_INTERVAL, FleetPages};
use crate::web::answer::{self, HttpAnswer};

/// Largest number of open streams.
pub(super) const MAX_EVENT_STREAMS: usize = 32;
/// Longest silence of a stream.
const COMMENT_INTERVAL: Duration = Duration::from_secs(15);
/// Largest number of events that wait for a reader.
const MAX_WAITING_EVENTS: usize = 2;

/// Begins a stream; the first event tells the present state, unless the client knows it.
pub(super) fn stream(pages: Arc<FleetPages>, headers: &HeaderMap) -> HttpAnswer {
    let Ok(permit) = Arc::clone(&pages.streams).try_acquire_owned() else {
        let text = "too many pages are open\n";
        return answer::plain(StatusCode::SERVICE_UNAVAILABLE, text);
    };

    let known = headers.get("last-event-id");
    let known = known.and_then(|id| id.to_str().ok()).map(String::from);
    let (outbox, inbox) = channel(MAX_WAITING_EVENTS);
    tokio::spawn(async move {
        let _permit = permit;
        tell(&pages, known, &outbox).await;
    });
    answer::stream(inbox)
}

/// Writes events until the client is gone.
async fn tell(pages: &FleetPages, mut known: Option<String>, outbox: &Sender<Bytes>) {
    let mut silent = Duration::ZERO;
    // Tells the client that the stream is open.
    let mut next = Some(String::from(":\n\n"));
    loop {
        if let Some(fleet) = pages.fleet().await
            && known.as_ref() != Some(&fleet.id)
        {
            let event = format!("event: change\nid: {}\ndata: {}\n\n", fleet.id, fleet.json);
            next = Some(event);
            known = Some(fleet.id.clone());
        }
        if silent >= COMMENT_INTERVAL {
            next = next.or(Some(":\n\n".into()));
        }

        if let Some(text) = next.take() {
            if outbox.send(text.into()).await.is_err() {
                return;
            }
            silent = Duration::ZERO;
        }

        tokio::select! {
            () = outbox.closed() => return,
            () = tokio::time::sleep(FLEET_INTERVAL) => silent += FLEET_INTERVAL,
        }
    }
}
