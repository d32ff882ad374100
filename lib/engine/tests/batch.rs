//! Sequences that share steps, beginnings and memory get the tokens that they would get alone.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod model;

use std::collections::BTreeMap;

use mlxk_core::tensors::Dtype;
use mlxk_engine::{Model, Prefill};
use mlxk_processor::{Constraint, Sampling};
use model::{Draft, GREEDY, parity};

const CASES: [&str; 5] = ["llama", "mistral", "qwen3-q4", "smollm3", "deepseek_v41-mixed"];

/// The tiny model `case`.
fn load(case: &str) -> Model {
    Draft::of(case).load().unwrap().0
}

fn alone(model: &mut Model, prompt: &[u32], sampling: &Sampling, count: usize) -> Vec<u32> {
    model.tokens(prompt, sampling).unwrap().take(count).map(Result::unwrap).collect()
}

/// A prompt of `count` tokens, its own for each `kind`.
fn prompt(kind: u32, count: u32) -> Vec<u32> {
    (0..count).map(|n| 3 + (n * 37 + kind * 101 + n * n * kind) % 200).collect()
}

/// Lets sequences join before the steps that are named, and takes each out after `count` tokens.
fn together(
    model: &mut Model,
    sequences: &[(usize, Vec<u32>, Sampling)],
    count: usize,
) -> Vec<Vec<u32>> {
    let mut numbers = BTreeMap::new();
    let mut told = vec![Vec::new(); sequences.len()];
    for step in 0.. {
        for (place, (joins, prompt, sampling)) in sequences.iter().enumerate() {
            if *joins == step {
                numbers.insert(model.join(prompt, sampling.clone(), None).unwrap(), place);
            }
        }
        for (number, token) in model.step().unwrap() {
            let told = &mut told[numbers[&number]];
            if told.len() < count {
                told.push(token.unwrap().id);
            }
            if told.len() == count {
                model.leave(number);
            }
        }
        if told.iter().all(|told| told.len() == count) {
            return told;
        }
        assert!(step < 500, "{told:?}");
    }
    unreachable!()
}

#[test]
fn a_text_gets_the_same_tokens_alone_and_beside_others() {
    for case in CASES {
        let hot = |seed| Sampling { temperature: 1.0, top_p: 0.9, seed, ..GREEDY };
        let penalised = Sampling { repetition_penalty: 1.3, frequency_penalty: 0.2, ..hot(3) };
        let sequences = [
            (0, prompt(1, 20), GREEDY),
            (0, prompt(2, 1), hot(1)),
            (3, prompt(3, 45), hot(2)),
            (5, prompt(4, 7), penalised),
        ];
        for chunk in [8, 512] {
            let mut model = load(case);
            model.forward.prefill_chunk = chunk;
            let told = together(&mut model, &sequences, 16);
            for ((_, prompt, sampling), told) in sequences.iter().zip(told) {
                let mut fresh = load(case);
                assert_eq!(told, alone(&mut fresh, prompt, sampling, 16), "{case} by {chunk}");
            }
        }
    }
}

#[test]
fn what_a_text_shares_with_one_that_is_over_is_not_computed_again() {
    for case in CASES {
        let mut model = load(case);
        let first = prompt(1, 30);
        let answer = alone(&mut model, &first, &GREEDY, 6);
        let longer = [&first[..], &answer[..5], &[9, 8, 7]].concat();
        let other = [&first[..20], &[5, 6]].concat();
        for (prompt, least) in [(&longer, 35), (&other, 20), (&first, 29)] {
            let known = alone(&mut load(case), prompt, &GREEDY, 8);
            let number = model.join(prompt, GREEDY, None).unwrap();
            let mut told = Vec::new();
            while told.len() < 8 {
                told.extend(model.step().unwrap().into_iter().map(|(_, token)| token.unwrap().id));
            }
            assert_eq!(told, known, "{case}");
            // A window that has moved on cannot go back.
            assert!(case == "mistral" || model.reused(number) as usize >= least, "{case} {least}");
            model.leave(number);
        }
    }
}

#[test]
fn a_beginning_that_texts_share_is_computed_once() {
    let mut model = model::load(&parity("llama")).unwrap();
    model.forward.prefill_chunk = 16;
    let text = |own: &[u32]| [&prompt(1, 60), own].concat();
    let prompts = [text(&[4, 5]), text(&[6]), text(&[7, 8, 9])];
    let join = |prompt: &Vec<u32>| model.join(prompt, GREEDY, None).unwrap();
    let numbers: Vec<u64> = prompts.iter().map(join).collect();
    let mut told: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
    while told.len() < 3 || told.values().any(|told| told.len() < 6) {
        for (number, token) in model.step().unwrap() {
            told.entry(number).or_default().push(token.unwrap().id);
        }
    }
    assert_eq!(numbers.iter().map(|&n| model.reused(n)).collect::<Vec<_>>(), [0, 60, 60]);
    for (number, prompt) in numbers.iter().zip(&prompts) {
        let known = alone(&mut model::load(&parity("llama")).unwrap(), prompt, &GREEDY, 6);
        assert_eq!(told[number][..6], known);
    }
}

