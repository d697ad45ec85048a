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
            *buffer = BytesMut::with_capacity(size);
        }
        let Poll::Ready(read) = poll_read_buf(Pin::new(socket), cx, &mut (&mut *buffer).limit(most)) else {
            *buffer = BytesMut::new();
            return Poll::Pending;
        };
        let count = read?;
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

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use tokio::{
        io::AsyncWriteExt,
        net::{TcpListener, TcpStream},
    };

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dialled = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (dialled, listener.accept().await.unwrap().0)
    }

    /// Bytes whose order shows.
    fn numbered(length: usize) -> Vec<u8> {
        (0..length).map(|position| (position % 251) as u8).collect()
    }

    #[tokio::test]
    async fn bulk_and_messages_in_turn_arrive_as_they_were_sent_and_who_waits_holds_no_buffer() {
        let (mut engine, mut ours) = pair().await;
        let mut reader = EngineReader::new(ours.split().0);
        for length in [100, 3 << 20, 1, SHARED, SHARED + 1, 10, 300 << 10] {
            let sent = numbered(length);
            let reads = async {
                let mut received = Vec::new();
                while received.len() < length {
                    received.extend(reader.read(usize::MAX).await.unwrap());
                }
                received
            };
            let (written, received) = tokio::join!(engine.write_all(&sent), reads);
            written.unwrap();
            assert!(received == sent, "{length} bytes");
            assert!(length > MIN_OWN || reader.own.is_none(), "{length} bytes are no bulk");
        }
        assert!(futures_util::poll!(pin!(reader.read(usize::MAX))).is_pending());
        assert_eq!(reader.buffer.capacity(), 0);
        engine.shutdown().await.unwrap();
        assert!(reader.read(usize::MAX).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn no_more_is_read_at_a_time_than_was_asked_for() {
        let (mut engine, mut ours) = pair().await;
        let mut reader = EngineReader::new(ours.split().0);
        for most in [1, 512, SHARED, MAX_OWN / 2 + 1, MAX_OWN * 2] {
            let sent = numbered(200 << 10);
            let mut received = Vec::new();
            let reads = async {
                while received.len() < sent.len() {
                    let bytes = reader.read(most).await.unwrap();
                    assert!((1..=most.min(MAX_OWN)).contains(&bytes.len()), "{} of {most}", bytes.len());
                    received.extend(bytes);
                }
            };
            tokio::join!(async { engine.write_all(&sent).await.unwrap() }, reads);
            assert!(received == sent, "at most {most}");
        }
    }

    #[tokio::test]
    async fn two_conversations_of_one_thread_do_not_mix_what_they_read() {
        let ((mut first, mut ours), (mut second, mut others)) = (pair().await, pair().await);
        let (mut one, mut other) = (EngineReader::new(ours.split().0), EngineReader::new(others.split().0));
        first.write_all(b"first").await.unwrap();
        second.write_all(b"second").await.unwrap();
        let read = (one.read(usize::MAX).await.unwrap(), other.read(usize::MAX).await.unwrap());
        assert_eq!(read, (Bytes::from_static(b"first"), Bytes::from_static(b"second")));
    }
}
