//! Stop strings in a stream of text.

/// Search for stop strings in a text that arrives in pieces.
///
/// The stop string that is complete first wins, the longest of several that end there, so the
/// result does not depend on how the text is cut into pieces. No part of the stop string is passed
/// on.
#[derive(Debug)]
pub struct Stop {
    strings: Vec<String>,
    held: String,
    /// Index of the stop string that was found.
    found: Option<usize>,
}

/// Text that a piece lets pass.
#[derive(Debug, PartialEq)]
pub enum Passed {
    /// Text that is not part of a stop string; may be empty.
    Text(String),
    /// Last text before a stop string.
    Last(String),
}

impl Stop {
    /// Search for any of `strings`; empty ones are never found.
    pub fn new(strings: impl IntoIterator<Item = String>) -> Stop {
        let strings = strings.into_iter().filter(|string| !string.is_empty()).collect();
        Stop { strings, held: String::new(), found: None }
    }

    /// Takes the next piece. After [`Passed::Last`] nothing is to follow.
    pub fn push(&mut self, piece: &str) -> Passed {
        self.held.push_str(piece);
        if let Some((start, found)) = self.first_match() {
            self.found = Some(found);
            self.held.truncate(start);
            return Passed::Last(std::mem::take(&mut self.held));
        }
        let open = self.held.split_off(self.held.len() - self.open());
        Passed::Text(std::mem::replace(&mut self.held, open))
    }

    /// True if text is held back.
    pub fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// Ends the text, and returns what was held back.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Stop string that ended the text, if one did.
    pub fn found(&self) -> Option<&str> {
        self.found.map(|found| self.strings[found].as_str())
    }

    /// Start and index of the stop string that is complete first.
    fn first_match(&self) -> Option<(usize, usize)> {
        let found = self.strings.iter().enumerate().filter_map(|(which, string)| {
            let start = self.held.find(string.as_str())?;
            Some((start + string.len(), start, which))
        });
        found.min().map(|(_, start, which)| (start, which))
    }

    /// Length of the end of the text with which a stop string may begin, in bytes.
    fn open(&self) -> usize {
        let open = |string: &String| {
            let starts = string.char_indices().map(|(at, _)| at).rev();
            starts.filter(|&at| at > 0).find(|&at| self.held.ends_with(&string[..at]))
        };
        self.strings.iter().filter_map(open).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test fails by panicking
    use super::*;

    /// The text shown, and whether it was ended.
    fn run<'a>(stops: &[&str], pieces: impl IntoIterator<Item = &'a str>) -> (String, bool) {
        let mut stop = Stop::new(stops.iter().map(|&string| string.to_owned()));
        let mut shown = String::new();
        for piece in pieces {
            match stop.push(piece) {
                Passed::Text(text) => shown += &text,
                Passed::Last(text) => return (shown + &text, true),
            }
        }
        (shown + &stop.finish(), false)
    }

    #[test]
    fn a_stop_string_split_over_pieces_ends_the_text_and_is_not_shown() {
        assert_eq!(run(&["\nUser:"], ["Hi", "!\n", "Us", "er", ": more"]), ("Hi!".into(), true));
        assert_eq!(run(&["aab"], ["aa", "a", "b"]), ("a".into(), true));
    }

    #[test]
    fn what_only_looked_like_one_is_shown_in_the_end() {
        assert_eq!(run(&["STOP"], ["ST", "ART ST"]), ("START ST".into(), false));
        let mut stop = Stop::new(["STOP".to_owned()]);
        assert_eq!(stop.push("a ST"), Passed::Text("a ".into()));
        assert_eq!(stop.push("x"), Passed::Text("STx".into()));
    }

    #[test]
    fn the_first_to_be_complete_wins_and_then_the_longest() {
        assert_eq!(run(&["b", "abc"], ["xabcd"]), ("xa".into(), true));
        assert_eq!(run(&["b", "ab"], ["xab"]), ("x".into(), true));
        assert_eq!(run(&[""], ["xab"]), ("xab".into(), false));
    }

    #[test]
    fn the_result_does_not_depend_on_the_pieces() {
        let text = "aéabaéca€abéaab";
        for stops in [&["abé"][..], &["éc", "caé"], &["ab", "aéa"], &["€a", "a€"], &["no"]]
        {
            let whole = run(stops, [text]);
            let cuts: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
            for &first in &cuts {
                for &second in cuts.iter().filter(|&&cut| cut >= first) {
                    let pieces = [&text[..first], &text[first..second], &text[second..]];
                    assert_eq!(run(stops, pieces), whole, "{stops:?} {pieces:?}");
                }
            }
        }
    }
}
