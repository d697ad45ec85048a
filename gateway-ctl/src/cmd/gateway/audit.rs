//! `gateway-ctl gateway audit`: the log of streams, refusals and admin calls of this machine's gateway.
//!
//! It is read from the running daemon, or with `--dir` from its files, wherever they were copied to. What is verified is the text
//! of the lines, here and not in the daemon.

use std::{
    fs::File,
    io::{BufRead, BufReader, Lines},
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use gateway_proto::{
    api::local::{AuditLine, AuditNewest},
    audit::{
        line::{Head, LineError, LineVerifier, Verified, read},
        record::Event,
    },
};

use serde::{Serialize, Serializer};

use super::reported::{Reported, Wanted};
use crate::{
    client::Daemon,
    cmd::{
        Context,
        audit::{
            Format, Source,
            export::{Item, gateway_line},
        },
    },
    error::CtlError,
    output::{View, time},
};

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum GatewayAudit {
    /// List the newest records, newest last.
    List {
        /// Records at most.
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: usize,
        /// Only what begins with this: `admin`, `stream`, `stream.refuse`, `tunnel`, `signal`, `log`.
        #[arg(long, value_name = "ACT", default_value = "", value_parser = act)]
        act: String,
    },
    /// Check the whole log: that no line was changed, removed, put in, moved or cut off at the end.
    Verify(Verify),
    /// Print the whole log, oldest record first, one record a line.
    Export {
        /// In which form.
        #[arg(long, value_enum, default_value_t = Format::Jsonl)]
        format: Format,
        #[command(flatten)]
        place: Place,
    },
}

/// Where the log is.
#[derive(Debug, Args)]
pub(crate) struct Place {
    /// A folder with the files of a log, instead of the running daemon.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// What a log is checked against.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// An older export in the form `jsonl`, whose lines must still be there as far as the log goes back.
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// A record that the log must hold, as the daemon's own log told it: its sequence and hash.
    #[arg(long, value_name = "SEQUENCE:HASH", value_parser = head)]
    head: Option<Head>,
    /// Compare with the heads that the gateway of this server, by name or id, reported to the control plane; default: the
    /// server of this machine's gateway, where somebody is signed in.
    #[arg(long, value_name = "SERVER")]
    server: Option<String>,
    /// Do not ask the control plane.
    #[arg(long, conflicts_with = "server")]
    offline: bool,
    #[command(flatten)]
    place: Place,
}

/// A log, a file of it at a time.
#[derive(Debug)]
enum Pages<'a> {
    Daemon { daemon: Daemon, from: u64 },
    Dir { paths: std::vec::IntoIter<PathBuf>, dir: &'a Path },
}

impl GatewayAudit {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        match self {
            Self::List { limit, act } => list(context, limit, &act).await,
            Self::Verify(verify) => verify.run(context).await,
            Self::Export { format, place } => export(context, format, &place).await,
        }
    }
}

/// A chain that is not whole is a failure, whatever else is shown.
async fn list(context: &mut Context, limit: usize, act: &str) -> Result<(), CtlError> {
    let AuditNewest { lines, whole } = context.daemon()?.audit_newest(limit, act).await?;
    context.out.list(&lines)?;
    if whole {
        return Ok(());
    }
    Err(CtlError::No("the audit log is not whole: lines of it were changed or removed".to_owned()))
}

async fn export(context: &mut Context, format: Format, place: &Place) -> Result<(), CtlError> {
    let source = place.source(context).await?;
    let mut pages = place.pages(context)?;
    while let Some(page) = pages.next().await? {
        for text in page.lines() {
            let Some((record, hash)) = read(text) else {
                return Err(CtlError::No("the log holds a line that is no record: verify it".to_owned()));
            };
            context.out.line(&gateway_line(format, &source, text, &AuditLine { hash, record }))?;
        }
    }
    Ok(())
}

