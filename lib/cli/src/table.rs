//! Rows of text, aligned into columns for a terminal.

use unicode_width::UnicodeWidthStr;

/// Columns joined by ` | ` under a header and a rule; every cell is padded, the last one too.
pub fn render(header: &[&str], rows: &[Vec<String>]) -> String {
    let widths: Vec<usize> = header
        .iter()
        .enumerate()
        .map(|(i, title)| rows.iter().map(|row| row[i].width()).fold(title.width(), usize::max))
        .collect();
    let rule: Vec<_> = widths.iter().map(|width| "-".repeat(*width)).collect();
    let mut text = line(header.iter().copied(), &widths) + &rule.join("-+-") + "\n";
    for row in rows {
        text += &line(row.iter().map(String::as_str), &widths);
    }
    text
}

fn line<'a>(cells: impl Iterator<Item = &'a str>, widths: &[usize]) -> String {
    let pad = |(cell, width): (&str, &usize)| {
        cell.to_owned() + &" ".repeat(width.saturating_sub(cell.width()))
    };
    cells.zip(widths).map(pad).collect::<Vec<_>>().join(" | ") + "\n"
}

/// `text` in lines of at most `width` characters, broken between words.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let mut word: Vec<char> = word.chars().collect();
        while !word.is_empty() {
            let line = lines.last_mut().expect("there is always a last line");
            let used = line.chars().count();
            let gap = usize::from(used > 0);
            if used + gap + word.len() <= width || used == 0 {
                let rest = word.split_off(word.len().min(width));
                line.extend(" ".repeat(gap).chars().chain(word));
                word = rest;
            } else {
                lines.push(String::new());
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec!["模型".to_owned(), "✓".to_owned()], vec!["a".to_owned(), String::new()]];
        let expected = "Name | Ok\n-----+---\n模型 | ✓ \na    |   \n";
        assert_eq!(render(&["Name", "Ok"], &rows), expected);
        assert_eq!(render(&["Name"], &[]), "Name\n----\n");
    }

    #[test]
    fn words_that_are_too_long_are_broken() {
        assert_eq!(wrap("one two three", 8), ["one two", "three"]);
        assert_eq!(wrap("a abcdefghij", 4), ["a", "abcd", "efgh", "ij"]);
        assert_eq!(wrap("", 4), [""]);
    }
}
