//! `gateway-ctl grant`: permissions to use a channel, offered, asked for, approved and taken away.

mod view;

use clap::{Args, Subcommand};
use gateway_proto::{
    api::platform::{self, ApproveGrant, CreateGrant},
    id::{AgreementId, ChannelId, GrantId},
    peering::GrantStatus,
};

use crate::{
    args::{Confirmed, Span},
    client::Control,
    cmd::{Context, agreement, channel, endpoint, id_of, server},
    error::CtlError,
};

const PATH: &str = "/grants";

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Grant {
    /// List the grants.
    List,
    /// Show a grant.
    Show(One),
    /// Offer an own published channel to a partner.
    Offer(Offer),
    /// Ask a partner for one of its published endpoints.
    Request(Request),
    /// Approve what the other side offered or asked for: the connection is made.
    Approve(Approve),
    /// Say no to what the other side offered or asked for.
    Deny(One),
    /// Take an own offer or request back before it is approved.
    Withdraw(One),
    /// Take an approved grant away from the partner; its connection ends at once.
    Revoke(Confirmed<One>),
    /// Give an approved grant back; its connection ends at once.
    Surrender(Confirmed<One>),
}

/// A grant.
#[derive(Debug, Args)]
pub(crate) struct One {
    /// Public name of the endpoint, `PEER/NAME`, or id of the grant.
    grant: String,
}

/// Own channel, to a partner.
#[derive(Debug, Args)]
pub(crate) struct Offer {
    /// Name, `SERVER/NAME`, public name or id of the channel.
    #[arg(long)]
    channel: String,
    /// Name of the peer, or id of the agreement.
    #[arg(long, value_name = "AGREEMENT")]
    to: String,
    #[command(flatten)]
    limits: Limits,
    #[command(flatten)]
    sender: Sender,
}

/// A partner's endpoint, for us.
#[derive(Debug, Args)]
pub(crate) struct Request {
    /// Name of the peer, or id of the agreement.
    #[arg(long)]
    agreement: String,
    /// Public name of the endpoint, or id of its channel.
    #[arg(long)]
    endpoint: String,
    #[command(flatten)]
    limits: Limits,
    #[command(flatten)]
    sender: Sender,
}

/// What bounds a grant.
#[derive(Debug, Args)]
struct Limits {
    /// End it after this time, for example 90d; default: never.
    #[arg(long, value_name = "TIME")]
    expires: Option<Span>,
    /// Open streams at most; default 64.
    #[arg(long, value_name = "N")]
    max_streams: Option<u32>,
    /// Payload in each direction at most, in bytes per second, all streams together; default: as fast as it goes.
    #[arg(long, value_name = "N")]
    bytes_per_second: Option<u64>,
    /// Reset a stream in which no byte passes for this time, for example 10m; default: never.
    #[arg(long, value_name = "TIME")]
    receive_timeout: Option<Span>,
    /// A kind of exchange that the connection may have, the channel's among them; may be repeated; default: the channel's,
    /// whatever it is.
    #[arg(long = "behavior", value_name = "BEHAVIOR")]
    behaviors: Vec<String>,
    /// How long data may go on while a gateway cannot reach the control plane; default 72h.
    #[arg(long, value_name = "TIME")]
    staleness: Option<Span>,
    /// Refuse tunnels without a post-quantum key exchange.
    #[arg(long)]
    require_post_quantum: bool,
}

/// The sending end.
#[derive(Debug, Args)]
struct Sender {
    /// The sending server, where it is one of ours; default: the only one.
    #[arg(long)]
    server: Option<String>,
    /// The local port its gateway opens for the engine; default: it picks one and keeps it.
    #[arg(long)]
    port: Option<u16>,
}

/// What a request is approved under; each not wider than it was asked for.
#[derive(Debug, Args)]
struct Tighter {
    /// A request for our channel: end the grant after this time, for example 90d; default: as asked for, like what follows.
    #[arg(long, value_name = "TIME")]
    expires: Option<Span>,
    /// Open streams at most.
    #[arg(long, value_name = "N")]
    max_streams: Option<u32>,
    /// Payload in each direction at most, in bytes per second, all streams together.
    #[arg(long, value_name = "N")]
    bytes_per_second: Option<u64>,
    /// Reset a stream in which no byte passes for this time, for example 10m.
    #[arg(long, value_name = "TIME")]
    receive_timeout: Option<Span>,
}

/// A grant to approve.
#[derive(Debug, Args)]
pub(crate) struct Approve {
    #[command(flatten)]
    one: One,
    #[command(flatten)]
    sender: Sender,
    #[command(flatten)]
    limits: Tighter,
    /// Leave the connection ready, and activate it by hand.
    #[arg(long)]
    no_auto_activate: bool,
}

/// The side of a grant that may do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Ours to answer: the other side made it.
    Answer,
    /// Ours to take back: we made it.
    TakeBack,
    /// In force, our channel.
    Revoke,
    /// In force, the peer's channel.
    Surrender,
}

impl Turn {
    /// Whether the deed is open to us; in a self-agreement we are both sides.
    fn fits(self, grant: &platform::Grant) -> bool {
        let given = grant.direction != "received";
        let received = grant.direction != "given";
        let (offered, asked) = (grant.status == GrantStatus::Pending, grant.status == GrantStatus::Requested);
        match self {
            Self::Answer => (offered && received) || (asked && given),
            Self::TakeBack => (offered && given) || (asked && received),
            Self::Revoke => grant.status == GrantStatus::Active && given,
            Self::Surrender => grant.status == GrantStatus::Active && received,
        }
    }
}

