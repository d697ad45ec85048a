//! What the control plane knows of a gateway's audit log: the heads that the gateway reported while it ran.

use std::fmt;

use gateway_proto::{
    api::platform::{self, GatewayAudit, KeptHead},
    audit::{heads::ReportedHead, line::Head},
    id::ServerId,
};
use serde::Serialize;

use crate::{
    client::Control,
    cmd::{Context, server},
    error::CtlError,
};

/// Heads that the log must hold, as far as it goes back.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Reported {
    /// The server at the control plane.
    pub(super) server: String,
    /// How many heads there are.
    heads: usize,
    #[serde(skip)]
    known: Vec<Head>,
}

/// Whose heads.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wanted<'a> {
    /// Those of this server.
    Server(&'a str),
    /// Those of the server whose gateway is the one of this machine, if there is a session.
    Own,
    /// Nobody's.
    None,
}

impl fmt::Display for Reported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.known.last() {
            Some(newest) => write!(
                f,
                "It holds what the gateway of '{}' reported to the control plane: {} heads, the newest of record {}.",
                self.server, self.heads, newest.sequence
            ),
            None => write!(f, "The gateway of '{}' has reported nothing of it to the control plane.", self.server),
        }
    }
}

impl Reported {
    /// Asks the control plane. The error of the inner result says why it was not asked, for people.
    pub(super) async fn ask(context: &Context, wanted: Wanted<'_>) -> Result<Result<Self, String>, CtlError> {
        match wanted {
            Wanted::Server(name) => {
                let control = context.control()?;
                let id = server::server_id(&control, name).await?;
                Ok(Ok(Self::of(&control, id, name).await?))
            }
            Wanted::Own => match Self::own(context).await {
                Ok(reported) => Ok(reported),
                // Who asked for nothing in particular is told, and the rest is verified.
                Err(error) => Ok(Err(error.to_string())),
            },
            Wanted::None => Ok(Err("--offline".to_owned())),
        }
    }

    pub(super) fn known(&self) -> Vec<Head> {
        self.known.clone()
    }

    async fn own(context: &Context) -> Result<Result<Self, String>, CtlError> {
        let control = context.control()?;
        let key = context.daemon()?.status().await?.key;
        let servers = server::all(&control).await?;
        match servers.iter().find(|server| server.gateway == Some(key)) {
            Some(platform::Server { id, name, .. }) => Ok(Ok(Self::of(&control, *id, name).await?)),
            None => Ok(Err("the profile's organization has no server with this gateway".to_owned())),
        }
    }

    async fn of(control: &Control, id: ServerId, name: &str) -> Result<Self, CtlError> {
        let path = format!("/servers/{id}/gateway-audit");
        // The newest first: what is reported meanwhile need not be known.
        let GatewayAudit { gateway, newest, alarm } = control.get(&path).await?;
        let kept: Vec<KeptHead> = control.list(&format!("{path}/heads"), &[], None).await?;
        let mut known: Vec<Head> = kept.iter().filter(|kept| kept.current).map(|kept| kept.head.head()).collect();
        known.extend(newest.as_ref().map(ReportedHead::head));
        // Until it is acknowledged, the log has to be the one that was reported before.
        known.extend(alarm.filter(|alarm| Some(alarm.gateway) == gateway).map(|alarm| alarm.known.head()));
        known.sort_by_key(|head| head.sequence);
        known.dedup();
        Ok(Self { server: name.to_owned(), heads: known.len(), known })
    }
}
