//! Requests on standard input, answered side by side.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use serde_json::{Value, json};

use super::tiny::Tiny;
use crate::env::records;

#[test]
fn each_request_gives_a_record_and_bad_lines_only_themselves() {
    let tiny = Tiny::new();
    let good = json!({"id": 7, "prompt": tiny.prompt, "max_tokens": 2, "tag": {"a": null}});
    let stop = json!({"prompt": tiny.prompt, "stop": ["6 w239"], "seed": 5});
    let input = format!("{good}\n\nnot json\n{{\"id\":8}}\n{stop}\n");
    let ended = tiny.run(&["--ndjson", "-"]).stdin(input).end();
    assert_eq!(ended.status(), 1);
    let answers = records(&ended.stdout());
    assert_eq!(answers.len(), 2, "{ended:?}");
    assert_eq!((&answers[0]["id"], &answers[0]["tag"]), (&good["id"], &good["tag"]));
    assert_eq!(answers[0]["response"], tiny.words(2));
    assert_eq!(answers[0]["finish_reason"], "length");
    let usage = json!({"prompt_tokens": 21, "completion_tokens": 2, "total_tokens": 23,
        "prompt_tokens_details": {"cached_tokens": 0}});
    assert_eq!(answers[0]["usage"], usage);
    assert!(answers[0]["seed"].is_u64());
    assert_eq!(answers[1]["response"], "w317 w1");
    assert_eq!((&answers[1]["finish_reason"], &answers[1]["seed"]), (&json!("stop"), &json!(5)));
    let complaints = ended.stderr();
    assert!(complaints.contains("mlxk-run: standard input, line 3: not a JSON object\n"));
    assert!(complaints.contains("line 4: neither a `prompt` nor `messages`\n"), "{complaints}");
}

/// A long answer, then short ones, to prompts that are of one length.
fn mixed(tiny: &Tiny) -> Vec<Value> {
    [40, 2, 3, 1]
        .iter()
        .enumerate()
        .map(|(id, count)| {
            json!({"id": id, "prompt": tiny.prompt, "max_tokens": count, "temperature": 0})
        })
        .collect()
}

fn ids(records: &[Value]) -> Vec<u64> {
    records.iter().map(|record| record["id"].as_u64().unwrap()).collect()
}

#[test]
fn answers_come_as_they_are_ready_or_in_order() {
    let tiny = Tiny::new();
    let free = tiny.requests(&[], &mixed(&tiny));
    assert_eq!(ids(&free).last(), Some(&0), "the long one is last");
    let ordered = tiny.requests(&["--ordered"], &mixed(&tiny));
    assert_eq!(ids(&ordered), [0, 1, 2, 3]);
    let one_by_one = tiny.requests(&["--batch", "1"], &mixed(&tiny));
    assert_eq!(ids(&one_by_one), [0, 1, 2, 3]);
    for records in [&free, &ordered, &one_by_one] {
        let of = |id: u64| records.iter().find(|record| record["id"] == id).unwrap();
        assert_eq!(of(2)["response"], tiny.words(3));
        assert!(of(0)["response"].as_str().unwrap().starts_with(&tiny.greedy));
    }
}

#[test]
fn a_bad_request_has_its_place_in_the_order_and_stops_no_other() {
    let tiny = Tiny::new();
    let good = json!({"id": 1, "prompt": tiny.prompt, "max_tokens": 1});
    let input = format!("{good}\n{{\"prompt\": 7}}\n{good}\n");
    let ended = tiny.run(&["--ndjson", "--ordered", "-"]).stdin(input).end();
    assert_eq!((ended.status(), records(&ended.stdout()).len()), (1, 2));
    assert_eq!(ended.stderr(), "mlxk-run: standard input, line 2: `prompt` is not a text\n");
}

#[test]
fn a_request_is_answered_before_the_next_one_is_written() {
    let tiny = Tiny::new();
    let mut child = tiny.command(&["--ndjson", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut answers = BufReader::new(child.stdout.take().unwrap()).lines();
    for id in 0..3 {
        writeln!(stdin, "{}", json!({"id": id, "prompt": "w1", "max_tokens": 2})).unwrap();
        let answer: Value = serde_json::from_str(&answers.next().unwrap().unwrap()).unwrap();
        assert_eq!(answer["id"], id);
    }
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

#[test]
fn what_prompts_have_in_common_is_computed_once_and_told() {
    let tiny = Tiny::new();
    let ask = |more: &str| json!({"prompt": format!("{}{more}", tiny.prompt), "max_tokens": 3, "temperature": 0});
    let answers = tiny.requests(&["--batch", "1"], &[ask(""), ask(""), ask(" w7 w8")]);
    let cached = |record: &Value| record["usage"]["prompt_tokens_details"]["cached_tokens"].clone();
    // The last token of a prompt is always looked at.
    assert_eq!(answers.iter().map(cached).collect::<Vec<_>>(), [0, 20, 21]);
    assert_eq!(answers[1]["response"], tiny.words(3));
    let fresh = tiny.requests(&[], &[ask(" w7 w8")]);
    assert_eq!(answers[2]["response"], fresh[0]["response"]);
}

/// Requests, whole and broken: fields of all kinds with values of all kinds.
#[test]
fn any_lines_give_a_record_or_a_complaint_each() {
    let tiny = Tiny::new();
    let fields = [
        "prompt",
        "messages",
        "system",
        "max_tokens",
        "temperature",
        "top_p",
        "top_k",
        "seed",
        "stop",
        "stop_ids",
        "logit_bias",
        "logprobs",
        "tools",
        "json_schema",
        "grammar",
        "images",
        "chat_template_kwargs",
        "penalty_context",
        "xtc_threshold",
    ];
    let values = [
        json!(null),
        json!(0),
        json!(1),
        json!(-1),
        json!(1e300),
        json!("w1"),
        json!(""),
        json!([]),
        json!(["w1"]),
        json!({}),
        json!({"1": 2}),
        json!([{"role": "user", "content": "w1"}]),
        json!({"type": "object"}),
        json!(true),
        json!(u64::MAX),
        json!([7]),
    ];
    let mut seed = 1u64;
    let mut number = |below: usize| {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 33) as usize % below
    };
    let mut lines = Vec::new();
    for _ in 0..300 {
        let mut request = json!({"prompt": "w1 w2", "max_tokens": 1});
        for _ in 0..number(4) {
            request[fields[number(fields.len())]] = values[number(values.len())].clone();
        }
        let mut line = request.to_string();
        if number(8) == 0 {
            line.truncate(number(line.len()));
        }
        if request["max_tokens"].as_u64().is_none_or(|most| most > 1) {
            line = line.replacen('{', "{\"max_tokens\":1,", 1);
        }
        lines.push(line);
    }
    lines.retain(|line| !line.trim().is_empty());
    let input = lines.join("\n");
    let ended = tiny.free(&["--ndjson", "--ordered", "-"]).stdin(input).end();
    let complaints = ended.stderr();
    let told = complaints.lines().filter(|line| line.starts_with("mlxk-run: standard input, line"));
    let (answered, told) = (records(&ended.stdout()).len(), told.count());
    assert_eq!(answered + told, lines.len(), "{complaints}");
    assert!(answered > 50 && told > 50 && !complaints.contains("panicked"), "{complaints}");
}
