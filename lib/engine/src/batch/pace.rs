//! Pace of a batch: how long its steps take, and how many rows of prompts fit into the next one.

use std::collections::BTreeMap;
use std::time::Duration;

/// Time that prompts may add to a step, as a multiple of the time that its other tokens take.
const ADDED: f64 = 1.0;

/// The same beside a single sequence, where half of the time is the share of a prompt. A row of a short
/// chunk takes longer than one of a long chunk, so that a prompt keeps half of its speed by more than half
/// of the time; and the step stays below three times the token, even if it takes a fifth longer than the
/// steps before it.
const ADDED_BESIDE_ONE: f64 = 1.5;

/// Steps after which the time of a step without prompts is measured again.
const FRESH: u64 = 64;

/// Number of measured times that are kept.
const KEPT: usize = 3;

/// Work of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// Sequences that get a token after their first one.
    pub decoding: usize,
    /// Rows of prompts.
    pub rows: usize,
    /// True if a prompt is run in part.
    pub partial: bool,
}

/// Measured times of the steps of a batch.
#[derive(Debug, Default)]
pub struct Pace {
    /// Number of steps so far.
    steps: u64,
    /// Work of the last step.
    last: Work,
    /// Times of steps without prompts, by the power of two that the number of sequences comes to.
    decoding: BTreeMap<usize, Decoding>,
    /// Seconds that each row of prompts added to the last steps that had some; a step with fewer rows than
    /// a kernel takes at once counts as one with all of them.
    row: Vec<f64>,
    /// Rows of prompts in the last step that had some.
    rows: usize,
    /// Time of that step as a multiple of the time that its other tokens take; 0 without any.
    stretch: f64,
}

/// Times of steps without prompts.
#[derive(Debug, Default)]
struct Decoding {
    /// Times of the last ones, in seconds.
    times: Vec<f64>,
    /// Number of the last of these steps.
    step: u64,
}

impl Pace {
    /// Time of a step that gives a token to each of so many `sequences` and runs no prompts; `None` if a
    /// step has to measure it first.
    pub fn decoding(&self, sequences: usize) -> Option<Duration> {
        if sequences == 0 {
            return Some(Duration::ZERO);
        }
        let known = self.decoding.get(&sequences.next_power_of_two());
        let known = known.filter(|known| self.steps - known.step < FRESH)?;
        Some(Duration::from_secs_f64(known.time()))
    }

    /// Rows of prompts that fit into a step with the tokens of so many sequences, beside tokens that take
    /// `time`. A kernel multiplies `at_once` rows, 4 or more, in about the time of two: a step has a multiple
    /// of that if such a one is near, and prompts have half of it at least.
    pub fn rows(&self, time: Duration, sequences: usize, at_once: usize) -> usize {
        // Few rows may cost nothing beside the weights that are read anyway: what more of them cost is
        // found by twice as many at a time, as long as a step of twice the time is short enough.
        let more = if self.stretch > 1.5 { self.rows / 2 } else { self.rows };
        let most = at_once.max(self.rows + more);
        let last = self.row.last().copied().unwrap_or_default();
        let row = last.max(median(&self.row).unwrap_or_default());
        let added = if sequences == 1 { ADDED_BESIDE_ONE } else { ADDED };
        let fit = ((added * time.as_secs_f64() / row) as usize).clamp(at_once / 2, most);
        match (sequences + fit) / at_once * at_once {
            whole if whole >= sequences + fit / 2 => whole - sequences,
            _ => fit,
        }
    }

    /// Adds a step that took `time`; `done` is true if its rows of prompts were computed in that time.
    pub fn record(&mut self, work: Work, time: Duration, done: bool, at_once: usize) {
        self.steps += 1;
        let time = time.as_secs_f64();
        let key = work.decoding.next_power_of_two();
        let known = self.decoding.get(&key).filter(|_| work.decoding > 0);
        let decoding = if work.decoding == 0 { Some(0.0) } else { known.map(Decoding::time) };
        if work.rows > 0 {
            if let Some(decoding) = decoding.filter(|_| done) {
                let all = (work.decoding + work.rows).next_multiple_of(at_once);
                let row = (time - decoding).max(0.0) / (all - work.decoding) as f64;
                keep(&mut self.row, row);
                self.rows = work.rows;
                self.stretch = if decoding > 0.0 { time / decoding } else { 0.0 };
            }
        } else if work.decoding > 0 && self.last.rows == 0 && self.last.decoding > 0 {
            // On a GPU the first step after others only queues its work.
            let known = self.decoding.entry(key).or_default();
            keep(&mut known.times, time);
            known.step = self.steps;
        }
        self.last = work;
    }
}

impl Decoding {
    /// The shortest of the last times: another program that takes the cores makes some of them longer.
    fn time(&self) -> f64 {
        self.times.iter().copied().fold(f64::INFINITY, f64::min)
    }
}

