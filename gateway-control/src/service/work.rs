//! One change: a writing transaction, the audit entries in it, and the gateways it concerns.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::{Deref, DerefMut},
    sync::Arc,
};

use gateway_proto::{
    audit::PLATFORM_CHAIN,
    id::{OrganizationId, ServerId},
};

use super::{Actor, Service, ServiceError, ServiceResult, audit, policy, policy_keys::Signer};
use crate::storage::{News, Transaction};

/// Policies that one change compiles itself; at least what the reconciler takes at a time.
pub(super) const COMPILED_AT_ONCE: usize = 50;

/// Who acts, for the audit log.
#[derive(Debug, Clone)]
pub(super) enum Who {
    /// A user: named to the own organization, by the organization's name to the other one.
    User { organization: OrganizationId, email: String, organization_name: String, request: String },
    /// A gateway.
    Gateway(ServerId),
    /// An operator of the platform.
    Operator,
    /// Time and consequences.
    System,
}

impl Who {
    pub(super) fn user(actor: &Actor) -> Self {
        Self::User {
            organization: actor.organization.id,
            email: actor.user.email.clone(),
            organization_name: actor.organization.name.clone(),
            request: actor.request.clone(),
        }
    }

    /// The request behind it, shown to the own organization only.
    fn request_in(&self, chain: Option<OrganizationId>) -> String {
        match self {
            Self::User { organization, request, .. } if chain == Some(*organization) => request.clone(),
            Self::User { .. } | Self::Gateway(_) | Self::Operator | Self::System => String::new(),
        }
    }

    fn shown_in(&self, chain: Option<OrganizationId>) -> String {
        match self {
            Self::User { organization, email, organization_name, .. } => {
                if chain == Some(*organization) {
                    email.clone()
                } else {
                    format!("organization {organization_name}")
                }
            }
            Self::Gateway(server) => format!("gateway {server}"),
            Self::Operator => "operator".to_owned(),
            Self::System => "system".to_owned(),
        }
    }
}

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
    /// Revisions that a server's next policy must exceed.
    pub(super) floors: BTreeMap<ServerId, u64>,
    /// The key of the request was claimed in it.
    pub(super) claimed: bool,
    /// The change left policies to compile to the reconciler.
    pub(super) backlog: bool,
}

impl Work {
    pub(super) async fn begin(service: &Service, who: Who) -> ServiceResult<Self> {
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
            floors: BTreeMap::new(),
            claimed: false,
            backlog: false,
        })
    }

    /// The transaction, for what takes one.
    pub(super) fn tx(&mut self) -> &mut dyn Transaction {
        &mut *self.tx
    }

    /// What follows is told by this gateway.
    pub(super) fn told_by(&mut self, server: ServerId) {
        self.who = Who::Gateway(server);
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

    /// The gateway of this server watches at this replica from now on.
    pub(super) async fn watches_here(&mut self, server: ServerId, session: u64) -> ServiceResult<()> {
        if self.service.shared {
            let replica = self.service.replica.clone();
            self.put_watch(server, &replica, session).await?;
            self.moved.insert(server);
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

    /// Compiles the policy of one server, now, if it was touched: for an answer that holds it.
    pub(super) async fn compile_one(&mut self, server: ServerId) -> ServiceResult<()> {
        if self.touched.remove(&server) && policy::compile(self, server).await? {
            self.compiled.insert(server);
        }
        Ok(())
    }

    /// Compiles the policies of the touched servers. More than [`COMPILED_AT_ONCE`] would hold up everybody else: they are
    /// left to the reconciler, which does some at a time, the first of them sooner than this transaction would be over.
    async fn compile(&mut self) -> ServiceResult<()> {
        // What a gateway has is known to this change only.
        for server in self.floors.keys().copied().collect::<Vec<_>>() {
            self.compile_one(server).await?;
        }
        if self.touched.len() > COMPILED_AT_ONCE {
            for server in std::mem::take(&mut self.touched) {
                self.mark_stale(server).await?;
            }
            self.backlog = true;
        }
        while let Some(server) = self.touched.first().copied() {
            self.compile_one(server).await?;
        }
        Ok(())
    }

    /// Compiles what was touched, makes everything durable, and only then wakes the gateways concerned.
    pub(super) async fn commit(mut self) -> ServiceResult<()> {
        self.compile().await?;
        let Self { service, mut tx, compiled: changed, removed, moved, backlog, .. } = self;
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
            if committed.is_ok() {
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
