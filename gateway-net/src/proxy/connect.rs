//! The way through the proxy: a TCP connection to it, `CONNECT`, and its answer (RFC 9110 §9.3.6).
//!
//! The answer is read up to its empty line and not one byte further: what follows is the tunnel's. A status of 2xx opens the
//! tunnel whatever else the head says, any other ends it, and a body is never read.

use std::io;

use reqwest::StatusCode;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use url::Host;
use zeroize::Zeroizing;

use super::Proxy;
use crate::dial::{self, DialError, Steps, Unresolved};

/// The longest head of an answer that is read.
const MAX_HEAD: usize = 8 << 10;
/// What an answer begins with; the digit after it is not looked at.
const VERSION: &[u8] = b"HTTP/1.";

/// Why there is no way through the proxy. Each names the proxy, so that nobody searches at the wrong hop.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// Its name does not resolve.
    #[error("cannot resolve the proxy '{proxy}': check its name and the DNS servers of this machine")]
    Resolve {
        /// Host and port of the proxy.
        proxy: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// It does not accept a TCP connection.
    #[error(
        "cannot reach the proxy '{proxy}' over TCP: check its address, that it is up and that a firewall lets us out"
    )]
    Unreachable {
        /// Host and port of the proxy.
        proxy: String,
        /// The error of the address that says most.
        source: io::Error,
    },
    /// Status 407, or 401 as some proxies answer.
    #[error(
        "wrong or missing user and password for the proxy '{proxy}' ({sent}; it answered with HTTP status {}): see \
         network.proxy and network.proxy_file", status.as_u16()
    )]
    Credentials {
        /// Host and port of the proxy.
        proxy: String,
        /// What we had sent, in words.
        sent: &'static str,
        /// The status.
        status: StatusCode,
    },
    /// Status 407, and none of the ways to log in that it offers is ours.
    #[error(
        "the proxy '{proxy}' wants a login by {offered}, and a gateway speaks Basic only: have Basic allowed for this machine \
         at the proxy, or let it pass without a login (HTTP status 407)"
    )]
    Scheme {
        /// Host and port of the proxy.
        proxy: String,
        /// What it offers, as it says.
        offered: String,
    },
    /// Another status than 2xx.
    #[error("the proxy '{proxy}' refused a tunnel to '{target}' with HTTP status {status}: {}", advice(*status))]
    Refused {
        /// Host and port of the proxy.
        proxy: String,
        /// Host and port asked for.
        target: String,
        /// The status.
        status: StatusCode,
    },
    /// Not the answer of an HTTP proxy.
    #[error("the answer of '{proxy}' is not that of an HTTP proxy ({reason}): check that the address is the proxy's")]
    Malformed {
        /// Host and port of the proxy.
        proxy: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The connection broke before the answer was complete.
    #[error("the proxy '{proxy}' closed the connection instead of answering")]
    Broken {
        /// Host and port of the proxy.
        proxy: String,
        /// What the system said.
        source: io::Error,
    },
}

/// What a person does about a refusal.
fn advice(status: StatusCode) -> &'static str {
    match status {
        StatusCode::INTERNAL_SERVER_ERROR
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => {
            "the proxy cannot reach it: it may be down; else check the name and that the proxy's own firewall lets it out"
        }
        StatusCode::TOO_MANY_REQUESTS => {
            "it is asked more often than it allows: it is tried again, and its limit for this machine should be raised"
        }
        status if status.is_redirection() => {
            "it leads elsewhere, as a login page of the network does: have this machine let through without one"
        }
        _ => "have this host and port allowed at the proxy",
    }
}

impl Proxy {
    /// A TCP connection that ends at `target`. `step` says what is under way, for the caller's own time limit.
    pub(crate) async fn tunnel(
        &self,
        target: &Host<&str>,
        port: u16,
        step: &mut &'static str,
    ) -> Result<TcpStream, ProxyError> {
        let host = match &self.host {
            Host::Domain(name) => Host::Domain(name.as_str()),
            Host::Ipv4(address) => Host::Ipv4(*address),
            Host::Ipv6(address) => Host::Ipv6(*address),
        };
        let dialled = dial::dial(&host, self.port, Unresolved::Remember, Steps::PROXY, step).await;
        let mut tcp = dialled.map_err(|error| match error {
            DialError::Resolve(source) => ProxyError::Resolve { proxy: self.to_string(), source },
            DialError::Connect(source) => ProxyError::Unreachable { proxy: self.to_string(), source },
        })?;
        *step = "answer of the proxy to CONNECT";
        let target = format!("{target}:{port}");
        let broken = |source| ProxyError::Broken { proxy: self.to_string(), source };
        tcp.write_all(self.request(&target).as_bytes()).await.map_err(broken)?;
        let head = match read_head(&mut tcp).await.map_err(broken)? {
            Ok(head) => head,
            Err(reason) => return Err(ProxyError::Malformed { proxy: self.to_string(), reason }),
        };
        match status(&head) {
            None => Err(ProxyError::Malformed { proxy: self.to_string(), reason: "it has no HTTP status" }),
            Some(status) if status.is_success() => {
                dial::reached(&host, &tcp);
                Ok(tcp)
            }
            Some(status @ (StatusCode::PROXY_AUTHENTICATION_REQUIRED | StatusCode::UNAUTHORIZED)) => {
                if let Some(offered) = other_schemes(&head) {
                    return Err(ProxyError::Scheme { proxy: self.to_string(), offered });
                }
                let sent = if self.has_credentials() { "it does not accept ours" } else { "none are configured" };
                Err(ProxyError::Credentials { proxy: self.to_string(), sent, status })
            }
            Some(status) => Err(ProxyError::Refused { proxy: self.to_string(), target, status }),
        }
    }

