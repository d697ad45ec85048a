//! Passwords: argon2id off the runtime, so many at a time, and as long for an unknown account as for a known one.
//!
//! A computation takes a core, and whoever asks for one costs everybody else its time. So each [`Payer`] stands in a lane of
//! its own ([`Turns`]) and has one computation at most under way or waiting for a worker: the workers serve whoever came first,
//! which is fair among those. Signing in has workers of its own, because who cannot sign in can revoke nothing: what people
//! who are signed in already ask for never holds it up, nor the other way round.

use std::{net::IpAddr, sync::Arc, time::Duration};

use argon2::{
    Argon2, PasswordHasher, PasswordVerifier,
    password_hash::{PasswordHash, SaltString},
};
use gateway_proto::{api::platform::Hidden, id::OrganizationId};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::{ServiceError, ServiceResult};
use crate::turns::{Bounds, NoTurn, Turn, TurnCounts, Turns};

/// Computations at the same time for those who sign in: each takes 19 MiB and a core.
const FOR_STRANGERS: usize = 2;
/// The same for those of an organization: they make users and change passwords, which is rare.
const FOR_MEMBERS: usize = 1;
/// One payer has one computation; so many more wait for it.
const BOUNDS: Bounds = Bounds { at_once: 1, waiting: 64, waiting_in_all: 4_096 };
/// How long whoever has a turn waits for a worker: long enough for a thousand addresses that try at once, and less than a
/// request may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// In whose lane a computation waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Payer {
    /// Somebody at this address who is not signed in. Not the account's organization: a stranger who knows an address of
    /// mail could keep its people out.
    Address(IpAddr),
    /// Somebody of this organization, or invited by it.
    Organization(OrganizationId),
}

/// The place where passwords are hashed and checked.
#[derive(Debug, Clone)]
pub struct Passwords {
    strangers: Line,
    members: Line,
    /// What an unknown account is checked against.
    nobody: Arc<str>,
}

/// Lanes, and the workers behind them.
#[derive(Debug, Clone)]
struct Line {
    turns: Turns<Payer>,
    workers: Arc<Semaphore>,
}

/// A worker, and the turn it was reached by; dropped, the next one has it.
#[derive(Debug)]
struct Place {
    _turn: Turn<Payer>,
    _worker: OwnedSemaphorePermit,
}

impl Passwords {
    /// Sets it up; computes one hash.
    pub fn new() -> ServiceResult<Self> {
        Ok(Self {
            strangers: Line::new(FOR_STRANGERS),
            members: Line::new(FOR_MEMBERS),
            nobody: compute(&Hidden("nobody".to_owned()))?.into(),
        })
    }

    /// The PHC form of a password.
    pub(super) async fn hash(&self, payer: Payer, password: Hidden) -> ServiceResult<String> {
        let place = self.place(payer).await?;
        run(place, move || compute(&password)).await?
    }

    /// Whether the password fits; `hash` none or empty: nobody's password, or that of a user who has none, which never fits
    /// and takes as long.
    pub(super) async fn verify(&self, payer: Payer, password: Hidden, hash: Option<String>) -> ServiceResult<bool> {
        let hash = hash.filter(|hash| !hash.is_empty());
        let place = self.place(payer).await?;
        let nobody = self.nobody.clone();
        run(place, move || {
            let text = hash.as_deref().unwrap_or(&nobody);
            let fits = PasswordHash::new(text)
                .is_ok_and(|parsed| Argon2::default().verify_password(password.0.as_bytes(), &parsed).is_ok());
            fits && hash.is_some()
        })
        .await
    }

