//! Embeddings, reranking and scores.

use mlxk_processor::engine::{EmbedInput, EmbedPrompt, EmbedRequest, ScoreRequest};
use mlxk_serve::{App, Key, Settings};
use mlxk_testengine::{Answered, PROMPT, Script, get, post, settings};
use serde_json::{Value, json};

async fn ask(script: &Script, path: &str, body: Value) -> Answered {
    post(&App::new(script.clone(), settings()), path, body).await
}

#[tokio::test]
async fn vectors_are_numbers_or_base64_as_asked() {
    let script = Script::new();
    let body = json!({"model": "m", "input": ["ab", "c"], "dimensions": 2});
    let answer = ask(&script, "/v1/embeddings", body).await.json();
    assert_eq!(answer["object"], "list");
    assert_eq!(answer["model"], "m");
    let embedding = |index: usize, vector: Value| json!({"object": "embedding", "index": index, "embedding": vector});
    let data = json!([embedding(0, json!([2.0, 2.0])), embedding(1, json!([1.0, 1.0]))]);
    assert_eq!(answer["data"], data);
    let tokens = 2 * PROMPT;
    assert_eq!(answer["usage"], json!({"prompt_tokens": tokens, "total_tokens": tokens}));
    let body = json!({"model": "m", "input": "a", "encoding_format": "base64", "dimensions": 1});
    let answer = ask(&script, "/v1/embeddings", body).await.json();
    // 1.0 in little-endian order.
    assert_eq!(answer["data"][0]["embedding"], "AACAPw==");
}

#[tokio::test]
async fn a_request_for_embeddings_reaches_the_engine_whole() {
    let script = Script::new();
    let body = json!({
        "model": "m", "input": [[1, 2], [3]], "prompt_name": "query", "normalize": false,
        "truncate": true, "user": "me",
    });
    let answered = ask(&script, "/v1/embeddings", body).await;
    assert_eq!(answered.headers["x-mlxk-truncated"], "1");
    let expected = EmbedRequest {
        model: "m".to_owned(),
        inputs: vec![EmbedInput::Tokens(vec![1, 2]), EmbedInput::Tokens(vec![3])],
        prompt: EmbedPrompt::Named("query".to_owned()),
        normalize: Some(false),
        truncate: true,
        dimensions: None,
    };
    assert_eq!(script.embedded(), expected);
    for (field, value, prompt) in [
        ("input_type", "query", EmbedPrompt::Query),
        ("input_type", "document", EmbedPrompt::Document),
        ("instruct", "Find it", EmbedPrompt::Text("Instruct: Find it\nQuery:".to_owned())),
    ] {
        let mut body = json!({"model": "m", "input": "a"});
        body[field] = value.into();
        ask(&script, "/v1/embeddings", body).await.json();
        assert_eq!(script.embedded().prompt, prompt);
    }
}

#[tokio::test]
async fn invalid_requests_are_refused_by_the_name_of_their_field() {
    let script = Script::new();
    let many = vec!["a"; 2049];
    for (path, body, param) in [
        ("/v1/embeddings", json!({"input": "a"}), "model"),
        ("/v1/embeddings", json!({"model": "m"}), "input"),
        ("/v1/embeddings", json!({"model": "m", "input": ""}), "input"),
        ("/v1/embeddings", json!({"model": "m", "input": []}), "input"),
        ("/v1/embeddings", json!({"model": "m", "input": many}), "input"),
        ("/v1/embeddings", json!({"model": "m", "input": ["a", 1]}), "input[1]"),
        ("/v1/embeddings", json!({"model": "m", "input": "a", "dimensions": 0}), "dimensions"),
        (
            "/v1/embeddings",
            json!({"model": "m", "input": "a", "encoding_format": "int8"}),
            "encoding_format",
        ),
        ("/v1/embeddings", json!({"model": "m", "input": "a", "colour": 1}), "colour"),
        ("/v1/rerank", json!({"model": "m", "query": "q"}), "documents"),
        ("/v1/rerank", json!({"model": "m", "query": "", "documents": ["a"]}), "query"),
        ("/v1/rerank", json!({"model": "m", "query": "q", "documents": [1]}), "documents"),
        ("/rerank", json!({"query": "q", "texts": []}), "texts"),
        ("/v1/score", json!({"model": "m", "text_1": ["a", "b"], "text_2": "c"}), "text_1"),
        ("/embed", json!({"inputs": "a", "truncation_direction": "left"}), "truncation_direction"),
    ] {
        let answered = ask(&script, path, body).await;
        assert_eq!(answered.status, 400, "{path} {param}");
        assert_eq!(answered.json()["error"]["param"], param, "{path}");
    }
}

