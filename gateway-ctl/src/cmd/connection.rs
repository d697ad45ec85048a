//! `gateway-ctl connection`: tunnels made from grants, seen by the platform.

#[cfg(test)]
mod tests;

use clap::{Args, Subcommand};
use gateway_proto::{
    api::{
        gateway::{ConnectionReport, Connectivity, EndDetails, PathWhy},
        platform::{self, ConnectionEnd, ConnectionPage, Delivery, RotateSecret},
    },
    balance::Difference,
    id::ConnectionId,
    path::PathReason,
    peering::ConnectionStatus,
};

use crate::{
    args::{Confirmed, Span},
    client::Control,
    cmd::{Context, admin, id_among},
    error::CtlError,
    output::{View, status::milliseconds, time, word, yes_no},
    resolve::Named,
};

const PATH: &str = "/connections";
/// How the platform names the own organization.
const SELF: &str = "Self";
/// In place of what a gateway does not report.
const UNTOLD: &str = "not known: its gatewayd is of an older version";
/// In place of a reason of the other side's gateway that has no known code.
const UNNAMED: &str = "not known: its gatewayd gives a reason that is not known here";

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Connection {
    /// List the connections.
    List {
        /// With those that are over.
        #[arg(long)]
        ended: bool,
    },
    /// Show a connection.
    Show(One),
    /// Let a ready connection carry data.
    Activate(One),
    /// Hold its data back; the peer cannot resume it.
    Pause(One),
    /// Take the own pause back.
    Resume(One),
    /// Try one again that failed because a gateway refused its policy.
    Retry(One),
    /// Replace its secret; what is open goes on, and the old one is accepted for a while.
    RotateSecret(Rotation),
    /// End it for good.
    Terminate(Confirmed<One>),
}

/// How a secret is replaced.
#[derive(Debug, Args)]
pub(crate) struct Rotation {
    #[command(flatten)]
    one: One,
    /// For how long the old one is accepted, 1m to 60d; streams are opened with the new one from the middle on. Default: twice the
    /// time that data may go on without the control plane.
    #[arg(long, value_name = "TIME", conflicts_with = "at_once")]
    overlap: Option<Span>,
    /// The old one became known to others: it counts no more. New streams may be refused until both gateways have heard of it.
    #[arg(long)]
    at_once: bool,
}

/// A connection.
#[derive(Debug, Args)]
pub(crate) struct One {
    /// Public name of the endpoint, `PEER/NAME`, or id of the connection.
    connection: String,
}

impl Connection {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        let control = context.control()?;
        let connection = match self {
            Self::List { ended: true } => {
                let connections: Vec<platform::Connection> = control.list(PATH, &[("ended", "true")], None).await?;
                return context.out.list(&connections);
            }
            Self::List { ended: false } => {
                let ConnectionPage { mut items, next, ended } = control.get(PATH).await?;
                if let Some(next) = next {
                    items.extend(control.rest::<platform::Connection>(PATH, next).await?);
                }
                context.out.list(&items)?;
                if let Some(ended) = ended.filter(|ended| ended.number > 0) {
                    let more = if ended.and_more { " and more" } else { "" };
                    context.out.remark(&format!("{}{more} that ended not shown: see them with --ended.", ended.number));
                }
                return Ok(());
            }
            Self::Show(one) => {
                let id = one.id(&control).await?;
                control.get(&format!("{PATH}/{id}")).await?
            }
            Self::Activate(one) => one.act(&control, "activate").await?,
            Self::Pause(one) => one.act(&control, "pause").await?,
            Self::Resume(one) => {
                let connection = one.act(&control, "resume").await?;
                if connection.status == ConnectionStatus::Paused {
                    context.out.remark("Still paused: the other side holds a pause of its own, which only it lifts.");
                }
                connection
            }
            Self::Retry(one) => one.act(&control, "retry").await?,
            Self::RotateSecret(Rotation { one, overlap, at_once }) => {
                let id = one.id(&control).await?;
                let body = RotateSecret { overlap_secs: overlap.map(|overlap| overlap.secs), at_once };
                control.post(&format!("{PATH}/{id}/rotate-secret"), &body).await?
            }
            Self::Terminate(Confirmed { one, confirm }) => {
                let id = one.id(&control).await?;
                confirm.ask(&format!("Terminate the connection '{}' ({id})", one.connection))?;
                control.act::<platform::Connection>(&format!("{PATH}/{id}/terminate")).await?
            }
        };
        context.out.item(&connection)
    }
}

impl One {
    async fn act(&self, control: &Control, verb: &str) -> Result<platform::Connection, CtlError> {
        let id = self.id(control).await?;
        Ok(control.act(&format!("{PATH}/{id}/{verb}")).await?)
    }

    async fn id(&self, control: &Control) -> Result<ConnectionId, CtlError> {
        id_among(control, (PATH, &[("ended", "true")]), &self.connection, is_living).await
    }
}

