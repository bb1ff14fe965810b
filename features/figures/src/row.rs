//! A row: what was measured in each round, beside what, and what it should reach.

use serde::{Deserialize, Serialize};

/// A row of the table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What was measured.
    pub name: String,
    /// In what unit, such as `events/s`.
    pub unit: String,
    /// The median of the rounds.
    pub median: f64,
    /// The lowest of the rounds.
    pub lowest: f64,
    /// The highest of the rounds.
    pub highest: f64,
    /// What each round measured, where it is known.
    pub rounds: Vec<f64>,
    /// What it was measured beside, in the same rounds.
    pub baseline: Option<Baseline>,
    /// What it should reach, and whether it did.
    pub targets: Vec<Target>,
    /// What else there is to say.
    pub note: String,
}

/// What a row was measured beside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// What.
    pub name: String,
    /// Its median, in the unit of the row.
    pub median: f64,
    /// How many times as much the row has: the median of the ratios within each round, because what else the
    /// machine does changes from one round to the next and slows both alike.
    pub times: f64,
}

/// What a row should reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// In words, such as `≥ 50×`.
    pub text: String,
    /// Whether the median does.
    pub met: bool,
}

impl Row {
    /// A row of what the rounds measured.
    pub fn new(name: &str, unit: &str, rounds: &[f64]) -> Self {
        Self {
            name: name.to_owned(),
            unit: unit.to_owned(),
            median: median(rounds),
            lowest: rounds.iter().copied().fold(f64::INFINITY, f64::min),
            highest: rounds.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            rounds: rounds.to_vec(),
            baseline: None,
            targets: Vec::new(),
            note: String::new(),
        }
    }

    /// Beside a baseline that was measured in the same rounds.
    #[must_use]
    pub fn beside(mut self, name: &str, rounds: &[f64]) -> Self {
        let ratios: Vec<f64> = self.rounds.iter().zip(rounds).map(|(own, other)| own / other).collect();
        self.baseline =
            Some(Baseline { name: name.to_owned(), median: median(rounds), times: median(&ratios) });
        self
    }

    /// With a note.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    /// It should reach so much.
    #[must_use]
    pub fn at_least(self, limit: f64) -> Self {
        let met = self.median >= limit;
        let text = format!("≥ {} {}", number(limit), self.unit);
        self.target(text, met)
    }

    /// It should not exceed so much.
    #[must_use]
    pub fn at_most(self, limit: f64) -> Self {
        let met = self.median <= limit;
        let text = format!("≤ {} {}", number(limit), self.unit);
        self.target(text, met)
    }

    /// It should reach so many times the baseline.
    #[must_use]
    pub fn at_least_times(self, limit: f64) -> Self {
        let met = self.baseline.as_ref().is_some_and(|baseline| baseline.times >= limit);
        self.target(format!("≥ {limit}×"), met)
    }

    /// It should be so, in words.
    #[must_use]
    pub fn target(mut self, text: String, met: bool) -> Self {
        self.targets.push(Target { text, met });
        self
    }

    /// Whether it reaches all that it should; none without a target.
    pub fn met(&self) -> Option<bool> {
        (!self.targets.is_empty()).then(|| self.targets.iter().all(|target| target.met))
    }

    pub(crate) fn cells(&self) -> [String; 8] {
        let spread = if self.lowest < self.highest {
            format!("{} – {}", number(self.lowest), number(self.highest))
        } else {
            String::new()
        };
        let targets: Vec<&str> = self.targets.iter().map(|target| target.text.as_str()).collect();
        let met = match self.met() {
            Some(true) => "met",
            Some(false) => "missed",
            None => "",
        };
        let baseline = self.baseline.as_ref();
        [
            self.name.clone(),
            format!("{} {}", number(self.median), self.unit),
            spread,
            baseline.map_or_else(String::new, |baseline| {
                format!("{} {}", baseline.name, number(baseline.median))
            }),
            baseline.map_or_else(String::new, |baseline| format!("{:.1}×", baseline.times)),
            targets.join(", "),
            met.to_owned(),
            self.note.clone(),
        ]
    }
}

/// The middle value; of an even number of them the mean of the two in the middle.
pub fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.get(middle) {
        None => f64::NAN,
        Some(upper) if values.len() % 2 == 1 => *upper,
        Some(upper) => f64::midpoint(values[middle - 1], *upper),
    }
}

/// A figure with as many digits as mean something, its thousands apart.
fn number(value: f64) -> String {
    let decimals = match value.abs() {
        below if below < 10.0 => 2,
        below if below < 100.0 => 1,
        _ => 0,
    };
    let text = format!("{value:.decimals$}");
    let (whole, fraction) = match text.split_once('.') {
        Some((whole, fraction)) => (whole, fraction.trim_end_matches('0')),
        None => (text.as_str(), ""),
    };
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) && grouped != "-" {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if fraction.is_empty() { grouped } else { format!("{grouped}.{fraction}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn figures_are_readable() {
        let numbers = [0.123, 5.0, 12.34, 999.6, 1_234_567.0, -1_234.0];
        assert_eq!(numbers.map(number), ["0.12", "5", "12.3", "1,000", "1,234,567", "-1,234"]);
    }

    #[test]
    fn ratios_are_taken_within_rounds_and_targets_of_the_medians() {
        // A slow second round slows both alike.
        let row = Row::new("a row", "events/s", &[100.0, 10.0, 120.0])
            .beside("stock", &[10.0, 1.0, 10.0])
            .at_least(90.0)
            .at_least_times(10.0);
        assert_eq!(row.baseline.as_ref().map(|baseline| baseline.times), Some(10.0));
        assert_eq!((row.median, row.lowest, row.highest, row.met()), (100.0, 10.0, 120.0, Some(true)));
        assert_eq!(row.clone().at_most(99.0).met(), Some(false));
        assert_eq!(row.at_least_times(10.5).met(), Some(false));
        assert_eq!(Row::new("a row", "ms", &[1.0]).met(), None);
    }
}
