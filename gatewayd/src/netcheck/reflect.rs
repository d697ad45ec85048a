//! STUN from one socket: which servers answer, what they see of us, and what size passes.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use gateway_net::entropy::random;
use gateway_proto::{
    netcheck::{Reflection, TUNNEL_DATAGRAM, split_host},
    path::{Told, Weighed, normalize},
    stun,
};
use tokio::{net::UdpSocket, time::Instant};

use crate::{
    candidates::RESOLVE_TIMEOUT,
    nat64::way_through,
    stun_socket::{StunSocket, resolve},
};

/// An answer is waited for this long, then the question is repeated.
const RETRY: Duration = Duration::from_millis(500);
/// Questions to a server that does not answer: with 50 % loss, one of four is answered in 94 of 100 cases.
const TRIES: u32 = 4;

/// What the servers said.
#[derive(Debug, Default)]
pub(super) struct Udp {
    pub(super) reflections: Vec<Reflection>,
    pub(super) port: u16,
    pub(super) hairpin: Option<bool>,
    pub(super) large: Option<bool>,
}

/// Asks `servers` (`host:port`).
pub(super) async fn reflect(servers: &[String]) -> Udp {
    let mut reflections = addresses(servers).await;
    let Ok(socket) = StunSocket::bind().await else { return Udp { reflections, ..Udp::default() } };
    let port = socket.port();
    ask(&socket, &mut reflections).await;
    let answered = reflections.iter().find(|entry| entry.seen.is_some());
    let large = match answered.and_then(|entry| entry.address) {
        Some(server) => Some(answers(&socket, server, TUNNEL_DATAGRAM).await),
        None => None,
    };
    let hairpin = match outer(&reflections) {
        Some(outer) => hears_itself(&socket, outer).await,
        None => None,
    };
    Udp { reflections, port, hairpin, large }
}

/// Our IPv4 address as most relays see it, where it is not our own.
fn outer(reflections: &[Reflection]) -> Option<SocketAddr> {
    let seen = reflections
        .iter()
        .filter_map(|entry| Some(Told { relay: host(entry), server: entry.address?, outer: entry.seen? }));
    let outer = Weighed::of(seen).addresses.into_iter().find(SocketAddr::is_ipv4)?;
    reflections.iter().all(|entry| entry.source != Some(outer.ip())).then_some(outer)
}

fn host(entry: &Reflection) -> &str {
    split_host(&entry.server).map_or(entry.server.as_str(), |(host, _)| host)
}

/// One address of each family for each server. What has no route is kept where nothing has one: that a name does not resolve
/// and that there is no way to it are two things.
async fn addresses(servers: &[String]) -> Vec<Reflection> {
    let found = resolve(servers.iter().map(String::as_str), RESOLVE_TIMEOUT).await;
    let mut reflections = Vec::new();
    for (server, addresses) in servers.iter().zip(found) {
        let entry = |address: Option<SocketAddr>| {
            let source = address.and_then(way_through);
            Reflection { server: server.clone(), address, source, seen: None, rtt_ms: None }
        };
        let of_family = |v4: bool| addresses.iter().find(|address| address.is_ipv4() == v4).copied();
        let entries = [of_family(true), of_family(false)].into_iter().flatten().map(|address| entry(Some(address)));
        let (routed, unrouted): (Vec<_>, Vec<_>) = entries.partition(|entry| entry.source.is_some());
        // A family without a route is not a family that is blocked, while there is another one.
        match (routed.is_empty(), unrouted.is_empty()) {
            (false, _) => reflections.extend(routed),
            (true, false) => reflections.extend(unrouted),
            (true, true) => reflections.push(entry(None)),
        }
    }
    reflections
}

