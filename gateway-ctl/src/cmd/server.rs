//! `gateway-ctl server`: engines with a gateway beside them, and the codes that enrol those gateways.

mod audit;
mod code;

use clap::{Args, Subcommand};
use gateway_proto::{
    api::platform::{self, CreateServer},
    id::ServerId,
};

use crate::{
    args::Confirm,
    client::Control,
    cmd::{Context, channel::discover, id_of},
    error::CtlError,
    output::{View, or_dash, time},
    resolve::Named,
};

const PATH: &str = "/servers";

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Server {
    /// List the servers.
    List {
        /// With the state of the engine beside each.
        #[arg(long)]
        engines: bool,
    },
    /// Register a server.
    Create {
        /// Its name, unique in the organization.
        name: String,
    },
    /// Show a server.
    Show {
        /// Name or id.
        server: String,
    },
    /// Who has access to it: to its channels, to its engine, to its figures.
    Access {
        /// Name or id.
        server: String,
    },
    /// What its gateway reported of its audit log, and whether the log is still that one.
    Audit {
        /// Name or id.
        server: String,
        /// The history instead, newest first: a head of each hour.
        #[arg(long)]
        heads: bool,
    },
    /// Acknowledge that the audit log of its gateway is not the one that was reported.
    AcknowledgeAudit(AcknowledgeAudit),
    /// Delete a server; its gateway is cut off at once.
    Delete(Delete),
    /// Make a one-time code that enrols the server's gateway; an unused older one ends.
    EnrollmentCode(code::Create),
    /// List the codes that can still be used: who made them, and when they end.
    EnrollmentCodes {
        /// Name or id.
        server: String,
    },
    /// Revoke a code that nobody used.
    RevokeEnrollmentCode(code::Revoke),
}

/// An alarm to acknowledge.
#[derive(Debug, Args)]
pub(crate) struct AcknowledgeAudit {
    /// Name or id of the server.
    server: String,
    /// What was found, for the audit log.
    #[arg(long, value_name = "TEXT", default_value = "")]
    note: String,
    #[command(flatten)]
    confirm: Confirm,
}

/// A server to delete.
#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// Name or id.
    server: String,
    #[command(flatten)]
    confirm: Confirm,
}

impl Server {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        let control = context.control()?;
        match self {
            Self::List { engines: false } => {
                let servers: Vec<platform::Server> = control.list(PATH, &[], None).await?;
                context.out.list(&servers)
            }
            Self::List { engines: true } => with_engines(context, &control).await,
            Self::Create { name } => {
                let server: platform::Server = control.post(PATH, &CreateServer { name }).await?;
                context.out.item(&server)
            }
            Self::Show { server } => {
                let id = server_id(&control, &server).await?;
                let server: platform::Server = control.get(&format!("{PATH}/{id}")).await?;
                context.out.item(&server)?;
                if context.out.is_json() {
                    return Ok(());
                }
                let engine = discover::engine(&control, &server).await?;
                context.out.line(&format!("Engine: {}", discover::summary(&engine, gateway_net::time::unix_secs())))
            }
            Self::Access { server } => {
                let id = server_id(&control, &server).await?;
                let entries: Vec<platform::AccessEntry> =
                    control.list(&format!("{PATH}/{id}/access"), &[], None).await?;
                context.out.list(&entries)
            }
            Self::Audit { server, heads: false } => {
                let id = server_id(&control, &server).await?;
                let audit: platform::GatewayAudit = control.get(&format!("{PATH}/{id}/gateway-audit")).await?;
                context.out.item(&audit)
            }
            Self::Audit { server, heads: true } => {
                let id = server_id(&control, &server).await?;
                let heads: Vec<platform::KeptHead> =
                    control.list(&format!("{PATH}/{id}/gateway-audit/heads"), &[], None).await?;
                context.out.list(&heads)
            }
            Self::AcknowledgeAudit(AcknowledgeAudit { server, note, confirm }) => {
                let id = server_id(&control, &server).await?;
                confirm
                    .ask(&format!("Acknowledge that the audit log of '{server}' is not the one that was reported"))?;
                let body = platform::AcknowledgeAudit { note };
                let audit: platform::GatewayAudit =
                    control.post(&format!("{PATH}/{id}/gateway-audit/acknowledge"), &body).await?;
                context.out.item(&audit)
            }
            Self::Delete(Delete { server, confirm }) => {
                let id = server_id(&control, &server).await?;
                confirm.ask(&format!("Delete the server '{server}' ({id}) and end its connections"))?;
                control.delete(&format!("{PATH}/{id}")).await?;
                context.out.deed("server.delete", id, &format!("Deleted the server '{server}'."))
            }
            Self::EnrollmentCode(create) => create.run(context, &control).await,
            Self::EnrollmentCodes { server } => code::list(context, &control, &server).await,
            Self::RevokeEnrollmentCode(revoke) => revoke.run(context, &control).await,
        }
    }
}

/// The fleet, with one question for each engine.
async fn with_engines(context: &mut Context, control: &Control) -> Result<(), CtlError> {
    let (mut engines, mut rows) = (Vec::new(), Vec::new());
    let now = gateway_net::time::unix_secs();
    for server in all(control).await? {
        let engine = discover::engine(control, &server).await?;
        rows.push(vec![server.name.clone(), online(&server, now), discover::summary(&engine, now)]);
        engines.push(engine);
    }
    context.out.table(&engines, &["NAME", "ONLINE", "ENGINE"], || rows)
}

/// The server that `wanted` names.
pub(crate) async fn server_id(control: &Control, wanted: &str) -> Result<ServerId, CtlError> {
    id_of::<platform::Server>(control, PATH, wanted, |_| true).await
}

