//! Patterns of strings: those with look-ahead, and complements, as patterns that a lexer reads.
//!
//! Lexers know neither look-ahead nor complements in the text of a pattern. Both are regular, so they
//! become an automaton, and that a pattern.

use std::collections::BTreeSet;

use llguidance::derivre::{RegexAst, RegexBuilder};
use llguidance::regex_to_lark;
use regex_syntax::hir::{Class, Hir, HirKind};

use super::automaton::{self, TOO_LARGE, first_line};
use super::budget::Budget;

/// Reason to refuse a pattern that is not regular, or has anchors in unusual places.
const UNKNOWN: &str = "a look-around, an anchor or a reference that cannot be enforced";

/// Maximum number of parts that a pattern is taken apart to.
const MAX_SIZE: usize = 100;

/// Maximum depth of nested groups.
const MAX_DEPTH: usize = 50;

/// Any text.
const ANY: &str = "(?s:.*)";

/// Patterns without look-ahead that a string matches all of if and only if it matches `pattern`.
///
/// # Errors
/// The reason, if the pattern is malformed or cannot be expressed so.
pub fn plain(pattern: &str, budget: &Budget) -> Result<Vec<String>, String> {
    if !["(?=", "(?!", "(?<=", "(?<!"].iter().any(|look| pattern.contains(look)) {
        let mut builder = RegexBuilder::new();
        builder
            .mk_regex_for_serach(&regex_to_lark(pattern, "dw"))
            .map_err(|e| first_line(&e.to_string()))?;
        return Ok(vec![pattern.to_owned()]);
    }
    let node = parse(pattern)?;
    match Language::of(&node, false)?.pattern(budget) {
        Ok(pattern) => Ok(vec![pattern]),
        Err(why) => conditions(&node, budget).unwrap_or(Err(why)),
    }
}

/// Patterns of a pattern that looks ahead from its start only, each condition by itself; none if it
/// is another one.
fn conditions(node: &Node, budget: &Budget) -> Option<Result<Vec<String>, String>> {
    let Node::Concat(nodes) = node else { return None };
    let first = nodes.iter().position(|node| !matches!(node, Node::Start | Node::Look { .. }))?;
    let (heads, rest) = nodes.split_at(first);
    let rest = rest.iter().map(Node::text).collect::<Option<String>>()?;
    matches!(heads.first()?, Node::Start).then_some(())?;
    let looks = heads.iter().filter(|node| matches!(node, Node::Look { .. }));
    let looks = looks.map(|look| Language::of(look, true)?.pattern(budget));
    let rest = plain(&format!("^{rest}"), budget).map(|mut all| all.remove(0));
    Some(std::iter::once(rest).chain(looks).collect())
}

/// Pattern of the strings that do not match `pattern`.
///
/// # Errors
/// The reason, if the pattern is malformed or cannot be expressed so.
pub fn complement(pattern: &str, budget: &Budget) -> Result<String, String> {
    let Language { ast, cuts } = Language::of(&parse(pattern)?, false)?;
    Language { ast: not(ast), cuts }.pattern(budget)
}

/// Pattern of all strings but `strings`.
///
/// # Errors
/// The reason, if they are too many.
pub fn excluding(strings: &[&str], budget: &Budget) -> Result<String, String> {
    let each = strings.iter().map(|text| RegexAst::Literal((*text).to_owned())).collect();
    let mut cuts = Cuts::default();
    strings.iter().flat_map(|text| text.chars()).for_each(|c| cuts.insert(c, c));
    Language { ast: not(RegexAst::Or(each)), cuts }.pattern(budget)
}

/// Pattern of the strings of a format; none for other formats. Dates and times are those of RFC 3339
/// without leap seconds, which few programs know; parts of names and of addresses are as long as all
/// programs take them.
pub fn of_format(format: &str) -> Option<String> {
    const YEAR: &str = "(?:[0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)";
    const DAY: &str = "(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|\
        (?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))";
    const LEAP: &str =
        "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)-02-29";
    const TIME: &str = "(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,9})?\
        (?:[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])";
    const LABEL: &str = "[a-zA-Z0-9](?:-?[a-zA-Z0-9]){0,30}";
    const LOCAL: &str = "[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]";
    match format {
        "date" => Some(format!("^(?:{YEAR}-{DAY}|{LEAP})$")),
        "time" => Some(format!("^{TIME}$")),
        "date-time" => Some(format!("^(?:{YEAR}-{DAY}|{LEAP})[Tt]{TIME}$")),
        "hostname" => Some(format!(r"^{LABEL}(?:\.{LABEL}){{0,3}}$")),
        "email" => Some(format!(
            r"^{LOCAL}{{1,32}}(?:\.{LOCAL}{{1,15}}){{0,2}}@{LABEL}(?:\.{LABEL}){{0,3}}$"
        )),
        _ => None,
    }
}