#[tokio::test]
async fn documents_are_ranked_in_the_form_of_jina_and_cohere() {
    let script = Script::new();
    for path in ["/v1/rerank", "/v2/rerank", "/rerank"] {
        let body = json!({
            "model": "m", "query": "q", "documents": ["a", {"text": "ccc"}, "bb"], "top_n": 2,
            "return_documents": true,
        });
        let answer = ask(&script, path, body).await.json();
        let result = |index: usize, score: f64, text: &str| json!({"index": index, "relevance_score": score, "document": {"text": text}});
        assert_eq!(answer["results"], json!([result(1, 3.0, "ccc"), result(2, 2.0, "bb")]));
        assert_eq!(answer["usage"]["total_tokens"], 3 * PROMPT);
    }
    let expected = ScoreRequest {
        model: "m".to_owned(),
        queries: vec!["q".to_owned()],
        documents: ["a", "ccc", "bb"].map(str::to_owned).to_vec(),
        ..ScoreRequest::default()
    };
    assert_eq!(script.scored(), expected);
}

#[tokio::test]
async fn pairs_are_scored_in_the_form_of_vllm() {
    let body = json!({"model": "m", "text_1": ["q", "r"], "text_2": ["a", "bb"]});
    let answer = ask(&Script::new(), "/v1/score", body).await.json();
    let score =
        |index: usize, score: f64| json!({"index": index, "object": "score", "score": score});
    assert_eq!(answer["data"], json!([score(0, 1.0), score(1, 2.0)]));
}

#[tokio::test]
async fn routes_of_text_embeddings_inference_need_no_model() {
    let script = Script::new();
    let answer = ask(&script, "/embed", json!({"inputs": ["ab", "c"]})).await.json();
    assert_eq!(answer, json!([[2.0, 2.0, 2.0], [1.0, 1.0, 1.0]]));
    assert_eq!(script.embedded().normalize, Some(true));
    let body = json!({"query": "q", "texts": ["a", "bb"], "raw_scores": true, "return_text": true});
    let answer = ask(&script, "/rerank", body).await.json();
    let rank = |index: usize, score: f64, text: &str| json!({"index": index, "score": score, "text": text});
    assert_eq!(answer, json!([rank(1, 2.0, "bb"), rank(0, 1.0, "a")]));
    assert!(script.scored().raw);
    let body = json!({"inputs": {"source_sentence": "a", "sentences": ["b", "cc"]}});
    assert_eq!(ask(&script, "/similarity", body).await.json(), json!([3.0, 6.0]));
}

#[tokio::test]
async fn the_root_takes_what_clients_of_inference_endpoints_send() {
    let script = Script::new();
    let answer = ask(&script, "/", json!({"inputs": ["ab"], "normalize": false})).await.json();
    assert_eq!((answer, script.embedded().normalize), (json!([[2.0, 2.0, 2.0]]), Some(false)));
    let coded = json!({"inputs": "a", "encoding_format": "base64", "dimensions": 1});
    assert_eq!(ask(&script, "/", coded).await.json(), json!(["AACAPw=="]));
    let compared = json!({"inputs": {"source_sentence": "a", "sentences": ["b"]}});
    assert_eq!(ask(&script, "/", compared).await.json(), json!([3.0]));
    let ranked = json!({"query": "q", "texts": ["a", "bb"]});
    assert_eq!(ask(&script, "/", ranked).await.json()[0], json!({"index": 1, "score": 2.0}));
    assert!(ask(&script, "/", json!({})).await.refused(400).contains("`inputs` is missing"));
    for (path, part) in [("/embed_sparse", "SPLADE"), ("/embed_all", "ColBERT")] {
        assert!(ask(&script, path, json!({"inputs": "a"})).await.refused(501).contains(part));
    }
    // The chat page needs no key, but a request does.
    let keys = vec![Key::new("k").unwrap()];
    let app = App::new(script, Settings { keys, ..settings() });
    assert_eq!(get(&app, "/").await.status, 200);
    for path in ["/", "/embed"] {
        assert_eq!(post(&app, path, json!({"inputs": "a"})).await.status, 401);
    }
    assert_eq!(get(&app, "/info").await.status, 401);
}

#[tokio::test]
async fn the_model_in_memory_is_described_as_text_embeddings_inference_does() {
    let app = App::new(Script::new().with("chat", []).with("org/embed", []), settings());
    let told = get(&app, "/info").await.json();
    assert_eq!(told["model_id"], "org/embed");
    assert_eq!(told["model_type"], json!({"embedding": {"pooling": "last_token"}}));
    assert_eq!((&told["max_input_length"], &told["auto_truncate"]), (&json!(512), &json!(false)));
    let listed = get(&app, "/v1/models").await.json();
    let model = listed["data"].as_array().unwrap().iter().find(|model| model["id"] == "org/embed");
    let model = model.unwrap();
    assert_eq!((&model["task"], &model["dimensions"]), (&json!("embeddings"), &json!(3)));
    let app = App::new(Script::new(), settings());
    assert!(get(&app, "/info").await.refused(400).contains("no embedding model"));
}