#[test]
fn a_text_goes_on_in_every_step_in_which_another_is_taken_in() {
    let mut model = model::load(&parity("llama")).unwrap();
    model.forward.prefill_chunk = 16;
    let first = model.join(&prompt(1, 5), GREEDY, None).unwrap();
    while model.step().unwrap().is_empty() {}
    let second = model.join(&prompt(2, 200), GREEDY, None).unwrap();
    for steps in 0.. {
        let step = model.step().unwrap();
        let told: Vec<u64> = step.into_iter().map(|(number, _)| number).collect();
        assert!(told.contains(&first), "step {steps}: {told:?}");
        if told.contains(&second) {
            assert!(steps >= 200 / 16, "{steps}");
            break;
        }
    }
}

/// Steps as a server takes them, in which nobody waits for another's prompt.
fn fair(model: &mut Model) -> Vec<(u64, u32)> {
    let streams = model.decode_time();
    let step = model.step_with(Prefill::Fair { streams }).unwrap();
    step.into_iter().map(|(number, token)| (number, token.unwrap().id)).collect()
}

#[test]
fn short_prompts_and_running_texts_do_not_wait_for_a_long_prompt() {
    for on_cpu in [true, false] {
        let load = || model::load_for(&parity("llama"), on_cpu).unwrap();
        let mut model = load();
        model.forward.prefill_chunk = 64;
        let prompts = [prompt(1, 900), prompt(2, 12), prompt(3, 30)];
        let long = model.join(&prompts[0], GREEDY, None).unwrap();
        fair(&mut model);
        let shorts = [1, 2].map(|n| model.join(&prompts[n], GREEDY, None).unwrap());
        let mut told: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
        while !told.contains_key(&long) {
            let begun: Vec<u64> = told.keys().copied().collect();
            let step = fair(&mut model);
            for number in begun {
                assert!(step.iter().any(|(n, _)| *n == number), "{number} waits");
            }
            step.into_iter().for_each(|(n, token)| told.entry(n).or_default().push(token));
        }
        let [first, second] = shorts.map(|number| told[&number].len());
        assert!(first > second && second > 10, "{first} and {second} tokens before the long one");
        for (number, prompt) in [long, shorts[0], shorts[1]].into_iter().zip(&prompts) {
            let known = alone(&mut load(), prompt, &GREEDY, told[&number].len());
            assert_eq!(told[&number], known);
        }
    }
}

#[test]
fn the_memory_for_texts_that_are_over_is_bounded() {
    let mut model = model::load(&parity("llama")).unwrap();
    model.forward.cache_options.prefix_bytes = 0;
    alone(&mut model, &prompt(1, 30), &GREEDY, 2);
    let number = model.join(&prompt(1, 30), GREEDY, None).unwrap();
    model.step().unwrap();
    assert_eq!(model.reused(number), 0);
}

#[test]
fn a_bound_that_is_not_reached_changes_nothing_and_one_that_is_keeps_going() {
    let prompt = prompt(1, 40);
    let mut free = model::load(&parity("llama")).unwrap();
    let known = alone(&mut free, &prompt, &GREEDY, 30);
    for (most, same) in [(70, true), (12, false)] {
        let mut model = model::load(&parity("llama")).unwrap();
        model.forward.cache_options.max_kv_size = Some(most);
        let told = alone(&mut model, &prompt, &GREEDY, 30);
        assert_eq!(told == known, same, "{most}");
        model.forward.prefill_chunk = 3;
        model.forward.cache_options.prefix_bytes = 0;
        assert_eq!(alone(&mut model, &prompt, &GREEDY, 30), told, "{most}, in chunks");
    }
}

#[test]
fn logprobs_are_those_of_the_logits() {
    let mut model = model::load(&parity("llama")).unwrap();
    let prompt = prompt(1, 10);
    let logits = model.logits(&prompt).unwrap();
    let sum: f32 = logits.iter().map(|x| x.exp()).sum();
    model.join(&prompt, Sampling { logprobs: Some(3), ..GREEDY }, None).unwrap();
    let token = loop {
        if let Some((_, token)) = model.step().unwrap().pop() {
            break token.unwrap();
        }
    };
    let logprob = token.logprob.unwrap();
    assert!((logprob - (logits[token.id as usize] - sum.ln())).abs() < 1e-4);
    assert_eq!((token.top.len(), token.top[0]), (3, (token.id, logprob)));
}