/// Node of a pattern, as far as look-ahead is concerned.
enum Node {
    /// Text of a pattern without look-ahead and anchors.
    Raw(String),
    Concat(Vec<Node>),
    Either(Vec<Node>),
    Look {
        negative: bool,
        body: Box<Node>,
    },
    Start,
    End,
}

fn parse(pattern: &str) -> Result<Node, String> {
    let mut parser = PatternParser { rest: pattern, depth: 0 };
    let node = parser.either()?;
    if parser.rest.is_empty() { Ok(node) } else { Err("unopened group".to_owned()) }
}

struct PatternParser<'a> {
    rest: &'a str,
    depth: usize,
}

impl<'a> PatternParser<'a> {
    fn take(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// Reads alternatives, up to the end of a group.
    fn either(&mut self) -> Result<Node, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(TOO_LARGE.to_owned());
        }
        let mut all = vec![self.concat()?];
        while self.take("|") {
            all.push(self.concat()?);
        }
        self.depth -= 1;
        Ok(match all.len() {
            1 => all.remove(0),
            _ => Node::Either(all),
        })
    }

    fn concat(&mut self) -> Result<Node, String> {
        let mut nodes: Vec<Node> = Vec::new();
        while !self.rest.is_empty() && !self.rest.starts_with(['|', ')']) {
            match (self.item()?, nodes.last_mut()) {
                (Node::Raw(text), Some(Node::Raw(last))) => last.push_str(&text),
                (node, _) => nodes.push(node),
            }
        }
        Ok(match nodes.len() {
            1 => nodes.remove(0),
            _ => Node::Concat(nodes),
        })
    }

    fn item(&mut self) -> Result<Node, String> {
        for (token, negative) in [("(?=", false), ("(?!", true)] {
            if self.take(token) {
                let body = Box::new(self.group()?);
                return Ok(Node::Look { negative, body });
            }
        }
        if self.take("^") {
            return Ok(Node::Start);
        }
        if self.take("$") {
            return Ok(Node::End);
        }
        if !self.rest.starts_with('(') {
            let atom = self.atom();
            return Ok(Node::Raw(format!("{atom}{}", self.quantifier())));
        }
        let before = self.rest;
        self.take("(");
        self.opening()?;
        let inside = self.group()?;
        let text = &before[..before.len() - self.rest.len()];
        let quantifier = self.quantifier();
        match (inside, quantifier) {
            (inside, "") if !inside.is_raw() => Ok(inside),
            (inside, "?") if !inside.is_raw() => {
                Ok(Node::Either(vec![inside, Node::Concat(Vec::new())]))
            }
            (inside, quantifier) if inside.is_raw() => Ok(Node::Raw(format!("{text}{quantifier}"))),
            _ => Err(UNKNOWN.to_owned()),
        }
    }

    /// Reads what may follow the parenthesis that opens a group.
    fn opening(&mut self) -> Result<(), String> {
        if !self.rest.starts_with('?') || self.take("?:") {
            return Ok(());
        }
        let named = ["?<", "?P<"].iter().any(|start| self.take(start));
        if !named || self.rest.starts_with(['=', '!']) {
            return Err(UNKNOWN.to_owned());
        }
        self.rest = self.rest.split_once('>').ok_or("unclosed name")?.1;
        Ok(())
    }

    /// Reads the rest of a group.
    fn group(&mut self) -> Result<Node, String> {
        let inside = self.either()?;
        if self.take(")") { Ok(inside) } else { Err("unclosed group".to_owned()) }
    }

    /// Reads a character, an escape or a class.
    fn atom(&mut self) -> &'a str {
        let mut chars = self.rest.char_indices();
        let mut escaped = false;
        let class = self.rest.starts_with('[');
        let mut end = self.rest.len();
        for (at, c) in chars.by_ref() {
            let next = at + c.len_utf8();
            // A bracket closes a class, unless it is the first in it.
            let first = at == 1 || at == 2 && self.rest.starts_with("[^");
            let over = if class { c == ']' && !first } else { c != '\\' };
            if over && !escaped || escaped && !class {
                end = next;
                break;
            }
            escaped = c == '\\' && !escaped;
        }
        if self.rest.starts_with('\\') && self.rest[..end].ends_with(['x', 'u', 'p', 'P']) {
            let rest = &self.rest[end..];
            let digits = if self.rest[..end].ends_with('x') { 2 } else { 4 };
            end += match rest.strip_prefix('{') {
                Some(inside) => inside.find('}').map_or(rest.len(), |at| at + 2),
                None if self.rest[..end].ends_with(['p', 'P']) => 1.min(rest.len()),
                None => rest.chars().take(digits).take_while(char::is_ascii_hexdigit).count(),
            };
        }
        let (atom, rest) = self.rest.split_at(end);
        self.rest = rest;
        atom
    }

    fn quantifier(&mut self) -> &'a str {
        let braces = || Some(self.rest.strip_prefix('{')?.find('}')? + 2);
        let first = match self.rest.starts_with(['*', '+', '?']) {
            true => 1,
            false => braces().unwrap_or(0),
        };
        let lazy = first > 0 && self.rest[first..].starts_with('?');
        let (quantifier, rest) = self.rest.split_at(first + usize::from(lazy));
        self.rest = rest;
        quantifier
    }
}