/// The same for a server that may be left out.
pub(crate) async fn optional_id(control: &Control, wanted: Option<&str>) -> Result<Option<ServerId>, CtlError> {
    match wanted {
        Some(server) => Ok(Some(server_id(control, server).await?)),
        None => Ok(None),
    }
}

/// The servers of the organization, for the names of ids.
pub(crate) async fn all(control: &Control) -> Result<Vec<platform::Server>, CtlError> {
    Ok(control.list(PATH, &[], None).await?)
}

impl Named for platform::Server {
    type Id = ServerId;
    const KIND: &'static str = "server";
    const LIST: &'static str = "server list";

    fn id(&self) -> ServerId {
        self.id
    }

    fn names(&self) -> Vec<String> {
        vec![self.name.clone()]
    }

    fn describe(&self) -> String {
        self.name.clone()
    }
}

impl View for platform::Server {
    const HEADERS: &'static [&'static str] = &["NAME", "GATEWAY", "ONLINE", "POLICY", "VERSION", "ID"];

    fn row(&self, now: u64) -> Vec<String> {
        vec![
            self.name.clone(),
            self.gateway.map_or_else(|| "not enrolled".to_owned(), |key| key.short()),
            online(self, now),
            remarks(self),
            or_dash(self.gateway_version.as_deref()),
            self.id.to_string(),
        ]
    }

    fn block(&self, now: u64) -> Vec<(&'static str, String)> {
        let mut lines = vec![
            ("Id", self.id.to_string()),
            ("Name", self.name.clone()),
            ("Gateway", self.gateway.map_or_else(|| "not enrolled".to_owned(), |key| key.to_string())),
            ("Version", or_dash(self.gateway_version.as_deref())),
            ("Online", online(self, now)),
            ("Policy", policy(self)),
        ];
        if let Some(problem) = &self.policy_problem {
            lines.push(("Problem", problem.clone()));
        }
        if let Some(twice) = &self.runs_twice {
            lines.push(("Runs twice", runs_twice(twice, now)));
        }
        if self.audit_alarm {
            lines.push(("Audit log", audit::ALARM.to_owned()));
        }
        lines.push(("Created", time::relative(now, self.created_at)));
        lines
    }
}

/// The policy, and in short what somebody has to look at.
fn remarks(server: &platform::Server) -> String {
    let twice = server.runs_twice.is_some().then_some("; runs twice");
    let audit = server.audit_alarm.then_some("; audit log differs");
    format!("{}{}{}", policy(server), twice.unwrap_or_default(), audit.unwrap_or_default())
}

fn runs_twice(twice: &platform::TwoProcesses, now: u64) -> String {
    let from = |address: &Option<String>| address.clone().unwrap_or_else(|| "an address that is not known".to_owned());
    format!(
        "a second process with the gateway's key came from {} (last {}, first {}) and was refused; the one from {} keeps the place. \
         If a machine was copied, give the copy's gatewayd a new state directory and enrol it for a server of its own",
        from(&twice.other_address),
        time::relative(now, twice.at),
        time::relative(now, twice.since),
        from(&twice.address)
    )
}

fn online(server: &platform::Server, now: u64) -> String {
    match (server.online, server.last_seen_at) {
        (true, _) => "yes".to_owned(),
        (false, Some(at)) => format!("no, seen {}", time::relative(now, at)),
        (false, None) => "never".to_owned(),
    }
}

fn policy(server: &platform::Server) -> String {
    let (newest, applied) = (server.policy_revision, server.applied_revision);
    match (newest == applied, &server.policy_problem) {
        (_, Some(_)) => format!("{newest} refused, {applied} in force"),
        (true, None) => format!("{applied} in force"),
        (false, None) => format!("{newest} sent, {applied} in force"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server() -> platform::Server {
        platform::Server {
            id: ServerId::new(1, [0; 10]),
            name: "lab".into(),
            gateway: None,
            gateway_version: None,
            online: false,
            last_seen_at: None,
            policy_revision: 3,
            applied_revision: 2,
            policy_problem: None,
            audit_alarm: false,
            runs_twice: None,
            created_at: 0,
        }
    }

    #[test]
    fn a_policy_that_is_not_in_force_everywhere_shows_both_revisions() {
        assert_eq!(policy(&server()), "3 sent, 2 in force");
        assert_eq!(policy(&platform::Server { applied_revision: 3, ..server() }), "3 in force");
        let refused = platform::Server { policy_problem: Some("forged".into()), ..server() };
        assert_eq!(policy(&refused), "3 refused, 2 in force");
    }

    #[test]
    fn a_gateway_that_runs_twice_shows_both_addresses_and_what_to_do() {
        let (address, other_address) = (Some("192.0.2.1".to_owned()), Some("198.51.100.7".to_owned()));
        let twice = platform::TwoProcesses { since: 40, at: 97, address, other_address };
        let twice = platform::Server { runs_twice: Some(twice), ..server() };
        assert_eq!(twice.row(100)[3], "3 sent, 2 in force; runs twice");
        let shown = twice.block(100).into_iter().find(|(label, _)| *label == "Runs twice").unwrap().1;
        assert!(shown.contains("from 198.51.100.7 (last 3 s ago, first 60 s ago)"), "{shown}");
        assert!(shown.contains("the one from 192.0.2.1 keeps the place"), "{shown}");
    }

    #[test]
    fn a_gateway_that_went_away_shows_since_when() {
        assert_eq!(online(&server(), 100), "never");
        assert_eq!(online(&platform::Server { last_seen_at: Some(97), ..server() }, 100), "no, seen 3 s ago");
    }
}