#[test]
fn guesses_change_no_token() {
    let hot = Sampling { temperature: 0.8, top_p: 0.95, seed: 5, ..GREEDY };
    let penalised = Sampling { repetition_penalty: 1.2, ..hot.clone() };
    let dry = Sampling { dry_multiplier: 5.0, dry_allowed_length: 1, ..GREEDY };
    for (case, draft) in [
        ("llama", "llama"),
        ("llama", "qwen2"),
        ("mistral", "mistral"),
        ("deepseek_v41-mixed", "llama"),
    ] {
        let mut guided = load(case).guided_by(load(draft), 3).unwrap();
        let sequences = [
            (0, prompt(1, 20), GREEDY),
            (0, prompt(2, 40), hot.clone()),
            (2, prompt(3, 5), penalised.clone()),
            (3, prompt(4, 9), dry.clone()),
        ];
        let told = together(&mut guided, &sequences, 24);
        for ((_, prompt, sampling), told) in sequences.iter().zip(told) {
            let known = alone(&mut load(case), prompt, sampling, 24);
            assert_eq!(told, known, "{draft} guesses for {case}");
        }
    }
}

#[test]
fn good_guesses_save_steps() {
    let load = || model::load(&parity("llama")).unwrap();
    let mut guided = load().guided_by(load(), 3).unwrap();
    guided.join(&prompt(1, 20), GREEDY, None).unwrap();
    let counts: Vec<usize> = (0..4).map(|_| guided.step().unwrap().len()).collect();
    assert_eq!(counts, [1, 4, 4, 4]);
}

#[test]
fn an_adapter_gives_the_answers_of_the_reference() {
    let data = parity("llama").join("../../adapters");
    let expected = std::fs::read(parity("llama").join("expected.json")).unwrap();
    let expected: serde_json::Value = serde_json::from_slice(&expected).unwrap();
    let ids = |value: &serde_json::Value| -> Vec<u32> {
        value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
    };
    for kind in ["lora", "dora"] {
        let mut adapted = model::load_adapted(&parity("llama"), &data.join(kind)).unwrap();
        let known = std::fs::read(data.join(kind).join("expected.json")).unwrap();
        let known: serde_json::Value = serde_json::from_slice(&known).unwrap();
        assert_ne!(known["greedy_ids"], expected["greedy_ids"]);
        let told = alone(&mut adapted, &ids(&expected["prompt_ids"]), &GREEDY, 24);
        assert_eq!(told, ids(&known["greedy_ids"]), "{kind}");
    }
    let mut shorter = model::Draft::of("llama").with("num_hidden_layers", 3);
    shorter.tensors.retain(|name, _| !name.contains("layers.3."));
    let (_, dir) = shorter.load().unwrap();
    let e = model::load_adapted(dir.path(), &data.join("lora")).err().unwrap();
    assert!(e.subject.contains("layers.3.") && e.message.contains("another model"), "{e}");
}

/// Rows that several tokens make are of the type of the model's vectors, however the sequence was cut.
#[test]
fn a_prompt_cache_of_16_bits_is_restored_whatever_the_text_began_with() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cache");
    let mut draft = Draft::of("deepseek_v41-mixed");
    // MLX multiplies with experts of 16 bits on a GPU alone.
    for (_, tensor) in draft.tensors.iter_mut().filter(|(name, _)| !name.contains("switch_mlp")) {
        let half = |x: f32| ((x.to_bits() + 0x8000) >> 16) as u16;
        tensor.bytes = tensor.elements().into_iter().flat_map(|x| half(x).to_le_bytes()).collect();
        tensor.dtype = Dtype::BF16;
    }
    let place = draft.write();
    let facts = model::facts(place.path()).unwrap();
    for chunk in [1, 30] {
        let mut first = model::load_for(place.path(), false).unwrap();
        first.forward.prefill_chunk = chunk;
        alone(&mut first, &prompt(1, 30), &GREEDY, 3);
        first.save(&file, &facts).unwrap();
        let mut second = model::load_for(place.path(), false).unwrap();
        second.restore(&file, &facts).unwrap();
        let number = second.join(&prompt(1, 31), GREEDY, None).unwrap();
        while second.step().unwrap().is_empty() {}
        assert!(second.reused(number) >= 30, "in chunks of {chunk}");
    }
}

