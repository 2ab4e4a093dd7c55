//! The streams of object_store, awaited one item at a time.

use std::pin::Pin;

use bytes::Bytes;
use futures_core::Stream;

/// Items of a request to object_store.
pub(super) type StoreStream<T> =
    Pin<Box<dyn Stream<Item = object_store::Result<T>> + Send + 'static>>;
/// Body of an answer.
pub(super) type ByteStream = StoreStream<Bytes>;

/// Waits for the next item; `None` is the end.
pub(super) async fn next_of<S: Stream + ?Sized>(stream: &mut Pin<Box<S>>) -> Option<S::Item> {
    std::future::poll_fn(|cx| stream.as_mut().poll_next(cx)).await
}
