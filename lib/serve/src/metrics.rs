//! What is counted and timed, in the form of Prometheus.

use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::engine::Figures;
use crate::request_metrics::Spent;

/// Seconds up to which times are counted together.
const TO_FIRST: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];
const BETWEEN: [f64; 10] = [0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 2.5];

/// The name of a label, and its value.
type Label = (&'static str, String);

/// What a gauge shows.
type Figure = fn(&Figures) -> u64;

/// Bytes of memory that this process has; none where the system does not tell.
fn resident() -> u64 {
    memory_stats::memory_stats().map_or(0, |memory| memory.physical_mem as u64)
}

/// All counts.
pub struct Meter {
    registry: Registry,
    requests: Family<[Label; 3], Counter>,
    answers: Family<[Label; 1], Counter>,
    prompt: Counter,
    cached: Counter,
    completion: Counter,
    first: Histogram,
    between: Histogram,
    gauges: Vec<(Gauge, Figure)>,
}

impl Meter {
    /// Counts from zero.
    pub fn new() -> Meter {
        let mut meter = Meter {
            registry: Registry::with_prefix("mlxk"),
            requests: Family::default(),
            answers: Family::default(),
            prompt: Counter::default(),
            cached: Counter::default(),
            completion: Counter::default(),
            first: Histogram::new(TO_FIRST),
            between: Histogram::new(BETWEEN),
            gauges: Vec::new(),
        };
        let registry = &mut meter.registry;
        registry.register("requests", "Requests of HTTP", meter.requests.clone());
        registry.register("answers", "Answers, by how they ended", meter.answers.clone());
        registry.register("prompt_tokens", "Tokens of prompts", meter.prompt.clone());
        let help = "Tokens of prompts that were remembered";
        registry.register("cached_prompt_tokens", help, meter.cached.clone());
        registry.register("completion_tokens", "Tokens of answers", meter.completion.clone());
        let help = "From a request to the first piece of its answer";
        registry.register("time_to_first_token_seconds", help, meter.first.clone());
        let help = "From a piece of an answer to the next";
        registry.register("inter_token_seconds", help, meter.between.clone());
        meter.gauge("requests_running", "Requests being answered", |f| f.running);
        meter.gauge("requests_waiting", "Requests in the queue", |f| f.waiting);
        meter.gauge("models_loaded", "Models in memory", |f| f.models);
        meter.gauge("weights_bytes", "Weights in memory", |f| f.weights);
        meter.gauge("kv_bytes", "Keys and values of running requests, at most", |f| f.texts);
        meter.gauge("prefix_cache_bytes", "What is remembered of earlier texts", |f| f.prefixes);
        meter.gauge("resident_memory_bytes", "Memory of the process", |_| resident());
        meter
    }

    fn gauge(&mut self, name: &str, help: &str, of: Figure) {
        let gauge = Gauge::default();
        self.registry.register(name, help, gauge.clone());
        self.gauges.push((gauge, of));
    }

    /// Counts a request of HTTP.
    pub fn request(&self, method: &str, route: &str, status: u16) {
        let labels = [
            ("method", method.to_owned()),
            ("route", route.to_owned()),
            ("status", status.to_string()),
        ];
        self.requests.get_or_create(&labels).inc();
    }

    /// Counts an answer, which ended for `reason`.
    pub fn answer(&self, reason: &str, spent: &Spent) {
        self.answers.get_or_create(&[("reason", reason.to_owned())]).inc();
        self.prompt.inc_by(spent.prompt);
        self.cached.inc_by(spent.cached);
        self.completion.inc_by(spent.completion);
    }

    /// Notes the time to the first piece of an answer.
    pub fn first(&self, time: Duration) {
        self.first.observe(time.as_secs_f64());
    }

    /// Notes the time between two pieces.
    pub fn between(&self, time: Duration) {
        self.between.observe(time.as_secs_f64());
    }

    /// All counts as text.
    pub fn text(&self, figures: &Figures) -> String {
        for (gauge, of) in &self.gauges {
            gauge.set(of(figures) as i64);
        }
        let mut text = String::new();
        match encode(&mut text, &self.registry) {
            Ok(()) => text,
            Err(fmt::Error) => unreachable!("a String takes any text"),
        }
    }
}
