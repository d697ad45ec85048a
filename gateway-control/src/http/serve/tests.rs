//! One connection, from both its ends, without sockets and in virtual time.

use axum::{
    body::Bytes,
    routing::{get, post},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex, split},
    time::{Instant, sleep},
};

use super::*;

fn routes() -> Router {
    Router::new()
        .route("/", get(|| async { "ok" }))
        .route("/size", post(|body: Bytes| async move { body.len().to_string() }))
        .route("/early", post(|| async { StatusCode::UNAUTHORIZED }))
        .route("/much", get(|| async { "x".repeat(1 << 20) }))
}

fn connect(tasks: &mut JoinSet<()>) -> DuplexStream {
    let (near, far) = duplex(16 << 10);
    let client = ClientAddress([192, 0, 2, 1].into());
    tasks.spawn(http(far, routes(), client, Shutdown::manual()));
    near
}

/// Head and body of one answer.
async fn answer(stream: &mut DuplexStream) -> (String, String) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.unwrap_or("0").parse().unwrap()];
    stream.read_exact(&mut body).await.unwrap();
    (head, String::from_utf8(body).unwrap())
}

async fn end(stream: &mut DuplexStream) -> Vec<u8> {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    rest
}

#[tokio::test(start_paused = true)]
async fn a_head_that_dribbles_in_is_given_up_after_ten_seconds() {
    let mut tasks = JoinSet::new();
    let mut stream = connect(&mut tasks);
    let started = Instant::now();
    stream.write_all(b"GET / HTTP/1.1\r\nx: ").await.unwrap();
    let (mut read, mut write) = split(stream);
    let dribble = async {
        while write.write_all(b"y").await.is_ok() {
            sleep(Duration::from_secs(1)).await;
        }
        std::future::pending::<()>().await;
    };
    let mut rest = Vec::new();
    tokio::select! {
        () = dribble => {}
        read = read.read_to_end(&mut rest) => assert_eq!(read.unwrap(), 0),
    }
    assert!((9..=11).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_head_larger_than_the_buffer_is_refused_and_the_client_hears_it() {
    let mut tasks = JoinSet::new();
    let mut stream = connect(&mut tasks);
    let head = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(390_000));
    stream.write_all(head.as_bytes()).await.unwrap();
    assert!(answer(&mut stream).await.0.starts_with("http/1.1 431 "));
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_is_let_go_sooner_than_who_has_asked_before() {
    let mut tasks = JoinSet::new();
    let mut stream = connect(&mut tasks);
    let started = Instant::now();
    assert!(end(&mut stream).await.is_empty());
    assert!(started.elapsed() < Duration::from_secs(31), "{:?}", started.elapsed());
    let ask = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut stream = connect(&mut tasks);
    stream.write_all(ask).await.unwrap();
    assert_eq!(answer(&mut stream).await.1, "ok");
    sleep(Duration::from_secs(59)).await;
    stream.write_all(ask).await.unwrap();
    assert_eq!(answer(&mut stream).await.1, "ok");
    let started = Instant::now();
    assert!(end(&mut stream).await.is_empty());
    assert!((59..=61).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_body_of_the_full_size_passes_through_the_small_buffer() {
    let mut tasks = JoinSet::new();
    let mut stream = connect(&mut tasks);
    let head = format!("POST /size HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", 1 << 20);
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&vec![b'x'; 1 << 20]).await.unwrap();
    let (head, body) = answer(&mut stream).await;
    assert_eq!(body, (1 << 20).to_string());
    assert!(!head.contains("connection: close"), "{head}");
}

#[tokio::test(start_paused = true)]
async fn after_an_early_answer_the_connection_goes_on_when_the_body_was_short() {
    let mut tasks = JoinSet::new();
    let mut stream = connect(&mut tasks);
    stream.write_all(b"POST /early HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n").await.unwrap();
    // Head and body come in two pieces.
    sleep(Duration::from_millis(100)).await;
    stream.write_all(&[b'x'; 100_000]).await.unwrap();
    let (head, _) = answer(&mut stream).await;
    assert!(head.starts_with("http/1.1 401 ") && !head.contains("connection: close"), "{head}");
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert_eq!(answer(&mut stream).await.1, "ok");
}

#[tokio::test(start_paused = true)]
async fn after_an_early_answer_to_a_long_body_the_client_still_reads_it() {
    let mut tasks = JoinSet::new();
    for size in [1_300_000, 3 << 20] {
        let mut stream = connect(&mut tasks);
        let head = format!("POST /early HTTP/1.1\r\nhost: x\r\ncontent-length: {size}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        // It reads nothing before it has sent everything.
        stream.write_all(&vec![b'x'; size]).await.unwrap();
        let (head, _) = answer(&mut stream).await;
        assert!(head.starts_with("http/1.1 401 ") && head.contains("connection: close"), "{head}");
        assert!(end(&mut stream).await.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_holds_an_early_answer_up_for_two_seconds() {
    let mut tasks = JoinSet::new();
    let mut stream = connect(&mut tasks);
    let started = Instant::now();
    stream.write_all(b"POST /early HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n").await.unwrap();
    let (head, _) = answer(&mut stream).await;
    assert!(head.contains("connection: close") && started.elapsed() < Duration::from_secs(3), "{head}");
    // Whoever asks first is told at once, and not to send it.
    let mut stream = connect(&mut tasks);
    let ask = b"POST /early HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 9\r\n\r\n";
    let started = Instant::now();
    stream.write_all(ask).await.unwrap();
    let (head, _) = answer(&mut stream).await;
    assert!(head.starts_with("http/1.1 401 ") && head.contains("connection: close"), "{head}");
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn who_asks_and_does_not_read_is_let_go() {
    let mut tasks = JoinSet::new();
    let mut stream = connect(&mut tasks);
    stream.write_all(b"GET /much HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let started = Instant::now();
    tasks.join_next().await.unwrap().unwrap();
    assert!((29..=40).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
    drop(stream);
}

#[tokio::test(start_paused = true)]
async fn when_we_stop_nobody_who_rests_is_waited_for() {
    let (mut tasks, shutdown) = (JoinSet::new(), Shutdown::manual());
    let (mut near, far) = duplex(16 << 10);
    tasks.spawn(http(far, routes(), ClientAddress([192, 0, 2, 1].into()), shutdown.clone()));
    near.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert_eq!(answer(&mut near).await.1, "ok");
    let started = Instant::now();
    shutdown.request();
    tasks.join_next().await.unwrap().unwrap();
    assert!(started.elapsed() < Duration::from_millis(100), "{:?}", started.elapsed());
}
