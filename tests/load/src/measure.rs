//! Figures: how times are spread, and what a process uses.

use std::{
    fmt::{self, Display, Write as _},
    time::Duration,
};

use anyhow::Context;

/// Times of many.
#[derive(Debug, Default)]
pub(crate) struct Spread(Vec<Duration>);

/// The first step of a histogram.
const FIRST_STEP: Duration = Duration::from_millis(5);

impl FromIterator<Duration> for Spread {
    fn from_iter<I: IntoIterator<Item = Duration>>(times: I) -> Self {
        Self(times.into_iter().collect())
    }
}

impl Spread {
    /// What so many percent do not exceed: the nearest rank.
    pub(crate) fn at(&self, percent: usize) -> Option<Duration> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).copied()
    }

    /// How many took at most so long, and longer than the step before; steps double. Steps at the ends that have none are left out.
    pub(crate) fn histogram(&self) -> String {
        let steps: Vec<_> = (0..12).map(|step| FIRST_STEP * 2_u32.pow(step)).collect();
        let within = |limit: &Duration| self.0.iter().filter(|time| *time <= limit).count();
        let mut before = 0;
        let mut shown = Vec::new();
        for step in &steps {
            let count = within(step) - before;
            before += count;
            if count > 0 {
                shown.push(format!("{count} ≤ {}", short(*step)));
            }
        }
        if before < self.0.len() {
            shown.push(format!("{} longer", self.0.len() - before));
        }
        shown.join(", ")
    }
}

impl Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |percent| self.at(percent).map(short).unwrap_or_default();
        write!(f, "p50 {}, p90 {}, p99 {}, longest {}", at(50), at(90), at(99), at(100))
    }
}

/// A time with two or three digits that count.
pub(crate) fn short(time: Duration) -> String {
    match time.as_millis() {
        0..10 => format!("{:.1} ms", time.as_secs_f64() * 1e3),
        10..1_000 => format!("{} ms", time.as_millis()),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}

/// What was measured, in the order it was.
#[derive(Debug, Default)]
pub(crate) struct Table(Vec<(String, String)>);

impl Table {
    pub(crate) fn row(&mut self, name: &str, value: impl Display) {
        self.0.push((name.to_owned(), value.to_string()));
    }

    /// Several runs with the same steps.
    pub(crate) fn side_by_side(tables: &[Self]) -> String {
        let Some(first) = tables.first() else { return String::new() };
        let mut text = String::new();
        for (n, (name, _)) in first.0.iter().enumerate() {
            let values = tables.iter().map(|table| table.0.get(n).map_or("", |(_, value)| value));
            let _ = writeln!(text, "| {name} | {} |", values.collect::<Vec<_>>().join(" | "));
            if n == 0 {
                let _ = writeln!(text, "|---|{}", "---|".repeat(tables.len()));
            }
        }
        text
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(name, value)| writeln!(f, "{name}: {value}"))
    }
}

/// What a process has used so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    /// Resident memory, bytes.
    pub(crate) memory: u64,
    /// Processor time.
    pub(crate) processor: Duration,
}

impl Usage {
    /// Of a running process.
    pub(crate) fn of(pid: u32) -> anyhow::Result<Self> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // Behind the name, which may hold blanks, user and system time are the 12th and 13th field, in ticks of 10 ms.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |n: usize| fields.get(n).and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
        Ok(Self { memory: kib * 1024, processor: Duration::from_millis((ticks(11) + ticks(12)) * 10) })
    }

    /// How many cores it kept busy since.
    pub(crate) fn cores_since(&self, from: &Self, time: Duration) -> f64 {
        self.processor.saturating_sub(from.processor).as_secs_f64() / time.as_secs_f64()
    }
}

pub(crate) fn mib(bytes: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let bytes = bytes as f64;
    bytes / 1_048_576.0
}