    fn request(&self, target: &str) -> Zeroizing<String> {
        let (name, value) = match &self.authorization {
            Some(value) => ("Proxy-Authorization: ", value.as_str()),
            None => ("", ""),
        };
        let agent = concat!("User-Agent: gateway/", env!("CARGO_PKG_VERSION"));
        let lines = ["CONNECT ", target, " HTTP/1.1\r\nHost: ", target, "\r\n", agent, "\r\n", name, value];
        let end = if name.is_empty() { "\r\n" } else { "\r\n\r\n" };
        // Enough room from the start: a growing buffer would leave copies of the password behind.
        let length = lines.iter().map(|line| line.len()).sum::<usize>() + end.len();
        let mut request = Zeroizing::new(String::with_capacity(length));
        lines.iter().for_each(|line| request.push_str(line));
        request.push_str(end);
        request
    }
}

/// The head of the answer, with its empty line; the inner error says what is wrong with it.
async fn read_head(tcp: &mut TcpStream) -> io::Result<Result<Vec<u8>, &'static str>> {
    let mut head = Vec::new();
    let mut window = [0; 1024];
    loop {
        // Looked at first and taken after, so that nothing behind the head is taken.
        let seen = tcp.peek(&mut window).await?;
        if seen == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let known = head.len();
        head.extend_from_slice(&window[..seen]);
        let end = end_of_head(&head);
        head.truncate(end.unwrap_or(head.len()));
        tcp.read_exact(&mut window[..head.len() - known]).await?;
        let begin = head.len().min(VERSION.len());
        if head[..begin] != VERSION[..begin] {
            return Ok(Err("it does not begin with HTTP/1"));
        }
        match end {
            _ if head.len() > MAX_HEAD => return Ok(Err("its head is longer than 8 KiB")),
            Some(_) => return Ok(Ok(head)),
            None => {}
        }
    }
}

/// Behind the empty line; a line may end in a bare LF (RFC 9112 §2.2).
fn end_of_head(head: &[u8]) -> Option<usize> {
    let after = |end: &[u8]| head.windows(end.len()).position(|window| window == end).map(|at| at + end.len());
    match (after(b"\n\r\n"), after(b"\n\n")) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// The ways to log in that a proxy offers, when Basic is not among them and it names any. A name is letters, digits and dashes,
/// and at most four of them are told.
fn other_schemes(head: &[u8]) -> Option<String> {
    let head = String::from_utf8_lossy(head);
    let values = head.lines().filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("proxy-authenticate").then_some(value)
    });
    // One line may offer several: `Negotiate, NTLM`. What has a `=` behind the first word is a parameter of the one before.
    let words = values.flat_map(|value| value.split(',')).filter_map(|offer| offer.split_whitespace().next());
    let is_scheme = |word: &&str| word.len() <= 20 && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    let mut schemes: Vec<&str> = words.filter(is_scheme).collect();
    schemes.dedup();
    if schemes.is_empty() || schemes.iter().any(|scheme| scheme.eq_ignore_ascii_case("basic")) {
        return None;
    }
    schemes.truncate(4);
    Some(schemes.join(" or "))
}

/// The status in `HTTP/1.1 200 whatever`.
fn status(head: &[u8]) -> Option<StatusCode> {
    let (minor, rest) = head.strip_prefix(VERSION)?.split_first()?;
    let (digits, rest) = rest.strip_prefix(b" ")?.split_at_checked(3)?;
    if !minor.is_ascii_digit() || !matches!(rest.first(), Some(b' ' | b'\r' | b'\n')) {
        return None;
    }
    StatusCode::from_bytes(digits).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_to_log_in_that_are_not_ours_are_named_and_basic_among_them_is_a_matter_of_the_password() {
        let offered = |lines: &str| other_schemes(format!("HTTP/1.1 407 No\r\n{lines}\r\n\r\n").as_bytes());
        let both = Some("Negotiate or NTLM".to_owned());
        assert_eq!(offered("Proxy-Authenticate: Negotiate\r\nproxy-authenticate: NTLM"), both);
        assert_eq!(offered("Proxy-Authenticate: Negotiate, NTLM"), both);
        let digest = "Proxy-Authenticate: Digest realm=\"a, b\", nonce=\"c\", qop=\"auth\"";
        assert!(offered(digest).is_some_and(|text| text.starts_with("Digest")));
        for ours in
            ["Proxy-Authenticate: NTLM\r\nProxy-Authenticate: basic realm=\"x\"", "Server: x", "Proxy-Authenticate:"]
        {
            assert_eq!(offered(ours), None, "{ours}");
        }
        assert_eq!(offered("Proxy-Authenticate: \u{1b}[2J"), None, "a name is a name");
    }
}
