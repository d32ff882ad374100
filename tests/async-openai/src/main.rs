//! Asks a server, which answers by the script of tests/page, with the client async-openai.

use std::env;
use std::error::Error;

use async_openai::Client;
use async_openai::config::OpenAIConfig;
use async_openai::types::chat::CreateChatCompletionRequest;
use async_openai::types::responses::{CreateResponse, ResponseStreamEvent};
use futures_util::StreamExt;
use serde_json::{Value, from_value, json};

type Result = std::result::Result<(), Box<dyn Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result {
    let url = env::args().nth(1).ok_or("the address of a server is missing")?;
    let config = OpenAIConfig::new().with_api_base(url + "/v1").with_api_key("none");
    let client = Client::with_config(config);
    models(&client).await?;
    chat(&client).await?;
    calls(&client).await?;
    responses(&client).await?;
    refusal(&client).await
}

async fn models(client: &Client<OpenAIConfig>) -> Result {
    let listed = client.models().list().await?;
    assert!(listed.data.iter().any(|model| model.id == "words"));
    assert_eq!(client.models().retrieve("words").await?.owned_by, "workspace");
    Ok(())
}

fn asked(
    model: &str,
    more: Value,
) -> std::result::Result<CreateChatCompletionRequest, serde_json::Error> {
    let mut body = json!({"model": model, "messages": [{"role": "user", "content": "Hi"}]});
    for (name, value) in more.as_object().into_iter().flatten() {
        body[name] = value.clone();
    }
    from_value(body)
}

async fn chat(client: &Client<OpenAIConfig>) -> Result {
    let more = json!({"logprobs": true, "top_logprobs": 1, "n": 2, "seed": 7});
    let whole = client.chat().create(asked("words", more)?).await?;
    assert_eq!(whole.choices[1].message.content.as_deref(), Some("One two three."));
    assert_eq!(whole.usage.map(|usage| usage.total_tokens), Some(13));
    let more = json!({"stream": true, "stream_options": {"include_usage": true}});
    let mut stream = client.chat().create_stream(asked("words", more)?).await?;
    let (mut text, mut usage) = (String::new(), None);
    while let Some(chunk) = stream.next().await {
        let chunk = chunk?;
        for choice in chunk.choices {
            text += choice.delta.content.as_deref().unwrap_or_default();
        }
        usage = chunk.usage.or(usage);
    }
    assert_eq!(text, "One two three.");
    assert_eq!(usage.map(|usage| usage.completion_tokens), Some(3));
    Ok(())
}

async fn calls(client: &Client<OpenAIConfig>) -> Result {
    let tool = json!({"type": "function", "function": {"name": "weather", "parameters": {}}});
    let whole = client.chat().create(asked("calls", json!({"tools": [tool]}))?).await?;
    let message = serde_json::to_value(&whole.choices[0].message)?;
    assert_eq!(message["tool_calls"][0]["function"]["name"], "weather", "{message}");
    Ok(())
}

async fn responses(client: &Client<OpenAIConfig>) -> Result {
    let request: CreateResponse = from_value(json!({"model": "words", "input": "Hi"}))?;
    let whole = client.responses().create(request.clone()).await?;
    assert_eq!(whole.output_text().as_deref(), Some("One two three."));
    for model in ["words", "calls"] {
        let request = CreateResponse { model: Some(model.to_owned()), ..request.clone() };
        let mut stream = client.responses().create_stream(request).await?;
        let mut completed = false;
        while let Some(event) = stream.next().await {
            completed |= matches!(event?, ResponseStreamEvent::ResponseCompleted(_));
        }
        assert!(completed, "{model}");
    }
    Ok(())
}

async fn refusal(client: &Client<OpenAIConfig>) -> Result {
    let refused = client.chat().create(asked("none", json!({}))?).await;
    let told = refused.err().ok_or("a model that is not there")?.to_string();
    assert!(told.contains("none: no such model"), "{told}");
    Ok(())
}
