//! The arguments that commands share, and the table of commands. The arguments of a noun stand in its file below `cmd`.

use std::{fmt, path::PathBuf, str::FromStr};

use clap::{Args, Parser, Subcommand};
use gateway_net::tls::TlsPin;
use gateway_proto::api::local::DEFAULT_SOCKET;
use url::Url;

use crate::{
    cmd::{
        admin, agreement, apply, audit, behavior, channel, connection, device, directory, endpoint, gateway, grant,
        link, netcheck, organization, peering, platform_token, policy_key, relay, server, session, share, shell,
        status, tenant, tier, token, token_key, usage, user,
    },
    profile::ProfileName,
};

const EXIT_CODES: &str = "\
Exit codes:
  0   done
  1   the answer is no: refused by the platform, no such name, a question answered with no,
      `status` not connected, `status --wait` not reached, `netcheck` with something to mend
  2   failure: network, files, a server that is unavailable
  64  wrong usage

Wherever an id is asked for, a name will do. Secrets are read from files or standard input only.
Profiles are kept in $GATEWAY_CTL_HOME, else $XDG_CONFIG_HOME/gateway-ctl, else ~/.config/gateway-ctl.";

/// Manage organizations, peering, grants and connections, and look at the gatewayd of this machine.
#[derive(Debug, Parser)]
#[command(name = "gateway-ctl", version, after_help = EXIT_CODES, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Understood by every command.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Print JSON: the types of the HTTP API, lists as arrays.
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) json: bool,
    /// The profile: which control plane, and who we are there.
    #[arg(
        long,
        global = true,
        help_heading = "Global options",
        env = "GATEWAY_CTL_PROFILE",
        default_value = "default",
        value_name = "NAME"
    )]
    pub(crate) profile: ProfileName,
    /// The Unix socket of the gatewayd on this machine.
    #[arg(
        long,
        global = true,
        help_heading = "Global options",
        env = "GATEWAYD_SOCKET",
        default_value = DEFAULT_SOCKET,
        value_name = "PATH"
    )]
    pub(crate) socket: PathBuf,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The own organization.
    #[command(subcommand)]
    Organization(organization::Organization),
    /// The organizations of the own tenant.
    #[command(subcommand)]
    Tenant(tenant::Tenant),
    /// Sign in and remember the session in the profile.
    Login(session::Login),
    /// Sign out and forget the session.
    Logout,
    /// Who is signed in.
    Whoami,
    /// Users of the own organization.
    #[command(subcommand)]
    User(user::User),
    /// Servers: integration engines with a gateway beside them.
    #[command(subcommand)]
    Server(server::Server),
    /// The organizations that can be found.
    #[command(subcommand)]
    Directory(directory::Directory),
    /// Peering requests.
    #[command(subcommand)]
    Peering(peering::Peering),
    /// Agreements with partners.
    #[command(subcommand)]
    Agreement(agreement::Agreement),
    /// Listener channels of the own servers.
    #[command(subcommand)]
    Channel(channel::Channel),
    /// The published endpoints of a partner.
    #[command(subcommand)]
    Endpoint(endpoint::Endpoint),
    /// Grants, given and received.
    #[command(subcommand)]
    Grant(grant::Grant),
    /// Connections.
    #[command(subcommand)]
    Connection(connection::Connection),
    /// Admin connections: a partner's people at the engine of a server.
    #[command(subcommand)]
    Admin(admin::Admin),
    /// Servers shared with partners.
    #[command(subcommand)]
    Share(share::Share),
    /// Put a site into place as a file describes it: make what is missing, change what differs, remove nothing.
    Apply(apply::Apply),
    /// Tokens for automation.
    #[command(subcommand)]
    Token(token::Token),
    /// Devices: systems with an identity of their own, and their tokens.
    #[command(subcommand)]
    Device(Box<device::Device>),
    /// Links: what switches the behaviors of a device on for another one.
    #[command(subcommand)]
    Link(link::Link),
    /// How often the own devices took part in which behavior, by day.
    Usage(usage::Usage),
    /// Behaviors: the kinds of exchange there are.
    #[command(subcommand)]
    Behavior(behavior::Behavior),
    /// The keys that sign device tokens (for the operator of the platform).
    #[command(subcommand)]
    TokenKey(token_key::TokenKey),
    /// The keys that sign policies (for the operator of the platform).
    #[command(subcommand)]
    PolicyKey(policy_key::PolicyKey),
    /// The operator token and the registration token (for the operator of the platform).
    #[command(subcommand)]
    PlatformToken(platform_token::PlatformToken),
    /// Subscription tiers and their limits.
    #[command(subcommand)]
    Tier(tier::TierVerb),
    /// The relays of the platform (for its operator).
    #[command(subcommand)]
    Relay(relay::Relay),
    /// The audit log.
    #[command(subcommand)]
    Audit(audit::Audit),
    /// The gatewayd of this machine.
    #[command(subcommand)]
    Gateway(gateway::Gateway),
    /// What the gatewayd of this machine is doing; exits with 1 when not connected.
    Status(status::StatusArgs),
    /// Probe every path to a peer anew.
    Reconnect(gateway::Reconnect),
    /// Look at the network around the gatewayd of this machine, and say what to ask the network team for.
    Netcheck(netcheck::Netcheck),
    /// The metrics of the gatewayd of this machine, in the text format of Prometheus.
    Metrics,
    /// Print a completion script for a shell.
    Completions(shell::Completions),
    /// Print the manual page, or write the pages of all commands.
    Man(shell::Man),
}

