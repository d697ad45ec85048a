//! `gateway-ctl status`: what the gatewayd of this machine is doing, once, again and again, or until it is as it should be.

use std::time::Duration;

use clap::{Args, ValueEnum};
use gateway_proto::api::local::Status;
use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    args::Span,
    client::{ClientError, Daemon},
    cmd::{Answer, Context},
    error::{self, CtlError},
    output::status::{Verdict, render},
};

/// Between two looks with `--watch`.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// Between two looks with `--wait`: short beside a handshake.
const WAIT_INTERVAL: Duration = Duration::from_millis(200);
/// Clears the screen and goes home.
const CLEAR: &str = "\u{1b}[2J\u{1b}[H";

/// What to show, and how long.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Show it again every second, until interrupted.
    #[arg(long, conflicts_with = "wait")]
    watch: bool,
    /// Wait until every connection that may carry data is connected, or connected on a direct path.
    #[arg(long, value_name = "GOAL")]
    wait: Option<Goal>,
    /// How long to wait.
    #[arg(long, value_name = "TIME", default_value = "30s", requires = "wait")]
    timeout: Span,
    /// The answer is about this connection, by id, endpoint or PEER/ENDPOINT; more than once for several.
    #[arg(long, value_name = "NAME")]
    connection: Vec<String>,
}

/// What to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Goal {
    /// Connected end to end.
    Connected,
    /// Connected end to end, without a relay.
    Direct,
}

impl Goal {
    fn is_reached(self, verdict: &Verdict) -> bool {
        match self {
            Self::Connected => verdict.is_connected(),
            Self::Direct => verdict.is_direct(),
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Direct => "connected on a direct path",
        }
    }
}

impl StatusArgs {
    pub(crate) async fn run(self, context: &mut Context) -> Result<Answer, CtlError> {
        let daemon = context.daemon()?;
        if self.watch {
            return self.watch(context, &daemon).await;
        }
        let Some(goal) = self.wait else {
            let status = daemon.status().await?;
            self.show(context, &status)?;
            let connected = Verdict::of(&status, &self.connection).is_connected();
            return Ok(if connected { Answer::Yes } else { Answer::No });
        };
        let (status, verdict) = self.wait_for(goal, &daemon).await?;
        self.show(context, &status)?;
        if goal.is_reached(&verdict) {
            return Ok(Answer::Yes);
        }
        Err(CtlError::No(format!("not {} within {} s", goal.word(), self.timeout.secs)))
    }

    /// Looks until the goal is reached or the time is over, and returns the last look. A daemon that is not up yet is waited for too.
    async fn wait_for(&self, goal: Goal, daemon: &Daemon) -> Result<(Status, Verdict), CtlError> {
        let now = Instant::now();
        // A time beyond the clock's range is no limit.
        let deadline = now
            .checked_add(Duration::from_secs(self.timeout.secs))
            .unwrap_or(now + Duration::from_secs(u32::MAX.into()));
        loop {
            let look = daemon.status().await;
            let over = Instant::now() >= deadline;
            match look {
                Ok(status) => {
                    let verdict = Verdict::of(&status, &self.connection);
                    if over || goal.is_reached(&verdict) {
                        return Ok((status, verdict));
                    }
                }
                Err(error) if over || !is_transient(&error) => return Err(error.into()),
                Err(_) => {}
            }
            sleep_until(deadline.min(Instant::now() + WAIT_INTERVAL)).await;
        }
    }

    async fn watch(&self, context: &mut Context, daemon: &Daemon) -> Result<Answer, CtlError> {
        let interrupted = tokio::signal::ctrl_c();
        tokio::pin!(interrupted);
        loop {
            let look = daemon.status().await;
            if context.out.is_terminal() && !context.out.is_json() {
                context.out.text(CLEAR)?;
            }
            match look {
                Ok(status) if context.out.is_json() => context.out.json_line(&status)?,
                Ok(status) => self.show(context, &status)?,
                Err(error) if !is_transient(&error) => return Err(error.into()),
                // A restart of the daemon is something one watches.
                Err(error) => {
                    let headline = format!("NOT CONNECTED  {}", error::chain(&error));
                    if context.out.is_json() { context.out.problem(&headline) } else { context.out.line(&headline)? }
                }
            }
            tokio::select! {
                outcome = &mut interrupted => return outcome.map(|()| Answer::Yes).map_err(CtlError::Runtime),
                () = sleep(WATCH_INTERVAL) => {}
            }
            if !context.out.is_terminal() && !context.out.is_json() {
                context.out.line("")?;
            }
        }
    }

    fn show(&self, context: &mut Context, status: &Status) -> Result<(), CtlError> {
        if context.out.is_json() {
            return context.out.json(status);
        }
        let text = render(status, &self.connection, gateway_net::time::unix_ms(), context.out.style());
        context.out.text(&text)
    }
}

/// Whether waiting may mend it.
fn is_transient(error: &ClientError) -> bool {
    matches!(error, ClientError::DaemonNotRunning { .. } | ClientError::Transport { .. } | ClientError::Timeout { .. })
}
