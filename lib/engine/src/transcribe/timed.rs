//! Tokens with times, and the union of those of overlapping parts of a recording.

use std::ops::Range;

/// Token with the rows of an encoder that it covers, counted from the start of the recording.
#[derive(Clone, Debug, PartialEq)]
pub struct TimedToken {
    /// Id of the token.
    pub id: u32,
    /// Rows of the token.
    pub rows: Range<usize>,
    /// Probability of the token.
    pub probability: f32,
}

impl TimedToken {
    /// Token that covers `rows`.
    pub fn new(id: u32, rows: Range<usize>, probability: f32) -> TimedToken {
        TimedToken { id, rows, probability }
    }

    /// Lets the token end at row `end`, in the last of which its probability is `probability`; the
    /// larger one counts.
    pub fn extend(&mut self, end: usize, probability: f32) {
        self.rows.end = end;
        self.probability = self.probability.max(probability);
    }
}

/// Appends the tokens `next` of a part of a recording to `all`, those before; both know the rows
/// `shared`. Equal tokens of about the same time in both are found as the longest common
/// subsequence, and the one nearest to the middle of the shared rows is where the parts are joined:
/// either part knows least of its own edge. Without common tokens they are joined in the middle.
pub fn join(all: &mut Vec<TimedToken>, next: Vec<TimedToken>, shared: &Range<usize>) {
    let middle = (shared.start + shared.end) / 2;
    let first = all.partition_point(|token| token.rows.start < shared.start);
    let end = next.partition_point(|token| token.rows.start < shared.end);
    let distance = |start: usize| start.abs_diff(middle);
    let pair = common(&all[first..], &next[..end], shared.len() / 2)
        .into_iter()
        .min_by_key(|&[i, _]| distance(all[first + i].rows.start));
    let (kept, from) = match pair {
        Some([i, j]) => (first + i, j),
        None => {
            let before = |token: &TimedToken| token.rows.start < middle;
            (all.partition_point(before), next.partition_point(before))
        }
    };
    all.truncate(kept);
    all.extend(next.into_iter().skip(from));
}

/// Longest common subsequence of two lists of tokens, as pairs of places: tokens are equal if they
/// start fewer than `near` rows apart.
fn common(a: &[TimedToken], b: &[TimedToken], near: usize) -> Vec<[usize; 2]> {
    let equal =
        |i: usize, j: usize| a[i].id == b[j].id && a[i].rows.start.abs_diff(b[j].rows.start) < near;
    // lengths[i][j] is that of the rests a[i..] and b[j..].
    let mut lengths = vec![vec![0_usize; b.len() + 1]; a.len() + 1];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            lengths[i][j] = match equal(i, j) {
                true => lengths[i + 1][j + 1] + 1,
                false => lengths[i + 1][j].max(lengths[i][j + 1]),
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut pairs = Vec::new();
    while i < a.len() && j < b.len() {
        if equal(i, j) {
            pairs.push([i, j]);
            (i, j) = (i + 1, j + 1);
        } else if lengths[i + 1][j] >= lengths[i][j + 1] {
            i += 1;
        } else {
            j += 1;
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(list: &[(u32, usize)]) -> Vec<TimedToken> {
        list.iter().map(|&(id, row)| TimedToken::new(id, row..row + 1, 1.0)).collect()
    }

    fn joined(all: &[(u32, usize)], next: &[(u32, usize)], shared: Range<usize>) -> Vec<u32> {
        let mut all = tokens(all);
        join(&mut all, tokens(next), &shared);
        all.iter().map(|token| token.id).collect()
    }

    #[test]
    fn parts_are_joined_at_a_token_that_both_heard() {
        let before = [(1, 0), (2, 10), (3, 20), (4, 24), (9, 29)];
        let after = [(8, 20), (3, 21), (4, 24), (5, 28), (6, 40)];
        assert_eq!(joined(&before, &after, 20..30), [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn parts_without_common_tokens_are_joined_in_the_middle() {
        let before = [(1, 0), (2, 22), (3, 27)];
        let after = [(7, 21), (5, 26), (6, 40)];
        assert_eq!(joined(&before, &after, 20..30), [1, 2, 5, 6]);
        assert_eq!(joined(&before, &[], 20..30), [1, 2]);
        assert_eq!(joined(&[], &after, 20..30), [5, 6]);
    }

    #[test]
    fn a_word_said_twice_stays_twice() {
        let before = [(1, 0), (2, 21), (2, 27)];
        let after = [(2, 21), (2, 27), (6, 40)];
        assert_eq!(joined(&before, &after, 20..30), [1, 2, 2, 6]);
    }
}
