//! The client of the gatewayd on this machine, over its Unix socket.

use std::{path::Path, time::Duration};

use gateway_proto::{
    api::{
        local::{AuditNewest, EnrollBody, Enrolled, ReconnectBody, Status},
        platform::Hidden,
    },
    audit::line::Head,
    netcheck::{NetcheckBody, Report},
};

use super::{ClientError, Http};

/// The daemon answers from memory.
const LIMIT: Duration = Duration::from_secs(10);
/// For this it reads files.
const FILES_LIMIT: Duration = Duration::from_secs(60);
/// A look at the network waits for what does not answer, and for another look under way.
const NETCHECK_LIMIT: Duration = Duration::from_secs(30);
/// Enrolment goes on to the control plane: its connect limit and answer fit in.
const ENROLL_LIMIT: Duration = Duration::from_secs(60);

/// The daemon.
#[derive(Debug)]
pub(crate) struct Daemon {
    http: Http,
}

impl Daemon {
    /// A client; the socket is not opened yet.
    pub(crate) fn new(socket: &Path) -> Result<Self, ClientError> {
        let client = gateway_net::http::unix_client(socket)?;
        let address = format!("the daemon at {}", socket.display());
        Ok(Self {
            http: Http { client, base: "http://localhost/v1".to_owned(), address, socket: Some(socket.to_owned()) },
        })
    }

    /// Everything it tells about itself.
    pub(crate) async fn status(&self) -> Result<Status, ClientError> {
        self.http.call(self.http.client.get(self.http.url("/status")), LIMIT).await
    }

    /// Enrols it.
    pub(crate) async fn enroll(&self, code: &Hidden) -> Result<Enrolled, ClientError> {
        let mut body = EnrollBody { code: code.0.clone() };
        let request = self.http.client.post(self.http.url("/enroll")).json(&body);
        zeroize::Zeroize::zeroize(&mut body.code);
        self.http.call(request, ENROLL_LIMIT).await
    }

    /// Makes it probe every path to a peer anew.
    pub(crate) async fn reconnect(&self, peer: &str) -> Result<(), ClientError> {
        let body = ReconnectBody { peer: peer.to_owned() };
        self.http.send(self.http.client.post(self.http.url("/reconnect")).json(&body), LIMIT).await?;
        Ok(())
    }

    /// The newest records of its audit log whose act begins with `act`.
    pub(crate) async fn audit_newest(&self, limit: usize, act: &str) -> Result<AuditNewest, ClientError> {
        let request = self.http.client.get(self.http.url("/audit")).query(&[("limit", limit)]).query(&[("act", act)]);
        self.http.call(request, FILES_LIMIT).await
    }

    /// Lines of its audit log from this record on; empty: there are none.
    pub(crate) async fn audit_lines(&self, from: u64) -> Result<Vec<u8>, ClientError> {
        let request = self.http.client.get(self.http.url("/audit/lines")).query(&[("from", from)]);
        Ok(self.http.send(request, FILES_LIMIT).await?.to_vec())
    }

    /// The newest record of its audit log, as it remembers it.
    pub(crate) async fn audit_head(&self) -> Result<Head, ClientError> {
        self.http.call(self.http.client.get(self.http.url("/audit/head")), LIMIT).await
    }

    /// Makes it look at the network around it.
    pub(crate) async fn netcheck(&self, body: &NetcheckBody) -> Result<Report, ClientError> {
        self.http.call(self.http.client.post(self.http.url("/netcheck")).json(body), NETCHECK_LIMIT).await
    }

    /// What it saw there last.
    pub(crate) async fn last_netcheck(&self) -> Result<Report, ClientError> {
        self.http.call(self.http.client.get(self.http.url("/netcheck")), LIMIT).await
    }

    /// Its metrics, as they are.
    pub(crate) async fn metrics(&self) -> Result<Vec<u8>, ClientError> {
        let body = self.http.send(self.http.client.get(self.http.url("/metrics")), LIMIT).await?;
        Ok(body.to_vec())
    }
}
