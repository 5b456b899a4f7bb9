use crate::{Id, Kind, Millis, Name, Pseudonym, Share, Timestamp};

#[test]
fn shares_read_percent_and_fraction() {
    for (text, ppm) in [("5%", 50_000), ("0.05", 50_000), ("0", 0), ("100 %", 1_000_000), ("0.0001%", 1)] {
        assert_eq!(Share::parse(text).unwrap().ppm(), ppm, "{text}");
    }
    for text in ["", "5", "-1%", "101%", "NaN", "five"] {
        assert!(Share::parse(text).is_err(), "{text}");
    }
    assert_eq!(Share::from_ppm(50_000).unwrap().to_string(), "5%");
}

#[test]
fn ids_round_trip_and_sort_by_index() {
    for index in [0, 31, 32, 12_345, u64::from(u32::MAX), u64::MAX] {
        let id = Id::new(Kind::Experiment, index);
        assert_eq!(Id::parse(&id.to_string()).unwrap(), id);
    }
    assert_eq!(Id::new(Kind::Token, 44).to_string(), "tok_000001c");
    for text in ["exp_1", "exp_00000u1", "foo_0000001", "exp_zzzzzzzzzzzzzzz", "exp_zzzzzzzzzzzzz", ""] {
        assert!(Id::parse(text).is_err(), "{text}");
    }
}

#[test]
fn names_follow_the_rule() {
    for text in ["a", "license-latency", "0.x_y"] {
        assert!(Name::parse(text).is_ok(), "{text}");
    }
    for text in ["", "-a", "A", "a b", &"a".repeat(64)] {
        assert!(Name::parse(text).is_err(), "{text}");
    }
}

#[test]
fn durations_and_times_round_trip() {
    for text in ["300ms", "5s", "2m", "1h", "90s"] {
        assert_eq!(Millis::parse(text).unwrap().to_string(), text);
    }
    for text in ["", "5", "ms", "1.5s", "-1s", "99999999999999999999s", "5 weeks"] {
        assert!(Millis::parse(text).is_err(), "{text}");
    }
    let time = Timestamp::parse("2026-11-23T09:00:00.25Z").unwrap();
    assert_eq!(Timestamp::parse(&time.to_string()).unwrap(), time);
    assert_eq!((time + Millis(750)).to_string(), "2026-11-23T09:00:01Z");
}

#[test]
fn pseudonyms_round_trip() {
    let pseudonym = Pseudonym::from_bytes(*b"0123456789abcdef");
    assert_eq!(Pseudonym::parse(&pseudonym.to_string()).unwrap(), pseudonym);
    assert!(Pseudonym::parse("short").is_err());
    assert!(Pseudonym::parse(&"!".repeat(22)).is_err());
}
