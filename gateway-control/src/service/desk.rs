//! Small things that are written down together: what gateways tell of themselves (hello, a confirmed revision, a last sign of life),
//! and what is noted beside an answer that does not wait for it (a token was used, a sign-in was refused).
//!
//! Every write to the database waits for the disk. When ten thousand gateways come back at once, each with its hello,
//! whatever has gathered while one transaction was on its way goes into the next: nobody waits for more than two of them,
//! and one alone waits for nobody. A note is done when its transaction is, and each gets its own answer. As many notes
//! wait at most as there are watches, because a watch waits for its answer; what nobody waits for has an end of its own.
//!
//! There is one such transaction at a time, for all. Organizations take turns in it ([`Waiting`]), and it ends with the note that has
//! changed enough: a note may concern all the connections of a server, and what one of them has to do beyond a portion goes on
//! in a later transaction, after the others.

mod notes;
#[cfg(test)]
mod tests;
mod waiting;

use std::sync::{Mutex, MutexGuard, PoisonError};

use gateway_proto::{
    audit::heads::ReportedHead,
    id::{ApiTokenId, OrganizationId, UserId},
    twice::Instance,
};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::{Mutex as Turn, oneshot};

pub(super) use self::notes::Changed;
use self::waiting::Waiting;
use super::{
    GatewayCaller, Newcomer, Proof, Service, ServiceError, ServiceResult, backlog::ENTRIES_AT_ONCE, work::Who,
};

/// Notes in one transaction at most, so that people's changes never wait for long.
const NOTES_AT_ONCE: usize = 50;
/// The same of what nobody waits for.
const ASIDES_AT_ONCE: usize = 50;
/// So much of one organization waits at most that nobody waits for; more is not written down, and counted.
const ASIDES_WAITING: usize = 1_000;

/// What a gateway tells.
#[derive(Debug, Clone)]
pub(super) enum Note {
    /// It watches with this session from now on and has this revision in force; none: it does not say which process it is.
    Hello { proof: Proof, session: u64, revision: u64, version: String, newcomer: Option<Newcomer> },
    /// It has put a policy into force.
    Applied { revision: u64 },
    /// It has told what it has in force, and more waited for that than one transaction does.
    Confirmed,
    /// An older watch of it reported this head of its audit log last.
    Head(ReportedHead),
    /// The watch with this session ended; it was heard last then, and reported this head of its audit log last.
    Left { session: u64, last_heard: u64, head: Option<ReportedHead>, instance: Option<Instance> },
}

/// What is noted beside an answer.
#[derive(Debug, Clone)]
pub(super) enum Aside {
    /// A token of automation was used.
    TokenUsed(ApiTokenId),
    /// Somebody did not sign in as this user, and why.
    Refused { who: Who, user: UserId, detail: String },
}

#[derive(Debug)]
enum Matter {
    Told { caller: GatewayCaller, note: Note, answer: oneshot::Sender<ServiceResult<()>> },
    Aside(Aside),
}

impl Matter {
    fn answer(self, outcome: ServiceResult<()>) {
        let aside = match self {
            Self::Told { answer, .. } => {
                // Whoever does not wait any more has nothing to hear.
                let _ = answer.send(outcome);
                return;
            }
            Self::Aside(aside) => aside,
        };
        let Err(error) = outcome else { return };
        let error = &error as &dyn std::error::Error;
        match aside {
            Aside::TokenUsed(token) => tracing::warn!(%token, error, "the use of a token is not written down"),
            Aside::Refused { user, .. } => tracing::warn!(%user, error, "a refused sign-in is not in the audit log"),
        }
    }

    /// What is left to do of it.
    fn going_on(self) -> Self {
        match self {
            Self::Told { caller, answer, .. } => Self::Told { caller, note: Note::Confirmed, answer },
            Self::Aside(aside) => Self::Aside(aside),
        }
    }
}

/// What waits, and whose turn it is to write.
#[derive(Debug, Default)]
pub(super) struct Desk {
    waiting: Mutex<Queues>,
    turn: Turn<()>,
    dropped: Counter,
}

#[derive(Debug, Default)]
struct Queues {
    told: Waiting<Matter>,
    asides: Waiting<Matter>,
}

type Taken = (OrganizationId, Matter);

/// What came of a note.
enum Written {
    Done(ServiceResult<()>),
    /// A portion of it is.
    Part,
}

impl Desk {
    /// What was not written down because too much waited.
    pub(super) fn dropped(&self) -> Counter {
        self.dropped.clone()
    }

    fn tell(&self, caller: GatewayCaller, note: Note) -> oneshot::Receiver<ServiceResult<()>> {
        let (answer, answered) = oneshot::channel();
        self.queues().told.put(caller.organization, Matter::Told { caller, note, answer });
        answered
    }

    /// Whether there was room for it.
    fn note(&self, organization: OrganizationId, aside: Aside) -> bool {
        let mut queues = self.queues();
        if queues.asides.count_of(organization) >= ASIDES_WAITING {
            self.dropped.inc();
            return false;
        }
        queues.asides.put(organization, Matter::Aside(aside));
        true
    }

    fn take(&self) -> Vec<Taken> {
        let mut queues = self.queues();
        let mut taken = queues.told.take(NOTES_AT_ONCE);
        taken.extend(queues.asides.take(ASIDES_AT_ONCE));
        taken
    }

