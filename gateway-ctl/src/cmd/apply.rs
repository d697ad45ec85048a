//! `gateway-ctl apply`: a site as a file. What the file wants and the platform lacks is made; what differs is changed; what
//! the file does not name stays as it is, and nothing is ever removed. Of what it names, a channel without `publish` is one that is
//! not published: it is withdrawn from partners. Applied again, it changes nothing.
//!
//! The file is checked ([`site`]), the platform is asked once ([`found`]), and one list of steps is made ([`mod@plan`]): a dry run shows it,
//! an application goes through it. Names are compared as the platform compares them; whom they mean is remembered ([`partners`]).

mod found;
mod partners;
mod plan;
mod site;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use clap::Args;
use gateway_proto::{
    api::{
        engine::ServerEngine,
        platform::{
            Agreement, Behavior, Channel, CreateChannel, CreateGrant, CreatePeeringRequest, CreateServer, Grant,
            Organization, PeeringRequest, Server,
        },
    },
    id::{ChannelId, ServerId},
    names::fold,
};
use serde::Serialize;

use self::{
    found::Found,
    partners::{Meant, Remembered, meant},
    plan::{Step, Which, plan},
    site::{Site, SiteChannel, unusable},
};
use crate::{
    client::{ClientError, Control},
    cmd::{Context, directory},
    error::{CtlError, FailedStep},
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
    /// `planned`, `done`, `failed`, `skipped` (not tried: what it stands on failed) or `waits`.
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
        let (mut made, mut shown, mut failed) = (Made::default(), Vec::new(), Vec::new());
        for step in plan.steps {
            let words = step.to_string();
            let can_be_done = !failed.iter().any(ends_all) && made.has_what_it_needs(&step);
            let state = if can_be_done {
                match made.perform(&control, step).await {
                    Ok(()) => "done",
                    Err(source) => {
                        failed.push(FailedStep { step: words.clone(), source });
                        "failed"
                    }
                }
            } else {
                "skipped"
            };
            shown.push(Shown { step: words, state });
        }
        shown.extend(waits);
        context.out.list(&shown)?;
        if failed.is_empty() { Ok(()) } else { Err(CtlError::Steps(failed)) }
    }
}

/// Whether nothing that comes after it can be done either: there was no answer, or the control plane can do nothing now. A step that is
/// refused is about its partner or its channel only.
fn ends_all(failed: &FailedStep) -> bool {
    !matches!(&failed.source, CtlError::Client(ClientError::Refused(problem)) if problem.status != 503)
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
        behaviors: Vec::new(),
        following: BTreeMap::new(),
        remembered,
        now,
    };
    look_at_engines(control, site, &mut found).await?;
    let is_named = site.channels.iter().any(|channel| channel.behavior.is_some());
    if is_named || site.grants.iter().any(|grant| !grant.behaviors.is_empty()) {
        let behaviors: Vec<Behavior> = control.list("/behaviors", &[], None).await?;
        found.behaviors = behaviors.into_iter().map(|behavior| behavior.name).collect();
    }
    look_up(control, site, &mut found).await?;
    Ok(found)
}

/// Notes which channels follow one of the engine, on servers of which the file has channels.
async fn look_at_engines(control: &Control, site: &Site, found: &mut Found) -> Result<(), CtlError> {
    let server = |channel: &SiteChannel| found.server(&channel.server).map(|server| server.id);
    let servers: BTreeSet<_> = site.channels.iter().filter_map(server).collect();
    for server in servers {
        let engine: ServerEngine = control.get(&format!("/servers/{server}/engine")).await?;
        found.following.extend(engine.links.into_iter().map(|link| (link.channel_id, link.state)));
    }
    Ok(())
}

/// Looks up in the directory whom the file names and what was found does not have.
async fn look_up(control: &Control, site: &Site, found: &mut Found) -> Result<(), CtlError> {
    let mut ids = BTreeSet::new();
    for peer in &site.peers {
        match meant(&peer.organization, found) {
            Meant::Nobody => {
                let entries = directory::search(control, &fold(&peer.organization)).await?;
                found.directory.extend(entries);
            }
            Meant::One(id) => {
                let is_settled = found.agreement(id).is_some() || found.pending(id).is_some();
                if !is_settled && found.over(id).is_none() && !found.may_be_asked(id) {
                    ids.insert(id);
                }
            }
            Meant::Several => {}
        }
    }
    for id in ids {
        found.directory.extend(directory::entry(control, id).await?);
    }
    Ok(())
}

/// What the steps up to here made, by its place in the file.
#[derive(Debug, Default)]
struct Made {
    servers: BTreeMap<usize, ServerId>,
    channels: BTreeMap<usize, ChannelId>,
    /// Channels that could not be changed to what the file says.
    unchanged: BTreeSet<ChannelId>,
}

impl Made {
    /// Whether the steps that this one stands on were done.
    fn has_what_it_needs(&self, step: &Step) -> bool {
        match step {
            Step::CreateServer { .. } | Step::ChangeChannel { .. } | Step::RequestPeering { .. } => true,
            Step::CreateChannel { server, .. } => id_of(*server, &self.servers).is_ok(),
            Step::OfferGrant { channel, .. } => {
                id_of(*channel, &self.channels).is_ok_and(|id| !self.unchanged.contains(&id))
            }
        }
    }

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
                let changed = control.patch::<Channel>(&format!("/channels/{id}"), &update).await;
                if changed.is_err() {
                    self.unchanged.insert(id);
                }
                changed?;
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
                    bytes_per_second: grant.bytes_per_second,
                    receive_timeout_secs: grant.receive_timeout_secs,
                    behaviors: grant.behaviors,
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
