//! The targets that read events from outside.

use otlp::{Encoding, Redactor};
use records::junit;
use records::lines::{self, Shape};
use rows::{Row, draft, names};
use vocab::Timestamp;

use crate::bodies::NOW;

/// 2000-01-01, before which no time is believed, and a day, by which one may be ahead.
const EARLIEST: Timestamp = Timestamp::from_micros(946_684_800_000_000);
const DAY_NANOS: i64 = 86_400_000_000_000;
/// What is said of a row itself, beside what came from outside.
const OWN_MAX: usize = 24;

/// What every row promises, whatever it came from.
fn keep_promises(mut rows: Vec<Row>) {
    let redactor = Redactor::new([7; 32]);
    for row in &mut rows {
        assert!(row.time >= EARLIEST && row.time.nanos() <= NOW.nanos() + DAY_NANOS, "{row:?}");
        assert!(row.duration_nanos.is_none_or(|nanos| nanos >= 0), "{row:?}");
        assert!(row.attributes.len() <= draft::ATTRIBUTES_MAX + OWN_MAX);
        assert!(row.text(names::SIGNAL).is_some_and(|signal| signal != "request"), "{row:?}");
        redactor.redact(row);
    }
    let bytes = rows::codec::encode(&rows);
    assert_eq!(rows::codec::decode(&bytes).expect("what was written can be read"), rows);
}

/// Decodes an export.
pub fn export(data: &[u8]) {
    for encoding in [Encoding::Protobuf, Encoding::Json] {
        for decode in [otlp::traces, otlp::logs, otlp::metrics] {
            if let Ok(decoded) = decode(data, encoding, NOW) {
                assert_eq!(decoded.rejected > 0, !decoded.reason.is_empty());
                keep_promises(decoded.rows);
            }
        }
    }
}

/// Reads lines and a report.
pub fn records(data: &[u8]) {
    let shape = Shape { time_field: Some("t".into()), set: vec![("build".into(), "7".into())] };
    for shape in [Shape::default(), shape] {
        let read = lines::read(data, 1, &shape, NOW);
        let full = data.split(|byte| *byte == b'\n').filter(|line| !line.iter().all(u8::is_ascii_whitespace)).count();
        assert_eq!(read.rows.len() + read.refused as usize, full);
        assert!(read.refusals.iter().all(|refusal| refusal.line >= 1 && !refusal.reason.is_empty()));
        keep_promises(read.rows);
    }
    for case in junit::read(data).cases {
        let line = serde_json::Value::Object(case).to_string();
        keep_promises(vec![lines::row(line.as_bytes(), &Shape::default(), NOW).expect("a case is a line")]);
    }
}
