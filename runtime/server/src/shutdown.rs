//! The signals that end the process.
//!
//! Never stops anything itself; `bootstrap` does. Used by `serve` and by the demo.

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Exit code after a second request to end, as shells give it for an interrupted program.
pub const EXIT_INTERRUPTED: i32 = 130;

/// Requests to end: SIGTERM of a service manager, SIGINT of a terminal.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes the signals over from their default, which would end the process at once.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn listen() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("SIGTERM cannot be received")?,
            interrupt: signal(SignalKind::interrupt()).context("SIGINT cannot be received")?,
        })
    }

    /// Waits for the next one and names it.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// From now on the next request to end takes effect at once; what was acknowledged is durable.
pub fn end_at_once_on_next(mut signals: Signals) {
    tokio::spawn(async move {
        let name = signals.next().await;
        tracing::warn!(signal = name, "asked again: ending at once");
        std::process::exit(EXIT_INTERRUPTED);
    });
}
