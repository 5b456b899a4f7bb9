//! Sends one trace and three log records with the stock OTLP exporter, and prints the ids. One argument: `grpc` or `http`; the rest is
//! told by OpenTelemetry's environment variables.

use std::collections::HashMap;
use std::error::Error;

use opentelemetry::logs::{AnyValue, LogRecord, Logger, LoggerProvider, Severity};
use opentelemetry::trace::{
    Link, Span, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId, TraceState, Tracer, TracerProvider,
};
use opentelemetry::{Array, Context, InstrumentationScope, KeyValue, StringValue, Value};
use opentelemetry_otlp::{LogExporter, SpanExporter};
use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;

fn texts(texts: &[&str]) -> Value {
    Value::Array(Array::String(texts.iter().map(|text| StringValue::from((*text).to_owned())).collect()))
}

fn attributes() -> Vec<KeyValue> {
    vec![
        KeyValue::new("a.text", "hello"),
        KeyValue::new("a.empty", ""),
        KeyValue::new("a.unicode", "naïve 日本 🦀"),
        KeyValue::new("a.long", "é".repeat(10_000)),
        KeyValue::new("a.yes", true),
        KeyValue::new("a.no", false),
        KeyValue::new("a.small", 42),
        KeyValue::new("a.negative", -7),
        KeyValue::new("a.large", (1_i64 << 60) + 1),
        KeyValue::new("a.least", i64::MIN),
        KeyValue::new("a.double", 2.5),
        KeyValue::new("a.whole", 3.0),
        KeyValue::new("a.tiny", -1e-300),
        KeyValue::new("a.nan", f64::NAN),
        KeyValue::new("a.infinite", f64::NEG_INFINITY),
        KeyValue::new("a.texts", texts(&["a,b", "\"c\"", "é"])),
        KeyValue::new("a.ints", Value::Array(Array::I64(vec![1, -2, 1 << 60]))),
        KeyValue::new("a.doubles", Value::Array(Array::F64(vec![1.5, -2.5]))),
        KeyValue::new("a.truths", Value::Array(Array::Bool(vec![true, false]))),
        KeyValue::new("a.none", texts(&[])),
    ]
}

fn map() -> AnyValue {
    let inner: HashMap<_, _> = [
        ("list".into(), AnyValue::ListAny(Box::new(vec![AnyValue::Int(1), AnyValue::from("two")]))),
        ("bytes".into(), AnyValue::Bytes(Box::new(vec![0, 255, 16]))),
    ]
    .into();
    let outer: HashMap<_, _> = [("inner".into(), AnyValue::Map(Box::new(inner))), ("yes".into(), AnyValue::Boolean(true))].into();
    AnyValue::Map(Box::new(outer))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let grpc = std::env::args().nth(1).as_deref() == Some("grpc");
    let (spans, logs) = match grpc {
        true => (SpanExporter::builder().with_tonic().build()?, LogExporter::builder().with_tonic().build()?),
        false => (SpanExporter::builder().with_http().build()?, LogExporter::builder().with_http().build()?),
    };
    let tracing = SdkTracerProvider::builder().with_batch_exporter(spans).build();
    let logging = SdkLoggerProvider::builder().with_batch_exporter(logs).build();

    let scope = InstrumentationScope::builder("shop").with_attributes([KeyValue::new("scope.color", "red")]).build();
    let tracer = tracing.tracer_with_scope(scope);
    let (other, sampled) = ((TraceId::from(0xabc), SpanId::from(0xdef)), TraceFlags::SAMPLED);
    let other = SpanContext::new(other.0, other.1, sampled, true, TraceState::default());
    let links = vec![Link::new(other, vec![KeyValue::new("why", "a retry")], 0)];
    let root = tracer.span_builder("root").with_kind(SpanKind::Server).with_attributes(attributes()).with_links(links);
    let mut root = root.start(&tracer);
    root.add_event("cache.miss", vec![KeyValue::new("key", "k1"), KeyValue::new("size", 3)]);
    let trace = root.span_context().clone();
    let context = Context::new().with_span(root);
    let mut child = tracer.span_builder("child").with_kind(SpanKind::Client).start_with_context(&tracer, &context);
    let child_id = child.span_context().span_id();
    child.record_error(&std::io::Error::other("it broke"));
    child.set_status(Status::error("no luck"));
    child.end();

    let logger = logging.logger("shop.logs");
    {
        // Within the root span, whose ids the records get.
        let _current = context.clone().attach();
        let mut record = logger.create_log_record();
        record.set_severity_number(Severity::Warn);
        record.set_severity_text("WARN");
        record.set_body("a line".into());
        record.add_attribute("a.text", "hello");
        record.add_attribute("a.small", 42);
        record.add_attribute("a.bytes", AnyValue::Bytes(Box::new(vec![0, 255, 16])));
        record.add_attribute("a.map", map());
        logger.emit(record);
    }
    let mut record = logger.create_log_record();
    record.set_event_name("shop.opened");
    record.set_severity_number(Severity::Info);
    record.set_severity_text("INFO");
    record.set_body(map());
    logger.emit(record);
    context.span().set_status(Status::Ok);
    context.span().end();
    // The blocking HTTP client must not be waited for on a thread of the runtime.
    tokio::task::spawn_blocking(move || tracing.shutdown().and(logging.shutdown())).await??;
    println!(
        "{}",
        serde_json::json!({"trace": trace.trace_id().to_string(), "root": trace.span_id().to_string(),
            "child": child_id.to_string()})
    );
    Ok(())
}
