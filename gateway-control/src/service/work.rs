//! One change: a writing transaction, the audit entries in it, and the gateways it concerns.

mod who;

use std::{
    collections::BTreeSet,
    ops::{Deref, DerefMut},
    sync::Arc,
};

use gateway_proto::{
    audit::PLATFORM_CHAIN,
    id::{OrganizationId, ServerId},
};

pub(super) use self::who::Who;
use super::{
    Service, ServiceError, ServiceResult, audit,
    backlog::{POLICIES_AT_ONCE, Portion},
    etag::Condition,
    policy,
    policy_keys::Signer,
};
use crate::{
    limits::Lent,
    storage::{News, Transaction},
    turns::Turn,
};

/// A change in progress; dropped without [`Work::commit`], nothing happened.
pub(super) struct Work {
    service: Service,
    tx: Box<dyn Transaction>,
    /// What signs in it, once it was asked for.
    pub(super) signer: Option<Arc<Signer>>,
    who: Who,
    /// The moment of the change, Unix seconds.
    pub(super) now: u64,
    /// Servers whose policies may have changed.
    touched: BTreeSet<ServerId>,
    /// Servers that have a new policy by this change.
    compiled: BTreeSet<ServerId>,
    /// Servers whose gateways were removed.
    removed: BTreeSet<ServerId>,
    /// Servers whose gateways watch here from now on.
    moved: BTreeSet<ServerId>,
    /// Somebody waits for the policy of this server.
    awaited: Option<ServerId>,
    /// Has to be looked at before the change is made.
    pub(super) condition: Option<Condition>,
    /// The key of the request was claimed in it.
    pub(super) claimed: bool,
    /// The change left policies to compile to the reconciler.
    pub(super) backlog: bool,
    /// Something ends by it.
    cuts: bool,
    /// What counts as done when it is committed, and not if it never is.
    pub(super) lent: Vec<Lent<ServerId>>,
    /// The turn of whoever writes; given back when the database is free for the next one.
    turn: Option<Turn>,
}

impl Work {
    pub(super) async fn begin(service: &Service, who: Who, turn: Option<Turn>) -> ServiceResult<Self> {
        let tx = service.storage.begin().await?;
        Ok(Self {
            service: service.clone(),
            tx,
            signer: None,
            who,
            now: service.clock.unix_secs(),
            touched: BTreeSet::new(),
            compiled: BTreeSet::new(),
            removed: BTreeSet::new(),
            moved: BTreeSet::new(),
            awaited: None,
            condition: None,
            claimed: false,
            backlog: false,
            cuts: false,
            lent: Vec::new(),
            turn,
        })
    }

    /// The transaction, for what takes one.
    pub(super) fn tx(&mut self) -> &mut dyn Transaction {
        &mut *self.tx
    }

    /// What follows is told by this gateway.
    pub(super) fn told_by(&mut self, server: ServerId) {
        self.by(Who::Gateway(server));
    }

    /// What follows is somebody's.
    pub(super) fn by(&mut self, who: Who) {
        self.who = who;
    }

    /// The same change, by somebody who became known while it was made.
    pub(super) fn acting_as(self, who: Who) -> Self {
        Self { who, ..self }
    }

    /// The service behind it.
    pub(super) fn service(&self) -> &Service {
        &self.service
    }

    /// Unix milliseconds and ten random bytes: what a new id is made of.
    pub(super) fn seed(&self) -> (u64, [u8; 10]) {
        (self.service.clock.unix_ms(), gateway_net::random())
    }

    /// The moment, Unix milliseconds.
    pub(super) fn now_ms(&self) -> u64 {
        self.service.clock.unix_ms()
    }

    /// The policy of this server may have changed.
    pub(super) fn touch(&mut self, server: ServerId) {
        self.touched.insert(server);
    }

    /// The watch of this server has something to look at, though its policy may be the same.
    pub(super) fn wakes(&mut self, server: ServerId) {
        self.compiled.insert(server);
    }

    /// Somebody waits for the policy of this server: if it fits, it is compiled with the change, whatever else was touched.
    pub(super) fn awaits(&mut self, server: ServerId) {
        self.awaited = Some(server);
    }

    /// Something ends by this change, or is put to rest: the policies that say so go before others.
    pub(super) fn cuts(&mut self) {
        self.cuts = true;
    }

    /// The organization on whose behalf it is made.
    pub(super) fn own(&self) -> Option<OrganizationId> {
        self.who.organization()
    }

    /// The gateway of this server watches at this replica from now on, unless a newer watch of it here was faster.
    pub(super) async fn watches_here(&mut self, server: ServerId, session: u64) -> ServiceResult<()> {
        if self.service.shared {
            let replica = self.service.replica.clone();
            if self.put_watch(server, &replica, session).await? {
                self.moved.insert(server);
            }
        }
        Ok(())
    }

    /// The gateway of this server watched here with this session, and does no more.
    pub(super) async fn watched_here(&mut self, server: ServerId, session: u64) -> ServiceResult<()> {
        if self.service.shared {
            let replica = self.service.replica.clone();
            self.delete_watch(server, &replica, session).await?;
        }
        Ok(())
    }

