//! Chat templates.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mlxk_processor::{Conversation, Template};
use serde_json::{Map, json};

fuzz_target!(|source: &str| {
    let Ok(template) = Template::new("chat_template.jinja", source) else { return };
    let messages = vec![
        json!({"role": "system", "content": "Be brief."}),
        json!({"role": "user", "content": "Hi"}),
    ];
    let tools = json!({"type": "function", "function": {"name": "f", "parameters": {}}});
    let conversation =
        Conversation { messages, tools: Some(vec![tools]), ..Conversation::default() };
    let _ = template.fit(&conversation, &Map::new());
});