async fn ask(socket: &StunSocket, reflections: &mut [Reflection]) {
    let mut waiting: HashMap<[u8; 12], (usize, Instant)> = HashMap::new();
    for _ in 0..TRIES {
        let open: Vec<_> = (0..reflections.len())
            .filter(|index| reflections[*index].seen.is_none())
            .filter_map(|index| Some((index, routed(&reflections[index])?)))
            .collect();
        if open.is_empty() {
            return;
        }
        for (index, address) in open {
            let transaction = random();
            waiting.insert(transaction, (index, Instant::now()));
            socket.send(&stun::binding_request(&transaction), address).await;
        }
        let until = Instant::now() + RETRY;
        while let Some((packet, from)) = socket.receive(until).await {
            let Some((transaction, (index, sent_at))) =
                stun::transaction_id(&packet).and_then(|id| waiting.get(&id).map(|entry| (id, *entry)))
            else {
                continue;
            };
            let entry = &mut reflections[index];
            if entry.address != Some(from) || entry.seen.is_some() {
                continue;
            }
            let Ok(seen) = stun::parse_response(&packet, &transaction) else { continue };
            entry.seen = Some(normalize(seen));
            entry.rtt_ms = Some(sent_at.elapsed().as_secs_f64() * 1e3);
            if reflections.iter().all(|entry| entry.seen.is_some() || routed(entry).is_none()) {
                return;
            }
        }
    }
}

/// Where it can be asked.
fn routed(entry: &Reflection) -> Option<SocketAddr> {
    entry.source.and(entry.address)
}

/// Whether a question of this length is answered.
async fn answers(socket: &StunSocket, server: SocketAddr, length: usize) -> bool {
    for _ in 0..TRIES {
        let transaction = random();
        socket.send(&stun::padded_binding_request(&transaction, length), server).await;
        let until = Instant::now() + RETRY;
        while let Some((packet, from)) = socket.receive(until).await {
            if from == server && stun::parse_response(&packet, &transaction).is_ok() {
                return true;
            }
        }
    }
    false
}

/// Whether a packet from another socket of ours to our outer address comes back in.
async fn hears_itself(socket: &StunSocket, outer: SocketAddr) -> Option<bool> {
    let other = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await.ok()?;
    for _ in 0..2 {
        let token: [u8; 12] = random();
        let packet = stun::binding_request(&token);
        other.send_to(&packet, outer).await.ok()?;
        let until = Instant::now() + RETRY;
        while let Some((received, _)) = socket.receive(until).await {
            if received == packet {
                return Some(true);
            }
        }
    }
    Some(false)
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinSet;

    use super::*;

    /// A STUN server that answers what is at most so long.
    async fn server(most: usize, tasks: &mut JoinSet<()>) -> String {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap().to_string();
        tasks.spawn(async move {
            let mut buffer = [0; 2048];
            loop {
                let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
                if length <= most {
                    let transaction = stun::parse_request(&buffer[..length]).unwrap();
                    socket.send_to(&stun::binding_response(&transaction, from), from).await.unwrap();
                }
            }
        });
        address
    }

    #[tokio::test]
    async fn servers_that_answer_are_told_from_those_that_do_not() {
        let mut tasks = JoinSet::new();
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let servers = vec![server(2048, &mut tasks).await, silent.local_addr().unwrap().to_string(), "nonsense".into()];
        let udp = reflect(&servers).await;
        let seen = udp.reflections[0].seen.unwrap();
        assert_eq!(seen, SocketAddr::from((Ipv4Addr::LOCALHOST, udp.port)));
        assert!(udp.reflections[0].rtt_ms.is_some());
        assert_eq!(udp.reflections[1].seen, None);
        assert_eq!(udp.reflections[2].address, None);
        assert_eq!((udp.large, udp.hairpin), (Some(true), None), "there is no NAT to turn packets round");
    }

    #[tokio::test]
    async fn a_server_to_which_there_is_no_way_is_told_from_one_whose_name_does_not_resolve() {
        // The kernel refuses to connect to the broadcast address, whatever the routes are.
        let udp = reflect(&["255.255.255.255:3478".into(), "nonsense".into()]).await;
        let found: Vec<_> = udp.reflections.iter().map(|entry| (entry.address.is_some(), entry.source)).collect();
        assert_eq!(found, [(true, None), (false, None)]);
        assert!(udp.reflections.iter().all(|entry| entry.seen.is_none()) && udp.large.is_none());
    }

    #[tokio::test]
    async fn a_server_beyond_a_small_mtu_answers_small_questions_only() {
        let mut tasks = JoinSet::new();
        let udp = reflect(&[server(500, &mut tasks).await]).await;
        assert!(udp.reflections[0].seen.is_some());
        assert_eq!(udp.large, Some(false));
    }
}
