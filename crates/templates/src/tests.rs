//! Ordinary lines, and what holds of any.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::*;

fn templates_of(lines: &[&str]) -> Vec<String> {
    let mut templates = Templates::default();
    lines.iter().for_each(|line| {
        templates.template("web", line);
    });
    // As they are once all have been seen.
    lines.iter().map(|line| templates.template("web", line).text.to_owned()).collect()
}

fn masked(line: &str) -> String {
    let mut out = String::new();
    mask(line, &mut out);
    out
}

#[test]
fn what_varies_by_its_looks_is_masked() {
    for (line, expected) in [
        ("took 35 ms", "took <*> ms"),
        ("took 35ms, -1.5e-7 left", "took <*>, <*> left"),
        ("2026-11-28T13:00:27.123Z started", "<*> started"),
        ("Nov 28 13:00:27 host sshd[4711]: ok", "<*> <*> <*> host sshd[<*>]: ok"),
        ("[28/Nov/2026:13:00:27 +0000] done", "[<*> <*>] done"),
        ("from 10.0.0.1:8080 to fe80::1 or ::1", "from <*> to <*> or <*>"),
        ("job 7c9e6679-7425-40de-944b-e07fc1f90ae7 deadbeef 0x1f", "job <*> <*> <*>"),
        ("GET /users/123/orders/a1b2c3 HTTP/1.1", "GET /users/<*>/orders/<*> HTTP/<*>"),
        ("relation \"users\" is 'gone', don't", "relation \"<*>\" is '<*>', don't"),
        (r#"{"level":"info","n":5,"empty":""}"#, r#"{"level":"<*>","n":<*>,"empty":"<*>"}"#),
        ("user123 reads utf8 and s3 of std::fmt", "<*> reads utf8 and s3 of std::fmt"),
        ("größe 5 → übrig", "größe <*> → übrig"),
        ("", ""),
    ] {
        assert_eq!(masked(line), expected);
    }
}

/// Lines in the manner of nginx, sshd, Java and PostgreSQL.
#[test]
fn ordinary_lines_have_the_templates_a_person_would_give_them() {
    let users = ["alice", "bob", "carol", "dave", "erin"];
    let mut lines: Vec<String> = Vec::new();
    let mut expected = BTreeSet::new();
    for (n, user) in users.iter().enumerate() {
        lines.push(format!(
            r#"10.0.0.{n} - - [28/Nov/2026:13:00:0{n} +0000] "GET /users/{n} HTTP/1.1" 20{n} {n}512 "-" "curl/8.{n}""#
        ));
        lines.push(format!(
            "Nov 28 13:00:0{n} bastion sshd[47{n}1]: Accepted publickey for {user} from 10.1.2.{n} port 5{n}022 ssh2"
        ));
        lines.push(format!(
            "2026-11-28 13:00:0{n},123 INFO [pool-{n}-thread-1] com.shop.Cart - added item {n}99 to cart of {user}"
        ));
        lines.push(format!(
            "2026-11-28 13:00:0{n},124 ERROR [pool-{n}-thread-1] com.shop.Pay - payment failed after {n}00 ms"
        ));
        lines.push(format!(
            "2026-11-28 13:00:0{n}.456 UTC [81{n}] LOG:  checkpoint complete: wrote {n}34 buffers ({n}.5%)"
        ));
        lines.push(format!(
            "2026-11-28 13:00:0{n}.457 UTC [81{n}] ERROR:  relation \"orders_{n}\" does not exist at character {n}5"
        ));
    }
    expected.extend([
        r#"<*> - - [<*> <*>] "<*>" <*> <*> "<*>" "<*>""#,
        "<*> <*> <*> bastion sshd[<*>]: Accepted publickey for <*> from <*> port <*> ssh2",
        "<*> <*> INFO [pool-<*>-thread-<*>] com.shop.Cart - added item <*> to cart of <*>",
        "<*> <*> ERROR [pool-<*>-thread-<*>] com.shop.Pay - payment failed after <*> ms",
        "<*> <*> UTC [<*>] LOG:  checkpoint complete: wrote <*> buffers (<*>%)",
        "<*> <*> UTC [<*>] ERROR:  relation \"<*>\" does not exist at character <*>",
    ]);
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let found = templates_of(&lines);
    assert_eq!(found.iter().map(String::as_str).collect::<BTreeSet<&str>>(), expected);
}

#[test]
fn another_kind_stays_another_kind() {
    let lines = ["payment accepted for 5", "payment refused for 6", "order placed by alice", "order placed by bob", ""];
    let expected =
        ["payment accepted for <*>", "payment refused for <*>", "order placed by <*>", "order placed by <*>", ""];
    assert_eq!(templates_of(&lines), expected);
}

/// Guarantees: an id outlives its text's growing more general; services do not mix.
#[test]
fn an_id_is_stable() {
    let mut templates = Templates::default();
    let first = templates.template("web", "order placed by alice").id;
    assert_eq!(templates.template("web", "order placed by alice").text, "order placed by alice");
    let found = templates.template("web", "order placed by bob");
    assert_eq!((found.id, found.text), (first, "order placed by <*>"));
    assert_eq!(templates.template("web", "order placed by alice").text, "order placed by <*>");
    let other = templates.template("api", "order placed by alice");
    assert_eq!(other.text, "order placed by alice");
    assert_ne!(other.id, first);
}

fn line(u: &mut arbtest::arbitrary::Unstructured<'_>) -> arbtest::arbitrary::Result<String> {
    const PARTS: [&str; 34] = [
        "a",
        "error",
        "user",
        "=",
        " ",
        " ",
        " ",
        " ",
        "5",
        "17",
        "-",
        ":",
        "::",
        ".",
        "/",
        "_",
        "\"",
        "'",
        "<*>",
        "<",
        "Nov",
        "Mon",
        "deadbeef",
        "7c9e6679-7425-40de-944b-e07fc1f90ae7",
        "{",
        "ü",
        "\\",
        ",",
        "x7y8",
        "utf8",
        "+",
        "\n",
        "bob",
        "0x",
    ];
    (0..u.int_in_range(0..=25)?).map(|_| u.choose(&PARTS).copied()).collect()
}

/// Guarantees: the same line has the same template at once and after a restart; no text is longer
/// than what it can come of; nothing panics.
#[test]
fn of_any_lines_the_same_line_has_the_same_template() {
    arbtest::arbtest(|u| {
        let mut templates = Templates::default();
        let mut ids = BTreeSet::new();
        for _ in 0..u.int_in_range(1..=60)? {
            let line = line(u)?;
            let found = templates.template("web", &line);
            let found = (found.text.to_owned(), found.id);
            assert!(found.0.len() <= LINE_BYTES_MAX * WILDCARD.len());
            let again = templates.template("web", &line);
            assert_eq!((again.text.to_owned(), again.id), found, "of {line:?}");
            ids.insert(found.1);
            let written = serde_json::to_string(&templates.kept()).unwrap();
            let mut restored = Templates::restored(serde_json::from_str(&written).unwrap());
            let after = restored.template("web", &line);
            assert_eq!((after.text.to_owned(), after.id), found, "of {line:?} after a restart");
        }
        assert!(templates.len() <= ids.len());
        Ok(())
    })
    .budget_ms(2_000);
}

/// Guarantees: lines that no template fits, and services without end, take bounded memory; what is seen often stays.
#[test]
fn memory_is_bounded() {
    let mut templates = Templates::default();
    let mut state = 1_u64;
    let mut word = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let mut n = state >> 20;
        (0..7)
            .map(|_| {
                n = n / 20 + 17;
                char::from(b'g' + (n % 20) as u8)
            })
            .collect::<String>()
    };
    let usual = templates.template("web", "an ordinary line that comes often").id;
    for n in 0..40_000 {
        let words: Vec<String> = (0..1 + n % 40).map(|_| word()).collect();
        templates.template("web", &words.join(" "));
        assert_eq!(templates.template("web", "an ordinary line that comes often").id, usual);
    }
    assert!(templates.len() <= 5_000, "{}", templates.len());
    for n in 0..1_000 {
        for _ in 0..50 {
            templates.template(&format!("service-{n}"), &format!("{} {} {} {}", word(), word(), word(), word()));
        }
    }
    assert!(templates.len() <= 30_001, "{}", templates.len());
    let long = "x ".repeat(1 << 20);
    assert!(templates.template("web", &long).text.len() <= LINE_BYTES_MAX);
    assert_eq!(templates.kept().len(), templates.len());
}

