//! A stream with something beside it: that may look at what is read, and what is written passes as it is.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Stands beside a stream, for as long as that is open.
pub(crate) trait Companion {
    /// Reads from the stream.
    fn poll_read_from(
        &mut self,
        stream: Pin<&mut impl AsyncRead>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        stream.poll_read(cx, buffer)
    }
}

/// A stream and its companion, which is dropped after it.
#[derive(Debug)]
pub(crate) struct Passing<T, C> {
    stream: T,
    companion: C,
}

impl<T, C> Passing<T, C> {
    pub(crate) fn new(stream: T, companion: C) -> Self {
        Self { stream, companion }
    }
}

impl<T: AsyncRead + Unpin, C: Companion + Unpin> AsyncRead for Passing<T, C> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { stream, companion } = &mut *self;
        companion.poll_read_from(Pin::new(stream), cx, buffer)
    }
}

impl<T: AsyncWrite + Unpin, C: Unpin> AsyncWrite for Passing<T, C> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