impl Verify {
    async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        // Before the first line is read: what was written then must be among them.
        let wanted = match (&self.server, self.offline, &self.place.dir) {
            (Some(server), ..) => Wanted::Server(server),
            (None, false, None) => Wanted::Own,
            (None, ..) => Wanted::None,
        };
        let reported = Reported::ask(context, wanted).await?;
        let known = match (&self.head, &self.place.dir) {
            (Some(head), _) => Some(head.clone()),
            (None, None) => Some(context.daemon()?.audit_head().await?),
            (None, Some(_)) => None,
        };
        let mut older = self.against.as_deref().map(Older::open).transpose()?;
        let of_control = reported.as_ref().map(Reported::known).unwrap_or_default();
        let mut verifier = LineVerifier::knowing(known.into_iter().chain(of_control));
        let mut pages = self.place.pages(context)?;
        let no = |error: LineError| CtlError::No(error.to_string());
        while let Some(page) = pages.next().await? {
            for line in page.lines() {
                let record = verifier.push(line).map_err(no)?;
                if let Some(older) = &mut older {
                    older.compare(record.sequence, line)?;
                }
            }
        }
        older.map_or(Ok(()), Older::finish)?;
        tell(context, &Outcome { verified: verifier.finish().map_err(no)?, control_plane: reported })
    }
}

/// What a verification found, and what the log was compared with.
#[derive(Debug, Serialize)]
struct Outcome {
    #[serde(flatten)]
    verified: Verified,
    #[serde(serialize_with = "asked_only")]
    control_plane: Result<Reported, String>,
}

fn asked_only<S: Serializer>(reported: &Result<Reported, String>, to: S) -> Result<S::Ok, S::Error> {
    reported.as_ref().ok().serialize(to)
}

fn tell(context: &mut Context, outcome: &Outcome) -> Result<(), CtlError> {
    if context.out.is_json() {
        return context.out.json(outcome);
    }
    let Outcome { verified, control_plane } = outcome;
    let Some(head) = &verified.head else { return context.out.line("There are no records.") };
    let Verified { records, first, missing, unclean_starts, .. } = verified;
    context.out.line(&format!("The log is whole: {records} records, newest {}:{}", head.sequence, head.hash))?;
    if *first > 0 {
        context
            .out
            .line(&format!("Those before record {first} were removed when there was no more room or time for them."))?;
    }
    if *missing > 0 {
        context.out.line(&format!("{missing} records could not be written when they happened; the log says where."))?;
    }
    if *unclean_starts > 0 {
        context
            .out
            .line(&format!("{unclean_starts} times the daemon began after a run that had not stopped in order."))?;
    }
    match control_plane {
        Ok(reported) => context.out.line(&reported.to_string()),
        Err(why) => context.out.line(&format!("Not compared with what the control plane knows: {why}.")),
    }
}

impl Place {
    fn pages(&self, context: &Context) -> Result<Pages<'_>, CtlError> {
        let Some(dir) = &self.dir else { return Ok(Pages::Daemon { daemon: context.daemon()?, from: 0 }) };
        let failed = |source| CtlError::File { path: dir.clone(), source };
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.starts_with("audit-") && name.ends_with(".jsonl") {
                paths.push(path);
            }
        }
        // Their names hold the sequence of their first record, with leading zeros.
        paths.sort();
        if paths.is_empty() {
            return Err(CtlError::No(format!("there is no file of an audit log in {}", dir.display())));
        }
        Ok(Pages::Dir { paths: paths.into_iter(), dir })
    }

    async fn source(&self, context: &Context) -> Result<Source, CtlError> {
        let (chain, owner) = match &self.dir {
            Some(dir) => ("-".to_owned(), dir.display().to_string()),
            None => {
                let status = context.daemon()?.status().await?;
                let names = [status.server, status.organization].into_iter().flatten().collect::<Vec<_>>();
                (status.key.to_string(), names.join(", "))
            }
        };
        Ok(Source { chain, owner, daemon: "gatewayd" })
    }
}