impl Grant {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        let control = context.control()?;
        let grant = match self {
            Self::List => {
                let grants: Vec<platform::Grant> = control.list(PATH, &[], None).await?;
                return context.out.list(&grants);
            }
            Self::Show(One { grant }) => {
                let id = id_of::<platform::Grant>(&control, PATH, &grant, view::is_living).await?;
                control.get(&format!("{PATH}/{id}")).await?
            }
            Self::Offer(Offer { channel, to, limits, sender }) => {
                let agreement_id = agreement::agreement_id(&control, &to).await?;
                let channel_id = channel::channel_id(&control, &channel).await?;
                create(&control, agreement_id, channel_id, &limits, &sender).await?
            }
            Self::Request(Request { agreement, endpoint, limits, sender }) => {
                let agreement_id = agreement::agreement_id(&control, &agreement).await?;
                let channel_id = endpoint::endpoint_id(&control, agreement_id, &endpoint).await?;
                create(&control, agreement_id, channel_id, &limits, &sender).await?
            }
            Self::Approve(approve) => approve.run(&control).await?,
            Self::Deny(one) => one.act(&control, Turn::Answer, "deny").await?,
            Self::Withdraw(one) => one.act(&control, Turn::TakeBack, "withdraw").await?,
            Self::Revoke(last) => last.act(&control, Turn::Revoke, "revoke").await?,
            Self::Surrender(last) => last.act(&control, Turn::Surrender, "surrender").await?,
        };
        context.out.item(&grant)
    }
}

impl Approve {
    async fn run(&self, control: &Control) -> Result<platform::Grant, CtlError> {
        let id = self.one.id(control, Turn::Answer).await?;
        let now = gateway_net::time::unix_secs();
        let body = ApproveGrant {
            sender_server_id: server::optional_id(control, self.sender.server.as_deref()).await?,
            sender_port: self.sender.port,
            auto_activate: self.no_auto_activate.then_some(false),
            expires_at: self.limits.expires.map(|span| span.after(now)),
            max_streams: self.limits.max_streams,
            bytes_per_second: self.limits.bytes_per_second,
            receive_timeout_secs: self.limits.receive_timeout.map(timeout_secs),
        };
        Ok(control.post(&format!("{PATH}/{id}/approve"), &body).await?)
    }
}

impl One {
    async fn act(&self, control: &Control, turn: Turn, verb: &str) -> Result<platform::Grant, CtlError> {
        let id = self.id(control, turn).await?;
        Ok(control.act(&format!("{PATH}/{id}/{verb}")).await?)
    }

    async fn id(&self, control: &Control, turn: Turn) -> Result<GrantId, CtlError> {
        id_of::<platform::Grant>(control, PATH, &self.grant, |grant| turn.fits(grant)).await
    }
}

impl Confirmed<One> {
    async fn act(&self, control: &Control, turn: Turn, verb: &str) -> Result<platform::Grant, CtlError> {
        let id = self.one.id(control, turn).await?;
        let deed = if turn == Turn::Revoke { "Revoke" } else { "Surrender" };
        self.confirm.ask(&format!("{deed} the grant '{}' ({id}) and end its connection", self.one.grant))?;
        Ok(control.act(&format!("{PATH}/{id}/{verb}")).await?)
    }
}

/// What is longer than fits is refused by the platform like anything above its limit.
fn timeout_secs(span: Span) -> u32 {
    u32::try_from(span.secs).unwrap_or(u32::MAX)
}

async fn create(
    control: &Control,
    agreement_id: AgreementId,
    channel_id: ChannelId,
    limits: &Limits,
    sender: &Sender,
) -> Result<platform::Grant, CtlError> {
    let now = gateway_net::time::unix_secs();
    let body = CreateGrant {
        agreement_id,
        channel_id,
        expires_at: limits.expires.map(|span| span.after(now)),
        max_streams: limits.max_streams,
        bytes_per_second: limits.bytes_per_second,
        receive_timeout_secs: limits.receive_timeout.map(timeout_secs),
        behaviors: limits.behaviors.clone(),
        staleness_secs: limits.staleness.map(|span| span.secs),
        require_post_quantum: limits.require_post_quantum,
        sender_server_id: server::optional_id(control, sender.server.as_deref()).await?,
        sender_port: sender.port,
    };
    Ok(control.post(PATH, &body).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_verb_means_the_grants_it_can_act_on() {
        let grant = |status, direction| view::tests::grant(status, direction);
        for (status, direction, turns) in [
            (GrantStatus::Pending, "received", &[Turn::Answer][..]),
            (GrantStatus::Pending, "given", &[Turn::TakeBack]),
            (GrantStatus::Requested, "given", &[Turn::Answer]),
            (GrantStatus::Requested, "received", &[Turn::TakeBack]),
            (GrantStatus::Pending, "self", &[Turn::Answer, Turn::TakeBack]),
            (GrantStatus::Active, "given", &[Turn::Revoke]),
            (GrantStatus::Active, "received", &[Turn::Surrender]),
            (GrantStatus::Active, "self", &[Turn::Revoke, Turn::Surrender]),
            (GrantStatus::Revoked, "given", &[]),
        ] {
            for turn in [Turn::Answer, Turn::TakeBack, Turn::Revoke, Turn::Surrender] {
                assert_eq!(
                    turn.fits(&grant(status, direction)),
                    turns.contains(&turn),
                    "{status:?} {direction} {turn:?}"
                );
            }
        }
    }
}
