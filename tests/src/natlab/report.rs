//! What a run of the matrix found, as a table for people and as `docs/nat-matrix.md`.

use std::{fmt::Write as _, fs, path::Path, time::Duration};

use super::{FIRST_LIMIT, Outcome, RouterKind, Rung};

/// The document that keeps the last full run.
const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/nat-matrix.md");

/// Outcomes of many pairs.
#[derive(Debug)]
pub struct Report<'a> {
    outcomes: &'a [Outcome],
}

impl<'a> Report<'a> {
    /// Of these pairs.
    pub fn new(outcomes: &'a [Outcome]) -> Self {
        Self { outcomes }
    }

    /// The pairs that are not as the oracle says.
    pub fn misses(&self) -> Vec<&'a Outcome> {
        self.outcomes.iter().filter(|outcome| !outcome.is_as_expected()).collect()
    }

    /// One line: how many pairs, how many direct, and how fast.
    pub fn summary(&self) -> String {
        let expected = self.outcomes.iter().filter(|outcome| outcome.expected == Rung::Direct).count();
        let direct: Vec<Duration> = self.outcomes.iter().filter_map(|outcome| outcome.direct).collect();
        let first: Vec<Duration> = self.outcomes.iter().map(|outcome| outcome.first_byte).collect();
        let connected = self.outcomes.iter().filter(|outcome| outcome.reached.is_some()).count();
        let fitting = self.outcomes.iter().filter(|outcome| outcome.goes_as_expected()).count();
        format!(
            "{} pairs, {connected} connected, {} direct of {expected} that can be, {fitting} by a way that fits both networks; \
             first answer {}; direct after {}",
            self.outcomes.len(),
            direct.len(),
            spread(first),
            spread(direct),
        )
    }

    /// The paths: a row for each network that dials, a column for each that is dialled.
    pub fn table(&self) -> String {
        self.grid(cell)
    }

    /// The same with the milliseconds until the first message was answered.
    pub fn first_answers(&self) -> String {
        self.grid(|outcome| match (outcome.reached, outcome.is_late()) {
            (None, _) => "**nothing**".into(),
            (Some(_), true) => format!("**{}**", outcome.first_byte.as_millis()),
            (Some(_), false) => outcome.first_byte.as_millis().to_string(),
        })
    }

    fn grid(&self, cell: impl Fn(&Outcome) -> String) -> String {
        let columns = self.kinds(|outcome| outcome.listener);
        let mut text = String::from("| dials ↓ · is dialled → |");
        for column in &columns {
            let _ = write!(text, " {column} |");
        }
        let _ = write!(text, "\n|---|{}\n", "---|".repeat(columns.len()));
        for row in self.kinds(|outcome| outcome.caller) {
            let _ = write!(text, "| **{row}** |");
            for column in &columns {
                let found = self.outcomes.iter().find(|outcome| outcome.caller == row && outcome.listener == *column);
                let _ = write!(text, " {} |", found.map_or_else(String::new, &cell));
            }
            text.push('\n');
        }
        text
    }

    /// Writes the document.
    pub fn write(&self) -> anyhow::Result<()> {
        let mut text = String::from(
            "# Every network with every network\n\n\
             Written by `UPDATE_DOCS=1 tests/run nat-matrix`: the real programs in network namespaces, a gateway behind \
             each kind of router on both sides, control plane and two relays between them, a new connection for every \
             pair. A round trip between any two sites, and between a site and a relay, takes 50 ms. The side that dials \
             has the engine that connects, and its gateway dials the tunnel. The oracle (`tests/src/natlab/kind.rs`) \
             says which pairs can be direct without guessing ports, and by which way.\n\n\
             A cell shows the path reached and the time until both gateways showed it, counted from the moment the \
             engine connected to its gateway. `own` is the far gateway's own address, `punched` one that its NAT \
             gave it, `mapped` a port that its router forwards because the gateway asked for it, v4 and v6 the \
             protocol; `relay` with its carrier is as it must be, the first carrier that of the side that dials; \
             **missed** can be direct and was not; **better** was direct though the oracle knows no way; **not as \
             expected** goes by another way than fits the two networks. The way of `proxy` to its relay is TLS through \
             the proxy.\n\n",
        );
        let _ = write!(text, "{}.\n\n{}\n", self.summary(), self.table());
        let _ = write!(
            text,
            "Milliseconds from the engine's connect to the answer to its first message, {} at most:\n\n{}\n",
            FIRST_LIMIT.as_millis(),
            self.first_answers()
        );
        text.push_str("| name | network |\n|---|---|\n");
        for kind in RouterKind::ALL {
            let _ = writeln!(text, "| {kind} | {} |", kind.words());
        }
        let misses = self.misses();
        if !misses.is_empty() {
            text.push_str("\nNot as the oracle says:\n\n");
            for miss in misses {
                let why = miss.problem.as_ref().map_or(miss.reason.as_str(), |_| "the exchange failed");
                let _ = writeln!(
                    text,
                    "- {} → {}: expected {}, was {}, first answer {} ms: {why}",
                    miss.caller,
                    miss.listener,
                    miss.expected_words(),
                    way(miss),
                    miss.first_byte.as_millis()
                );
            }
        }
        Ok(fs::write(Path::new(DOCUMENT), text)?)
    }

    /// The kinds on one side, in the order of the table.
    fn kinds(&self, side: impl Fn(&Outcome) -> RouterKind) -> Vec<RouterKind> {
        RouterKind::ALL.into_iter().filter(|kind| self.outcomes.iter().any(|outcome| side(outcome) == *kind)).collect()
    }
}

fn cell(outcome: &Outcome) -> String {
    match (outcome.reached, outcome.expected) {
        _ if outcome.problem.is_some() => "**failed**".into(),
        (Some(reached), expected) if reached == expected && !outcome.goes_as_expected() => {
            format!("**not as expected** {}", way(outcome))
        }
        (Some(Rung::Direct), Rung::Direct) => format!("{} {}", way(outcome), seconds(outcome.direct)),
        (Some(Rung::Direct), Rung::Relayed) => format!("**better** {} {}", way(outcome), seconds(outcome.direct)),
        (Some(Rung::Relayed), Rung::Relayed) => way(outcome),
        (Some(Rung::Relayed), Rung::Direct) => "**missed**".into(),
        (None, _) => "**nothing**".into(),
    }
}

fn way(outcome: &Outcome) -> String {
    outcome.way.map_or_else(|| "unseen".into(), |way| way.to_string())
}

fn seconds(time: Option<Duration>) -> String {
    time.map_or_else(String::new, |time| format!("{:.1} s", time.as_secs_f64()))
}

/// Median and worst.
fn spread(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let (Some(median), Some(worst)) = (times.get(times.len() / 2), times.last()) else { return "never".into() };
    format!("{:.2} s in the median, {:.2} s at worst", median.as_secs_f64(), worst.as_secs_f64())
}
