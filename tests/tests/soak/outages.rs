//! Which outages explain that a conversation broke: those that are longer than a tunnel lives without a sign of its partner.

use std::time::{Duration, Instant};

/// A tunnel is given up after 8 s without a sign of life (docs/paths.md), and the last one may be a heartbeat old when the
/// outage begins.
const ENDS_A_TUNNEL: Duration = Duration::from_secs(7);
/// The longest stall once a path is there, as promised: a shorter rest between two outages may pass unused, and so long after
/// the last of them a conversation may still break.
const RECOVERY: Duration = Duration::from_millis(2_500);

/// From when to when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    from: Instant,
    until: Instant,
}

/// All outages so far, in order.
#[derive(Debug, Default)]
pub(crate) struct Outages(Vec<Span>);

impl Span {
    /// Until now.
    pub(crate) fn since(from: Instant) -> Self {
        Self { from, until: Instant::now() }
    }

    fn length(&self) -> Duration {
        self.until - self.from
    }
}

impl Outages {
    /// The next one.
    pub(crate) fn push(&mut self, outage: Span) {
        self.0.push(outage);
    }

    /// How many of them end no tunnel by themselves.
    pub(crate) fn bridged(&self) -> usize {
        self.0.iter().filter(|outage| outage.length() < ENDS_A_TUNNEL).count()
    }

    /// Whether a conversation that was open all this time and broke at the end of it was bound to.
    pub(crate) fn explain(&self, broken: &Span) -> bool {
        let fits = |row: &Span| broken.from <= row.until + RECOVERY && row.from <= broken.until;
        self.rows().iter().any(|row| row.length() >= ENDS_A_TUNNEL && fits(row))
    }

    /// What was near a break, for people: seconds from its begin.
    pub(crate) fn around(&self, broken: &Span) -> String {
        let offset = |at: Instant| match at.checked_duration_since(broken.from) {
            Some(later) => later.as_secs_f64(),
            None => -(broken.from - at).as_secs_f64(),
        };
        let near = self
            .0
            .iter()
            .filter(|outage| outage.until + 4 * ENDS_A_TUNNEL >= broken.from && outage.from <= broken.until);
        let near: String =
            near.map(|outage| format!(" from {:.1} s to {:.1} s", offset(outage.from), offset(outage.until))).collect();
        format!("- after {:.1} s; outages{near}\n", broken.length().as_secs_f64())
    }

    /// Outages with too short a rest between them are one.
    fn rows(&self) -> Vec<Span> {
        let mut rows: Vec<Span> = Vec::new();
        for outage in &self.0 {
            match rows.last_mut() {
                Some(row) if outage.from < row.until + RECOVERY => row.until = outage.until,
                Some(_) | None => rows.push(*outage),
            }
        }
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In seconds after a moment.
    fn spans<const N: usize>(at: Instant, spans: [(f64, f64); N]) -> [Span; N] {
        let after = |seconds: f64| at + Duration::from_secs_f64(seconds);
        spans.map(|(from, until)| Span { from: after(from), until: after(until) })
    }

    #[test]
    fn a_break_is_explained_by_a_long_outage_and_by_a_row_of_short_ones_and_by_nothing_else() {
        let now = Instant::now();
        let outages = Outages(spans(now, [(10.0, 13.0), (20.0, 30.0), (50.0, 54.0), (55.0, 58.0)]).into());
        assert_eq!(outages.bridged(), 3);
        let explained = [(28.0, 28.5), (29.0, 31.0), (32.0, 35.0), (19.0, 28.0), (56.0, 58.0)];
        for broken in spans(now, explained) {
            assert!(outages.explain(&broken), "{}", outages.around(&broken));
        }
        for broken in spans(now, [(10.5, 12.0), (33.0, 36.0), (1.0, 2.0), (61.0, 61.5)]) {
            assert!(!outages.explain(&broken), "{}", outages.around(&broken));
        }
    }
}
