//! The front matter of a README: the little of YAML that model cards use for their tags.

/// The fields of a model card that tell what a model is.
#[derive(Debug, Default, PartialEq)]
pub struct FrontMatter {
    /// `tags`, as they stand.
    pub tags: Vec<String>,
    /// `library_name`.
    pub library: Option<String>,
}

impl FrontMatter {
    /// Reads the block between two lines `---` at the very top; a block without an end counts as
    /// far as it goes. Lists are `[a, b]` or lines `- a`; everything else is passed over.
    pub fn parse(text: &str) -> FrontMatter {
        let mut lines = text.trim_start_matches('\u{feff}').lines();
        let mut card = FrontMatter::default();
        if lines.next().map(str::trim_end) != Some("---") {
            return card;
        }
        let mut in_tags = false;
        for line in lines.take_while(|line| line.trim_end() != "---") {
            match line.trim_start().strip_prefix("- ") {
                Some(item) if in_tags => card.tags.push(scalar(item)),
                Some(_) => {}
                None if line.trim().is_empty() => {}
                None => in_tags = card.field(line),
            }
        }
        card
    }

    /// Takes a line `key: value`; true if it opens the list of tags.
    fn field(&mut self, line: &str) -> bool {
        let Some((key, value)) = line.split_once(':') else {
            return false;
        };
        match (key, value.trim()) {
            ("library_name", value) => self.library = Some(scalar(value)),
            ("tags", "") => return true,
            ("tags", list) => {
                let list = list.trim_start_matches('[').trim_end_matches(']');
                self.tags = list.split(',').map(scalar).filter(|tag| !tag.is_empty()).collect();
            }
            _ => {}
        }
        false
    }
}

fn scalar(text: &str) -> String {
    text.trim().trim_matches(['"', '\'']).to_owned()
}
