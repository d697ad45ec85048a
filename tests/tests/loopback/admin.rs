//! Admin connections from the offer to the end: a partner's administrator at the engine behind `south`, from `north`.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, ensure};
use gateway_net::tls::engine_client_config;
use gateway_proto::policy::Activation;
use gateway_tests::{
    ctl::{items, text},
    engine::{
        definition::{ChannelDefinition, EngineDefinition},
        process::EngineProcess,
    },
    platform::{GatewayOptions, Placement, Platform, Site},
    wait,
};
use reqwest::{Client, Method, Response};

const LIMIT: Duration = Duration::from_secs(20);
pub(super) const CHANNEL: &str = "a0000000-0000-0000-0000-000000000001";

pub(super) struct Scene {
    pub(super) engine: EngineProcess,
    pub(super) north: Site,
    pub(super) south: Site,
    pub(super) platform: Platform,
}

impl Scene {
    pub(super) async fn set() -> anyhow::Result<Self> {
        let platform = Platform::start().await?;
        platform.add_relay().await?;
        let channel = ChannelDefinition::mllp_listener(CHANNEL, "adt in");
        let definition = EngineDefinition {
            login_cost_ms: 10,
            boot_ms: 100,
            bypass_password: Some("bypass".into()),
            channels: vec![channel],
            ..EngineDefinition::default()
        };
        let engine = EngineProcess::start(platform.dir(), "engine", &definition).await?;
        let north = platform.site("north").await?;
        platform.create_organization("south", "Organization south").await?;
        let more = format!("[engine]\napi = \"{}\"\n", engine.https()?);
        let options = GatewayOptions { more, ..GatewayOptions::default() };
        let south = platform.server_with("south", "south", Placement::loopback(), &options).await?;
        platform.peer(&north, &south).await?;
        Ok(Self { engine, north, south, platform })
    }

    /// Offers, accepts, and waits until both ends let calls pass: the connection and its address.
    pub(super) async fn connect(&self, options: &[&str]) -> anyhow::Result<(String, String)> {
        let offer = ["admin", "offer", "--profile", "south", "--server", "south", "--to", "Organization north"];
        let offered = self.platform.ctl.json(&[&offer, options].concat()).await?;
        let id = text(&offered, "id")?.to_owned();
        self.platform.ctl.json(&["admin", "accept", &id, "--profile", "north", "--server", "north"]).await?;
        self.south.live(&id).await?;
        let address = wait::until(LIMIT, format!("north opens the local port of {id}"), async || {
            let seen = self.north.seen(&id).await?;
            let open = seen.filter(|entry| entry.activation == Activation::Active && entry.role == "admin_user");
            Ok(open.and_then(|entry| entry.local_address))
        })
        .await?;
        Ok((id, address))
    }
}

/// An administrator at a local port.
pub(super) struct Administrator {
    pub(super) client: Client,
    pub(super) address: String,
    pub(super) cookie: String,
}

impl Administrator {
    pub(super) async fn sign_in(address: &str, api: &str) -> anyhow::Result<Self> {
        let client = Client::builder().tls_backend_preconfigured(engine_client_config(None)).no_proxy().build()?;
        let mut this = Self { client, address: format!("{address}{api}"), cookie: String::new() };
        let form = "application/x-www-form-urlencoded";
        let answer = this.send(Method::POST, "/users/_login", Some((form, "username=admin&password=admin"))).await?;
        ensure!(answer.status() == 200, "sign-in: {}", answer.status());
        let cookie = answer.headers().get("set-cookie").context("no cookie")?.to_str()?;
        this.cookie = cookie.split(';').next().unwrap_or_default().to_owned();
        Ok(this)
    }

    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, &str)>,
    ) -> anyhow::Result<Response> {
        let mut request = self.client.request(method, format!("{}{path}", self.address));
        request = request.header("X-Requested-With", "nextgen-connect-client").header("Cookie", &self.cookie);
        if let Some((media, text)) = body {
            request = request.header("Content-Type", media).body(text.to_owned());
        }
        Ok(request.send().await?)
    }

    pub(super) async fn status(&self, method: Method, path: &str, body: Option<(&str, &str)>) -> anyhow::Result<u16> {
        Ok(self.send(method, path, body).await?.status().as_u16())
    }
}

