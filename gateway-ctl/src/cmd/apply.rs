//! `gateway-ctl apply`: a site as a file. What the file wants and the platform lacks is made; what differs is changed; what
//! the file does not name stays as it is, and nothing is ever removed. Applied again, it changes nothing.
//!
//! The file is checked ([`site`]), the platform is asked once ([`found`]), and one list of steps is made ([`mod@plan`]): a dry run shows it,
//! an application goes through it. Names are compared as the platform compares them; whom they mean is remembered ([`partners`]).

mod found;
mod partners;
mod plan;
mod site;

use std::{collections::BTreeMap, path::PathBuf};

use clap::Args;
use gateway_proto::{
    api::platform::{
        Agreement, Channel, CreateChannel, CreateGrant, CreatePeeringRequest, CreateServer, Grant, Organization,
        PeeringRequest, Server,
    },
    id::{ChannelId, ServerId},
    names::fold,
};
use serde::Serialize;

use self::{
    found::Found,
    partners::{Meant, Remembered, meant},
    plan::{Step, Which, plan},
    site::{Site, unusable},
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
        let now = gateway_net::time::unix_secs();
        let site = Site::load(&self.file, now)?;
        let remembered = Remembered::load(&self.file)?;
        let control = context.control()?;
        let mut found = find(&control, &site, remembered, now).await?;
        let plan = plan(&site, &found);
        if !plan.refusals.is_empty() {
            return Err(unusable(&self.file, &plan.refusals));
        }
        let waits = plan.waits.into_iter().map(|step| Shown { step, state: "waits" });
        if self.dry_run {
            let planned = plan.steps.iter().map(|step| Shown { step: step.to_string(), state: "planned" });
            return context.out.list(&planned.chain(waits).collect::<Vec<_>>());
        }
        // Before anything stands on what a name means.
        found.remembered.learn(found.own.id, &plan.meant)?;
        let (mut made, mut shown) = (Made::default(), Vec::new());
        for step in plan.steps {
            let words = step.to_string();
            if let Err(error) = made.perform(&control, step).await {
                // What was done before is done.
                context.out.list(&shown)?;
                return Err(error);
            }
            shown.push(Shown { step: words, state: "done" });
        }
        shown.extend(waits);
        context.out.list(&shown)
    }
}

async fn find(control: &Control, site: &Site, remembered: Remembered, now: u64) -> Result<Found, CtlError> {
    let mut found = Found {
        own: control.get::<Organization>("/organization").await?,
        servers: control.list::<Server>("/servers", &[], None).await?,
        channels: control.list::<Channel>("/channels", &[], None).await?,
        requests: control.list::<PeeringRequest>("/peering-requests", &[], None).await?,
        agreements: control.list::<Agreement>("/agreements", &[], None).await?,
        grants: control.list::<Grant>("/grants", &[], None).await?,
        directory: Vec::new(),
        remembered,
        now,
    };
    for peer in &site.peers {
        if meant(&peer.organization, &found) == Meant::Nobody {
            let name = fold(&peer.organization);
            found.directory.extend(directory::search(control, &name).await?);
        }
    }
    Ok(found)
}

/// What the steps up to here made, by its place in the file.
#[derive(Debug, Default)]
struct Made {
    servers: BTreeMap<usize, ServerId>,
    channels: BTreeMap<usize, ChannelId>,
}

impl Made {
    async fn perform(&mut self, control: &Control, step: Step) -> Result<(), CtlError> {
        match step {
            Step::CreateServer { place, name } => {
                let server: Server = control.post("/servers", &CreateServer { name }).await?;
                self.servers.insert(place, server.id);
            }
            Step::CreateChannel { place, server, channel } => {
                let body = CreateChannel {
                    server_id: id_of(server, &self.servers)?,
                    name: channel.name,
                    engine: channel.engine,
                    behavior: channel.behavior,
                    public_name: channel.publish,
                    public_description: channel.description,
                };
                let channel: Channel = control.post("/channels", &body).await?;
                self.channels.insert(place, channel.id);
            }
            Step::ChangeChannel { id, update, .. } => {
                let _: Channel = control.patch(&format!("/channels/{id}"), &update).await?;
            }
            Step::RequestPeering { id, message, .. } => {
                let body = CreatePeeringRequest { organization_id: id, message };
                let _: PeeringRequest = control.post("/peering-requests", &body).await?;
            }
            Step::OfferGrant { agreement_id, channel, grant, expires_at, .. } => {
                let body = CreateGrant {
                    agreement_id,
                    channel_id: id_of(channel, &self.channels)?,
                    expires_at,
                    max_streams: grant.max_streams,
                    staleness_secs: None,
                    require_post_quantum: grant.require_post_quantum,
                    sender_server_id: None,
                    sender_port: None,
                };
                let _: Grant = control.post("/grants", &body).await?;
            }
        }
        Ok(())
    }
}

fn id_of<T: Copy>(which: Which<T>, made: &BTreeMap<usize, T>) -> Result<T, CtlError> {
    match which {
        Which::There(id) => Ok(id),
        Which::Made(place) => {
            let id = made.get(&place).copied();
            id.ok_or_else(|| CtlError::No("the step before, which this one stands on, was not done".to_owned()))
        }
    }
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
