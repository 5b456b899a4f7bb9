//! Reports of tests in JUnit's XML: each test case is one record.
//!
//! | XML | field |
//! |---|---|
//! | `testcase name`, `classname`, `file`, `time` (seconds) | `name`, `test.classname`, `test.file` (or that of the suite), `duration_ms` |
//! | `testsuite name`, of nested suites joined by ` / ` | `test.suite` |
//! | `failure`, `error`, `skipped`, none of them | `test.outcome`: `failed`, `error`, `skipped`, `passed`; `error` is true for the first two |
//! | their `message`, or else their text | `test.message` |
//! | `timestamp` of the nearest suite that has one; without a zone, UTC | `time` |
//!
//! Entities of a document's own are not expanded; those that XML knows are. What cannot be read any further ends the reading: what came
//! before it is kept, and the place is named.

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};
use rows::draft::cut;
use serde_json::{Map, Value, json};
use vocab::Timestamp;

use crate::moment;

/// Bytes of one report.
pub const REPORT_BYTES_MAX: usize = 64 << 20;
/// How deep elements may be in each other.
const DEPTH_MAX: usize = 64;

/// Why the reading ended before the end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct ReportError {
    /// Where, from 1.
    pub line: usize,
    /// What is wrong.
    pub reason: String,
}

/// What a report holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Test cases as records for [`crate::lines`], in order.
    pub cases: Vec<Map<String, Value>>,
    /// Why it is not whole.
    pub error: Option<ReportError>,
}

#[derive(Debug, Default)]
struct Suite {
    name: String,
    file: Option<String>,
    timestamp: Option<String>,
}

/// Where the reader is.
#[derive(Debug)]
enum Open {
    Suite(Suite),
    Case(Map<String, Value>),
    /// `failure`, `error` or `skipped` of a case, and its text.
    Outcome {
        text: String,
    },
    /// Anything else.
    Other,
}

/// Reads a report.
pub fn read(bytes: &[u8]) -> Report {
    let mut report = Report::default();
    report.error = read_into(bytes, &mut report.cases).err().map(|(place, reason)| ReportError {
        line: 1 + bytes.iter().take(place).filter(|byte| **byte == b'\n').count(),
        reason,
    });
    report
}

type Broken = (usize, String);

fn read_into(bytes: &[u8], cases: &mut Vec<Map<String, Value>>) -> Result<(), Broken> {
    if bytes.len() > REPORT_BYTES_MAX {
        return Err((0, format!("the report is longer than {REPORT_BYTES_MAX} bytes")));
    }
    let text = std::str::from_utf8(bytes).map_err(|e| (e.valid_up_to(), "the report is not UTF-8".to_owned()))?;
    let mut reader = Reader::from_str(text.trim_start_matches('\u{feff}'));
    let mut open: Vec<Open> = Vec::new();
    let mut is_report = false;
    loop {
        let place = usize::try_from(reader.buffer_position()).unwrap_or(usize::MAX);
        let event = reader.read_event().map_err(|e| {
            (usize::try_from(reader.error_position()).unwrap_or(place), format!("the report is not XML: {e}"))
        })?;
        match event {
            Event::Start(element) | Event::Empty(element) if open.len() >= DEPTH_MAX => {
                let name = shown(&element);
                return Err((place, format!("<{name}> is more than {DEPTH_MAX} elements deep")));
            }
            Event::Start(element) => {
                is_report |= is_root(&element);
                let opened = begin(&element, &mut open).map_err(|reason| (place, reason))?;
                open.push(opened);
            }
            Event::Empty(element) => {
                is_report |= is_root(&element);
                let opened = begin(&element, &mut open).map_err(|reason| (place, reason))?;
                end(opened, &mut open, cases);
            }
            Event::End(_) => {
                if let Some(opened) = open.pop() {
                    end(opened, &mut open, cases);
                }
            }
            Event::Text(text) => add(&mut open, &text),
            Event::CData(text) => add(&mut open, &text),
            Event::GeneralRef(reference) => {
                let known = match reference.resolve_char_ref() {
                    Ok(Some(character)) => Some(character.to_string()),
                    Ok(None) => quick_xml::escape::resolve_predefined_entity(&reference).map(str::to_owned),
                    Err(_) => None,
                };
                // An entity of the document's own stays as it is written.
                add(&mut open, &known.unwrap_or_else(|| format!("&{};", &*reference)));
            }
            Event::Eof if !open.is_empty() => return Err((place, "the report ends before its elements do".to_owned())),
            Event::Eof if !is_report => {
                return Err((0, "there is no <testsuites> or <testsuite>: it is not a JUnit report".to_owned()));
            }
            Event::Eof => return Ok(()),
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
        }
    }
}

