//! The rules of the platform: who may do what, and what follows from it. Ignorant of HTTP and of SQL.
//!
//! Every change is one [`Work`]: a writing transaction that also collects the servers whose policies it touches and the
//! audit entries. Its commit compiles exactly those policies in the same transaction and then wakes exactly those
//! gateways, so that a change costs what it concerns and nothing more. What an organization may not see answers
//! [`ServiceError::NotFound`].

mod access;
mod actor;
mod admin;
mod admin_people;
mod agreements;
pub mod audit;
mod backlog;
mod behaviors;
pub(crate) mod bounds;
mod callers;
mod channels;
mod connections;
mod credentials;
mod delivery;
mod desk;
mod device_tokens;
mod devices;
mod directory;
mod engines;
mod enrollment;
mod error;
mod etag;
mod executions;
mod gateway_audits;
mod gateways;
mod grants;
#[cfg(test)]
pub(crate) mod ground;
mod idempotency;
mod identities;
mod kept;
mod links;
mod oidc;
mod organizations;
mod page;
mod password;
mod peering;
pub mod permission;
mod platform_tokens;
mod policy;
mod policy_keys;
mod rates;
mod relays;
mod replicas;
mod roles;
mod seats;
mod senders;
mod servers;
mod sessions;
mod shares;
mod tenants;
mod tiers;
mod time_limits;
mod token_keys;
mod totp;
mod users;
mod validate;
mod work;

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use data_encoding::HEXLOWER;
use gateway_proto::{
    api::platform::Hidden,
    id::OrganizationId,
    identity::{GatewayKey, GatewayPublicKey},
};
use sha2::{Digest, Sha256};
use tokio::{sync::Notify, time::timeout};
use tokio_util::task::TaskTracker;

pub use self::{
    actor::{Actor, Credential},
    agreements::AgreementChange,
    backlog::Backlog,
    callers::{OperatorCaller, Stranger},
    connections::ConnectionChange,
    delivery::DeliverySettings,
    device_tokens::TokenVerifier,
    error::{ServiceError, ServiceResult},
    etag::{Condition, etag},
    executions::ExecutionsQuery,
    gateway_audits::KnownAudit,
    gateways::{GatewayCaller, Newest, Proof, WatchStart},
    idempotency::{Claim, GivenAnswer, Known},
    oidc::{OidcAttempt, OidcReturn},
    organizations::Registration,
    page::{MAX_LIMIT, Paging},
    password::Passwords,
    seats::{Newcomer, told_first},
    time_limits::Overdue,
};
use self::{
    desk::Desk,
    rates::Rates,
    sessions::latest_end,
    work::{Who, Work},
};
use crate::{
    clock::Clock,
    limits::Nonces,
    oidc::Providers,
    storage::Storage,
    turns::{AllTurns, LONG_PATIENCE, Turn, TurnCounts},
    vault::Vault,
    watchers::Watchers,
};

/// How an organization shows to itself where a peer's name stands.
pub(crate) const SELF: &str = "Self";

/// The fact that says with which policy key a database began; none: it was never in use.
pub(crate) const POLICY_KEY_FACT: &str = "policy_key";

/// What the service needs to know beside the storage.
#[derive(Debug)]
pub struct Settings {
    /// The first key that signed policies and relay tokens: the file of the data directory.
    pub signer: GatewayKey,
    /// Seals secrets in the storage.
    pub vault: Arc<Vault>,
    /// What platform operators show.
    pub operator_token: Hidden,
    /// What creates an organization, and nothing else.
    pub registration_token: Hidden,
    /// Who may create an organization.
    pub registration: Registration,
    /// Base URL, for enrolment codes.
    pub public_url: String,
    /// Pin of our TLS key, for enrolment codes; none: the web PKI vouches for it.
    pub tls_pin: Option<String>,
    /// Validity of relay tokens, seconds.
    pub relay_token_secs: u64,
    /// How often the ends of connections are compared.
    pub delivery: DeliverySettings,
    /// For how many days entries of the audit log are kept; none: for ever.
    pub audit_retention_days: Option<u64>,
    /// Providers of OpenID Connect.
    pub oidc: Providers,
}

/// The service; clones share it.
#[derive(Debug, Clone)]
pub struct Service {
    storage: Arc<dyn Storage>,
    settings: Arc<Settings>,
    clock: Clock,
    watchers: Watchers,
    passwords: Passwords,
    nonces: Arc<Nonces>,
    desk: Arc<Desk>,
    rates: Arc<Rates>,
    /// By which keys gateways may mean us, as far as this process has looked.
    known_keys: Arc<Mutex<Vec<GatewayPublicKey>>>,
    /// How much of one organization is at work at once.
    turns: Arc<AllTurns>,
    /// Name of this process among its kind.
    replica: Arc<str>,
    /// Other replicas may be at work on the storage.
    shared: bool,
    synced_at: Arc<Mutex<Instant>>,
    /// Unix seconds.
    started_at: u64,
    /// Wakes the reconciler when a change leaves work behind.
    pub(crate) backlog: Arc<Notify>,
    /// Commits run here, so that a client that goes away cannot come between a commit and what follows from it; and requests
    /// with an idempotency key, so that it does not come between what was done and its answer.
    pub(crate) commits: TaskTracker,
}

/// At the end of the process, for the commits that are on their way.
const LAST_COMMITS: Duration = Duration::from_secs(10);

/// Nonces remembered: two minutes of requests of 10,000 gateways that each try ten times.
const NONCES: usize = 100_000;

