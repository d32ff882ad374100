//! Metrics of the server, in the format of Prometheus.

use std::fmt;
use std::time::Duration;

use mlxk_processor::engine::Figures;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Upper bounds of the buckets of the time to the first token, in seconds.
const FIRST_TOKEN_BUCKETS: [f64; 12] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];

/// Upper bounds of the buckets of the time between tokens, in seconds.
const INTER_TOKEN_BUCKETS: [f64; 10] =
    [0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 2.5];

/// A label's name and value.
type Label = (&'static str, String);

/// The value of a gauge, taken from the engine's figures.
type GaugeValue = fn(&Figures) -> u64;

/// The tokens of one completion.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Number of tokens of the prompt.
    pub prompt: u64,
    /// Number of the prompt's tokens that came from the prefix cache.
    pub cached: u64,
    /// Number of tokens that were generated.
    pub completion: u64,
}

/// All metrics of a server.
pub struct Metrics {
    registry: Registry,
    requests: Family<[Label; 3], Counter>,
    completions: Family<[Label; 1], Counter>,
    prompt_tokens: Counter,
    cached_tokens: Counter,
    completion_tokens: Counter,
    first_token: Histogram,
    inter_token: Histogram,
    gauges: Vec<(Gauge, GaugeValue)>,
}

impl Metrics {
    /// Metrics that are all zero.
    pub fn new() -> Metrics {
        let mut metrics = Metrics {
            registry: Registry::with_prefix("mlxk"),
            requests: Family::default(),
            completions: Family::default(),
            prompt_tokens: Counter::default(),
            cached_tokens: Counter::default(),
            completion_tokens: Counter::default(),
            first_token: Histogram::new(FIRST_TOKEN_BUCKETS),
            inter_token: Histogram::new(INTER_TOKEN_BUCKETS),
            gauges: Vec::new(),
        };
        let registry = &mut metrics.registry;
        registry.register("requests", "HTTP requests", metrics.requests.clone());
        registry.register(
            "answers",
            "Answers, by the reason for their end",
            metrics.completions.clone(),
        );
        registry.register("prompt_tokens", "Tokens of prompts", metrics.prompt_tokens.clone());
        let help = "Tokens of prompts that were found in the prefix cache";
        registry.register("cached_prompt_tokens", help, metrics.cached_tokens.clone());
        registry.register(
            "completion_tokens",
            "Tokens of answers",
            metrics.completion_tokens.clone(),
        );
        let help = "Time from a request to the first token of its answer";
        registry.register("time_to_first_token_seconds", help, metrics.first_token.clone());
        let help = "Time between two tokens of an answer";
        registry.register("inter_token_seconds", help, metrics.inter_token.clone());
        metrics.register_gauge("requests_running", "Running requests", |f| f.running);
        metrics.register_gauge("requests_waiting", "Requests in the queue", |f| f.waiting);
        metrics.register_gauge("models_loaded", "Models in memory", |f| f.models);
        metrics
            .register_gauge("weights_bytes", "Weights of the models in memory", |f| f.weight_bytes);
        metrics.register_gauge("kv_bytes", "Caches of running requests, at most", |f| {
            f.sequence_bytes
        });
        metrics.register_gauge("prefix_cache_bytes", "Caches of completed sequences", |f| {
            f.prefix_bytes
        });
        metrics.register_gauge("resident_memory_bytes", "Memory of the process", |_| {
            resident_memory()
        });
        metrics
    }

    fn register_gauge(&mut self, name: &str, help: &str, value: GaugeValue) {
        let gauge = Gauge::default();
        self.registry.register(name, help, gauge.clone());
        self.gauges.push((gauge, value));
    }

    /// Counts a request of HTTP.
    pub fn count_request(&self, method: &str, route: &str, status: u16) {
        let labels = [
            ("method", method.to_owned()),
            ("route", route.to_owned()),
            ("status", status.to_string()),
        ];
        self.requests.get_or_create(&labels).inc();
    }

    /// Counts a completion that ended for `reason`, and its tokens.
    pub fn count_completion(&self, reason: &str, usage: &Usage) {
        self.completions.get_or_create(&[("reason", reason.to_owned())]).inc();
        self.prompt_tokens.inc_by(usage.prompt);
        self.cached_tokens.inc_by(usage.cached);
        self.completion_tokens.inc_by(usage.completion);
    }

    /// Records the time from a request to the first token of its completion.
    pub fn observe_first_token(&self, time: Duration) {
        self.first_token.observe(time.as_secs_f64());
    }

    /// Records the time between two tokens of a completion.
    pub fn observe_inter_token(&self, time: Duration) {
        self.inter_token.observe(time.as_secs_f64());
    }

    /// All metrics in the text format of OpenMetrics, with gauges that show the engine's `figures`.
    pub fn encode(&self, figures: &Figures) -> String {
        for (gauge, value) in &self.gauges {
            gauge.set(value(figures) as i64);
        }
        let mut text = String::new();
        match encode(&mut text, &self.registry) {
            Ok(()) => text,
            Err(fmt::Error) => unreachable!("writing to a String does not fail"),
        }
    }
}

/// Resident memory of this process, in bytes; 0 where the system does not report it.
fn resident_memory() -> u64 {
    memory_stats::memory_stats().map_or(0, |memory| memory.physical_mem as u64)
}
