//! Counting visits and their latencies.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

/// The longest latency that is told apart, in microseconds.
const LONGEST_US: u64 = 60_000_000;
/// Three digits: a latency is told to a thousandth of itself.
const DIGITS: u8 = 3;

/// How a visit ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// As it should.
    Done,
    /// With a refusal that belongs to the scenario, such as a product that is sold out.
    Refused,
    /// With anything else; the text says with what.
    Failed(String),
}

/// A visit that ended.
#[derive(Debug, Clone)]
pub struct Visit {
    /// How.
    pub ending: Ending,
    /// How long its parts took, as far as it has any.
    pub parts: Vec<(&'static str, Duration)>,
}

impl Visit {
    /// A visit of one request.
    pub fn ended(ending: Ending) -> Self {
        Self { ending, parts: Vec::new() }
    }
}

/// Latencies in microseconds.
#[derive(Debug, Clone)]
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, LONGEST_US, DIGITS).expect("the bounds are constants that fit"))
    }
}

impl Latencies {
    /// Counts one; those beyond the longest count as the longest.
    pub fn record(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(LONGEST_US));
    }

    /// Counts all of another.
    pub fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("both have the same bounds");
    }

    /// The latency in milliseconds that so many per cent do not exceed.
    pub fn percentile_ms(&self, percent: f64) -> f64 {
        self.0.value_at_percentile(percent) as f64 / 1_000.0
    }

    /// The longest, in milliseconds.
    pub fn longest_ms(&self) -> f64 {
        self.0.max() as f64 / 1_000.0
    }
}

/// What visitors count, each for itself and at the end together.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Visits that ended as they should or were refused, within the measured time.
    pub in_time: u64,
    /// Visits that ended as they should.
    pub done: u64,
    /// Visits that were refused.
    pub refused: u64,
    /// What else happened, and how often.
    pub failed: BTreeMap<String, u64>,
    /// How long visits took that did not fail.
    pub latencies: Latencies,
    /// How long their parts took.
    pub parts: BTreeMap<&'static str, Latencies>,
}

impl Tally {
    /// Counts a visit; `in_time` says whether it ended within the measured time.
    pub fn record(&mut self, visit: Visit, latency: Duration, in_time: bool) {
        match visit.ending {
            Ending::Done => self.done += 1,
            Ending::Refused => self.refused += 1,
            Ending::Failed(why) => {
                *self.failed.entry(why).or_default() += 1;
                return;
            }
        }
        self.in_time += u64::from(in_time);
        self.latencies.record(latency);
        for (name, took) in visit.parts {
            self.parts.entry(name).or_default().record(took);
        }
    }

    /// Counts all of another.
    pub fn add(&mut self, other: Self) {
        self.in_time += other.in_time;
        self.done += other.done;
        self.refused += other.refused;
        for (why, times) in other.failed {
            *self.failed.entry(why).or_default() += times;
        }
        self.latencies.add(&other.latencies);
        for (name, latencies) in other.parts {
            self.parts.entry(name).or_default().add(&latencies);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn milliseconds(number: u64) -> Duration {
        Duration::from_millis(number)
    }

    #[test]
    fn tallies_of_several_visitors_make_one() {
        let mut one = Tally::default();
        let parts = vec![("place", milliseconds(30))];
        one.record(Visit { ending: Ending::Done, parts }, milliseconds(50), true);
        one.record(Visit::ended(Ending::Failed("503".to_owned())), milliseconds(9_000), true);
        let mut other = Tally::default();
        other.record(Visit::ended(Ending::Refused), milliseconds(10), true);
        other.record(Visit::ended(Ending::Failed("503".to_owned())), milliseconds(1), true);
        other.record(Visit::ended(Ending::Done), milliseconds(20), false);
        one.add(other);
        assert_eq!((one.in_time, one.done, one.refused), (2, 2, 1));
        assert_eq!(one.failed, BTreeMap::from([("503".to_owned(), 2)]));
        // A failure says nothing about how fast the mart is.
        assert_eq!(one.latencies.percentile_ms(50.0).round(), 20.0);
        assert_eq!(one.latencies.longest_ms().round(), 50.0);
        assert_eq!(one.parts["place"].longest_ms().round(), 30.0);
    }
}
