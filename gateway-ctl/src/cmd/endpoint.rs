//! `gateway-ctl endpoint`: what a partner published for us.

use clap::Subcommand;
use gateway_proto::{
    api::platform::PublishedEndpoint,
    id::{AgreementId, ChannelId},
};

use crate::{
    client::Control,
    cmd::{Context, agreement},
    error::CtlError,
    output::View,
    resolve::{self, Named},
};

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Endpoint {
    /// List the endpoints that the peer of an agreement published.
    List {
        /// Name of the peer, or id of the agreement.
        #[arg(long)]
        agreement: String,
    },
}

impl Endpoint {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        let Self::List { agreement } = self;
        let control = context.control()?;
        let id = agreement::agreement_id(&control, &agreement).await?;
        let endpoints = all(&control, id).await?;
        context.out.list(&endpoints)
    }
}

/// The endpoint of an agreement's peer that `wanted` names.
pub(crate) async fn endpoint_id(
    control: &Control,
    agreement: AgreementId,
    wanted: &str,
) -> Result<ChannelId, CtlError> {
    if let Ok(id) = wanted.parse() {
        return Ok(id);
    }
    let endpoints = all(control, agreement).await?;
    Ok(resolve::pick(wanted, &endpoints, |_| true)?.channel_id)
}

async fn all(control: &Control, agreement: AgreementId) -> Result<Vec<PublishedEndpoint>, CtlError> {
    Ok(control.list("/endpoints", &[("agreement", &agreement.to_string())], None).await?)
}

impl Named for PublishedEndpoint {
    type Id = ChannelId;
    const KIND: &'static str = "published endpoint";
    const LIST: &'static str = "endpoint list --agreement …";

    fn id(&self) -> ChannelId {
        self.channel_id
    }

    fn names(&self) -> Vec<String> {
        vec![self.name.clone()]
    }

    fn describe(&self) -> String {
        format!("{}: {}", self.name, self.description)
    }
}

impl View for PublishedEndpoint {
    const HEADERS: &'static [&'static str] = &["NAME", "BEHAVIOR", "STATE", "DESCRIPTION", "ID"];

    fn row(&self, _now: u64) -> Vec<String> {
        let (behavior, description) = (self.behavior.clone(), self.description.clone());
        vec![self.name.clone(), behavior, state(self).to_owned(), description, self.channel_id.to_string()]
    }

    fn block(&self, _now: u64) -> Vec<(&'static str, String)> {
        vec![
            ("Channel id", self.channel_id.to_string()),
            ("Name", self.name.clone()),
            ("Description", self.description.clone()),
            ("Behavior", self.behavior.clone()),
            ("State", state(self).to_owned()),
        ]
    }
}

fn state(endpoint: &PublishedEndpoint) -> &'static str {
    if endpoint.stopped { "stopped" } else { "-" }
}
