//! Two organizations with a connection, ready for a scenario: `north` sends, `south` receives.

use std::time::Duration;

use anyhow::{Context, ensure};
use gateway_proto::api::gateway::{Connectivity, PathKind};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use crate::{
    corpus::{Corpus, Message},
    mllp::{Engine, Manners, Sender, Verdict},
    natlab::NatLab,
    netns::Lab,
    platform::{GatewayOptions, Link, Placement, Platform, PlatformOptions, Site},
    process::Process,
};

/// The end-to-end proof is there, and a direct path if one is possible, within this time.
pub const PATH_LIMIT: Duration = Duration::from_secs(30);

/// What is running, in the order in which it must go.
#[derive(Debug)]
pub struct Scene {
    /// The engine behind `south`.
    pub engine: Engine,
    /// The connection from `north` to `south`.
    pub link: Link,
    /// The sending side.
    pub north: Site,
    /// The receiving side.
    pub south: Site,
    /// Control plane and relay.
    pub platform: Platform,
    /// Words of the ERROR lines that this scenario causes on purpose.
    pub expected_errors: Vec<&'static str>,
    corpus: Corpus,
}

/// Plays a scenario on loopback, with the tunnel up. When it fails, the tails of all logs stand in the error; an ERROR line or a panic in a
/// log fails it too.
pub async fn play(scenario: impl AsyncFnOnce(&mut Scene) -> anyhow::Result<()>) -> anyhow::Result<()> {
    play_with(PlatformOptions::default(), [Placement::loopback(), Placement::loopback()], scenario).await
}

/// The same from the moment at which both ends let data pass; whether the tunnel is up is the scenario's to see.
pub async fn play_cold(scenario: impl AsyncFnOnce(&mut Scene) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let gateways = [0, 1].map(|_| (Placement::loopback(), GatewayOptions::default()));
    play_out_cold(Scene::set(PlatformOptions::default(), gateways).await?, scenario).await
}

/// Plays a scenario in the lab: one site behind each NAT, control plane and relay on the public segment.
pub async fn play_in(lab: &Lab, scenario: impl AsyncFnOnce(&mut Scene) -> anyhow::Result<()>) -> anyhow::Result<()> {
    // One socket for every address of the machine, as by default.
    let gateway = |_| GatewayOptions { listen: Some("[::]:0".into()), ..GatewayOptions::default() };
    play_in_with(lab, gateway, scenario).await
}

/// The same, with a configuration for the gateway of each site.
pub async fn play_in_with(
    lab: &Lab,
    gateway: impl Fn(usize) -> GatewayOptions,
    scenario: impl AsyncFnOnce(&mut Scene) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let options = PlatformOptions { control: lab.public(), relay: lab.public(), ..PlatformOptions::default() };
    let gateways = [0, 1].map(|site| (lab.site(site), gateway(site)));
    play_out(Scene::set(options, gateways).await?, scenario).await
}

/// Plays a scenario between the sites 0 (`north`) and 1 (`south`) of a NAT lab, with its two relays.
pub async fn play_between(
    lab: &NatLab,
    scenario: impl AsyncFnOnce(&mut Scene) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    play_between_with(lab, |_, _| {}, scenario).await
}

/// The same, with control plane and relays at places of the scenario's choice.
pub async fn play_between_at(
    lab: &NatLab,
    options: PlatformOptions,
    scenario: impl AsyncFnOnce(&mut Scene) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let gateways = [0, 1].map(|site| (lab.site(site), lab.options(site)));
    play_out(Scene::set(options, gateways).await?, scenario).await
}

/// The same, with a hand on what the gateways are told.
pub async fn play_between_with(
    lab: &NatLab,
    change: impl Fn(usize, &mut GatewayOptions),
    scenario: impl AsyncFnOnce(&mut Scene) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    play_out(set_between(lab, change).await?, scenario).await
}

/// Like [`play_between`] from the moment at which both ends let data pass.
pub async fn play_between_cold(
    lab: &NatLab,
    scenario: impl AsyncFnOnce(&mut Scene) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    play_out_cold(set_between(lab, |_, _| {}).await?, scenario).await
}

async fn set_between(lab: &NatLab, change: impl Fn(usize, &mut GatewayOptions)) -> anyhow::Result<Scene> {
    let [relay, second] = lab.relays();
    let control = lab.control();
    let options = PlatformOptions { control, relay, more_relays: vec![second], ..PlatformOptions::default() };
    let gateways = [0, 1].map(|site| {
        let mut options = lab.options(site);
        change(site, &mut options);
        (lab.site(site), options)
    });
    Scene::set(options, gateways).await
}

/// Plays a scenario on loopback with a configuration of the gateways' own.
pub async fn play_as(
    gateway: &GatewayOptions,
    scenario: impl AsyncFnOnce(&mut Scene) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let gateways = [0, 1].map(|_| (Placement::loopback(), gateway.clone()));
    play_out(Scene::set(PlatformOptions::default(), gateways).await?, scenario).await
}

/// Plays a scenario with everything chosen.
pub async fn play_with(
    options: PlatformOptions,
    places: [Placement; 2],
    scenario: impl AsyncFnOnce(&mut Scene) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let gateways = places.map(|place| (place, GatewayOptions::default()));
    play_out(Scene::set(options, gateways).await?, scenario).await
}

