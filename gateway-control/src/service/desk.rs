//! What gateways tell of themselves, written down together: hello, a confirmed revision, a last sign of life.
//!
//! Every write to the database waits for the disk. When ten thousand gateways come back at once, each with its hello,
//! whatever has gathered while one transaction was on its way goes into the next: nobody waits for more than two of them,
//! and one alone waits for nobody. A note is done when its transaction is, and each gets its own answer. As many notes
//! wait at most as there are watches, because a watch waits for its answer.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use gateway_proto::audit::heads::ReportedHead;
use tokio::sync::{Mutex as Turn, oneshot};

use super::{GatewayCaller, Proof, Service, ServiceError, ServiceResult, Work, gateways::USED_BEFORE, work::Who};
use crate::storage::ServerRow;

/// Notes in one transaction at most, so that people's changes never wait for long.
const NOTES_AT_ONCE: usize = 50;
/// Revisions are times: those from a later time than tomorrow cannot have come from us.
const REVISION_AHEAD_MS: u64 = 24 * 3600 * 1000;

/// What a gateway tells.
#[derive(Debug, Clone)]
pub(super) enum Note {
    /// It watches with this session from now on and has this revision in force.
    Hello { proof: Proof, session: u64, revision: u64, version: String },
    /// It has put a policy into force.
    Applied { revision: u64 },
    /// The watch with this session ended; it was heard last then, and reported this head of its audit log last.
    Left { session: u64, last_heard: u64, head: Option<ReportedHead> },
}

#[derive(Debug)]
struct Entry {
    caller: GatewayCaller,
    note: Note,
    answer: oneshot::Sender<ServiceResult<()>>,
}

/// The notes that wait, and whose turn it is to write.
#[derive(Debug, Default)]
pub(super) struct Desk {
    waiting: Mutex<VecDeque<Entry>>,
    turn: Turn<()>,
}

impl Desk {
    fn put(&self, entry: Entry) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push_back(entry);
    }

    fn take(&self) -> Vec<Entry> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let count = waiting.len().min(NOTES_AT_ONCE);
        waiting.drain(..count).collect()
    }
}

impl Service {
    /// Writes a note down, with the others that wait.
    pub(super) async fn note(&self, caller: &GatewayCaller, note: Note) -> ServiceResult<()> {
        let (answer, answered) = oneshot::channel();
        self.desk.put(Entry { caller: *caller, note, answer });
        let service = self.clone();
        // Not in the caller's own task, which may be given up while it writes for others. Each note brings a turn, so
        // there are never fewer turns to come than are needed.
        self.commits.spawn(async move { service.write_notes().await });
        answered.await.unwrap_or(Err(ServiceError::Internal("a note was not written")))
    }

    async fn write_notes(&self) {
        let _turn = self.desk.turn.lock().await;
        let entries = self.desk.take();
        if entries.is_empty() {
            return;
        }
        match self.write_together(&entries).await {
            Ok(outcomes) => {
                for (entry, outcome) in entries.into_iter().zip(outcomes) {
                    // Whoever does not wait any more has nothing to hear.
                    let _ = entry.answer.send(outcome);
                }
            }
            Err(ServiceError::Unavailable(_) | ServiceError::Busy) => {
                for entry in entries {
                    let _ = entry.answer.send(Err(ServiceError::Busy));
                }
            }
            // One of them cannot be written: the others shall not suffer for it.
            Err(_) => {
                for entry in entries {
                    let outcome = self.write_together(std::slice::from_ref(&entry)).await;
                    let outcome = outcome.and_then(|outcomes| outcomes.into_iter().next().unwrap_or(Ok(())));
                    let _ = entry.answer.send(outcome);
                }
            }
        }
    }

    /// One transaction; a note that is refused leaves nothing in it.
    async fn write_together(&self, entries: &[Entry]) -> ServiceResult<Vec<ServiceResult<()>>> {
        let mut work = self.work(Who::System).await?;
        let mut outcomes = Vec::with_capacity(entries.len());
        for entry in entries {
            outcomes.push(match work.write(&entry.caller, &entry.note).await {
                Ok(()) => Ok(()),
                Err(refusal @ (ServiceError::Replay(_) | ServiceError::Invalid(_))) => Err(refusal),
                Err(error) => return Err(error),
            });
        }
        work.commit().await?;
        Ok(outcomes)
    }
}

impl Work {
    async fn write(&mut self, caller: &GatewayCaller, note: &Note) -> ServiceResult<()> {
        self.told_by(caller.server);
        let server = self.server(caller.server).await?;
        // Removed or replaced meanwhile, it has nothing to say.
        let Some(server) = server.filter(|server| server.gateway == Some(caller.key)) else { return Ok(()) };
        match note {
            Note::Hello { proof, session, revision, version } => {
                self.hello(server, proof, *session, *revision, version).await
            }
            Note::Applied { revision } => self.applied(server, *revision).await,
            Note::Left { session, last_heard, head } => {
                if let Some(head) = head {
                    self.enter_head(server.id, caller.key, head.clone(), true).await?;
                }
                self.left(server, *session, *last_heard).await
            }
        }
    }

    async fn hello(
        &mut self,
        mut server: ServerRow,
        proof: &Proof,
        session: u64,
        revision: u64,
        version: &str,
    ) -> ServiceResult<()> {
        let newest = self.policy_revision(server.id).await?;
        if revision > newest.max(self.now_ms() + REVISION_AHEAD_MS) {
            return Err(ServiceError::Invalid("no policy has such a revision".to_owned()));
        }
        if !self.spend_nonce(&proof.digest, proof.until).await? {
            return Err(ServiceError::Replay(USED_BEFORE));
        }
        server.gateway_version = Some(version.chars().filter(|c| !c.is_control()).take(60).collect());
        server.last_seen_at = Some(self.now);
        if revision > newest {
            self.floors.insert(server.id, revision);
            self.touch(server.id);
            tracing::warn!(server = %server.id, revision, newest, "a gateway has a newer policy than the storage: raised");
            server.applied_revision = 0;
            self.take_out_of_force(server.id, 0).await?;
        } else if revision == newest {
            server.applied_revision = revision;
        } else if revision < server.applied_revision {
            // What lies between may be from a time that the storage does not remember.
            server.applied_revision = revision;
            self.take_out_of_force(server.id, revision).await?;
        }
        self.update_server(&server).await?;
        self.watches_here(server.id, session).await?;
        self.confirm(&server).await
    }

    async fn applied(&mut self, mut server: ServerRow, revision: u64) -> ServiceResult<()> {
        let newest = self.policy_revision(server.id).await?;
        if revision > newest {
            return Err(ServiceError::Invalid("that revision was never given out".to_owned()));
        }
        let settled = revision < newest || server.policy_problem.is_none();
        if revision <= server.applied_revision && settled {
            // Said before: nothing to write, and nobody to wake.
            return Ok(());
        }
        server.applied_revision = revision.max(server.applied_revision);
        server.last_seen_at = Some(self.now);
        if revision == newest {
            server.policy_problem = None;
        }
        self.update_server(&server).await?;
        self.confirm(&server).await
    }

    async fn left(&mut self, mut server: ServerRow, session: u64, last_heard: u64) -> ServiceResult<()> {
        server.last_seen_at = Some(last_heard);
        self.update_server(&server).await?;
        self.watched_here(server.id, session).await
    }
}
