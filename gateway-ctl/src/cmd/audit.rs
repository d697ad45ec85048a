//! `gateway-ctl audit`: the decisions of the platform that concern the own organization.

mod export;

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use gateway_proto::{
    api::platform::{AuditEntry, Me},
    audit,
};
use serde::Serialize;

use crate::{
    client::Control,
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
    /// Check the whole hash chain: that nothing was changed, removed or put in between.
    Verify(Verify),
    /// Print the whole log, oldest entry first, one entry a line.
    Export {
        /// In which form.
        #[arg(long, value_enum, default_value_t = Format::Jsonl)]
        format: Format,
    },
}

/// What a log is checked against.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// An older export in the form `jsonl`: its entries must still be the beginning of the log.
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
}

/// Forms of an exported log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// JSON lines: the entries of the API.
    Jsonl,
    /// FHIR R4 AuditEvent resources, as lines (NDJSON).
    Fhir,
    /// Syslog lines of RFC 5424.
    Syslog,
}

/// The outcome of a verification.
#[derive(Debug, Serialize)]
struct Verified<'a> {
    entries: usize,
    head: &'a str,
}

impl Audit {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        let control = context.control()?;
        match self {
            Self::List { limit, all } => {
                let limit = (!all).then_some(limit);
                let entries: Vec<AuditEntry> = control.list("/audit", &[], limit).await?;
                context.out.list(&entries)
            }
            Self::Verify(Verify { against }) => {
                let (me, entries) = whole(&control).await?;
                let head = audit::verify(&me.organization.id.to_string(), &entries)
                    .map_err(|error| CtlError::No(error.to_string()))?;
                if let Some(path) = against {
                    export::compare(&path, &entries)?;
                }
                if context.out.is_json() {
                    return context.out.json(&Verified { entries: entries.len(), head: &head });
                }
                context.out.line(&format!("The log is whole: {} entries, newest hash {head}", entries.len()))
            }
            Self::Export { format } => {
                let (me, entries) = whole(&control).await?;
                for entry in &entries {
                    context.out.line(&export::line(format, &me.organization, entry))?;
                }
                Ok(())
            }
        }
    }
}

/// Who we are, and the whole log, oldest entry first.
async fn whole(control: &Control) -> Result<(Me, Vec<AuditEntry>), CtlError> {
    let me: Me = control.get("/me").await?;
    let mut entries: Vec<AuditEntry> = control.list("/audit", &[], None).await?;
    entries.reverse();
    Ok((me, entries))
}

impl View for AuditEntry {
    const HEADERS: &'static [&'static str] = &["WHEN", "ACTOR", "ACT", "OBJECT", "DETAIL"];

    fn row(&self, _now: u64) -> Vec<String> {
        vec![time::absolute(self.at), self.actor.clone(), self.act.clone(), self.object.clone(), self.detail.clone()]
    }

    fn block(&self, _now: u64) -> Vec<(&'static str, String)> {
        vec![
            ("Id", self.id.to_string()),
            ("When", time::absolute(self.at)),
            ("Actor", self.actor.clone()),
            ("Act", self.act.clone()),
            ("Object", self.object.clone()),
            ("Detail", self.detail.clone()),
            ("Request", self.request_id.clone()),
            ("Hash", self.hash.clone()),
        ]
    }
}
