use arbtest::arbitrary::{Result as Arb, Unstructured};
use vocab::Timestamp;

use crate::{Filter, Row, Value, codec};

fn row() -> Row {
    Row { duration_nanos: Some(1_500_000_000), trace: 0xab, ..Row::default() }
        .with("service.name", "web")
        .with("device", "tv")
        .with("n", 3_i64)
        .with("x", 2.5)
        .with("ok", true)
}

fn check(filter: &str, expected: bool) {
    assert_eq!(Filter::parse(filter).unwrap().matches(&row()), expected, "{filter}");
}

#[test]
fn filters_say_what_they_mean() {
    for yes in [
        "",
        "service.name = 'web'",
        "duration_ms > 1000 and device in ('phone', \"tv\")",
        "not (device = 'phone') and n >= 3 and n < 3.5 and x = 2.5",
        "nothing = 1 or ok = true",
        "not nothing exists",
        "device contains 't' and device starts-with 'tv'",
        "trace.trace_id = '000000000000000000000000000000ab'",
        "`service.name` != 'x'",
        "device != 3",
        "device matches '^t.$' and service.name ends-with 'eb' and device does-not-contain 'x'",
        "n does-not-contain 'x' and n not in (1, 2) and nothing not exists",
        "time < '1970-01-01T00:00:01Z' and time >= '1970-01-01T00:00:00Z'",
    ] {
        check(yes, true);
    }
    for no in ["nothing != 'x'", "n = '3'", "device = 'phone'", "not device exists", "ok = false", "n > 3"] {
        check(no, false);
    }
    for no in [
        "nothing does-not-contain 'x'",
        "nothing not in (1)",
        "n not in (1, 3.0)",
        "n matches '3'",
        "device not exists",
        "device matches '^v'",
        "time > '1970-01-01T00:00:01Z'",
        "time > 5",
    ] {
        check(no, false);
    }
}

#[test]
fn faults_name_their_place() {
    for (text, at) in [
        ("a = ", 5),
        ("a b", 3),
        ("(a = 1", 7),
        ("a = 'x", 5),
        ("= 1", 1),
        ("a = 1 b = 2", 7),
        ("a in 1", 6),
        ("a matches '('", 11),
        ("a not = 1", 7),
    ] {
        assert_eq!(Filter::parse(text).unwrap_err().at, at, "{text}");
    }
    assert!(Filter::parse(&"(".repeat(10_000)).unwrap_err().reason.contains("64 levels"));
    assert_eq!(Filter::parse("a = 1 and b exists or a = 2").unwrap().fields(), ["a", "b"]);
}

fn any_row(u: &mut Unstructured<'_>) -> Arb<Row> {
    let mut row = Row {
        time: Timestamp::from_nanos(u.arbitrary()?),
        duration_nanos: u.arbitrary::<Option<u32>>()?.map(i64::from),
        trace: u.arbitrary()?,
        span: u.arbitrary()?,
        parent: u.arbitrary()?,
        attributes: Vec::new(),
    };
    for n in 0..u.int_in_range(0..=5)? {
        let value = match u.int_in_range(0..=3)? {
            0 => Value::Str(u.arbitrary()?),
            1 => Value::Int(u.arbitrary()?),
            2 => Value::Float(f64::from(u.arbitrary::<f32>()?.clamp(-1e9, 1e9))).finite(),
            _ => Value::Bool(u.arbitrary()?),
        };
        row.set(&format!("a{n}"), value);
    }
    Ok(row)
}

impl Value {
    fn finite(self) -> Value {
        match self {
            Value::Float(n) if !n.is_finite() => Value::Float(0.0),
            other => other,
        }
    }
}

#[test]
fn rows_round_trip_and_any_bytes_are_survived() {
    arbtest::arbtest(|u| {
        let rows = (0..u.int_in_range(0..=4)?).map(|_| any_row(u)).collect::<Arb<Vec<Row>>>()?;
        let mut bytes = codec::encode(&rows);
        assert_eq!(codec::decode(&bytes).unwrap(), rows);
        if !bytes.is_empty() {
            let at = u.choose_index(bytes.len())?;
            bytes[at] ^= u.arbitrary::<u8>()?;
            let _ = codec::decode(&bytes);
            let _ = codec::decode(&bytes[..at]);
        }
        let _ = codec::decode(u.arbitrary()?);
        let _ = Filter::parse(u.arbitrary()?);
        Ok(())
    });
}
