//! A table for people and the same figures for programs.

use std::path::Path;

use anyhow::{Context, bail};
use serde_json::{Value, json};

/// Named columns, rows of cells, remarks.
pub struct Report {
    name: &'static str,
    columns: Vec<&'static str>,
    rows: Vec<Vec<String>>,
    remarks: Vec<String>,
    figures: Value,
    failure: Option<String>,
}

impl Report {
    /// An empty table. `figures` is what the JSON says.
    pub fn new(name: &'static str, columns: &[&'static str], figures: Value) -> Self {
        Self {
            name,
            columns: columns.to_vec(),
            rows: Vec::new(),
            remarks: Vec::new(),
            figures,
            failure: None,
        }
    }

    /// Sets what the JSON says.
    pub fn set_figures(&mut self, figures: Value) {
        self.figures = figures;
    }

    /// Adds a row, one cell a column.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Adds a line below the table.
    pub fn remark(&mut self, line: impl Into<String>) {
        self.remarks.push(line.into());
    }

    /// Says that something had to hold and did not; what was measured is told all the same.
    pub fn fail(&mut self, what: String) {
        self.failure = Some(what);
    }

    /// What had to hold and did not.
    ///
    /// # Errors
    /// That.
    pub fn outcome(self) -> anyhow::Result<()> {
        self.failure.map_or(Ok(()), |what| bail!(what))
    }

    /// The names of the columns.
    pub fn columns(&self) -> &[&'static str] {
        &self.columns
    }

    /// The rows so far.
    pub fn rows(&self) -> &[Vec<String>] {
        &self.rows
    }

    /// The lines below the table so far.
    pub fn remarks(&self) -> &[String] {
        &self.remarks
    }

    /// Prints the table, in Markdown, so that it can be pasted.
    pub fn print(&self) {
        let width = |column: usize| {
            let cells = self
                .rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count());
            cells
                .chain([self.columns[column].chars().count()])
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let line = |cells: &[String]| {
            let cells: Vec<String> = cells
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:<width$}"))
                .collect();
            println!("| {} |", cells.join(" | "));
        };
        println!("\n### {}\n", self.name);
        line(
            &self
                .columns
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>(),
        );
        line(
            &widths
                .iter()
                .map(|width| "-".repeat(*width))
                .collect::<Vec<_>>(),
        );
        self.rows.iter().for_each(|row| line(row));
        println!();
        for remark in &self.remarks {
            println!("{remark}");
        }
        println!("{}", machine());
    }

    /// Writes the figures.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let all = json!({
            "bench": self.name,
            "version": env!("CARGO_PKG_VERSION"),
            "machine": machine(),
            "figures": self.figures,
        });
        std::fs::write(path, format!("{all:#}\n"))
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

/// What this was measured on.
fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo")
        .ok()
        .and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("model name"))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        })
        .unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg")
        .ok()
        .and_then(|text| text.split_whitespace().next().map(str::to_owned))
        .unwrap_or_else(|| "unknown".to_owned());
    format!("Machine: {cpu}, {cores} cores; load average {load} at the end.")
}

/// The value below which this part (0 to 1) of the values lies; 0 for none.
pub fn percentile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    sorted
        .get((last as f64 * part).round() as usize)
        .copied()
        .unwrap_or(0.0)
}

/// The middle value.
pub fn median(values: &[f64]) -> f64 {
    percentile(values, 0.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values = [5.0, 1.0, 4.0, 2.0, 3.0];
        assert_eq!(
            (
                median(&values),
                percentile(&values, 0.95),
                percentile(&[], 0.5)
            ),
            (3.0, 5.0, 0.0)
        );
    }
}
