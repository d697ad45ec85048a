//! `gateway-ctl admin`: admin connections, that is a partner's people at the engine of a server.

use clap::{Args, Subcommand};
use gateway_proto::{
    api::platform::{AcceptAdmin, AdminAccess, AdminApproval, AdminTerms, Connection, EnterAdmin, OfferAdmin},
    id::{ConnectionId, ServerId},
    peering::ConnectionStatus,
    policy::{AdminPerson, AdminScope},
};

use crate::{
    args::{Confirmed, Span},
    client::Control,
    cmd::{Context, agreement, connection, id_among, server},
    error::CtlError,
    output::{time, word},
};

const OFFERS: &str = "/admin-connections";
const PATH: &str = "/connections";

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Admin {
    /// List the admin connections.
    List {
        /// With those that are over.
        #[arg(long)]
        ended: bool,
    },
    /// Show an admin connection.
    Show(One),
    /// Offer a partner the engine's admin API of an own server; read-only unless it says otherwise.
    Offer(Offer),
    /// Approve an admin connection to an own server, as the second person that is demanded.
    Approve(One),
    /// Accept an offer, naming the server it is used from.
    Accept(Accept),
    /// Say who you are to the owner of the engine: the person behind an account or address of your side.
    Enter(Enter),
    /// Take your name from an admin connection.
    Leave(One),
    /// Decline an offer.
    Decline(One),
    /// End an admin connection, or take an offer back.
    Terminate(Confirmed<One>),
}

/// An admin connection.
#[derive(Debug, Args)]
pub(crate) struct One {
    /// Name of the administered server, `PEER/SERVER`, or id of the connection.
    connection: String,
}

/// What is offered.
#[derive(Debug, Args)]
pub(crate) struct Offer {
    /// Name or id of the own server.
    #[arg(long)]
    server: String,
    /// Name of the peer, or id of the agreement.
    #[arg(long, value_name = "AGREEMENT")]
    to: String,
    /// Let them change the engine (Standard tier and up).
    #[arg(long)]
    read_write: bool,
    #[command(flatten)]
    scope: Scope,
    /// A time-box: end it after this time, for example 8h; default: none.
    #[arg(long = "for", value_name = "TIME")]
    span: Option<Span>,
    /// Requests at the same time at most; default 64.
    #[arg(long, value_name = "N")]
    max_streams: Option<u32>,
    /// How long it may be used while a gateway cannot reach the control plane; default 15m.
    #[arg(long, value_name = "TIME")]
    staleness: Option<Span>,
    /// Refuse tunnels without a post-quantum key exchange.
    #[arg(long)]
    require_post_quantum: bool,
    /// A word to them.
    #[arg(long, default_value = "", hide_default_value = true)]
    message: String,
    /// To `self`: the own server it is used from; default: the only one.
    #[arg(long, value_name = "SERVER")]
    from: Option<String>,
    /// To `self`: the local port of that server's gateway; default: it picks one and keeps it.
    #[arg(long)]
    port: Option<u16>,
}

/// What is let through beyond read-only or read-write.
#[derive(Debug, Args)]
pub(crate) struct Scope {
    /// Let them read messages, attachments and what events tell of them, that is patient data.
    #[arg(long)]
    patient_data: bool,
    /// With the right to change: let them make the engine connect or write where they choose.
    #[arg(long)]
    probes: bool,
    /// With the right to change: let them install extensions, that is code.
    #[arg(long)]
    uploads: bool,
    /// Let nobody through who has not said who he is (`admin enter`).
    #[arg(long)]
    named_people: bool,
}

/// Who is behind which client.
#[derive(Debug, Args)]
pub(crate) struct Enter {
    #[command(flatten)]
    one: One,
    #[command(flatten)]
    client: ClientOf,
    /// For how long, 24h at most; default 8h.
    #[arg(long = "for", value_name = "TIME")]
    span: Option<Span>,
}

/// How the gateway of this side knows the client.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct ClientOf {
    /// The operating system's account, for programs on the gateway's machine.
    #[arg(long)]
    account: Option<String>,
    /// The address of the machine the programs run on.
    #[arg(long, value_name = "IP")]
    address: Option<String>,
}

/// An offer to accept.
#[derive(Debug, Args)]
pub(crate) struct Accept {
    #[command(flatten)]
    one: One,
    #[command(flatten)]
    using: Using,
    /// Leave the connection ready, and activate it by hand.
    #[arg(long)]
    no_auto_activate: bool,
}

/// Where administrators connect.
#[derive(Debug, Args)]
pub(crate) struct Using {
    /// The own server it is used from; default: the only one.
    #[arg(long)]
    server: Option<String>,
    /// The local port its gateway opens for administrators; default: it picks one and keeps it.
    #[arg(long)]
    port: Option<u16>,
}

