//! What a record of any kind becomes on its way to a row.

use vocab::Timestamp;

use crate::draft::{ATTRIBUTES_MAX, NAME_BYTES_MAX, ROW_BYTES_MAX, TEXT_BYTES_MAX};
use crate::weight::{RATE_MAX, of_tracestate};
use crate::{Draft, Row, Value, ValueRef};

const RECEIVED: Timestamp = Timestamp::from_micros(1_764_000_000_000_000);
const DAY: i128 = 86_400_000_000_000;

fn said(row: &Row) -> (Option<&str>, Option<&str>, Option<&str>) {
    (row.text("meta.time_problem"), row.text("meta.original_time"), row.text("meta.original_end_time"))
}

fn at(nanos: i128) -> Row {
    let mut draft = Draft::default();
    draft.at(nanos, RECEIVED);
    draft.finish()
}

fn from_to(start: i128, end: i128) -> Row {
    let mut draft = Draft::default();
    draft.from_to(start, end, RECEIVED);
    draft.finish()
}

/// Guarantees: a row whose time is absurd is kept, at the time of receipt, with the time as it was sent.
#[test]
fn absurd_times_are_replaced_and_kept_beside() {
    let received = i128::from(RECEIVED.nanos());
    for (nanos, problem) in [
        (0, "the time is missing"),
        (1, "the time is before 2000"),
        (-5, "the time is before 2000"),
        (946_684_799_999_999_999, "the time is before 2000"),
        (received + DAY + 1, "the time is more than a day ahead"),
        (i128::from(u64::MAX), "the time is more than a day ahead"),
        (i128::MAX, "the time is more than a day ahead"),
    ] {
        let row = at(nanos);
        let original = nanos.to_string();
        assert_eq!(row.time, RECEIVED, "{nanos}");
        assert_eq!(said(&row), (Some(problem), (nanos != 0).then_some(original.as_str()), None));
    }
    for nanos in [946_684_800_000_000_000, received, received + DAY] {
        let row = at(nanos);
        assert_eq!((i128::from(row.time.nanos()), row.attributes.len()), (nanos, 0));
    }
}

#[test]
fn absurd_ends_are_told() {
    let received = i128::from(RECEIVED.nanos());
    let start = received - 5;
    for (end, problem, length) in [
        (0, "the end is missing", 0),
        (start - 1, "it ends before it begins", 0),
        (i128::from(u64::MAX), "it ends more than a day ahead", 5),
    ] {
        let row = from_to(start, end);
        assert_eq!((i128::from(row.time.nanos()), row.duration_nanos), (start, Some(length)));
        assert_eq!(said(&row), (Some(problem), None, Some(end.to_string().as_str())));
    }
    let row = from_to(start, start + 7);
    assert_eq!((row.duration_nanos, row.attributes.len()), (Some(7), 0));
    // A machine that does not know the year still knows how long a second is.
    let row = from_to(100, 350);
    assert_eq!((row.time, row.duration_nanos), (RECEIVED, Some(250)));
    assert_eq!(said(&row), (Some("the time is before 2000"), Some("100"), Some("350")));
    assert_eq!(from_to(0, received).duration_nanos, Some(0));
    assert_eq!(from_to(7, received).duration_nanos, Some(0));
}

/// Guarantees: whatever is said, the time of a row is one that was, and nothing has a length below zero.
#[test]
fn no_time_is_absurd_in_the_end() {
    arbtest::arbtest(|u| {
        let (start, end): (u64, u64) = (u.arbitrary()?, u.arbitrary()?);
        let row = from_to(start.into(), end.into());
        let time = i128::from(row.time.nanos());
        assert!((946_684_800_000_000_000..=i128::from(RECEIVED.nanos()) + DAY).contains(&time));
        assert!(row.duration_nanos.is_some_and(|n| n >= 0) && row.end().nanos() >= row.time.nanos());
        Ok(())
    });
}

#[test]
fn limits_are_kept_and_told() {
    let mut draft = Draft::default();
    for n in 0..10_000 {
        draft.put(&format!("a{n}"), ValueRef::Int(n));
    }
    let row = draft.finish();
    assert_eq!(row.attributes.len(), ATTRIBUTES_MAX + 1);
    assert_eq!(row.get("meta.dropped_attributes"), Some(&Value::Int(10_000 - ATTRIBUTES_MAX as i64)));

    let mut draft = Draft::default();
    draft.put("log", ValueRef::Str(&"ä".repeat(5 << 20)));
    draft.put(&"n".repeat(NAME_BYTES_MAX + 1), ValueRef::Int(1));
    draft.put("", ValueRef::Int(1));
    draft.put("meta.time_problem", ValueRef::Str("none"));
    draft.left_out(3);
    draft.say_text("name", &"x".repeat(TEXT_BYTES_MAX + 1));
    let row = draft.finish();
    assert_eq!(row.text("log").map(str::len), Some(TEXT_BYTES_MAX));
    assert_eq!((row.text("meta.cut"), row.text("meta.time_problem")), (Some("log,name"), None));
    assert_eq!(row.get("meta.dropped_attributes"), Some(&Value::Int(6)));

    let mut draft = Draft::default();
    let text = "x".repeat(TEXT_BYTES_MAX);
    (0..100).for_each(|n| draft.put(&format!("a{n}"), ValueRef::Str(&text)));
    let row = draft.finish();
    let bytes: usize = row.attributes.iter().map(|(name, value)| name.len() + value.as_ref().to_string().len()).sum();
    assert!((ROW_BYTES_MAX - TEXT_BYTES_MAX - 100..ROW_BYTES_MAX + 100).contains(&bytes), "{bytes}");
    assert_eq!(row.get("meta.dropped_attributes"), Some(&Value::Int(85)));
}