impl Pages<'_> {
    /// The next lines; none: those were all.
    async fn next(&mut self) -> Result<Option<String>, CtlError> {
        match self {
            Self::Daemon { daemon, from } => {
                let page = String::from_utf8_lossy(&daemon.audit_lines(*from).await?).into_owned();
                // A last line that cannot be read is told by whoever reads it; behind it nothing is asked for.
                *from = page.lines().next_back().and_then(read).map_or(u64::MAX, |(record, _)| record.sequence + 1);
                Ok((!page.is_empty()).then_some(page))
            }
            Self::Dir { paths, dir } => {
                let Some(path) = paths.next() else { return Ok(None) };
                let bytes = std::fs::read(&path).map_err(|source| CtlError::File { path: dir.join(&path), source })?;
                let mut text = String::from_utf8_lossy(&bytes).into_owned();
                // The newest file may end in a line that is just being written, or was when the daemon died.
                if paths.len() == 0 {
                    text.truncate(text.rfind('\n').map_or(0, |at| at + 1));
                }
                Ok(Some(text))
            }
        }
    }
}

/// An older export: each of its lines that the log still goes back to must be the same.
#[derive(Debug)]
struct Older {
    path: PathBuf,
    lines: Lines<BufReader<File>>,
    /// The next line and its sequence.
    next: Option<(u64, String)>,
    compared: u64,
}

impl Older {
    fn open(path: &Path) -> Result<Self, CtlError> {
        let file = File::open(path).map_err(|source| CtlError::File { path: path.to_owned(), source })?;
        let mut older = Self { path: path.to_owned(), lines: BufReader::new(file).lines(), next: None, compared: 0 };
        older.advance()?;
        Ok(older)
    }

    fn advance(&mut self) -> Result<(), CtlError> {
        self.next = match self.lines.next().transpose() {
            Err(source) => return Err(CtlError::File { path: self.path.clone(), source }),
            Ok(None) => None,
            Ok(Some(line)) => match read(&line) {
                Some((record, _)) => Some((record.sequence, line)),
                None => {
                    let words =
                        format!("{} is no export of a gateway's audit log (--format jsonl)", self.path.display());
                    return Err(CtlError::No(words));
                }
            },
        };
        Ok(())
    }

    fn compare(&mut self, sequence: u64, line: &str) -> Result<(), CtlError> {
        while self.next.as_ref().is_some_and(|(older, _)| *older < sequence) {
            self.advance()?;
        }
        if let Some((older, text)) = &self.next
            && *older == sequence
        {
            if text != line {
                let words = format!(
                    "record {sequence} is not what it was in {}: the log was written anew",
                    self.path.display()
                );
                return Err(CtlError::No(words));
            }
            self.compared += 1;
            self.advance()?;
        }
        Ok(())
    }

    fn finish(self) -> Result<(), CtlError> {
        let path = self.path.display();
        match (self.next, self.compared) {
            (Some((sequence, _)), _) => Err(CtlError::No(format!(
                "the log ends before record {sequence} of {path}: its newest lines were removed"
            ))),
            (None, 0) => Err(CtlError::No(format!("the log and {path} have no record in common: nothing to compare"))),
            (None, _) => Ok(()),
        }
    }
}

/// The beginning of an act that there is: an empty list would say that nothing happened.
fn act(text: &str) -> Result<String, String> {
    match Event::ACTS.iter().any(|act| act.starts_with(text)) {
        true => Ok(text.to_owned()),
        false => Err(format!("expected the beginning of one of: {}", Event::ACTS.join(", "))),
    }
}

/// `SEQUENCE:HASH`.
fn head(text: &str) -> Result<Head, String> {
    let parsed = text.split_once(':').and_then(|(sequence, hash)| {
        let is_hash = hash.len() == 64 && hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        Some(Head { sequence: sequence.parse().ok()?, hash: hash.to_owned() }).filter(|_| is_hash)
    });
    parsed.ok_or_else(|| "expected SEQUENCE:HASH, a number and 64 lower-case hex digits".to_owned())
}

impl View for AuditLine {
    const HEADERS: &'static [&'static str] = &["WHEN", "ACT", "WHO", "WHAT", "DETAIL"];

    fn row(&self, _now: u64) -> Vec<String> {
        let item = Item::of_gateway(self);
        let act = self.record.event.act().to_owned();
        vec![time::absolute(self.record.at / 1000), act, item.actor, item.object, item.detail]
    }

    fn block(&self, now: u64) -> Vec<(&'static str, String)> {
        let mut block: Vec<_> = ["When", "Act", "Who", "What", "Detail"].into_iter().zip(self.row(now)).collect();
        block.push(("Hash", self.hash.clone()));
        block
    }
}
