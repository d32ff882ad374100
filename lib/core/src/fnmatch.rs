//! Shell patterns as Python's `fnmatch` reads them; workspaces state what they leave out in these.

/// True if the whole of `name` matches `pattern`: `*`, `?`, `[abc]`, `[a-z]`, `[!abc]`.
///
/// Case counts, nothing escapes, and an unclosed bracket is a character like any other. (Glob crates
/// add braces, `**`, `[^...]` or backslashes, which would change what a hash covers.)
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

/// If the element of `pattern` at `p` matches `c`, where the next one begins.
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

/// Where the set that opens at `p` closes; a `]` that stands first in it is a member.
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

    /// Every expectation was taken from Python 3.12's `fnmatch.fnmatchcase`.
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

    #[test]
    fn many_stars_take_no_time() {
        assert!(!matches(&"*a".repeat(60), &("a".repeat(5000) + "b")));
    }
}
