//! What SQL answers, what it refuses, and what it does not take.

use std::sync::Arc;
use std::time::{Duration, Instant};

use events::Store;
use files::{Disk, Files};
use rows::Row;
use serde_json::{Value, json};
use vocab::Timestamp;

use crate::*;

const T0: i64 = 1_764_000_000_000_000_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_nanos(T0 + second * 1_000_000_000)
}

/// A store of 60,000 events in two chunks, and one list.
#[derive(Debug)]
struct World {
    store: Store,
    _dir: tempfile::TempDir,
}

const PEOPLE: &[Known] = &[Known {
    name: "people",
    columns: &[
        Column { name: "name", pointer: "/name", kind: Kind::Text },
        Column { name: "age", pointer: "/age", kind: Kind::Int },
        Column { name: "born", pointer: "/born", kind: Kind::Time },
        Column { name: "tags", pointer: "/more/tags", kind: Kind::Json },
    ],
}];

impl Tables for World {
    fn events(&self) -> events::Table {
        self.store.table(Timestamp::from_nanos(i64::MIN), Timestamp::from_nanos(i64::MAX))
    }

    fn known(&self) -> &'static [Known] {
        PEOPLE
    }

    fn rows(&self, _: &str) -> Result<Rows, String> {
        let rows = vec![
            json!({"name": "user-1", "age": 7, "born": "2020-01-02T03:04:05Z", "more": {"tags": ["a", 1]}}),
            json!({"name": "user-2", "age": "old", "born": null}),
        ];
        Ok(Rows { rows, incomplete: vec!["the third is away".into()] })
    }
}

fn row(n: i64) -> Row {
    let mut row = Row { time: at(n), duration_nanos: Some(n * 1_000_000), trace: n as u128 + 1, ..Row::default() }
        .with("service.name", ["web", "api", "db"][n as usize % 3])
        .with("user.id", format!("user-{}", n % 1_000))
        .with("n", n)
        .with("share", n as f64 / 8.0)
        .with("ok", n % 2 == 0)
        .with("note", format!("a text that only event {n} has"));
    if n % 2 == 0 {
        row.set("clash", n);
    } else {
        row.set("clash", format!("{n}"));
    }
    row
}

const ROWS: i64 = 60_000;

fn world() -> Arc<World> {
    let dir = tempfile::tempdir().unwrap();
    let files: Arc<dyn Files> = Arc::new(Disk::open(dir.path()).unwrap());
    let store = Store::open(files, "events", |_, _, _| ()).unwrap();
    for start in [0, ROWS / 2] {
        let rows: Vec<Row> = (start..start + ROWS / 2).map(row).collect();
        store.append(at(0), &[rows.into()]).unwrap();
    }
    Arc::new(World { store, _dir: dir })
}

async fn ask_for(world: &Arc<World>, sql: &str, limit: usize, time: Duration) -> Result<Answer, SqlError> {
    let asked = Asked { sql: sql.to_owned(), limit, time };
    Engine::start().unwrap().ask(asked, world.clone()).await
}

async fn ask(world: &Arc<World>, sql: &str) -> Result<Answer, SqlError> {
    ask_for(world, sql, 10, Duration::from_secs(60)).await
}

async fn check(world: &Arc<World>, sql: &str, expected: Value) {
    match ask(world, sql).await {
        Ok(answer) => assert_eq!(json!(answer.rows().unwrap()), expected, "{sql}"),
        Err(error) => panic!("{sql}: {error}"),
    }
}

