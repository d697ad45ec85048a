//! `gateway-ctl audit`: the decisions of the platform that concern the own organization.

pub(crate) mod export;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use gateway_proto::{
    api::platform::{AuditAnchor, AuditEntry, Me},
    audit::{self, PLATFORM_CHAIN},
};
use serde::Serialize;

use crate::{
    client::Control,
    cmd::{Context, relay::Place},
    error::CtlError,
    output::{View, time},
    secret::SecretSource,
};

const DAEMON: &str = "gateway-control";
const PATH: &str = "/audit";
const PLATFORM_PATH: &str = "/platform/audit";
/// The log has no end, so it is never held as a whole.
const OLDEST_FIRST: &[(&str, &str)] = &[("order", "oldest"), ("limit", "200")];

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
        #[command(flatten)]
        whose: Whose,
    },
    /// Check the whole hash chain: that nothing was changed, removed or put in between.
    Verify(Verify),
    /// Print the whole log, oldest entry first, one entry a line.
    Export {
        /// In which form.
        #[arg(long, value_enum, default_value_t = Format::Jsonl)]
        format: Format,
        #[command(flatten)]
        whose: Whose,
    },
}

/// Whose log: the own organization's, or with the operator token the platform's.
#[derive(Debug, Args)]
pub(crate) struct Whose {
    /// The log of the platform: file with its operator token, `-` for standard input; default: the own organization's.
    #[arg(long, value_name = "FILE")]
    operator_token_file: Option<SecretSource>,
    #[command(flatten)]
    place: Place,
}

/// A log that can be read.
#[derive(Debug)]
struct Log {
    control: Control,
    path: &'static str,
    source: Source,
}

/// Where entries come from.
#[derive(Debug)]
pub(crate) struct Source {
    /// Name of the hash chain.
    pub(crate) chain: String,
    /// Whose it is, for people.
    pub(crate) owner: String,
    /// The daemon that wrote it.
    pub(crate) daemon: &'static str,
}

/// What a log is checked against.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// An older export in the form `jsonl`: its entries must still be the beginning of the log.
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    #[command(flatten)]
    whose: Whose,
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
    entries: u64,
    /// Position after which the log begins, 0: nothing was removed.
    anchor: u64,
    head: &'a str,
}

impl Audit {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        match self {
            Self::List { limit, all, whose } => {
                let log = whose.log(context).await?;
                let limit = (!all).then_some(limit);
                let entries: Vec<AuditEntry> = log.control.list(log.path, &[], limit).await?;
                context.out.list(&entries)
            }
            Self::Verify(Verify { against, whose }) => {
                let log = whose.log(context).await?;
                loop {
                    let anchor = log.anchor().await?;
                    let result = walk(&log, &anchor, against.as_deref()).await;
                    // Old entries may have been removed while the pages came.
                    if result.is_ok() || log.anchor().await? == anchor {
                        return tell(context, &anchor, &result?);
                    }
                }
            }
            Self::Export { format, whose } => {
                let log = whose.log(context).await?;
                let print = |entries: Vec<AuditEntry>| {
                    let mut lines = entries.iter().map(|entry| export::line(format, &log.source, entry));
                    lines.try_for_each(|line| context.out.line(&line))
                };
                log.control.pages(log.path, OLDEST_FIRST, print).await
            }
        }
    }
}

impl Whose {
    async fn log(self, context: &Context) -> Result<Log, CtlError> {
        if let Some(source) = self.operator_token_file {
            let control = self.place.operated(context, &source)?;
            let source = Source { chain: PLATFORM_CHAIN.to_owned(), owner: "Platform".to_owned(), daemon: DAEMON };
            return Ok(Log { control, path: PLATFORM_PATH, source });
        }
        let control = self.place.signed_in(context)?;
        let Me { organization, .. } = control.get("/me").await?;
        let source = Source { chain: organization.id.to_string(), owner: organization.name, daemon: DAEMON };
        Ok(Log { control, path: PATH, source })
    }
}

impl Log {
    async fn anchor(&self) -> Result<AuditAnchor, CtlError> {
        Ok(self.control.get(&format!("{}/anchor", self.path)).await?)
    }
}

/// Verifies the whole log page by page: how many entries there are, and the hash of the newest one.
async fn walk(log: &Log, anchor: &AuditAnchor, against: Option<&Path>) -> Result<(u64, String), CtlError> {
    let mut verifier = audit::Verifier::after(&log.source.chain, anchor.sequence, &anchor.hash);
    let mut older = against.map(|path| export::Older::open(path, anchor)).transpose()?;
    let oldest_first = |entries: Vec<AuditEntry>| {
        entries.iter().try_for_each(|entry| {
            verifier.push(entry).map_err(|error| CtlError::No(error.to_string()))?;
            older.as_mut().map_or(Ok(()), |older| older.compare(Some(entry)))
        })
    };
    log.control.pages(log.path, OLDEST_FIRST, oldest_first).await?;
    older.map_or(Ok(()), export::Older::finish)?;
    Ok((verifier.entries(), verifier.head().to_owned()))
}

fn tell(context: &mut Context, anchor: &AuditAnchor, (entries, head): &(u64, String)) -> Result<(), CtlError> {
    if context.out.is_json() {
        return context.out.json(&Verified { entries: *entries, anchor: anchor.sequence, head });
    }
    let kept = match (anchor.sequence, anchor.removed_at) {
        (0, _) => format!("{entries} entries"),
        (last, at) => format!(
            "{entries} entries after entry {last}, up to which it was removed when its time was over{}",
            at.map(|at| format!(" ({})", time::absolute(at))).unwrap_or_default()
        ),
    };
    context.out.line(&format!("The log is whole: {kept}, newest hash {head}"))
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
