//! `gateway-ctl relay`: the relay map of the platform. Its operator changes it; a signed-in user may read it.

mod update;

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Subcommand};
use gateway_net::tls::TlsPin;
use gateway_proto::{
    api::platform::{self, CreateRelay},
    id::RelayId,
};
use url::Url;

use self::update::Update;
use crate::{
    args::{Confirm, ControlArgs},
    client::{Control, Credential},
    cmd::{Context, id_of},
    error::CtlError,
    output::{View, or_dash},
    ready::{self, RelayReady},
    resolve::Named,
    secret::SecretSource,
};

const PATH: &str = "/relays";

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Relay {
    /// List the relays.
    List {
        /// File with the operator token of the platform, `-` for standard input; default: the session of the profile.
        #[arg(long, value_name = "FILE")]
        operator_token_file: Option<SecretSource>,
        #[command(flatten)]
        place: Place,
    },
    /// Add a relay: gateways use it from their next policy on.
    Add(Box<Add>),
    /// Change what the map says of a relay, which keeps its id: a new key, another URL, other STUN listeners, its name or region.
    Update(Box<Update>),
    /// Remove a relay: gateways leave it.
    Remove(Remove),
}

/// Which control plane, where it is not the profile's.
#[derive(Debug, Args)]
pub(crate) struct Place {
    /// URL of the control plane; default: the one of the profile.
    #[arg(long, value_name = "URL", conflicts_with = "control_ready_file")]
    control: Option<Url>,
    /// SHA-256 of the control plane's TLS public key.
    #[arg(long, value_name = "HEX", requires = "control")]
    control_pin: Option<TlsPin>,
    /// Take URL and pin of the control plane from the ready file that it wrote.
    #[arg(long, value_name = "FILE")]
    control_ready_file: Option<PathBuf>,
}

/// The operator of the platform: nobody else may change the map.
#[derive(Debug, Args)]
pub(crate) struct Operator {
    /// File with the operator token of the platform, `-` for standard input.
    #[arg(long, value_name = "FILE")]
    operator_token_file: SecretSource,
    #[command(flatten)]
    place: Place,
}

/// A new relay.
#[derive(Debug, Args)]
pub(crate) struct Add {
    /// Name of the relay.
    #[arg(long)]
    name: String,
    /// Take everything else from the ready file that gateway-relay wrote.
    #[arg(long, value_name = "FILE", required_unless_present = "id", conflicts_with_all = ["id", "pin"])]
    from_ready_file: Option<PathBuf>,
    /// The host that gateways reach it at, instead of the address in the ready file.
    #[arg(long, requires = "from_ready_file", conflicts_with_all = ["url", "stun"])]
    host: Option<String>,
    /// The id it printed at its start.
    #[arg(long, requires = "url")]
    id: Option<RelayId>,
    /// Where it serves: `wss://HOST:PORT/relay`.
    #[arg(long)]
    url: Option<Url>,
    /// SHA-256 of its TLS public key; without it the web PKI has to vouch for it.
    #[arg(long, value_name = "HEX")]
    pin: Option<TlsPin>,
    /// STUN listener, `HOST:PORT`; up to 4.
    #[arg(long, value_name = "ADDR", num_args = 1..)]
    stun: Vec<String>,
    /// Where it stands, for example `eu-north`: a gateway's spare relay is of another region than its home.
    #[arg(long)]
    region: Option<String>,
    #[command(flatten)]
    operator: Operator,
}

/// A relay to remove.
#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// Name or id.
    relay: String,
    #[command(flatten)]
    operator: Operator,
    #[command(flatten)]
    confirm: Confirm,
}

impl Relay {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        match self {
            Self::List { operator_token_file, place } => {
                let control = match operator_token_file {
                    Some(source) => place.operated(context, &source)?,
                    None => place.signed_in(context)?,
                };
                let relays: Vec<platform::Relay> = control.list(PATH, &[], None).await?;
                context.out.list(&relays)
            }
            Self::Add(add) => {
                let body = add.relay()?;
                let relay: platform::Relay = add.operator.control(context)?.post(PATH, &body).await?;
                context.out.item(&relay)
            }
            Self::Update(update) => update.run(context).await,
            Self::Remove(Remove { relay, operator, confirm }) => {
                let control = operator.control(context)?;
                let id = id_of::<platform::Relay>(&control, PATH, &relay, |_| true).await?;
                confirm.ask(&format!("Remove the relay '{relay}' ({id}) from every gateway"))?;
                control.delete(&format!("{PATH}/{id}")).await?;
                context.out.deed("relay.delete", id, &format!("Removed the relay '{relay}'."))
            }
        }
    }
}

impl Operator {
    pub(crate) fn control(self, context: &Context) -> Result<Control, CtlError> {
        self.place.operated(context, &self.operator_token_file)
    }
}

impl Place {
    pub(crate) fn operated(self, context: &Context, source: &SecretSource) -> Result<Control, CtlError> {
        let Self { control, control_pin, control_ready_file } = self;
        let target = context.target(&ControlArgs { control, pin: control_pin, control_ready_file })?;
        Ok(Control::new(&target, Credential::Operator(source.read("operator token")?))?)
    }

    pub(crate) fn signed_in(self, context: &Context) -> Result<Control, CtlError> {
        if self.control.is_some() || self.control_ready_file.is_some() {
            // A session token goes to the control plane of its profile and nowhere else.
            let words = "another control plane than the profile's needs --operator-token-file";
            return Err(CtlError::Usage(words.to_owned()));
        }
        context.control()
    }
}

