//! What becomes of those who wait for a server that has vanished: it answers nothing any more, and no connection ends.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};

use super::{
    contact::{Contact, Times},
    line::PostgresLine,
    pool::{PgQuery, Pool},
    schema::{hold_writers, stays},
};
use crate::storage::{Heard, NewsLine, StorageError, StorageResult};

/// Longer than anything takes here.
const LIMIT: Duration = Duration::from_secs(20);
const TIMES: Times = Times {
    connect: Duration::from_millis(500),
    prompt: Duration::from_millis(500),
    statement: Duration::from_millis(500),
    patience: Duration::from_secs(3),
    lock: Duration::from_millis(100),
    pulse: Duration::from_millis(50),
};
/// A statement may take as long as it wants.
const PATIENT: Times = Times { statement: Duration::from_secs(3600), ..TIMES };

/// A server that says yes to every simple query, and vanishes when it is told to: its connections stay open, and silent. Those
/// that are made afterwards are to another one with the same address.
struct StandIn {
    address: SocketAddr,
    state: Arc<State>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct State {
    /// Connections made.
    made: AtomicU64,
    /// Those up to this one are silent.
    silent: AtomicU64,
    /// Simple queries answered.
    answered: AtomicU64,
    /// So many SELECTs are refused.
    refuses: AtomicU64,
}

impl State {
    /// Whether this one is refused.
    fn refuses(&self) -> bool {
        self.refuses.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok()
    }
}

impl StandIn {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, state) = (listener.local_addr().unwrap(), Arc::<State>::default());
        let shared = state.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let number = shared.made.fetch_add(1, SeqCst) + 1;
                connections.spawn(serve(stream, number, shared.clone()));
            }
        });
        Self { address, state, _tasks: tasks }
    }

    /// For all that have connected up to now.
    fn vanish(&self) {
        self.state.silent.store(self.state.made.load(SeqCst), SeqCst);
    }

    /// For those to come, too.
    fn stay_away(&self) {
        self.state.silent.store(u64::MAX, SeqCst);
    }

    fn contact(&self, times: Times) -> Contact {
        let options = PgConnectOptions::new_without_pgpass().host("127.0.0.1").port(self.address.port());
        Contact::new(options.username("x").database("x").ssl_mode(PgSslMode::Disable), times)
    }
}

