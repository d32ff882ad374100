//! Text output of an answer, where reasoning is dim, titled, or omitted.

use std::borrow::Cow;

use mlxk_processor::Event;
use serde_json::json;

use super::options::{Reasoning, RunOptions};

/// Escape sequences before and after reasoning on a terminal.
const DIM: [&str; 2] = ["\x1b[2m", "\x1b[22m"];

/// Titles of reasoning and of the answer for output without colours.
const TITLES: [&str; 2] = ["[Reasoning]\n", "[Answer]\n"];

/// Text output of one answer.
#[derive(Debug)]
pub struct Page {
    reasoning: Reasoning,
    terminal: bool,
    /// Marks before and after reasoning.
    marks: [&'static str; 2],
    /// Kind of the part that was written last.
    last: Last,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Last {
    Nothing,
    Reasoning,
    Text,
    Call,
}

impl Page {
    /// Empty page.
    pub fn new(options: &RunOptions) -> Page {
        Page::with(options.reasoning, options.terminal, options.colours)
    }

    fn with(reasoning: Reasoning, terminal: bool, colours: bool) -> Page {
        let marks = match (reasoning, colours) {
            (Reasoning::Show, true) => DIM,
            (Reasoning::Show, false) => TITLES,
            _ => ["", ""],
        };
        Page { reasoning, terminal, marks, last: Last::Nothing }
    }

    /// Text of `event` on the page.
    pub fn write(&mut self, event: &Event) -> String {
        match event {
            Event::Reasoning(text) if self.reasoning != Reasoning::Hide => {
                self.turn(Last::Reasoning) + &self.shown(text)
            }
            Event::Text(text) if self.reasoning != Reasoning::Only => {
                self.turn(Last::Text) + &self.shown(text)
            }
            Event::ToolCall(call) if self.reasoning != Reasoning::Only => {
                let call = json!({"name": call.name, "arguments": call.arguments});
                self.turn(Last::Call) + &call.to_string()
            }
            Event::End(_) => self.close().to_owned() + "\n",
            _ => String::new(),
        }
    }

    /// Text with control characters replaced by U+FFFD if it goes to a terminal.
    fn shown<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let acts = |c: char| c.is_control() && c != '\n' && c != '\t';
        match self.terminal && text.contains(acts) {
            true => text.replace(acts, "\u{fffd}").into(),
            false => text.into(),
        }
    }

    /// Text between the last part and the next.
    fn turn(&mut self, next: Last) -> String {
        let [open, _] = self.marks;
        let between = match (self.last, next) {
            (last, next) if last == next && next != Last::Call => String::new(),
            (Last::Nothing, Last::Reasoning) => open.to_owned(),
            (Last::Nothing, _) => String::new(),
            (Last::Reasoning, _) => format!("{}\n\n{}", self.dim_end(), self.title()),
            (_, Last::Reasoning) => format!("\n\n{open}"),
            _ => "\n".to_owned(),
        };
        self.last = next;
        between
    }

    /// Escape sequence that ends dim reasoning; empty if none is open.
    pub fn close(&mut self) -> &'static str {
        let open = self.last == Last::Reasoning;
        self.last = Last::Nothing;
        if open { self.dim_end() } else { "" }
    }

    fn dim_end(&self) -> &'static str {
        if self.marks == DIM { DIM[1] } else { "" }
    }

    fn title(&self) -> &'static str {
        if self.marks == TITLES { TITLES[1] } else { "" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(reasoning: Reasoning, colours: bool) -> String {
        let mut page = Page::with(reasoning, colours, colours);
        let events = [
            Event::Reasoning("Hm".into()),
            Event::Reasoning(".".into()),
            Event::Text("Y".into()),
            Event::Text("es".into()),
        ];
        events.iter().map(|event| page.write(event)).collect::<String>() + page.close()
    }

    #[test]
    fn reasoning_is_dim_titled_hidden_or_alone() {
        assert_eq!(page(Reasoning::Show, true), "\x1b[2mHm.\x1b[22m\n\nYes");
        assert_eq!(page(Reasoning::Show, false), "[Reasoning]\nHm.\n\n[Answer]\nYes");
        assert_eq!(page(Reasoning::Hide, true), "Yes");
        assert_eq!(page(Reasoning::Only, true), "Hm.");
    }

    #[test]
    fn an_answer_cannot_act_on_a_terminal() {
        let text = Event::Text("a\u{1b}]0;b\u{7}\r\n\tc\u{9b}2J".into());
        let shown = "a\u{fffd}]0;b\u{fffd}\u{fffd}\n\tc\u{fffd}2J";
        assert_eq!(Page::with(Reasoning::Hide, true, true).write(&text), shown);
        assert_eq!(
            Page::with(Reasoning::Hide, false, false).write(&text),
            "a\u{1b}]0;b\u{7}\r\n\tc\u{9b}2J"
        );
    }

    #[test]
    fn what_ends_within_reasoning_leaves_the_terminal_as_it_was() {
        let mut page = Page::with(Reasoning::Show, true, true);
        assert_eq!(page.write(&Event::Reasoning("Hm".into())) + page.close(), "\x1b[2mHm\x1b[22m");
        assert_eq!(page.close(), "");
    }
}
