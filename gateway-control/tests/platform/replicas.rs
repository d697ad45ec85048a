//! Several processes on one PostgreSQL database. On SQLite these tests have nothing to say.

use std::time::Duration;

use gateway_control::{
    app::StartError,
    storage::{Storage, StorageError},
};
use gateway_proto::{
    api::{gateway::ConnectionReport, platform::Server},
    peering::ConnectionStatus,
    policy::Activation,
};
use serde_json::{Value, json};

use super::{
    database,
    harness::Control,
    process::Process,
    reports::{connected, told},
};

#[tokio::test]
async fn what_is_decided_at_one_replica_reaches_the_gateways_at_another() {
    let one = Control::start().await;
    let Some(other) = one.replica().await else { return };
    let pair = one.pair().await;
    let mut sender = pair.hospital_gateway.watch(&other).await;
    let mut listener = pair.lab_gateway.watch(&one).await;
    sender.policy().await;
    listener.policy().await;
    let id = pair.connection("Orders").await;
    // Both confirm it before it carries data.
    sender.policy().await;
    listener.policy().await;
    let active = |policy: &gateway_proto::policy::Policy| {
        policy.connections.iter().any(|entry| entry.activation == Activation::Active)
    };
    sender.policy_until(active).await;
    listener.policy_until(active).await;

    // Who watches where, and what was reported there, is seen everywhere.
    let path = format!("/servers/{}", pair.hospital_server.id);
    assert!(pair.hospital.get::<Server>(&path).await.online);
    let report = ConnectionReport { rtt_ms: Some(1.5), bytes_sent: 7, ..connected(&id) };
    sender.send(&told(vec![report.clone()])).await;
    let shown = pair.lab.until(&id, "reported", |connection| connection.sender.report.is_some()).await;
    assert_eq!(shown.sender.report, Some(report));

    let at_other = pair.lab.at(&other);
    let _: Value = at_other.post(&format!("/connections/{id}/terminate"), json!({})).await;
    sender.policy_until(|policy| policy.connections.is_empty()).await;
    listener.policy_until(|policy| policy.connections.is_empty()).await;
    assert_eq!(pair.hospital.connection(&id).await.status, ConnectionStatus::Terminated);

    // A replica that leaves takes those who watched there along.
    other.stop().await;
    let gone = async {
        while pair.hospital.get::<Server>(&path).await.online {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.expect("still shown as watching");
}

/// Of two watches at one replica, the older one says hello last.
#[tokio::test]
async fn a_late_hello_of_an_older_watch_takes_nothing_of_the_newer_one() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let (server, id) = (pair.hospital_server.id, pair.connection("Orders").await);
    let storage = database::open(control.directory.path()).await;
    let mut tx = storage.begin().await.unwrap();
    for replica in ["one", "other"] {
        tx.put_replica(replica, 1_000).await.unwrap();
    }
    assert!(tx.put_watch(server, "one", 6).await.unwrap());
    tx.put_report(server, &connected(&id), 1_000).await.unwrap();
    for session in [5, 6] {
        assert!(!tx.put_watch(server, "one", session).await.unwrap(), "{session}");
    }
    tx.delete_watch(server, "one", 5).await.unwrap();
    let reported = tx.report(server, id.parse().unwrap(), 1_000).await.unwrap();
    assert_eq!(reported.map(|(_, at)| at), Some(1_000), "it is there, and so is what it reported");
    // Elsewhere, numbers are others.
    assert!(tx.put_watch(server, "other", 1).await.unwrap());
    assert!(tx.report(server, id.parse().unwrap(), 1_000).await.unwrap().is_none(), "reports begin anew");
}

#[tokio::test]
async fn a_gateway_watches_at_one_replica_only_and_an_assertion_opens_one_watch() {
    let one = Control::start().await;
    let Some(other) = one.replica().await else { return };
    let pair = one.pair().await;
    let token = pair.hospital_gateway.assertion(&one).sign(&pair.hospital_gateway.key).unwrap();
    let mut first = pair.hospital_gateway.watch_with(&one, &token).await;
    let revision = first.policy().await.revision;
    let mut replayed = pair.hospital_gateway.watch_with(&other, &token).await;
    assert_eq!(replayed.event().await, None, "the assertion was used at the other replica");
    first.stays_at(revision).await;

    let mut second = pair.hospital_gateway.watch_from(&other, revision).await;
    second.stays_at(revision).await;
    while first.event().await.is_some() {}
    assert!(pair.hospital.get::<Server>(&format!("/servers/{}", pair.hospital_server.id)).await.online);
}

#[tokio::test]
async fn while_the_database_is_away_requests_are_told_so_and_afterwards_all_goes_on() {
    let control = Control::start().await;
    let Some(other) = control.replica().await else { return };
    other.stop().await;
    let pair = control.pair().await;
    let mut watch = pair.hospital_gateway.watch(&control).await;
    watch.policy().await;
    let ready = || async { control.request("GET", "/readyz").send().await.unwrap().status().as_u16() };
    database::cut_off(control.directory.path(), async {
        let answer = pair.hospital.send("GET", "/servers", None).await;
        assert_eq!(answer.status(), 503);
        assert!(answer.headers().contains_key("retry-after"));
        assert_eq!(answer.json::<Value>().await.unwrap()["code"], "unavailable");
        let server = json!({"name": "other"});
        assert_eq!(pair.hospital.send("POST", "/servers", Some(server)).await.status(), 503);
        assert_eq!(ready().await, 503);
    })
    .await;
    let back = async {
        while ready().await != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), back).await.expect("it never recovered");
    pair.connection("Orders").await;
    // The same watch goes on: a short absence of the database is no reason for ten thousand gateways to come anew.
    watch.policy_until(|policy| !policy.connections.is_empty()).await;
}

