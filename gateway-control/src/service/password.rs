//! Passwords: argon2id off the runtime, so many at a time, and as long for an unknown account as for a known one.

use std::sync::Arc;

use argon2::{
    Argon2, PasswordHasher, PasswordVerifier,
    password_hash::{PasswordHash, SaltString},
};
use gateway_proto::api::platform::Hidden;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{ServiceError, ServiceResult};

/// Computations at the same time: each takes 19 MiB and a core.
const CONCURRENT: usize = 2;
/// Requests that wait for a computation; more are told to come back.
const WAITING: usize = 64;

/// The place where passwords are hashed and checked.
#[derive(Debug, Clone)]
pub struct Passwords {
    workers: Arc<Semaphore>,
    queue: Arc<Semaphore>,
    /// What an unknown account is checked against.
    nobody: Arc<str>,
}

impl Passwords {
    /// Sets it up; computes one hash.
    pub fn new() -> ServiceResult<Self> {
        Ok(Self {
            workers: Arc::new(Semaphore::new(CONCURRENT)),
            queue: Arc::new(Semaphore::new(WAITING)),
            nobody: compute(&Hidden("nobody".to_owned()))?.into(),
        })
    }

    /// The PHC form of a password.
    pub async fn hash(&self, password: Hidden) -> ServiceResult<String> {
        let turn = self.turn().await?;
        run(move || {
            let _turn = turn;
            compute(&password)
        })
        .await?
    }

    /// Whether the password fits; `hash` none or empty: nobody's password, or that of a user who has none, which never fits
    /// and takes as long.
    pub async fn verify(&self, password: Hidden, hash: Option<String>) -> ServiceResult<bool> {
        let hash = hash.filter(|hash| !hash.is_empty());
        let turn = self.turn().await?;
        let nobody = self.nobody.clone();
        run(move || {
            let _turn = turn;
            let text = hash.as_deref().unwrap_or(&nobody);
            let fits = PasswordHash::new(text)
                .is_ok_and(|parsed| Argon2::default().verify_password(password.0.as_bytes(), &parsed).is_ok());
            fits && hash.is_some()
        })
        .await
    }

    async fn turn(&self) -> ServiceResult<OwnedSemaphorePermit> {
        let _place = self.queue.try_acquire().map_err(|_| ServiceError::Busy)?;
        self.workers.clone().acquire_owned().await.map_err(|_| ServiceError::Busy)
    }
}

fn compute(password: &Hidden) -> ServiceResult<String> {
    let salt = SaltString::encode_b64(&gateway_net::random::<16>()).map_err(|_| ServiceError::Internal("salt"))?;
    Argon2::default()
        .hash_password(password.0.as_bytes(), &salt)
        .map(|hash| hash.to_string())
        .map_err(|_| ServiceError::Internal("argon2"))
}

async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> ServiceResult<T> {
    tokio::task::spawn_blocking(work).await.map_err(|_| ServiceError::Internal("password worker"))
}
