//! A router that speaks NAT-PMP and nothing else (RFC 6886), as many of before PCP and UPnP: a responder of our own, that can
//! also refuse, grant little, be restarted, or stay silent when it is asked in PCP.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::Command,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::ensure;
use gateway_proto::{
    api::gateway::PathKind,
    netcheck::{MappingProtocol, PortMapping},
};
use gateway_tests::{
    measured,
    natlab::{NatLab, RouterKind::RandomPort},
    netns::udp_socket_at,
    platform::Placement,
    scene::{Scene, play_between_with},
    wait,
};
use tokio::{net::UdpSocket, task::JoinSet};

use crate::{LIMIT, exchange};

/// Where such routers listen.
const PORT: u16 = 5351;
/// Result codes.
const UNSUPPORTED_VERSION: u16 = 1;
const NOT_AUTHORIZED: u16 = 2;
/// Operations.
const EXTERNAL_ADDRESS: u8 = 0;
const MAP_UDP: u8 = 1;

/// How it answers.
#[derive(Debug, Clone, Copy)]
struct Manners {
    /// Of a request for a port; 0: granted.
    result: u16,
    /// Granted at most, seconds.
    lifetime: u32,
    /// Says nothing at all to another version than its own.
    deaf: bool,
}

const USUAL: Manners = Manners { result: 0, lifetime: 3600, deaf: false };

#[derive(Debug)]
struct State {
    manners: Manners,
    begun: Instant,
    /// Requests for a port so far.
    asked: u32,
    forwards: bool,
}

/// The responder; it ends on drop.
struct Router {
    namespace: String,
    state: Arc<Mutex<State>>,
    _serving: JoinSet<()>,
}

impl Router {
    /// On the router of site 0.
    fn start(lab: &NatLab, manners: Manners) -> anyhow::Result<Self> {
        let namespace = lab.name("r0");
        let IpAddr::V4(site) = lab.site(0).ip else { anyhow::bail!("site 0 has no IPv4") };
        let own = Ipv4Addr::from(u32::from(site) - 1);
        let socket = udp_socket_at(&Placement::inside(&namespace, own.into()), PORT)?;
        lab.nft(
            "r0",
            "table ip pmp {
               chain before { type nat hook prerouting priority -100; }
             }
             insert rule inet lab through ct status dnat accept",
        )?;
        let state = State { manners, begun: Instant::now(), asked: 0, forwards: false };
        let state = Arc::new(Mutex::new(state));
        let outer = Ipv4Addr::new(203, 0, 113, 2);
        let mut serving = JoinSet::new();
        serving.spawn(serve(socket, outer, namespace.clone(), state.clone()));
        Ok(Self { namespace, state, _serving: serving })
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn forwards(&self) -> bool {
        self.with(|state| state.forwards)
    }

    /// Everything is forgotten, and it counts from zero.
    fn restart(&self) -> anyhow::Result<()> {
        self.with(|state| (state.begun, state.forwards) = (Instant::now(), false));
        nft(&self.namespace, "flush chain ip pmp before")
    }
}

async fn serve(socket: UdpSocket, outer: Ipv4Addr, namespace: String, state: Arc<Mutex<State>>) {
    let mut buffer = [0; 1100];
    while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
        let answer = {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            answer(&buffer[..length], from, outer, &namespace, &mut state)
        };
        if let Some(answer) = answer {
            socket.send_to(&answer, from).await.ok();
        }
    }
}

/// The answer to a request, sections 3.2 to 3.5.
fn answer(request: &[u8], from: SocketAddr, outer: Ipv4Addr, namespace: &str, state: &mut State) -> Option<Vec<u8>> {
    let (version, operation) = (*request.first()?, *request.get(1)?);
    let epoch = u32::try_from(state.begun.elapsed().as_secs()).ok()?;
    let header = |result: u16| {
        let mut answer = vec![0, operation | 0x80];
        answer.extend(result.to_be_bytes());
        answer.extend(epoch.to_be_bytes());
        answer
    };
    match (version, operation) {
        (0, EXTERNAL_ADDRESS) => Some([header(0), outer.octets().to_vec()].concat()),
        (0, MAP_UDP) if request.len() >= 12 => {
            let (inner, wished) = (&request[4..6], &request[6..8]);
            let wanted = u32::from_be_bytes(request[8..12].try_into().ok()?);
            if wanted == 0 {
                state.forwards = false;
                nft(namespace, "flush chain ip pmp before").ok()?;
                return Some([header(0), inner.to_vec(), vec![0; 6]].concat());
            }
            state.asked += 1;
            if state.manners.result != 0 {
                return Some([header(state.manners.result), inner.to_vec(), vec![0; 6]].concat());
            }
            let port = |bytes: &[u8]| u16::from_be_bytes([bytes[0], bytes[1]]);
            let rule = format!(
                "flush chain ip pmp before;
                 add rule ip pmp before iifname \"wan\" udp dport {} dnat to {}:{}",
                port(wished),
                from.ip(),
                port(inner)
            );
            nft(namespace, &rule).ok()?;
            state.forwards = true;
            let granted = wanted.min(state.manners.lifetime).to_be_bytes().to_vec();
            Some([header(0), inner.to_vec(), wished.to_vec(), granted].concat())
        }
        (0, _) => None,
        _ if state.manners.deaf => None,
        _ => Some(header(UNSUPPORTED_VERSION)),
    }
}

