//! The machine of PostgreSQL vanishes without a word, with changes on their way to it, and another one takes its place: connections
//! stay open and silent. On SQLite this has nothing to say.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpStream, UnixStream},
    sync::watch,
    task::JoinSet,
};
use url::Url;

use super::{
    database,
    harness::Org,
    replicated::{line_is_mended, measure, replicas, watched, watches},
};

/// Until changes are made again once the server is back: however long TCP would wait.
const RECOVERY: Duration = Duration::from_secs(15);
const PATIENCE: Duration = Duration::from_secs(60);
/// For an orderly stop while nothing answers (docs/control-plane.md), and some more for a busy machine.
const STOPPED: Duration = Duration::from_secs(60);

/// What lies between a control plane and the server.
struct Wire {
    is_cut: watch::Sender<bool>,
    _tasks: JoinSet<()>,
}

impl Wire {
    /// Puts itself before the database of a directory.
    async fn before(directory: &Path) -> Self {
        let note = directory.join("database-url");
        let url: Url = std::fs::read_to_string(&note).unwrap().parse().unwrap();
        let value = |name: &str| url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
        let port = value("port").unwrap_or_else(|| "5432".to_owned());
        let socket = Path::new(&value("host").unwrap()).join(format!(".s.PGSQL.{port}"));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        std::fs::write(note, format!("postgres://{}@{address}{}", value("user").unwrap(), url.path())).unwrap();
        let is_cut = watch::Sender::new(false);
        let cut = is_cut.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(pass(client, socket.clone(), cut.subscribe()));
            }
        });
        Self { is_cut, _tasks: tasks }
    }

    /// Nothing comes through any more, in either direction, and no connection ends.
    fn vanish(&self) {
        self.is_cut.send_replace(true);
    }

    /// For new connections.
    fn is_back(&self) {
        self.is_cut.send_replace(false);
    }
}

async fn cut(is_cut: &mut watch::Receiver<bool>) {
    let _ = is_cut.wait_for(|is_cut| *is_cut).await;
}

async fn pass(mut client: TcpStream, socket: PathBuf, mut is_cut: watch::Receiver<bool>) {
    if !*is_cut.borrow_and_update() {
        let mut server = UnixStream::connect(socket).await.unwrap();
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut client, &mut server) => return,
            () = cut(&mut is_cut) => {}
        }
    }
    // The server's side ends with its machine; ours stays.
    std::future::pending::<()>().await;
}

/// What people get who make channels all the time.
#[derive(Default)]
struct Load {
    done: AtomicUsize,
    told_to_wait: AtomicUsize,
    over: AtomicBool,
}

impl Load {
    async fn make_channels(&self, org: &Org<'_>, server: &str, worker: usize) {
        let mut n = 0;
        while !self.over.load(SeqCst) {
            n += 1;
            let name = format!("channel {worker}-{n}");
            let channel = json!({"server_id": server, "name": name, "engine": "127.0.0.1:6661", "public_name": name});
            match org.send("POST", "/channels", Some(channel)).await.status().as_u16() {
                201 => self.done.fetch_add(1, SeqCst),
                503 => self.told_to_wait.fetch_add(1, SeqCst),
                status => panic!("{status}"),
            };
        }
    }

    /// Waits until one of the counts is higher by so much.
    async fn more(&self, count: &AtomicUsize, by: usize, what: &str) {
        let goal = count.load(SeqCst) + by;
        let reached = async {
            while count.load(SeqCst) < goal {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, reached).await.unwrap_or_else(|_| panic!("{what}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_vanishes_amid_changes_is_given_up_and_all_goes_on_with_the_one_in_its_place() {
    if !database::is_postgres() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    database::storage_section(directory.path());
    let wire = Wire::before(directory.path()).await;
    let (one, other) = replicas(directory).await;
    let pair = one.pair().await;
    let at_other = pair.lab.at(&other);
    let (watched, silent_sender, silent_listener) = watched(&pair, &other).await;

    let (load, server) = (Load::default(), pair.lab_server.id.to_string());
    let orgs = [pair.lab.again(), pair.lab.at(&other), pair.hospital.again()];
    let hospital_server = pair.hospital_server.id.to_string();
    let workers = join_all(orgs.iter().enumerate().map(|(n, org)| {
        let server = if n == 2 { &hospital_server } else { &server };
        load.make_channels(org, server, n)
    }));
    let story = async {
        load.more(&load.done, 20, "nothing works to begin with").await;
        wire.vanish();
        load.more(&load.told_to_wait, 6, "nobody is told that the database does not answer").await;
        wire.is_back();
        let back = Instant::now();
        load.more(&load.done, 20, "no change is made any more").await;
        let took = back.elapsed();
        measure(&format!("PostgreSQL vanished with changes on their way: all back after {} ms", took.as_millis()));
        assert!(took < RECOVERY, "{took:?}");
        load.over.store(true, SeqCst);
    };
    tokio::join!(workers, story);
    // Nobody answered on them meanwhile, and a gateway that is silent for so long is sent away.
    let (mut sender, mut listener) = watches(&pair, &other).await;
    drop((silent_sender, silent_listener));
    line_is_mended(&pair.lab, &at_other, &watched, (&mut listener, &mut sender)).await;

    // And it holds up no end.
    drop((sender, listener));
    wire.vanish();
    tokio::join!(one.stop_within(STOPPED), other.stop_within(STOPPED));
}
