//! An HTTP proxy on loopback that leads every permitted `CONNECT` to one place.

use std::net::SocketAddr;

use gateway_net::proxy::Proxy;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
};

pub(crate) struct StandInProxy {
    address: SocketAddr,
    asked: mpsc::Receiver<String>,
    _tasks: JoinSet<()>,
}

impl StandInProxy {
    /// Asks for user `gateway` with password `sesame`, and forbids what is not called `control.invalid`.
    pub(crate) async fn start(behind: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, asked) = mpsc::channel(100);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut clients = JoinSet::new();
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                clients.spawn(serve(tcp, behind, sender.clone()));
            }
        });
        Self { address, asked, _tasks: tasks }
    }

    pub(crate) fn proxy(&self, credentials: &str) -> Proxy {
        format!("http://{credentials}{}", self.address).parse().unwrap()
    }

    /// The host and port it was asked for next.
    pub(crate) async fn asked(&mut self) -> String {
        self.asked.recv().await.unwrap()
    }
}

async fn serve(mut tcp: TcpStream, behind: SocketAddr, asked: mpsc::Sender<String>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = tcp.read_u8().await else { return };
        head.push(byte);
    }
    let head = String::from_utf8(head).unwrap();
    let target = head.strip_prefix("CONNECT ").unwrap().split(' ').next().unwrap().to_owned();
    let permitted = target.starts_with("control.invalid:");
    let _ = asked.try_send(target);
    let authorizes = |line: &str| {
        let (name, value) = line.split_once(": ").unwrap_or_default();
        // gateway:sesame
        name.eq_ignore_ascii_case("proxy-authorization") && value == "Basic Z2F0ZXdheTpzZXNhbWU="
    };
    let known = head.lines().any(authorizes);
    let answer: &[u8] = match (known, permitted) {
        (false, _) => b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"x\"\r\n\r\n",
        (true, false) => b"HTTP/1.1 403 Forbidden\r\n\r\n",
        (true, true) => b"HTTP/1.1 200 OK\r\n\r\n",
    };
    let _ = tcp.write_all(answer).await;
    if known && permitted {
        let mut server = TcpStream::connect(behind).await.unwrap();
        let _ = copy_bidirectional(&mut tcp, &mut server).await;
    }
}
