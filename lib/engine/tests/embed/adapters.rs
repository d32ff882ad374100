//! Adapters of tasks inside a checkpoint.

use mlxk_core::Inspected;
use mlxk_engine::{EmbedForm, Embedder};
use mlxk_processor::engine::EmbedPrompt;
use serde_json::json;

use crate::cases::{case, compare, inspected, load, of_ids};
use crate::model::{Draft, Tensor};

#[test]
fn the_adapter_of_a_task_is_added_to_the_weights() {
    let draft = Draft::at(&case("jina-drawn"));
    let ids = [vec![5, 9, 70, 3]];
    // Two tasks, of rank 2; the second adds to a matrix and to the table of tokens.
    let mut adapted =
        draft.clone().with("lora_adaptations", json!(["one", "two"])).with("lora_alpha", 4);
    let mut summed = draft.clone();
    for layer in ["encoder.layers.0.mlp.fc1", "embeddings.word_embeddings"] {
        let weight = summed.tensors.get_mut(&format!("{layer}.weight")).unwrap();
        let &[rows, columns] = weight.shape.as_slice() else { panic!("no matrix") };
        let rows_of = |n: usize, task: usize| {
            (0..2 * n).map(move |i| if i < n { 9.0 } else { task as f32 * 0.01 * (i % 7) as f32 })
        };
        let (left, right): (Vec<f32>, Vec<f32>) =
            (rows_of(rows * 2, 1).collect(), rows_of(columns * 2, 2).collect());
        let sum = weight.elements().into_iter().enumerate().map(|(i, x)| {
            let (row, column) = (i / columns, i % columns);
            let product =
                |k: usize| left[2 * rows + 2 * row + k] * right[2 * columns + k * columns + column];
            x + 2.0 * (product(0) + product(1))
        });
        let sum: Vec<f32> = sum.collect();
        let (left, right) = (Tensor::of(&[2, rows, 2], left), Tensor::of(&[2, 2, columns], right));
        let (a, b) = if layer.contains("embeddings") { (left, right) } else { (right, left) };
        let name = |end: &str| format!("{layer}.parametrizations.weight.{end}");
        let original = adapted.tensors.remove(&format!("{layer}.weight")).unwrap();
        adapted.tensors.insert(name("original"), original);
        adapted.tensors.insert(name("0.lora_A"), a);
        adapted.tensors.insert(name("0.lora_B"), b);
        *weight = Tensor::of(&[rows, columns], sum);
    }
    let (adapted, summed, plain) = (adapted.write(), summed.write(), draft.write());
    let Inspected { facts, plan, .. } = inspected(adapted.path());
    let form = |prompt: &EmbedPrompt| EmbedForm::of(&facts, prompt).unwrap();
    assert_eq!(form(&EmbedPrompt::Named("two".to_owned())).task.unwrap(), "two");
    assert_eq!(form(&EmbedPrompt::Query).task, None);
    for on_cpu in [true, false] {
        let load_for = |task: Option<&str>| {
            let form = EmbedForm { task: task.map(str::to_owned), pooling: None };
            Embedder::load_for(&facts, &plan, on_cpu, form).unwrap()
        };
        let want = of_ids(&load(summed.path(), on_cpu).unwrap(), &ids, true);
        assert!(compare(&of_ids(&load_for(Some("two")), &ids, true)[0], &want[0]).0 < 1e-5);
        let want = of_ids(&load(plain.path(), on_cpu).unwrap(), &ids, true);
        assert!(compare(&of_ids(&load_for(None), &ids, true)[0], &want[0]).0 < 1e-6);
    }
    let refused = {
        let form = EmbedForm { task: Some("three".to_owned()), pooling: None };
        Embedder::load_for(&facts, &plan, true, form).err().unwrap()
    };
    assert_eq!(refused.message, "the model has no adapter for \"three\"");
}
