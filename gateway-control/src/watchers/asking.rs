//! Whether the gateway of a server is there: its watch asks it, and says what it hears.

use std::time::Duration;

use gateway_proto::{
    id::ServerId,
    twice::{Instance, Life},
};
use tokio::time::timeout;

use super::{WatchSession, Watchers};

impl Watchers {
    /// What is known of the watching gateway of a server after it was asked, when another process of it has come; at the latest
    /// after `limit`. None: nobody else watches here.
    pub async fn ask(&self, server: ServerId, newcomer: Instance, limit: Duration) -> Option<Life> {
        let (number, mut answers) = {
            let registry = self.lock();
            let watcher = registry.watchers.get(&server)?;
            match watcher.instance {
                Some(instance) if instance == newcomer => return None,
                Some(_) => {}
                // Whoever does not say which process it is gives way, as it always did.
                None => return Some(Life::Gone),
            }
            watcher.asked.send_modify(|number| *number += 1);
            let number = *watcher.asked.borrow();
            (number, watcher.answered.subscribe())
        };
        let answer = timeout(limit, answers.wait_for(|answer| *answer >= number)).await;
        Some(match answer.map(|answer| answer.is_ok()) {
            Ok(true) => Life::Answers,
            Ok(false) => Life::Gone,
            Err(_) => Life::Mute,
        })
    }
}

impl WatchSession {
    /// Which process of the gateway watches.
    pub fn is_of(&self, instance: Option<Instance>) {
        self.with(|watcher, _, _| watcher.instance = instance);
    }

    /// The gateway answered the question with this number.
    pub fn answered(&self, number: u64) {
        self.with(|watcher, _, _| {
            if number <= *watcher.asked.borrow() {
                watcher.answered.send_modify(|answer| *answer = number.max(*answer));
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(2);

    fn instance(n: u8) -> Instance {
        Instance::from_random([n; 16])
    }

    fn watch(watchers: &Watchers, n: u8) -> WatchSession {
        let session = watchers.enter(ServerId::new(1, [1; 10]), watchers.next_session(), 1);
        session.is_of(Some(instance(n)));
        session
    }

    #[tokio::test(start_paused = true)]
    async fn a_gateway_that_answers_lives_and_one_that_does_not_or_leaves_is_told_apart() {
        let watchers = Watchers::default();
        let server = ServerId::new(1, [1; 10]);
        assert_eq!(watchers.ask(server, instance(2), LIMIT).await, None, "nobody is there");
        let mut session = watch(&watchers, 1);
        assert_eq!(watchers.ask(server, instance(1), LIMIT).await, None, "itself");
        assert_eq!(watchers.ask(server, instance(2), LIMIT).await, Some(Life::Mute));
        let answering = async {
            session.asked.changed().await.unwrap();
            session.answered(u64::MAX);
            let number = *session.asked.borrow_and_update();
            session.answered(number);
        };
        let (life, ()) = tokio::join!(watchers.ask(server, instance(2), LIMIT), answering);
        assert_eq!(life, Some(Life::Answers));
        let (life, ()) = tokio::join!(watchers.ask(server, instance(2), LIMIT), async { drop(session) });
        assert_eq!(life, Some(Life::Gone));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_to_an_earlier_question_and_the_word_of_an_old_gateway_count_for_nothing() {
        let watchers = Watchers::default();
        let server = ServerId::new(1, [1; 10]);
        let session = watch(&watchers, 1);
        assert_eq!(watchers.ask(server, instance(2), LIMIT).await, Some(Life::Mute));
        let late = async { session.answered(1) };
        let (life, ()) = tokio::join!(watchers.ask(server, instance(2), LIMIT), late);
        assert_eq!(life, Some(Life::Mute));
        session.is_of(None);
        assert_eq!(watchers.ask(server, instance(2), LIMIT).await, Some(Life::Gone));
    }
}
