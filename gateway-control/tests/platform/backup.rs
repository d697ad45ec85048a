//! Backup and restore of a control plane on SQLite; of PostgreSQL, its own programs do it, as the documentation says.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use gateway_proto::{
    api::{
        Page,
        platform::{AuditEntry, Channel, Connection, Server},
    },
    audit::verify,
};
use serde_json::json;

use super::{
    database,
    harness::{Control, Gateway, Org},
};

/// As many changes as fit on one page of a list, with what is there before.
const MOST_CHANGES: usize = 150;

fn run(act: &str, directory: &Path, backup: &Path) -> Output {
    run_with(act, directory, backup, "")
}

/// The same with more lines in the configuration.
fn run_with(act: &str, directory: &Path, backup: &Path, more: &str) -> Output {
    let config = directory.join("backup.toml");
    let storage = database::storage_section(directory);
    let data = directory.join("data");
    std::fs::write(&config, format!("listen = '127.0.0.1:0'\ndata_dir = '{}'\n{more}\n{storage}", data.display()))
        .unwrap();
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
    if database::is_postgres() {
        assert!(!output.status.success() && said.contains("pg_dump"), "{said}");
        return;
    }
    assert!(output.status.success(), "{said}");
    let mode = std::fs::metadata(&backup).unwrap().permissions().mode();
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
    let gateway = Gateway::of(gateway);
    let mut watch = gateway.watch_from(&control, forgotten).await;
    let policy = watch.policy().await;
    assert!(policy.revision > forgotten);
    assert_eq!(policy.connections.len(), 1);
    let shown = control.request("GET", &format!("/api/v1/servers/{server}")).bearer_auth(token).send().await.unwrap();
    assert_eq!(shown.json::<Server>().await.unwrap().policy_revision, policy.revision);
}

