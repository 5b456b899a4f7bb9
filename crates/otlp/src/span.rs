//! Spans, their events and their links, each as a row of its own.
//!
//! A row of an event or a link has the span as its parent, no span id and no length, and says in `meta.annotation_type` what it is:
//! whoever counts spans looks at `meta.signal_type = trace`, which it is not. It has the attributes of the resource and the weight of
//! the span. A flag evaluation that a telemetry hook wrote as an event is a `log` by its signal, as if it had come as a log record.

use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use rows::{Draft, names};
use vocab::Timestamp;

use crate::decode::{Decoded, id, put};

/// Events kept of one span, and beside them flag evaluations; SDKs keep at most 128 events of one.
const EVENTS_MAX: usize = 128;
/// Links kept of one span; SDKs keep at most 128.
const LINKS_MAX: usize = 128;

pub(crate) fn take(decoded: &mut Decoded, base: &Draft, span: &Span, received: Timestamp) {
    let events = events(span);
    let draft = match span_draft(base, span, events.len(), received) {
        Ok(draft) => draft,
        Err(reason) => return decoded.reject(format!("span {:?}: {reason}", rows::draft::cut(&span.name))),
    };
    if events.is_empty() && span.links.is_empty() {
        decoded.keep(draft);
        return;
    }
    // The weight goes with the span to those that hang on it.
    let mut hanging = base.clone();
    hanging.weigh(draft.rate());
    hanging.belongs_to(draft.row().trace, 0, draft.row().span);
    let began = draft.row().time;
    if !decoded.keep(draft) {
        return;
    }
    events.into_iter().for_each(|event| decoded.hang(event_draft(&hanging, event, began, received)));
    span.links.iter().take(LINKS_MAX).for_each(|link| decoded.hang(link_draft(&hanging, link, began)));
}

fn span_draft(base: &Draft, span: &Span, n_events: usize, received: Timestamp) -> Result<Draft, &'static str> {
    let trace: [u8; 16] = id(&span.trace_id).ok_or("trace_id is not 16 bytes")?;
    let own: [u8; 8] = id(&span.span_id).ok_or("span_id is not 8 bytes")?;
    let parent: [u8; 8] = id(&span.parent_span_id).ok_or("parent_span_id is not 8 bytes")?;
    let mut draft = base.clone();
    draft.belongs_to(u128::from_be_bytes(trace), u64::from_be_bytes(own), u64::from_be_bytes(parent));
    put(&mut draft, &span.attributes);
    draft.left_out(span.dropped_attributes_count.into());
    if !span.trace_state.is_empty() {
        draft.weigh(rows::weight::of_tracestate(&span.trace_state));
    }
    draft.say_text(names::NAME, &span.name);
    draft.say(names::SIGNAL, "trace");
    let kind = ["unspecified", "internal", "server", "client", "producer", "consumer"];
    draft.say("kind", usize::try_from(span.kind).ok().and_then(|n| kind.get(n)).copied().unwrap_or("unspecified"));
    if let Some(status) = &span.status {
        draft.say("error", status.code == 2);
        if !status.message.is_empty() {
            draft.say_text("status_message", &status.message);
        }
    }
    if let Some(exception) = span.events.iter().find(|e| e.name == "exception") {
        put(&mut draft, &exception.attributes);
    }
    draft.from_to(span.start_time_unix_nano.into(), span.end_time_unix_nano.into(), received);
    let lost = |all: usize, kept: usize, by_sender: u32| (all - kept) as i64 + i64::from(by_sender);
    let events = lost(span.events.len(), n_events, span.dropped_events_count);
    if events > 0 {
        draft.say(names::DROPPED_EVENTS, events);
    }
    let links = lost(span.links.len(), span.links.len().min(LINKS_MAX), span.dropped_links_count);
    if links > 0 {
        draft.say(names::DROPPED_LINKS, links);
    }
    Ok(draft)
}

/// Whether a telemetry hook reports an evaluation by it. Of one that failed Python's hook writes an exception beside it, with the flag's
/// key too.
fn is_evaluation(event: &Event) -> bool {
    event.name != "exception" && event.attributes.iter().any(|a| a.key == names::FLAG)
}

/// The events that are kept, in order: so many of each kind, so that many of one do not cost an evaluation.
fn events(span: &Span) -> Vec<&Event> {
    let (mut evaluations, mut others) = (0, 0);
    let within = |event: &&Event| {
        let count = if is_evaluation(event) { &mut evaluations } else { &mut others };
        *count += 1;
        *count <= EVENTS_MAX
    };
    span.events.iter().filter(within).collect()
}

fn event_draft(hanging: &Draft, event: &Event, began: Timestamp, received: Timestamp) -> Draft {
    let mut draft = hanging.clone();
    put(&mut draft, &event.attributes);
    draft.left_out(event.dropped_attributes_count.into());
    match event.time_unix_nano {
        0 => draft.at(began.nanos().into(), received),
        nanos => draft.at(nanos.into(), received),
    }
    draft.say_text(names::NAME, &event.name);
    draft.say(names::SIGNAL, if is_evaluation(event) { "log" } else { "span_event" });
    draft.say(names::ANNOTATION, "span_event");
    draft
}

fn link_draft(hanging: &Draft, link: &Link, began: Timestamp) -> Draft {
    let mut draft = hanging.clone();
    put(&mut draft, &link.attributes);
    draft.left_out(link.dropped_attributes_count.into());
    draft.at(began.nanos().into(), began);
    draft.say(names::NAME, "link");
    draft.say(names::SIGNAL, "link");
    draft.say(names::ANNOTATION, "link");
    draft.say("link.trace_id", hex(&link.trace_id));
    draft.say("link.span_id", hex(&link.span_id));
    draft
}

/// An id as hex digits; one of a wrong length is told as far as an id goes.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}