impl Admin {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        let control = context.control()?;
        let connection = match self {
            Self::List { ended } => {
                let connections = all(&control, ended).await?;
                return context.out.list(&connections);
            }
            Self::Show(one) => {
                let id = one.id(&control, connection::is_living).await?;
                control.get(&format!("{PATH}/{id}")).await?
            }
            Self::Offer(offer) => offer.run(&control).await?,
            Self::Approve(one) => {
                let id = one.id(&control, waits_for_approval).await?;
                control.act(&format!("{PATH}/{id}/approve")).await?
            }
            Self::Accept(accept) => {
                let id = accept.one.id(&control, waits).await?;
                let body = AcceptAdmin {
                    server_id: accept.using.server_id(&control).await?,
                    port: accept.using.port,
                    auto_activate: accept.no_auto_activate.then_some(false),
                };
                control.post(&format!("{PATH}/{id}/accept"), &body).await?
            }
            Self::Enter(Enter { one, client, span }) => {
                let id = one.id(&control, connection::is_living).await?;
                let valid_secs = span.map(|span| span.secs);
                let body = EnterAdmin { account: client.account, address: client.address, valid_secs };
                control.post(&format!("{PATH}/{id}/enter"), &body).await?
            }
            Self::Leave(one) => {
                let id = one.id(&control, connection::is_living).await?;
                control.act(&format!("{PATH}/{id}/leave")).await?
            }
            Self::Decline(one) => {
                let id = one.id(&control, waits).await?;
                control.act(&format!("{PATH}/{id}/decline")).await?
            }
            Self::Terminate(Confirmed { one, confirm }) => {
                let id = one.id(&control, connection::is_living).await?;
                confirm.ask(&format!("Terminate the admin connection '{}' ({id})", one.connection))?;
                control.act::<Connection>(&format!("{PATH}/{id}/terminate")).await?
            }
        };
        context.out.item(&connection)
    }
}

impl Offer {
    async fn run(&self, control: &Control) -> Result<Connection, CtlError> {
        let now = gateway_net::time::unix_secs();
        let body = OfferAdmin {
            agreement_id: agreement::agreement_id(control, &self.to).await?,
            server_id: server::server_id(control, &self.server).await?,
            access: if self.read_write { AdminAccess::ReadWrite } else { AdminAccess::ReadOnly },
            scope: self.scope.to_scope(),
            expires_at: self.span.map(|span| span.after(now)),
            max_streams: self.max_streams,
            staleness_secs: self.staleness.map(|span| span.secs),
            require_post_quantum: self.require_post_quantum,
            message: self.message.clone(),
            user_server_id: server::optional_id(control, self.from.as_deref()).await?,
            user_port: self.port,
        };
        Ok(control.post(OFFERS, &body).await?)
    }
}

impl Scope {
    pub(crate) fn to_scope(&self) -> AdminScope {
        AdminScope {
            patient_data: self.patient_data,
            probes: self.probes,
            extension_upload: self.uploads,
            named_people: self.named_people,
        }
    }
}

impl Using {
    pub(crate) async fn server_id(&self, control: &Control) -> Result<Option<ServerId>, CtlError> {
        server::optional_id(control, self.server.as_deref()).await
    }

    pub(crate) fn port(&self) -> Option<u16> {
        self.port
    }
}

impl One {
    async fn id(&self, control: &Control, prefer: impl Fn(&Connection) -> bool) -> Result<ConnectionId, CtlError> {
        id_among(control, (PATH, &[("kind", "admin"), ("ended", "true")]), &self.connection, prefer).await
    }
}

async fn all(control: &Control, ended: bool) -> Result<Vec<Connection>, CtlError> {
    let query = [("kind", "admin"), ("ended", if ended { "true" } else { "false" })];
    Ok(control.list(PATH, &query, None).await?)
}

/// An offer that can be answered.
fn waits(connection: &Connection) -> bool {
    connection.status == ConnectionStatus::Offered
}

/// One that waits for a second person of the own organization.
fn waits_for_approval(connection: &Connection) -> bool {
    let approval = connection.admin.as_ref().and_then(|admin| admin.approval.as_ref());
    connection::is_living(connection) && approval.is_some_and(|approval| approval.approved_at.is_none())
}

/// The terms of an admin connection, for its block.
pub(crate) fn terms_lines(terms: &AdminTerms, status: ConnectionStatus, now: u64) -> Vec<(&'static str, String)> {
    let mut lines = vec![("Access", word(&terms.access)), ("Beyond that", options(terms.scope))];
    if !terms.message.is_empty() {
        lines.push(("Message", terms.message.clone()));
    }
    if let Some(approval) = &terms.approval {
        lines.push(("Second person", second_person(approval, now)));
    }
    if matches!(status, ConnectionStatus::Provisioning | ConnectionStatus::Offered) {
        lines.push(("Answer by", time::relative(now, terms.answer_by)));
    }
    lines.push(("Expires", time::or_never(now, terms.expires_at)));
    lines.push(("Without control", format!("{} min at most", terms.staleness_secs.div_ceil(60))));
    lines.push(("Post-quantum", if terms.require_post_quantum { "required" } else { "not required" }.to_owned()));
    for AdminPerson { person, acting, until } in &terms.people {
        lines.push(("Person", format!("{person}, as {} until {}", acting.name, time::relative(now, *until))));
    }
    if let Some(share) = terms.share_id {
        lines.push(("Share", share.to_string()));
    }
    lines
}

/// Who said what, as far as it is shown to this side.
fn second_person(approval: &AdminApproval, now: u64) -> String {
    let by = |name: &Option<String>| name.as_ref().map_or_else(String::new, |name| format!(" by {name}"));
    match approval.approved_at {
        Some(at) => format!("approved {}{}", time::relative(now, at), by(&approval.approved_by)),
        None => format!("waited for; offered{}", by(&approval.offered_by)),
    }
}

/// The options in words.
pub(crate) fn options(scope: AdminScope) -> String {
    let names = [
        (scope.patient_data, "patient data"),
        (scope.probes, "probes"),
        (scope.extension_upload, "extension upload"),
        (scope.named_people, "named people only"),
    ];
    let names: Vec<_> = names.iter().filter(|(on, _)| *on).map(|(_, name)| *name).collect();
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_offer_widens_is_said_in_words() {
        assert_eq!(options(AdminScope::default()), "nothing");
        let scope = AdminScope { patient_data: true, extension_upload: true, ..AdminScope::default() };
        assert_eq!(options(scope), "patient data, extension upload");
    }
}
