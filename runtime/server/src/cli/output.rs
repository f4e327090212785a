//! Where commands write: tables or JSON to standard output, words about the work to standard error.
//!
//! Knows whether people or programs read: colours and moving progress are for terminals only. Never panics when the
//! reader goes away. Used by every command.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

use super::failure::{CliError, CliResult, Told};

/// How results are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns for people.
    #[default]
    Table,
    /// JSON for programs.
    Json,
}

/// The two streams and who reads them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    /// How results are written.
    pub(crate) format: Format,
    /// Whether words about the work are left out.
    pub(crate) quiet: bool,
    /// How results look.
    pub(crate) paint: Paint,
    /// How words about the work look.
    pub(crate) error_paint: Paint,
    is_terminal: bool,
    moves: bool,
}

/// Colours, or none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Paint(bool);

impl Paint {
    /// No colours.
    #[cfg(test)]
    pub(crate) const PLAIN: Self = Self(false);

    fn wrap(self, code: &str, text: &str) -> String {
        if self.0 { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.wrap("1", text)
    }

    pub(crate) fn dim(self, text: &str) -> String {
        self.wrap("2", text)
    }

    pub(crate) fn red(self, text: &str) -> String {
        self.wrap("1;31", text)
    }

    pub(crate) fn green(self, text: &str) -> String {
        self.wrap("32", text)
    }

    pub(crate) fn yellow(self, text: &str) -> String {
        self.wrap("33", text)
    }

    pub(crate) fn cyan(self, text: &str) -> String {
        self.wrap("36", text)
    }

    /// The state of a run, a step or a model in the colour of its meaning.
    pub(crate) fn state(self, state: &str) -> String {
        match state {
            "succeeded" | "ready" | "created" | "alive" => self.green(state),
            "failed" | "timed_out" | "lost" => self.red(state),
            "running" | "loading" | "waiting" => self.cyan(state),
            "cancelled" | "paused" | "suspect" | "unheard" | "draining" => self.yellow(state),
            _ => state.to_owned(),
        }
    }
}

impl Output {
    /// Finds out who reads.
    pub(crate) fn new(format: Format, quiet: bool) -> Self {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let colours = !set("NO_COLOR") && !dumb;
        let (is_terminal, moves) = (io::stdout().is_terminal(), io::stderr().is_terminal() && !dumb);
        Self {
            format,
            quiet,
            paint: Paint(colours && is_terminal),
            error_paint: Paint(colours && io::stderr().is_terminal()),
            is_terminal,
            moves,
        }
    }

    /// Whether results are written as JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Writes a line of a result.
    pub(crate) fn line(&self, text: impl AsRef<str>) -> CliResult {
        let mut out = io::stdout().lock();
        writeln!(out, "{}", text.as_ref().trim_end())?;
        // A follower of events wants each line at once.
        out.flush()?;
        Ok(())
    }

    /// Writes a result as JSON.
    pub(crate) fn json(&self, value: &Value) -> CliResult {
        self.line(format!("{value:#}"))
    }

    /// Writes one JSON value on one line, for results without an end.
    pub(crate) fn json_line(&self, value: &Value) -> CliResult {
        self.line(value.to_string())
    }

    /// Says how the work goes, on standard error; nothing with `--quiet`.
    pub(crate) fn note(&self, text: impl AsRef<str>) {
        if !self.quiet {
            // Words about the work are worth no failure of the work.
            let _ = writeln!(io::stderr().lock(), "{}", text.as_ref().trim_end());
        }
    }

    /// Tells why the command failed.
    pub(crate) fn failure(&self, told: &Told) {
        let mut text = format!("{} {}\n", self.error_paint.red("error:"), told.message);
        for detail in &told.details {
            text.push_str(&format!("  {detail}\n"));
        }
        if let Some(advice) = &told.advice {
            text.push_str(&format!("{} {advice}\n", self.error_paint.cyan("try:")));
        }
        let _ = io::stderr().lock().write_all(text.as_bytes());
    }