    /// All that somebody waits for.
    fn take_told(&self) -> Vec<Taken> {
        self.queues().told.take(usize::MAX)
    }

    /// Answers what is done and puts back what is not; whether there is such.
    fn settle(&self, taken: Vec<Taken>, written: Vec<Written>) -> bool {
        let (mut rest, mut rest_of_asides, mut parts) = (Vec::new(), Vec::new(), Vec::new());
        let mut written = written.into_iter();
        for (whose, matter) in taken {
            let is_aside = matches!(matter, Matter::Aside(_));
            match written.next() {
                Some(Written::Done(outcome)) => matter.answer(outcome),
                Some(Written::Part) => parts.push((whose, matter.going_on())),
                None if is_aside => rest_of_asides.push((whose, matter)),
                None => rest.push((whose, matter)),
            }
        }
        let goes_on = !(rest.is_empty() && rest_of_asides.is_empty() && parts.is_empty());
        let mut queues = self.queues();
        queues.told.put_back(rest);
        queues.asides.put_back(rest_of_asides);
        for (whose, matter) in parts {
            queues.told.goes_on(whose, matter);
        }
        goes_on
    }

    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Service {
    /// Writes a note down, with the others that wait.
    pub(super) async fn note(&self, caller: &GatewayCaller, note: Note) -> ServiceResult<()> {
        let answered = self.desk.tell(*caller, note);
        self.bring_turn();
        answered.await.unwrap_or(Err(ServiceError::Internal("a note was not written")))
    }

    /// Writes something down, and nobody waits for it.
    pub(super) fn note_aside(&self, organization: OrganizationId, aside: Aside) {
        if self.desk.note(organization, aside) {
            self.bring_turn();
        }
    }

    /// What was not written down beside an answer, because too much of its organization waited.
    pub fn notes_dropped(&self) -> Counter {
        self.desk.dropped()
    }

    /// Not in the caller's own task, which may be given up while it writes for others. Each note brings a turn, and a turn ends when
    /// nothing of what it took is left, so there are never fewer turns to come than are needed.
    fn bring_turn(&self) {
        let service = self.clone();
        self.commits.spawn(async move {
            let _turn = service.desk.turn.lock().await;
            while service.write_some().await {}
        });
    }

    /// Writes some of what waits; whether something of it was put back.
    async fn write_some(&self) -> bool {
        let taken = self.desk.take();
        if taken.is_empty() {
            return false;
        }
        match self.write_together(&taken).await {
            Ok(written) => self.desk.settle(taken, written),
            Err(error) if for_others(&error).is_some() => {
                self.give_up(taken, &error);
                false
            }
            Err(_) => self.write_each(taken).await,
        }
    }

    /// One of them cannot be written: the others shall not suffer for it. Whether something was put back.
    async fn write_each(&self, taken: Vec<Taken>) -> bool {
        let (mut goes_on, mut rest) = (false, taken.into_iter());
        while let Some(one) = rest.next() {
            let written = self.write_together(std::slice::from_ref(&one)).await;
            match written {
                Ok(written) => goes_on |= self.desk.settle(vec![one], written),
                Err(error) if for_others(&error).is_some() => {
                    self.give_up(std::iter::once(one).chain(rest), &error);
                    return false;
                }
                Err(error) => one.1.answer(Err(error)),
            }
        }
        goes_on
    }

    /// Whoever waits behind them would wait for the database as long again, only to hear the same.
    fn give_up(&self, taken: impl IntoIterator<Item = Taken>, error: &ServiceError) {
        for (_, matter) in taken.into_iter().chain(self.desk.take_told()) {
            matter.answer(Err(for_others(error).unwrap_or(ServiceError::Busy)));
        }
    }

    /// One transaction, which ends when it has changed enough: what came of as many as it got to. A note that is refused leaves
    /// nothing in it but who was refused the place of its gateway.
    async fn write_together(&self, taken: &[Taken]) -> ServiceResult<Vec<Written>> {
        let mut work = self.work(Who::System).await?;
        let mut written = Vec::with_capacity(taken.len());
        let mut changed = 0;
        for (whose, matter) in taken {
            if changed >= ENTRIES_AT_ONCE {
                break;
            }
            let outcome = match matter {
                Matter::Told { caller, note, .. } => work.write(caller, note).await,
                Matter::Aside(aside) => work.write_aside(*whose, aside).await,
            };
            written.push(match outcome {
                Ok(Changed { connections, is_all }) => {
                    changed += connections;
                    if is_all { Written::Done(Ok(())) } else { Written::Part }
                }
                Err(refusal @ (ServiceError::Replay(_) | ServiceError::Invalid(_) | ServiceError::RunsTwice(_))) => {
                    Written::Done(Err(refusal))
                }
                Err(error) => return Err(error),
            });
        }
        work.commit().await?;
        Ok(written)
    }
}

/// What befell the database, for one more who waits for it; none: it is about one of the notes.
fn for_others(error: &ServiceError) -> Option<ServiceError> {
    if let ServiceError::Unavailable(cause) = error {
        return cause.for_others().map(ServiceError::Unavailable);
    }
    matches!(error, ServiceError::Busy).then_some(ServiceError::Busy)
}