#[tokio::test]
async fn a_replica_with_another_policy_key_is_refused() {
    let one = Control::start().await;
    let directory = tempfile::tempdir().unwrap();
    if !database::share(one.directory.path(), directory.path()) {
        return;
    }
    std::fs::write(directory.path().join("data/policy-key"), "07".repeat(32)).unwrap();
    let error = Control::try_start(directory, "").await.unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("policy-key"), "{error}: {cause}");
}

/// What a newer version leaves in the database.
const NEWER: &[&str] = &["INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
     VALUES (1000000, 'of a newer version', TRUE, '', 0)"];

#[tokio::test]
async fn when_a_newer_version_has_changed_the_schema_older_replicas_write_nothing_more_and_stop() {
    let one = Control::start().await;
    let Some(other) = one.replica().await else { return };
    let storage = database::open(one.directory.path()).await;
    drop(storage.begin().await.unwrap());
    database::execute(one.directory.path(), NEWER);
    assert!(matches!(storage.begin().await, Err(StorageError::Outdated)), "from then on");
    assert!(storage.read().await.is_ok());
    for control in [one, other] {
        let why = control.stopped().await;
        assert!(matches!(why, StartError::Outdated(_)), "{why}");
        assert!(why.to_string().contains("newer version"), "{why}");
    }
}

/// Whoever got no answer looks whether it happened, and tries again elsewhere: what was acknowledged is there, and
/// nothing is there twice.
#[tokio::test]
async fn a_replica_killed_amid_a_thousand_grants_loses_and_doubles_nothing() {
    const GRANTS: usize = 1_000;
    const LABS: usize = 4;
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let one = Process::start(directories[0].path());
    if !database::share(directories[0].path(), directories[1].path()) {
        return;
    }
    let other = Process::start(directories[1].path());
    let hospital = Caller::register(&other, "Hospital").await;
    // Several, because of what one pair may disturb each other with.
    let mut labs = Vec::new();
    for n in 0..LABS {
        let lab = Caller::register(&other, &format!("Lab{n}")).await;
        let asked = lab.post(&other, "/peering-requests", json!({"organization_id": hospital.id})).await.unwrap();
        let accept = format!("/peering-requests/{}/accept", asked["id"].as_str().unwrap());
        let accepted = hospital.post(&other, &accept, json!({})).await.unwrap();
        let agreement = accepted["agreement_id"].as_str().unwrap().to_owned();
        let server = lab.post(&other, "/servers", json!({"name": "lis"})).await.unwrap();
        labs.push((lab, server, agreement));
    }

    let mut one = Some(one);
    let mut acknowledged = Vec::new();
    for n in 0..GRANTS {
        let (lab, server, agreement) = &labs[n % LABS];
        if n == GRANTS / 2 {
            // Killed with a request on its way.
            let doomed = one.take().unwrap();
            let request = lab.offer(&doomed, server, agreement, n);
            let (_, answer) = tokio::join!(
                async {
                    tokio::time::sleep(Duration::from_millis(3)).await;
                    doomed.kill();
                },
                request
            );
            acknowledged.extend(answer);
        }
        let at = one.as_ref().filter(|_| (n / LABS).is_multiple_of(2)).unwrap_or(&other);
        if !acknowledged.iter().any(|(channel, _)| *channel == n) {
            acknowledged.push(lab.offer(at, server, agreement, n).await.unwrap());
        }
    }
    let mut found = hospital.all(&other, "/grants").await;
    let mut expected: Vec<_> = acknowledged.iter().map(|(_, grant)| grant.clone()).collect();
    found.sort();
    expected.sort();
    assert_eq!(found.len(), GRANTS);
    assert_eq!(found, expected, "what was acknowledged, each once");
}

/// A user of an organization, asking any replica.
struct Caller {
    token: String,
    id: String,
}

impl Caller {
    async fn register(at: &Process, name: &str) -> Self {
        let operator = std::fs::read_to_string(at.ready["operator_token_file"].as_str().unwrap()).unwrap();
        let body = json!({"name": name, "owner_email": format!("o@{name}.example"), "owner_name": "O", "discoverable":
            true, "owner_password": "correct horse battery", "registration_token": operator.trim()});
        let answer = at.client().post(at.url("/api/v1/organizations")).json(&body).send().await.unwrap();
        let session: Value = answer.json().await.unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        Self { token: text(&session["token"]), id: text(&session["organization"]["id"]) }
    }

    /// None: no answer came.
    async fn post(&self, at: &Process, path: &str, body: Value) -> Option<Value> {
        let url = at.url(&format!("/api/v1{path}"));
        let answer = at.client().post(url).bearer_auth(&self.token).json(&body).send().await.ok()?;
        let status = answer.status();
        let body: Value = answer.json().await.ok()?;
        assert!(status.is_success(), "{path}: {status} {body}");
        Some(body)
    }

    async fn get(&self, at: &Process, path: &str) -> Value {
        let url = at.url(&format!("/api/v1{path}"));
        at.client().get(url).bearer_auth(&self.token).send().await.unwrap().json().await.unwrap()
    }

    /// The ids of everything in a list.
    async fn all(&self, at: &Process, path: &str) -> Vec<String> {
        let (mut ids, mut after) = (Vec::new(), String::new());
        loop {
            let page = self.get(at, &format!("{path}?limit=200{after}")).await;
            ids.extend(page["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()));
            match page["next"].as_str() {
                Some(next) => after = format!("&cursor={next}"),
                None => return ids,
            }
        }
    }

    /// A grant of a channel of its own; what exists already is not made again.
    async fn offer(&self, at: &Process, server: &Value, agreement: &str, n: usize) -> Option<(usize, String)> {
        let name = format!("channel {n}");
        let channel = json!({"server_id": server["id"], "name": name, "engine": "127.0.0.1:6661", "public_name": name});
        let channel = self.post_once(at, "/channels", channel).await?;
        let offer = json!({"agreement_id": agreement, "channel_id": channel});
        Some((n, self.post_once(at, "/grants", offer).await?))
    }

    /// A conflict says that it exists, and names it or is found in the list.
    async fn post_once(&self, at: &Process, path: &str, body: Value) -> Option<String> {
        let url = at.url(&format!("/api/v1{path}"));
        let answer = at.client().post(url).bearer_auth(&self.token).json(&body).send().await.ok()?;
        let status = answer.status().as_u16();
        let answer: Value = answer.json().await.ok()?;
        match status {
            201 => Some(answer["id"].as_str().unwrap().to_owned()),
            409 if path == "/grants" => answer["detail"].as_str().unwrap().rsplit(' ').next().map(str::to_owned),
            409 => self.named(at, body["name"].as_str().unwrap()).await,
            _ => panic!("{path}: {status} {answer}"),
        }
    }

    async fn named(&self, at: &Process, name: &str) -> Option<String> {
        let mut after = String::new();
        loop {
            let page = self.get(at, &format!("/channels?limit=200{after}")).await;
            let items = page["items"].as_array().unwrap();
            if let Some(item) = items.iter().find(|item| item["name"] == name) {
                return item["id"].as_str().map(str::to_owned);
            }
            after = format!("&cursor={}", page["next"].as_str()?);
        }
    }
}
