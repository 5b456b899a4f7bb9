//! Log records.

use opentelemetry_proto::tonic::logs::v1::LogRecord;
use rows::{Draft, names};
use vocab::Timestamp;

use crate::decode::{DEPTH_MAX, Decoded, id, put};
use crate::value::text;

pub(crate) fn take(decoded: &mut Decoded, base: &Draft, record: &LogRecord, received: Timestamp) {
    let ids = id::<16>(&record.trace_id).zip(id::<8>(&record.span_id));
    let Some((trace, span)) = ids else {
        return decoded.reject("log record: trace_id or span_id has the wrong length");
    };
    let mut draft = base.clone();
    draft.belongs_to(u128::from_be_bytes(trace), u64::from_be_bytes(span), 0);
    put(&mut draft, &record.attributes);
    draft.left_out(record.dropped_attributes_count.into());
    if let Some(body) = &record.body {
        draft.say_text("body", &text(body, DEPTH_MAX));
    }
    let event_name = match draft.row().text("event.name") {
        Some(name) if record.event_name.is_empty() => name.to_owned(),
        _ => record.event_name.clone(),
    };
    if !event_name.is_empty() {
        draft.say_text(names::NAME, &event_name);
    }
    if !record.severity_text.is_empty() {
        draft.say_text("severity", &record.severity_text);
    }
    draft.say(names::SIGNAL, "log");
    let stamp = if record.time_unix_nano != 0 { record.time_unix_nano } else { record.observed_time_unix_nano };
    draft.at(stamp.into(), received);
    decoded.keep(draft);
}
