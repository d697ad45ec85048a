//! PostgreSQL restarted under load, in order and as in a crash: a server of this test's own, two replicas, people who act
//! with keys, gateways that watch. On SQLite it has nothing to say.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use gateway_proto::api::platform::{AuditEntry, Channel};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::{
    database,
    harness::{Control, Org},
    replicated::{line_is_mended, measure, replicas, watched},
};

/// People who act at the same time, half of them at each replica.
const WORKERS: usize = 6;
/// Acts between two restarts, over all of them.
const ACTS: usize = 60;
/// Until everything answers again once the server does.
const RECOVERY: Duration = Duration::from_secs(30);

/// A PostgreSQL server from Debian's packages; it ends with the test.
struct Server {
    directory: tempfile::TempDir,
    programs: PathBuf,
    as_root: bool,
}

impl Server {
    fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("gateway-restarts-").tempdir_in("/tmp").unwrap();
        let programs = database::programs();
        let as_root = std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
        let server = Self { directory, programs, as_root };
        if as_root {
            // The server refuses to run as root; the packages made a user for it.
            let owner = Command::new("chown").arg("postgres:postgres").arg(server.directory.path()).status().unwrap();
            assert!(owner.success());
        }
        server.run("initdb", &["--username=gateway", "--auth=trust", "--encoding=UTF8", "--no-sync"]);
        server.start_again();
        server
    }

    /// Ends every connection and starts anew; `immediate` as in a crash, `fast` in order.
    fn restart(&self, mode: &str) {
        self.run("pg_ctl", &["restart", "--wait", "--mode", mode, &self.log()]);
    }

    fn stop(&self) {
        self.run("pg_ctl", &["stop", "--wait", "--mode", "fast"]);
    }

    /// Starts it again, with the switches of the first time.
    fn start_again(&self) {
        self.run("pg_ctl", &["start", "--wait", &self.log(), &self.switches()]);
    }

    fn log(&self) -> String {
        format!("--log={}", self.directory.path().join("log").display())
    }

    fn switches(&self) -> String {
        let sockets = self.directory.path().display();
        format!("--options=-c listen_addresses='' -c unix_socket_directories='{sockets}' -c fsync=off")
    }

    fn run(&self, program: &str, args: &[&str]) {
        let program = self.programs.join(program);
        let mut command = if self.as_root {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        let data = self.directory.path().join("data");
        command.arg("--pgdata").arg(data).args(args).stdin(Stdio::null()).stdout(Stdio::null());
        assert!(command.status().unwrap().success(), "{args:?}");
    }

    fn url(&self, database: &str) -> String {
        format!("postgres:///{database}?host={}&user=gateway", self.directory.path().display())
    }

    /// A directory whose control plane uses this server.
    fn home(&self) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("database-url"), self.url("postgres")).unwrap();
        directory
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if Path::new(&self.directory.path().join("data/postmaster.pid")).exists() {
            self.run("pg_ctl", &["stop", "--mode", "immediate"]);
        }
    }
}

/// What the load has done.
#[derive(Default)]
struct Load {
    done: AtomicUsize,
    told_to_wait: AtomicUsize,
    /// Of the slowest answer, milliseconds.
    slowest_ms: AtomicUsize,
    more: Notify,
    over: AtomicBool,
}

