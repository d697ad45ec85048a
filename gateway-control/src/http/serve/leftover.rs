//! Requests that are answered before their body was read: no token, no such path, too large. The client may still be sending,
//! and reads the answer only then. So what is left of the body is read and thrown away, up to a limit; where there is more,
//! the answer says that the connection ends, and [`super::paced`] sees to it that the answer arrives.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use hyper::body::{Body as _, Bytes, Frame, Incoming, SizeHint};
use tokio::{sync::oneshot, time::timeout};
use tower::ServiceExt;

use super::super::MAX_BODY;

/// What is thrown away at most: a body that is just too large, and one that was not looked at.
const MOST: u64 = MAX_BODY as u64 + (64 << 10);
/// For how long.
const PATIENCE: Duration = Duration::from_secs(2);

/// The answer of the routes, after the body has been read, by them or here.
pub(super) async fn answered(router: Router, request: Request<Incoming>) -> Response {
    if request.body().is_end_stream() {
        return of_routes(router, request.map(Body::new)).await;
    }
    // Who asks whether to send the body is answered by the answer.
    let asks = request.headers().contains_key(header::EXPECT);
    let (back, mut returned) = oneshot::channel();
    let lend = |body| Lent { body: Some(body), back: Some(back), begun: false, ended: false };
    let request = request.map(|body| Body::new(lend(body)));
    let mut response = of_routes(router, request).await;
    let is_read = match returned.try_recv() {
        Ok(Rest { ended: true, .. }) => true,
        Ok(Rest { begun, body, .. }) => (begun || !asks) && drained(body).await,
        Err(_) => false,
    };
    if !is_read && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn of_routes(router: Router, request: Request) -> Response {
    router.oneshot(request).await.unwrap_or_else(|never| match never {})
}

/// Reads what is left; whether that was all.
async fn drained(mut body: Incoming) -> bool {
    if body.size_hint().lower() > MOST {
        return false;
    }
    let all = async {
        let mut left = MOST;
        while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            let Ok(frame) = frame else { return false };
            let size = frame.data_ref().map_or(0, |data| data.len() as u64);
            match left.checked_sub(size) {
                Some(less) => left = less,
                None => return false,
            }
        }
        true
    };
    timeout(PATIENCE, all).await.unwrap_or(false)
}

/// What the routes left of a body.
struct Rest {
    body: Incoming,
    /// They have begun to read it.
    begun: bool,
    /// They have read it to its end.
    ended: bool,
}

/// A body that comes back when it is dropped.
struct Lent {
    body: Option<Incoming>,
    back: Option<oneshot::Sender<Rest>>,
    begun: bool,
    ended: bool,
}

impl hyper::body::Body for Lent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.get_mut();
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        this.begun = true;
        let frame = ready!(Pin::new(body).poll_frame(cx));
        this.ended |= frame.is_none();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(|body| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, |body| body.size_hint())
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let (Some(body), Some(back)) = (self.body.take(), self.back.take()) {
            let ended = self.ended || body.is_end_stream();
            // Nobody waits for it when the connection has ended meanwhile.
            let _ = back.send(Rest { body, begun: self.begun, ended });
        }
    }
}
