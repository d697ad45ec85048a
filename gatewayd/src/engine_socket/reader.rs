//! What an engine sends, read so that a conversation that says nothing holds no buffer.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, ReadBuf},
    net::tcp::ReadHalf,
};
use tokio_util::io::poll_read_buf;

/// What is read at once in a room that all streams of a thread share, bytes: most messages fit, and are copied out of it into as many
/// bytes as they have. It stays in the processor's cache, and a stream that waits for its engine holds nothing.
const SHARED: usize = 16 << 10;
/// An engine that fills that is read into buffers of the stream's own, without a copy; they double up to this while it fills them.
const MAX_OWN: usize = 64 << 10;
/// With less room than this in such a buffer a new one is taken.
const MIN_ROOM: usize = 2 << 10;
/// An engine that sent less than this at a time is back in the shared room.
const MIN_OWN: usize = 4 << 10;

thread_local! {
    static ROOM: RefCell<Box<[u8]>> = RefCell::new(vec![0; SHARED].into());
}

/// What the engine sends.
#[derive(Debug)]
pub(crate) struct EngineReader<'a> {
    socket: ReadHalf<'a>,
    /// Room of its own at a time; none: the shared one is enough.
    own: Option<usize>,
    buffer: BytesMut,
}

impl<'a> EngineReader<'a> {
    pub(super) fn new(socket: ReadHalf<'a>) -> Self {
        Self { socket, own: None, buffer: BytesMut::new() }
    }

    /// Resolves when there is something to read, be it an end or an error.
    pub(crate) async fn readable(&self) {
        // An error of the wait itself is the next read's to tell.
        let _ = self.socket.readable().await;
    }

    /// Reads what is there, at most so many bytes; none at the end.
    pub(crate) async fn read(&mut self, most: usize) -> io::Result<Bytes> {
        poll_fn(|cx| self.poll_read(cx, most)).await
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<io::Result<Bytes>> {
        match self.own {
            None => self.poll_shared(cx, most),
            Some(size) => self.poll_own(cx, size, most),
        }
    }

    fn poll_shared(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<io::Result<Bytes>> {
        ROOM.with_borrow_mut(|room| {
            let mut room = ReadBuf::new(&mut room[..most.min(SHARED)]);
            ready!(Pin::new(&mut self.socket).poll_read(cx, &mut room))?;
            let bytes = room.filled();
            if bytes.len() == SHARED {
                self.own = Some(SHARED * 2);
            }
            Poll::Ready(Ok(Bytes::copy_from_slice(bytes)))
        })
    }

    fn poll_own(&mut self, cx: &mut Context<'_>, size: usize, most: usize) -> Poll<io::Result<Bytes>> {
        let Self { socket, own, buffer } = self;
        if buffer.capacity() < MIN_ROOM {
            buffer.reserve(size);
        }
        let count = ready!(poll_read_buf(Pin::new(socket), cx, &mut (&mut *buffer).limit(most)))?;
        let is_filled = buffer.len() == buffer.capacity();
        let bytes = buffer.split().freeze();
        if count < MIN_OWN {
            (*own, *buffer) = (None, BytesMut::new());
        } else if is_filled {
            *own = Some((size * 2).min(MAX_OWN));
        }
        Poll::Ready(Ok(bytes))
    }
}