/// How fast: printed, and not slower than would be felt. Unoptimised builds are not judged.
#[test]
#[allow(clippy::disallowed_methods, reason = "it measures")]
fn it_keeps_up_with_what_comes_in() {
    let lines: Vec<String> = (0..1_000)
        .map(|n| match n % 4 {
            0 => format!(r#"10.0.{n}.1 - - [28/Nov/2026:13:00:01 +0000] "GET /users/{n} HTTP/1.1" 200 {n} "-" "curl""#),
            1 => format!("Nov 28 13:00:01 bastion sshd[{n}]: Accepted publickey for u{n} from 10.1.2.3 port {n} ssh2"),
            2 => {
                format!("2026-11-28 13:00:01,124 ERROR [pool-{n}-thread-1] com.shop.Pay - payment failed after {n} ms")
            }
            _ => format!("2026-11-28 13:00:01.456 UTC [{n}] LOG:  checkpoint complete: wrote {n} buffers"),
        })
        .collect();
    let mut templates = Templates::default();
    let began = Instant::now();
    let mut bytes = 0;
    for _ in 0..200 {
        for line in &lines {
            bytes += templates.template("web", line).text.len();
        }
    }
    let rate = 200_000.0 / began.elapsed().as_secs_f64();
    eprintln!("{rate:.0} lines a second, {bytes} bytes of templates, {} kinds", templates.len());
    assert!(cfg!(debug_assertions) || rate > 100_000.0, "{rate:.0} lines a second");
}