    /// The gateway of this server was removed.
    pub(super) fn remove_gateway(&mut self, server: ServerId) {
        self.removed.insert(server);
    }

    /// Writes the act into the log of each organization it concerns, once each.
    pub(super) async fn audit(
        &mut self,
        organizations: &[OrganizationId],
        act: &str,
        object: impl ToString,
        detail: impl Into<String>,
    ) -> ServiceResult<()> {
        let detail = detail.into();
        for organization in organizations.iter().collect::<BTreeSet<_>>() {
            let record = audit::Record {
                chain: &organization.to_string(),
                at_ms: self.service.clock.unix_ms(),
                actor: self.who.shown_in(Some(*organization)),
                act,
                object: object.to_string(),
                detail: detail.clone(),
                request: self.who.request_in(Some(*organization)),
            };
            audit::append(&mut *self.tx, record).await?;
        }
        Ok(())
    }

    /// Writes the act into the log of the platform.
    pub(super) async fn audit_platform(
        &mut self,
        act: &str,
        object: impl ToString,
        detail: impl Into<String>,
    ) -> ServiceResult<()> {
        let record = audit::Record {
            chain: PLATFORM_CHAIN,
            at_ms: self.service.clock.unix_ms(),
            actor: self.who.shown_in(None),
            act,
            object: object.to_string(),
            detail: detail.into(),
            request: self.who.request_in(None),
        };
        Ok(audit::append(&mut *self.tx, record).await?)
    }

    /// Compiles the policy of one server, if it was touched, however large it is: for who has picked a portion of the backlog.
    pub(super) async fn compile_one(&mut self, server: ServerId) -> ServiceResult<()> {
        if self.touched.remove(&server) && policy::compile(self, server).await? {
            self.compiled.insert(server);
        }
        Ok(())
    }

    /// Compiles the policies of the touched servers: the one that is awaited, then the smallest. More than a [`Portion`] would hold
    /// up everybody else, whoever asks: the rest is left to the reconciler, which does some at a time, the first of them sooner than
    /// this transaction would be over.
    async fn compile(&mut self) -> ServiceResult<()> {
        let awaited = self.awaited.filter(|server| self.touched.contains(server));
        // So many are left behind as they are: to look at each of them would take as long as to compile some.
        let looked_at: Vec<_> = if self.touched.len() <= POLICIES_AT_ONCE {
            self.touched.iter().copied().collect()
        } else {
            awaited.into_iter().collect()
        };
        let mut sizes = Vec::with_capacity(looked_at.len());
        for server in looked_at {
            sizes.push((awaited != Some(server), self.count_open_connections(server).await?, server));
        }
        sizes.sort_unstable();
        let mut portion = Portion::of_a_change();
        for (_, entries, server) in sizes {
            if portion.takes(entries) {
                self.compile_one(server).await?;
            }
        }
        let left: Vec<_> = std::mem::take(&mut self.touched).into_iter().collect();
        if !left.is_empty() {
            let (ends, now_ms) = (self.cuts, self.now_ms());
            self.mark_stale(&left, ends, now_ms).await?;
            self.backlog = true;
        }
        Ok(())
    }

    /// Compiles what was touched, makes everything durable, and only then wakes the gateways concerned.
    pub(super) async fn commit(mut self) -> ServiceResult<()> {
        if let Some(condition) = &self.condition {
            condition.must_be_looked_at()?;
        }
        self.compile().await?;
        let Self { service, mut tx, compiled: changed, removed, moved, backlog, lent, turn, .. } = self;
        if service.shared {
            let news = News {
                from: service.replica().to_owned(),
                changed: changed.iter().copied().collect(),
                removed: removed.iter().copied().collect(),
                moved: moved.into_iter().collect(),
                backlog,
            };
            tx.announce(news).await?;
        }
        let tracker = service.commits.clone();
        let finish = tracker.spawn(async move {
            let committed = tx.commit().await;
            drop(turn);
            if committed.is_ok() {
                lent.into_iter().for_each(Lent::used);
                for server in removed {
                    service.watchers.remove(server);
                }
            }
            // An answer that was lost says nothing: to look once more does no harm.
            for server in changed {
                service.watchers.wake(server);
            }
            if backlog {
                service.backlog.notify_one();
            }
            Ok(committed?)
        });
        finish.await.map_err(|_| ServiceError::Internal("a commit ended early"))?
    }
}

/// What a change changed, in words: the fields that differ, before and after.
pub(super) fn changes(fields: &[(&str, &dyn ToString, &dyn ToString)]) -> String {
    let texts = fields.iter().map(|(name, before, after)| (name, before.to_string(), after.to_string()));
    let changed = texts.filter(|(_, before, after)| before != after);
    let words = changed.map(|(name, before, after)| format!("{name}: {} → {}", quoted(before), quoted(after)));
    words.collect::<Vec<_>>().join("; ")
}

/// A value that could be taken for more than one, in quotes.
fn quoted(value: String) -> String {
    if value.contains([';', '→', '"', '\n']) { format!("{value:?}") } else { value }
}

impl Deref for Work {
    type Target = dyn Transaction;

    fn deref(&self) -> &Self::Target {
        &*self.tx
    }
}

impl DerefMut for Work {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut *self.tx
    }
}
