//! Chat templates: the same bytes as Jinja in Python with the settings of transformers.

#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::time::{Duration, Instant};

use mlxk_core::Kind;
use mlxk_processor::{Conversation, Template};
use serde_json::{Map, Value, json};

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/templates");

fn render(source: &str) -> mlxk_core::Result<String> {
    let messages = vec![json!({"role": "user", "content": "Hi"})];
    let conversation = Conversation { messages, ..Conversation::default() };
    Template::new("chat_template.jinja", source)?.render(&conversation, &Map::new())
}

fn fault(source: &str) -> (Kind, String) {
    let e = render(source).unwrap_err();
    (e.kind, e.to_string())
}

/// Dates as templates write them; the known texts are of this day.
const DAY: [(&str, &str); 3] =
    [("2001-02-03", "%Y-%m-%d"), ("03 Feb 2001", "%d %b %Y"), ("February 03, 2001", "%B %d, %Y")];

fn today(line: &str) -> String {
    let now = jiff::Zoned::now();
    DAY.iter().fold(line.to_owned(), |line, (day, format)| {
        line.replace(day, &now.strftime(format).to_string())
    })
}

/// The templates, the conversations, and the texts that Python makes of them. Most templates are
/// those of llama.cpp (models/templates).
#[test]
fn templates_of_models_give_the_text_that_python_gives() {
    let read = |name: &str| std::fs::read_to_string(format!("{DATA}/{name}")).unwrap();
    let json = |name: &str| -> Value { serde_json::from_str(&read(name)).unwrap() };
    let (given, expected) = (json("conversations.json"), json("expected.json"));
    let lines = expected["lines"].as_array().unwrap();
    let tokens = given["tokens"].as_object().unwrap();
    let mut wrong = Vec::new();
    for (name, texts) in expected["texts"].as_object().unwrap() {
        let template = Template::new(name, &read(&format!("{name}.jinja"))).unwrap();
        for (case, text) in texts.as_object().unwrap() {
            let conversation = conversation(&given, &given["conversations"][case]);
            let rendered = template.render(&conversation, tokens);
            let known = match text {
                Value::Array(numbers) => {
                    let line = |number: &Value| {
                        today(lines[number.as_u64().unwrap() as usize].as_str().unwrap())
                    };
                    numbers.iter().map(line).collect::<Vec<_>>().join("\n")
                }
                refused => {
                    format!(
                        "{name}: the chat template refuses: {}",
                        refused["refused"].as_str().unwrap()
                    )
                }
            };
            let rendered = rendered.unwrap_or_else(|e| e.to_string());
            if rendered != known {
                wrong.push(format!("== {name}: {case}\n{rendered}\n-- and should be\n{known}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}\n{} are wrong", wrong.join("\n"), wrong.len());
}

/// Conversations of agents: messages of the system in the middle and two in a row, two messages of
/// the user in a row, calls without arguments.
#[test]
fn templates_of_models_take_the_conversations_of_agents() {
    let say = |role: &str, text: &str| json!({"role": role, "content": text});
    let call = |arguments: Value| {
        let function = json!({"name": "list", "arguments": arguments});
        json!({"role": "assistant", "content": null,
            "tool_calls": [{"id": "call00001", "type": "function", "function": function}]})
    };
    let result = json!({"role": "tool", "tool_call_id": "call00001", "content": "a.txt"});
    let tool = json!({"type": "function", "function": {"name": "list", "description": "Lists.",
        "parameters": {"type": "object", "properties": {}}}});
    let (first, later) = (say("system", "Rule one."), say("system", "Rule two."));
    let conversations = [
        json!([first, later, say("user", "Hi")]),
        json!([first, say("user", "Hi"), later]),
        json!([say("user", "Hi"), first, say("assistant", "Yes"), later, say("user", "Go")]),
        json!([first, say("user", "Context"), say("user", "Hi")]),
        json!([first, say("user", "Hi"), call(json!("")), result, later]),
        json!([first, say("user", "Hi"), call(json!(null)), result]),
        json!([first, say("user", "Hi"), call(json!("{\"path\": \"a")), result]),
    ];
    let given = std::fs::read_to_string(format!("{DATA}/conversations.json")).unwrap();
    let given: Value = serde_json::from_str(&given).unwrap();
    let tokens = given["tokens"].as_object().unwrap();
    let others = [
        ("Kimi-K2", "appends to a list, which a sandbox refuses"),
        ("fireworks", "needs a variable with the date"),
        ("llama-cpp-deepseek-r1", "writes a generator as JSON, which Jinja refuses too"),
        ("mistralai-Mistral-Nemo", "shows the system in the last turn alone"),
        ("settings", "no model's"),
    ];
    let mut wrong = Vec::new();
    for entry in std::fs::read_dir(DATA).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let exempt = others.iter().any(|(other, _)| name.starts_with(other));
        if !name.ends_with(".jinja") || exempt {
            continue;
        }
        let source = std::fs::read_to_string(format!("{DATA}/{name}")).unwrap();
        let template = Template::new("t", &source).unwrap();
        for (index, messages) in conversations.iter().enumerate() {
            let mut conversation = Conversation::parse(messages.clone()).unwrap();
            let calls = messages.to_string().contains("tool_calls");
            // A template that is for tools alone iterates over them, also when there are none.
            if calls && !template.knows_tools() || !calls && name.contains("tool_use") {
                continue;
            }
            conversation.tools = calls.then(|| vec![tool.clone()]);
            let text = template.fit(&conversation, tokens).unwrap_or_else(|e| e.to_string());
            let said = messages.as_array().unwrap().iter();
            let said = said
                .filter(|message| ["system", "user"].map(Value::from).contains(&message["role"]));
            let missing =
                said.filter(|message| !text.contains(message["content"].as_str().unwrap()));
            if missing.count() > 0 {
                wrong.push(format!("== {name}, {index}: {text}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}\n{} are wrong", wrong.join("\n"), wrong.len());
}

/// A template that takes several messages of the system gets them where they are.
#[test]
fn messages_of_the_system_stay_where_a_template_takes_them() {
    let messages = json!([
        {"role": "system", "content": "a"}, {"role": "system", "content": "b"},
        {"role": "user", "content": "c"}, {"role": "user", "content": "d"},
        {"role": "system", "content": "e"},
    ]);
    let conversation = Conversation::parse(messages).unwrap();
    let each = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}";
    let none = "{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}[";
    let refuses =
        "{% if m.role == 'system' and not loop.first %}{{ raise_exception('no') }}{% endif %}[";
    let omits = "{% if m.role == 'user' or loop.first %}[{{ m.role }}]{{ m.content }}{% endif %}";
    let turns = "{% if m.role == 'user' and loop.previtem is defined and loop.previtem.role == 'user' %}\
                 {{ raise_exception('no') }}{% endif %}";
    let strict = each.replacen('[', refuses, 1);
    for (source, expected) in [
        (each.to_owned(), "[system]a[system]b[user]c[user]d[system]e"),
        (strict.clone(), "[system]a\n\nb\n\ne[user]c[user]d"),
        (each.replacen('[', none, 1), "[user]a\n\nb\n\ne\n\nc\n\nd"),
        (
            format!("{{% for m in messages %}}{omits}{{% endfor %}}"),
            "[system]a\n\nb\n\ne[user]c[user]d",
        ),
        (strict.replacen("[{{", &format!("{turns}[{{{{"), 1), "[system]a\n\nb\n\ne[user]c\n\nd"),
    ] {
        let template = Template::new("t", &source).unwrap();
        assert_eq!(template.fit(&conversation, &Map::new()).unwrap(), expected, "{source}");
    }
}

/// Some templates take only lists of parts, some only texts, and some the one of a role and the other of
/// another.
#[test]
fn contents_have_the_form_that_a_template_takes_of_their_role() {
    let parts =
        "{% for p in m.content | selectattr('type', 'equalto', 'text') %}{{ p.text }}{% endfor %}";
    let lists = format!("{{% for m in messages %}}[{{{{ m.role }}}}]{parts}{{% endfor %}}");
    let either = "{% for p in m.content %}{% if p.type == 'text' %}{{ p.text }}{% else %}<image>{% endif %}{% endfor %}";
    let mixed = format!(
        "{{% for m in messages %}}[{{{{ m.role }}}}]{{% if m.role == 'assistant' or m.content is string %}}\
         {{{{ m.content }}}}{{% else %}}{either}{{% endif %}}{{% endfor %}}"
    );
    let texts = json!([{"role": "system", "content": "a"}, {"role": "user", "content": "b"},
        {"role": "assistant", "content": "c"}]);
    let text = |text: &str| json!({"type": "text", "text": text});
    let pictured = json!([{"role": "user", "content": [{"type": "image"}, text("b")]},
        {"role": "assistant", "content": [text("c"), text("d")]}]);
    for (source, messages, expected, places) in [
        (&lists, &texts, "[system]a[user]b[assistant]c", false),
        (&mixed, &texts, "[system]a[user]b[assistant]c", true),
        (&mixed, &pictured, "[user]<image>b[assistant]cd", true),
    ] {
        let template = Template::new("t", source).unwrap();
        let messages = messages.as_array().unwrap().clone();
        let conversation = Conversation { messages, ..Conversation::default() };
        assert_eq!(template.fit(&conversation, &Map::new()).unwrap(), expected, "{source}");
        assert_eq!(template.places_pictures("<image>", &Map::new()), places, "{source}");
    }
}

fn conversation(given: &Value, case: &Value) -> Conversation {
    let list = |value: &Value| value.as_array().unwrap().clone();
    let mut variables = case["variables"].as_object().cloned().unwrap_or_default();
    if let Some(add) = case.get("add_generation_prompt") {
        variables.insert("add_generation_prompt".into(), add.clone());
    }
    let tools = case["tools"].as_str().map(|name| list(&given[name]));
    Conversation { messages: list(&case["messages"]), tools, variables, images: vec![] }
}

#[test]
fn a_template_gets_a_conversation_in_the_form_that_it_takes() {
    let fit = |name: &str, messages: Value| {
        let source = std::fs::read_to_string(format!("{DATA}/{name}.jinja")).unwrap();
        let messages = messages.as_array().unwrap().clone();
        let conversation = Conversation { messages, ..Conversation::default() };
        Template::new(name, &source).unwrap().fit(&conversation, &Map::new()).unwrap()
    };
    let parts = json!([{"role": "user", "content": [{"type": "text", "text": "One "}, {"type": "text", "text": "two"}]}]);
    assert!(
        fit("meta-llama-Llama-3.1-8B-Instruct", parts.clone()).contains("\n\nOne two<|eot_id|>")
    );
    assert!(fit("Qwen3.5-4B", parts).contains("user\nOne two<|im_end|>"));
    let function = json!({"name": "f", "arguments": {"a": 1}});
    let call = json!([{"role": "user", "content": "A"},
        {"role": "assistant", "content": null, "tool_calls": [{"id": "1", "type": "function", "function": function}]}]);
    assert!(fit("Qwen-Qwen3-0.6B", call).contains("{\"name\": \"f\", \"arguments\": {\"a\": 1}}"));
}

#[test]
fn a_fault_is_told_with_its_line() {
    let broken = fault("one\n{% if %}");
    assert_eq!(broken.0, Kind::InvalidModel);
    assert!(broken.1.starts_with("chat_template.jinja: line 2: "), "{}", broken.1);
    let failing = fault("{{ messages[0].role }}\n\n{{ 1 / 0 }}");
    assert!(failing.1.starts_with("chat_template.jinja: line 3: "), "{}", failing.1);
    let refused = fault("{{ raise_exception('roles must alternate') }}");
    let message = "chat_template.jinja: the chat template refuses: roles must alternate";
    assert_eq!(refused, (Kind::Validation, message.into()));
}

#[test]
fn the_clock_is_there() {
    let year: u32 = render("{{ strftime_now('%Y') }}").unwrap().parse().unwrap();
    assert!(year > 2000);
}

#[test]
fn a_hostile_template_ends_in_an_error() {
    let loops = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}";
    assert_eq!(fault(loops).0, Kind::InvalidModel);
    let large = "{% for a in range(99999) %}{{ 'x' * 9999 }}{% endfor %}";
    assert!(fault(large).1.contains("makes too much text"), "{}", fault(large).1);
    let deep = "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}";
    assert_eq!(fault(deep).0, Kind::InvalidModel);
    let doubled = "{% set box = namespace(x='xxxxxxxx') %}{% for i in range(60) %}{% set box.x = box.x ~ box.x %}{% endfor %}";
    assert!(fault(doubled).1.contains("does too much work"), "{}", fault(doubled).1);
    let lists = doubled.replace("'xxxxxxxx'", "[1, 2, 3]").replace('~', "+");
    assert!(fault(&lists).1.contains("does too much work"), "{}", fault(&lists).1);
    let nested = "{% set box = namespace(x=[]) %}{% for i in range(99999) %}{% set box.x = [box.x] %}{% endfor %}{{ box.x == [box.x] }}{{ box.x|string|length }}";
    assert_eq!(render(nested).unwrap(), "False603");
    let chain = format!("{{{{ 1{} }}}}", " + 1".repeat(9999));
    assert!(fault(&chain).1.contains("operators in a row"), "{}", fault(&chain).1);
    let brackets = format!("{{{{ {}1{} }}}}", "(".repeat(9999), ")".repeat(9999));
    assert!(fault(&brackets).1.contains("nested deeper"), "{}", fault(&brackets).1);
    let large = " ".repeat(10 << 20);
    assert!(fault(&large).1.contains("a chat template of 10485760 bytes"));
    assert_eq!(fault("{% include '/etc/passwd' %}").0, Kind::InvalidModel);
}

#[test]
fn a_rendering_ends_when_nobody_waits_for_it() {
    for source in [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% for a in range(99999) %}{% for b in range(99) %}{% if b > a %}{% endif %}{% endfor %}{% endfor %}",
        "{% macro f(x) %}{% for a in range(999) %}{{ x }}{% endfor %}{% endmacro %}{% for a in range(99999) %}{{ f(a) }}{% endfor %}",
        "{% for a in range(99999) %}{% set x = 'x-y ' * 999 %}{% set y = x.split('-') | join('+') %}{% endfor %}",
        "{% for a in range(99999) %}{{ 'x' * 9 }}{% endfor %}{{ raise_exception('no') }}",
    ] {
        let template = Template::new("chat_template.jinja", source).unwrap();
        let start = Instant::now();
        let gone = || start.elapsed() > Duration::from_millis(20);
        let ended = template.fit_unless(&Conversation::new(None, "Hi"), &Map::new(), &gone);
        assert_eq!(ended.unwrap_err().kind, Kind::Execution, "{source}");
        assert!(start.elapsed() < Duration::from_millis(200), "{:?}: {source}", start.elapsed());
    }
}

/// Conversations that make an honest template do too much.
fn exhausting() -> Vec<Conversation> {
    let nested = |depth: usize, inner: Value| (0..depth).fold(inner, |inner, _| json!([inner]));
    let tool = |parameters: Value| json!({"type": "function", "function": {"name": "f", "parameters": parameters}});
    let small = Conversation::new(None, "Hi");
    let with = |tools: Vec<Value>| Conversation { tools: Some(tools), ..small.clone() };
    let deep = nested(120, Value::Array(vec![json!(0); 250_000]));
    vec![
        with(vec![tool(deep.clone())]),
        with((0..2000).map(|_| tool(nested(110, json!([0])))).collect()),
        Conversation::new(None, &"\n".repeat(15 << 20)),
        Conversation { messages: vec![small.messages[0].clone(); 150_000], ..small.clone() },
        Conversation {
            variables: [("x".to_owned(), Value::Array(vec![json!([]); 3 << 20]))]
                .into_iter()
                .collect(),
            ..small.clone()
        },
    ]
}

#[test]
fn a_conversation_that_exhausts_the_template_is_refused_and_leaves_nothing_behind() {
    let source = "{% if tools %}{{ tools | tojson(indent=4) }}{% endif %}{% for m in messages %}\
        {% if not messages | selectattr('role', 'equalto', 'x') | list %}{{ m.content.split('\n')[-1] }}{% endif %}{% endfor %}";
    let template = Template::new("chat_template.jinja", source).unwrap();
    for conversation in exhausting() {
        let ended = template.fit(&conversation, &Map::new());
        assert_eq!(ended.map_err(|e| e.kind).err(), Some(Kind::Validation));
    }
    let tool = json!({"type": "function", "function": {"name": "f", "parameters": {}}});
    let conversation = Conversation { tools: Some(vec![tool]), ..Conversation::new(None, "Hi") };
    assert!(template.fit(&conversation, &Map::new()).unwrap().ends_with("]Hi"));
}

/// Parts of templates, whole and broken.
const PIECES: [&str; 26] = [
    "{% for m in messages %}",
    "{% for i in range(9999) %}",
    "{% endfor %}",
    "{% if m.role == 'user' %}",
    "{% elif x is defined %}",
    "{% else %}",
    "{% endif %}",
    "{% set x = messages[0] %}",
    "{% set ns = namespace(x=1) %}",
    "{% set ns.x = ns.x + 1 %}",
    "{% macro f(a) %}",
    "{% endmacro %}",
    "{{ f(f) }}",
    "{{ m['content'] | trim }}",
    "{{ messages | tojson(indent=99999999999) }}",
    "{{ x.content.split('H')[-1][::-1] }}",
    "{{ 'x' * 99999 }}",
    "{{ strftime_now('%Q%') }}",
    "{{ raise_exception(x) }}",
    "{% generation -%}",
    "{%- endgeneration %}",
    "{% include 'chat_template.jinja' %}",
    "{{",
    "%}",
    "{#",
    "\u{0}é\n",
];

#[test]
fn any_template_renders_within_limits_or_is_refused() {
    arbtest::arbtest(|u| {
        let mut source = String::new();
        for _ in 0..u.int_in_range(1..=12)? {
            source += u.choose(&PIECES)?;
        }
        match render(&source) {
            Ok(text) => assert!(text.len() <= 16 << 20),
            Err(e) => assert!(e.to_string().starts_with("chat_template.jinja: "), "{e}: {source}"),
        }
        Ok(())
    })
    .budget_ms(500);
}

/// Expressions and templates with the texts that Jinja 3.1 in Python makes of them, with the
/// settings of transformers; `null` is an error.
#[test]
fn templates_give_the_text_that_jinja_gives() {
    let read = |name: &str| std::fs::read_to_string(format!("{DATA}/{name}")).unwrap();
    let variables: Value = serde_json::from_str(&read("../jinja/context.json")).unwrap();
    let variables = variables.as_object().unwrap().clone();
    let tools = variables["tools"].as_array().cloned();
    let conversation = Conversation { variables, tools, ..Conversation::default() };
    let (mut wrong, mut count) = (String::new(), 0);
    for line in read("../jinja/table.jsonl").lines() {
        let (source, expected): (String, Option<String>) = serde_json::from_str(line).unwrap();
        let template = Template::new("t", &source);
        let made = template.and_then(|template| template.render(&conversation, &Map::new()));
        count += 1;
        if made.as_ref().ok() != expected.as_ref() {
            wrong += &format!("{source:?} gives {made:?}, and should be {expected:?}\n");
        }
    }
    assert!(wrong.is_empty(), "{wrong}{} of {count} are wrong", wrong.lines().count());
}
