//! A connection that costs a stranger more than it costs us: whoever is slow, silent or does not read is let go.
//!
//! | while | it may take |
//! |---|---|
//! | the first request has not begun | [`FIRST`] |
//! | a head is coming | [`HEAD`], from its first byte |
//! | a request is answered | what the time limits of the routes say |
//! | nothing is asked for | [`IDLE`] |
//! | what we write is not taken | [`STALL`], from the last byte that was |
//! | the connection was upgraded | what the watch says |
//!
//! A connection at rest is closed in order. After our last byte the
//! connection is not dropped at once: what the client still sends is read and thrown away for a while ([`LINGER`]), because a
//! socket that is closed with unread bytes takes the answer back from a client that has not read it yet.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::watch,
    time::{Instant, Sleep, sleep, sleep_until},
};

/// From the handshake to the first byte of the first request.
const FIRST: Duration = Duration::from_secs(30);
/// From the first byte of a head to its last.
const HEAD: Duration = Duration::from_secs(10);
/// From an answer to the next request.
const IDLE: Duration = Duration::from_secs(60);
/// While the client takes nothing of what we write.
const STALL: Duration = Duration::from_secs(30);
/// From our end to the client's.
const LINGER: Duration = Duration::from_secs(2);
/// What is read in that time at most.
const LINGER_BYTES: usize = 4 << 20;

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    First,
    Head,
    Busy,
    Idle,
    Upgraded,
}

impl Stage {
    fn limit(self) -> Option<Duration> {
        match self {
            Self::First => Some(FIRST),
            Self::Head => Some(HEAD),
            Self::Idle => Some(IDLE),
            Self::Busy | Self::Upgraded => None,
        }
    }
}

/// What a connection is doing and since when: told by its stream and by the side that answers requests.
#[derive(Debug, Clone)]
pub(super) struct Course(Arc<watch::Sender<Since>>);

#[derive(Debug, Clone, Copy)]
struct Since {
    stage: Stage,
    began: Instant,
    /// We stop: nobody is waited for.
    hurried: bool,
}

impl Course {
    /// A connection begins.
    pub(super) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(Since { stage: Stage::First, began: Instant::now(), hurried: false })))
    }

    /// A request has come and is being answered.
    pub(super) fn begin(&self) {
        self.enter(Stage::Busy);
    }

    /// It was answered; `upgraded`: the connection is something else from now on.
    pub(super) fn end(&self, upgraded: bool) {
        self.enter(if upgraded { Stage::Upgraded } else { Stage::Idle });
    }

    /// We stop: nobody is waited for.
    pub(super) fn hurry(&self) {
        self.0.send_modify(|since| since.hurried = true);
    }

    /// Resolves once a stage has taken too long.
    pub(super) async fn overdue(&self) -> Stage {
        let mut changes = self.0.subscribe();
        loop {
            let Since { stage, began, .. } = *changes.borrow_and_update();
            // The sender is ours, so the changes do not end.
            match stage.limit() {
                None => drop(changes.changed().await),
                Some(limit) => tokio::select! {
                    biased;
                    _ = changes.changed() => {}
                    () = sleep_until(began + limit) => return stage,
                },
            }
        }
    }

    fn stage(&self) -> Stage {
        self.0.borrow().stage
    }

    fn is_hurried(&self) -> bool {
        self.0.borrow().hurried
    }

    fn enter(&self, stage: Stage) {
        self.0.send_modify(|since| (since.stage, since.began) = (stage, Instant::now()));
    }
}

/// A stream with these limits.
#[derive(Debug)]
pub(super) struct Paced<S> {
    stream: S,
    course: Course,
    /// Runs while the client takes nothing.
    writing: Option<Pin<Box<Sleep>>>,
    /// Our side has ended.
    lingering: Option<Linger>,
}

#[derive(Debug)]
struct Linger {
    until: Pin<Box<Sleep>>,
    left: usize,
}

impl<S> Paced<S> {
    pub(super) fn new(stream: S, course: Course) -> Self {
        Self { stream, course, writing: None, lingering: None }
    }

    /// What a write came to, or the end of a connection whose client takes nothing.
    fn written<T>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() || self.course.stage() == Stage::Upgraded {
            self.writing = None;
            return result;
        }
        let stalled = self.writing.get_or_insert_with(|| Box::pin(sleep(STALL)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        // A head that dribbles in has one limit, however many pieces it comes in.
        if buf.filled().len() > before && matches!(this.course.stage(), Stage::First | Stage::Idle) {
            this.course.enter(Stage::Head);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.written(cx, result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_write_vectored(cx, pieces);
        this.written(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_flush(cx);
        this.written(cx, result)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.lingering.is_none() {
            let result = Pin::new(&mut this.stream).poll_shutdown(cx);
            ready!(this.written(cx, result))?;
            this.lingering = Some(Linger { until: Box::pin(sleep(LINGER)), left: LINGER_BYTES });
        }
        let Some(linger) = &mut this.lingering else { return Poll::Ready(Ok(())) };
        let mut scratch = [0; 4 << 10];
        while linger.left > 0 && !this.course.is_hurried() {
            if linger.until.as_mut().poll(cx).is_ready() {
                break;
            }
            let mut piece = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut this.stream).poll_read(cx, &mut piece)) {
                Ok(()) if !piece.filled().is_empty() => linger.left = linger.left.saturating_sub(piece.filled().len()),
                Ok(()) | Err(_) => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}
