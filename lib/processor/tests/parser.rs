//! Answers told apart into reasoning, text and calls, however they are cut into pieces.

#![allow(clippy::unwrap_used)] // a test fails by panicking

use mlxk_processor::{Conversation, Delta, Markers, SectionParser, Template};
use serde_json::{Map, Value, json};

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/templates");

/// Reasoning, text, and calls as `name{arguments}`.
#[derive(Debug, Default, PartialEq)]
struct Parts {
    reasoning: String,
    text: String,
    calls: Vec<String>,
}

fn parts(pieces: impl IntoIterator<Item = Delta>) -> Parts {
    let mut parts = Parts::default();
    for piece in pieces {
        match piece {
            Delta::Reasoning(text) => parts.reasoning += &text,
            Delta::Text(text) => parts.text += &text,
            Delta::ToolCall(call) => {
                parts.calls.push(format!("{}{}", call.name, json!(call.arguments)))
            }
        }
    }
    parts
}

fn read<'a>(mut parser: SectionParser, pieces: impl IntoIterator<Item = &'a str>) -> Parts {
    let mut all: Vec<Delta> = Vec::new();
    for piece in pieces {
        all.extend(parser.push(piece));
    }
    all.extend(parser.finish());
    parts(all)
}

fn marks(source: &str) -> Markers {
    Markers::find(Some(source), &|_| false)
}

fn weather() -> Vec<Value> {
    let properties = json!({"city": {"type": "string"}, "days": {"type": "integer"}});
    vec![
        json!({"type": "function", "function": {"name": "weather", "parameters": {"properties": properties}}}),
    ]
}

/// The answer as a whole, which has to be the same in any two pieces and character by character.
fn whole(source: &str, prompt: &str, answer: &str) -> Parts {
    let parser = || SectionParser::new(&marks(source), prompt, &weather());
    let whole = read(parser(), [answer]);
    for (at, _) in answer.char_indices() {
        assert_eq!(read(parser(), [&answer[..at], &answer[at..]]), whole, "cut at {at}: {answer}");
    }
    let ends = answer.char_indices().map(|(at, c)| &answer[at..at + c.len_utf8()]);
    assert_eq!(read(parser(), ends), whole, "{answer}");
    whole
}

#[test]
fn reasoning_is_told_from_the_answer() {
    let known = |source, prompt, answer, reasoning: &str, text: &str| {
        let parts = whole(source, prompt, answer);
        assert_eq!((parts.reasoning.as_str(), parts.text.as_str()), (reasoning, text), "{answer}");
    };
    let think = "<think></think>";
    known(think, "a", "<think>\nHm. é\n\nSo.\n</think>\n\nYes.\n", "Hm. é\n\nSo.", "Yes.\n");
    known(think, "a", "\n<think></think>Yes", "", "Yes");
    known(think, "x<think>\n", "Hm.\n</think>\nYes", "Hm.", "Yes");
    known(think, "x<think>\n\n</think>\n\n", "Yes </think>", "", "Yes </think>");
    known(think, "a", "The tag <think> opens.</think>", "", "The tag <think> opens.</think>");
    known(think, "a", "<think>never ends ", "never ends", "");
    known(think, "a", "  a < b <thin", "", "  a < b <thin");
    known(think, "a", "<think>a</think><think>b</think> c", "a\n\nb", "c");
    known("[THINK] [/THINK]", "", "[THINK]a[b]c[/THINK]d", "a[b]c", "d");
    known("<|channel>thought\n<channel|>", "", "<|channel>thought\na\n<channel|>b", "a", "b");
    known("<seed:think></seed:think>", "", "<seed:think>a</seed:think>b", "a", "b");
    known("", "a", "<think>a</think>b", "", "<think>a</think>b");
}

