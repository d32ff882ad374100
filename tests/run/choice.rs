//! How the next token is chosen: every flag by what it does to the answer.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::tiny::{Tiny, data, read};

/// The words of an answer of 24 tokens.
fn words(tiny: &Tiny, args: &[&str]) -> Vec<String> {
    let answer = tiny.free(&["--max-tokens", "24"]).args(args).args([&tiny.prompt]).ok();
    answer.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn the_same_seed_gives_the_same_answer() {
    let tiny = Tiny::new();
    let answer = |seed: &str| {
        let run = tiny.env.run("mlxk-run");
        run.args(["tiny", "--temperature", "2", "--max-tokens", "12", "--seed", seed, "w1"]).ok()
    };
    assert_eq!(answer("1"), answer("1"));
    assert_ne!(answer("1"), answer("2"));
}

#[test]
fn a_seed_gives_the_same_answer_alone_and_beside_others() {
    let tiny = Tiny::new();
    let request = |id: u64| {
        json!({"id": id, "prompt": format!("w{id} w2"), "seed": id, "temperature": 1.5,
            "max_tokens": 8 + id})
    };
    let requests: Vec<Value> = (0..6).map(request).collect();
    let alone = tiny.requests(&["--batch", "1"], &requests);
    let mut beside = tiny.requests(&["--batch", "4"], &requests);
    beside.sort_by_key(|record| record["id"].as_u64());
    for (alone, beside) in alone.iter().zip(&beside) {
        assert_eq!((&alone["response"], &alone["seed"]), (&beside["response"], &beside["id"]));
    }
}

#[test]
fn filters_that_leave_one_token_leave_the_likeliest() {
    let tiny = Tiny::new();
    for filter in
        [["--top-k", "1"], ["--top-p", "0.000001"], ["--min-p", "1"], ["--top-n-sigma", "0.000001"]]
    {
        let answer = words(&tiny, &["--temperature", "3", filter[0], filter[1]]);
        assert_eq!(answer.join(" "), tiny.greedy, "{filter:?}");
    }
}

#[test]
fn dry_ends_a_loop_unless_a_breaker_starts_it_anew() {
    let tiny = Tiny::new();
    let repeats = |words: &[String]| {
        let threes: Vec<&[String]> = words.windows(3).collect();
        threes.iter().enumerate().any(|(at, three)| threes[..at].contains(three))
    };
    let loop_ = ["--temperature", "0", "--logit-bias", "5=1000"];
    assert!(repeats(&words(&tiny, &loop_)));
    let dry = [&loop_[..], &["--dry-multiplier", "1e6", "--dry-allowed-length", "1"]].concat();
    assert!(!repeats(&words(&tiny, &dry)));
    let free = [&dry[..], &["--dry-sequence-breaker", "w5"]].concat();
    assert_eq!(words(&tiny, &free), vec!["w5"; 24]);
}

#[test]
fn penalties_forbid_what_was_said_lately() {
    let tiny = Tiny::new();
    let distinct = |words: &[String]| words.iter().collect::<BTreeSet<_>>().len();
    assert!(distinct(&words(&tiny, &["--temperature", "0"])) < 24);
    for penalty in ["--repetition-penalty", "--presence-penalty", "--frequency-penalty"] {
        let args = ["--temperature", "0", penalty, "100000", "--penalty-context"];
        let answer = words(&tiny, &[&args[..], &["100"]].concat());
        assert_eq!(distinct(&answer), 24, "{penalty}");
        assert!(answer.iter().all(|word| !tiny.prompt.split(' ').any(|w| w == word)), "{penalty}");
        let short = words(&tiny, &[&args[..], &["1"]].concat());
        assert!(short.windows(2).all(|pair| pair[0] != pair[1]) && distinct(&short) < 24);
    }
}

#[test]
fn a_bias_moves_a_token_and_xtc_drops_the_likeliest_of_the_likely() {
    let tiny = Tiny::new();
    let always = words(&tiny, &["--temperature", "0", "--logit-bias", "5=1000"]);
    assert_eq!(always, vec!["w5"; 24]);
    let never = words(&tiny, &["--temperature", "0", "--logit-bias", "317=-1000"]);
    assert_ne!(never[0], "w317");
    let two = ["--logit-bias", "317=40", "--logit-bias", "5=30", "--temperature", "1"];
    let first = |more: &[&str]| words(&tiny, &[&two[..], more].concat())[0].clone();
    assert_eq!(first(&[]), "w317");
    let xtc = ["--top-p", "1", "--xtc-probability", "1", "--xtc-threshold"];
    assert_eq!(first(&[&xtc[..], &["0.00000001"]].concat()), "w5");
    assert_eq!(first(&[&xtc[..], &["0.5"]].concat()), "w317", "only one is so likely");
}

#[test]
fn a_stop_token_and_a_bound_end_the_answer() {
    let tiny = Tiny::new();
    let record = &tiny.run(&["--ndjson", "--stop-id", "280", &tiny.prompt]).records()[0];
    assert_eq!(
        (&record["response"], &record["finish_reason"]),
        (&json!(tiny.words(3)), &json!("stop"))
    );
    let record = &tiny.run(&["--ndjson", "--max-tokens", "5", &tiny.prompt]).records()[0];
    assert_eq!(
        (&record["response"], &record["finish_reason"]),
        (&json!(tiny.words(5)), &json!("length"))
    );
}

#[test]
fn logprobs_are_those_of_the_reference() {
    let tiny = Tiny::new();
    let args = ["--ndjson", "--logprobs", "20", "--max-tokens", "2", &tiny.prompt];
    let record = &tiny.run(&args).records()[0];
    let told = record["logprobs"].as_array().unwrap();
    assert_eq!((told.len(), &told[0]["token"]), (2, &json!(" w317")));
    let top = told[0]["top"].as_array().unwrap();
    assert_eq!(
        (top.len(), &top[0]["id"], &top[0]["logprob"]),
        (20, &json!(317), &told[0]["logprob"])
    );
    // The reference tells the logits of the first 64 tokens; their differences are those of the
    // logarithms.
    let logits = read(&data("parity/llama/expected.json"))["logits_head"].clone();
    let known = |told: &&Value| told["id"].as_u64().is_some_and(|id| id < 64);
    let told: Vec<(f64, f64)> = top
        .iter()
        .filter(known)
        .map(|told| {
            (
                told["logprob"].as_f64().unwrap(),
                logits[told["id"].as_u64().unwrap() as usize].as_f64().unwrap(),
            )
        })
        .collect();
    assert!(told.len() > 1, "{top:?}");
    for pair in told.windows(2) {
        assert!(((pair[0].0 - pair[1].0) - (pair[0].1 - pair[1].1)).abs() < 1e-3, "{pair:?}");
    }
}
