//! What the demo sends, and how it makes sure.
//!
//! Each direction has four lanes, which run at the same time: two connections kept open, a new connection for every
//! message, and one for the big messages. In a lane, the next message waits for the acknowledgement of the one before,
//! as an engine's queue does; so the far engine must have each lane's messages once, in order, byte for byte.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use tokio::task::JoinSet;

use crate::{
    corpus::{Corpus, Message},
    mllp::{Engine, Sender, Verdict},
};

/// Rounds of the daily mix in a lane: five messages each.
const ROUNDS: usize = 10;
/// Documents inside the big messages, in bytes.
const DOCUMENTS: [usize; 3] = [100 << 10, 1 << 20, 5 << 20];
/// The first message also waits for the tunnel.
const FIRST_LIMIT: Duration = Duration::from_secs(15);
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// One direction.
#[derive(Debug)]
pub(super) struct Direction {
    /// For people.
    pub(super) title: String,
    /// First letter of its control ids.
    pub(super) prefix: &'static str,
    /// The local port the sending engine connects to.
    pub(super) sender: SocketAddr,
}

/// What was sent and proved.
#[derive(Debug)]
pub(super) struct Report {
    lanes: Vec<LaneReport>,
    elapsed: Duration,
}

struct Lane {
    title: String,
    prefix: String,
    direction: usize,
    address: SocketAddr,
    keep_open: bool,
    messages: Vec<Message>,
}

#[derive(Debug)]
struct LaneReport {
    title: String,
    messages: usize,
    bytes: usize,
    latencies: Vec<Duration>,
}

/// One message each way: the first proof, and what makes the gateways look for a direct path.
pub(super) async fn first_messages(directions: &[Direction], engines: &[Engine]) -> anyhow::Result<()> {
    for (direction, engine) in directions.iter().zip(engines) {
        let message = Corpus::new(&format!("{}0", direction.prefix), 99).adt("A01");
        let mut sender = Sender::new(direction.sender, false).with_response_timeout(FIRST_LIMIT);
        let verdict = sender.send(&message.bytes).await;
        ensure!(verdict == Verdict::Acknowledged, "{}: the first message was {verdict}", direction.title);
        ensure!(
            engine.count_of(&message.control_id) == 1,
            "{}: the first message did not arrive once",
            direction.title
        );
    }
    Ok(())
}

/// The whole corpus both ways.
pub(super) async fn corpus(directions: &[Direction], engines: &[Engine]) -> anyhow::Result<Report> {
    let begun = Instant::now();
    let mut running = JoinSet::new();
    for lane in directions.iter().enumerate().flat_map(|(index, direction)| lanes(index, direction)) {
        running.spawn(async move {
            let latencies = drive(&lane).await;
            (lane, latencies)
        });
    }
    let mut reports = Vec::new();
    while let Some(done) = running.join_next().await {
        let (lane, latencies) = done.context("a lane ended")?;
        let latencies = latencies?;
        check(&lane, &engines[lane.direction])?;
        let bytes = lane.messages.iter().map(|message| message.bytes.len()).sum();
        reports.push(LaneReport { title: lane.title, messages: lane.messages.len(), bytes, latencies });
    }
    reports.sort_by(|a, b| a.title.cmp(&b.title));
    Ok(Report { lanes: reports, elapsed: begun.elapsed() })
}

fn lanes(index: usize, direction: &Direction) -> Vec<Lane> {
    let lane = |number: u64, title: &str, keep_open: bool, big: bool| {
        let prefix = format!("{}{number}", direction.prefix);
        let mut corpus = Corpus::new(&prefix, number);
        let messages = if big { corpus.big(&DOCUMENTS) } else { corpus.daily(ROUNDS) };
        let title = format!("{}, {title}", direction.title);
        Lane { title, prefix, direction: index, address: direction.sender, keep_open, messages }
    };
    vec![
        lane(1, "connection kept open", true, false),
        lane(2, "another one kept open", true, false),
        lane(3, "connection per message", false, false),
        lane(4, "big messages", true, true),
    ]
}

async fn drive(lane: &Lane) -> anyhow::Result<Vec<Duration>> {
    let mut sender = Sender::new(lane.address, lane.keep_open).with_response_timeout(ANSWER_LIMIT);
    let mut latencies = Vec::with_capacity(lane.messages.len());
    for message in &lane.messages {
        let sent = Instant::now();
        let verdict = sender.send(&message.bytes).await;
        latencies.push(sent.elapsed());
        ensure!(
            verdict == Verdict::Acknowledged,
            "{}: {} {} ({} bytes) was {verdict}",
            lane.title,
            message.name,
            message.control_id,
            message.bytes.len()
        );
    }
    Ok(latencies)
}

fn check(lane: &Lane, engine: &Engine) -> anyhow::Result<()> {
    let received = engine.received();
    let arrived: Vec<_> = received.iter().filter(|received| received.control_id.starts_with(&lane.prefix)).collect();
    ensure!(
        arrived.len() == lane.messages.len(),
        "{}: {} messages sent, {} arrived",
        lane.title,
        lane.messages.len(),
        arrived.len()
    );
    for (sent, received) in lane.messages.iter().zip(arrived) {
        ensure!(
            sent.control_id == received.control_id,
            "{}: {} arrived where {} was due",
            lane.title,
            received.control_id,
            sent.control_id
        );
        ensure!(sent.bytes == received.bytes, "{}: {} arrived with other bytes", lane.title, sent.control_id);
    }
    Ok(())
}

impl Report {
    /// A line for each lane.
    pub(super) fn lines(&self) -> Vec<String> {
        self.lanes.iter().map(LaneReport::line).collect()
    }

    /// Messages acknowledged and compared, the first ones included.
    pub(super) fn messages(&self) -> usize {
        self.lanes.iter().map(|lane| lane.messages).sum::<usize>() + 2
    }

    /// Messages a second, all lanes together.
    pub(super) fn message_rate(&self) -> f64 {
        let messages: usize = self.lanes.iter().map(|lane| lane.messages).sum();
        messages as f64 / self.elapsed.as_secs_f64()
    }

    /// Bytes a second, all lanes together.
    pub(super) fn byte_rate(&self) -> f64 {
        let bytes: usize = self.lanes.iter().map(|lane| lane.bytes).sum();
        bytes as f64 / self.elapsed.as_secs_f64()
    }
}

impl LaneReport {
    fn line(&self) -> String {
        let mut sorted = self.latencies.clone();
        sorted.sort();
        let median = sorted.get(sorted.len() / 2).copied().unwrap_or_default().as_secs_f64() * 1e3;
        let worst = sorted.last().copied().unwrap_or_default().as_secs_f64() * 1e3;
        format!(
            "      {:<40} {:>4} × AA, identical, in order; {:>10} B; ACK median {median:.1} ms, worst {worst:.1} ms",
            self.title, self.messages, self.bytes
        )
    }
}
