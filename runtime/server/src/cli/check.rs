//! `motet check`: every mistake in definition files, with its place, what to write instead, and the line itself.
//!
//! Works offline. Never stops at the first mistake.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use motet_engine::definition::{Diagnostic, json_schema};
use serde_json::json;

use super::Context;
use super::definitions::{self, SourceFile};
use super::failure::{CliError, CliResult, Exit};
use super::output::{Output, Paint};

/// Columns of a line of a file that are shown around a mistake.
const EXCERPT: usize = 96;

/// Arguments of `motet check`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  motet check flows/answer.yaml              one file
  motet check flows/ && motet apply flows/   all of a folder, before they are put on the server
  motet check flows/ --output json           for editors and scripts
  motet check --schema workflow > workflow.schema.json
                                             the JSON Schema, for completion in an editor

Ends with 0 when there is no mistake and with 1 when there is one.")]
pub(crate) struct CheckArgs {
    /// Files, or folders that are searched for .yaml, .yml and .json.
    #[arg(value_name = "FILE|DIR", required_unless_present = "schema")]
    paths: Vec<PathBuf>,
    /// Print the JSON Schema of a kind instead.
    #[arg(long, value_enum, value_name = "KIND", conflicts_with = "paths")]
    schema: Option<Kind>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    Workflow,
    Model,
    Index,
    Schedule,
    Stream,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Workflow => "Workflow",
            Self::Model => "Model",
            Self::Index => "Index",
            Self::Schedule => "Schedule",
            Self::Stream => "Stream",
        }
    }
}

/// Checks, or prints a schema.
pub(crate) fn execute(context: &Context, args: &CheckArgs) -> CliResult {
    let output = &context.output;
    if let Some(kind) = args.schema {
        let schema = json_schema(kind.name())
            .ok_or_else(|| CliError::failed(format!("there is no schema of '{}'", kind.name())))?;
        return output.json(&schema);
    }
    let files = definitions::read(&args.paths)?;
    report(output, &files)?;
    if files.iter().any(|file| !file.mistakes.is_empty()) {
        return Err(CliError::Silent(Exit::Failed));
    }
    Ok(())
}

/// Writes what was found; also what `apply` shows before it refuses.
pub(crate) fn report(output: &Output, files: &[SourceFile]) -> CliResult {
    let mistakes: Vec<&Diagnostic> = files.iter().flat_map(|file| &file.mistakes).collect();
    let count: usize = files.iter().map(|file| file.definitions.len()).sum();
    if output.is_json() {
        let report =
            json!({"ok": mistakes.is_empty(), "files": files.len(), "definitions": count, "mistakes": mistakes});
        return output.json(&report);
    }
    for file in files {
        for mistake in &file.mistakes {
            output.line(describe(mistake, &file.text, output.paint))?;
        }
    }
    let of_files = plural(files.len(), "file");
    if mistakes.is_empty() {
        output.note(format!("{}: {}, no mistakes", of_files, plural(count, "definition")));
    } else {
        let broken = files.iter().filter(|file| !file.mistakes.is_empty()).count();
        output.note(format!("{} in {broken} of {of_files}", plural(mistakes.len(), "mistake")));
    }
    Ok(())
}

fn plural(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// `file:line:column: message`, the line with a caret, and the advice.
fn describe(mistake: &Diagnostic, source: &str, paint: Paint) -> String {
    let place = format!("{}:{}:{}", mistake.file, mistake.line, mistake.column);
    let mut text = format!("{}: {}", paint.bold(&place), mistake.message);
    if let Some(line) = source.lines().nth(mistake.line.wrapping_sub(1)) {
        let (shown, caret) = excerpt(line, mistake.column);
        let number = mistake.line.to_string();
        let margin = " ".repeat(number.len());
        text.push_str(&format!("\n {} {shown}", paint.dim(&format!("{number} |"))));
        text.push_str(&format!("\n {margin} {} {}{}", paint.dim("|"), " ".repeat(caret), paint.red("^")));
    }
    if let Some(advice) = &mistake.advice {
        text.push_str(&format!("\n   {} {advice}", paint.cyan("=")));
    }
    text
}

/// The part of a line around a column, counted from 1, and the place of the column in it, counted from 0.
fn excerpt(line: &str, column: usize) -> (String, usize) {
    let characters: Vec<char> = line.chars().map(|c| if c == '\t' { ' ' } else { c }).collect();
    let at = column.saturating_sub(1).min(characters.len());
    let from = at.saturating_sub(EXCERPT / 2).min(characters.len().saturating_sub(EXCERPT));
    let to = characters.len().min(from + EXCERPT);
    (characters[from..to].iter().collect::<String>().trim_end().to_owned(), at - from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_shows_its_line_with_a_caret() {
        let mistake = Diagnostic {
            file: "a.yaml".to_owned(),
            line: 2,
            column: 3,
            message: "unknown key".to_owned(),
            advice: Some("did you mean 'call'?".to_owned()),
            code: "unknown-key",
        };
        let expected = "a.yaml:2:3: unknown key\n 2 | \u{20} cal: x\n   |   ^\n   = did you mean 'call'?";
        assert_eq!(describe(&mistake, "steps:\n  cal: x\n", Paint::PLAIN), expected);
    }

    #[test]
    fn long_lines_are_cut_around_the_place() {
        let line = "x".repeat(300);
        let (shown, caret) = excerpt(&line, 200);
        assert_eq!((shown.len(), caret), (EXCERPT, EXCERPT / 2));
        let (shown, caret) = excerpt("ab", 9);
        assert_eq!((shown.as_str(), caret), ("ab", 2));
    }
}
