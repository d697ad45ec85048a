//! An engine that reads requests as the real one does: matrix parameters dropped, percent-encoding decoded, a trailing slash
//! accepted. It keeps what reached it, so that a test can say what must not.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
};

use gateway_net::tls::{ServerIdentity, local_server_config};
use gateway_proto::admin::operation::{Class, operations};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// A request as the engine understood it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) class: Option<Class>,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Shared {
    seen: Mutex<Vec<Seen>>,
    /// Accounts by where their session is good, and its cookie: the engine keeps the sessions of each API by themselves.
    sessions: Mutex<BTreeMap<(String, String), &'static str>>,
    /// `GET /system/stats` answers half, and the rest after this.
    go_on: Notify,
    /// What `GET /users/current` answers instead of the truth; nothing at all if it is empty.
    ailment: Mutex<Option<&'static str>>,
    /// What is answered instead of the channels: status, fields and body.
    oddity: Mutex<Option<(&'static str, &'static str, Vec<u8>)>>,
}

impl Engine {
    pub(crate) async fn start(dir: &Path) -> Self {
        let identity = ServerIdentity::load_or_generate(dir, &[]).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(local_server_config(&identity)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, shared) = (listener.local_addr().unwrap(), Arc::new(Shared::default()));
        let mut tasks = JoinSet::new();
        let serving = shared.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let (acceptor, shared) = (acceptor.clone(), serving.clone());
                connections.spawn(async move {
                    if let Ok(stream) = acceptor.accept(socket).await {
                        shared.serve(stream).await;
                    }
                });
            }
        });
        Self { address, shared, _tasks: tasks }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// The cookie of the administrator's session that was begun at this API without the gateway.
    pub(crate) fn session(&self, api: &str) -> String {
        let cookie = "JSESSIONID=earlier".to_owned();
        self.shared.sessions.lock().unwrap().insert((api.to_owned(), cookie.clone()), "admin");
        cookie
    }

    /// From now on it answers so when it is asked whose session a call is of.
    pub(crate) fn ails(&self, status: Option<&'static str>) {
        *self.shared.ailment.lock().unwrap() = status;
    }

    /// From now on it answers so when it is asked for what it answers with its channels.
    pub(crate) fn answers(&self, fields: &'static str, body: &[u8]) {
        self.answers_as("200 OK", fields, body);
    }

    /// The same, with this status.
    pub(crate) fn answers_as(&self, status: &'static str, fields: &'static str, body: &[u8]) {
        *self.shared.oddity.lock().unwrap() = Some((status, fields, body.to_vec()));
    }

    pub(crate) fn forget(&self) {
        self.shared.seen.lock().unwrap().clear();
    }
}

impl Shared {
    async fn serve(&self, mut stream: TlsStream<TcpStream>) {
        let mut buffer = Vec::new();
        while let Some(seen) = read_request(&mut stream, &mut buffer).await {
            let mut answer = self.answer(&seen);
            if seen.method == "HEAD" {
                let end = answer.windows(4).position(|part| part == b"\r\n\r\n").map_or(0, |end| end + 4);
                answer.truncate(end);
            }
            let slow = seen.path == "/api/system/stats";
            self.seen.lock().unwrap().push(seen);
            if stream.write_all(&answer).await.is_err() || stream.flush().await.is_err() {
                return;
            }
            if slow {
                self.go_on.notified().await;
            }
        }
    }

