//! OTLP/HTTP JSON, as an SDK without an SDK would send it: batched, bounded, dropped when the sink is gone.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::Method;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::client::Client;

const QUEUE: usize = 20_000;
const BATCH: usize = 1_000;
const PAUSE: Duration = Duration::from_millis(200);

/// A span or a log record on its way.
#[derive(Debug)]
pub enum Signal {
    Span(Value),
    Log(Value),
}

/// Where signals go.
#[derive(Clone, Debug)]
pub struct Telemetry {
    queue: mpsc::Sender<Signal>,
}

/// Nanoseconds since 1970, as OTLP JSON wants them.
pub fn nanos(time: SystemTime) -> String {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos().to_string()
}

/// Attributes as OTLP wants them.
pub fn attributes<'a>(pairs: impl IntoIterator<Item = (&'a str, Value)>) -> Value {
    pairs
        .into_iter()
        .map(|(key, value)| {
            let typed = match value {
                Value::Bool(b) => json!({"boolValue": b}),
                Value::Number(n) if n.is_i64() => json!({"intValue": n.to_string()}),
                Value::Number(n) => json!({"doubleValue": n}),
                Value::String(s) => json!({"stringValue": s}),
                other => json!({"stringValue": other.to_string()}),
            };
            json!({"key": key, "value": typed})
        })
        .collect()
}

impl Telemetry {
    /// Starts sending in the background.
    pub fn start(service: &str, control: &str, token: &str) -> Telemetry {
        let (queue, mut receiver) = mpsc::channel(QUEUE);
        let client = Client::new(control, token);
        let resource =
            json!({"attributes": attributes([("service.name", json!(service)), ("service.version", json!("1.0.0"))])});
        tokio::spawn(async move {
            let mut batch = Vec::new();
            while receiver.recv_many(&mut batch, BATCH).await > 0 {
                let (mut spans, mut logs) = (Vec::new(), Vec::new());
                for signal in batch.drain(..) {
                    match signal {
                        Signal::Span(span) => spans.push(span),
                        Signal::Log(log) => logs.push(log),
                    }
                }
                if !spans.is_empty() {
                    let body = json!({"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": spans}]}]});
                    let _ = client.call(Method::POST, "/v1/traces", Some(&body)).await;
                }
                if !logs.is_empty() {
                    let body = json!({"resourceLogs": [{"resource": resource, "scopeLogs": [{"logRecords": logs}]}]});
                    let _ = client.call(Method::POST, "/v1/logs", Some(&body)).await;
                }
                tokio::time::sleep(PAUSE).await;
            }
        });
        Telemetry { queue }
    }

    /// Sends, or drops when the queue is full.
    pub fn send(&self, signal: Signal) {
        let _ = self.queue.try_send(signal);
    }
}
