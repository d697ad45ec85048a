//! The HTTP proxy of a site that has no other way out: `CONNECT` with Basic authentication, nothing else.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use anyhow::{Context, ensure};
use data_encoding::BASE64;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::netns::tcp_socket;

/// Port of the proxy on the router's inner address.
pub(super) const PORT: u16 = 3128;
/// A special character in it must survive the configuration.
pub(super) const USER: &str = "gateway";
const PASSWORD: &str = "p@ss of a test";
const MAX_REQUEST: usize = 8 << 10;

/// A running proxy; it ends on drop.
#[derive(Debug)]
pub struct Proxy {
    _tasks: JoinSet<()>,
}

/// The proxy's URL for a gateway's `proxy_file`.
pub(super) fn url(address: SocketAddr) -> String {
    format!("http://{USER}:p%40ss%20of%20a%20test@{address}")
}

#[derive(Debug)]
struct Exit {
    namespace: String,
    names: BTreeMap<String, std::net::Ipv4Addr>,
}

impl Proxy {
    /// Listens at `address` in `namespace`, and connects from there; knows the hosts by `names`.
    pub(super) fn start(
        namespace: &str,
        address: SocketAddr,
        names: BTreeMap<String, std::net::Ipv4Addr>,
    ) -> anyhow::Result<Self> {
        let socket = tcp_socket(Some(namespace))?;
        socket.set_reuseaddr(true)?;
        socket.bind(address).context("the proxy cannot listen")?;
        let exit = Arc::new(Exit { namespace: namespace.into(), names });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(socket.listen(64)?, exit));
        Ok(Self { _tasks: tasks })
    }
}

async fn accept(listener: TcpListener, exit: Arc<Exit>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let exit = Arc::clone(&exit);
                connections.spawn(async move {
                    // A client that goes away in the middle is its own affair.
                    serve(stream, &exit).await.ok();
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(mut client: TcpStream, exit: &Exit) -> anyhow::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        ensure!(request.len() < MAX_REQUEST, "too long a request");
        request.push(client.read_u8().await?);
    }
    let text = String::from_utf8_lossy(&request).into_owned();
    let answer = match target(&text, exit) {
        Ok(target) => match tcp_socket(Some(&exit.namespace))?.connect(target).await {
            Ok(mut server) => {
                client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
                copy_bidirectional(&mut client, &mut server).await?;
                return Ok(());
            }
            Err(_) => "502 Bad Gateway",
        },
        Err(refusal) => refusal,
    };
    let challenge = if answer.starts_with("407") { "Proxy-Authenticate: Basic realm=\"lab\"\r\n" } else { "" };
    let answer = format!("HTTP/1.1 {answer}\r\n{challenge}Content-Length: 0\r\nConnection: close\r\n\r\n");
    Ok(client.write_all(answer.as_bytes()).await?)
}

/// Where a request wants to go, or the status line that refuses it.
fn target(request: &str, exit: &Exit) -> Result<SocketAddr, &'static str> {
    let mut lines = request.lines();
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some("CONNECT"), Some(authority)) = (words.next(), words.next()) else { return Err("405 Method Not Allowed") };
    let wanted = format!("basic {}", BASE64.encode(format!("{USER}:{PASSWORD}").as_bytes()));
    let admitted = lines.filter_map(|line| line.split_once(':')).any(|(name, value)| {
        let value = value.trim();
        name.eq_ignore_ascii_case("proxy-authorization")
            && value.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("basic "))
            && value[6..] == wanted[6..]
    });
    if !admitted {
        return Err("407 Proxy Authentication Required");
    }
    let (host, port) = authority.rsplit_once(':').ok_or("400 Bad Request")?;
    // As a careful proxy: TLS and nothing else.
    if port != "443" {
        return Err("403 Forbidden");
    }
    let ip = host.parse().ok().or_else(|| exit.names.get(host).copied()).ok_or("502 Bad Gateway")?;
    Ok(SocketAddr::from((ip, 443)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit() -> Exit {
        Exit {
            namespace: String::new(),
            names: [("relay.lab".to_owned(), std::net::Ipv4Addr::new(198, 51, 100, 2))].into(),
        }
    }

    #[test]
    fn only_who_knows_the_password_gets_out_and_only_to_https() {
        let credentials = BASE64.encode(format!("{USER}:{PASSWORD}").as_bytes());
        let with = |authority: &str, credentials: &str| {
            let request = format!("CONNECT {authority} HTTP/1.1\r\nProxy-Authorization: Basic {credentials}\r\n\r\n");
            target(&request, &exit()).map(|address| address.to_string())
        };
        assert_eq!(with("relay.lab:443", &credentials).as_deref(), Ok("198.51.100.2:443"));
        assert_eq!(with("relay.lab:443", "AAAA"), Err("407 Proxy Authentication Required"));
        assert_eq!(with("relay.lab:22", &credentials), Err("403 Forbidden"));
        assert_eq!(with("nowhere.lab:443", &credentials), Err("502 Bad Gateway"));
        assert_eq!(target("GET / HTTP/1.1\r\n\r\n", &exit()), Err("405 Method Not Allowed"));
    }
}
