//! A whole answer: with its length, or in chunks, as the engine streams its documents.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

/// Bytes of a chunk: small, so that most documents have several.
const CHUNK: usize = 512;

/// The body of an answer.
#[derive(Debug, Default)]
pub struct Body {
    left: Bytes,
    is_chunked: bool,
}

impl Body {
    /// With its length.
    pub fn new(bytes: Bytes) -> Self {
        Self { left: bytes, is_chunked: false }
    }

    /// In chunks.
    pub fn chunked(bytes: Bytes) -> Self {
        Self { left: bytes, is_chunked: true }
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left.is_empty() {
            return Poll::Ready(None);
        }
        let length = if self.is_chunked { self.left.len().min(CHUNK) } else { self.left.len() };
        Poll::Ready(Some(Ok(Frame::data(self.left.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty() && !self.is_chunked
    }

    fn size_hint(&self) -> SizeHint {
        match self.is_chunked {
            true => SizeHint::default(),
            false => SizeHint::with_exact(self.left.len() as u64),
        }
    }
}