#[test]
fn a_prompt_cache_is_restored_from_its_file_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cache");
    for case in ["llama", "mistral", "mamba2-untied", "deepseek_v41-mixed"] {
        let (place, prompt) = (Draft::of(case).write(), prompt(1, 30));
        let path = place.path();
        let facts = model::facts(path).unwrap();
        let longer = [&prompt[..], &[7, 5]].concat();
        let mut first = model::load(path).unwrap();
        let known = alone(&mut first, &longer, &GREEDY, 8);
        let mut first = model::load(path).unwrap();
        let number = first.join(&prompt, GREEDY, None).unwrap();
        while first.step().unwrap().is_empty() {}
        first.leave(number);
        first.save(&file, &facts).unwrap();
        let mut second = model::load(path).unwrap();
        second.restore(&file, &facts).unwrap();
        let number = second.join(&longer, GREEDY, None).unwrap();
        let mut told = Vec::new();
        while told.len() < 8 {
            told.extend(second.step().unwrap().into_iter().map(|(_, token)| token.unwrap().id));
        }
        assert_eq!((told, second.reused(number)), (known, 30), "{case}");
        let other = model::facts(&parity("qwen2")).unwrap();
        let e = model::load(&parity("qwen2")).unwrap().restore(&file, &other).unwrap_err();
        assert!(e.message.starts_with("a prompt cache of "), "{e}");
        let mut packed = model::load(path).unwrap();
        packed.forward.cache_options.kv_bits = Some(8);
        packed.forward.cache_options.kv_group_size = 32;
        assert!(case == "mamba2-untied" || packed.restore(&file, &facts).is_err());
    }
    let whole = std::fs::read(&file).unwrap();
    let facts = model::facts(&parity("llama")).unwrap();
    for size in [0, 7, 100, whole.len() - 1] {
        std::fs::write(&file, &whole[..size]).unwrap();
        assert!(model::load(&parity("llama")).unwrap().restore(&file, &facts).is_err());
    }
}

/// Lets the ids through, by turns, that leave 0, 1 or 2 when divided by 3.
struct Thirds(u32);

impl Constraint for Thirds {
    fn allowed(&mut self) -> mlxk_core::Result<Vec<u32>> {
        let mut allowed = vec![0; 10];
        (0..320)
            .filter(|id| id % 3 == self.0 % 3)
            .for_each(|id| allowed[id as usize / 32] |= 1 << (id % 32));
        Ok(allowed)
    }

    fn push(&mut self, id: u32) -> mlxk_core::Result<()> {
        assert_eq!(id % 3, self.0 % 3);
        self.0 += 1;
        Ok(())
    }
}

/// 12 tokens of each of sequences that begin together, every other one of them bound by rules.
fn bound(model: &mut Model, sequences: &[(Vec<u32>, Sampling)]) -> Vec<Vec<u32>> {
    let mut numbers = Vec::new();
    for (n, (prompt, sampling)) in sequences.iter().enumerate() {
        let rules: Option<Box<dyn Constraint>> = match n % 2 {
            0 => Some(Box::new(Thirds(0))),
            _ => None,
        };
        numbers.push(model.join(prompt, sampling.clone(), rules).unwrap());
    }
    let mut told = vec![Vec::new(); sequences.len()];
    while told.iter().any(|told| told.len() < 12) {
        for (number, token) in model.step().unwrap() {
            let told = &mut told[numbers.iter().position(|n| *n == number).unwrap()];
            if told.len() < 12 {
                told.push(token.unwrap().id);
            }
            if told.len() == 12 {
                model.leave(number);
            }
        }
    }
    told
}

#[test]
fn rules_bind_their_own_text_beside_others_and_with_guesses() {
    let hot = |seed| Sampling { temperature: 1.2, top_p: 0.95, seed, ..GREEDY };
    let sequences = [
        (prompt(1, 20), GREEDY),
        (prompt(2, 9), hot(1)),
        (prompt(3, 1), hot(2)),
        (prompt(4, 30), GREEDY),
    ];
    for case in ["llama", "smollm3"] {
        let load = |on_cpu| model::load_for(&parity(case), on_cpu).unwrap();
        let alone: Vec<Vec<u32>> = (0..sequences.len())
            .map(|n| match n % 2 {
                0 => bound(&mut load(true), &sequences[n..=n]).remove(0),
                _ => alone(&mut load(true), &sequences[n].0, &sequences[n].1, 12),
            })
            .collect();
        for (n, told) in alone.iter().enumerate().filter(|(n, _)| n % 2 == 0) {
            assert!(told.iter().zip(0..).all(|(id, turn)| id % 3 == turn % 3), "{n}: {told:?}");
        }
        assert_eq!(bound(&mut load(true), &sequences), alone, "{case}");
        assert_eq!(bound(&mut load(false), &sequences), alone, "{case}, queued ahead");
        let mut guided = load(true).guided_by(load(true), 3).unwrap();
        assert_eq!(bound(&mut guided, &sequences), alone, "{case}, guessed");
    }
}
