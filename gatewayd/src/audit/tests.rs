mod notes;
mod on_disk;

use std::{
    fs,
    path::{Path, PathBuf},
};

use gateway_proto::{
    admin::{call::AdminCall, opening::KnownBy},
    audit::{
        line::{LineError, LineVerifier, Verified},
        record::Record,
    },
    id::ConnectionId,
};

use super::{AuditLog, AuditWriter, Names, files::parts};

fn call() -> AdminCall {
    AdminCall {
        connection: ConnectionId::new(1, [1; 10]),
        trace: "00000000000000ab".into(),
        organization: "North\n\u{1b}[2J".into(),
        server: "north".into(),
        user: "maria".into(),
        known_by: KnownBy::LocalAccount,
        person: None,
        account: None,
        method: "GET".into(),
        path: "/channels".into(),
        class: None,
        status: 200,
        cut: false,
        refused: None,
        duration_ms: 1,
    }
}

fn connection() -> ConnectionId {
    ConnectionId::new(1, [1; 10])
}

fn text(dir: &Path) -> String {
    parts(dir).unwrap().iter().map(|part| fs::read_to_string(&part.path).unwrap()).collect()
}

fn verify(dir: &Path) -> Result<Verified, LineError> {
    let mut verifier = LineVerifier::default();
    text(dir).lines().try_for_each(|line| verifier.push(line).map(drop))?;
    verifier.finish()
}

fn records(dir: &Path) -> Vec<Record> {
    text(dir).lines().map(|line| gateway_proto::audit::line::read(line).unwrap().0).collect()
}

fn acts(dir: &Path) -> Vec<&'static str> {
    records(dir).iter().map(|record| record.event.act()).collect()
}

/// Lets go of the log, and lets the writer come to its end.
async fn ended(log: AuditLog, writer: AuditWriter) -> PathBuf {
    let dir = log.0.shared.dir.clone();
    drop(log);
    writer.run(Names::default()).await;
    dir
}
