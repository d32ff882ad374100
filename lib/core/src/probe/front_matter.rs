//! The front matter of a README: the subset of YAML that model cards use for their tags.

/// The fields of a model card that identify the framework.
#[derive(Debug, Default, PartialEq)]
pub struct FrontMatter {
    /// The `tags` of the model card.
    pub tags: Vec<String>,
    /// The `library_name` of the model card.
    pub library: Option<String>,
}

impl FrontMatter {
    /// Parses the block between two lines `---` at the start of the text; a block without an end
    /// extends to the end of the text. Lists are `[a, b]` or lines `- a`; other YAML is skipped.
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

    /// Parses a line `key: value`; true if it begins the list of tags.
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