    fn answer(&self, seen: &Seen) -> Vec<u8> {
        let by_password = seen.head.to_ascii_lowercase().contains("authorization: basic ywrtaw46z29vza==");
        let api = api_of(&seen.path);
        let shows = |(at, cookie): &(String, String)| at == api && seen.head.contains(cookie.as_str());
        let signed_in = || {
            let sessions = self.sessions.lock().unwrap();
            let session = sessions.iter().find_map(|(key, account)| shows(key).then_some(*account));
            if by_password { Some("admin") } else { session }
        };
        let whole = |status: &str, fields: &str, body: &str| {
            format!("HTTP/1.1 {status}\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
        };
        let account = account_of(&seen.body);
        let ailment = *self.ailment.lock().unwrap();
        let oddity = self.oddity.lock().unwrap().clone();
        match seen.path.rsplit('/').next().unwrap_or_default() {
            "_login" if account.is_some() => {
                let mut sessions = self.sessions.lock().unwrap();
                // What is shown and in use at another API becomes the new one's, too.
                let kept = sessions.keys().find(|(at, cookie)| at != api && seen.head.contains(cookie.as_str()));
                let cookie = kept.map(|(_, cookie)| cookie.clone());
                let cookie = cookie.unwrap_or_else(|| format!("JSESSIONID=node{}", sessions.len()));
                let fields = format!("Set-Cookie: {cookie}; Path=/api; Secure\r\nContent-Type: application/json\r\n");
                sessions.insert((api.to_owned(), cookie), account.unwrap_or_default());
                whole("200 OK", &fields, "{}")
            }
            "_login" => whole("401 Unauthorized", "", "{}"),
            "current" if ailment == Some("") => Vec::new(),
            "current" if ailment.is_some() => whole(ailment.unwrap_or_default(), "", "<html>trouble</html>"),
            "current" => match signed_in() {
                Some(account) => {
                    let user = format!("{{\"user\":{{\"id\":1,\"username\":\"{account}\"}}}}");
                    whole("200 OK", "Content-Type: application/json\r\n", &user)
                }
                None => whole("401 Unauthorized", "", ""),
            },
            "stats" => b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf.".to_vec(),
            "webstart.jnlp" => {
                let text = "<jnlp codebase=\"https://gw:1\"><argument>https://gw:8443</argument></jnlp>";
                whole("200 OK", "Content-Type: application/x-java-jnlp-file\r\n", text)
            }
            _ if oddity.is_some() => {
                let (status, fields, body) = oddity.unwrap_or_default();
                let head = format!("HTTP/1.1 {status}\r\n{fields}Content-Length: {}\r\n\r\n", body.len());
                [head.as_bytes(), &body].concat()
            }
            _ => {
                let xml = "<list><channel><name>adt</name><password>s3cret</password></channel></list>";
                let fields =
                    "Content-Type: application/xml\r\nTransfer-Encoding: chunked\r\nAccess-Control-Allow-Origin: *\r\n";
                format!("HTTP/1.1 200 OK\r\n{fields}\r\n{:x}\r\n{xml}\r\n0\r\n\r\n", xml.len()).into_bytes()
            }
        }
    }
}

async fn read_request(stream: &mut TlsStream<TcpStream>, buffer: &mut Vec<u8>) -> Option<Seen> {
    let end = loop {
        if let Some(end) = buffer.windows(4).position(|part| part == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
    buffer.drain(..end);
    let lower = head.to_ascii_lowercase();
    let field = |name: &str| lower.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim));
    let mut body = Vec::new();
    if field("transfer-encoding") == Some("chunked") {
        loop {
            while !buffer.windows(2).any(|part| part == b"\r\n") {
                stream.read_buf(buffer).await.ok()?;
            }
            let line = buffer.windows(2).position(|part| part == b"\r\n")?;
            let size = usize::from_str_radix(std::str::from_utf8(&buffer[..line]).ok()?, 16).ok()?;
            while buffer.len() < line + size + 4 {
                stream.read_buf(buffer).await.ok()?;
            }
            body.extend_from_slice(&buffer[line + 2..line + 2 + size]);
            buffer.drain(..line + size + 4);
            if size == 0 {
                break;
            }
        }
    } else {
        let length = field("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        while buffer.len() < length {
            stream.read_buf(buffer).await.ok()?;
        }
        body.extend(buffer.drain(..length));
    }
    let mut line = head.lines().next()?.split(' ');
    let (method, target) = (line.next()?.to_owned(), line.next()?);
    let path = as_the_engine_reads(target);
    let class = class_of(&method, &path);
    Some(Seen { method, path, class, head, body })
}

/// Who signs in with this form and the right password.
fn account_of(form: &[u8]) -> Option<&'static str> {
    match form {
        b"username=admin&password=good" => Some("admin"),
        b"username=guest&password=good" => Some("guest"),
        _ => None,
    }
}

/// The API that a path is below.
fn api_of(path: &str) -> &str {
    if path.starts_with("/api/4.5.2/") { "/api/4.5.2" } else { "/api" }
}

/// The path of a target as the engine takes it.
fn as_the_engine_reads(target: &str) -> String {
    let path = target.split('?').next().unwrap_or_default();
    let segments = path.trim_end_matches('/').split('/').map(|segment| segment.split(';').next().unwrap_or_default());
    let decoded = segments.map(|s| {
        let mut bytes = s.bytes();
        let mut plain = Vec::new();
        while let Some(byte) = bytes.next() {
            let pair = (byte == b'%').then(|| [bytes.next(), bytes.next()]);
            match pair {
                Some([Some(high), Some(low)]) => {
                    plain.push(u8::from_str_radix(&String::from_utf8_lossy(&[high, low]), 16).unwrap_or(b'?'));
                }
                Some(_) => {}
                None => plain.push(byte),
            }
        }
        String::from_utf8_lossy(&plain).into_owned()
    });
    decoded.collect::<Vec<_>>().join("/")
}

fn class_of(method: &str, path: &str) -> Option<Class> {
    let path = path.strip_prefix("/api")?;
    let path = path.strip_prefix("/4.5.2").unwrap_or(path);
    let segments: Vec<_> = path.split('/').collect();
    let fits = |template: &str| {
        let wanted: Vec<_> = template.split('/').collect();
        wanted.len() == segments.len() && wanted.iter().zip(&segments).all(|(w, s)| w.starts_with('{') || w == s)
    };
    let found = operations().iter().filter(|operation| operation.method.name() == method && fits(operation.template));
    // A literal beats a parameter, as in the engine.
    found.min_by_key(|operation| operation.template.matches('{').count()).map(|operation| operation.class)
}