pub(crate) fn is_living(connection: &platform::Connection) -> bool {
    match connection.status {
        ConnectionStatus::Provisioning
        | ConnectionStatus::Offered
        | ConnectionStatus::Ready
        | ConnectionStatus::Active
        | ConnectionStatus::Paused
        | ConnectionStatus::Failed => true,
        ConnectionStatus::Declined | ConnectionStatus::Expired | ConnectionStatus::Terminated => false,
    }
}

impl Named for platform::Connection {
    type Id = ConnectionId;
    const KIND: &'static str = "connection";
    const LIST: &'static str = "connection list";

    fn id(&self) -> ConnectionId {
        self.id
    }

    fn names(&self) -> Vec<String> {
        vec![self.endpoint.clone()]
    }

    fn peer(&self) -> Option<&str> {
        let ends = [&self.sender, &self.listener];
        // Between two of our own servers the peer is "Self".
        Some(ends.into_iter().find(|end| end.organization_name != SELF).map_or(SELF, |end| &end.organization_name))
    }

    fn describe(&self) -> String {
        format!("{}, {} → {}, {}", self.endpoint, place(&self.sender), place(&self.listener), word(&self.status))
    }
}

impl View for platform::Connection {
    const HEADERS: &'static [&'static str] =
        &["ENDPOINT", "STATUS", "SENDER", "LISTENER", "CONNECTIVITY", "PATH", "RTT", "ID"];

    fn row(&self, _now: u64) -> Vec<String> {
        let reports = [&self.sender.report, &self.listener.report];
        let first = reports.into_iter().flatten().next();
        vec![
            self.endpoint.clone(),
            status(self),
            place(&self.sender),
            place(&self.listener),
            connectivity(reports.map(Option::as_ref)),
            first.and_then(|report| report.path).map_or_else(|| "-".to_owned(), |path| word(&path)),
            first.and_then(|report| report.rtt_ms).map_or_else(|| "-".to_owned(), milliseconds),
            self.id.to_string(),
        ]
    }

    fn block(&self, now: u64) -> Vec<(&'static str, String)> {
        let mut lines = vec![
            ("Id", self.id.to_string()),
            ("Endpoint", self.endpoint.clone()),
            ("Kind", word(&self.kind)),
            ("Behavior", self.behavior.clone()),
            ("Status", status(self)),
            ("Auto-activate", yes_no(self.auto_activate)),
            (
                "Policy",
                self.policy_in_force_since.map_or_else(
                    || "not in force at both ends yet".to_owned(),
                    |at| format!("in force at both ends since {} ({})", time::absolute(at), time::relative(now, at)),
                ),
            ),
        ];
        let roles = if self.admin.is_some() { ["Used from", "Administered"] } else { ["Sender", "Listener"] };
        for (role, end) in roles.into_iter().zip([&self.sender, &self.listener]) {
            lines.push((role, place(end)));
            lines.extend(end_lines(end, is_living(self), now));
        }
        if let Some(rotation) = &self.secret_rotation {
            let (new, old) = (time::absolute(rotation.new_from), time::absolute(rotation.old_until));
            let text = format!("being replaced: the new one is used from {new}, the old one accepted until {old}");
            lines.push(("Secret", text));
        }
        if let Some(delivery) = &self.delivery {
            lines.extend(delivery_lines(delivery, now));
        }
        if let Some(terms) = &self.admin {
            lines.extend(admin::terms_lines(terms, self.status, now));
        }
        if let Some(grant) = self.grant_id {
            lines.push(("Grant", grant.to_string()));
        }
        lines.push(("Agreement", self.agreement_id.to_string()));
        lines.push(("Created", time::relative(now, self.created_at)));
        if let Some(at) = self.ended_at {
            lines.push(("Ended", time::relative(now, at)));
        }
        lines
    }
}

fn status(connection: &platform::Connection) -> String {
    let differs = connection.delivery.as_ref().is_some_and(|delivery| delivery.alarm.is_some());
    let status = activation(connection);
    if differs { format!("{status}, DELIVERY DIFFERS") } else { status }
}

fn activation(connection: &platform::Connection) -> String {
    if connection.suspended && is_living(connection) {
        return format!("{}, agreement suspended", word(&connection.status));
    }
    word(&connection.status)
}

/// What both ends counted, and by how much that differs.
fn delivery_lines(delivery: &Delivery, now: u64) -> Vec<(&'static str, String)> {
    let Delivery {
        sender_messages,
        listener_messages,
        sender_answers,
        listener_answers,
        alarm,
        written_off,
        explained,
        uncompared,
    } = delivery;
    let mut lines = vec![(
        "Delivery",
        format!(
            "messages: {sender_messages} sent, {listener_messages} handed over; \
             answers: {listener_answers} given, {sender_answers} arrived"
        ),
    )];
    if *uncompared {
        let text = "a gateway does not count all that passes, or only since a moment ago; see docs/observers.md";
        lines.push(("  Not compared", text.to_owned()));
    }
    if let Some(alarm) = alarm {
        lines.push((
            "  DIFFERENCE",
            format!("{}, since {}", difference(alarm.difference), time::relative(now, alarm.since)),
        ));
    }
    if *explained != Difference::NONE {
        let Difference { messages, answers } = *explained;
        let text = format!(
            "{messages} messages and {} answers that the listener's gateway did not count: they were answered or given up, or came again",
            answers.unsigned_abs()
        );
        lines.push(("  Not missing", text));
    }
    if *written_off != Difference::NONE {
        lines.push(("  Written off", difference(*written_off)));
    }
    lines
}

