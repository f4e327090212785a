//! Logs and metrics: where they go and in which form.
//!
//! Never decides what is logged; every room does that through `tracing` and `metrics`. Used by `bootstrap` and the CLI.

pub mod metrics;

use std::io::IsTerminal as _;

use anyhow::Context as _;
use motet_config::{LogFormat, LogSettings};
use tracing_subscriber::EnvFilter;

/// Sends log lines to standard error: as text on a terminal, else as JSON, unless the settings say which. The first
/// call of a process counts.
///
/// # Errors
/// When the filter cannot be read.
pub fn init(settings: &LogSettings) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&settings.filter)
        .with_context(|| format!("log.filter: '{}' is no filter; write one such as 'info'", settings.filter))?;
    let terminal = std::io::stderr().is_terminal();
    let json = match settings.format {
        LogFormat::Auto => !terminal,
        LogFormat::Json => true,
        LogFormat::Text => false,
    };
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A process that embeds several servers keeps the subscriber of the first.
    let _ = if json {
        lines.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init()
    } else {
        lines.with_ansi(terminal).with_target(false).try_init()
    };
    Ok(())
}