pub(super) const XML: &str = "application/xml";
pub(super) const FORM: &str = "application/x-www-form-urlencoded";

/// Method, path, and a body with its type.
pub(super) type Asked = (&'static str, &'static str, Option<(&'static str, &'static str)>);

/// What the Administrator asks for while its pages are browsed.
const BROWSED: [Asked; 26] = [
    ("GET", "/server/publicSettings", None),
    ("GET", "/server/about", None),
    ("GET", "/server/protocolsAndCipherSuites", None),
    ("GET", "/extensions/plugins", None),
    ("GET", "/extensions/connectors", None),
    ("GET", "/extensions/JMS%20Sender/enabled", None),
    ("GET", "/users/", None),
    ("GET", "/channelgroups/", None),
    ("GET", "/server/channelDependencies", None),
    ("GET", "/server/charsets", None),
    ("GET", "/server/id", None),
    ("GET", "/server/version", None),
    ("GET", "/server/resources", None),
    ("GET", "/alerts/options", None),
    ("POST", "/codeTemplates/_getSummary", Some((XML, "<map/>"))),
    ("GET", "/codeTemplateLibraries", None),
    ("GET", "/server/channelTags", None),
    ("GET", "/extensions/dashboardstatus/connectorStates?serverId=x", None),
    ("GET", "/channels/statuses/initial?fetchSize=100&filter=", None),
    ("GET", "/extensions/serverlog/?fetchSize=50&lastLogId=1", None),
    ("GET", "/channels/idsAndNames", None),
    ("POST", "/channels/_getSummary?ignoreNewChannels=false", Some((XML, "<map/>"))),
    ("GET", "/server/channelMetadata", None),
    ("POST", "/events/_search?offset=0&limit=101", Some((XML, "<eventFilter/>"))),
    ("GET", "/server/settings", None),
    ("GET", "/server/configurationMap", None),
];

#[tokio::test]
async fn a_read_only_administrator_browses_and_stops_nothing_until_the_owner_ends_it() -> anyhow::Result<()> {
    let scene = Scene::set().await?;
    let (id, address) = scene.connect(&[]).await?;
    for api in ["/api", "/api/4.5.2"] {
        let administrator = Administrator::sign_in(&address, api).await?;
        for (method, path, body) in BROWSED {
            let status = administrator.status(method.parse()?, path, body).await?;
            ensure!(status == 200, "{method} {api}{path}: {status}");
        }
        for (path, body) in [
            (format!("/channels/{CHANNEL}/_stop"), None),
            (format!("/channels/{CHANNEL};x=1/_stop"), None),
            (format!("/channels;v=1/{CHANNEL}/_stop"), None),
            (format!("/channels/{CHANNEL}/_stop;y"), None),
            ("/channels/_stop".to_owned(), Some((FORM, "channelId=x"))),
            ("/channels/_deploy?returnErrors=false".to_owned(), Some((XML, "<set/>"))),
            (format!("/channels/{CHANNEL}/messages"), Some(("text/plain", "MSH|"))),
        ] {
            let status = administrator.status(Method::POST, &path, body).await?;
            ensure!(status == 403, "POST {path}: {status}");
        }
        // The message browser shows patient data, which was not offered.
        ensure!(administrator.status(Method::GET, &format!("/channels/{CHANNEL}/messages/1"), None).await? == 403);
    }
    let executed = scene.engine.executed().await?;
    let classes: BTreeSet<_> = executed.iter().map(|call| call.class.as_str()).collect();
    ensure!(!classes.contains("W") && !classes.contains("P") && !classes.contains("R#"), "{classes:?}");
    let stranger = executed.iter().find(|call| !call.address.contains("@north.Organization_north"));
    ensure!(stranger.is_none(), "the engine's audit does not name the partner: {stranger:?}");

    let audit = ["gateway", "audit", "list", "--act", "admin", "--limit", "1000", "--socket", scene.south.socket()];
    let audit = scene.platform.ctl.json(&audit).await?;
    let refused = items(&audit)?.iter().find(|call| call["path"] == "/channels/{channelId}/_stop");
    let refused = refused.with_context(|| format!("the refusal is not in the audit: {audit}"))?;
    ensure!(refused["refused"] == "read-only through gateway: stop channel is not permitted", "{refused}");
    ensure!(refused["organization"] == "Organization north" && refused["account"] == "admin", "{refused}");

    let administrator = Administrator::sign_in(&address, "/api").await?;
    scene.platform.ctl.json(&["admin", "terminate", &id, "--yes", "--profile", "south"]).await?;
    wait::until(LIMIT, "the local port is closed", async || {
        Ok(administrator.status(Method::GET, "/server/version", None).await.is_err().then_some(()))
    })
    .await
}

