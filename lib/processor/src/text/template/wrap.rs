//! Lines of a width, as Python's `textwrap.wrap` breaks them.

/// Lines of `text` with at most `width` characters; longer words are broken if `long`, words are
/// broken after their hyphens if `hyphens`.
pub fn wrap(text: &str, width: usize, long: bool, hyphens: bool) -> Vec<String> {
    let mut chunks: Vec<Vec<char>> = chunks(text, hyphens);
    chunks.reverse();
    let blank = |chunk: &[char]| chunk.iter().all(|c| c.is_whitespace());
    let mut lines = Vec::new();
    while let Some(first) = chunks.last() {
        if !lines.is_empty() && blank(first) {
            chunks.pop();
        }
        let mut line: Vec<Vec<char>> = Vec::new();
        let mut length = 0;
        while let Some(chunk) = chunks.pop_if(|chunk| length + chunk.len() <= width) {
            length += chunk.len();
            line.push(chunk);
        }
        if let Some(chunk) = chunks.last_mut().filter(|chunk| chunk.len() > width) {
            let space = (width - length).max(usize::from(width < 1));
            if long {
                let mut end = space;
                if hyphens && chunk.len() > space {
                    let hyphen =
                        chunk[..space].iter().rposition(|c| *c == '-').filter(|at| *at > 0);
                    let hyphen = hyphen.filter(|at| chunk[..*at].iter().any(|c| *c != '-'));
                    end = hyphen.map_or(end, |at| at + 1);
                }
                let rest = chunk.split_off(end);
                line.push(std::mem::replace(chunk, rest));
            } else if line.is_empty() {
                line.extend(chunks.pop());
            }
        }
        if line.last().is_some_and(|chunk| blank(chunk)) {
            line.pop();
        }
        if !line.is_empty() {
            lines.push(line.concat().into_iter().collect());
        }
    }
    lines
}

/// Words, the whitespace between them, and the parts of words that end with a hyphen or a dash.
fn chunks(text: &str, hyphens: bool) -> Vec<Vec<char>> {
    let space = |c: char| "\t\n\u{b}\u{c}\r ".contains(c);
    let mut chunks: Vec<Vec<char>> = Vec::new();
    for c in text.chars() {
        match chunks.last_mut() {
            Some(last) if last.last().is_some_and(|l| space(*l) == space(c)) => last.push(c),
            _ => chunks.push(vec![c]),
        }
    }
    if !hyphens {
        return chunks;
    }
    chunks.into_iter().flat_map(|chunk| hyphenated(&chunk)).collect()
}

fn hyphenated(word: &[char]) -> Vec<Vec<char>> {
    let letter = |at: usize| word.get(at).is_some_and(|c| c.is_alphabetic());
    let (mut parts, mut start) = (Vec::new(), 0);
    for at in 0..word.len() {
        // A hyphen after two letters, or after a letter and a hyphen, and before two of these.
        let before = at >= start + 2 && letter(at - 1) && (letter(at - 2) || word[at - 2] == '-');
        let after = letter(at + 1) && (letter(at + 2) || word.get(at + 2) == Some(&'-'));
        if word[at] == '-' && before && after {
            parts.push(word[start..=at].to_vec());
            start = at + 1;
        }
    }
    parts.push(word[start..].to_vec());
    parts
}