/// Which control plane, for the commands that start a profile.
#[derive(Debug, Args)]
pub(crate) struct ControlArgs {
    /// URL of the control plane, `https://HOST:PORT`; default: the one of the profile.
    #[arg(long, value_name = "URL", conflicts_with = "control_ready_file")]
    pub(crate) control: Option<Url>,
    /// SHA-256 of the control plane's TLS public key; without it the web PKI has to vouch for it.
    #[arg(long, value_name = "HEX", requires = "control")]
    pub(crate) pin: Option<TlsPin>,
    /// Take URL and pin from the ready file that gateway-control wrote.
    #[arg(long, value_name = "FILE")]
    pub(crate) control_ready_file: Option<PathBuf>,
}

/// The agreed question before something is destroyed.
#[derive(Debug, Args)]
pub(crate) struct Confirm {
    /// Do not ask.
    #[arg(long, short = 'y')]
    pub(crate) yes: bool,
}

/// One thing that is ended or deleted, after the question.
#[derive(Debug, Args)]
pub(crate) struct Confirmed<T: Args> {
    #[command(flatten)]
    pub(crate) one: T,
    #[command(flatten)]
    pub(crate) confirm: Confirm,
}

/// A length of time: `30s`, `15m`, `1h`, `90d`, `2w`, and sums of them (`1h30m`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    /// In seconds.
    pub(crate) secs: u64,
}

impl Span {
    /// When it is over that begins `now`, both in Unix seconds.
    pub(crate) fn after(self, now: u64) -> u64 {
        now.saturating_add(self.secs)
    }
}

impl fmt::Display for Span {
    /// As it is read: `1d12h`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.secs;
        for (unit, secs) in [("d", 86_400), ("h", 3600), ("m", 60)] {
            if rest >= secs {
                write!(f, "{}{unit}", rest / secs)?;
                rest %= secs;
            }
        }
        if rest > 0 || self.secs == 0 { write!(f, "{rest}s") } else { Ok(()) }
    }
}

/// The text is no length of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a length of time such as 30s, 15m, 1h, 90d or 1h30m")]
pub(crate) struct SpanError;

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        let mut rest = text;
        let mut secs = 0u64;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or(SpanError)?;
            let number: u64 = rest[..digits].parse().map_err(|_| SpanError)?;
            let mut units = rest[digits..].chars();
            let unit = match units.next() {
                Some('s') => 1,
                Some('m') => 60,
                Some('h') => 3600,
                Some('d') => 86_400,
                Some('w') => 604_800,
                Some(_) | None => return Err(SpanError),
            };
            secs = number.checked_mul(unit).and_then(|part| secs.checked_add(part)).ok_or(SpanError)?;
            rest = units.as_str();
        }
        if secs == 0 { Err(SpanError) } else { Ok(Self { secs }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_are_read_and_everything_else_is_refused() {
        for (text, secs) in [("30s", 30), ("1h", 3600), ("90d", 7_776_000), ("1h30m", 5400), ("2w", 1_209_600)] {
            assert_eq!(text.parse(), Ok(Span { secs }), "{text}");
            assert_eq!(Span { secs }.to_string().parse(), Ok(Span { secs }), "{text}");
        }
        for text in
            ["", "0s", "1", "h", "1x", "1h5", "-1h", "1 h", "99999999999999999999s", "9999999999999999999w", "1é"]
        {
            assert_eq!(text.parse::<Span>(), Err(SpanError), "{text}");
        }
    }
}