fn difference(Difference { messages, answers }: Difference) -> String {
    let part = |count: i64, missing: &str, surplus: &str| match count {
        0 => None,
        1.. => Some(format!("{count} {missing}")),
        _ => Some(format!("{} {surplus}", count.unsigned_abs())),
    };
    let messages = part(messages, "messages not handed over", "messages handed over that the sender did not count");
    let answers = part(answers, "answers that did not arrive", "answers that the listener did not count");
    [messages, answers].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn place(end: &ConnectionEnd) -> String {
    if end.server_id.is_none() {
        return format!("{}, which has not named a server yet", end.organization_name);
    }
    format!("{} of {}", end.server_name, end.organization_name)
}

/// What both ends report, in one word: connected only if both proved it.
fn connectivity(reports: [Option<&ConnectionReport>; 2]) -> String {
    let states = reports.map(|report| report.map(|report| report.connectivity));
    let any = |wanted| states.contains(&Some(wanted));
    let text = if states == [Some(Connectivity::Connected); 2] {
        "connected"
    } else if any(Connectivity::Disconnected) {
        "disconnected"
    } else if any(Connectivity::Connected) {
        "connected at one end"
    } else if any(Connectivity::NeverConnected) {
        "never connected"
    } else {
        "not reported"
    };
    text.to_owned()
}

fn end_lines(end: &ConnectionEnd, is_living: bool, now: u64) -> Vec<(&'static str, String)> {
    let policy = match (end.policy_in_force, end.policy_in_force_since) {
        (true, Some(at)) => format!("in force since {}", time::absolute(at)),
        (true, None) => "in force".to_owned(),
        (false, _) => "not in force yet".to_owned(),
    };
    let mut lines = vec![("  Policy", policy)];
    if is_living && end.server_id.is_some() {
        lines.push(("  Policy age", policy_age(end, now)));
    }
    if end.paused {
        lines.push(("  Pause", "held by this side".to_owned()));
    }
    let Some(report) = &end.report else {
        lines.push(("  Connectivity", "not reported".to_owned()));
        return lines;
    };
    let reported = end.reported_at.map_or_else(String::new, |at| format!(" (reported {})", time::relative(now, at)));
    lines.push(("  Connectivity", format!("{}{reported}", word(&report.connectivity))));
    if let Some(path) = &report.path {
        let rtt = report.rtt_ms.map_or_else(String::new, |rtt| format!(", round trip {}", milliseconds(rtt)));
        lines.push(("  Path", format!("{}{rtt}", word(path))));
    }
    lines.push(("  Why", path_why(report)));
    if let Some(at) = report.last_message_at {
        lines.push(("  Last message", time::relative(now, at / 1000)));
    }
    let acknowledged = match &report.details {
        Some(EndDetails { last_acknowledged_at: Some(at), .. }) => time::relative(now, at / 1000),
        Some(_) => "nothing since its gatewayd started".to_owned(),
        None => UNTOLD.to_owned(),
    };
    lines.push(("  Acknowledged", acknowledged));
    lines.push(("  Traffic", format!("{} B sent, {} B received", report.bytes_sent, report.bytes_received)));
    if let Some(problem) = &report.problem {
        lines.push(("  Problem", problem.clone()));
    }
    lines
}

/// Why the path in use is in use, or none.
fn path_why(report: &ConnectionReport) -> String {
    match report.details.as_ref().map(|details| &details.path_reason) {
        // At the end of the other side there are no words of its gateway.
        Some(Some(PathWhy { code, text })) if text.is_empty() => match PathReason::from_code(code) {
            Some(reason) => format!("{reason} ({code})"),
            None => UNNAMED.to_owned(),
        },
        Some(Some(PathWhy { code, text })) => format!("{text} ({code})"),
        Some(None) => "nothing leads to the partner's gateway yet".to_owned(),
        None => UNTOLD.to_owned(),
    }
}

fn policy_age(end: &ConnectionEnd, now: u64) -> String {
    let Some(at) = end.policy_confirmed_at else {
        let is_older = end.report.as_ref().is_some_and(|report| report.details.is_none());
        return if is_older { UNTOLD } else { "not known" }.to_owned();
    };
    let confirmed = format!("confirmed {}", time::relative(now, at));
    if end.policy_stale == Some(true) { format!("STALE, no data passes: {confirmed}") } else { confirmed }
}
