//! `gateway-ctl relay update`: what the map says of a relay, from the relay's ready file or field by field.

use std::path::PathBuf;

use clap::Args;
use gateway_proto::api::platform::{self, UpdateRelay};
use url::Url;

use super::{Operator, PATH, stun_at, url_at};
use crate::{cmd::Context, error::CtlError, ready, resolve};

/// A relay to change.
#[derive(Debug, Args)]
pub(crate) struct Update {
    /// Name or id.
    relay: String,
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    operator: Operator,
}

/// What is said of it from now on; what is left out stays.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct Change {
    /// Take key and ports from the ready file that gateway-relay wrote. The host stays, and so does a relay for which the web PKI
    /// vouches.
    #[arg(long, value_name = "FILE")]
    from_ready_file: Option<PathBuf>,
    /// The host that gateways reach it at now, with the ports of the ready file.
    #[arg(long, requires = "from_ready_file", conflicts_with_all = ["url", "stun"])]
    host: Option<String>,
    /// Where it serves now: `wss://HOST:PORT/relay`.
    #[arg(long)]
    url: Option<Url>,
    /// SHA-256 of its TLS public key; empty: the web PKI has to vouch for it.
    #[arg(long, value_name = "HEX")]
    pin: Option<String>,
    /// All its STUN listeners, `HOST:PORT`, up to 4; empty: none.
    #[arg(long, value_name = "ADDR", num_args = 1..)]
    stun: Vec<String>,
    /// Its new name.
    #[arg(long)]
    name: Option<String>,
    /// Where it stands; empty: not said.
    #[arg(long)]
    region: Option<String>,
}

impl Update {
    pub(super) async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        let Self { relay, change, operator } = self;
        let control = operator.control(context)?;
        let map: Vec<platform::Relay> = control.list(PATH, &[], None).await?;
        let now = resolve::pick(&relay, &map, |_| true)?;
        let changed: platform::Relay = control.patch(&format!("{PATH}/{}", now.id), &change.of(now)?).await?;
        context.out.item(&changed)
    }
}

impl Change {
    /// What the platform is told of a relay that is in the map like this.
    fn of(self, now: &platform::Relay) -> Result<UpdateRelay, CtlError> {
        let Self { from_ready_file, host, url, pin, stun, name, region } = self;
        let stun = (!stun.is_empty()).then(|| stun.into_iter().filter(|listener| !listener.is_empty()).collect());
        let mut body = UpdateRelay { name, url: url.map(String::from), tls_pin: pin, stun, region };
        if let Some(path) = from_ready_file {
            let ready = ready::relay(&path)?;
            if ready.relay_id != now.id {
                return Err(CtlError::Usage(format!(
                    "{} is of another relay ({}) than '{}' ({}): one with a new id is entered by `relay add`",
                    path.display(),
                    ready.relay_id,
                    now.name,
                    now.id
                )));
            }
            let host = host.or_else(|| host_of(&now.url));
            if body.url.is_none() {
                body.url = Some(url_at(host.as_deref(), &ready)?);
            }
            if body.stun.is_none() {
                body.stun = Some(stun_at(host.as_deref(), &ready)?);
            }
            if body.tls_pin.is_none() && now.tls_pin.is_some() {
                body.tls_pin = ready.tls_pin;
            }
        }
        Ok(body)
    }
}

