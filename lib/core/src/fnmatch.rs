//! Shell patterns with the rules of Python's `fnmatch`, which the exclusions of workspaces follow.

/// True if all of `name` matches `pattern`: `*`, `?`, `[abc]`, `[a-z]`, `[!abc]`.
///
/// Case matters, no character escapes another, and an unclosed bracket matches itself. Crates for
/// globs add braces, `**`, `[^...]` or backslashes, which would change what a content hash covers.
/// The time is at most the product of both lengths, since only the last `*` is tried again.
pub fn matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    let (mut p, mut n) = (0, 0);
    let mut star = None;
    loop {
        if pattern.get(p) == Some(&'*') {
            star = Some((p + 1, n));
            p += 1;
        } else if n == name.len() {
            return p == pattern.len();
        } else if let Some(next) = one(&pattern, p, name[n]) {
            (p, n) = (next, n + 1);
        } else if let Some((after, from)) = star {
            star = Some((after, from + 1));
            (p, n) = (after, from + 1);
        } else {
            return false;
        }
    }
}

/// The start of the next element if the element of `pattern` at `p` matches `c`.
fn one(pattern: &[char], p: usize, c: char) -> Option<usize> {
    match *pattern.get(p)? {
        '?' => Some(p + 1),
        '[' => match close(pattern, p) {
            Some(end) => in_set(&pattern[p + 1..end], c).then_some(end + 1),
            None => (c == '[').then_some(p + 1),
        },
        literal => (c == literal).then_some(p + 1),
    }
}

/// The closing bracket of the set that opens at `p`; a `]` in first place is a member of the set.
fn close(pattern: &[char], p: usize) -> Option<usize> {
    let first = p + 1 + usize::from(pattern.get(p + 1) == Some(&'!'));
    let rest = pattern.get(first + 1..)?;
    Some(first + 1 + rest.iter().position(|c| *c == ']')?)
}

fn in_set(set: &[char], c: char) -> bool {
    let (negated, mut members) = match set.split_first() {
        Some(('!', members)) => (true, members),
        _ => (false, set),
    };
    let mut found = false;
    while let Some((first, rest)) = members.split_first() {
        (found, members) = match rest {
            ['-', last, rest @ ..] => (found || (*first..=*last).contains(&c), rest),
            rest => (found || *first == c, rest),
        };
    }
    found != negated
}

#[cfg(test)]
mod tests {
    use super::matches;

    /// The expectations are results of `fnmatch.fnmatchcase` of Python 3.12.
    #[test]
    fn agrees_with_python() {
        let yes = [
            ("*.tmp", ".tmp"),
            ("._*", "._x"),
            (".*.sw?", ".a.swp"),
            ("*~", "x~"),
            ("$R.BIN", "$R.BIN"),
            ("Icon\r", "Icon\r"),
            ("*a*b*c", "xaxbxbxc"),
            ("**", ""),
            ("[!a]", "b"),
            ("[]]", "]"),
            ("[!]]", "x"),
            ("[a-c]x", "bx"),
            ("[a-]", "-"),
            ("[a-c-e]", "-"),
            ("[^a]", "^"),
            ("[^a]", "a"),
            ("[abc", "[abc"),
            ("{a,b}", "{a,b}"),
            ("\\*", "\\x"),
            ("é?", "éü"),
            ("a*", "a/b"),
        ];
        let no = [
            ("*.tmp", "a.tmp2"),
            ("a", "A"),
            ("?", ""),
            ("[!a]", "a"),
            ("[a-c-e]", "d"),
            ("[c-a]", "b"),
            ("[]", "x"),
            ("[^a]", "b"),
            ("{a,b}", "a"),
            ("", "x"),
        ];
        yes.iter().for_each(|(pattern, name)| assert!(matches(pattern, name), "{pattern} {name}"));
        no.iter().for_each(|(pattern, name)| assert!(!matches(pattern, name), "{pattern} {name}"));
    }

    /// Patterns of many stars have many ways to fail; a search of all of them would not end.
    #[test]
    fn many_stars_match_as_their_meaning_says() {
        let stars = "*a".repeat(60);
        for count in [0, 59, 60, 61, 5000] {
            assert_eq!(matches(&stars, &"a".repeat(count)), count >= 60, "{count}");
            assert!(!matches(&stars, &("a".repeat(count) + "b")), "{count} before another letter");
            assert_eq!(matches(&(stars.clone() + "*"), &("a".repeat(count) + "b")), count >= 60);
        }
    }
}
