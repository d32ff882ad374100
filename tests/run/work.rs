//! How a model works: what it remembers, what helps it, what is added to it.

use std::fs;

use serde_json::{Value, json};

use super::tiny::{Tiny, data, read};

/// The one record of a prompt and its 24 tokens.
fn record(tiny: &Tiny, args: &[&str]) -> Value {
    let prompt = ["--ndjson", "--max-tokens", "24", &tiny.prompt];
    tiny.run(args).args(prompt).records().remove(0)
}

fn cached(record: &Value) -> &Value {
    &record["usage"]["prompt_tokens_details"]["cached_tokens"]
}

#[test]
fn a_prompt_cache_is_written_once_and_spares_the_prompt() {
    let tiny = Tiny::new();
    let file = tiny.env.home().join("cache");
    let args = ["--prompt-cache", file.to_str().unwrap()];
    let first = record(&tiny, &args);
    let written = fs::read(&file).unwrap();
    assert_eq!((cached(&first), &first["response"]), (&json!(0), &json!(tiny.greedy)));
    let second = record(&tiny, &args);
    assert_eq!((cached(&second), &second["response"]), (&json!(20), &json!(tiny.greedy)));
    assert_eq!(fs::read(&file).unwrap(), written);
    let request =
        json!({"prompt": format!("{} w5", tiny.prompt), "temperature": 0, "max_tokens": 4});
    let longer = &tiny.requests(&args, std::slice::from_ref(&request))[0];
    assert_eq!(
        (cached(longer), &longer["response"]),
        (&json!(21), &tiny.requests(&[], &[request])[0]["response"])
    );
}

#[test]
fn a_draft_changes_no_answer() {
    let tiny = Tiny::new();
    tiny.add("qwen2", "draft");
    tiny.add("llama", "twin");
    for how in [&["draft"][..], &["twin"], &["twin", "--num-draft-tokens", "7"]] {
        let args = [&["--draft-model"], how].concat();
        assert_eq!(record(&tiny, &args)["response"], tiny.greedy, "{how:?}");
        let hot = ["--temperature", "1.3", "--seed", "9", "--max-tokens", "20", &tiny.prompt];
        let plain = tiny.free(&hot).ok();
        assert_eq!(tiny.free(&args).args(hot).ok(), plain, "{how:?}");
    }
}

#[test]
fn a_draft_may_lie_in_a_cache_of_its_own() {
    let tiny = Tiny::new();
    for root in [tiny.env.home().join("own"), tiny.path(".hf_cache")] {
        let repo = root.join("hub/models--org--twin");
        tiny.add("llama", "twin");
        std::fs::create_dir_all(repo.join("snapshots")).unwrap();
        std::fs::rename(tiny.path("../twin"), repo.join("snapshots").join("1".repeat(40))).unwrap();
    }
    let draft = ["--draft-model", "org/twin"];
    let own = ["--draft-model", "org/twin", "--workspace-cache", "own"];
    assert_eq!(record(&tiny, &own)["response"], tiny.greedy);
    assert_eq!(record(&tiny, &draft)["response"], tiny.greedy, "that of the workspace");
    let absent = tiny.run(&draft).args(["--workspace-cache", "new", &tiny.prompt]).end();
    absent.refused(1, "mlxk-run: org/twin: no such model");
    assert!(tiny.env.home().join("new").is_dir());
}

#[test]
fn an_adapter_gives_the_answer_of_the_reference() {
    let tiny = Tiny::new();
    for kind in ["lora", "dora"] {
        let folder = data("adapters").join(kind);
        let known = read(&folder.join("expected.json"));
        let ids = known["greedy_ids"].as_array().unwrap().iter();
        let words: Vec<String> = ids.map(|id| format!("w{id}")).collect();
        let answer = record(&tiny, &["--adapter", folder.to_str().unwrap()]);
        assert_eq!(answer["response"], words.join(" "), "{kind}");
    }
}

#[test]
fn a_bounded_memory_changes_nothing_until_it_is_full() {
    let tiny = Tiny::new();
    assert_eq!(record(&tiny, &["--max-kv-size", "60"])["response"], tiny.greedy);
    let bounded = record(&tiny, &["--max-kv-size", "8"]);
    assert_ne!(bounded["response"], tiny.greedy);
    assert_eq!(bounded["usage"]["completion_tokens"], 24);
}

#[test]
fn values_that_no_memory_can_have_are_wrong_use() {
    let tiny = Tiny::new();
    for (args, message) in [
        (["--kv-bits", "7"], "mlxk-run: `kv_bits` is not 2, 3, 4, 5, 6 or 8"),
        (["--kv-group-size", "5"], "mlxk-run: `kv_group_size` is not 32, 64 or 128"),
        (["--max-kv-size", "4"], "mlxk-run: `max_kv_size` is not a whole number from 5"),
        (["--batch", "0"], "mlxk-run: `batch` is not a whole number from 1"),
    ] {
        tiny.run(&args).args(["w1"]).end().refused(2, message);
    }
}

#[test]
fn a_model_is_measured_for_people_and_for_programs() {
    let tiny = Tiny::new();
    let record = &tiny.free(&["--bench", "--ndjson", "--max-tokens", "9"]).records()[0];
    assert_eq!((&record["prompt_tokens"], &record["completion_tokens"]), (&json!(512), &json!(9)));
    let weights = fs::metadata(tiny.path("model.safetensors")).unwrap().len();
    // All but the embedding, whose rows are 320 of 32 floats, and the file's header.
    let read = record["token_bytes"].as_u64().unwrap();
    assert!(read < weights - 320 * 32 * 4 && read > weights / 2, "{record}");
    for name in
        ["load_seconds", "prefill_tps", "decode_tps", "peak_bytes", "bandwidth", "bandwidth_share"]
    {
        assert!(record[name].as_f64().is_some_and(|x| x > 0.0), "{name}: {record}");
    }
    let page = tiny.free(&["--bench", "--max-tokens", "9"]).ok();
    let lines: Vec<&str> =
        page.lines().map(|line| line.split_whitespace().next().unwrap()).collect();
    assert_eq!(lines[1..], ["load", "prefill", "decode", "memory", "bandwidth"], "{page}");
    assert_eq!(tiny.free(&["--bench", "w1"]).end().status(), 2);
}
