//! What templates and rules that go beyond their limits leave behind. The count is the process's:
//! one test alone.

#![allow(clippy::unwrap_used)] // a test fails by panicking

use mlxk_core::Kind;
use mlxk_processor::{Conversation, Template};
use serde_json::{Map, Value, json};

fn render(source: &str, conversation: &Conversation) -> Kind {
    let template = Template::new("chat_template.jinja", source).unwrap();
    template.fit(conversation, &Map::new()).unwrap_err().kind
}

#[test]
fn memory_that_is_lost_has_an_end() {
    let mut large = Conversation::new(None, "Hi");
    // As much as a body of 16 MB can hold, nearly.
    large.variables.insert("x".into(), Value::Array(vec![json!([]); 3 << 20]));
    for _ in 0..4 {
        assert_eq!(render("{{ x }}", &large), Kind::Validation);
    }
    let doubling = "{% set box = namespace(x=[1, 2, 3]) %}{% for i in range(60) %}{% set box.x = box.x + box.x %}{% endfor %}";
    let small = Conversation::new(None, "Hi");
    let ends: Vec<Kind> = (0..9).map(|_| render(doubling, &small)).collect();
    let stopped = ends.iter().filter(|&&kind| kind == Kind::InvalidModel).count();
    assert!((1..8).contains(&stopped), "{ends:?}");
    assert!(ends[stopped..].iter().all(|&kind| kind == Kind::InsufficientMemory), "{ends:?}");
}
