//! Shares of prompts in the rows of a step.

/// Rows of a step of at most `budget` rows for each of the prompts of which so many tokens are `left`, the
/// oldest first; with a budget of 2 or more, the oldest and the shortest both get some.
///
/// The oldest has an equal share, so that no number of later prompts keeps it from its end. All else goes
/// to those with the fewest tokens left, which makes the mean time to a first token the shortest.
pub fn shares(left: &[usize], budget: usize) -> Vec<usize> {
    let mut rows = vec![0; left.len()];
    let Some(&oldest) = left.first() else { return rows };
    rows[0] = oldest.min(budget.div_ceil(left.len()));
    let mut rest = budget - rows[0];
    let mut shortest: Vec<usize> = (0..left.len()).collect();
    shortest.sort_by_key(|&place| left[place]);
    for place in shortest {
        let more = rest.min(left[place] - rows[place]);
        rows[place] += more;
        rest -= more;
    }
    rows
}

/// Rows of a step, at most `most`, that the prompts of which so many tokens are `left` share while no
/// other sequence waits for the step: so many that the shortest ends with its equal share.
pub fn rows_alone(left: &[usize], most: usize) -> usize {
    let shortest = left.iter().min().copied().unwrap_or_default();
    most.min(shortest.saturating_mul(left.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps after which each of the prompts has ended, if `later` joins before each step.
    fn ends(mut left: Vec<usize>, budget: usize, later: Option<usize>) -> Vec<usize> {
        let count = left.len();
        let mut ends = vec![0; count];
        for step in 1.. {
            left.extend(later);
            let waiting: Vec<usize> = (0..left.len()).filter(|&place| left[place] > 0).collect();
            let own: Vec<usize> = waiting.iter().map(|&place| left[place]).collect();
            for (place, rows) in waiting.into_iter().zip(shares(&own, budget)) {
                left[place] -= rows;
                if place < count && rows > 0 && left[place] == 0 {
                    ends[place] = step;
                }
            }
            if !ends.contains(&0) {
                return ends;
            }
            assert!(step < 10_000, "{ends:?}");
        }
        unreachable!()
    }

    #[test]
    fn a_prompt_alone_has_all_rows_and_no_row_is_left_over() {
        assert_eq!(shares(&[], 512), [0; 0]);
        assert_eq!(shares(&[3000], 512), [512]);
        assert_eq!(shares(&[100], 512), [100]);
        assert_eq!(shares(&[3000, 40], 0), [0, 0]);
        for budget in [2, 3, 7, 100, 512] {
            let left = [3000, 40, 700, 1, 40];
            let rows = shares(&left, budget);
            assert_eq!(rows.iter().sum::<usize>(), budget);
            assert!(rows.iter().zip(left).all(|(rows, left)| *rows <= left), "{rows:?}");
        }
    }

    #[test]
    fn the_shortest_goes_first_and_the_oldest_keeps_its_share() {
        assert_eq!(shares(&[3000, 40], 6), [3, 3]);
        assert_eq!(shares(&[3000, 40], 2), [1, 1]);
        assert_eq!(shares(&[3000, 40, 40, 40, 40], 10), [2, 8, 0, 0, 0]);
        assert_eq!(shares(&[3000, 900, 40, 3], 100), [25, 32, 40, 3]);
        // Among equals the oldest is first.
        assert_eq!(shares(&[500, 500, 500], 300), [300, 0, 0]);
    }

    #[test]
    fn short_prompts_end_long_before_a_long_one_which_ends_hardly_later() {
        assert_eq!(ends(vec![3000, 40, 40, 40, 40], 10, None), [316, 5, 11, 18, 26]);
    }

    #[test]
    fn short_prompts_without_end_cost_an_older_one_no_more_than_its_share() {
        for (left, budget) in [(vec![300], 10), (vec![300], 2), (vec![300, 290, 50], 10)] {
            let alone = left.iter().sum::<usize>().div_ceil(budget);
            // As many rows come as there are: not one is free.
            let ends = ends(left.clone(), budget, Some(budget / 2));
            let most = ends.iter().max().unwrap();
            assert!(*most <= 4 * alone, "{left:?} by {budget}: {ends:?} of {alone}");
        }
    }

    #[test]
    fn a_step_that_nobody_else_waits_for_ends_with_the_shortest_prompt() {
        assert_eq!(rows_alone(&[3000], 512), 512);
        assert_eq!(rows_alone(&[3000, 40], 512), 80);
        assert_eq!(shares(&[3000, 40], 80), [40, 40]);
        assert_eq!(rows_alone(&[3000, 40, 40, 40, 40], 512), 200);
        assert_eq!(shares(&[3000, 40, 40, 40, 40], 200), [40; 5]);
        assert_eq!(rows_alone(&[3000, 2000], 512), 512);
        assert_eq!(rows_alone(&[], 512), 0);
    }
}
