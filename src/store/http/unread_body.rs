//! The rest of a body that its handler did not want.
//!
//! A request that is refused for its token or its size is refused before its body is read. Were the rest left on the
//! connection, the connection would have to end: without a word, while the client, or Envoy for its next request, is
//! about to use it again.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::{HeaderValue, Version, header};
use axum::middleware::Next;
use axum::response::Response;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Most bytes that are thrown away to keep a connection.
const MOST: u64 = 1024 * 1024;

/// How long the rest may take to come. It is on its way, or it is withheld.
const PATIENCE: Duration = Duration::from_millis(200);

/// How many are waited for at a time: strangers who withhold what they announced shall hold few connections.
static WAITED_FOR: Semaphore = Semaphore::const_new(16);

/// Reads the rest of the body after the handler; where that is too long, or too slow, or where too many are waited for
/// already, the answer says that the connection ends.
pub async fn discard(request: Request, next: Next) -> Response {
    // In HTTP/2 only the stream ends.
    if request.version() >= Version::HTTP_2 || request.body().is_end_stream() {
        return next.run(request).await;
    }
    // Whoever waits for a word before sending the body need not send it any more.
    let waits = request.headers().contains_key(header::EXPECT);
    let (parts, body) = request.into_parts();
    let body = SharedBody(Arc::new(Mutex::new(State { body, has_ended: false })));
    let mut response = next.run(Request::from_parts(parts, Body::new(body.clone()))).await;
    let has_ended = body.has_ended();
    if !has_ended && (waits || !body.discard_soon().await) {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// A body that can still be read when the handler has dropped it.
#[derive(Clone)]
struct SharedBody(Arc<Mutex<State>>);

struct State {
    body: Body,
    has_ended: bool,
}

impl SharedBody {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_ended(&self) -> bool {
        let state = self.state();
        state.has_ended || state.body.is_end_stream()
    }

    /// Reads to the end, unless that takes too long or others take too long already; whether that was reached.
    async fn discard_soon(self) -> bool {
        let Ok(_permit) = WAITED_FOR.try_acquire() else { return false };
        timeout(PATIENCE, self.discard()).await.unwrap_or(false)
    }

    /// Reads to the end; false if that is too far away.
    async fn discard(mut self) -> bool {
        let length = |data: &Bytes| u64::try_from(data.len()).unwrap_or(u64::MAX);
        let mut bytes = 0_u64;
        while bytes.saturating_add(self.size_hint().lower()) <= MOST {
            match std::future::poll_fn(|context| Pin::new(&mut self).poll_frame(context)).await {
                Some(Ok(frame)) => bytes = bytes.saturating_add(frame.data_ref().map_or(0, length)),
                Some(Err(_)) => return false,
                None => return true,
            }
        }
        false
    }
}

impl HttpBody for SharedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, axum::Error>>> {
        let mut state = self.state();
        let polled = Pin::new(&mut state.body).poll_frame(context);
        state.has_ended |= matches!(polled, Poll::Ready(None));
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.has_ended()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.state().body.size_hint()
    }
}
