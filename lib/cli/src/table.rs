//! Rows of text, aligned into columns for a terminal.

use unicode_segmentation::UnicodeSegmentation;
use unicode_width::UnicodeWidthStr;

/// The text between two columns.
const GAP: &str = " | ";

/// The mark at the end of a cell that was cut.
const ELLIPSIS: &str = "…";

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// The title in the header.
    pub title: &'static str,
    /// The width to which cells may be cut; none if they are never cut.
    pub least: Option<usize>,
    /// The place in the order in which columns are left out if the table is too wide; the lowest goes
    /// first, and a column without a place stays.
    pub rank: Option<u8>,
}

/// Columns joined by ` | ` under a header and a rule; every cell is padded, the last one too.
///
/// A table that is wider than `width` loses the ends of long cells, and then columns.
pub fn render(columns: &[Column], rows: &[Vec<String>], width: Option<usize>) -> String {
    let natural = |(at, column): (usize, &Column)| {
        rows.iter().map(|row| row[at].width()).fold(column.title.width(), usize::max)
    };
    let mut fitted: Vec<Fitted> = columns
        .iter()
        .enumerate()
        .map(|(at, column)| Fitted { at, column, width: natural((at, column)) })
        .collect();
    if let Some(width) = width {
        fit(&mut fitted, width);
    }
    let titles = fitted.iter().map(|fitted| (fitted.column.title, fitted.width));
    let rule: Vec<_> = fitted.iter().map(|fitted| "-".repeat(fitted.width)).collect();
    let mut text = line(titles) + &rule.join("-+-") + "\n";
    for row in rows {
        text += &line(fitted.iter().map(|fitted| (row[fitted.at].as_str(), fitted.width)));
    }
    text
}

/// A column with its place in the rows and its width.
#[derive(Clone, Copy)]
struct Fitted<'a> {
    at: usize,
    column: &'a Column,
    width: usize,
}

/// Narrows the columns to a table of `width`: cells are cut, the widest first; if that is not enough, a
/// column is left out; if none may be, the last resort is to cut cells below their least width.
fn fit(columns: &mut Vec<Fitted>, width: usize) {
    loop {
        let mut cut = columns.clone();
        if narrow(&mut cut, width, |column| column.least) {
            *columns = cut;
            return;
        }
        let rank = |fitted: &Fitted| fitted.column.rank;
        match columns.iter().filter_map(rank).min() {
            Some(lowest) => columns.retain(|fitted| rank(fitted) != Some(lowest)),
            None => break,
        }
    }
    narrow(columns, width, |_| Some(1));
}

/// Cuts the widest columns until the table is `width` wide; false if the least widths are too wide.
fn narrow(columns: &mut [Fitted], width: usize, least: impl Fn(&Column) -> Option<usize>) -> bool {
    let gaps = GAP.width() * columns.len().saturating_sub(1);
    loop {
        let total = gaps + columns.iter().map(|fitted| fitted.width).sum::<usize>();
        if total <= width {
            return true;
        }
        let may = |fitted: &&mut Fitted| least(fitted.column).is_some_and(|l| fitted.width > l);
        match columns.iter_mut().filter(may).max_by_key(|fitted| fitted.width) {
            Some(widest) => widest.width -= 1,
            None => return false,
        }
    }
}

fn line<'a>(cells: impl Iterator<Item = (&'a str, usize)>) -> String {
    let pad = |(cell, width)| {
        let cell = cut(cell, width);
        let space = " ".repeat(width.saturating_sub(cell.width()));
        cell + &space
    };
    cells.map(pad).collect::<Vec<_>>().join(GAP) + "\n"
}

/// `text` if it is at most `width` wide, else its beginning and an ellipsis.
pub fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut kept = String::new();
    for grapheme in text.graphemes(true) {
        if kept.width() + grapheme.width() + ELLIPSIS.width() > width {
            break;
        }
        kept.push_str(grapheme);
    }
    kept + ELLIPSIS
}

/// `text` in lines of at most `width` columns, broken between words, and words that are longer between
/// graphemes.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && line.width() + 1 + word.width() > width {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        for grapheme in word.graphemes(true) {
            if !line.is_empty() && line.width() + grapheme.width() > width {
                lines.push(std::mem::take(&mut line));
            }
            line.push_str(grapheme);
        }
    }
    if !line.is_empty() || lines.is_empty() {
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: Column = Column { title: "Name", least: Some(6), rank: None };
    const SIZE: Column = Column { title: "Size", least: None, rank: Some(0) };
    const OK: Column = Column { title: "Ok", least: None, rank: Some(1) };

    fn rows(rows: &[[&str; 3]]) -> Vec<Vec<String>> {
        rows.iter().map(|row| row.map(str::to_owned).to_vec()).collect()
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = rows(&[["模型", "1B", "✓"], ["👨‍👩‍👧", "", ""], ["a", "", ""]]);
        let expected = "Name | Size | Ok\n-----+------+---\n模型 | 1B   | ✓ \n\
                        👨‍👩‍👧   |      |   \na    |      |   \n";
        assert_eq!(render(&[NAME, SIZE, OK], &rows, None), expected);
        assert_eq!(render(&[NAME], &[], None), "Name\n----\n");
    }

    #[test]
    fn a_table_that_is_too_wide_is_cut_and_then_loses_columns() {
        let rows = rows(&[["模型-8bit-long-name", "1.2GB", "✓"], ["e\u{301}e\u{301}", "3B", ""]]);
        let of = |width| render(&[NAME, SIZE, OK], &rows, Some(width));
        assert_eq!(
            of(22),
            "Name      | Size  | Ok\n----------+-------+---\n\
             模型-8bi… | 1.2GB | ✓ \ne\u{301}e\u{301}        | 3B    |   \n"
        );
        assert_eq!(
            of(12),
            "Name    | Ok\n--------+---\n模型-8… | ✓ \ne\u{301}e\u{301}      |   \n"
        );
        assert_eq!(of(5), "Name \n-----\n模型…\ne\u{301}e\u{301}   \n");
        assert!(of(3).lines().all(|line| line.width() <= 3));
    }

    #[test]
    fn words_that_are_too_long_are_broken() {
        assert_eq!(wrap("one two three", 8), ["one two", "three"]);
        assert_eq!(wrap("a abcdefghij", 4), ["a", "abcd", "efgh", "ij"]);
        assert_eq!(wrap("模型模型 x", 5), ["模型", "模型", "x"]);
        assert_eq!(wrap("", 4), [""]);
    }

    #[test]
    fn a_grapheme_is_never_broken() {
        assert_eq!(cut("ab", 2), "ab");
        assert_eq!(cut("abc", 2), "a…");
        assert_eq!(cut("👨‍👩‍👧👨‍👩‍👧x", 4), "👨‍👩‍👧…");
    }
}