impl Service {
    /// Puts it together.
    pub fn new(storage: Arc<dyn Storage>, settings: Settings, passwords: Passwords, clock: Clock) -> Self {
        let shared = storage.news_line().is_some();
        Self {
            storage,
            settings: Arc::new(settings),
            replica: HEXLOWER.encode(&gateway_net::random::<8>()).into(),
            shared,
            synced_at: Arc::new(Mutex::new(Instant::now())),
            started_at: clock.unix_secs(),
            clock,
            watchers: if shared { Watchers::with_news() } else { Watchers::default() },
            passwords,
            nonces: Arc::new(Nonces::new(NONCES)),
            desk: Arc::default(),
            rates: Arc::default(),
            known_keys: Arc::default(),
            turns: Arc::default(),
            backlog: Arc::default(),
            commits: TaskTracker::new(),
        }
    }

    /// The clock in use.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The gateways that watch now.
    pub fn watchers(&self) -> &Watchers {
        &self.watchers
    }

    /// Validity of relay tokens, seconds.
    pub fn relay_token_secs(&self) -> u64 {
        self.settings.relay_token_secs
    }

    /// Whether the storage answers, and what this replica says about policies can be relied on.
    pub async fn ready(&self) -> ServiceResult<()> {
        self.storage.ping().await?;
        if self.is_synced() { Ok(()) } else { Err(ServiceError::Busy) }
    }

    /// Makes sure that the storage and the data directory belong together: the first key that signed policies is the file's,
    /// or this process would lock every gateway out. The same for what is sealed in it.
    pub async fn claim_storage(&self) -> ServiceResult<()> {
        let own = self.settings.signer.public().to_string();
        let mut tx = self.storage.begin().await?;
        let known = tx.fact(POLICY_KEY_FACT, &own).await?;
        if known != own {
            return Err(ServiceError::OtherKey(known));
        }
        if tx.fact("storage_key", self.settings.vault.fingerprint()).await? != self.settings.vault.fingerprint() {
            return Err(ServiceError::OtherStorageKey);
        }
        self.first_policy_key(&mut *tx).await?;
        self.first_token_key(&mut *tx).await?;
        if self.shared {
            // Known before the first gateway watches here: who watches at an unknown replica is forgotten.
            tx.put_replica(&self.replica, self.clock.unix_secs()).await?;
        }
        Ok(tx.commit().await?)
    }

    /// Waits for running commits, as long as a database that answers takes, and closes the storage.
    pub async fn close(&self) {
        self.commits.close();
        if timeout(LAST_COMMITS, self.commits.wait()).await.is_err() {
            tracing::warn!(
                left = self.commits.len(),
                "the database does not answer: nobody knows what became of the last changes"
            );
        }
        self.storage.close().await;
    }

    /// How much is at work and waits of each kind that has turns.
    pub fn turn_counts(&self) -> Vec<(&'static str, TurnCounts)> {
        self.turns.counts().into_iter().chain(self.passwords.counts()).collect()
    }

    /// Lets a request read when it is the turn of its organization; it is given back with the actor.
    pub(crate) async fn may_read(&self, actor: &mut Actor) -> ServiceResult<()> {
        actor.reading = Some(Arc::new(self.turns.reads.turn(actor.id()).await?));
        Ok(())
    }

    /// A turn to write for an organization.
    async fn turn_to_write(&self, organization: OrganizationId) -> ServiceResult<Turn> {
        Ok(self.turns.writes.turn(organization).await?)
    }

    /// The same for what its gateways tell.
    async fn turn_to_tell(&self, organization: OrganizationId) -> ServiceResult<Turn> {
        self.turns.tells.turn_within(organization, LONG_PATIENCE).await.map_err(|_| ServiceError::Busy)
    }

    async fn work(&self, who: Who) -> ServiceResult<Work> {
        let turn = match who.organization() {
            Some(organization) => Some(self.turn_to_write(organization).await?),
            None => None,
        };
        Work::begin(self, who, turn).await
    }

    /// A change by what a gateway tells.
    async fn work_told_by(&self, caller: &GatewayCaller) -> ServiceResult<Work> {
        let turn = self.turn_to_tell(caller.organization).await?;
        Work::begin(self, Who::Gateway(caller.server), Some(turn)).await
    }

    /// A change on behalf of a user, who is looked at again: a request may have waited for its body or for a place while
    /// its user was removed or given another role, or while its session or token ended.
    async fn work_of(&self, actor: &Actor) -> ServiceResult<Work> {
        let mut work = self.work(Who::user(actor)).await?;
        work.condition.clone_from(&actor.if_match);
        let now = work.now;
        let is_alive = match &actor.credential {
            None => true,
            Some(Credential::Session(hash)) => work.session_user(hash, now, latest_end(now)).await?.is_some(),
            Some(Credential::ApiToken(id)) => work.api_token(*id).await?.is_some_and(|row| now < row.expires_at),
        };
        if !is_alive {
            return Err(ServiceError::Unauthenticated("the session or token has ended; sign in again"));
        }
        match work.user(actor.user.id).await? {
            Some(user) if user.role == actor.user.role => {
                if let Some(claim) = &actor.claim {
                    work.claim(claim).await?;
                }
                Ok(work)
            }
            Some(_) => Err(ServiceError::Forbidden("your role was changed; try again".to_owned())),
            None => Err(ServiceError::Unauthenticated("this user was removed")),
        }
    }
}

/// SHA-256 in hex: how tokens and codes are stored.
pub(crate) fn digest(text: &str) -> String {
    HEXLOWER.encode(&Sha256::digest(text.as_bytes()))
}