    /// What is counted of each kind, with its name.
    pub fn counts(&self) -> [(&'static str, TurnCounts); 2] {
        [("sign_ins", self.strangers.turns.counts()), ("passwords", self.members.turns.counts())]
    }

    async fn place(&self, payer: Payer) -> ServiceResult<Place> {
        let line = match payer {
            Payer::Address(_) => &self.strangers,
            Payer::Organization(_) => &self.members,
        };
        let turn = line.turns.turn(payer).await.map_err(|why| match (why, payer) {
            // There is no organization yet whose requests these are.
            (NoTurn::Full, Payer::Address(_)) => ServiceError::RateLimited(Duration::from_secs(1)),
            (why, _) => why.into(),
        })?;
        match timeout(PATIENCE, line.workers.clone().acquire_owned()).await {
            Ok(Ok(worker)) => Ok(Place { _turn: turn, _worker: worker }),
            Ok(Err(_)) | Err(_) => {
                line.turns.counts().refused.inc();
                Err(ServiceError::Busy)
            }
        }
    }
}

impl Line {
    fn new(workers: usize) -> Self {
        Self { turns: Turns::new(BOUNDS), workers: Arc::new(Semaphore::new(workers)) }
    }
}

fn compute(password: &Hidden) -> ServiceResult<String> {
    let salt = SaltString::encode_b64(&gateway_net::random::<16>()).map_err(|_| ServiceError::Internal("salt"))?;
    Argon2::default()
        .hash_password(password.0.as_bytes(), &salt)
        .map(|hash| hash.to_string())
        .map_err(|_| ServiceError::Internal("argon2"))
}

/// Also when nobody waits for it any more, the place is taken until the work is done.
async fn run<T: Send + 'static>(place: Place, work: impl FnOnce() -> T + Send + 'static) -> ServiceResult<T> {
    let computed = tokio::task::spawn_blocking(move || {
        let _place = place;
        work()
    });
    computed.await.map_err(|_| ServiceError::Internal("password worker"))
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinSet;

    use super::*;

    const WAITING: i64 = BOUNDS.waiting as i64;

    fn organization(number: u8) -> Payer {
        Payer::Organization(OrganizationId::from_bytes([number; 16]))
    }

    fn address(number: u8) -> Payer {
        Payer::Address([192, 0, 2, number].into())
    }

    /// One computation of a payer, and as many behind it as may wait.
    async fn flood(passwords: &Passwords, payer: Payer) -> (Place, JoinSet<ServiceResult<()>>) {
        let first = passwords.place(payer).await.unwrap();
        let mut waiting = JoinSet::new();
        for _ in 0..WAITING {
            let passwords = passwords.clone();
            waiting.spawn(async move { passwords.place(payer).await.map(drop) });
        }
        let [(_, strangers), (_, members)] = passwords.counts();
        while strangers.waiting.get().max(members.waiting.get()) < WAITING {
            tokio::task::yield_now().await;
        }
        (first, waiting)
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_one_organization_holds_up_no_sign_in_and_costs_another_one_computation() {
        let passwords = Passwords::new().unwrap();
        let (first, mut waiting) = flood(&passwords, organization(1)).await;
        let [_, (_, members)] = passwords.counts();
        assert_eq!((members.at_work.get(), members.waiting.get()), (1, WAITING));
        assert!(matches!(passwords.place(organization(1)).await, Err(ServiceError::Crowded)));

        let sign_in = passwords.place(address(1)).await.unwrap();
        let mut others = JoinSet::new();
        others.spawn({
            let passwords = passwords.clone();
            async move { passwords.place(organization(2)).await }
        });
        tokio::task::yield_now().await;
        assert!(others.try_join_next().is_none(), "one of the flood has the worker");
        drop(first);
        let other = others.join_next().await.unwrap().unwrap().unwrap();
        assert_eq!(members.waiting.get(), WAITING - 1, "it came before all but one of the flood, which was called");

        drop((other, sign_in));
        while let Some(done) = waiting.join_next().await {
            done.unwrap().unwrap();
        }
        assert_eq!((members.at_work.get(), members.waiting.get()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_one_address_costs_another_one_nothing_as_long_as_there_is_a_second_worker() {
        let passwords = Passwords::new().unwrap();
        let (first, waiting) = flood(&passwords, address(1)).await;
        let [(_, strangers), _] = passwords.counts();
        assert_eq!((strangers.at_work.get(), strangers.waiting.get()), (1, WAITING));
        assert!(matches!(passwords.place(address(1)).await, Err(ServiceError::RateLimited(_))));
        let (other, member) = (passwords.place(address(2)).await, passwords.place(organization(1)).await);
        assert!(other.is_ok() && member.is_ok());
        assert_eq!(strangers.waiting.get(), WAITING, "nobody of the flood was served meanwhile");
        drop((first, waiting));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_finds_no_worker_is_told_so_in_the_end() {
        let passwords = Passwords::new().unwrap();
        let held = (passwords.place(address(1)).await.unwrap(), passwords.place(address(2)).await.unwrap());
        assert!(matches!(passwords.place(address(3)).await, Err(ServiceError::Busy)));
        drop(held);
        assert!(passwords.place(address(3)).await.is_ok());
    }
}
