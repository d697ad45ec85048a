//! `gateway-ctl audit`: the decisions of the platform that concern the own organization.

use clap::Subcommand;
use gateway_proto::api::platform::AuditEntry;

use crate::{
    cmd::Context,
    error::CtlError,
    output::{View, time},
};

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// List the entries, newest first.
    List {
        /// Entries at most.
        #[arg(long, value_name = "N", default_value_t = 50, conflicts_with = "all")]
        limit: usize,
        /// All entries.
        #[arg(long)]
        all: bool,
    },
}

impl Audit {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        let Self::List { limit, all } = self;
        let limit = (!all).then_some(limit);
        let entries: Vec<AuditEntry> = context.control()?.list("/audit", &[], limit).await?;
        context.out.list(&entries)
    }
}

impl View for AuditEntry {
    const HEADERS: &'static [&'static str] = &["WHEN", "ACTOR", "ACT", "OBJECT"];

    fn row(&self, _now: u64) -> Vec<String> {
        vec![time::absolute(self.at), self.actor.clone(), self.act.clone(), self.object.clone()]
    }

    fn block(&self, _now: u64) -> Vec<(&'static str, String)> {
        vec![
            ("Id", self.id.to_string()),
            ("When", time::absolute(self.at)),
            ("Actor", self.actor.clone()),
            ("Act", self.act.clone()),
            ("Object", self.object.clone()),
            ("Hash", self.hash.clone()),
        ]
    }
}
