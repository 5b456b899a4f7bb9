//! The template of each log record, as `log.template` and `log.template_id`, and the kinds of lines known so far in `templates.json`, so
//! that a restart changes no template.
//!
//! Templates come of what is stored, after redaction: no secret gets into one. The file is written with the other tables, so a crash
//! forgets the kinds of half a minute; a line of such a kind founds it again, with the same id if it is the same line.

use std::sync::Mutex;

use files::Files;
use rows::{Row, names};
use serde::{Deserialize, Serialize};
use templates::{Kept, Templates};

use crate::app::lock;

/// Text of a log record.
const BODY: &str = "body";
const TEMPLATE: &str = "log.template";
const TEMPLATE_ID: &str = "log.template_id";
const PATH: &str = "templates.json";
/// Of the file. A file of another format is not read.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Saved {
    format: u32,
    templates: Vec<Kept>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct LogTemplates(Mutex<Templates>);

impl LogTemplates {
    /// Reads what was kept; what is damaged is a finding, and counting begins anew.
    pub(crate) fn open(files: &dyn Files, findings: &mut Vec<String>) -> LogTemplates {
        let Ok(bytes) = files.read(PATH) else { return LogTemplates::default() };
        match serde_json::from_slice::<Saved>(&bytes) {
            Ok(saved) if saved.format == FORMAT => LogTemplates(Mutex::new(Templates::restored(saved.templates))),
            read => {
                let why = read.map_or_else(|e| e.to_string(), |saved| format!("it has the format {}", saved.format));
                findings.push(format!("{PATH} cannot be read: {why}; the templates of log records are learned anew"));
                LogTemplates::default()
            }
        }
    }

    /// Gives log records with a text their template. What a sender says in these attributes is not believed.
    pub(crate) fn stamp(&self, rows: &mut [Row]) {
        let mut templates = None;
        for row in rows.iter_mut().filter(|row| row.text(names::SIGNAL) == Some("log")) {
            let Some(body) = row.text(BODY).filter(|body| !body.trim().is_empty()) else { continue };
            let templates = templates.get_or_insert_with(|| lock(&self.0));
            let found = templates.template(row.text(names::SERVICE).unwrap_or_default(), body);
            let (text, id) = (found.text.to_owned(), format!("{:016x}", found.id));
            row.set(TEMPLATE, text);
            row.set(TEMPLATE_ID, id);
        }
    }

    /// Writes down what is known.
    pub(crate) fn save(&self, files: &dyn Files) {
        let templates = lock(&self.0).kept();
        let bytes = serde_json::to_vec(&Saved { format: FORMAT, templates }).unwrap_or_default();
        if let Err(error) = files.replace(PATH, &bytes) {
            tracing::warn!(error = %error, "templates of log records cannot be written down; it is tried again");
        }
    }
}