impl Add {
    fn relay(&self) -> Result<CreateRelay, CtlError> {
        if let Some(path) = &self.from_ready_file {
            return self.described_by(ready::relay(path)?);
        }
        let (Some(id), Some(url)) = (self.id, &self.url) else {
            return Err(CtlError::Usage("give --from-ready-file, or --id and --url".to_owned()));
        };
        let tls_pin = self.pin.map(|pin| pin.to_string());
        Ok(CreateRelay {
            id,
            name: self.name.clone(),
            url: url.to_string(),
            tls_pin,
            stun: self.stun.clone(),
            region: self.region.clone(),
        })
    }

    fn described_by(&self, ready: RelayReady) -> Result<CreateRelay, CtlError> {
        let host = self.host.as_deref();
        let url = match &self.url {
            Some(url) => url.to_string(),
            None => url_at(host, &ready)?,
        };
        let stun = if self.stun.is_empty() { stun_at(host, &ready)? } else { self.stun.clone() };
        Ok(CreateRelay {
            id: ready.relay_id,
            name: self.name.clone(),
            url,
            tls_pin: ready.tls_pin,
            stun,
            region: self.region.clone(),
        })
    }
}

/// Where gateways reach the WebSocket listener of a ready file.
fn url_at(host: Option<&str>, ready: &RelayReady) -> Result<String, CtlError> {
    Ok(format!("wss://{}/relay", reachable(host, ready.listen)?))
}

/// Where gateways reach its STUN listeners.
fn stun_at(host: Option<&str>, ready: &RelayReady) -> Result<Vec<String>, CtlError> {
    ready.stun.iter().map(|address| reachable(host, *address)).collect()
}

/// An address that gateways can use: "every interface" is where a server listens, not where it is.
fn reachable(host: Option<&str>, address: SocketAddr) -> Result<String, CtlError> {
    match host {
        Some(host) if host.contains(':') && !host.starts_with('[') => Ok(format!("[{host}]:{}", address.port())),
        Some(host) => Ok(format!("{host}:{}", address.port())),
        None if address.ip().is_unspecified() => Err(CtlError::Usage(format!(
            "the relay listens on every interface ({address}): add --host with the name or address gateways reach it at"
        ))),
        None => Ok(address.to_string()),
    }
}

impl Named for platform::Relay {
    type Id = RelayId;
    const KIND: &'static str = "relay";
    const LIST: &'static str = "relay list";

    fn id(&self) -> RelayId {
        self.id
    }

    fn names(&self) -> Vec<String> {
        vec![self.name.clone()]
    }

    fn describe(&self) -> String {
        format!("{} at {}", self.name, self.url)
    }
}

impl View for platform::Relay {
    const HEADERS: &'static [&'static str] = &["NAME", "REGION", "URL", "STUN", "ID"];

    fn row(&self, _now: u64) -> Vec<String> {
        vec![
            self.name.clone(),
            or_dash(self.region.as_deref()),
            self.url.clone(),
            self.stun.join(" "),
            self.id.to_string(),
        ]
    }

    fn block(&self, _now: u64) -> Vec<(&'static str, String)> {
        vec![
            ("Id", self.id.to_string()),
            ("Name", self.name.clone()),
            ("Region", or_dash(self.region.as_deref())),
            ("URL", self.url.clone()),
            ("TLS pin", or_dash(self.tls_pin.as_deref())),
            ("STUN", self.stun.join(" ")),
        ]
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn add(listen: &str, more: &[&str]) -> Result<CreateRelay, CtlError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ready.json");
        let id = RelayId::new(1, [0; 10]);
        let json = format!(
            r#"{{"event":"ready","listen":"{listen}:4443","stun":["{listen}:3478","{listen}:3479"],"metrics":"127.0.0.1:1","tls_pin":"{}","relay_id":"{id}"}}"#,
            "ab".repeat(32)
        );
        std::fs::write(&path, json).unwrap();
        let path = path.to_str().unwrap();
        let args =
            ["gateway-ctl", "relay", "add", "--name", "r1", "--from-ready-file", path, "--operator-token-file", "-"];
        let cli = Cli::try_parse_from(args.iter().chain(more)).unwrap();
        let Command::Relay(Relay::Add(add)) = cli.command else { panic!("another command") };
        add.relay()
    }

    #[test]
    fn a_relay_is_entered_from_its_ready_file() {
        let relay = add("127.0.0.1", &[]).unwrap();
        assert_eq!(relay.url, "wss://127.0.0.1:4443/relay");
        assert_eq!(relay.stun, ["127.0.0.1:3478", "127.0.0.1:3479"]);
        assert_eq!(relay.tls_pin, Some("ab".repeat(32)));
    }

    #[test]
    fn a_relay_on_every_interface_needs_the_host_gateways_see() {
        assert!(matches!(add("0.0.0.0", &[]), Err(CtlError::Usage(_))));
        let relay = add("0.0.0.0", &["--host", "relay.example"]).unwrap();
        assert_eq!(relay.url, "wss://relay.example:4443/relay");
        assert_eq!(relay.stun, ["relay.example:3478", "relay.example:3479"]);
        assert_eq!(add("[::]", &["--host", "2001:db8::1"]).unwrap().url, "wss://[2001:db8::1]:4443/relay");
    }
}