/// Appends `new` to the last values.
fn keep(values: &mut Vec<f64>, new: f64) {
    if values.len() == KEPT {
        values.remove(0);
    }
    values.push(new);
}

/// Value in the middle, the lower one of two.
fn median(values: &[f64]) -> Option<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT_ONCE: usize = 8;

    /// Seconds of a step of so many `decoding` sequences and `rows` of prompts.
    type Cost = fn(usize, usize) -> f64;

    /// Kernels by number of rows, attention, weights that are read at any rate.
    const COSTS: [(&str, Cost); 3] = [
        ("even rows", |n, p| 0.003 + 0.001 * (n + p) as f64),
        ("a kernel for one row and one for eight", |n, p| match n + p {
            1 => 0.006,
            rows => 0.007 * rows.div_ceil(8) as f64 + 0.0009 * rows as f64,
        }),
        ("a GPU", |n, p| f64::max(0.006, 4e-5 * (n + p) as f64) + 1e-4 * n as f64),
    ];

    fn work(decoding: usize, rows: usize) -> Work {
        Work { decoding, rows, partial: rows > 0 }
    }

    /// Takes a step beside `decoding` sequences, and returns its rows and its seconds.
    fn step(pace: &mut Pace, cost: Cost, decoding: usize) -> (usize, f64) {
        let rows = pace.decoding(decoding).map_or(0, |time| pace.rows(time, decoding, AT_ONCE));
        let time = cost(decoding, rows);
        pace.record(work(decoding, rows), Duration::from_secs_f64(time), true, AT_ONCE);
        (rows, time)
    }

    #[test]
    fn prompts_make_a_step_three_times_as_long_at_most_and_get_their_share_of_it() {
        for (what, cost) in COSTS {
            let mut pace = Pace::default();
            let alone = work(0, 512);
            pace.record(alone, Duration::from_secs_f64(cost(0, 512)), true, AT_ONCE);
            for decoding in [1, 8, 3, 1] {
                let alone = cost(decoding, 0);
                let steps: Vec<(usize, f64)> =
                    (0..200).map(|_| step(&mut pace, cost, decoding)).collect();
                let longest = steps.iter().map(|(_, time)| *time).fold(0.0, f64::max);
                assert!(longest <= 3.0 * alone, "{what}, {decoding}: {longest} after {alone}");
                let all: f64 = steps.iter().map(|(_, time)| time).sum();
                let others = alone * steps.len() as f64;
                let share = 1.0 - others / all;
                assert!(share >= 1.0 / (decoding + 1) as f64, "{what}, {decoding}: {share}");
                assert!(steps.iter().filter(|(rows, _)| *rows == 0).count() <= 8, "{what}");
            }
        }
    }

    #[test]
    fn rows_fill_what_a_kernel_takes_at_once() {
        let mut pace = Pace::default();
        for (decoding, rows) in [(1, 7), (2, 6), (6, 8), (7, 8), (8, 8)] {
            assert_eq!(pace.rows(Duration::from_secs(1), decoding, AT_ONCE), rows);
        }
        for decoding in [1, 8] {
            let steps = (0..60).map(|_| step(&mut pace, COSTS[1].1, decoding).0);
            let rows = steps.filter(|rows| *rows > 0);
            assert!(rows.min() >= Some(5), "beside {decoding}");
        }
    }

    #[test]
    fn one_slow_step_slows_prompts_for_a_few() {
        let cost: Cost = |n, p| 0.004 * n as f64 + 0.001 * p as f64;
        let mut pace = Pace::default();
        let before = (0..20).map(|_| step(&mut pace, cost, 8).0).last().unwrap();
        let slow = Duration::from_secs(2);
        pace.record(work(8, before), slow, true, AT_ONCE);
        let after: Vec<usize> = (0..5).map(|_| step(&mut pace, cost, 8).0).collect();
        assert_eq!((before, after), (32, vec![4, 8, 16, 32, 32]));
        // A slow step without prompts changes nothing.
        pace.record(work(8, 0), slow, true, AT_ONCE);
        pace.record(work(8, 0), slow, true, AT_ONCE);
        assert_eq!(step(&mut pace, cost, 8).0, 32);
    }

    #[test]
    fn a_step_whose_time_is_unknown_or_old_is_measured_without_prompts() {
        let mut pace = Pace::default();
        assert_eq!(pace.decoding(0), Some(Duration::ZERO));
        assert_eq!(pace.decoding(3), None);
        let second = Duration::from_secs(1);
        for _ in 0..2 {
            pace.record(work(3, 0), second, true, AT_ONCE);
        }
        assert_eq!((pace.decoding(4), pace.decoding(5)), (Some(second), None));
        for _ in 0..FRESH {
            assert_eq!(pace.decoding(4), Some(second));
            pace.record(work(4, 10), 2 * second, true, AT_ONCE);
        }
        assert_eq!(pace.decoding(4), None);
    }
}
