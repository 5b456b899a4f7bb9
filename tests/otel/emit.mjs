// Sends one trace and log records with the stock Node SDK, and prints the ids. Everything is told by OpenTelemetry's environment
// variables, the protocol too.

import { SeverityNumber, SpanKind, SpanStatusCode, context, logs, trace } from '@opentelemetry/api';
import { NodeSDK } from '@opentelemetry/sdk-node';

const attributes = {
  'a.text': 'hello',
  'a.empty': '',
  'a.unicode': 'naïve 日本 🦀',
  'a.long': 'é'.repeat(10_000),
  'a.yes': true,
  'a.no': false,
  'a.small': 42,
  'a.negative': -7,
  'a.large': 2 ** 60,
  'a.least': -(2 ** 63),
  'a.double': 2.5,
  'a.whole': 3.0,
  'a.tiny': -1e-300,
  'a.nan': Number.NaN,
  'a.infinite': Number.NEGATIVE_INFINITY,
  'a.texts': ['a,b', '"c"', 'é'],
  'a.ints': [1, -2, 2 ** 60],
  'a.doubles': [1.5, -2.5],
  'a.truths': [true, false],
  'a.none': [],
};
const bytes = Uint8Array.from([0, 255, 16]);
const map = { inner: { list: [1, 'two'], bytes }, yes: true };

const sdk = new NodeSDK();
sdk.start();

const tracer = trace.getTracer('shop');
const other = { traceId: 'abc'.padStart(32, '0'), spanId: 'def'.padStart(16, '0'), traceFlags: 1 };
const links = [{ context: other, attributes: { why: 'a retry' } }];
const root = tracer.startSpan('root', { kind: SpanKind.SERVER, attributes, links });
root.addEvent('cache.miss', { key: 'k1', size: 3 });
const within = trace.setSpan(context.active(), root);
const child = tracer.startSpan('child', { kind: SpanKind.CLIENT }, within);
child.recordException(new Error('it broke'));
child.setStatus({ code: SpanStatusCode.ERROR, message: 'no luck' });
child.end();

const logger = logs.getLogger('shop.logs');
context.with(within, () => {
  logger.emit({
    severityNumber: SeverityNumber.WARN,
    severityText: 'WARN',
    body: 'a line',
    attributes: { 'a.text': 'hello', 'a.small': 42, 'a.bytes': bytes, 'a.map': map },
  });
});
logger.emit({ eventName: 'shop.opened', severityNumber: SeverityNumber.INFO, severityText: 'INFO', body: map });
root.setStatus({ code: SpanStatusCode.OK });
root.end();

await sdk.shutdown();
const { traceId, spanId } = root.spanContext();
console.log(JSON.stringify({ trace: traceId, root: spanId, child: child.spanContext().spanId }));
