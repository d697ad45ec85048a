//! Whoever has TLS must ask for something at once, and in HTTP/1: a stranger that says nothing is not waited for.
//!
//! The server below would wait without a limit for the bytes that tell HTTP/1 from HTTP/2, and for the next stream of an
//! HTTP/2 connection. From the first bytes of a head on it has a limit of its own.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum_server::accept::Accept;
use tokio::{
    io::{AsyncRead, ReadBuf},
    time::{Sleep, sleep},
};

use crate::passing::{Companion, Passing};

/// So many bytes tell which version is spoken (RFC 9113 §3.4); no request of HTTP/1 is shorter than this with its host.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Accepts what `inner` does, and gives each connection a time for its first bytes.
#[derive(Debug, Clone)]
pub(crate) struct PromptAcceptor<A> {
    inner: A,
    within: Duration,
}

impl<A> PromptAcceptor<A> {
    pub(crate) fn new(inner: A, within: Duration) -> Self {
        Self { inner, within }
    }
}

impl<A, I, S> Accept<I, S> for PromptAcceptor<A>
where
    A: Accept<I, S>,
    A::Future: Send + 'static,
{
    type Stream = Prompt<A::Stream>;
    type Service = A::Service;
    type Future = Pin<Box<dyn Future<Output = io::Result<(Self::Stream, Self::Service)>> + Send>>;

    fn accept(&self, stream: I, service: S) -> Self::Future {
        let (accepting, within) = (self.inner.accept(stream, service), self.within);
        Box::pin(async move {
            let (stream, service) = accepting.await?;
            Ok((prompt(stream, within), service))
        })
    }
}

/// A stream that fails unless its first bytes come in time, and are of HTTP/1.
pub(crate) type Prompt<T> = Passing<T, Option<First>>;

/// What is known until the first bytes are there.
#[derive(Debug)]
pub(crate) struct First {
    late: Pin<Box<Sleep>>,
    seen: usize,
    /// All of them are those of the preface of HTTP/2.
    is_preface: bool,
}

fn prompt<T>(stream: T, within: Duration) -> Prompt<T> {
    Passing::new(stream, Some(First { late: Box::pin(sleep(within)), seen: 0, is_preface: true }))
}

impl First {
    /// Whether enough was seen; an error is HTTP/2.
    fn look(&mut self, bytes: &[u8]) -> io::Result<bool> {
        let expected = &PREFACE[self.seen..];
        let length = bytes.len().min(expected.len());
        self.is_preface &= bytes[..length] == expected[..length];
        self.seen += length;
        if self.seen < PREFACE.len() {
            return Ok(false);
        }
        if self.is_preface { Err(io::ErrorKind::Unsupported.into()) } else { Ok(true) }
    }
}

impl Companion for Option<First> {
    fn poll_read_from(
        &mut self,
        stream: Pin<&mut impl AsyncRead>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(waiting) = self else { return stream.poll_read(cx, buffer) };
        let before = buffer.filled().len();
        match stream.poll_read(cx, buffer) {
            Poll::Ready(read) => {
                read?;
                if waiting.look(&buffer.filled()[before..])? {
                    *self = None;
                }
                Poll::Ready(Ok(()))
            }
            Poll::Pending => {
                ready!(waiting.late.as_mut().poll(cx));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, duplex},
        time::Instant,
    };

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn a_head_that_does_not_begin_in_time_is_not_waited_for() {
        for said in [&b""[..], b"P", b"PRI * HTTP/2.0\r\n"] {
            let (mut stranger, server) = duplex(1024);
            stranger.write_all(said).await.unwrap();
            let (mut server, begun) = (prompt(server, LIMIT), Instant::now());
            let error = server.read_to_end(&mut Vec::new()).await.unwrap_err();
            assert_eq!((error.kind(), begun.elapsed()), (io::ErrorKind::TimedOut, LIMIT), "{said:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn http_2_is_not_spoken_however_it_is_cut_and_http_1_has_all_the_time_it_wants_later() {
        for cut in 1..PREFACE.len() {
            let (mut stranger, server) = duplex(1024);
            let mut server = prompt(server, LIMIT);
            let mut buffer = [0; 64];
            stranger.write_all(&PREFACE[..cut]).await.unwrap();
            assert_eq!(server.read(&mut buffer).await.unwrap(), cut);
            stranger.write_all(&PREFACE[cut..]).await.unwrap();
            assert_eq!(server.read(&mut buffer).await.unwrap_err().kind(), io::ErrorKind::Unsupported);
        }
        let (mut gateway, server) = duplex(1024);
        let mut server = prompt(server, LIMIT);
        let head = b"GET /relay HTTP/1.1\r\nhost: r\r\n";
        gateway.write_all(head).await.unwrap();
        let mut buffer = [0; 64];
        assert_eq!(server.read(&mut buffer).await.unwrap(), head.len());
        tokio::time::advance(2 * LIMIT).await;
        gateway.write_all(b"\r\n").await.unwrap();
        assert_eq!(server.read(&mut buffer).await.unwrap(), 2);
    }
}
