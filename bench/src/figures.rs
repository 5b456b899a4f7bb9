//! What was measured, as a table.

use std::path::Path;

use anyhow::Result;

/// Rows of the table.
#[derive(Debug, Default)]
pub struct Figures {
    rows: Vec<[String; 4]>,
}

impl Figures {
    /// A figure of ours.
    pub fn ours(&mut self, what: &str, figure: String) {
        self.push([what.to_owned(), figure, String::new(), String::new()]);
    }

    /// A figure of ours beside a peer's. `ratio` is ours over theirs in the sense that more is better.
    pub fn beside(&mut self, what: &str, figure: String, peer: &str, theirs: String, ratio: f64) {
        self.push([what.to_owned(), figure, format!("{peer}: {theirs}"), format!("{ratio:.2}×")]);
    }

    fn push(&mut self, row: [String; 4]) {
        println!("{}", row.join("  |  "));
        self.rows.push(row);
    }

    /// Writes a Markdown table.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut text = "| what | Seaworthy | beside it | ratio |\n|---|---|---|---|\n".to_owned();
        for row in &self.rows {
            text.push_str(&format!("| {} |\n", row.join(" | ")));
        }
        std::fs::write(path, text)?;
        println!("written to {}", path.display());
        Ok(())
    }
}

/// The middle one; of an even number the upper.
pub fn median(mut all: Vec<f64>) -> f64 {
    percentile(&mut all, 0.5)
}

/// A percentile by nearest rank.
pub fn percentile(all: &mut [f64], share: f64) -> f64 {
    all.sort_by(f64::total_cmp);
    let place = ((all.len() as f64 * share) as usize).min(all.len().saturating_sub(1));
    all.get(place).copied().unwrap_or(f64::NAN)
}