impl Load {
    /// Waits until so many acts more were done.
    async fn go_on(&self, acts: usize) {
        let goal = self.done.load(Ordering::Relaxed) + acts;
        let wait = async {
            while self.done.load(Ordering::Relaxed) < goal {
                let more = self.more.notified();
                if self.done.load(Ordering::Relaxed) < goal {
                    more.await;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), wait).await.expect("the load stands still");
    }

    /// Waits until so many requests more were told to wait.
    async fn is_told_to_wait(&self, times: usize) {
        let goal = self.told_to_wait.load(Ordering::Relaxed) + times;
        let wait = async {
            while self.told_to_wait.load(Ordering::Relaxed) < goal {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), wait).await.expect("nobody is told that the database is away");
    }

    /// One act with a key: sent again with it until it is known to be done. Answers but success, "not now" and "was done
    /// already" are mistakes. The answer; none: it was lost, the act was done.
    async fn act(&self, org: &Org<'_>, path: &str, key: &str, body: &Value) -> Option<Value> {
        let begun = Instant::now();
        loop {
            let request = org.control.request("POST", &format!("/api/v1{path}")).bearer_auth(&org.token);
            let asked = Instant::now();
            let answer = request.header("idempotency-key", key).json(body).send().await.unwrap();
            let took = usize::try_from(asked.elapsed().as_millis()).unwrap();
            self.slowest_ms.fetch_max(took, Ordering::Relaxed);
            let status = answer.status().as_u16();
            let (retry, kind) =
                (answer.headers().get("retry-after").cloned(), answer.headers()["content-type"].clone());
            let text: Value = answer.json().await.unwrap();
            match status {
                200 | 201 => {
                    self.done.fetch_add(1, Ordering::Relaxed);
                    self.more.notify_waiters();
                    return Some(text);
                }
                409 if text["code"] == "idempotency_key" => {
                    self.done.fetch_add(1, Ordering::Relaxed);
                    self.more.notify_waiters();
                    return None;
                }
                503 => {
                    assert!(retry.is_some(), "no Retry-After: {text}");
                    assert_eq!(
                        (kind.to_str().unwrap(), &text["code"]),
                        ("application/problem+json", &json!("unavailable"))
                    );
                    self.told_to_wait.fetch_add(1, Ordering::Relaxed);
                    assert!(begun.elapsed() < Duration::from_secs(60), "{path} is never done: {text}");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                _ => panic!("{path}: {status} {text}"),
            }
        }
    }

    /// Lists are read all the time: whole, or "not now".
    async fn look(&self, org: &Org<'_>) {
        while !self.over.load(Ordering::Relaxed) {
            let answer = org.send("GET", "/channels?limit=5", None).await;
            let status = answer.status().as_u16();
            let retry = answer.headers().contains_key("retry-after");
            assert!(status == 200 || (status == 503 && retry), "{status} {:?}", answer.text().await);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_postgresql_loses_and_doubles_nothing_and_all_goes_on_by_itself() {
    if !database::is_postgres() {
        return;
    }
    let server = Server::start();
    let (one, other) = replicas(server.home()).await;
    let pair = one.pair().await;
    let at_other = pair.lab.at(&other);
    let (watched, mut sender, mut listener) = watched(&pair, &other).await;

    let load = Load::default();
    let names = tokio::sync::Mutex::new(BTreeMap::new());
    let workers = join_all((0..WORKERS).map(|worker| {
        let org = if worker % 2 == 0 { pair.lab.again() } else { pair.lab.at(&other) };
        let (load, names, server) = (&load, &names, &pair.lab_server);
        async move {
            let mut n = 0;
            while !load.over.load(Ordering::Relaxed) {
                n += 1;
                let name = format!("channel {worker}-{n}");
                let body =
                    json!({"server_id": server.id, "name": name, "engine": "127.0.0.1:6661", "public_name": name});
                let made = load.act(&org, "/channels", &name, &body).await;
                names.lock().await.insert(name, made.map(|channel| channel["id"].as_str().unwrap().to_owned()));
            }
        }
    }));
    let readers = join_all([load.look(&pair.lab), load.look(&at_other)]);
    let restarts = async {
        for (n, mode) in ["fast", "immediate", "away", "fast", "immediate"].into_iter().enumerate() {
            load.go_on(ACTS).await;
            if mode == "away" {
                // Long enough for everybody to be told.
                tokio::task::block_in_place(|| server.stop());
                load.is_told_to_wait(2 * WORKERS).await;
                tokio::task::block_in_place(|| server.start_again());
            } else {
                tokio::task::block_in_place(|| server.restart(mode));
            }
            let back = Instant::now();
            for control in [&one, &other] {
                ready(control).await;
            }
            load.go_on(ACTS).await;
            assert!(back.elapsed() < RECOVERY, "{mode}: everything was back after {:?}", back.elapsed());
            line_is_mended(&pair.lab, &at_other, &watched, (&mut listener, &mut sender)).await;
            measure(&format!("PostgreSQL restarted ({n}, {mode}): all back after {} ms", back.elapsed().as_millis()));
        }
        load.over.store(true, Ordering::Relaxed);
    };
    tokio::join!(workers, readers, restarts);

    let names = names.into_inner();
    let told = load.told_to_wait.load(Ordering::Relaxed);
    let slowest = load.slowest_ms.load(Ordering::Relaxed);
    let acts = names.len();
    measure(&format!("PostgreSQL restarted: {acts} acts, {told} times told to wait, slowest answer {slowest} ms"));
    assert!(told > 0, "the restarts were not noticed");
    assert!(slowest < 15_000, "somebody waited for {slowest} ms");
    let found = all_channels(&pair.lab).await;
    let found_names: BTreeSet<_> = found.iter().map(|channel| channel.name.as_str()).collect();
    assert_eq!(found_names.len(), found.len(), "a channel is there twice");
    for (name, id) in &names {
        let channel = found.iter().find(|channel| &channel.name == name).unwrap_or_else(|| panic!("{name} is lost"));
        assert!(id.as_ref().is_none_or(|id| *id == channel.id.to_string()), "{name} is another one");
    }
    assert_eq!(found.len(), names.len() + 1, "that of the watched connection, and each that was asked for");
    assert_eq!(entries_of_channels(&pair.lab).await, found.len(), "each is in the audit log once");
}

async fn ready(control: &Control) {
    let wait = async {
        while control.request("GET", "/readyz").send().await.unwrap().status() != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(RECOVERY, wait).await.expect("a replica never became ready");
}

async fn all_channels(org: &Org<'_>) -> Vec<Channel> {
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let page: Value = org.get(&format!("/channels?limit=200{after}")).await;
        all.extend(serde_json::from_value::<Vec<Channel>>(page["items"].clone()).unwrap());
        match page["next"].as_str() {
            Some(next) => after = format!("&cursor={next}"),
            None => return all,
        }
    }
}

async fn entries_of_channels(org: &Org<'_>) -> usize {
    let (mut count, mut after) = (0, String::new());
    loop {
        let page: Value = org.get(&format!("/audit?act=channel.create&limit=200{after}")).await;
        count += serde_json::from_value::<Vec<AuditEntry>>(page["items"].clone()).unwrap().len();
        match page["next"].as_str() {
            Some(next) => after = format!("&cursor={next}"),
            None => return count,
        }
    }
}
