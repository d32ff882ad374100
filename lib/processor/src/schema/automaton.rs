//! Automata of characters, and patterns of them by eliminating their states.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use llguidance::derivre::{Regex, RegexAst, RegexBuilder};

/// Reason to refuse a pattern whose automaton is too large.
pub const TOO_LARGE: &str = "too many states";

/// Effort of making an automaton, as derivre counts it.
const MAX_FUEL: u64 = 100_000;

/// Maximum number of states of an automaton.
const MAX_STATES: usize = 500;

/// Maximum number of states of the smallest automaton of a pattern.
const MAX_SMALLEST: usize = 100;

/// Maximum number of ranges of characters that an automaton tells apart.
const MAX_RANGES: usize = 300;

/// Maximum length of a pattern that is made of an automaton, in bytes.
const MAX_LENGTH: usize = 20_000;

/// Pattern of a set of strings that tells characters apart by these `ranges`, which are all.
///
/// # Errors
/// The reason, if the automaton is too large or accepts nothing.
pub fn pattern(strings: RegexAst, ranges: &[(char, char)]) -> Result<String, String> {
    let mut builder = RegexBuilder::new();
    let expression = builder.mk(&strings).map_err(|e| first_line(&e.to_string()))?;
    let regex = builder.to_regex_limited(expression, MAX_FUEL);
    let mut regex = regex.map_err(|_| TOO_LARGE.to_owned())?;
    if ranges.len() > MAX_RANGES {
        return Err(TOO_LARGE.to_owned());
    }
    Automaton::new(&mut regex, ranges)?.pattern()
}

/// Automaton whose transitions have patterns: a state without incoming ones first, and one
/// without outgoing ones last.
struct Automaton {
    transitions: BTreeMap<(usize, usize), String>,
    states: usize,
}

impl Automaton {
    fn new(regex: &mut Regex, ranges: &[(char, char)]) -> Result<Automaton, String> {
        let initial = regex.initial_state();
        let mut numbers = HashMap::from([(initial, 0)]);
        let mut open = VecDeque::from([initial]);
        let (mut table, mut accepting) = (Vec::new(), Vec::new());
        while let Some(state) = open.pop_front() {
            accepting.push(regex.is_accepting(state));
            let mut row = Vec::new();
            for &(first, _) in ranges {
                let mut bytes = [0; 4];
                let next = regex.transition_bytes(state, first.encode_utf8(&mut bytes).as_bytes());
                let number = numbers.len();
                row.push(*numbers.entry(next).or_insert_with(|| {
                    open.push_back(next);
                    number
                }));
            }
            table.push(row);
            if numbers.len() > MAX_STATES {
                return Err(TOO_LARGE.to_owned());
            }
        }
        let classes = classes(&table, &accepting);
        let states = classes.iter().max().map_or(0, |last| last + 1);
        if states > MAX_SMALLEST {
            return Err(TOO_LARGE.to_owned());
        }
        let live = live(&table, &accepting);
        let mut edges: BTreeMap<(usize, usize), Vec<(char, char)>> = BTreeMap::new();
        let mut transitions = BTreeMap::from([((0, classes[0] + 1), String::new())]);
        let mut seen = BTreeSet::new();
        for (state, row) in table.iter().enumerate().filter(|(state, _)| live[*state]) {
            if !seen.insert(classes[state]) {
                continue;
            }
            for (&next, &range) in row.iter().zip(ranges).filter(|(next, _)| live[**next]) {
                edges.entry((classes[state] + 1, classes[next] + 1)).or_default().push(range);
            }
            if accepting[state] {
                transitions.insert((classes[state] + 1, states + 1), String::new());
            }
        }
        transitions.extend(edges.into_iter().map(|(ends, ranges)| (ends, class(&ranges))));
        Ok(Automaton { transitions, states: states + 2 })
    }

    /// Pattern of all texts that lead from the first to the last state.
    fn pattern(mut self) -> Result<String, String> {
        let mut inner: BTreeSet<usize> = (1..self.states - 1).collect();
        while let Some(state) = inner.iter().copied().min_by_key(|&state| self.cost(state)) {
            inner.remove(&state);
            self.eliminate(state);
            if self.transitions.values().map(String::len).sum::<usize>() > 4 * MAX_LENGTH {
                return Err(TOO_LARGE.to_owned());
            }
        }
        match self.transitions.remove(&(0, self.states - 1)) {
            Some(pattern) if pattern.len() <= MAX_LENGTH => Ok(format!("^(?:{pattern})$")),
            Some(_) => Err(TOO_LARGE.to_owned()),
            None => Err("no text matches it".to_owned()),
        }
    }