#[test]
fn the_channels_of_harmony_are_reasoning_text_and_calls() {
    let harmony = "<|start|><|channel|><|message|>";
    let prompt = "<|start|>user<|message|>Hi<|end|><|start|>assistant";
    let answer = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Yes.\n<|return|>";
    let known = |reasoning: &str, text: &str, calls: &[&str]| Parts {
        reasoning: reasoning.into(),
        text: text.into(),
        calls: calls.iter().map(|&call| call.into()).collect(),
    };
    assert_eq!(whole(harmony, prompt, answer), known("Hm.", "Yes.\n", &[]));
    let call = "<|channel|>analysis<|message|>A<|end|><|start|>assistant<|channel|>analysis<|message|>B<|end|>\
        <|start|>assistant<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{\"city\":\"A\"}<|call|>";
    let parts = known("A\n\nB", "", &["weather{\"city\":\"A\"}"]);
    assert_eq!(whole(harmony, prompt, call), parts);
    let early = " to=functions.f<|channel|>commentary json<|message|>{}";
    assert_eq!(whole(harmony, prompt, early), known("", "", &["f{}"]));
    let opened = format!("{prompt}<|channel|>final<|message|>");
    assert_eq!(whole(harmony, &opened, "Yes"), known("", "Yes", &[]));
    assert_eq!(whole(harmony, prompt, "no form"), known("", "no form", &[]));
}

