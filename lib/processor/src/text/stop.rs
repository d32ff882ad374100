//! Stop strings in a stream of text: what may be shown, and when it is over.

/// Watches a text that arrives in pieces for strings that end it.
///
/// The string whose last character comes first wins, the longest of several that end there; so the
/// result does not depend on how the text is cut into pieces. No part of it is let through.
#[derive(Debug)]
pub struct Stop {
    strings: Vec<String>,
    held: String,
    /// Which of the strings came.
    found: Option<usize>,
}

/// What came of a piece.
#[derive(Debug, PartialEq)]
pub enum Passed {
    /// Text that is no part of a stop string; may be empty.
    Text(String),
    /// The last of the text before a stop string.
    Last(String),
}

impl Stop {
    /// Waits for any of `strings`; empty ones never occur.
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

    /// Whether text is held back.
    pub fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// The text held back, when no more comes.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// The string that ended the text, if one did.
    pub fn found(&self) -> Option<&str> {
        self.found.map(|found| self.strings[found].as_str())
    }

    /// Where the winning string starts, and which it is.
    fn first_match(&self) -> Option<(usize, usize)> {
        let found = self.strings.iter().enumerate().filter_map(|(which, string)| {
            let start = self.held.find(string.as_str())?;
            Some((start + string.len(), start, which))
        });
        found.min().map(|(_, start, which)| (start, which))
    }

    /// The bytes at the end that may be the start of a stop string.
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
