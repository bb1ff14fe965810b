//! When what breaks, and for how long: all of it follows from the seed.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::ValueEnum;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::fault::Fault;

/// How long everything works before the first storm.
const OPENING: Duration = Duration::from_secs(3);
/// How long a storm lasts: faults begin in it, and may end after it.
const STORM: Duration = Duration::from_secs(16);
/// How long nothing begins to break between two storms.
const CALM: Duration = Duration::from_secs(12);
/// The longest pause between two faults of a storm.
const LONGEST_PAUSE_MS: u64 = 3_500;

/// A fault at its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// When it begins, from the start of the run.
    pub at: Duration,
    /// What breaks.
    pub fault: Fault,
    /// For how long.
    pub lasting: Duration,
    /// Decides which process, which link, which records.
    pub choice: u64,
}

/// Which faults are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection(BTreeSet<Fault>);

impl Selection {
    /// Those of `only`, or all when it is empty, but none of `without`.
    pub fn new(only: &[Fault], without: &[Fault]) -> Self {
        let wanted = if only.is_empty() { Fault::value_variants() } else { only };
        Self(wanted.iter().copied().filter(|fault| !without.contains(fault)).collect())
    }

    /// Whether a fault is wanted.
    pub fn has(&self, fault: Fault) -> bool {
        self.0.contains(&fault)
    }

    fn draw(&self, random: &mut StdRng) -> Option<Fault> {
        let all: u32 = self.0.iter().map(|fault| fault.weight()).sum();
        if all == 0 {
            return None;
        }
        let mut left = random.random_range(0..all);
        self.0.iter().copied().find(|fault| match left.checked_sub(fault.weight()) {
            Some(rest) => {
                left = rest;
                false
            }
            None => true,
        })
    }
}

/// The schedule of a run: storms of faults with calm between them, in the order of time.
pub fn schedule(seed: u64, lasting: Duration, wanted: &Selection) -> Vec<Step> {
    let mut random = stream(seed, "schedule");
    let mut steps = Vec::new();
    let mut storm = OPENING;
    while storm < lasting {
        let ends = (storm + STORM).min(lasting);
        let mut at = storm;
        while at < ends {
            let Some(fault) = wanted.draw(&mut random) else { return steps };
            let (shortest, longest) = fault.lasting_ms();
            let lasting = Duration::from_millis(random.random_range(shortest..=longest));
            steps.push(Step { at, fault, lasting, choice: random.random() });
            at += Duration::from_millis(random.random_range(50..=LONGEST_PAUSE_MS));
        }
        storm = ends + CALM;
    }
    steps
}

/// A stream of chance of its own for everybody who needs one, so that none disturbs another.
pub fn stream(seed: u64, name: &str) -> StdRng {
    let mixed = name.bytes().fold(seed ^ 0x9e37_79b9_7f4a_7c15, |mixed, byte| {
        (mixed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3).rotate_left(29)
    });
    StdRng::seed_from_u64(mixed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: Duration = Duration::from_secs(180);

    #[test]
    fn a_seed_decides_everything() {
        let all = Selection::new(&[], &[]);
        assert_eq!(schedule(7, RUN, &all), schedule(7, RUN, &all));
        assert_ne!(schedule(7, RUN, &all), schedule(8, RUN, &all));
    }

    #[test]
    fn every_fault_comes_within_a_few_runs_and_none_that_is_not_wanted() {
        let all = Selection::new(&[], &[]);
        let seen: BTreeSet<Fault> =
            (0..10).flat_map(|seed| schedule(seed, RUN, &all)).map(|step| step.fault).collect();
        assert_eq!(seen.len(), Fault::value_variants().len());
        let narrow = Selection::new(&[Fault::Kill, Fault::Pause], &[Fault::Pause]);
        let steps = schedule(3, RUN, &narrow);
        assert!(!steps.is_empty() && steps.iter().all(|step| step.fault == Fault::Kill));
        assert!(schedule(3, RUN, &Selection::new(&[Fault::Kill], &[Fault::Kill])).is_empty());
    }

    #[test]
    fn nothing_begins_in_a_calm() {
        let steps = schedule(5, RUN, &Selection::new(&[], &[]));
        let calm = OPENING + STORM..OPENING + STORM + CALM;
        assert!(steps.iter().all(|step| !calm.contains(&step.at)));
        assert!(steps.iter().any(|step| step.at >= calm.end));
    }
}
