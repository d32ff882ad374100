//! Text for terminals: characters that a terminal obeys are replaced.

use std::borrow::Cow;

/// The text with U+FFFD in the place of every character that is not printable. Names of models, files
/// and fields are chosen by strangers, and a terminal obeys control characters.
pub fn printable(text: &str) -> Cow<'_, str> {
    match text.chars().all(is_printable) {
        true => Cow::Borrowed(text),
        false => text
            .chars()
            .map(|c| if is_printable(c) { c } else { char::REPLACEMENT_CHARACTER })
            .collect::<String>()
            .into(),
    }
}

/// False for control characters (C0, DEL, C1), separators of lines and paragraphs, marks that reorder
/// text (bidirectional formatting), and invisible annotations.
pub fn is_printable(c: char) -> bool {
    let reorders = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}');
    let invisible = matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}');
    !(c.is_control() || reorders || invisible)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_replaced() {
        for obeyed in ['\0', '\n', '\u{1b}', '\u{7f}', '\u{9b}', '\u{202e}', '\u{2066}', '\u{200f}']
        {
            assert_eq!(printable(&format!("a{obeyed}b")), "a\u{fffd}b", "{obeyed:?}");
        }
        for plain in ["org/模型-4bit", "👨‍👩‍👧", "e\u{301}", "a b"] {
            assert_eq!(printable(plain), plain);
        }
    }
}