fn is_root(element: &BytesStart<'_>) -> bool {
    matches!(element.local_name().as_ref(), "testsuites" | "testsuite")
}

fn shown(element: &BytesStart<'_>) -> String {
    element.local_name().as_ref().chars().take(60).collect()
}

/// An attribute's value; empty is as none.
fn attribute(element: &BytesStart<'_>, name: &str) -> Result<Option<String>, String> {
    let wrong = |reason: String| format!("<{}>: {reason}", shown(element));
    for attribute in element.attributes() {
        let attribute = attribute.map_err(|e| wrong(e.to_string()))?;
        if attribute.key.as_ref() == name {
            let value = quick_xml::escape::unescape(&attribute.value).map_err(|e| wrong(e.to_string()))?;
            return Ok(Some(cut(&value).to_owned()).filter(|value| !value.is_empty()));
        }
    }
    Ok(None)
}

fn begin(element: &BytesStart<'_>, open: &mut [Open]) -> Result<Open, String> {
    let of = |name: &str| attribute(element, name);
    match (element.local_name().as_ref(), open.last_mut()) {
        ("testsuite" | "testsuites", _) => {
            let name = of("name")?.unwrap_or_default();
            Ok(Open::Suite(Suite { name, file: of("file")?, timestamp: of("timestamp")? }))
        }
        ("testcase", _) => Ok(Open::Case(case(element, open)?)),
        (name @ ("failure" | "error" | "skipped"), Some(Open::Case(case))) if !case.contains_key("test.outcome") => {
            case.insert("test.outcome".into(), if name == "failure" { "failed".into() } else { name.into() });
            if let Some(message) = of("message")? {
                case.insert("test.message".into(), message.into());
            }
            Ok(Open::Outcome { text: String::new() })
        }
        _ => Ok(Open::Other),
    }
}

fn case(element: &BytesStart<'_>, open: &[Open]) -> Result<Map<String, Value>, String> {
    let of = |name: &str| attribute(element, name);
    let suites: Vec<&Suite> = open
        .iter()
        .filter_map(|open| match open {
            Open::Suite(suite) => Some(suite),
            _ => None,
        })
        .collect();
    let nearest = |field: fn(&Suite) -> Option<&String>| suites.iter().rev().find_map(|suite| field(suite)).cloned();
    let suite: Vec<&str> = suites.iter().map(|suite| &*suite.name).filter(|name| !name.is_empty()).collect();
    let mut case = Map::new();
    let mut insert = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            case.insert(name.to_owned(), value.into());
        }
    };
    insert("name", of("name")?);
    insert("test.classname", of("classname")?);
    insert("test.suite", Some(cut(&suite.join(" / ")).to_owned()).filter(|text| !text.is_empty()));
    insert("test.file", of("file")?.or_else(|| nearest(|suite| suite.file.as_ref())));
    // A time that can be read is written so that every reader agrees on it; another one is told as it is.
    let time = nearest(|suite| suite.timestamp.as_ref()).map(|text| {
        let nanos = moment::read_text(&text).and_then(|nanos| i64::try_from(nanos).ok());
        nanos.map_or(text, |nanos| Timestamp::from_nanos(nanos).to_string())
    });
    insert("time", time);
    // Some writers put commas between thousands.
    let secs = of("time")?.and_then(|text| text.replace(',', "").parse::<f64>().ok());
    if let Some(secs) = secs.filter(|secs| secs.is_finite() && *secs >= 0.0) {
        case.insert("duration_ms".into(), json!(secs * 1e3));
    }
    Ok(case)
}

/// Text within what an outcome says.
fn add(open: &mut [Open], more: &str) {
    if let Some(Open::Outcome { text }) = open.last_mut() {
        if text.len() < rows::draft::TEXT_BYTES_MAX {
            text.push_str(cut(more));
        }
    }
}

fn end(opened: Open, open: &mut [Open], cases: &mut Vec<Map<String, Value>>) {
    match (opened, open.last_mut()) {
        (Open::Outcome { text }, Some(Open::Case(case))) => {
            if !case.contains_key("test.message") && !text.trim().is_empty() {
                case.insert("test.message".into(), cut(text.trim()).into());
            }
        }
        (Open::Case(mut case), _) => {
            let outcome = case.entry("test.outcome").or_insert_with(|| "passed".into());
            let failed = matches!(outcome.as_str(), Some("failed" | "error"));
            case.insert("error".into(), failed.into());
            cases.push(case);
        }
        _ => {}
    }
}
