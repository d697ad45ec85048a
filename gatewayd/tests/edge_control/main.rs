//! Enrolment and the link to the control plane, over real sockets, against a stand-in that may misbehave.

#![expect(clippy::unwrap_used, reason = "tests")]

mod enrolment;
mod links;
mod proxied;
mod proxy;
mod reports;
mod stand_in;

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use gateway_net::proxy::Proxy;
use gateway_proto::{
    api::{gateway::ConnectionReport, local::ControlStatus},
    id::RelayId,
};
use gatewayd::{
    audit::AuditLog,
    authority::Authority,
    control_client::{ControlClient, LinkTimes, ReportSource, enroll},
    store::{StateDir, StoreError},
};
use stand_in::StandIn;
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

fn open(directory: &Path) -> Authority {
    let state = StateDir::open(directory).unwrap();
    Authority::open(Arc::new(state), gateway_net::time::unix_secs()).unwrap()
}

/// Opens what a gateway that was stopped held; a write that was under way lets go of it a moment later.
async fn open_again(directory: &Path) -> Authority {
    let freed = async {
        while matches!(StateDir::open(directory), Err(StoreError::Locked { .. })) {
            tokio::task::yield_now().await;
        }
    };
    within(freed).await;
    open(directory)
}

/// An enrolled gateway with its link running.
struct Gateway {
    authority: Authority,
    status: watch::Receiver<ControlStatus>,
    reports: Arc<Mutex<Vec<ConnectionReport>>>,
    changed: Arc<Notify>,
    home_relay: watch::Sender<Option<RelayId>>,
    tasks: JoinSet<()>,
    shutdown: CancellationToken,
}

impl Gateway {
    fn start(authority: Authority) -> Self {
        Self::start_through(authority, None)
    }

    fn start_through(authority: Authority, proxy: Option<Proxy>) -> Self {
        Self::start_with(authority, proxy, None)
    }

    fn start_with(authority: Authority, proxy: Option<Proxy>, audit: Option<AuditLog>) -> Self {
        let reports = Arc::new(Mutex::new(Vec::new()));
        let changed = Arc::new(Notify::new());
        let (home_relay, home_receiver) = watch::channel(None);
        let shared = reports.clone();
        let source = ReportSource {
            connections: Arc::new(move || shared.lock().unwrap().clone()),
            engine: Arc::new(|| None),
            audit,
            changed: changed.clone(),
            home_relay: home_receiver,
        };
        let times = LinkTimes {
            heartbeat: Duration::from_millis(50),
            silence: Duration::from_secs(3),
            report: Duration::from_secs(3600),
            missing_policy: Duration::from_millis(300),
            second: Duration::from_secs(1),
        };
        let client = ControlClient::new(authority.clone(), source, times, proxy);
        let (status, shutdown) = (client.status(), CancellationToken::new());
        let mut tasks = JoinSet::new();
        tasks.spawn(client.run(shutdown.clone()));
        Self { authority, status, reports, changed, home_relay, tasks, shutdown }
    }

    async fn status(&mut self, wanted: impl FnMut(&ControlStatus) -> bool) {
        within(self.status.wait_for(wanted)).await.unwrap();
    }

    async fn stop(mut self) {
        self.shutdown.cancel();
        within(self.tasks.join_next()).await.unwrap().unwrap();
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future).await.expect("not within 10 s")
}

async fn linked() -> (tempfile::TempDir, StandIn, Gateway) {
    let directory = tempfile::tempdir().unwrap();
    let mut control = StandIn::start();
    let authority = open(directory.path());
    enroll(&control.code.to_string(), &authority, None).await.unwrap();
    let gateway = Gateway::start(authority);
    assert_eq!(control.heard_hello().await, 1);
    (directory, control, gateway)
}
