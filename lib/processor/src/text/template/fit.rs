//! Form of a conversation that a template takes.

use mlxk_core::Result;

use crate::conversation::Conversation;

/// Search for the form of a conversation that a template takes.
pub struct Fitting<'a> {
    /// Renders a conversation. The inner error is a failure of the template itself.
    pub render: &'a dyn Fn(&Conversation) -> Result<Result<String>>,
}

impl Fitting<'_> {
    /// Renders a conversation in the form that the template takes: messages of the system are joined
    /// if it refuses or omits later ones, those of the user if it refuses two in a row, and the text
    /// of the system goes before that of the user if it refuses the system; other variants are tried
    /// if it fails.
    ///
    /// # Errors
    /// As those of `render`.
    pub fn fit(&self, conversation: &Conversation) -> Result<String> {
        let omits = conversation.has_later_system() && !self.has_all_system(conversation)?;
        let first = if omits { conversation.with_one_system() } else { conversation.clone() };
        let fault = match self.fit_form(&first)? {
            Ok(text) => return Ok(text),
            Err(fault) => fault,
        };
        let one_system = conversation.with_one_system();
        let turns = one_system.with_turns();
        let no_system = turns.without_system();
        for form in [one_system, turns, no_system].iter().filter(|form| **form != first) {
            if let Ok(text) = self.fit_form(form)? {
                return Ok(text);
            }
        }
        Err(fault)
    }

    /// Renders a conversation, or a variant of it if the template fails. The inner error is a
    /// failure of the template itself.
    fn fit_form(&self, conversation: &Conversation) -> Result<Result<String>> {
        let fault = match (self.render)(conversation)? {
            Err(fault) => fault,
            Ok(text) => return Ok(Ok(text)),
        };
        for variant in conversation.variants() {
            if let Ok(text) = (self.render)(&variant)? {
                return Ok(Ok(text));
            }
        }
        Ok(Err(fault))
    }

    /// True if the text has all messages of the system, as far as the template renders it.
    fn has_all_system(&self, conversation: &Conversation) -> Result<bool> {
        let (skeleton, marks) = conversation.skeleton();
        let text = self.fit_form(&skeleton)?;
        Ok(text.map_or(true, |text| marks.iter().all(|mark| text.contains(mark))))
    }
}