#[test]
fn calls_are_read_in_the_forms_of_many_models() {
    let call = "weather{\"city\":\"Zürich\",\"days\":2}";
    for (source, answer) in [
        (
            "<tool_call>",
            "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Zürich\", \"days\": 2}}\n</tool_call>",
        ),
        (
            "<tool_call>",
            "<tool_call>\n<function=weather>\n<parameter=city>\nZürich\n</parameter>\n<parameter=days>\n2\n</parameter>\n</function>\n</tool_call>",
        ),
        (
            "<tool_call>",
            "<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>Zürich</arg_value>\n<arg_key>days</arg_key>\n<arg_value>2</arg_value>\n</tool_call>",
        ),
        (
            "<|python_tag|>",
            "{\"name\": \"weather\", \"parameters\": {\"city\": \"Zürich\", \"days\": 2}}",
        ),
        (
            "<|python_tag|>",
            "<|python_tag|>{\"name\": \"weather\", \"parameters\": {\"city\": \"Zürich\", \"days\": 2}}",
        ),
        ("<|python_tag|>", "<|python_tag|>weather.call(city=\"Zürich\", days=2)"),
        (
            "[TOOL_CALLS]",
            "[TOOL_CALLS][{\"name\": \"weather\", \"arguments\": {\"city\": \"Zürich\", \"days\": 2}}]",
        ),
        (
            "[TOOL_CALLS]",
            "[TOOL_CALLS]weather[CALL_ID]abc[ARGS]{\"city\": \"Zürich\", \"days\": 2}",
        ),
        (
            "<start_function_call>",
            "<start_function_call>call:weather{city:<escape>Zürich<escape>,days:2}<end_function_call>",
        ),
        (
            "<|tool_call_start|>",
            "<|tool_call_start|>[weather(city='Zürich', days=2)]<|tool_call_end|>",
        ),
        (
            "<｜tool▁calls▁begin｜>",
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n{\"city\": \"Zürich\", \"days\": 2}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        ),
        (
            "<minimax:tool_call>",
            "<minimax:tool_call>\n<invoke name=\"weather\">\n<parameter name=\"city\">Zürich</parameter>\n<parameter name=\"days\">2</parameter>\n</invoke>\n</minimax:tool_call>",
        ),
        (
            "<|START_ACTION|>",
            "<|START_ACTION|>[{\"tool_call_id\": \"0\", \"tool_name\": \"weather\", \"parameters\": {\"city\": \"Zürich\", \"days\": 2}}]<|END_ACTION|>",
        ),
    ] {
        let parts = whole(source, "", answer);
        assert_eq!(
            (parts.text.as_str(), parts.calls.as_slice()),
            ("", &[call.to_owned()][..]),
            "{answer}"
        );
    }
    let two = "Let me see.\n\n<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>\n<tool_call>{\"name\":\"g\",\"arguments\":\"{}\"}</tool_call>\nDone";
    let parts = whole("<tool_call>", "", two);
    assert_eq!(parts.calls, ["f{}", "g{}"]);
    assert_eq!(parts.text, "Let me see.\n\nDone");
}

#[test]
fn a_call_may_have_no_arguments() {
    let json = |rest: &str| format!("<tool_call>{{\"name\": \"weather\"{rest}}}</tool_call>");
    for (source, answer) in [
        ("<tool_call>", json(", \"arguments\": null")),
        ("<tool_call>", json(", \"arguments\": \"\"")),
        ("<tool_call>", json(", \"arguments\": \"null\"")),
        ("<tool_call>", json(", \"parameters\": null")),
        ("<tool_call>", json("")),
        ("<tool_call><function=", "<tool_call><function=weather></function></tool_call>".to_owned()),
        ("<tool_call>", "<tool_call>weather</tool_call>".to_owned()),
        ("[TOOL_CALLS]", "[TOOL_CALLS]weather[ARGS]null".to_owned()),
        ("[TOOL_CALLS]", "[TOOL_CALLS]weather[ARGS]".to_owned()),
        ("<start_function_call>", "<start_function_call>call:weather<end_function_call>".to_owned()),
        ("<|tool_call_start|>", "<|tool_call_start|>[weather()]<|tool_call_end|>".to_owned()),
        (
            "<｜tool▁calls▁begin｜>",
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\nnull\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>".to_owned(),
        ),
        (
            "<|channel|><|message|>",
            "<|channel|>commentary to=functions.weather<|message|>null<|call|>".to_owned(),
        ),
        (
            "<|channel|><|message|>",
            "<|channel|>commentary to=functions.weather<|message|><|call|>".to_owned(),
        ),
    ] {
        assert_eq!(whole(source, "", &answer).calls, ["weather{}"], "{answer}");
    }
}

#[test]
fn what_is_no_call_stays_text() {
    for (source, answer) in [
        ("<tool_call>", "a <tool_call> b </tool_call> c\n"),
        ("<tool_call>", "<tool_call>{\"name\": 1}</tool_call>"),
        ("<tool_call>", "  <tool_call>{\"name\": \"f\", \"arguments\": {"),
        ("<|python_tag|>", "{\"a\": 1} and so on\n"),
        ("[TOOL_CALLS]", "[TOOL_CALLS] is a mark"),
        ("<function=", "<function=> x"),
    ] {
        assert_eq!(whole(source, "", answer).text, answer);
    }
    let parser = SectionParser::new(&marks("<|python_tag|>"), "", &[]);
    let json = "{\"name\": \"weather\", \"parameters\": {}}";
    assert_eq!(read(parser, [json]).text, json, "without tools JSON is an answer");
}

/// The template itself writes what the model is to write: what comes behind the prompt when the
/// conversation goes on with the call.
#[test]
fn a_call_is_read_as_the_template_of_its_model_writes_it() {
    let file = |name: &str| std::fs::read_to_string(format!("{DATA}/{name}")).unwrap();
    let given: Value = serde_json::from_str(&file("conversations.json")).unwrap();
    let expected: Value = serde_json::from_str(&file("expected.json")).unwrap();
    let tokens = given["tokens"].as_object().unwrap();
    let messages = given["conversations"]["call"]["messages"].as_array().unwrap();
    let known = &messages[1]["tool_calls"][0]["function"];
    let known = format!("weather{}", known["arguments"]);
    let mut others = Vec::new();
    for name in expected["texts"].as_object().unwrap().keys() {
        let source = file(&format!("{name}.jinja"));
        let template = Template::new(name, &source).unwrap();
        let render = |messages: &[Value], go_on: bool| {
            let tools = given["tools"].as_array().cloned();
            let variables: Map<_, _> =
                [("add_generation_prompt".to_owned(), json!(go_on))].into_iter().collect();
            let conversation =
                Conversation { messages: messages.to_vec(), tools, variables, images: vec![] };
            template.render(&conversation, tokens)
        };
        let (Ok(prompt), Ok(text)) = (render(&messages[..1], true), render(&messages[..2], false))
        else {
            others.push(name.as_str());
            continue;
        };
        let shared = prompt.char_indices().zip(text.chars()).find(|((_, a), b)| a != b);
        let shared = shared.map_or(prompt.len().min(text.len()), |((at, _), _)| at);
        // Markers that differ may begin alike.
        let mark = text[..shared]
            .rfind(['<', '['])
            .filter(|at| !text[*at..shared].contains(['>', ']', '\n']));
        let shared = mark.unwrap_or(shared);
        // The type of an argument that the tool does not state is not known.
        let mut tools = given["tools"].clone();
        tools[0]["function"]["parameters"]["properties"]["now"] = json!({"type": "boolean"});
        let tools = tools.as_array().unwrap();
        let is_token = |token: &str| name.starts_with("meta-llama") && token == "<|python_tag|>";
        let marks = Markers::find(Some(&source), &is_token);
        let parser = SectionParser::new(&marks, &text[..shared], tools);
        let ends = ["<|eot_id|>", "</s>", "<|message_sep|>"];
        let answer =
            ends.iter().fold(text[shared..].trim_end(), |text, end| text.trim_end_matches(end));
        let same = |call: &String| {
            let (mut call, mut known): (Value, Value) = (
                serde_json::from_str(&call[7..]).unwrap_or_default(),
                serde_json::from_str(&known[7..]).unwrap(),
            );
            call.sort_all_objects();
            known.sort_all_objects();
            call == known
        };
        match read(parser, [answer]).calls.as_slice() {
            [call] if call.starts_with("weather{") && same(call) => {}
            _ => others.push(name),
        }
    }
    others.retain(|name| {
        !NO_CALLS.contains(name) && !OWN_FORMS.contains(name) && *name != "settings"
    });
    assert!(others.is_empty(), "{others:?}");
}

/// Templates that write no call, or fail at it.
const NO_CALLS: [&str; 13] = [
    "CohereForAI-c4ai-command-r-plus-tool_use",
    "HuggingFaceTB-SmolLM3-3B",
    "Kimi-K2-Instruct",
    "Kimi-K2-Thinking",
    "LFM2-8B-A1B",
    "LFM2.5-Instruct",
    "deepseek-ai-DeepSeek-R1-Distill-Llama-8B",
    "fireworks-ai-llama-3-firefunction-v2",
    "google-gemma-2-2b-it",
    "ibm-granite-granite-3.3-2B-Instruct",
    "llama-cpp-rwkv-world",
    "microsoft-Phi-3.5-mini-instruct",
    "llama-cpp-deepseek-r1",
];

/// Templates that write calls in a form that no other model has.
const OWN_FORMS: [&str; 6] = [
    "GigaChat3-10B-A1.8B",
    "Kimi-K3",
    "MiniMax-M3",
    "meetkai-functionary-medium-v3.2",
    "tencent-Hy3",
    "upstage-Solar-Open-100B",
];

const PIECES: [&str; 24] = [
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "{\"name\":\"f\",\"arguments\":{}}",
    "{",
    "}",
    " ",
    "\n",
    "a",
    "é€",
    "<",
    "<t",
    "<function=f>",
    "</function>",
    "<parameter=a>",
    "</parameter>",
    "[TOOL_CALLS]",
    "[ARGS]",
    "<|tool_call>",
    "<tool_call|>",
    "call:f{a:<|\"|>b<|\"|>}",
    "<｜tool▁calls▁begin｜>",
    "<invoke name=",
];

#[test]
fn any_answer_is_the_same_however_it_is_cut() {
    let all = PIECES.concat();
    let harmony = "<|start|><|channel|><|message|>";
    arbtest::arbtest(|u| {
        let mut answer = String::new();
        for _ in 0..u.int_in_range(0..=10)? {
            answer += u.choose(&PIECES)?;
        }
        let source = if u.ratio(1, 4)? { harmony } else { all.as_str() };
        let prompt = *u.choose(&["", "<think>\n", "<|start|>assistant"])?;
        whole(source, prompt, &answer);
        Ok(())
    })
    .budget_ms(1000);
}
