//! Rules about the text of one source file.
//!
//! Sizes, headers, names, words that must not be committed, waits in tests, and the purity of the engine.

use super::Breach;

/// Lines of a file past which it is worth splitting; the test tells, but does not fail.
pub const FILE_LINES_AIM: usize = 400;

/// Lines of a file past which it must be split.
pub const FILE_LINES: usize = 500;

/// Lines of a function past which it is to be split.
pub const FUNCTION_LINES: usize = 70;

/// Names that say nothing about what is in a file.
const EMPTY_NAMES: [&str; 8] = ["util", "utils", "common", "helper", "helpers", "misc", "manager", "mod"];

/// What may stand nowhere. Spelled in two halves, so that this file does not break its own rules.
const NOWHERE: [(&str, &str, &str); 9] = [
    ("TO", "DO", "what is left to do belongs into an issue"),
    ("FIX", "ME", "what is left to do belongs into an issue"),
    ("to", "do!(", "no unfinished code"),
    ("unimple", "mented!(", "no unfinished code"),
    ("#[ig", "nore", "no ignored tests"),
    ("unbounded_", "channel", "every queue is bounded"),
    ("mpsc::", "unbounded", "every queue is bounded"),
    ("mpsc::", "channel()", "every queue is bounded: use sync_channel"),
    ("thread::", "sleep", "wait for a condition, not for time"),
];

/// What may not stand in tests: sleeping is no synchronisation.
const NOT_IN_TESTS: [(&str, &str); 1] = [("time::", "sleep")];

/// What may not stand in the engine's rules.
const NOT_IN_ENGINE: [(&str, &str); 9] = [
    ("Inst", "ant::"),
    ("System", "Time"),
    ("tokio", "::"),
    ("tracing", "::"),
    ("rand", "::"),
    ("Hash", "Map"),
    ("Hash", "Set"),
    ("std::", "fs"),
    ("std::", "env"),
];

/// Folders of people's machines.
const MACHINE_PATHS: [(&str, &str); 4] = [("/ho", "me/"), ("/wo", "rk/"), ("/ro", "ot/"), ("/Us", "ers/")];

/// A source file.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// Path relative to the workspace, with forward slashes.
    pub path: &'a str,
    /// The text.
    pub text: &'a str,
}

impl Source<'_> {
    fn breach(&self, line: usize, rule: impl Into<String>) -> Breach {
        Breach::new(format!("{}:{line}", self.path), rule)
    }

    /// Whether the line (counted from 1) is part of tests.
    fn is_test(&self, line: usize) -> bool {
        let in_test_file = self.path.starts_with("tests/")
            || self.path.contains("/tests/")
            || self.path.ends_with("/tests.rs")
            || self.path.contains("/contract");
        in_test_file || self.tests_begin().is_some_and(|first| line >= first)
    }

    /// The line at which an inner module of tests begins; it stands at the end of a file.
    fn tests_begin(&self) -> Option<usize> {
        let lines: Vec<_> = self.text.lines().collect();
        let attribute = |place: usize| lines[place].trim() == "#[cfg(test)]";
        (0..lines.len().saturating_sub(1))
            .find(|&place| attribute(place) && lines[place + 1].starts_with("mod ") && lines[place + 1].ends_with('{'))
            .map(|place| place + 1)
    }
}

/// Every broken rule of one file. `long_files` and `long_functions` name what may be longer, with its bound.
#[must_use]
pub fn breaches(source: Source<'_>, long_files: &[(&str, usize)], long_functions: &[(&str, usize)]) -> Vec<Breach> {
    let mut found = vec![];
    if !source.text.starts_with("//! ") {
        found.push(source.breach(1, "begins with `//!`: what it is, what it never does, who uses it"));
    }
    let name = source.path.rsplit('/').next().unwrap_or_default().trim_end_matches(".rs");
    if EMPTY_NAMES.contains(&name) {
        found.push(source.breach(1, format!("'{name}' says nothing: name the noun in the file")));
    }
    let bound = bound_of(source.path, long_files, FILE_LINES);
    let lines = source.text.lines().count();
    if lines > bound {
        found.push(source.breach(lines, format!("{lines} lines are more than {bound}: split the file")));
    }
    for (function, line, length) in functions(source.text) {
        let bound = bound_of(&format!("{}::{function}", source.path), long_functions, FUNCTION_LINES);
        if length > bound {
            found.push(source.breach(line, format!("fn {function} has {length} lines, more than {bound}: split it")));
        }
    }
    for (place, text) in source.text.lines().enumerate() {
        found.extend(words(&source, place + 1, text));
    }
    found
}

fn bound_of(name: &str, exceptions: &[(&str, usize)], usual: usize) -> usize {
    exceptions.iter().find(|(exception, _)| *exception == name).map_or(usual, |(_, bound)| *bound)
}

fn words(source: &Source<'_>, line: usize, text: &str) -> Vec<Breach> {
    let has = |halves: &(&str, &str)| text.contains(&[halves.0, halves.1].concat());
    let mut found = vec![];
    for (first, second, why) in &NOWHERE {
        if has(&(*first, *second)) {
            found.push(source.breach(line, format!("'{first}{second}': {why}")));
        }
    }
    for halves in MACHINE_PATHS.iter().filter(|halves| has(halves)) {
        found.push(source.breach(line, format!("'{}{}': a path of somebody's machine", halves.0, halves.1)));
    }
    if source.is_test(line) {
        for halves in NOT_IN_TESTS.iter().filter(|halves| has(halves)) {
            found.push(source.breach(line, format!("'{}{}' in a test: wait for a condition", halves.0, halves.1)));
        }
    } else if source.path.starts_with("runtime/engine/") && !text.trim_start().starts_with("//") {
        for halves in NOT_IN_ENGINE.iter().filter(|halves| has(halves)) {
            found.push(source.breach(line, format!("'{}{}': the engine is pure and ordered", halves.0, halves.1)));
        }
    }
    found
}

/// Name, first line and length of every function with a body. Relies on rustfmt: a body ends at the brace that stands
/// as deep as its `fn`.
#[must_use]
pub fn functions(text: &str) -> Vec<(String, usize, usize)> {
    let lines: Vec<_> = text.lines().collect();
    let mut found = vec![];
    for (place, line) in lines.iter().enumerate() {
        let trimmed = line.trim_start();
        let Some(name) = function_name(trimmed) else { continue };
        let indent = &line[..line.len() - trimmed.len()];
        if line.ends_with('}') || line.ends_with(';') {
            found.push((name, place + 1, 1));
            continue;
        }
        let closing = format!("{indent}}}");
        // A signature over several lines without a body ends in a semicolon at the same depth.
        let end = lines[place + 1..]
            .iter()
            .position(|later| *later == closing || (later.starts_with(&format!("{indent})")) && later.ends_with(';')));
        if let Some(end) = end {
            found.push((name, place + 1, end + 2));
        }
    }
    found
}

fn function_name(line: &str) -> Option<String> {
    let mut words = line.split([' ', '(']).filter(|word| !word.is_empty());
    loop {
        match words.next()? {
            "fn" => break,
            "pub" | "crate)" | "super)" | "self)" | "async" | "const" | "unsafe" | "extern" | "\"C\"" => {}
            _ => return None,
        }
    }
    let name: String = words.next()?.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (!name.is_empty()).then_some(name)
}
