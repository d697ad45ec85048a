//! What an open stream waits for beside its bytes, polled only when it was woken.
//!
//! A task polls all it waits for whenever it is woken, so with every message also a stop of the peer, a break of the engine's socket,
//! a stream that is half open: each looks under a lock whether it is woken the right way.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::AcqRel},
    },
    task::{Context, Poll, Wake, Waker},
};

use futures_util::task::AtomicWaker;

/// A future that is polled once, and then only after it was woken.
#[derive(Debug)]
pub(super) struct Seldom<'a, F> {
    future: Pin<&'a mut F>,
    woken: Arc<Woken>,
}

#[derive(Debug)]
struct Woken {
    is_due: AtomicBool,
    task: AtomicWaker,
}

impl<'a, F: Future> Seldom<'a, F> {
    pub(super) fn new(future: Pin<&'a mut F>) -> Self {
        Self { future, woken: Arc::new(Woken { is_due: AtomicBool::new(true), task: AtomicWaker::new() }) }
    }
}

impl<F: Future> Future for Seldom<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        // First: what is woken from here on wakes the task.
        self.woken.task.register(cx.waker());
        if !self.woken.is_due.swap(false, AcqRel) {
            return Poll::Pending;
        }
        let waker = Waker::from(Arc::clone(&self.woken));
        self.future.as_mut().poll(&mut Context::from_waker(&waker))
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_due.swap(true, AcqRel);
        self.task.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, future::poll_fn, pin::pin};

    use tokio::sync::{Notify, oneshot};

    use super::*;

    #[tokio::test]
    async fn a_future_is_polled_when_it_was_woken_and_not_when_its_neighbour_was() {
        let (polls, neighbour) = (Cell::new(0), Notify::new());
        let (sender, mut receiver) = oneshot::channel::<u32>();
        let watched = pin!(poll_fn(|cx| {
            polls.set(polls.get() + 1);
            Pin::new(&mut receiver).poll(cx)
        }));
        let mut watched = Seldom::new(watched);
        for _ in 0..10 {
            neighbour.notify_one();
            tokio::select! {
                biased;
                _ = &mut watched => unreachable!("nothing was sent"),
                () = neighbour.notified() => {}
            }
        }
        assert_eq!(polls.get(), 1);
        let both = async { tokio::join!(watched, async { sender.send(7) }) };
        assert_eq!(both.await, (Ok(7), Ok(())));
        assert_eq!(polls.get(), 2);
    }

    #[tokio::test]
    async fn a_future_that_is_woken_while_it_is_polled_is_polled_again() {
        let mut polls = 0;
        let watched = pin!(poll_fn(|cx| {
            polls += 1;
            cx.waker().wake_by_ref();
            if polls == 3 { Poll::Ready(()) } else { Poll::Pending }
        }));
        Seldom::new(watched).await;
        assert_eq!(polls, 3);
    }
}
