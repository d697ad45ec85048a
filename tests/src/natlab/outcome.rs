//! What became of a pair of networks, and whether it had to be so.

use std::time::Duration;

use super::{RouterKind, Rung, Way};

/// The first message of every pair is answered within this time on a network of [`NETWORK`](super::NETWORK).
pub const FIRST_LIMIT: Duration = Duration::from_secs(1);

/// What became of a pair.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Network of the side that dials.
    pub caller: RouterKind,
    /// Network of the side that is dialled.
    pub listener: RouterKind,
    /// The best rung possible.
    pub expected: Rung,
    /// The ways on that rung; one of them is taken.
    pub expected_ways: Vec<Way>,
    /// The rung reached; none: no message was acknowledged.
    pub reached: Option<Rung>,
    /// How its packets travelled in the end.
    pub way: Option<Way>,
    /// From the engine's connect to the acknowledgement of its first message.
    pub first_byte: Duration,
    /// From the same moment until both ends showed a direct path.
    pub direct: Option<Duration>,
    /// What the caller's gateway says of its path.
    pub reason: String,
    /// What went wrong.
    pub problem: Option<String>,
}

impl Outcome {
    /// Connected in time, as high on the ladder as possible, and by a way that fits the two networks.
    pub fn is_as_expected(&self) -> bool {
        self.problem.is_none() && self.reached == Some(self.expected) && self.goes_as_expected() && !self.is_late()
    }

    /// By a way that fits the two networks.
    pub fn goes_as_expected(&self) -> bool {
        self.way.is_some_and(|way| self.expected_ways.contains(&way))
    }

    /// The first message waited longer than [`FIRST_LIMIT`].
    pub fn is_late(&self) -> bool {
        self.first_byte > FIRST_LIMIT
    }

    /// The expected ways, for people.
    pub fn expected_words(&self) -> String {
        self.expected_ways.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
    }

    /// One line for people.
    pub fn line(&self) -> String {
        let reached = self.way.map_or_else(|| "nothing".into(), |way| way.to_string());
        let direct = self.direct.map_or_else(|| "      -".into(), |time| format!("{:5.2} s", time.as_secs_f64()));
        let verdict = match (&self.problem, self.is_as_expected()) {
            (Some(problem), _) => format!("FAILED: {problem}"),
            (None, true) => "as expected".into(),
            (None, false) if self.is_late() => format!("LATE: more than {FIRST_LIMIT:?}; {}", self.reason),
            (None, false) => format!("MISSED: {}", self.reason),
        };
        format!(
            "{:>9} → {:<9}  expected {:<24}  reached {reached:<13}  first answer {:4.0} ms  direct after {direct}  {verdict}",
            self.caller,
            self.listener,
            self.expected_words(),
            self.first_byte.as_secs_f64() * 1e3,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_that_is_late_or_goes_another_way_is_not_as_expected() {
        use RouterKind::{MappedPort, PortFilter};
        let expected = PortFilter.best_rung(MappedPort);
        let good = Outcome {
            caller: PortFilter,
            listener: MappedPort,
            expected,
            expected_ways: PortFilter.best_ways(MappedPort, expected),
            reached: Some(Rung::Direct),
            way: PortFilter.best_ways(MappedPort, expected).pop(),
            first_byte: FIRST_LIMIT,
            direct: Some(FIRST_LIMIT),
            reason: String::new(),
            problem: None,
        };
        assert!(good.is_as_expected(), "{}", good.line());
        let late = Outcome { first_byte: FIRST_LIMIT + Duration::from_millis(1), ..good.clone() };
        assert!(!late.is_as_expected() && late.line().contains("LATE"), "{}", late.line());
        let lucky = Outcome { way: PortFilter.best_ways(PortFilter, Rung::Direct).pop(), ..good };
        assert!(!lucky.is_as_expected() && lucky.line().contains("expected mapped v4"), "{}", lucky.line());
    }
}