/// The whole log of an organization, oldest first.
async fn log(org: &Org<'_>) -> Vec<AuditEntry> {
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let page: Page<AuditEntry> = org.get(&format!("/audit?order=oldest&limit=200{after}")).await;
        all.extend(page.items);
        match page.next {
            Some(next) => after = format!("&cursor={next}"),
            None => return all,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_of_postgresql_made_amid_changes_is_restored_elsewhere_whole_and_never_goes_back() {
    if !database::is_postgres() {
        return;
    }
    let control = Control::start_with("[limits]\nrequests_per_second = 1000000\n").await;
    let pair = control.pair().await;
    pair.connection("Orders").await;
    let backup = control.directory.path().join("backup");
    let (home, to) = (control.directory.path().to_owned(), backup.clone());
    let dump = tokio::task::spawn_blocking(move || database::dump(&home, &to));
    let mut made = 0;
    while made == 0 || (!dump.is_finished() && made < MOST_CHANGES) {
        pair.lab.channel(&pair.lab_server, &format!("During {made}")).await;
        made += 1;
    }
    dump.await.unwrap();
    // After it: a connection that it does not know, in force at the gateway.
    pair.connection("Results").await;
    let mut watch = pair.hospital_gateway.watch(&control).await;
    let forgotten = watch.policy_until(|policy| policy.connections.len() == 2).await.revision;
    drop(watch);
    let before = log(&pair.lab).await;
    let (gateway, server, lab_server) =
        (pair.hospital_gateway.key.clone(), pair.hospital_server.id, pair.lab_server.clone());
    let ready = control.ready.clone();
    let first = control.stop().await;

    let elsewhere = tempfile::tempdir().unwrap();
    database::restore(&backup, elsewhere.path());
    database::copy_keys(first.path(), elsewhere.path());
    let control = Control::start_in(elsewhere, "").await;
    assert_eq!((&control.ready.policy_key, &control.ready.tls_pin), (&ready.policy_key, &ready.tls_pin));
    let lab = control.sign_in("owner@lab.example", "correct horse battery").await;
    let restored = log(&lab).await;
    verify(&lab.id, &restored).unwrap();
    let is_making = |entry: &&AuditEntry| entry.act == "channel.create";
    let kept = restored.iter().rposition(|entry| is_making(&entry)).unwrap() + 1;
    assert_eq!(restored[..kept], before[..kept], "the log is the one there was, up to the moment of the dump");
    // One moment for all tables: what the log says was made is there, and nothing else.
    let channels: Vec<Channel> = lab.list("/channels?limit=200").await;
    assert_eq!(channels.len(), restored.iter().filter(is_making).count());
    assert!(channels.iter().all(|channel| channel.public_name != "Results"), "made after it");
    lab.channel(&lab_server, "After").await;
    let longer = log(&lab).await;
    verify(&lab.id, &longer).unwrap();
    assert!(longer.starts_with(&restored) && longer.len() > restored.len(), "{longer:?}");

    // The gateway knows more than the storage, and gets something newer still; what changes from now on goes on from there.
    let gateway = Gateway::of(gateway);
    let mut watch = gateway.watch_from(&control, forgotten).await;
    let policy = watch.policy().await;
    assert!(policy.revision > forgotten, "{} is not above {forgotten}", policy.revision);
    assert_eq!(policy.connections.len(), 1);
    let hospital = control.sign_in("owner@hospital.example", "correct horse battery").await;
    assert_eq!(hospital.get::<Server>(&format!("/servers/{server}")).await.policy_revision, policy.revision);
    let connections: Vec<Connection> = hospital.list("/connections").await;
    let _: Connection = hospital.post(&format!("/connections/{}/terminate", connections[0].id), json!({})).await;
    let ended = watch.policy_until(|policy| policy.connections.is_empty()).await;
    assert!(ended.revision > policy.revision, "{} is not above {}", ended.revision, policy.revision);
}

#[test]
fn what_is_not_a_backup_is_not_restored() {
    if database::is_postgres() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let backup: PathBuf = directory.path().join("backup");
    std::fs::write(&backup, "certainly no database").unwrap();
    let output = run("restore", directory.path(), &backup);
    assert!(String::from_utf8_lossy(&output.stderr).contains("not a backup"), "{output:?}");
    assert!(!directory.path().join("data/control.sqlite").exists());
    let output = run("restore", directory.path(), &directory.path().join("nothing"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("cannot read the backup") && said.contains("No such file"), "{said}");
}

#[tokio::test]
async fn keys_kept_elsewhere_are_in_the_backup_and_come_back_before_the_database() {
    if database::is_postgres() {
        return;
    }
    let keys = tempfile::tempdir().unwrap();
    let key = keys.path().join("signing-key");
    std::fs::write(&key, "11".repeat(32)).unwrap();
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();
    let more = format!("policy_key_file = '{}'", key.display());
    let control = Control::start_with(&more).await;
    let policy_key = control.ready.policy_key.clone();
    let directory = control.stop().await;
    let backup = directory.path().join("backup");

    // An outdated key in the data directory is not the one that counts.
    std::fs::write(directory.path().join("data/policy-key"), "22".repeat(32)).unwrap();
    let hidden = keys.path().join("away");
    std::fs::rename(&key, &hidden).unwrap();
    let output = run_with("backup", directory.path(), &backup, &more);
    assert!(String::from_utf8_lossy(&output.stderr).contains("signing-key is not there"), "{output:?}");
    assert!(!backup.exists(), "a backup without its key");
    std::fs::rename(&hidden, &key).unwrap();
    let output = run_with("backup", directory.path(), &backup, &more);
    assert!(String::from_utf8_lossy(&output.stdout).contains("policy-key, storage-key"), "{output:?}");
    // Somebody stored it where others read.
    std::fs::set_permissions(&backup, PermissionsExt::from_mode(0o644)).unwrap();

    // Where another key is, nothing is restored, and the next try meets nothing in its way.
    let elsewhere = tempfile::tempdir().unwrap();
    let other = keys.path().join("other-key");
    std::fs::write(&other, "33".repeat(32)).unwrap();
    let output = run_with("restore", elsewhere.path(), &backup, &format!("policy_key_file = '{}'", other.display()));
    assert!(String::from_utf8_lossy(&output.stderr).contains("holds something else"), "{output:?}");
    let names = || std::fs::read_dir(elsewhere.path().join("data")).unwrap().map(|entry| entry.unwrap().file_name());
    let is_lock = |name: &std::ffi::OsStr| name == "lock" || name == "control.sqlite.lock";
    assert!(names().all(|name| is_lock(&name)), "{:?}", names().collect::<Vec<_>>());
    let again = keys.path().join("again");
    let more = format!("policy_key_file = '{}'", again.display());
    let output = run_with("restore", elsewhere.path(), &backup, &more);
    assert!(output.status.success(), "{output:?}");
    for path in [&again, &elsewhere.path().join("data/control.sqlite"), &elsewhere.path().join("data/storage-key")] {
        assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
    }
    let control = Control::start_in(elsewhere, &more).await;
    assert_eq!(control.ready.policy_key, policy_key);
}