fn rate_of(name: &str, value: ValueRef<'_>) -> Row {
    let mut draft = Draft::default();
    draft.put(name, value);
    draft.finish()
}

#[test]
fn weights_by_attribute() {
    let weight = |value| rate_of("SampleRate", value).get("meta.sample_rate").cloned();
    assert_eq!(weight(ValueRef::Int(20)), Some(Value::Float(20.0)));
    assert_eq!(weight(ValueRef::Float(2.5)), Some(Value::Float(2.5)));
    assert_eq!(weight(ValueRef::Int(i64::MAX)), Some(Value::Float(RATE_MAX)));
    // Once is no weight, and what is no weight stays an attribute.
    assert!(rate_of("SampleRate", ValueRef::Int(1)).attributes.is_empty());
    for value in [ValueRef::Int(0), ValueRef::Float(0.5), ValueRef::Str("7"), ValueRef::Bool(true)] {
        let row = rate_of("SampleRate", value);
        assert_eq!((row.get("SampleRate"), row.get("meta.sample_rate")), (Some(&value.to_value()), None));
    }
    assert_eq!(rate_of("meta.sample_rate", ValueRef::Int(4)).get("meta.sample_rate"), Some(&Value::Float(4.0)));
    assert_eq!(rate_of("meta.sample_rate", ValueRef::Int(-4)).get("meta.sample_rate"), None);
    // What the event says itself goes before what its trace says.
    let mut draft = Draft::default();
    draft.put("SampleRate", ValueRef::Int(3));
    draft.weigh(Some(9.0));
    assert_eq!(draft.rate(), Some(3.0));
}

#[test]
fn weights_by_tracestate() {
    // From the specification: th:c keeps one in four, th:8 one in two, th:fd70a3d70a3d71 one in a hundred.
    assert_eq!(of_tracestate("ot=th:c"), Some(4.0));
    assert_eq!(of_tracestate("a=b, ot=rv:00ffffffffffff;th:8 ,c=d"), Some(2.0));
    assert!((of_tracestate("ot=th:fd70a3d70a3d71").unwrap() - 100.0).abs() < 1e-9);
    assert_eq!((of_tracestate("ot=th:0"), of_tracestate("ot=th:00000000000000")), (Some(1.0), Some(1.0)));
    assert_eq!(of_tracestate("ot=th:ffffffffffffff"), Some(RATE_MAX));
    assert_eq!((of_tracestate("ot=p:3"), of_tracestate("ot=p:0;r:5")), (Some(8.0), Some(1.0)));
    for nothing in ["", "ot=", "ot=th:", "ot=th:+8", "ot=th:g", "ot=th:000000000000000", "ot=p:63", "ot=p:-1", "x=th:8"]
    {
        assert_eq!(of_tracestate(nothing), None, "{nothing:?}");
    }
}

/// Guarantees: a weight is a number from 1 to [`RATE_MAX`], and a threshold gives one over the probability.
#[test]
fn weights_are_sound() {
    arbtest::arbtest(|u| {
        let threshold = u.int_in_range(0..=(1_u64 << 56) - 1)?;
        let text = format!("{threshold:014x}");
        let digits = match text.trim_end_matches('0') {
            "" => "0",
            digits => digits,
        };
        let rate = of_tracestate(&format!("k=v,ot=th:{digits}")).unwrap();
        let probability = 1.0 - threshold as f64 / (1_u64 << 56) as f64;
        assert!((1.0..=RATE_MAX).contains(&rate), "{rate}");
        assert!(rate == RATE_MAX || (rate * probability - 1.0).abs() < 1e-6, "{rate} {probability}");
        let anything: String = u.arbitrary()?;
        for text in [anything.clone(), format!("ot={anything}"), format!("ot=th:{anything}")] {
            assert!(of_tracestate(&text).is_none_or(|rate| (1.0..=RATE_MAX).contains(&rate)), "{text:?}");
        }
        let number: f64 = u.arbitrary()?;
        let row = rate_of("SampleRate", ValueRef::Float(number));
        let weight = row.get("meta.sample_rate").and_then(|value| value.as_ref().as_f64());
        assert_eq!(weight, (number.is_finite() && number > 1.0).then(|| number.min(RATE_MAX)));
        Ok(())
    });
}
