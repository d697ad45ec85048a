//! From who makes something to who takes it, the newest only.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Room for one. Cheap to clone; clones share it.
#[derive(Debug)]
pub struct Handover<T>(Arc<State<T>>);

#[derive(Debug)]
struct State<T> {
    newest: Mutex<Option<T>>,
    put: Notify,
}

impl<T> Handover<T> {
    /// Puts it there. One that nobody took yet makes room, and is given back.
    pub fn put(&self, newest: T) -> Option<T> {
        let replaced = self.lock().replace(newest);
        self.0.put.notify_one();
        replaced
    }

    /// Waits for the next one and takes it: what is taken is nobody else's, and never given back.
    pub async fn take(&self) -> T {
        loop {
            let taken = self.lock().take();
            if let Some(newest) = taken {
                return newest;
            }
            // One that was put since the look is told all the same.
            self.0.put.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<T>> {
        self.0.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Default for Handover<T> {
    fn default() -> Self {
        Self(Arc::new(State { newest: Mutex::new(None), put: Notify::new() }))
    }
}

impl<T> Clone for Handover<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, task::Poll};

    use super::*;

    #[tokio::test]
    async fn what_was_taken_is_in_use_and_no_newer_one_gives_it_back() {
        let handover = Handover::default();
        assert_eq!(handover.put(1), None);
        assert_eq!(handover.take().await, 1);
        assert_eq!(handover.put(2), None, "the first one carries data until the second takes over");
        assert_eq!(handover.put(3), Some(2), "nobody took that");
        assert_eq!(handover.take().await, 3);
    }

    #[tokio::test]
    async fn whoever_waits_gets_the_next_one_and_nothing_twice() {
        let handover = Handover::default();
        for next in 0..3 {
            let mut waiting = pin!(handover.take());
            assert!(futures_util::poll!(&mut waiting).is_pending());
            handover.put(next);
            assert_eq!(futures_util::poll!(&mut waiting), Poll::Ready(next));
        }
        // One that is not waited for any more is for the next who does.
        drop(handover.take());
        handover.put(9);
        assert_eq!(handover.take().await, 9);
    }
}
