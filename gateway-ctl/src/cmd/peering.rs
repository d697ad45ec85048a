//! `gateway-ctl peering`: invitations between organizations.

use clap::{Args, Subcommand};
use gateway_proto::{
    api::platform::{CreatePeeringRequest, PeeringRequest},
    id::PeeringRequestId,
    peering::PeeringStatus,
};

use crate::{
    client::Control,
    cmd::{Context, directory, id_of},
    error::CtlError,
    output::{View, or_dash, time, word},
    resolve::Named,
};

const PATH: &str = "/peering-requests";

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Peering {
    /// List the requests, to us and from us.
    List,
    /// Ask an organization for an agreement; the own one (`self`) accepts at once.
    Request(Request),
    /// Accept a request: an agreement begins.
    Accept(One),
    /// Decline a request.
    Decline(One),
    /// Take an own request back.
    Withdraw(One),
}

/// A new request.
#[derive(Debug, Args)]
pub(crate) struct Request {
    /// Name in the directory, id, or `self`.
    organization: String,
    /// A word to them.
    #[arg(long, default_value = "", hide_default_value = true)]
    message: String,
}

/// An existing request.
#[derive(Debug, Args)]
pub(crate) struct One {
    /// Name of the other organization, or id of the request.
    request: String,
}

impl Peering {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        let control = context.control()?;
        let request = match self {
            Self::List => {
                let requests: Vec<PeeringRequest> = control.list(PATH, &[], None).await?;
                return context.out.list(&requests);
            }
            Self::Request(Request { organization, message }) => {
                let organization_id = directory::organization_id(&control, &organization).await?;
                control.post(PATH, &CreatePeeringRequest { organization_id, message }).await?
            }
            Self::Accept(one) => one.act(&control, "incoming", "accept").await?,
            Self::Decline(one) => one.act(&control, "incoming", "decline").await?,
            Self::Withdraw(one) => one.act(&control, "outgoing", "withdraw").await?,
        };
        context.out.item(&request)
    }
}

impl One {
    async fn act(&self, control: &Control, direction: &str, verb: &str) -> Result<PeeringRequest, CtlError> {
        let waits =
            |request: &PeeringRequest| request.status == PeeringStatus::Pending && request.direction == direction;
        let id = id_of::<PeeringRequest>(control, PATH, &self.request, waits).await?;
        Ok(control.act(&format!("{PATH}/{id}/{verb}")).await?)
    }
}

impl Named for PeeringRequest {
    type Id = PeeringRequestId;
    const KIND: &'static str = "peering request";
    const LIST: &'static str = "peering list";

    fn id(&self) -> PeeringRequestId {
        self.id
    }

    fn names(&self) -> Vec<String> {
        vec![self.peer_name.clone()]
    }

    fn describe(&self) -> String {
        format!("{}, {}, {}", self.peer_name, self.direction, word(&self.status))
    }
}

impl View for PeeringRequest {
    const HEADERS: &'static [&'static str] = &["PEER", "DIRECTION", "STATUS", "CREATED", "MESSAGE", "ID"];

    fn row(&self, now: u64) -> Vec<String> {
        vec![
            self.peer_name.clone(),
            self.direction.clone(),
            word(&self.status),
            time::relative(now, self.created_at),
            self.message.clone(),
            self.id.to_string(),
        ]
    }

    fn block(&self, now: u64) -> Vec<(&'static str, String)> {
        let mut lines = vec![
            ("Id", self.id.to_string()),
            ("Peer", self.peer_name.clone()),
            ("Peer id", self.peer_id.to_string()),
            ("Direction", self.direction.clone()),
            ("Status", word(&self.status)),
            ("Message", self.message.clone()),
            ("Agreement", or_dash(self.agreement_id)),
            ("Created", time::relative(now, self.created_at)),
        ];
        if self.status == PeeringStatus::Pending {
            lines.push(("Expires", time::relative(now, self.expires_at)));
        }
        lines
    }
}
