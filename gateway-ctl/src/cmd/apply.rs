//! `gateway-ctl apply`: a site as a file. What the file wants and the platform lacks is made; what differs is changed; what
//! the file does not name stays as it is, and nothing is ever removed. Applied again, it changes nothing.

mod plan;
mod site;

use std::path::PathBuf;

use clap::Args;
use gateway_proto::api::platform::{
    Agreement, Channel, CreateChannel, CreateGrant, CreatePeeringRequest, CreateServer, Grant, PeeringRequest, Server,
    UpdateChannel,
};
use serde::Serialize;

use self::{
    plan::{Found, Step, plan},
    site::Site,
};
use crate::{
    client::Control,
    cmd::{Context, directory},
    error::CtlError,
    output::View,
};

/// A site to put into place.
#[derive(Debug, Args)]
pub(crate) struct Apply {
    /// The file.
    #[arg(long, short = 'f', value_name = "FILE")]
    file: PathBuf,
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
}

/// A step as it is shown.
#[derive(Debug, Serialize)]
struct Shown {
    step: String,
    /// `planned`, `done` or `waits`.
    state: &'static str,
}

impl Apply {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        let site = Site::load(&self.file)?;
        let control = context.control()?;
        let mut shown = Vec::new();
        // What is made in one round is what the next one builds upon: servers, their channels, the grants of those.
        for _ in 0..3 {
            let steps = plan(&site, &found(&control).await?);
            let (waits, doable): (Vec<_>, Vec<_>) = steps.into_iter().partition(|step| matches!(step, Step::Wait(_)));
            if self.dry_run || doable.is_empty() {
                let doable = doable.iter().map(|step| Shown { step: step.to_string(), state: "planned" });
                shown.extend(doable);
                shown.extend(waits.iter().map(|step| Shown { step: step.to_string(), state: "waits" }));
                break;
            }
            for step in doable {
                let words = step.to_string();
                if let Err(error) = perform(&control, step).await {
                    // What was done before is done.
                    context.out.list(&shown)?;
                    return Err(error);
                }
                shown.push(Shown { step: words, state: "done" });
            }
        }
        context.out.list(&shown)
    }
}

async fn found(control: &Control) -> Result<Found, CtlError> {
    Ok(Found {
        servers: control.list::<Server>("/servers", &[], None).await?,
        channels: control.list::<Channel>("/channels", &[], None).await?,
        requests: control.list::<PeeringRequest>("/peering-requests", &[], None).await?,
        agreements: control.list::<Agreement>("/agreements", &[], None).await?,
        grants: control.list::<Grant>("/grants", &[], None).await?,
        now: gateway_net::time::unix_secs(),
    })
}

async fn perform(control: &Control, step: Step) -> Result<(), CtlError> {
    match step {
        Step::CreateServer(name) => {
            let _: Server = control.post("/servers", &CreateServer { name }).await?;
        }
        Step::CreateChannel { server_id, channel, .. } => {
            let body = CreateChannel {
                server_id,
                name: channel.name,
                engine: channel.engine,
                behavior: channel.behavior,
                public_name: channel.publish,
                public_description: channel.description,
            };
            let _: Channel = control.post("/channels", &body).await?;
        }
        Step::ChangeChannel { id, channel, .. } => {
            let body = UpdateChannel {
                name: None,
                engine: Some(channel.engine),
                engine_channel: None,
                published: Some(channel.publish.is_some()),
                public_name: channel.publish,
                public_description: channel.description,
            };
            let _: Channel = control.patch(&format!("/channels/{id}"), &body).await?;
        }
        Step::RequestPeering { organization, message } => {
            let organization_id = directory::organization_id(control, &organization).await?;
            let _: PeeringRequest =
                control.post("/peering-requests", &CreatePeeringRequest { organization_id, message }).await?;
        }
        Step::OfferGrant { agreement_id, channel_id, grant, expires_at, .. } => {
            let body = CreateGrant {
                agreement_id,
                channel_id,
                expires_at,
                max_streams: grant.max_streams,
                staleness_secs: None,
                require_post_quantum: grant.require_post_quantum,
                sender_server_id: None,
                sender_port: None,
            };
            let _: Grant = control.post("/grants", &body).await?;
        }
        Step::Wait(_) => {}
    }
    Ok(())
}

impl View for Shown {
    const HEADERS: &'static [&'static str] = &["STATE", "STEP"];

    fn row(&self, _now: u64) -> Vec<String> {
        vec![self.state.to_owned(), self.step.clone()]
    }

    fn block(&self, _now: u64) -> Vec<(&'static str, String)> {
        vec![("State", self.state.to_owned()), ("Step", self.step.clone())]
    }
}