    /// A table with a header and without frames; `right` names the columns of numbers.
    pub(crate) fn table<const N: usize>(
        &self,
        header: [&str; N],
        right: &[usize],
        rows: Vec<[String; N]>,
    ) -> CliResult {
        self.line(self.layout(header, right, rows))
    }

    /// The text of a table, for those who write it themselves.
    pub(crate) fn layout<const N: usize>(&self, header: [&str; N], right: &[usize], rows: Vec<[String; N]>) -> String {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        // Programs that read tables get whole values; people get what fits.
        let arrangement = if self.is_terminal { ContentArrangement::Dynamic } else { ContentArrangement::Disabled };
        table.set_content_arrangement(arrangement);
        let paint = self.paint;
        table.set_header(header.map(|title| Cell::new(paint.dim(&title.to_uppercase()))));
        for row in rows {
            table.add_row(row);
        }
        for (place, column) in table.column_iter_mut().enumerate() {
            column.set_padding((if place == 0 { 0 } else { 1 }, 1));
            if right.contains(&place) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
    }

    /// Progress of work whose end is known: a bar on terminals, a line at the end elsewhere.
    pub(crate) fn progress(&self, what: &str, total: u64, bytes: bool) -> Progress {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        if self.quiet || !self.moves {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        let figures = if bytes { "{bytes}/{total_bytes}" } else { "{pos}/{len}" };
        let template = format!("  {{msg:24}} {{bar:32}} {figures}");
        if let Ok(style) = ProgressStyle::with_template(&template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        Progress { bar }
    }
}

/// Work that is going on. Cleared from the terminal when dropped.
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Says what is being done now.
    pub(crate) fn rename(&self, what: &str) {
        self.bar.set_message(what.to_owned());
    }

    /// Sets how much is done, and how much there is.
    pub(crate) fn set(&self, done: u64, total: Option<u64>) {
        if let Some(total) = total {
            self.bar.set_length(total);
        }
        self.bar.set_position(done);
    }

    /// One piece more is done.
    pub(crate) fn advance(&self) {
        self.bar.inc(1);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A member of a JSON map as text for a table; empty where there is none.
pub(crate) fn text(value: &Value, key: &str) -> String {
    match &value[key] {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// What the list of an answer holds, whatever the answer wraps it in.
pub(crate) fn items<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    let list = value.as_array().or_else(|| value[key].as_array()).or_else(|| value["items"].as_array());
    list.map_or(&[], Vec::as_slice)
}

/// The first characters of a text on one line.
pub(crate) fn shorten(text: &str, most: usize) -> String {
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match flat.char_indices().nth(most) {
        None => flat,
        Some(_) => flat.chars().take(most.saturating_sub(1)).collect::<String>().trim_end().to_owned() + "…",
    }
}

impl From<serde_json::Error> for CliError {
    fn from(error: serde_json::Error) -> Self {
        Self::failed(format!("this is not the JSON that was expected: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(shorten("a  b\nc", 10), "a b c");
        assert_eq!(shorten("äöüß", 3), "äö…");
        assert_eq!(shorten("", 3), "");
    }

    #[test]
    fn tables_align_numbers_to_the_right_and_have_no_frame() {
        let output = Output {
            format: Format::Table,
            quiet: true,
            paint: Paint::PLAIN,
            error_paint: Paint::PLAIN,
            is_terminal: false,
            moves: false,
        };
        let rows = vec![["minilm".to_owned(), "7".to_owned()], ["x".to_owned(), "1234".to_owned()]];
        assert_eq!(output.layout(["name", "calls"], &[1], rows), "NAME    CALLS\nminilm      7\nx        1234");
    }

    #[test]
    fn lists_are_found_in_both_wrappings() {
        assert_eq!(items(&serde_json::json!({"runs": [1]}), "runs").len(), 1);
        assert_eq!(items(&serde_json::json!([1, 2]), "runs").len(), 2);
        assert_eq!(items(&serde_json::json!({}), "runs").len(), 0);
    }
}
