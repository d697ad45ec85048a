//! Shutdown: the first SIGTERM or SIGINT asks the process to end in order, the second ends it at once.

use std::{io, sync::Arc};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// The wish to end, shared by everything that must hear of it. The signal watcher lives as long as any clone.
#[derive(Debug, Clone)]
pub struct Shutdown {
    token: CancellationToken,
    _watcher: Arc<JoinSet<()>>,
}

impl Shutdown {
    /// Watches for SIGTERM and SIGINT. Call once, from inside the runtime.
    pub fn on_signals() -> io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        let token = CancellationToken::new();
        let mut watcher = JoinSet::new();
        watcher.spawn(watch(terminate, interrupt, token.clone()));
        Ok(Self { token, _watcher: Arc::new(watcher) })
    }

    /// Without signals: only [`Self::request`] ends it. For tests and for programs run inside another.
    pub fn manual() -> Self {
        Self { token: CancellationToken::new(), _watcher: Arc::new(JoinSet::new()) }
    }

    /// Asks for the end, as the first signal does.
    pub fn request(&self) {
        self.token.cancel();
    }

    /// Resolves once the end was asked for.
    pub async fn requested(&self) {
        self.token.cancelled().await;
    }

    /// Whether the end was asked for.
    pub fn is_requested(&self) -> bool {
        self.token.is_cancelled()
    }

    /// The token behind it, for tasks that take a token.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }
}

async fn watch(mut terminate: Signal, mut interrupt: Signal, token: CancellationToken) {
    let name = next(&mut terminate, &mut interrupt).await.0;
    tracing::info!(signal = name, "shutting down in order; a second signal ends the process at once");
    token.cancel();
    let (name, code) = next(&mut terminate, &mut interrupt).await;
    tracing::warn!(signal = name, "second signal: ending at once");
    std::process::exit(code);
}

/// The next signal: its name and the exit code a shell expects of a process that it ended.
async fn next(terminate: &mut Signal, interrupt: &mut Signal) -> (&'static str, i32) {
    tokio::select! {
        _ = terminate.recv() => ("SIGTERM", 143),
        _ = interrupt.recv() => ("SIGINT", 130),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_signal_resolves_the_request() {
        let shutdown = Shutdown::on_signals().unwrap();
        assert!(!shutdown.is_requested());
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGTERM).unwrap();
        tokio::time::timeout(std::time::Duration::from_secs(5), shutdown.requested()).await.unwrap();
    }

    #[tokio::test]
    async fn a_request_reaches_every_clone() {
        let shutdown = Shutdown::manual();
        let other = shutdown.clone();
        shutdown.request();
        other.requested().await;
        assert!(other.token().is_cancelled());
    }
}