fn host_of(url: &str) -> Option<String> {
    Url::parse(url).ok()?.host_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use gateway_proto::id::RelayId;

    use super::*;
    use crate::{
        args::{Cli, Command},
        cmd::relay::Relay,
    };

    fn map(url: &str, tls_pin: Option<&str>) -> platform::Relay {
        platform::Relay {
            id: RelayId::new(1, [0; 10]),
            name: "r1".to_owned(),
            url: url.to_owned(),
            tls_pin: tls_pin.map(str::to_owned),
            stun: vec!["relay.example:3478".to_owned()],
            region: Some("eu-north".to_owned()),
        }
    }

    fn parsed(more: &[&str]) -> Option<Change> {
        let args = ["gateway-ctl", "relay", "update", "r1", "--operator-token-file", "-"];
        let cli = Cli::try_parse_from(args.iter().chain(more)).ok()?;
        let Command::Relay(Relay::Update(update)) = cli.command else { panic!("another command") };
        Some(update.change)
    }

    /// With the ready file of a relay that listens on every interface.
    fn from_ready_file(relay: &platform::Relay, id: RelayId, more: &[&str]) -> Result<UpdateRelay, CtlError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ready.json");
        let json = format!(
            r#"{{"event":"ready","listen":"0.0.0.0:4443","stun":["0.0.0.0:4478","0.0.0.0:4479"],"tls_pin":"{}","relay_id":"{id}"}}"#,
            "cd".repeat(32)
        );
        std::fs::write(&path, json).unwrap();
        parsed(&[&["--from-ready-file", path.to_str().unwrap()][..], more].concat()).unwrap().of(relay)
    }

    #[test]
    fn a_new_key_and_new_ports_are_taken_from_the_ready_file_and_the_host_from_the_map() {
        for (url, host) in
            [("wss://relay.example/relay", "relay.example"), ("wss://[2001:db8::1]/relay", "[2001:db8::1]")]
        {
            let relay = map(url, Some("ab"));
            let body = from_ready_file(&relay, relay.id, &[]).unwrap();
            assert_eq!(body.url, Some(format!("wss://{host}:4443/relay")));
            assert_eq!(body.stun, Some(vec![format!("{host}:4478"), format!("{host}:4479")]));
            assert_eq!(body.tls_pin, Some("cd".repeat(32)));
            assert_eq!((body.name, body.region), (None, None), "what is not named stays");
        }
    }

    #[test]
    fn what_is_said_beside_the_ready_file_counts_and_the_web_pki_goes_on_vouching() {
        let relay = map("wss://relay.example/relay", None);
        let body = from_ready_file(&relay, relay.id, &["--host", "moved.example"]).unwrap();
        assert_eq!((body.url.as_deref(), body.tls_pin), (Some("wss://moved.example:4443/relay"), None));
        let url = "wss://moved.example/relay";
        let body = from_ready_file(&relay, relay.id, &["--url", url, "--pin", "ef"]).unwrap();
        assert_eq!((body.url.as_deref(), body.tls_pin.as_deref()), (Some(url), Some("ef")));
        assert_eq!(body.stun.unwrap()[0], "relay.example:4478");
    }

    #[test]
    fn the_ready_file_of_another_relay_and_an_empty_change_are_refused() {
        let relay = map("wss://relay.example/relay", None);
        let error = from_ready_file(&relay, RelayId::new(2, [0; 10]), &[]).unwrap_err();
        assert!(matches!(&error, CtlError::Usage(words) if words.contains("relay add")), "{error}");
        assert!(parsed(&[]).is_none() && parsed(&["--host", "x"]).is_none());
    }

    #[test]
    fn each_field_is_changed_by_itself_and_an_empty_one_is_taken_away() {
        let relay = map("wss://relay.example/relay", Some("ab"));
        let body = parsed(&["--pin", "", "--stun", "", "--region", ""]).unwrap().of(&relay).unwrap();
        let nothing = UpdateRelay { name: None, url: None, tls_pin: None, stun: None, region: None };
        let emptied = UpdateRelay {
            tls_pin: Some(String::new()),
            stun: Some(Vec::new()),
            region: Some(String::new()),
            ..nothing.clone()
        };
        assert_eq!(body, emptied);
        let body = parsed(&["--stun", "a:1", "b:2"]).unwrap().of(&relay).unwrap();
        assert_eq!(body, UpdateRelay { stun: Some(vec!["a:1".to_owned(), "b:2".to_owned()]), ..nothing });
    }
}
