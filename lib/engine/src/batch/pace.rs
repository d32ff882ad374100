//! Pace of a batch: how long its steps take, and how many rows of prompts fit into the next one.

use std::collections::BTreeMap;
use std::time::Duration;

/// Time that prompts may add to a step, as a multiple of the time that its other tokens take.
const ADDED: f64 = 1.25;

/// Steps after which the time of a step without prompts is measured again.
const FRESH: u64 = 64;

/// Rows that a step may have whatever the one before had; a kernel for a few rows takes so many at once.
const FEW: usize = 8;

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
    /// Times of a row of a prompt in the last two steps that had some, in seconds.
    row: Vec<f64>,
    /// Rows of prompts in the last step that had some.
    rows: usize,
}

/// Times of steps without prompts.
#[derive(Debug, Default)]
struct Decoding {
    /// Times of the last three, in seconds.
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
        Some(Duration::from_secs_f64(least(&known.times)))
    }

    /// Rows of prompts, 2 or more, that fit into a step beside tokens that take `time`.
    pub fn rows(&self, time: Duration) -> usize {
        // Few rows may cost nothing beside the weights that are read anyway: what more of them cost is
        // found by twice as many at a time.
        let most = (2 * self.rows).max(FEW);
        let row = self.row.iter().copied().fold(0.0, f64::max);
        ((ADDED * time.as_secs_f64() / row) as usize).clamp(2, most)
    }

    /// Adds a step that took `time`; `done` is true if its rows of prompts were computed in that time.
    pub fn record(&mut self, work: Work, time: Duration, done: bool) {
        self.steps += 1;
        let time = time.as_secs_f64();
        let key = work.decoding.next_power_of_two();
        if work.rows > 0 {
            let decoding = self.decoding.get(&key).filter(|_| work.decoding > 0);
            let known = work.decoding == 0 || decoding.is_some();
            if done && known {
                let others = decoding.map_or(0.0, |known| least(&known.times));
                keep(&mut self.row, (time - others).max(0.0) / work.rows as f64, 2);
                self.rows = work.rows;
            }
        } else if work.decoding > 0 && self.last.rows == 0 && self.last.decoding > 0 {
            // On a GPU the first step after others only queues its work.
            let known = self.decoding.entry(key).or_default();
            keep(&mut known.times, time, 3);
            known.step = self.steps;
        }
        self.last = work;
    }
}

/// Appends `new` to the last `most - 1` values.
fn keep(values: &mut Vec<f64>, new: f64, most: usize) {
    if values.len() == most {
        values.remove(0);
    }
    values.push(new);
}

fn least(times: &[f64]) -> f64 {
    times.iter().copied().fold(f64::INFINITY, f64::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds of a step of so many `decoding` sequences and `rows` of prompts.
    type Cost = fn(usize, usize) -> f64;

    /// Kernels by number of rows, attention, weights that are read at any rate.
    const COSTS: [(&str, Cost); 4] = [
        ("a small model on a CPU", |n, p| 0.003 + 0.001 * (n + p) as f64),
        ("blocks of 8 rows", |n, p| 0.002 + 0.008 * (n + p).div_ceil(8) as f64),
        ("a GPU", |n, p| f64::max(0.006, 4e-5 * (n + p) as f64) + 1e-4 * n as f64),
        ("a slow row", |n, p| 0.01 * n as f64 + 0.02 * p as f64),
    ];

    fn work(decoding: usize, rows: usize) -> Work {
        Work { decoding, rows, partial: rows > 0 }
    }

    /// Takes a step beside `decoding` sequences, and returns its rows and its seconds.
    fn step(pace: &mut Pace, cost: Cost, decoding: usize) -> (usize, f64) {
        let rows = pace.decoding(decoding).map_or(0, |time| pace.rows(time));
        let time = cost(decoding, rows);
        pace.record(work(decoding, rows), Duration::from_secs_f64(time), true);
        (rows, time)
    }

    #[test]
    fn prompts_leave_others_their_pace_and_get_half_of_the_time() {
        for (what, cost) in COSTS {
            let mut pace = Pace::default();
            let alone = work(0, 512);
            pace.record(alone, Duration::from_secs_f64(cost(0, 512)), true);
            for decoding in [1, 8, 3, 1] {
                let alone = cost(decoding, 0);
                let steps: Vec<(usize, f64)> =
                    (0..200).map(|_| step(&mut pace, cost, decoding)).collect();
                let longest = steps.iter().map(|(_, time)| *time).fold(0.0, f64::max);
                assert!(longest <= 3.0 * alone + 1e-9 || what == "a slow row", "{what}: {longest}");
                let all: f64 = steps.iter().map(|(_, time)| time).sum();
                let others = alone * steps.len() as f64;
                assert!(all - others >= 0.45 * all, "{what}, {decoding}: {others} of {all}");
                assert!(steps.iter().filter(|(rows, _)| *rows == 0).count() <= 8, "{what}");
            }
        }
    }

    #[test]
    fn one_slow_step_slows_prompts_for_no_more_than_two() {
        let cost: Cost = |n, p| 0.004 * n as f64 + 0.001 * p as f64;
        let mut pace = Pace::default();
        let before = (0..20).map(|_| step(&mut pace, cost, 1).0).last().unwrap();
        pace.record(work(1, before), Duration::from_secs(2), true);
        let after: Vec<usize> = (0..4).map(|_| step(&mut pace, cost, 1).0).collect();
        assert_eq!((before, after), (5, vec![2, 2, 5, 5]));
        // A slow step without prompts changes nothing.
        pace.record(work(1, 0), Duration::from_secs(2), true);
        pace.record(work(1, 0), Duration::from_secs(2), true);
        assert_eq!(step(&mut pace, cost, 1).0, 5);
    }

    #[test]
    fn a_step_whose_time_is_unknown_or_old_is_measured_without_prompts() {
        let mut pace = Pace::default();
        assert_eq!(pace.decoding(0), Some(Duration::ZERO));
        assert_eq!(pace.decoding(3), None);
        let second = Duration::from_secs(1);
        for _ in 0..2 {
            pace.record(work(3, 0), second, true);
        }
        assert_eq!((pace.decoding(4), pace.decoding(5)), (Some(second), None));
        for _ in 0..FRESH {
            assert_eq!(pace.decoding(4), Some(second));
            pace.record(work(4, 10), 2 * second, true);
        }
        assert_eq!(pace.decoding(4), None);
    }
}
