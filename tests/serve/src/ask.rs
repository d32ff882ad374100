//! Requests to a server without a network, and its responses.

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use mlxk_serve::{App, Log, Settings, Times, router};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tower::ServiceExt;

/// Settings of a server on loopback without API keys.
pub fn settings() -> Settings {
    let minute = Duration::from_secs(60);
    Settings {
        keys: Vec::new(),
        loopback: true,
        hosts: Vec::new(),
        origins: Vec::new(),
        lenient: false,
        max_body: 1 << 20,
        max_audio: 1 << 20,
        trim: || (),
        max_connections: 1024,
        max_tokens: None,
        times: Times { head: minute, body: minute, write: minute },
        embed_backend: None,
        embed_only: None,
        log: Log::none(),
    }
}

/// A response with its whole body.
#[derive(Debug)]
pub struct Answered {
    /// The response's status.
    pub status: StatusCode,
    /// The response's headers.
    pub headers: HeaderMap,
    /// The response's body.
    pub text: String,
}

impl Answered {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    /// The data of a stream's events, without OpenAI's `[DONE]`.
    pub fn events(&self) -> Vec<Value> {
        let data = self.text.lines().filter_map(|line| line.strip_prefix("data: "));
        let data = data.filter(|data| *data != "[DONE]");
        data.map(|data| serde_json::from_str(data).unwrap()).collect()
    }

    /// The message of an error; panics unless the response has `status`.
    pub fn refused(&self, status: u16) -> String {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        self.json()["error"]["message"].as_str().unwrap().to_owned()
    }
}

/// Sends any request, to the host `localhost` unless it names one.
pub async fn ask(app: &Arc<App>, mut request: Request<Body>) -> Answered {
    if !request.headers().contains_key("host") {
        request.headers_mut().insert("host", "localhost:8000".parse().unwrap());
    }
    let response = router(app).oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = to_bytes(body, usize::MAX).await.unwrap();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    Answered { status: parts.status, headers: parts.headers, text }
}

/// Sends a GET request to `path`.
pub async fn get(app: &Arc<App>, path: &str) -> Answered {
    ask(app, Request::get(path).body(Body::empty()).unwrap()).await
}

/// Sends a POST request with a JSON body to `path`.
pub async fn post(app: &Arc<App>, path: &str, body: impl ToString) -> Answered {
    let body = Body::from(body.to_string());
    ask(app, Request::post(path).header("content-type", "application/json").body(body).unwrap())
        .await
}

/// Sends a POST request with a form to `path`: the field `file`, if there is one, and other fields.
pub async fn post_form(
    app: &Arc<App>,
    path: &str,
    file: Option<&[u8]>,
    fields: &[(&str, &str)],
) -> Answered {
    let mut body = Vec::new();
    for (name, value) in fields {
        let head = format!("--AaB03x\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(value.as_bytes());
        body.extend_from_slice(b"\r\n");
    }
    if let Some(file) = file {
        let head = "--AaB03x\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\
                    content-type: audio/wav\r\n\r\n";
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(file);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--AaB03x--\r\n");
    let request =
        Request::post(path).header("content-type", "multipart/form-data; boundary=AaB03x");
    ask(app, request.body(Body::from(body)).unwrap()).await
}
