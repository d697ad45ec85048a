//! `gateway-ctl share`: servers shared with partners, at once.

use clap::{Args, Subcommand, ValueEnum};
use gateway_proto::{
    api::platform::{Connection, CreateShare, OpenShare, ServerShare, ShareLevel},
    id::ShareId,
};

use crate::{
    args::{Confirmed, Span},
    client::Control,
    cmd::{Context, admin, agreement, id_among, server},
    error::CtlError,
    output::{View, or_dash, time, word, yes_no},
    resolve::Named,
};

const PATH: &str = "/server-shares";

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Share {
    /// List the shared servers, given and received.
    List {
        /// With those that are over.
        #[arg(long)]
        ended: bool,
    },
    /// Show a shared server with its figures.
    Show(One),
    /// Share an own server with a partner.
    Create(Create),
    /// Open a tunnel to a server that was shared with us.
    Open(Open),
    /// End a share with its tunnels.
    End(Confirmed<One>),
}

/// A share.
#[derive(Debug, Args)]
pub(crate) struct One {
    /// Name of the server, `PEER/SERVER`, or id of the share.
    share: String,
}

/// How far a server is shared.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Level {
    /// Administer it, read-write.
    Operator,
    /// Look into it, read-only.
    Viewer,
    /// Its figures on the platform, no tunnel.
    Metrics,
}

/// A server to share.
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Name or id of the own server.
    server: String,
    /// Name of the peer, or id of the agreement.
    #[arg(long, value_name = "AGREEMENT")]
    with: String,
    /// How far.
    #[arg(long)]
    level: Level,
    #[command(flatten)]
    scope: admin::Scope,
    /// End it after this time, for example 30d; default: never.
    #[arg(long = "for", value_name = "TIME")]
    span: Option<Span>,
}

/// A tunnel to open.
#[derive(Debug, Args)]
pub(crate) struct Open {
    #[command(flatten)]
    one: One,
    #[command(flatten)]
    using: admin::Using,
}

impl Share {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        let control = context.control()?;
        let share: ServerShare = match self {
            Self::List { ended } => {
                let shares = all(&control, ended).await?;
                return context.out.list(&shares);
            }
            Self::Show(one) => {
                let id = one.id(&control).await?;
                control.get(&format!("{PATH}/{id}")).await?
            }
            Self::Create(create) => create.run(&control).await?,
            Self::Open(Open { one, using }) => {
                let id = one.id(&control).await?;
                let body = OpenShare { server_id: using.server_id(&control).await?, port: using.port() };
                let connection: Connection = control.post(&format!("{PATH}/{id}/open"), &body).await?;
                return context.out.item(&connection);
            }
            Self::End(Confirmed { one, confirm }) => {
                let id = one.id(&control).await?;
                confirm.ask(&format!("End the share of '{}' ({id}) with its tunnels", one.share))?;
                control.act(&format!("{PATH}/{id}/end")).await?
            }
        };
        context.out.item(&share)
    }
}

impl Create {
    async fn run(&self, control: &Control) -> Result<ServerShare, CtlError> {
        let now = gateway_net::time::unix_secs();
        let body = CreateShare {
            agreement_id: agreement::agreement_id(control, &self.with).await?,
            server_id: server::server_id(control, &self.server).await?,
            level: match self.level {
                Level::Operator => ShareLevel::Operator,
                Level::Viewer => ShareLevel::Viewer,
                Level::Metrics => ShareLevel::Metrics,
            },
            scope: self.scope.to_scope(),
            expires_at: self.span.map(|span| span.after(now)),
        };
        Ok(control.post(PATH, &body).await?)
    }
}

impl One {
    async fn id(&self, control: &Control) -> Result<ShareId, CtlError> {
        let lives = |share: &ServerShare| share.ended_at.is_none();
        id_among(control, (PATH, &[("ended", "true")]), &self.share, lives).await
    }
}

async fn all(control: &Control, ended: bool) -> Result<Vec<ServerShare>, CtlError> {
    let query: &[(&str, &str)] = if ended { &[("ended", "true")] } else { &[] };
    Ok(control.list(PATH, query, None).await?)
}

impl Named for ServerShare {
    type Id = ShareId;
    const KIND: &'static str = "server share";
    const LIST: &'static str = "share list";

    fn id(&self) -> ShareId {
        self.id
    }

    fn names(&self) -> Vec<String> {
        vec![self.server_name.clone()]
    }

    fn peer(&self) -> Option<&str> {
        Some(&self.peer_name)
    }

    fn describe(&self) -> String {
        format!("{}/{}, {}, {}", self.peer_name, self.server_name, self.direction, word(&self.level))
    }
}

impl View for ServerShare {
    const HEADERS: &'static [&'static str] = &["SERVER", "PEER", "DIRECTION", "LEVEL", "TUNNELS", "EXPIRES", "ID"];

    fn row(&self, now: u64) -> Vec<String> {
        vec![
            self.server_name.clone(),
            self.peer_name.clone(),
            self.direction.clone(),
            word(&self.level),
            self.connections.len().to_string(),
            time::or_never(now, self.expires_at),
            self.id.to_string(),
        ]
    }

    fn block(&self, now: u64) -> Vec<(&'static str, String)> {
        let mut lines = vec![
            ("Id", self.id.to_string()),
            ("Server", self.server_name.clone()),
            ("Peer", self.peer_name.clone()),
            ("Direction", self.direction.clone()),
            ("Level", word(&self.level)),
            ("Beyond that", admin::options(self.scope)),
        ];
        for connection in &self.connections {
            lines.push(("Tunnel", connection.to_string()));
        }
        if let Some(metrics) = &self.metrics {
            lines.push(("Online", yes_no(metrics.online)));
            lines.push(("  Seen", time::or_never(now, metrics.last_seen_at)));
            lines.push(("  Version", or_dash(metrics.gateway_version.as_deref())));
            lines.push(("  Policy", if metrics.policy_in_force { "in force" } else { "not in force yet" }.to_owned()));
            let (all, active, connected) = (metrics.connections, metrics.active, metrics.connected);
            lines.push(("  Connections", format!("{all}, {active} active, {connected} connected")));
            let (sent, received) = (metrics.bytes_sent, metrics.bytes_received);
            lines.push(("  Traffic", format!("{sent} B sent, {received} B received, {} streams", metrics.streams)));
        }
        lines.push(("Expires", time::or_never(now, self.expires_at)));
        lines.push(("Created", time::relative(now, self.created_at)));
        if let Some(at) = self.ended_at {
            lines.push(("Ended", time::relative(now, at)));
        }
        lines
    }
}
