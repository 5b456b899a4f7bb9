"""Sends one trace and three log records with the stock Python SDK, and prints the ids. One argument: `grpc` or `http`; the rest is
told by OpenTelemetry's environment variables."""

import json
import logging
import sys

from opentelemetry import trace
from opentelemetry._logs import LogRecord, SeverityNumber, set_logger_provider
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

if sys.argv[1] == "grpc":
    from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
else:
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

ATTRIBUTES = {
    "a.text": "hello",
    "a.empty": "",
    "a.unicode": "naïve 日本 🦀",
    "a.long": "é" * 10_000,
    "a.yes": True,
    "a.no": False,
    "a.small": 42,
    "a.negative": -7,
    "a.large": 2**60 + 1,
    "a.least": -(2**63),
    "a.double": 2.5,
    "a.whole": 3.0,
    "a.tiny": -1e-300,
    "a.nan": float("nan"),
    "a.infinite": float("-inf"),
    "a.texts": ["a,b", '"c"', "é"],
    "a.ints": [1, -2, 2**60],
    "a.doubles": [1.5, -2.5],
    "a.truths": [True, False],
    "a.none": [],
}
MAP = {"inner": {"list": [1, "two"], "bytes": bytes([0, 255, 16])}, "yes": True}


def main():
    tracing = TracerProvider()
    tracing.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(tracing)
    logs = LoggerProvider()
    logs.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
    set_logger_provider(logs)
    handler = LoggingHandler(logger_provider=logs)
    logger = logging.getLogger("shop.logs")
    logger.addHandler(handler)

    tracer = trace.get_tracer("shop", attributes={"scope.color": "red"})
    other = trace.SpanContext(0xABC, 0xDEF, is_remote=True, trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED))
    links = [trace.Link(other, {"why": "a retry"})]
    with tracer.start_as_current_span("root", kind=trace.SpanKind.SERVER, attributes=ATTRIBUTES, links=links) as root:
        root.add_event("cache.miss", {"key": "k1", "size": 3})
        with tracer.start_as_current_span("child", kind=trace.SpanKind.CLIENT) as child:
            child.record_exception(ValueError("it broke"))
            child.set_status(trace.Status(trace.StatusCode.ERROR, "no luck"))
        logger.warning("a %s", "line", extra={"a.text": "hello", "a.small": 42, "a.bytes": bytes([0, 255, 16]), "a.map": MAP})
        root.set_status(trace.Status(trace.StatusCode.OK))
    record = LogRecord(event_name="shop.opened", severity_number=SeverityNumber.INFO, severity_text="INFO", body=MAP)
    logs.get_logger("shop.logs").emit(record)
    tracing.shutdown()
    logs.shutdown()
    context = root.get_span_context()
    ids = {"trace": trace.format_trace_id(context.trace_id), "root": trace.format_span_id(context.span_id)}
    print(json.dumps(ids | {"child": trace.format_span_id(child.get_span_context().span_id)}))


main()
