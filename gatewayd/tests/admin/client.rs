//! What stands before the user's gateway.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::client::TlsStream;

use crate::world::LIMIT;

/// An HTTP client that sends bytes as they are.
pub(crate) struct Client {
    stream: TlsStream<TcpStream>,
    buffer: Vec<u8>,
}

/// An answer: status line, fields in lower case, body without chunks.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) line: String,
    pub(crate) fields: String,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn status(&self) -> u16 {
        self.line.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
    }
}

impl Client {
    pub(crate) fn new(stream: TlsStream<TcpStream>) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        // A gateway that has answered and closed already is an answer too.
        let _ = self.stream.write_all(bytes).await;
        let _ = self.stream.flush().await;
    }

    /// The same, and nobody closes before it is sent.
    pub(crate) async fn send_all(&mut self, bytes: &[u8]) {
        let sending = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        timeout(LIMIT, sending).await.expect("somebody reads it").expect("the connection is open");
    }

    pub(crate) async fn ask(&mut self, request: &str) -> Reply {
        self.send(request.as_bytes()).await;
        self.reply().await.expect("an answer")
    }

    pub(crate) async fn get(&mut self, path: &str, cookie: &str) -> Reply {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: gw:1\r\nX-Requested-With: t\r\nCookie: {cookie}\r\n\r\n")).await
    }

    pub(crate) async fn post(&mut self, path: &str, cookie: &str, media: &str, body: &str) -> Reply {
        let fields = format!("Host: gw:1\r\nX-Requested-With: t\r\nCookie: {cookie}\r\nContent-Type: {media}\r\n");
        self.ask(&format!("POST {path} HTTP/1.1\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len())).await
    }

    pub(crate) async fn sign_in(&mut self) -> String {
        let form = "application/x-www-form-urlencoded";
        let reply = self.post("/api/users/_login", "", form, "username=admin&password=good").await;
        assert_eq!(reply.status(), 200, "{reply:?}");
        let cookie = reply.fields.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
        cookie.split(';').next().unwrap().replace("jsessionid", "JSESSIONID")
    }

    /// The next answer; none: the connection ended before a whole one.
    pub(crate) async fn reply(&mut self) -> Option<Reply> {
        timeout(LIMIT, self.read_reply()).await.expect("an answer or an end in time")
    }

    /// The next answer, which has no body whatever its fields say, because it was asked for with HEAD.
    pub(crate) async fn reply_to_head(&mut self) -> Option<Reply> {
        timeout(LIMIT, self.read_head()).await.expect("an answer or an end in time")
    }

    async fn read_head(&mut self) -> Option<Reply> {
        let end = self.until(|buffer| buffer.windows(4).position(|part| part == b"\r\n\r\n")).await?;
        let head = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        self.buffer.drain(..end + 4);
        let (line, fields) = head.split_once("\r\n").unwrap_or((&head, ""));
        Some(Reply { line: line.to_owned(), fields: fields.to_ascii_lowercase(), body: String::new() })
    }

    async fn read_reply(&mut self) -> Option<Reply> {
        let Reply { line, fields, .. } = self.read_head().await?;
        let mut body = Vec::new();
        if fields.contains("transfer-encoding: chunked") {
            loop {
                let line = self.until(|buffer| buffer.windows(2).position(|part| part == b"\r\n")).await?;
                let size = usize::from_str_radix(&String::from_utf8_lossy(&self.buffer[..line]), 16).unwrap();
                self.until(|buffer| (buffer.len() >= line + size + 4).then_some(0)).await?;
                body.extend_from_slice(&self.buffer[line + 2..line + 2 + size]);
                self.buffer.drain(..line + size + 4);
                if size == 0 {
                    break;
                }
            }
        } else {
            let length =
                fields.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
            self.until(|buffer| (buffer.len() >= length).then_some(0)).await?;
            body.extend(self.buffer.drain(..length));
        }
        Some(Reply { line, fields, body: String::from_utf8_lossy(&body).into_owned() })
    }

    async fn until(&mut self, found: impl Fn(&[u8]) -> Option<usize>) -> Option<usize> {
        loop {
            if let Some(at) = found(&self.buffer) {
                return Some(at);
            }
            if self.stream.read_buf(&mut self.buffer).await.ok()? == 0 {
                return None;
            }
        }
    }
}