#[tokio::test]
async fn events_are_filtered_grouped_sorted_and_joined() {
    let world = world();
    check(&world, "SELECT count(*) FROM events", json!([[60_000]])).await;
    let grouped = r#"SELECT "service.name", count(*) AS n, max(duration_ms) AS slowest, bool_and(ok) FROM events
        WHERE n < 3000 GROUP BY 1 ORDER BY 1 DESC"#;
    let expected = json!([["web", 1000, 2997.0, false], ["db", 1000, 2999.0, false], ["api", 1000, 2998.0, false]]);
    check(&world, grouped, expected).await;
    let one = "SELECT time, trace_id, span_id, share FROM events WHERE n = 20001";
    let id = format!("{:032x}", 20_002);
    check(&world, one, json!([[at(20_001).to_string(), id, null, 2500.125]])).await;
    // What the store is told and what the engine checks agree: each condition alone and beside others.
    for (condition, n) in [
        ("time >= '2025-11-24T16:00:10Z' AND time < '2025-11-24T16:00:20Z'", 10),
        ("time BETWEEN '2025-11-24T16:00:10Z' AND '2025-11-24T16:00:20Z'", 11),
        ("'2025-11-24T16:00:10Z' > time", 10),
        (r#""service.name" = 'web'"#, 20_000),
        (r#""service.name" <> 'web'"#, 40_000),
        (r#""service.name" IN ('web', 'db') AND n < 9"#, 6),
        (r#""user.id" = 'user-7' OR n = 8"#, 61),
        ("NOT ok AND n < 10", 5),
        ("ok AND n < 10", 5),
        ("share <= 1", 9),
        ("share < 0.0", 0),
        ("duration_ms > 59998.5", 1),
        (r#"clash = '7'"#, 1),
        (r#""clash:int" = 8"#, 1),
        ("clash IS NOT NULL", 30_000),
        ("clash IS NULL", 30_000),
        (r#""note" LIKE '%event 12345 has'"#, 1),
        ("trace_id = '00000000000000000000000000000005'", 1),
        ("n = 1 AND n = 2", 0),
    ] {
        check(&world, &format!("SELECT count(*) FROM events WHERE {condition}"), json!([[n]])).await;
        // Behind a projection nothing is handed to the store.
        let behind = format!("SELECT count(*) FROM (SELECT * FROM events OFFSET 0) AS events WHERE {condition}");
        check(&world, &behind, json!([[n]])).await;
    }
    let buckets = "SELECT date_bin(INTERVAL '4 hours', time) AS t, count(*), approx_percentile_cont(duration_ms, 0.5) > 0 \
        FROM events GROUP BY 1 ORDER BY 1 LIMIT 2";
    let expected = json!([["2025-11-24T16:00:00Z", 14_400, true], ["2025-11-24T20:00:00Z", 14_400, true]]);
    check(&world, buckets, expected).await;
    let joined = r#"SELECT p.name, p.age, p.born, p.tags, count(*) FROM events e JOIN people p ON e."user.id" = p.name
        GROUP BY ALL ORDER BY 1"#;
    let expected = json!([["user-1", 7, "2020-01-02T03:04:05Z", "[\"a\",1]", 60], ["user-2", null, null, null, 60],]);
    let joined = joined.replace("GROUP BY ALL", "GROUP BY 1, 2, 3, 4");
    check(&world, &joined, expected).await;
    let twice = "SELECT a.n, a.n + 0.5 AS half, a.time, a.ok, a.clash, a.\"clash:int\", b.n FROM events a JOIN events b ON a.n = b.n \
        ORDER BY a.n";
    let answer = ask(&world, twice).await.unwrap();
    assert_eq!(answer.columns(), ["n", "half", "time", "ok", "clash", "clash:int", "n_2"]);
    assert_eq!(answer.types(), ["int", "float", "time", "bool", "text", "int", "int"]);
    assert_eq!(json!(answer.rows().unwrap()[1]), json!([1, 1.5, at(1).to_string(), false, "1", null, 1]));
    let kinds = "SELECT [1, 2] AS list, named_struct('a', 1, 'b', 'x') AS object, DATE '2026-02-03' AS day, \
        CAST(1.25 AS DECIMAL(5, 2)) AS exact, 1 / 0.0 AS none, NULL AS nothing, CAST(7 AS BIGINT UNSIGNED) AS whole";
    let answer = ask(&world, kinds).await.unwrap();
    let expected = json!([[1, 2], {"a": 1, "b": "x"}, "2026-02-03", "1.25", null, null, 7]);
    assert_eq!(json!(answer.rows().unwrap()[0]), expected);
    let stream = answer.arrow_stream().unwrap();
    let mut read = arrow_ipc::reader::StreamReader::try_new(&stream[..], None).unwrap();
    assert_eq!(read.next().unwrap().unwrap().num_rows(), 1);
    for (sql, first) in [
        ("SHOW TABLES", "events"),
        ("DESCRIBE people", "name"),
        ("SHOW COLUMNS FROM events", "duration_ms"),
        ("VALUES ('a'), ('b')", "a"),
        ("EXPLAIN SELECT n FROM events WHERE \"service.name\" = 'web'", "EventsScan"),
        ("WITH web AS (SELECT * FROM events WHERE n < 2) SELECT note FROM web ORDER BY 1", "a text"),
    ] {
        match ask_for(&world, sql, 100, Duration::from_secs(60)).await {
            Ok(answer) => {
                let rows = json!(answer.rows().unwrap()).to_string();
                assert!(
                    rows.contains(first) || first == "EventsScan" && rows.contains("events: from="),
                    "{sql}: {rows}"
                );
            }
            Err(error) => panic!("{sql}: {error}"),
        }
    }
}

/// Guarantees: only what a statement needs of the store is read.
#[tokio::test]
async fn a_plan_names_few_chunks_and_columns() {
    let world = world();
    let plan = |sql: &str| {
        let (world, sql) = (world.clone(), format!("EXPLAIN {sql}"));
        async move { json!(ask(&world, &sql).await.unwrap().rows().unwrap()).to_string() }
    };
    let whole = plan("SELECT count(*) FROM events").await;
    assert!(whole.contains("chunks=2, rows<=60000, columns=[]"), "{whole}");
    let part = plan("SELECT n FROM events WHERE time < '2025-11-24T16:00:10Z' ORDER BY duration_ms LIMIT 3").await;
    assert!(part.contains("chunks=1, rows<=30000, columns=[time, duration_ms, n]"), "{part}");
}

/// Guarantees: nothing but reading, and no file, whatever it is wrapped in.
#[tokio::test]
async fn what_does_not_read_is_refused() {
    let world = world();
    for sql in [
        "CREATE TABLE t (a INT)",
        "CREATE TABLE t AS SELECT * FROM events",
        "CREATE VIEW v AS SELECT 1",
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
        "DROP TABLE events",
        "INSERT INTO people VALUES ('a', 1, NULL, NULL)",
        "UPDATE people SET age = 1",
        "DELETE FROM people",
        "TRUNCATE TABLE people",
        "COPY events TO '/tmp/out.csv'",
        "COPY (SELECT 1) TO '/tmp/out.csv' STORED AS CSV",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '/tmp/out.csv' STORED AS CSV",
        "EXPLAIN DROP TABLE events",
        "SET datafusion.execution.target_partitions = 64",
        "RESET datafusion.execution.target_partitions",
        "PREPARE p AS SELECT 1",
        "EXECUTE p",
        "BEGIN",
        "COMMIT",
        "USE other",
        "GRANT SELECT ON events TO somebody",
    ] {
        match ask(&world, sql).await {
            Err(SqlError::NotReading(what)) => {
                assert!(sql.contains(what.split(' ').next().unwrap()) || sql.starts_with("EXPLAIN"), "{sql}: {what}")
            }
            // Some the parser does not know at all.
            Err(SqlError::Wrong(_)) => {}
            other => panic!("{sql}: {other:?}"),
        }
    }
    for sql in [
        "SELECT * INTO t FROM events",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM read_csv('/etc/passwd')",
        "WITH RECURSIVE t AS (SELECT 'x' AS s UNION ALL SELECT s || s FROM t) SELECT max(length(s)) FROM t",
        "SELECT repeat('x', 2000000000)",
        "WITH t AS (INSERT INTO people VALUES ('a', 1, NULL, NULL)) SELECT 1",
    ] {
        assert!(matches!(ask(&world, sql).await, Err(SqlError::Wrong(_))), "{sql}");
    }
    assert_eq!(ask(&world, "SELECT 1; SELECT 2").await.unwrap_err(), SqlError::Statements(2));
    assert_eq!(ask(&world, "  ").await.unwrap_err(), SqlError::Statements(0));
    let long = format!("SELECT '{}'", "x".repeat(SQL_BYTES_MAX));
    assert!(matches!(ask(&world, &long).await, Err(SqlError::TooLong { .. })));
    // A comment is no way around.
    assert!(matches!(ask(&world, "/* SELECT */ DROP TABLE events -- SELECT").await, Err(SqlError::NotReading(_))));
}

#[tokio::test]
async fn errors_say_what_is_wrong_in_words_of_the_user() {
    let world = world();
    let said = |sql: &'static str| {
        let world = world.clone();
        async move { ask(&world, sql).await.unwrap_err().to_string() }
    };
    let misspelt = said("SELECT servce FROM events").await;
    assert!(misspelt.starts_with("there is no column servce; nearest: \"service.name\""), "{misspelt}");
    let dotted = said("SELECT service.name FROM events").await;
    assert!(dotted.starts_with("there is no column service.name; nearest: \"service.name\""), "{dotted}");
    let capital = said("SELECT Note_ FROM events").await;
    assert!(capital.starts_with("there is no column note_; nearest: note"), "{capital}");
    for (sql, part) in [
        ("SELECT * FROM nothing", "table 'nothing' not found"),
        ("SELECT nosuch(1)", "nosuch"),
        ("SELECT 1 FROM", "Expected"),
        ("SELECT 'open", "Unterminated"),
        ("SELECT n / 0 FROM events", "Divide by zero"),
        ("SELECT CAST('x' AS INT)", "x"),
        ("SELECT sum(clash) FROM events", "sum"),
    ] {
        let said = said(sql).await;
        assert!(said.contains(part), "{sql}: {said}");
        assert!(!said.contains("backtrace") && !said.contains("bug report") && !said.contains(".rs:"), "{sql}: {said}");
    }
}

/// Guarantees: no answer is longer, slower or hungrier than was agreed.
#[tokio::test]
async fn limits_hold() {
    let world = world();
    let answer = ask(&world, "SELECT n FROM events ORDER BY n").await.unwrap();
    assert_eq!((answer.rows().unwrap().len(), answer.has_more), (10, true));
    let answer = ask(&world, "SELECT n FROM events WHERE n < 10").await.unwrap();
    assert_eq!((answer.rows().unwrap().len(), answer.has_more), (10, false));
    let minute = Duration::from_secs(60);
    let none = ask_for(&world, "SELECT n FROM events", 0, minute).await.unwrap();
    assert_eq!((none.rows().unwrap().len(), none.has_more), (0, true));
    let many = ask_for(&world, "SELECT a.n FROM events a, events b LIMIT 300000", usize::MAX, minute).await.unwrap();
    assert_eq!((many.rows().unwrap().len(), many.has_more), (ROWS_MAX, true));
    // Long rows are cut by their bytes.
    let wide =
        "SELECT concat(u, u, u, u, u, u, u, u, u, u, u, u) FROM (SELECT concat(note, note, note, note) u FROM events)";
    let wide = ask_for(&world, wide, ROWS_MAX, minute).await.unwrap();
    assert!(wide.has_more && wide.incomplete[0].contains("MiB"), "{:?}", wide.incomplete);
    // Time.
    let began = Instant::now();
    let endless = "SELECT sum(a.n * b.n + c.n) FROM events a, events b, events c";
    let error = ask_for(&world, endless, 10, Duration::from_millis(300)).await.unwrap_err();
    assert_eq!(error, SqlError::Time(Duration::from_millis(300)));
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    // Memory: every pair is a group.
    let hungry = "SELECT a.note, b.note, count(*) FROM events a, events b GROUP BY 1, 2";
    let windows = "SELECT count(*) OVER (), concat(CAST(value AS TEXT), ' is a number in a text that is longer than others') FROM generate_series(1, 1000000000)";
    let text = "concat(CAST(value AS TEXT), note, note, note, note, note, note, note, note, note, note, note, note)";
    let rolling = format!(
        "SELECT max(s), max(t) FROM (SELECT sum(value) OVER (ROWS BETWEEN 1000000000 PRECEDING AND CURRENT ROW) AS s, {text} AS t \
         FROM generate_series(1, 1000000000) JOIN (SELECT concat(note, note, note, note, note, note, note, note) AS note FROM events \
         WHERE n = 1) ON true)"
    );
    for hungry in [hungry, windows, &rolling] {
        assert_eq!(ask_for(&world, hungry, 10, minute * 5).await.unwrap_err(), SqlError::Memory, "{hungry}");
    }
}

/// Guarantees: whoever hangs up frees the place; when all places are taken others wait, and are told.
#[tokio::test]
async fn what_nobody_waits_for_ends() {
    let world = world();
    let engine = Arc::new(Engine::start().unwrap());
    let endless = "SELECT sum(a.n * b.n + c.n) FROM events a, events b, events c";
    let asked = |sql: &str, time| Asked { sql: sql.to_owned(), limit: 1, time };
    let minute = Duration::from_secs(60);
    let running: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let (engine, world, asked) = (engine.clone(), world.clone(), asked(endless, minute));
            tokio::spawn(async move { engine.ask(asked, world).await.map(|_| ()) })
        })
        .collect();
    let soon = asked("SELECT 1", Duration::from_millis(500));
    // All places are taken as soon as each has begun.
    loop {
        match engine.ask(soon.clone(), world.clone()).await {
            Err(SqlError::Busy) => break,
            Err(SqlError::Time(_)) | Ok(_) => tokio::task::yield_now().await,
            other => panic!("{other:?}"),
        }
    }
    running.iter().for_each(|task| task.abort());
    let answer = engine.ask(asked("SELECT 1", minute), world.clone()).await.unwrap();
    assert_eq!(answer.rows().unwrap(), [[json!(1)]]);
}

/// Guarantees: a statement of the greatest length and depth is answered or refused; it takes the process down in no case.
#[tokio::test]
async fn deep_statements_end_with_an_answer_or_an_error() {
    let world = world();
    let room = SQL_BYTES_MAX - 100;
    let shapes = [
        format!("SELECT {}1", "1+".repeat(room / 2)),
        format!("SELECT {}1", "-".repeat(room).replace("--", "- ")),
        format!("SELECT {}true", "NOT ".repeat(room / 4)),
        format!("SELECT {}1{}", "(".repeat(room / 2), ")".repeat(room / 2)),
        format!("SELECT count(*) FROM events WHERE n=0{}", " OR n=1".repeat(room / 7)),
        format!("SELECT count(*) FROM events WHERE {}ok", "ok AND ".repeat(room / 7)),
        format!("SELECT {}1", "1 UNION SELECT ".repeat(room / 15)),
        format!("SELECT n FROM {}events{}", "(SELECT * FROM ".repeat(room / 20), ")".repeat(room / 20)),
        format!("SELECT {}1{}", "abs(".repeat(room / 5), ")".repeat(room / 5)),
        format!("SELECT {}1{}", "CASE WHEN true THEN ".repeat(room / 24), " END".repeat(room / 24)),
        format!("SELECT {}1{}", "[".repeat(room / 2), "]".repeat(room / 2)),
        format!("SELECT 'a'{}", "||'a'".repeat(room / 5)),
        format!("SELECT count(*) FROM events{}", ",events".repeat(room / 7)),
        format!("SELECT n FROM events ORDER BY n{}", ",n".repeat(room / 2)),
    ];
    for sql in shapes {
        let answer = ask_for(&world, &sql, 1, Duration::from_secs(5)).await;
        let shape: String = sql.chars().take(60).collect();
        assert!(!matches!(answer, Err(SqlError::Broken(_))), "{shape}: {answer:?}");
    }
}