/// What a first message meets depends on how far the tunnel is; most scenarios are about something else.
async fn play_out(scene: Scene, scenario: impl AsyncFnOnce(&mut Scene) -> anyhow::Result<()>) -> anyhow::Result<()> {
    play_out_cold(scene, async |scene: &mut Scene| {
        scene.connected().await?;
        scenario(scene).await
    })
    .await
}

async fn play_out_cold(
    mut scene: Scene,
    scenario: impl AsyncFnOnce(&mut Scene) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let outcome = match scenario(&mut scene).await {
        Ok(()) => scene.no_errors_logged(),
        Err(error) => Err(error),
    };
    // Said twice: where only the end of what a run printed is kept, the reason stands there too.
    outcome.map_err(|error| anyhow::anyhow!("{error:#}\n\n{}\nfailed: {error:#}", scene.log_tails()))
}

impl Scene {
    async fn set(options: PlatformOptions, [north, south]: [(Placement, GatewayOptions); 2]) -> anyhow::Result<Self> {
        let platform = Platform::start_with(options).await?;
        platform.add_relays().await?;
        let north = platform.site_with("north", north.0, &north.1).await?;
        let south = platform.site_with("south", south.0, &south.1).await?;
        let agreement = platform.peer(&north, &south).await?;
        let engine = Engine::start_at(south.placement(), Manners::Polite)?;
        let link = platform.link(&agreement, &south, &north, engine.address()).await?;
        Ok(Self { engine, link, north, south, platform, expected_errors: Vec::new(), corpus: Corpus::new("SC", 7) })
    }

    /// A new small message.
    pub fn message(&mut self) -> Message {
        self.corpus.adt("A01")
    }

    /// A new message with a document of this size.
    pub fn document(&mut self, size: usize) -> Message {
        self.corpus.mdm(size)
    }

    /// A sending engine beside `north`, with a new connection for each message.
    pub fn sender(&self) -> Sender {
        Sender::new(self.link.sender, false).at(self.north.placement())
    }

    /// A sending engine beside `north` that keeps its connection open.
    pub fn keeping_sender(&self) -> Sender {
        Sender::new(self.link.sender, true).at(self.north.placement())
    }

    /// Sends a message and insists: acknowledged, and at the engine once, byte for byte.
    pub async fn deliver(&self, sender: &mut Sender, message: &Message) -> anyhow::Result<()> {
        let verdict = sender.send(&message.bytes).await;
        ensure!(verdict == Verdict::Acknowledged, "{} was {verdict}", message.control_id);
        self.arrived_once(message)
    }

    /// The message is at the engine once, byte for byte.
    pub fn arrived_once(&self, message: &Message) -> anyhow::Result<()> {
        let received = self.engine.received();
        let mut found = received.iter().filter(|received| received.control_id == message.control_id);
        let first = found.next().with_context(|| format!("{} did not arrive", message.control_id))?;
        ensure!(first.bytes == message.bytes, "{} arrived with other bytes", message.control_id);
        ensure!(found.next().is_none(), "{} arrived twice", message.control_id);
        Ok(())
    }

    /// Waits until both ends show the connection as connected.
    pub async fn connected(&self) -> anyhow::Result<()> {
        self.both(Connectivity::Connected, None).await
    }

    /// Makes data flow and waits until both ends show this path.
    pub async fn on_path(&mut self, path: PathKind) -> anyhow::Result<()> {
        let message = self.message();
        self.deliver(&mut self.sender().with_response_timeout(Duration::from_secs(15)), &message).await?;
        self.both(Connectivity::Connected, Some(path)).await
    }

    async fn both(&self, connectivity: Connectivity, path: Option<PathKind>) -> anyhow::Result<()> {
        for site in [&self.north, &self.south] {
            site.wait_for(&self.link.connection, connectivity, path, PATH_LIMIT).await?;
        }
        Ok(())
    }

    /// Runs a changing command of `gateway-ctl`.
    pub async fn ctl(&self, args: &[&str]) -> anyhow::Result<serde_json::Value> {
        self.platform.ctl.json(args).await
    }

    /// The metrics page of a gateway.
    pub async fn metrics_of(&self, site: &Site) -> anyhow::Result<String> {
        let mut stream = UnixStream::connect(site.socket()).await?;
        stream.write_all(b"GET /v1/metrics HTTP/1.1\r\nHost: local\r\nConnection: close\r\n\r\n").await?;
        let mut page = String::new();
        stream.read_to_string(&mut page).await?;
        Ok(page)
    }

    /// Every process.
    pub fn processes(&self) -> Vec<&Process> {
        let mut processes =
            vec![&self.platform.control, &self.platform.relay, &self.north.gateway, &self.south.gateway];
        processes.extend(&self.platform.more_relays);
        processes
    }

    fn no_errors_logged(&self) -> anyhow::Result<()> {
        for process in self.processes() {
            let log = process.log();
            let expected = |line: &str| self.expected_errors.iter().any(|words| line.contains(words));
            let is_bad = |line: &&str| (line.contains(" ERROR ") && !expected(line)) || line.contains("panicked at");
            let bad = log.lines().find(is_bad);
            ensure!(bad.is_none(), "{} logged an error: {}", process.name(), bad.unwrap_or_default());
        }
        Ok(())
    }

    fn log_tails(&self) -> String {
        let tail = |process: &Process| format!("log of {}:\n{}", process.name(), process.log_tail(25));
        self.processes().into_iter().map(tail).collect()
    }
}
