"""A small shop with stock OpenTelemetry and OpenFeature libraries; nothing in it knows Seaworthy.

    app.py front   evaluates a flag, asks stock through the proxy; prints {"address"} when it listens
    app.py stock   answers how many there are; prints {"address"} when it listens
    app.py probe   exports one span as the environment says; prints {"exported": true|false}

Where telemetry goes is in the standard OTEL_* variables. FLAGS_URL and FLAGS_TOKEN name the OFREP service, STOCK_URL the way
to stock.
"""

import json
import os
import sys
import time

import requests
from flask import Flask, jsonify, request
from openfeature import api as openfeature
from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext
from opentelemetry import trace
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.instrumentation.requests import RequestsInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from werkzeug.serving import make_server

# A kiosk gives up after this and has no fallback: the planted cause.
KIOSK_PATIENCE = 0.25
PATIENCE = 5.0


def exporter():
    """The exporter that OTEL_EXPORTER_OTLP_PROTOCOL asks for, with its defaults."""
    if os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf") == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    else:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    return OTLPSpanExporter()


def front(app):
    flags_url, token = os.environ["FLAGS_URL"], os.environ["FLAGS_TOKEN"]
    stock_url = os.environ["STOCK_URL"]
    openfeature.set_provider(
        OFREPProvider(flags_url, headers_factory=lambda: {"Authorization": f"Bearer {token}"}, timeout=2.0)
    )
    flags = openfeature.get_client()

    @app.get("/orders")
    def orders():
        user = request.headers.get("X-User-Id", "nobody")
        client = request.headers.get("X-Client", "web")
        flag = flags.get_string_details("greeting", "code default", EvaluationContext(targeting_key=user))
        span = trace.get_current_span()
        span.set_attributes(
            {
                "enduser.id": user,
                "client.kind": client,
                "client.build": request.headers.get("X-Build", ""),
                "store": request.headers.get("X-Store", ""),
                "region": request.headers.get("X-Region", ""),
                "payment.method": request.headers.get("X-Payment", ""),
                "cart.items": int(request.headers.get("X-Items", "1")),
                "loyalty.member": request.headers.get("X-Loyalty") == "yes",
                "greeting": flag.value,
            }
        )
        # No fallback: a kiosk whose patience ends is an unhandled exception, so a 500.
        patience = KIOSK_PATIENCE if client == "kiosk" else PATIENCE
        answer = requests.get(f"{stock_url}/stock/item-7", timeout=patience)
        answer.raise_for_status()
        return jsonify(
            stock=answer.json()["stock"],
            greeting=flag.value,
            variant=flag.variant,
            reason=str(flag.reason),
            error=str(flag.error_code) if flag.error_code else None,
        )


def stock(app):
    state = {"slow": 0.002}

    @app.get("/slow/<seconds>")
    def slow(seconds):
        state["slow"] = float(seconds)
        return jsonify(state)

    @app.get("/stock/<item>")
    def count(item):
        trace.get_current_span().set_attributes({"item": item, "shelf": "A3"})
        time.sleep(state["slow"])
        return jsonify(item=item, stock=11, baggage=request.headers.get("baggage", ""))


def probe():
    provider = TracerProvider()
    sender = exporter()
    kept = []

    class Keep:
        def on_start(self, span, parent_context=None):
            pass

        def on_end(self, span):
            kept.append(span)

        def shutdown(self):
            pass

        def force_flush(self, timeout_millis=0):
            return True

        def _on_ending(self, span):
            pass

    provider.add_span_processor(Keep())
    with provider.get_tracer("probe").start_as_current_span("probe"):
        pass
    result = sender.export(kept)
    sender.shutdown()
    print(json.dumps({"exported": result is SpanExportResult.SUCCESS}), flush=True)


def main():
    role = sys.argv[1]
    if role == "probe":
        return probe()
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(exporter()))
    trace.set_tracer_provider(provider)
    app = Flask(role)
    FlaskInstrumentor().instrument_app(app)
    RequestsInstrumentor().instrument()
    {"front": front, "stock": stock}[role](app)
    server = make_server("127.0.0.1", 0, app, threaded=True)
    print(json.dumps({"address": f"127.0.0.1:{server.port}"}), flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
