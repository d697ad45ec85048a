//! `gateway-ctl gateway enroll`, `gateway audit`, `reconnect`, `metrics`: the gatewayd of this machine, over its Unix socket.

mod audit;
mod reported;

use clap::{Args, Subcommand};
use gateway_proto::api::{gateway::EnrollmentCode, local::Enrolled, platform::Hidden};

use crate::{
    cmd::Context,
    error::CtlError,
    output::View,
    secret::{SecretSource, hidden},
};

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Gateway {
    /// Enrol this machine's gatewayd with a one-time code.
    Enroll {
        /// The code, or `-` to read it from standard input (then no other process sees it).
        #[arg(value_parser = hidden)]
        code: Hidden,
    },
    /// The gateway's own audit log: every stream, every refusal, every call of a partner's administrator.
    #[command(subcommand)]
    Audit(audit::GatewayAudit),
}

/// Probe a peer anew.
#[derive(Debug, Args)]
pub(crate) struct Reconnect {
    /// Server name, server id or key of the peer.
    peer: String,
}

impl Gateway {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        let code = match self {
            Self::Enroll { code } => code,
            Self::Audit(verb) => return verb.run(context).await,
        };
        let code = if code.0 == "-" { SecretSource::Stdin.read("enrolment code")? } else { code };
        // A code that was cut while copying is told here, before anything is asked.
        let code = code.0.trim().parse::<EnrollmentCode>().map(|_| Hidden(code.0.trim().to_owned()));
        let code = code.map_err(|error| CtlError::Usage(error.to_string()))?;
        let enrolled = context.daemon()?.enroll(&code).await?;
        context.out.item(&enrolled)
    }
}

impl Reconnect {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        context.daemon()?.reconnect(&self.peer).await?;
        let sentence = format!("Every path to '{}' is being probed anew.", self.peer);
        context.out.deed("peer.reconnect", &self.peer, &sentence)
    }
}

/// Prometheus text as the daemon gives it.
pub(crate) async fn metrics(context: &mut Context) -> Result<(), CtlError> {
    if context.out.is_json() {
        return Err(CtlError::Usage("metrics come in the text format of Prometheus only: leave --json out".to_owned()));
    }
    let metrics = context.daemon()?.metrics().await?;
    context.out.bytes(&metrics)
}

impl View for Enrolled {
    const HEADERS: &'static [&'static str] = &["SERVER", "ORGANIZATION", "KEY"];

    fn row(&self, _now: u64) -> Vec<String> {
        vec![self.server_name.clone(), self.organization_name.clone(), self.key.short()]
    }

    fn block(&self, _now: u64) -> Vec<(&'static str, String)> {
        vec![
            ("Enrolled as", self.server_name.clone()),
            ("Organization", self.organization_name.clone()),
            ("Server id", self.server_id.clone()),
            ("Key", self.key.to_string()),
        ]
    }
}