impl Node {
    /// Text of a node without look-ahead, and of the end.
    fn text(&self) -> Option<&str> {
        match self {
            Node::Raw(text) => Some(text),
            Node::End => Some("$"),
            _ => None,
        }
    }

    fn is_raw(&self) -> bool {
        match self {
            Node::Raw(_) => true,
            Node::Concat(nodes) | Node::Either(nodes) => nodes.iter().all(Node::is_raw),
            Node::Look { .. } | Node::Start | Node::End => false,
        }
    }

    /// Texts that the node may begin with, each followed by `after`. `start` is true at the start
    /// of the string.
    fn before(&self, start: bool, after: RegexAst, size: &mut usize) -> Result<RegexAst, String> {
        *size += 1;
        if *size > MAX_SIZE {
            return Err(TOO_LARGE.to_owned());
        }
        Ok(match self {
            Node::Raw(text) => {
                RegexAst::Concat(vec![RegexAst::Regex(regex_to_lark(text, "dw")), after])
            }
            Node::Concat(nodes) => {
                let free = |node: &Node| matches!(node, Node::Start | Node::Look { .. });
                let first = nodes.iter().position(|node| !free(node)).unwrap_or(nodes.len());
                let mut all = after;
                for (at, node) in nodes.iter().enumerate().rev() {
                    all = node.before(start && at <= first, all, size)?;
                }
                all
            }
            Node::Either(nodes) => {
                let each = nodes.iter().map(|node| node.before(start, after.clone(), size));
                RegexAst::Or(each.collect::<Result<_, _>>()?)
            }
            Node::Look { negative, body } => {
                let ahead = body.before(start, any(), size)?;
                RegexAst::And(vec![if *negative { not(ahead) } else { ahead }, after])
            }
            Node::Start if start => after,
            Node::Start => RegexAst::NoMatch,
            Node::End => RegexAst::And(vec![RegexAst::EmptyString, after]),
        })
    }

    /// Adds the bounds of all characters and classes.
    fn cut(&self, cuts: &mut Cuts) -> Result<(), String> {
        match self {
            Node::Raw(text) => {
                let text = regex_to_lark(text, "dw");
                let hir = regex_syntax::Parser::new().parse(&text);
                cuts.insert_all(&hir.map_err(|e| first_line(&e.to_string()))?);
            }
            Node::Concat(nodes) | Node::Either(nodes) => {
                for node in nodes {
                    node.cut(cuts)?;
                }
            }
            Node::Look { body, .. } => body.cut(cuts)?,
            Node::Start | Node::End => {}
        }
        Ok(())
    }
}

/// First characters of the ranges between which a pattern tells characters apart.
#[derive(Default)]
struct Cuts(BTreeSet<u32>);

impl Cuts {
    fn insert(&mut self, first: char, last: char) {
        self.0.extend([first as u32, last as u32 + 1]);
    }

    fn insert_all(&mut self, hir: &Hir) {
        match hir.kind() {
            HirKind::Literal(literal) => {
                String::from_utf8_lossy(&literal.0).chars().for_each(|c| self.insert(c, c));
            }
            HirKind::Class(Class::Unicode(class)) => {
                class.ranges().iter().for_each(|range| self.insert(range.start(), range.end()));
            }
            HirKind::Class(Class::Bytes(class)) => class.ranges().iter().for_each(|range| {
                self.insert(range.start().into(), range.end().into());
            }),
            kind => kind.subs().iter().for_each(|hir| self.insert_all(hir)),
        }
    }

    /// Ranges of characters, which no pattern tells apart.
    fn ranges(mut self) -> Vec<(char, char)> {
        // Surrogates are no characters.
        self.0.extend([0, 0xd800, 0xe000, 0x11_0000]);
        let all: Vec<u32> = self.0.into_iter().collect();
        let ranges = all.windows(2).map(|pair| (pair[0], pair[1] - 1));
        ranges.filter_map(|(a, b)| Some((char::from_u32(a)?, char::from_u32(b)?))).collect()
    }
}

/// Set of strings, and the bounds of the characters that it tells apart.
struct Language {
    ast: RegexAst,
    cuts: Cuts,
}