/// One connection. When it is silent, it waits for what never comes.
async fn serve(mut stream: TcpStream, number: u64, state: Arc<State>) {
    let length = stream.read_u32().await.unwrap();
    let mut startup = vec![0; length as usize - 4];
    stream.read_exact(&mut startup).await.unwrap();
    if number <= state.silent.load(SeqCst) {
        std::future::pending::<()>().await;
    }
    // Nobody has to say who he is; ready.
    stream.write_all(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I").await.unwrap();
    while let Ok(kind) = stream.read_u8().await {
        let length = stream.read_u32().await.unwrap();
        let mut body = vec![0; length as usize - 4];
        stream.read_exact(&mut body).await.unwrap();
        if number <= state.silent.load(SeqCst) {
            std::future::pending::<()>().await;
        }
        match kind {
            b'Q' if body.starts_with(b"SELECT") && state.refuses() => stream.write_all(&refusal()).await.unwrap(),
            b'Q' => {
                state.answered.fetch_add(1, SeqCst);
                stream.write_all(b"C\0\0\0\x07OK\0Z\0\0\0\x05I").await.unwrap();
            }
            b'S' => stream.write_all(b"Z\0\0\0\x05I").await.unwrap(),
            _ => return,
        }
    }
}

/// A lock was not granted in time; ready.
fn refusal() -> Vec<u8> {
    let said = b"SERROR\0VERROR\0C55P03\0Mnot now\0\0";
    let mut answer = vec![b'E'];
    answer.extend(u32::try_from(4 + said.len()).unwrap().to_be_bytes());
    answer.extend(said);
    answer.extend(b"Z\0\0\0\x05I");
    answer
}

fn query() -> PgQuery {
    sqlx::query("SELECT 1")
}

fn is_away<T>(outcome: &StorageResult<T>) -> bool {
    matches!(outcome, Err(StorageError::Unavailable(_)))
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(LIMIT, future).await.expect("it waits for ever")
}

#[tokio::test]
async fn what_is_not_answered_is_given_up_and_the_next_one_has_a_connection_that_answers() {
    let server = StandIn::start().await;
    let pool = Pool::new(server.contact(TIMES), 1);
    // A statement, a commit, a rollback, and a connection that nobody used meanwhile.
    let mut work = within(pool.begin("BEGIN")).await.unwrap();
    server.vanish();
    assert!(is_away(&within(work.execute(query())).await));
    assert!(is_away(&within(work.fetch_all(query())).await), "its connection is gone");
    drop(work);

    let work = within(pool.begin("BEGIN")).await.unwrap();
    server.vanish();
    assert!(is_away(&within(work.commit()).await));

    let work = within(pool.begin("BEGIN")).await.unwrap();
    server.vanish();
    drop(work);

    within(within(pool.begin("BEGIN")).await.unwrap().commit()).await.unwrap();
    server.vanish();
    within(within(pool.begin("BEGIN")).await.unwrap().commit()).await.unwrap();
    assert_eq!(server.state.made.load(SeqCst), 5, "each of them had to be given up, and no other one");
    within(pool.close()).await;
    assert!(is_away(&within(pool.begin("BEGIN")).await), "it is closed");
}

#[tokio::test]
async fn a_connection_is_used_again_as_long_as_it_answers() {
    let server = StandIn::start().await;
    let pool = Pool::new(server.contact(TIMES), 1);
    for _ in 0..5 {
        within(within(pool.begin("BEGIN")).await.unwrap().commit()).await.unwrap();
        drop(within(pool.begin("BEGIN")).await.unwrap());
    }
    assert_eq!(server.state.made.load(SeqCst), 1);
}

#[tokio::test]
async fn whoever_waits_is_told_whether_others_are_at_work_or_the_server_is_away() {
    let server = StandIn::start().await;
    let contact = server.contact(Times { patience: Duration::from_millis(300), ..TIMES });
    let pool = Pool::new(contact.clone(), 1);
    let work = within(pool.begin("BEGIN")).await.unwrap();
    assert!(matches!(within(pool.begin("BEGIN")).await, Err(StorageError::Busy)));
    contact.lost();
    assert!(is_away(&within(pool.begin("BEGIN")).await));
    server.stay_away();
    drop(work);
    assert!(is_away(&within(pool.begin("BEGIN")).await));
}

#[tokio::test]
async fn the_line_notices_a_silent_server_and_then_nobody_waits_for_it_any_longer() {
    let server = StandIn::start().await;
    let contact = server.contact(PATIENT);
    let (mut line, pool) = (PostgresLine::new(contact.clone()), Pool::new(contact, 1));
    assert!(matches!(within(line.next()).await, Ok(Heard::Gap)));
    let mut work = within(pool.begin("BEGIN")).await.unwrap();
    server.vanish();
    let (heard, asked) = within(async { tokio::join!(line.next(), work.execute(query())) }).await;
    assert!(is_away(&heard) && is_away(&asked));
    drop(work);
    // The same address, another machine: all is well at once.
    assert!(matches!(within(line.next()).await, Ok(Heard::Gap)));
    within(within(pool.begin("BEGIN")).await.unwrap().commit()).await.unwrap();
    server.stay_away();
    assert!(is_away(&within(line.next()).await), "it fell silent again");
    assert!(is_away(&within(line.next()).await), "and nobody is there to connect to");
}

#[tokio::test]
async fn a_fault_of_the_line_alone_gives_up_nothing_of_the_others() {
    let server = StandIn::start().await;
    let contact = server.contact(TIMES);
    let mut line = PostgresLine::new(contact.clone());
    assert!(matches!(within(line.next()).await, Ok(Heard::Gap)));
    server.state.refuses.store(1, SeqCst);
    assert!(within(line.next()).await.is_err());
    assert!(contact.answers(), "the server is there");
    assert!(matches!(within(line.next()).await, Ok(Heard::Gap)), "the line is made anew");
}

#[tokio::test]
async fn a_start_waits_for_whoever_writes_and_for_no_server_that_is_silent() {
    let server = StandIn::start().await;
    let contact = server.contact(TIMES);
    let mut connection = within(contact.connect()).await.unwrap();
    server.state.refuses.store(3, SeqCst);
    within(hold_writers(&contact, &mut connection)).await.unwrap();
    assert_eq!(server.state.refuses.load(SeqCst), 0);
    server.vanish();
    assert!(is_away(&within(hold_writers(&contact, &mut connection)).await));
    // And while the schema is changed.
    let asker = within(contact.connect()).await.unwrap();
    server.vanish();
    assert!(within(stays(&contact, asker)).await.is_err());
}

#[tokio::test]
async fn a_server_that_has_no_news_is_asked_whether_it_is_there_and_that_is_all() {
    let server = StandIn::start().await;
    let mut line = PostgresLine::new(server.contact(TIMES));
    assert!(matches!(within(line.next()).await, Ok(Heard::Gap)));
    let asked = server.state.answered.load(SeqCst);
    let asked_thrice = async {
        while server.state.answered.load(SeqCst) < asked + 3 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        heard = line.next() => panic!("{heard:?}"),
        () = within(asked_thrice) => {}
    }
}
