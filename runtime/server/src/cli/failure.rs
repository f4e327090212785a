//! Why a command failed, in the words for whoever typed it: what happened, what to do, and the exit code.
//!
//! Never prints: the entry point does, once. Used by every command.

use std::io;
use std::process::ExitCode;

/// What a script can tell apart. The numbers are part of the command line's interface and told in `--help`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Exit {
    /// The run, the check or the command failed.
    Failed = 1,
    /// The arguments are wrong; also what clap ends with.
    Usage = 2,
    /// The server cannot be reached.
    Unreachable = 3,
    /// There is no such thing on the server.
    NotFound = 4,
    /// The server refused: invalid, conflicting, too much.
    Refused = 5,
    /// The run goes on, but the time to wait for it is over.
    StillRunning = 6,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CliError {
    /// Told to the user.
    Told(Told),
    /// Already told, such as mistakes in a checked file.
    Silent(Exit),
    /// Nobody reads the output any more, such as `motet runs list | head -1`: no failure at all.
    BrokenPipe,
}

/// A failure with the words for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    /// What happened, in one line.
    pub(crate) message: String,
    /// Single mistakes, one line each.
    pub(crate) details: Vec<String>,
    /// What to do about it, in one line.
    pub(crate) advice: Option<String>,
    /// How the process ends.
    pub(crate) exit: Exit,
}

/// What a command gives.
pub(crate) type CliResult<T = ()> = Result<T, CliError>;

impl CliError {
    /// A failure with its exit code.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self::Told(Told { message: message.into(), details: vec![], advice: None, exit })
    }

    /// Something on this machine failed.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, message)
    }

    /// The arguments do not make sense.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// The same with what to do about it.
    #[must_use]
    pub(crate) fn advise(mut self, advice: impl Into<String>) -> Self {
        if let Self::Told(told) = &mut self {
            told.advice = Some(advice.into());
        }
        self
    }

    /// The same with single mistakes.
    #[must_use]
    pub(crate) fn with_details(mut self, details: Vec<String>) -> Self {
        if let Self::Told(told) = &mut self {
            told.details = details;
        }
        self
    }

    /// How the process ends.
    pub(crate) fn exit(&self) -> ExitCode {
        match self {
            Self::Told(told) => told.exit.into(),
            Self::Silent(exit) => (*exit).into(),
            Self::BrokenPipe => ExitCode::SUCCESS,
        }
    }
}

impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::BrokenPipe,
            _ => Self::failed(format!("cannot write the output: {error}")),
        }
    }
}