fn nft(namespace: &str, rules: &str) -> anyhow::Result<()> {
    let status = Command::new("ip").args(["netns", "exec", namespace, "nft", rules]).status()?;
    ensure!(status.success(), "nft: {status}");
    Ok(())
}

async fn play(
    manners: Manners,
    scenario: impl AsyncFnOnce(&mut Scene, &Router, &NatLab) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut lab = NatLab::start()?;
    for _ in 0..2 {
        lab.add_site(RandomPort)?;
    }
    let router = Router::start(&lab, manners)?;
    let mapping = |site, options: &mut gateway_tests::platform::GatewayOptions| options.port_mapping = site == 0;
    play_between_with(&lab, mapping, async |scene| scenario(scene, &router, &lab).await).await
}

async fn told(scene: &Scene) -> anyhow::Result<PortMapping> {
    wait::until(LIMIT, "something is told of the mapping", async || Ok(scene.north.look().await?.port_mapping)).await
}

async fn is_mapped(scene: &mut Scene, router: &Router) -> anyhow::Result<()> {
    wait::until_true(LIMIT, "a port is mapped", async || Ok(told(scene).await?.outer.is_some())).await?;
    let mapping = told(scene).await?;
    ensure!(mapping.protocol == Some(MappingProtocol::NatPmp) && router.forwards(), "{mapping:?}");
    scene.on_path(PathKind::Direct).await?;
    exchange(scene, 5).await
}

#[tokio::test]
async fn a_port_mapped_by_nat_pmp_makes_a_hard_nat_reachable_and_is_given_back() -> anyhow::Result<()> {
    for deaf in [false, true] {
        play(Manners { deaf, ..USUAL }, async |scene, router, _| {
            is_mapped(scene, router).await?;
            measured!("two NATs with random ports, one with a mapping by NAT-PMP (deaf to PCP: {deaf}): direct");
            scene.north.gateway.terminate(LIMIT).await?;
            wait::until_true(Duration::from_secs(5), "the port is given back", async || Ok(!router.forwards())).await
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_router_that_refuses_is_quoted_and_asked_again_on_another_network() -> anyhow::Result<()> {
    play(Manners { result: NOT_AUTHORIZED, ..USUAL }, async |scene, router, lab| {
        scene.on_path(PathKind::Relayed).await?;
        wait::until_true(LIMIT, "the refusal is told", async || Ok(told(scene).await?.problem.is_some())).await?;
        let problem = told(scene).await?.problem.unwrap_or_default();
        ensure!(problem.contains("NAT-PMP: ") && problem.contains("Not authorized"), "{problem}");
        router.with(|state| state.manners.lifetime = 5);
        router.with(|state| state.manners.result = 0);
        // The machine gets one more address: the router may be another one.
        another_address(lab, 98)?;
        wait::until_true(LIMIT, "a lease too short is told", async || {
            Ok(told(scene).await?.problem.is_some_and(|problem| problem.contains("for 5 s only")))
        })
        .await?;
        ensure!(told(scene).await?.outer.is_none(), "a port that ends at once is offered");
        router.with(|state| state.manners = USUAL);
        another_address(lab, 99)?;
        is_mapped(scene, router).await
    })
    .await
}

#[tokio::test]
async fn a_short_lease_is_renewed_in_time_and_a_restarted_router_has_the_port_again() -> anyhow::Result<()> {
    play(Manners { lifetime: 20, ..USUAL }, async |scene, router, _| {
        is_mapped(scene, router).await?;
        let asked = router.with(|state| state.asked);
        let renewed = async |times: u32| {
            let often = async || Ok(router.with(|state| state.asked) >= asked + times);
            wait::until_true(Duration::from_secs(15), "the lease is renewed", often).await
        };
        renewed(1).await?;
        router.restart()?;
        renewed(2).await?;
        ensure!(router.forwards(), "the router forwards nothing after its restart");
        let noticed = async || Ok(scene.north.gateway.log().contains("the router was restarted"));
        wait::until_true(LIMIT, "the restart is noticed", noticed).await?;
        is_mapped(scene, router).await?;
        let storm = router.with(|state| state.asked);
        ensure!(storm <= asked + 3, "{storm} requests for a lease of 20 s");
        Ok(())
    })
    .await
}

fn another_address(lab: &NatLab, host: u8) -> anyhow::Result<()> {
    let address = format!("10.99.0.{host}/32");
    let status = Command::new("ip").args(["-n", &lab.name("s0"), "addr", "add", &address, "dev", "eth0"]).status()?;
    ensure!(status.success(), "ip: {status}");
    Ok(())
}