#[tokio::test]
async fn a_partners_person_says_who_he_is_and_the_owner_lets_nobody_else_in() -> anyhow::Result<()> {
    let scene = Scene::set().await?;
    let (id, address) = scene.connect(&["--named-people"]).await?;
    let refused = Administrator::sign_in(&address, "/api").await;
    ensure!(refused.is_err_and(|error| error.to_string().contains("403")), "somebody without a name got in");
    ensure!(scene.engine.executed().await?.is_empty(), "and reached the engine");
    let account = nix::unistd::User::from_uid(nix::unistd::Uid::current())?.context("an account")?.name;
    scene.platform.ctl.json(&["admin", "enter", &id, "--account", &account, "--profile", "north"]).await?;
    let administrator = wait::until(LIMIT, "the owner's gateway knows the person", async || {
        Ok(Administrator::sign_in(&address, "/api").await.ok())
    })
    .await?;
    ensure!(administrator.status(Method::GET, "/server/version", None).await? == 200);
    let audit = ["gateway", "audit", "list", "--act", "admin", "--socket", scene.south.socket()];
    let audit = scene.platform.ctl.json(&audit).await?;
    let last = items(&audit)?.last().context("no call")?;
    ensure!(last["person"].as_str().is_some_and(|person| person.contains('@')), "{last}");
    scene.platform.ctl.json(&["admin", "leave", &id, "--profile", "north"]).await?;
    wait::until(LIMIT, "the owner's gateway forgets the person", async || {
        Ok((administrator.status(Method::GET, "/server/version", None).await? == 403).then_some(()))
    })
    .await
}

#[tokio::test]
async fn the_bypass_account_and_an_engine_that_restarts_are_met_as_they_should() -> anyhow::Result<()> {
    let scene = Scene::set().await?;
    let (_, address) = scene.connect(&["--patient-data"]).await?;
    let administrator = Administrator::sign_in(&address, "/api").await?;
    let bypass = administrator.client.get(format!("{address}/api/channels")).basic_auth("bypass", Some("bypass"));
    let answer = bypass.header("X-Requested-With", "x").header("X-Forwarded-For", "203.0.113.9").send().await?;
    ensure!(answer.status() == 403, "bypass: {}", answer.status());
    let messages = format!("/channels/{CHANNEL}/messages?limit=1");
    ensure!(administrator.status(Method::GET, &messages, None).await? == 200);
    scene.engine.restart_inside().await?;
    // The engine forgot its sessions; the Administrator must sign in again, and can.
    let again = wait::until(LIMIT, "the engine answers again", async || {
        let status = administrator.status(Method::GET, "/channels/idsAndNames", None).await?;
        Ok((status == 401).then_some(status))
    })
    .await?;
    ensure!(again == 401);
    let administrator = Administrator::sign_in(&address, "/api").await?;
    ensure!(administrator.status(Method::POST, "/channels/_getSummary", Some((XML, "<map/>"))).await? == 200);
    let addresses = scene.engine.executed().await?;
    ensure!(addresses.iter().all(|call| call.address != "203.0.113.9" && call.user.as_deref() != Some("bypass")));
    Ok(())
}
