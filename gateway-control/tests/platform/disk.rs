//! A database that can be read and not be changed: its disk is full. For one process; of PostgreSQL, other processes may know more.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures_util::StreamExt;
use gateway_control::storage::{NewsLine, SqlStorage, Storage, StorageError, StorageResult, Transaction};
use gateway_net::ws::{Message, StatusCode, WsError};
use gateway_proto::{
    api::{
        gateway::{WatchEvent, WatchRequest},
        platform::Server,
    },
    policy::PolicyStore,
};
use serde_json::{Value, json};

use super::harness::{Control, Watch, open_watch};

/// A storage whose disk is full when it is told so.
#[derive(Debug)]
struct Disk {
    storage: SqlStorage,
    is_full: Arc<AtomicBool>,
}

#[async_trait]
impl Storage for Disk {
    async fn read(&self) -> StorageResult<Box<dyn Transaction>> {
        self.storage.read().await
    }

    async fn read_for_gateways(&self) -> StorageResult<Box<dyn Transaction>> {
        self.storage.read_for_gateways().await
    }

    async fn begin(&self) -> StorageResult<Box<dyn Transaction>> {
        if self.is_full.load(SeqCst) {
            let cause = sqlx::Error::Protocol("database or disk is full".to_owned());
            return Err(StorageError::Full(Arc::new(cause)));
        }
        self.storage.begin().await
    }

    async fn ping(&self) -> StorageResult<()> {
        self.storage.ping().await
    }

    fn news_line(&self) -> Option<Box<dyn NewsLine>> {
        self.storage.news_line()
    }

    async fn lead(&self) -> StorageResult<bool> {
        self.storage.lead().await
    }

    async fn close(&self) {
        self.storage.close().await;
    }
}

/// With which words a watch is closed.
async fn goodbye(mut watch: Watch) -> String {
    let end = async {
        loop {
            match watch.stream.next().await.unwrap().unwrap() {
                Message::Close(frame) => return frame.unwrap().reason.to_string(),
                Message::Text(text) => panic!("{text}"),
                Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), end).await.unwrap()
}

/// The revision that is confirmed as the newest.
async fn confirmed(watch: &mut Watch) -> u64 {
    loop {
        if let WatchEvent::Heartbeat { revision, .. } = watch.event().await.expect("the watch was closed") {
            watch.send(&WatchRequest::Heartbeat).await;
            return revision;
        }
    }
}

#[tokio::test]
async fn a_gateway_that_comes_while_the_disk_is_full_has_its_policy_confirmed_and_is_written_down_later() {
    if super::database::is_postgres() {
        return;
    }
    let is_full = Arc::new(AtomicBool::new(false));
    let shared = is_full.clone();
    let control = Control::start_on(|storage| Arc::new(Disk { storage, is_full: shared })).await;
    let pair = control.pair().await;
    let gateway = &pair.hospital_gateway;
    let revision = gateway.watch(&control).await.policy().await.revision;
    is_full.store(true, SeqCst);
    // An assertion of before the start could be used again: nobody is let in before all of them are over.
    let early = goodbye(gateway.watch_from(&control, revision).await).await;
    assert_eq!(early, "the disk of its database is full");

    control.clock.advance(Duration::from_secs(120));
    let assertion = gateway.assertion(&control).sign(&gateway.key).unwrap();
    let store = PolicyStore::new(gateway.key.public(), control.ready.policy_key.parse().unwrap());
    let mut watch = Watch {
        stream: open_watch(&control, &assertion).await.unwrap(),
        store,
        base: None,
        deltas: 0,
        tokens: Vec::new(),
    };
    watch.send(&WatchRequest::Hello { revision, version: "2.0.0".to_owned(), instance: None, deltas: false }).await;
    assert_eq!(confirmed(&mut watch).await, revision);
    let again = open_watch(&control, &assertion).await;
    assert!(matches!(again, Err(WsError::Status { status: StatusCode::UNAUTHORIZED, .. })), "the assertion was used");
    let refused = pair.hospital.send("POST", "/servers", Some(json!({"name": "other"}))).await;
    assert_eq!(refused.status(), 503);
    assert!(refused.json::<Value>().await.unwrap()["detail"].as_str().unwrap().contains("disk"));

    // With room, what it said first is written, and what it says of its policy after that.
    is_full.store(false, SeqCst);
    let path = format!("/servers/{}", pair.hospital_server.id);
    let written = async {
        loop {
            confirmed(&mut watch).await;
            let server: Server = pair.hospital.get(&path).await;
            if server.gateway_version.as_deref() == Some("2.0.0") {
                return server;
            }
        }
    };
    let server = tokio::time::timeout(Duration::from_secs(20), written).await.expect("it was never written down");
    assert_eq!(server.applied_revision, revision);
    pair.connection("Orders").await;
    watch.policy_until(|policy| !policy.connections.is_empty()).await;
}