    /// Length that eliminating a state adds to the patterns.
    fn cost(&self, state: usize) -> usize {
        let (mut into, mut out, mut length) = (0, 0, 0);
        for ((from, to), pattern) in &self.transitions {
            into += usize::from(*to == state && *from != state);
            out += usize::from(*from == state && *to != state);
            length += if *from == state || *to == state { pattern.len() } else { 0 };
        }
        into * out * (length + 1)
    }

    fn eliminate(&mut self, state: usize) {
        let around = match self.transitions.remove(&(state, state)) {
            Some(pattern) => format!("(?:{pattern})*"),
            None => String::new(),
        };
        let touches = |(from, to): &(usize, usize)| *from == state || *to == state;
        let touching: Vec<_> = self.transitions.keys().copied().filter(touches).collect();
        let mut touching: Vec<_> = touching
            .into_iter()
            .filter_map(|ends| Some((ends, self.transitions.remove(&ends)?)))
            .collect();
        let into: Vec<_> = touching.extract_if(.., |((_, to), _)| *to == state).collect();
        for ((from, _), before) in &into {
            for ((_, to), after) in &touching {
                let path = format!("{}{around}{}", grouped(before), grouped(after));
                let known = self.transitions.entry((*from, *to));
                known.and_modify(|known| *known = format!("{known}|{path}")).or_insert(path);
            }
        }
    }
}

/// Classes of states that accept the same texts, by state.
fn classes(table: &[Vec<usize>], accepting: &[bool]) -> Vec<usize> {
    let mut classes: Vec<usize> = accepting.iter().map(|&accepting| accepting.into()).collect();
    let mut count = 0;
    loop {
        let mut numbers = HashMap::new();
        let next: Vec<usize> = table
            .iter()
            .enumerate()
            .map(|(state, row)| {
                let row: Vec<usize> = row.iter().map(|&next| classes[next]).collect();
                let number = numbers.len();
                *numbers.entry((classes[state], row)).or_insert(number)
            })
            .collect();
        classes = next;
        if numbers.len() == count {
            return classes;
        }
        count = numbers.len();
    }
}

/// True for the states from which a text is accepted.
fn live(table: &[Vec<usize>], accepting: &[bool]) -> Vec<bool> {
    let mut live = accepting.to_vec();
    loop {
        let new: Vec<usize> = (0..table.len())
            .filter(|&state| !live[state] && table[state].iter().any(|&next| live[next]))
            .collect();
        if new.is_empty() {
            return live;
        }
        new.into_iter().for_each(|state| live[state] = true);
    }
}

/// Pattern that can stand beside others.
fn grouped(pattern: &str) -> String {
    match pattern.contains('|') {
        true => format!("(?:{pattern})"),
        false => pattern.to_owned(),
    }
}

/// Class of some ranges of characters, which are in order.
fn class(ranges: &[(char, char)]) -> String {
    let mut joined: Vec<(char, char)> = Vec::new();
    for &(first, last) in ranges {
        match joined.last_mut() {
            // No character is between the surrogates' neighbours.
            Some((_, end)) if *end as u32 + 1 == first as u32 || first == '\u{e000}' => *end = last,
            _ => joined.push((first, last)),
        }
    }
    if joined == [('\0', char::MAX)] {
        return "(?s:.)".to_owned();
    }
    let code = |c: char| match c {
        c if c.is_ascii_alphanumeric() => c.to_string(),
        c => format!("\\x{{{:x}}}", c as u32),
    };
    let ranges = joined.iter().map(|&(first, last)| match first == last {
        true => code(first),
        false => format!("{}-{}", code(first), code(last)),
    });
    format!("[{}]", ranges.collect::<String>())
}

/// First line of an error, with the last one if there are several.
pub fn first_line(text: &str) -> String {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default();
    match lines.next_back() {
        Some(last) => format!("{first} {last}"),
        None => first.to_owned(),
    }
}
