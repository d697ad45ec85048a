//! Backup and restore of a control plane on SQLite; of PostgreSQL, its own programs do it.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use gateway_proto::api::platform::Server;

use super::harness::Control;

fn run(act: &str, directory: &Path, backup: &Path) -> Output {
    let config = directory.join("backup.toml");
    let storage = super::database::storage_section(directory);
    let data = directory.join("data");
    std::fs::write(&config, format!("listen = '127.0.0.1:0'\ndata_dir = '{}'\n{storage}", data.display())).unwrap();
    let program = env!("CARGO_BIN_EXE_gateway-control");
    Command::new(program).arg(act).arg("--config").arg(&config).arg(backup).output().unwrap()
}

#[tokio::test]
async fn a_restored_control_plane_goes_on_and_never_goes_back() {
    let control = Control::start().await;
    let pair = control.pair().await;
    pair.connection("Orders").await;
    let backup = control.directory.path().join("backup");
    // While it runs.
    let output = run("backup", control.directory.path(), &backup);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if super::database::is_postgres() {
        assert!(!output.status.success() && said.contains("pg_dump"), "{said}");
        return;
    }
    assert!(output.status.success(), "{said}");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&backup).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    assert!(!run("backup", control.directory.path(), &backup).status.success(), "a backup was overwritten");
    assert!(!run("restore", control.directory.path(), &backup).status.success(), "restored under a running process");

    // After the backup: a connection that the backup does not know, in force at the gateway.
    pair.connection("Results").await;
    let mut watch = pair.hospital_gateway.watch(&control).await;
    let forgotten = watch.policy_until(|policy| policy.connections.len() == 2).await.revision;
    let (gateway, token, server) =
        (pair.hospital_gateway.key.clone(), pair.hospital.token.clone(), pair.hospital_server.id);
    let ready = control.ready.clone();
    drop(watch);
    // The backup is in it.
    let _before = control.stop().await;

    let elsewhere = tempfile::tempdir().unwrap();
    let output = run("restore", elsewhere.path(), &backup);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!run("restore", elsewhere.path(), &backup).status.success(), "a database was overwritten");
    let control = Control::start_in(elsewhere, "").await;
    assert_eq!((&control.ready.policy_key, &control.ready.tls_pin), (&ready.policy_key, &ready.tls_pin));
    let database = std::fs::read(control.directory.path().join("data/control.sqlite")).unwrap();
    let key = std::fs::read_to_string(control.directory.path().join("data/policy-key")).unwrap();
    assert!(!database.windows(64).any(|window| window == key.trim().as_bytes()), "the key stayed in the database");

    // The gateway knows more than the storage, and gets something newer still, with what the storage knows.
    let gateway = super::harness::Gateway::of(gateway);
    let mut watch = gateway.watch_from(&control, forgotten).await;
    let policy = watch.policy().await;
    assert!(policy.revision > forgotten);
    assert_eq!(policy.connections.len(), 1);
    let shown = control.request("GET", &format!("/api/v1/servers/{server}")).bearer_auth(token).send().await.unwrap();
    assert_eq!(shown.json::<Server>().await.unwrap().policy_revision, policy.revision);
}

#[test]
fn what_is_not_a_backup_is_not_restored() {
    if super::database::is_postgres() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let backup: PathBuf = directory.path().join("backup");
    std::fs::write(&backup, "certainly no database").unwrap();
    let output = run("restore", directory.path(), &backup);
    assert!(String::from_utf8_lossy(&output.stderr).contains("not a backup"), "{output:?}");
    assert!(!directory.path().join("data/control.sqlite").exists());
}