impl Language {
    /// Strings in which a pattern is found, or at the start of which it is found.
    fn of(node: &Node, anchored: bool) -> Result<Language, String> {
        let (mut cuts, mut size) = (Cuts::default(), 0);
        node.cut(&mut cuts)?;
        let mut ast = node.before(true, any(), &mut size)?;
        if !anchored {
            let later = node.before(false, any(), &mut size)?;
            let later = RegexAst::Concat(vec![RegexAst::Regex("(?s:.+)".to_owned()), later]);
            ast = RegexAst::Or(vec![ast, later]);
        }
        Ok(Language { ast, cuts })
    }

    /// Pattern of the strings.
    fn pattern(self, budget: &Budget) -> Result<String, String> {
        if !budget.automaton() {
            return Err("too many patterns".to_owned());
        }
        automaton::pattern(RegexAst::And(vec![any(), self.ast]), &self.cuts.ranges())
    }
}

fn any() -> RegexAst {
    RegexAst::Regex(ANY.to_owned())
}

fn not(ast: RegexAst) -> RegexAst {
    RegexAst::Not(Box::new(ast))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_match(pattern: &str, text: &str) -> Option<bool> {
        let mut builder = RegexBuilder::new();
        let expression = builder.mk_regex_for_serach(&regex_to_lark(pattern, "dw")).ok()?;
        Some(builder.to_regex_limited(expression, 100_000).ok()?.is_match(text))
    }

    fn all_match(patterns: &[String], text: &str) -> bool {
        patterns.iter().all(|pattern| is_match(pattern, text).unwrap())
    }

    #[test]
    fn look_ahead_is_said_without_it() {
        for (pattern, matching, others) in [
            // pydantic's Decimal, and with max_digits=5, decimal_places=2, and with max_digits=3.
            (
                r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$",
                &["1", "-0.5", "+.5", "12.", "00"][..],
                &["", "-", ".", "-.", "a", "1e3", "1.2.3"][..],
            ),
            (
                r"^(?!^[-+.]*$)[+-]?0*(?:\d{0,3}|(?=[\d.]{1,6}0*$)\d{0,3}\.\d{0,2}0*$)",
                &["123.45", "0", "-1.5000"],
                &["-", ".", "-.-"],
            ),
            (
                r"^(?!^[-+.]*$)[+-]?0*(?:\d{0,3}|(?=[\d.]{1,4}0*$)\d*\.\d*0*$)$",
                &["123", "1.23", "0001.2300"],
                &["1234", "12.34", "."],
            ),
            // zod's email.
            (
                r"^(?!\.)(?!.*\.\.)([A-Za-z0-9_'+\-\.]*)[A-Za-z0-9_+-]@([A-Za-z0-9][A-Za-z0-9\-]*\.)+[A-Za-z]{2,}$",
                &["a@b.de", "a.b@c-d.org"],
                &[".a@b.de", "a..b@c.de", "a@b"],
            ),
            (r"^(?=.*[A-Z])(?=.*\d).{4,}$", &["Ab1é", "1xxA"], &["abcd", "A1", "ABCD"]),
            (r"a(?!b)", &["ac", "aba", "a"], &["ab", "b"]),
            (r"^x(?:(?=a)|b)$", &["xb"], &["x", "xa"]),
        ] {
            let plain = plain(pattern, &Budget::new(&Default::default()))
                .unwrap_or_else(|e| panic!("{pattern}: {e}"));
            for text in matching {
                assert!(all_match(&plain, text), "{pattern} {text}: {plain:?}");
            }
            for text in others {
                assert!(!all_match(&plain, text), "{pattern} {text}: {plain:?}");
            }
        }
        for pattern in ["(?<=a)b", "(", "(?=a", r"\ba", "(?:(?=a)b)*"] {
            assert!(plain(pattern, &Budget::new(&Default::default())).is_err(), "{pattern}");
        }
    }

    #[test]
    fn complements_match_what_is_left() {
        for pattern in ["^a+$", "b", "^[^x]{2}$", "^é|z$", r"^\d*$", r"\u00e9"] {
            let complement = complement(pattern, &Budget::new(&Default::default())).unwrap();
            for text in ["", "a", "aa", "b", "ab", "xy", "é", "éa", "az", "12", "日本", "\n"] {
                let both = [pattern, &complement].map(|p| is_match(p, text).unwrap());
                assert!(both[0] != both[1], "{pattern} {complement} {text}");
            }
        }
        let others = excluding(&["a", "ab", "日"], &Budget::new(&Default::default())).unwrap();
        for text in ["", "b", "abc", "日本", "é", "\u{10ffff}"] {
            assert_eq!(is_match(&others, text), Some(true), "{text}");
        }
        for text in ["a", "ab", "日"] {
            assert_eq!(is_match(&others, text), Some(false), "{text}");
        }
        assert!(complement(ANY, &Budget::new(&Default::default())).is_err());
    }
}
